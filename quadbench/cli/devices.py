"""Devices: this machine -> what can be given to --devices."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from quadbench.artifacts.device_text import one_line
from quadbench.cli.console import print_json, stdout_console
from quadbench.cli.options import add_command
from quadbench.devices import DeviceRow, list_devices


def add(commands: Any) -> None:
    """Add `quadbench devices` to the commands."""
    add_command(commands, "devices", run)


def run(options: argparse.Namespace) -> int:
    rows = list_devices()
    if options.json:
        print_json([asdict(row) for row in rows])
    else:
        _print_devices(stdout_console(), rows)
    return 0


def _print_devices(console: Console, rows: Sequence[DeviceRow]) -> None:
    shown = Table(header_style="bold")
    for column in ("address", "serial", "state", "model", "profile"):
        shown.add_column(column, overflow="fold")
    for row in rows:
        words = (row.address, row.serial, row.state, row.model, row.profile or "no profile matches")
        shown.add_row(*map(one_line, words))
    console.print(shown)
