"""A recipe's first task on a virtual device -> whether its times change where events are read from a file there, not a pipe.

    python bench/reading.py recipes/quickstart.yaml --blocks 6

Launches of the shared graph, A B B A: A is read through a pipe, each line at once, B as quadbench reads it. Prints the medians of
each launch, then the comparison of each metric.
"""

import argparse
import contextlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quadbench.artifacts import LaunchPlan, SequenceBlock, Variant
from quadbench.devices import connect
from quadbench.devices.output import Lines, Tail
from quadbench.measure import LaunchSettings, measure_launch
from quadbench.pipeline import built
from quadbench.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout import roll_out
from quadbench.statistics import compare_launches

METRICS = ("unet_ns", "end_to_end_ns")


class Unwatched:
    """An observer that watches nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *words: None


class Piped:
    """A device whose streams end with the connection that started them."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def stream(self, argv: Sequence[str], timeout_s: float, folder: str) -> Iterator[str]:
        lines = Lines(f"the output of '{argv[0]}'")
        with contextlib.closing(self._device._commands.run(argv, timeout_s, Tail())) as output:
            for piece in output:
                yield from lines.take(piece)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    bundle = built(recipe, layout=layout, observer=Unwatched())
    sequence = (SequenceBlock(task=recipe.tasks[0].name, warmup=1, iterations=options.iterations),)
    launch = LaunchPlan(variant=Variant.SHARED, launch=0, sequence=sequence)
    settings = LaunchSettings(run_id="reading", layout=layout, runtime=recipe.runtime, timeout_s=recipe.measure.timeout_s)
    medians: dict[str, dict[str, list[float]]] = {metric: {"pipe": [], "file": []} for metric in METRICS}
    with connect(["virtual:s25"], layout=layout) as devices:
        (installation,) = roll_out(
            [bundle] * len(devices), devices, layout=layout, observer=Unwatched(), runs_float=False
        ).installations
        ways = {"pipe": replace(installation, device=Piped(installation.device)), "file": installation}
        for way in ("pipe", "file", "file", "pipe") * options.blocks:
            record = measure_launch(ways[way], launch, settings)
            if record.reason:
                raise SystemExit(record.reason)
            for metric in METRICS:
                values = [sample.value for sample in record.samples if sample.metric == metric and not sample.is_warmup]
                medians[metric][way].append(statistics.median(values))
            print(way, *(f"{metric} {medians[metric][way][-1] / 1e6:.2f} ms" for metric in METRICS), flush=True)  # noqa: T201
    for metric, of_way in medians.items():
        print(metric, compare_launches(of_way["pipe"], of_way["file"]))  # noqa: T201


if __name__ == "__main__":
    main()
