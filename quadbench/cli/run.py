"""Run: a recipe and devices -> records, a report, and its figures on the terminal."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from quadbench import pipeline
from quadbench.cli.console import RunConsole, print_error
from quadbench.cli.options import add_command, add_recipe, addresses
from quadbench.cli.report import print_result
from quadbench.devices import SERIAL_VARIABLE
from quadbench.errors import HarnessError, UserError
from quadbench.recipe import load_recipe
from quadbench.target.profile import LOCAL_NAME


def add(commands: Any) -> None:
    """`quadbench run`."""
    parser = add_command(commands, "run", run)
    add_recipe(parser)
    add_devices(parser)


def add_devices(parser: argparse.ArgumentParser) -> None:
    """`--devices` and `-s`, for `chosen_devices`."""
    parser.add_argument(
        "--devices",
        default="",
        metavar="A,B",
        help="addresses: s25, s25@SERIAL, SERIAL, virtual:s25, hub:s25, local (default: $ANDROID_SERIAL, else local)",
    )
    parser.add_argument("-s", "--serial", metavar="SERIAL", help="the phone with this serial, as adb's option of that name")


def run(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe)
    chosen = chosen_devices(options.devices, options.serial)
    with RunConsole(Console(stderr=True)) as observer:
        outcome = pipeline.run(recipe, chosen, layout=options.layout, observer=observer)
    print_result(options, outcome.result, outcome.report)
    for address, failure in outcome.failures.items():
        print_error(f"{address} was left out: {failure}")
    if outcome.failures:
        return next(iter(outcome.failures.values())).exit_code
    return 0 if outcome.is_ok else HarnessError.exit_code


def chosen_devices(devices: str, serial: str | None) -> Sequence[str]:
    """Where to run. `-s` picks the phone for one address, or is the address; with neither, $ANDROID_SERIAL, else this machine."""
    listed = addresses(devices)
    if serial and len(listed) > 1:
        raise UserError(f"-s {serial} picks one phone, but --devices names {len(listed)}", hint=f"write {listed[0]}@{serial}")
    if serial:
        return [f"{listed[0]}@{serial}"] if listed else [serial]
    return listed or ([] if os.environ.get(SERIAL_VARIABLE) else [LOCAL_NAME])
