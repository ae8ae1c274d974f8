"""Doctor: this machine -> what is installed and what to install."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quadbench.cli.console import print_json, stdout_console
from quadbench.cli.options import add_command
from quadbench.doctor import Check, examine
from quadbench.errors import MissingDependencyError


def add(commands: Any) -> None:
    """Add `quadbench doctor` to the commands."""
    add_command(commands, "doctor", run)


def run(options: argparse.Namespace) -> int:
    checks = examine()
    if options.json:
        print_json([asdict(check) for check in checks])
    else:
        _print_checks(stdout_console(), checks)
    return 0 if all(check.is_ok for check in checks if check.is_required) else MissingDependencyError.exit_code


def _print_checks(console: Console, checks: Sequence[Check]) -> None:
    """Print a table of all checks; below it the hints on what is missing."""
    shown = Table(header_style="bold")
    for column in ("", "what", "found", "needed for"):
        shown.add_column(column, overflow="fold")
    for check in checks:
        mark = ("ok", "green") if check.is_ok else ("missing", "red") if check.is_required else ("absent", "yellow")
        shown.add_row(Text(*mark), check.name, check.found or "-", check.purpose)
    console.print(shown)
    for check in checks:
        if not check.is_ok and check.hint:
            console.print(f"{check.name}: {check.hint}", highlight=False)
