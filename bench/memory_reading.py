"""A recipe's first task on this machine -> whether an image takes longer where the harness has just read its memory.

    python bench/memory_reading.py recipes/quickstart.yaml --launches 16

A launch is too coarse a unit for this, since a virtual machine's speed changes from one to the next by more than a reading could
cost. So images of one process are compared. Memory is read between images, here between every sixth and the next, and the events
tell at which image, but not on which side of it: the harness reads as an image has ended or as the next one begins. Hence pairs
of images in succession. Of a pair with a reading at its first image, one follows the reading; the pairs before and after it
have none. Its ratio is its time over the mean of theirs, so that slow drift cancels.

Prints for each launch the median ratio of its readings, then the mean over launches with Student's interval at 95 %. An image is
half a pair, so an image after a reading takes longer by twice what is printed beyond 1.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev

from in_turn import Unwatched, first_task
from python_api import launched

from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.harness.installation import harness_plan
from quadbench.pipeline import ensure_bundle
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout import roll_out
from quadbench.statistics.intervals import t_quantile

IMAGES_APART = 5.5  # so that a reading falls due in the middle of an image
MOST_MS = 60_000  # that a plan may have between two readings


def images_of(lines: Sequence[str]) -> list[tuple[float, bool]]:
    """Return each image's time in nanoseconds, and whether a reading was written with it."""
    images: list[tuple[float, bool]] = []
    for event in map(json.loads, lines):
        metric = event.get("metric") if event.get("event") == "sample" and not event.get("is_warmup") else None
        if metric == "end_to_end_ns":
            images.append((event["value"], False))
        elif metric == "rss_bytes" and images:
            images[-1] = (images[-1][0], True)
    return images


def ratios_of(images: Sequence[tuple[float, bool]]) -> list[float]:
    """Return the time of each pair with a reading at its first image, and none near, over the mean of its neighbours."""
    times, ratios = [time for time, _ in images], []
    readings = [place for place, (_, is_read) in enumerate(images) if is_read]
    for before, place, after in zip(readings, readings[1:], readings[2:], strict=False):
        if before + 1 < place - 2 and place + 3 < after:
            ratios.append(2 * sum(times[place : place + 2]) / sum(times[place - 2 : place] + times[place + 2 : place + 4]))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--launches", type=int, default=16)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    if options.launches < 2 or options.images < 30:
        parser.error(f"{options.launches} launches of {options.images} images; expected 2 and 30 at least")
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    bundle, ratios = ensure_bundle(recipe, layout=layout, observer=Unwatched()), list[float]()
    with connect(parse_addresses(["local"]), layout=layout) as devices, tempfile.TemporaryDirectory() as folder:
        (installation,) = roll_out([bundle], devices, layout=layout, observer=Unwatched(), runs_float=False).installations
        harness, path = installation.path_of_digest(installation.program, "the harness"), Path(folder) / "plan.json"

        def run(images: int, period_ms: int) -> list[tuple[float, bool]]:
            plan = harness_plan(installation, first_task(recipe, images), runtime=recipe.runtime, images=None)
            path.write_text(json.dumps(plan | {"runtime": plan["runtime"] | {"memory_period_ms": period_ms}}))
            return images_of(launched([harness, str(path)])[0])

        image_ns = median(time for time, _ in run(20, 0))
        for _ in range(options.launches):
            period_ms = round(IMAGES_APART * image_ns / 1e6)
            if period_ms > MOST_MS:
                raise SystemExit(f"an image takes {image_ns / 1e9:.1f} s, and readings would be more than {MOST_MS} ms apart")
            images = run(options.images, period_ms)
            if not (own := ratios_of(images)):
                raise SystemExit(
                    f"no reading among {len(images)} images has two free ones on either side; expected one: more --images"
                )
            ratios.append(median(own))
            image_ns = median(time for time, _ in images)
            print(f"{len(images)} images of {image_ns / 1e6:.1f} ms, {len(own)} readings, ratio {ratios[-1]:.5f}", flush=True)  # noqa: T201
    half = t_quantile(0.975, len(ratios) - 1) * stdev(ratios) / math.sqrt(len(ratios))
    print(f"\n{mean(ratios):.5f} ({mean(ratios) - half:.5f} to {mean(ratios) + half:.5f}) over {len(ratios)} launches")  # noqa: T201


if __name__ == "__main__":
    main()
