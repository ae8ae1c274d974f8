"""Run: a recipe and devices -> records, a report, and its figures on the terminal; or what a run would be."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from quadbench import pipeline
from quadbench.artifacts import MIB
from quadbench.cli.addresses import add_devices, chosen_devices
from quadbench.cli.console import RunConsole, print_error, print_json, print_text
from quadbench.cli.options import add_command, add_recipe
from quadbench.cli.result import add_full, print_result
from quadbench.recipe import load_recipe
from quadbench.rollout.forecast import Forecast, forecast

_SCHEMA_VERSION = 1  # of the JSON of a dry run


def add(commands: Any) -> None:
    """Add `quadbench run` to the commands."""
    parser = add_command(commands, "run", run)
    add_recipe(parser)
    add_devices(parser)
    add_full(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be built, pushed and run on each device, and do nothing of it"
    )


def run(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe)
    chosen = chosen_devices(options.devices, options.serial, options.layout)
    if options.dry_run:
        return _print_forecasts(options, forecast(recipe, chosen, layout=options.layout))
    with RunConsole(Console(stderr=True)) as observer:
        outcome = pipeline.run(recipe, chosen, layout=options.layout, observer=observer)
    print_result(options, outcome.result, outcome.report)
    for address, failure in outcome.failures.items():
        print_error(f"{address} was left out: {failure}")
    return outcome.exit_code


def _print_forecasts(options: argparse.Namespace, forecasts: Sequence[Forecast]) -> int:
    if options.json:
        print_json({"schema_version": _SCHEMA_VERSION, "devices": [asdict(one) for one in forecasts]})
    else:
        print_text("\n\n".join("\n".join(_lines(one)) for one in forecasts))
    return 0


def _lines(one: Forecast) -> list[str]:
    pushed = {what: size_bytes for what, size_bytes in one.push_bytes.items() if size_bytes}
    sizes = [f"  {what.ljust(18)} {size_bytes / MIB:8.1f} MB" for what, size_bytes in pushed.items()]
    there = f"bundle {one.bundle[:12]}" if one.bundle else "no bundle yet"
    launches = [f"run: {one.launches} launches, {one.images} images"] if one.launches else []
    return [
        f"{one.address}: {one.title}, {one.abi}, {one.target}; {there}",
        *(f"build: {what}" for what in one.to_build),
        f"push: {sum(pushed.values()) / MIB:.1f} MB{' and what is built' if one.to_build else ''}, less what is there already",
        *sizes,
        *launches,
        *(f"missing: {what}" for what in one.missing),
    ]
