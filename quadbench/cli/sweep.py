"""Sweep: a recipe, a key and values for it -> a run for each value, and one table and one picture of them all."""

import argparse
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from quadbench.cli.addresses import add_devices, chosen_devices
from quadbench.cli.console import RunConsole, print_json, print_text, stdout_console
from quadbench.cli.options import add_command, add_recipe
from quadbench.errors import HarnessError
from quadbench.report import Sweep, sweep_tables
from quadbench.sweep import read_over, sweep


def add(commands: Any) -> None:
    """Add `quadbench sweep` to the commands."""
    parser = add_command(commands, "sweep", run)
    add_recipe(parser)
    parser.add_argument(
        "--over",
        required=True,
        metavar="KEY=V1,V2",
        help="a key of the recipe and its values: precision.activations.int8=0,50,100 (percent), tasks.0.sampler.steps=4,8",
    )
    add_devices(parser)


def run(options: argparse.Namespace) -> int:
    over, chosen = read_over(options.over), chosen_devices(options.devices, options.serial, options.layout)
    with RunConsole(Console(stderr=True)) as observer:
        swept = sweep(options.recipe, over, chosen, layout=options.layout, observer=observer)
    if options.json:
        print_json(asdict(swept.sweep) | {"folder": str(swept.folder)})
    else:
        _print_sweep(stdout_console(), swept.sweep)
        print_text(f"sweep: {swept.folder}")
    return HarnessError.exit_code if any(not point.figures for point in swept.sweep.points) else 0


def _print_sweep(console: Console, result: Sweep) -> None:
    """Print a table for each task and device, and the notes of all tables once, at the end."""
    tables = sweep_tables(result)
    for table in tables:
        shown = Table(title=table.title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        for column in table.columns:
            shown.add_column(column, justify="right", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        print_text(note)
