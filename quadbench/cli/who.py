"""Who: the leases and reservations in the database -> who has which device, until when and what for."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from quadbench.artifacts.names import one_line
from quadbench.cli.console import print_json, print_text, stdout_console
from quadbench.cli.options import add_command
from quadbench.farm.lease import Claims
from quadbench.farm.leases import Leases
from quadbench.results.engine import database_of, open_for_reading
from quadbench.results.layout import Layout


def add(commands: Any) -> None:
    """Add `quadbench who` to the commands."""
    add_command(commands, "who", run)


def run(options: argparse.Namespace) -> int:
    rows = [
        (device, claim.owner, kind, claim.purpose, claim.until)
        for device, claims in _standing(options.layout).items()
        for kind, claim in (("job", claims.job), ("reservation", claims.reservation))
        if claim
    ]
    columns = ("device", "owner", "kind", "purpose", "until")
    if options.json:
        print_json([dict(zip(columns, (*words, until.isoformat()), strict=True)) for *words, until in rows])
    elif rows:
        table = Table(header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for *words, until in rows:
            table.add_row(*map(one_line, words), f"{until:%Y-%m-%d %H:%M} UTC")
        stdout_console().print(table)
    else:
        print_text("nobody has a device")
    return 0


def _standing(layout: Layout) -> Mapping[str, Claims]:
    source = database_of(layout)
    if isinstance(source, Path) and not source.exists():
        return {}
    engine = open_for_reading(source)
    try:
        return Leases(engine).standing()
    finally:
        engine.dispose()
