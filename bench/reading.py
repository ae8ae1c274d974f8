"""A recipe's first task on a virtual device -> whether its times change where events are read from a file there, not a pipe.

    python bench/reading.py recipes/quickstart.yaml --blocks 6

Launches of the shared graph, A B B A: A is read through a pipe, each line at once, B as quadbench reads it. Prints the medians of
each launch, then the comparison of each metric.
"""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from in_turn import Unwatched, first_task, launch_in_turn

from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.devices.device import LineBuffer, OutputTail
from quadbench.measure.launch import measure_launch
from quadbench.measure.launch_record import LaunchSettings
from quadbench.pipeline import ensure_bundle
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout import roll_out


class Piped:
    """A device whose streams end with the connection that started them."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def stream(self, argv: Sequence[str], timeout_s: float, folder: str) -> Iterator[str]:
        lines = LineBuffer(f"the output of '{argv[0]}'")
        with contextlib.closing(self._device._commands.run(argv, timeout_s, OutputTail())) as output:
            for piece in output:
                yield from lines.feed(piece)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    bundle = ensure_bundle(recipe, layout=layout, observer=Unwatched())
    settings = LaunchSettings(run_id="reading", layout=layout, runtime=recipe.runtime, timeout_s=recipe.measure.timeout_s)
    with connect(parse_addresses(["virtual:s25"]), layout=layout) as devices:
        (installation,) = roll_out(
            [bundle] * len(devices), devices, layout=layout, observer=Unwatched(), runs_float=False
        ).installations
        ways = {"pipe": replace(installation, device=Piped(installation.device)), "file": installation}
        launch = first_task(recipe, options.iterations)
        launch_in_turn("pipe", "file", options.blocks, lambda way: measure_launch(ways[way], launch, settings))


if __name__ == "__main__":
    main()
