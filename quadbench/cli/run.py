"""Run: a recipe and devices -> records, a report, and its figures on the terminal."""

import argparse
from typing import Any

from rich.console import Console

from quadbench import pipeline
from quadbench.cli.addresses import add_devices, chosen_devices
from quadbench.cli.console import RunConsole, print_error
from quadbench.cli.options import add_command, add_recipe
from quadbench.cli.result import add_full, print_result
from quadbench.recipe import load_recipe


def add(commands: Any) -> None:
    """Add `quadbench run` to the commands."""
    parser = add_command(commands, "run", run)
    add_recipe(parser)
    add_devices(parser)
    add_full(parser)


def run(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe)
    chosen = chosen_devices(options.devices, options.serial)
    with RunConsole(Console(stderr=True)) as observer:
        outcome = pipeline.run(recipe, chosen, layout=options.layout, observer=observer)
    print_result(options, outcome.result, outcome.report)
    for address, failure in outcome.failures.items():
        print_error(f"{address} was left out: {failure}")
    return outcome.exit_code
