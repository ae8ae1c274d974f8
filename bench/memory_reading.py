"""A recipe's first task on this machine -> whether an image takes longer where the harness has just read its memory.

    python bench/memory_reading.py recipes/quickstart.yaml --launches 8

A launch is too coarse a unit for this, since a virtual machine's speed changes from one to the next by more than a reading could
cost. So images of one process are compared. Memory is read between images, here between every fifth and the next, and the events
tell at which image, but not on which side of it: the harness reads as an image has ended or as the next one begins. Hence pairs
of images in succession: of a pair with a reading at its first image, one image at least follows the reading.

Prints for each launch the median of these pairs' times over the median of pairs without a reading at either, then the mean over
launches with Student's interval at 95 %. An image is half a pair, so what a reading costs the image after it is at most twice
what is printed beyond 1.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median, stdev

from in_turn import Unwatched, first_task
from python_api import launched

from quadbench.devices import connect
from quadbench.harness.plan import harness_plan
from quadbench.pipeline import built
from quadbench.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout import roll_out
from quadbench.statistics import t_quantile

IMAGES_APART = 4.5  # so that a reading falls due in the middle of an image


def images_of(lines: Sequence[str]) -> Iterator[tuple[float, bool]]:
    """Yield each image's time in nanoseconds, and whether a reading was written with it."""
    time_ns, is_read = 0.0, False
    for event in map(json.loads, lines):
        metric = event.get("metric") if event.get("event") == "sample" and not event.get("is_warmup") else None
        if metric == "end_to_end_ns":
            if time_ns:
                yield time_ns, is_read
            time_ns, is_read = event["value"], False
        is_read = is_read or metric == "rss_bytes"


def ratio_of(images: Sequence[tuple[float, bool]]) -> tuple[float, int]:
    """Return the median of pairs with a reading at the first image over that of pairs with none at either, and the former's number."""
    pairs = [(one + other, first, second) for (one, first), (other, second) in zip(images, images[1:], strict=False)]
    after = [time for time, first, _ in pairs if first]
    before = [is_read for _, is_read in images]
    apart = [time for place, (time, *at) in enumerate(pairs) if not any(at) and not (place and before[place - 1])]
    return median(after) / median(apart), len(after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--launches", type=int, default=8)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    bundle, ratios = built(recipe, layout=layout, observer=Unwatched()), list[float]()
    with connect(["local"], layout=layout) as devices, tempfile.TemporaryDirectory() as folder:
        (installation,) = roll_out([bundle], devices, layout=layout, observer=Unwatched(), runs_float=False).installations
        harness, path = installation.path_of_digest(installation.program, "the harness"), Path(folder) / "plan.json"

        def run(images: int, period_ms: int) -> list[tuple[float, bool]]:
            plan = harness_plan(installation, first_task(recipe, images), runtime=recipe.runtime, images=None)
            path.write_text(json.dumps(plan | {"runtime": plan["runtime"] | {"memory_period_ms": period_ms}}))
            return list(images_of(launched([harness, str(path)])[0]))

        image_ns = median(time for time, _ in run(20, 0))
        for _ in range(options.launches):
            images = run(options.images, round(IMAGES_APART * image_ns / 1e6))
            ratio, readings = ratio_of(images)
            ratios.append(ratio)
            image_ns = median(time for time, _ in images)
            print(f"{len(images)} images of {image_ns / 1e6:.1f} ms, {readings} readings, ratio {ratio:.5f}", flush=True)  # noqa: T201
    half = t_quantile(0.975, len(ratios) - 1) * stdev(ratios) / math.sqrt(len(ratios))
    print(f"\n{mean(ratios):.5f} ({mean(ratios) - half:.5f} to {mean(ratios) + half:.5f}) over {len(ratios)} launches")  # noqa: T201


if __name__ == "__main__":
    main()
