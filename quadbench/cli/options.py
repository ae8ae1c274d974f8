"""Options: what the commands share: their common options, addresses, and how a command is added."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Run = Callable[[argparse.Namespace], int]


def common_options() -> argparse.ArgumentParser:
    """What every command takes."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where records, bundles and reports are kept (default: results)",
    )
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("-v", "--verbose", action="count", default=0, help="log every stage; twice: every command on a device")
    return common


def add_command(commands: Any, name: str, run: Run, help_text: str) -> argparse.ArgumentParser:
    """A command that can be called, with the common options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text.capitalize() + ".", parents=[common_options()]
    )
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Any, name: str, help_text: str) -> Any:
    """A command that only has commands below it; returns what `add_command` takes."""
    parser = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The argument that names a recipe."""
    parser.add_argument("recipe", help="a YAML file, or the name of a recipe that comes with quadbench")


def addresses(text: str) -> Sequence[str]:
    """`a, b` as [`a`, `b`]."""
    return [address.strip() for address in text.split(",") if address.strip()]
