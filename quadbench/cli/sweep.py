"""Sweep: a recipe, keys and values for them -> a run for each setting, and one table of them all."""

import argparse
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from quadbench.cli.addresses import add_devices, chosen_devices
from quadbench.cli.conduct import add_conduct, conduct_of
from quadbench.cli.console import RUN_STAGES, RunConsole, print_error, print_json, print_text, stdout_console
from quadbench.cli.options import add_command, add_recipe
from quadbench.cli.result import add_full
from quadbench.errors import HarnessError, NoTimeError
from quadbench.report import Sweep, sweep_tables
from quadbench.study.sweep import read_over, sweep


def add(commands: Any) -> None:
    """Add `quadbench sweep` to the commands."""
    parser = add_command(commands, "sweep", run)
    add_recipe(parser)
    parser.add_argument(
        "--over",
        required=True,
        action="append",
        metavar="KEY=V1,V2",
        help="a key of a recipe, and values: precision.activations.int8=0,50,100 (percent), tasks.restyle.sampler.steps=4,8; "
        "several keys, each with an --over of its own, make a grid",
    )
    add_devices(parser)
    add_full(parser)
    add_conduct(parser)


def run(options: argparse.Namespace) -> int:
    overs, chosen = [read_over(over) for over in options.over], chosen_devices(options.devices, options.serial, options.layout)
    with RunConsole(Console(stderr=True), RUN_STAGES) as observer:
        swept = sweep(options.recipe, overs, chosen, conduct_of(options), layout=options.layout, observer=observer)
    if options.json:
        print_json(asdict(swept.sweep) | {"folder": str(swept.folder)})
    else:
        _print_sweep(stdout_console(), swept.sweep, is_whole=options.full)
        print_text(f"sweep: {swept.folder}")
    for setting, failure in swept.failures.items():
        print_error(f"{setting} was left out: {failure}")
    failed = next((failure for failure in swept.failures.values() if not isinstance(failure, NoTimeError)), None)
    if failed:
        return failed.exit_code
    return HarnessError.exit_code if any(not point.figures for point in swept.sweep.points) else 0


def _print_sweep(console: Console, result: Sweep, *, is_whole: bool) -> None:
    """Print a table for each task and device, and the notes of all tables once, at the end."""
    tables = sweep_tables(result, is_whole=is_whole)
    for table in tables:
        shown = Table(title=table.title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        for column in table.columns:
            shown.add_column(column, justify="right", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        print_text(note)
