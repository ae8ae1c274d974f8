"""Build the argument parsers of commands with the options that all commands have, and parse option values."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quadbench.cli.commands import COMMANDS
from quadbench.errors import UserError, quote
from quadbench.results.layout import DEFAULT_ROOT, Layout
from quadbench.target.abi import Abi

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Options = argparse.Namespace
Subparsers = Any  # the result of argparse's add_subparsers, whose type is private
Run = Callable[[Options], int]


def common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--results",
        type=lambda folder: Layout(Path(folder)),
        dest="layout",
        default=str(DEFAULT_ROOT),
        metavar="DIR",
        help="where records, bundles and reports are kept (default: results)",
    )
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("-v", "--verbose", action="count", default=0, help="log every stage; twice: every command on a device")
    return common


def add_command(commands: Subparsers, name: str, run: Run) -> argparse.ArgumentParser:
    """Add a command with the common options; return its parser. `run(options)` executes the command and returns an exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(name, description=sentence(COMMANDS[name]), parents=[common_options()])
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Subparsers, name: str) -> Subparsers:
    """Add a command with actions, such as `farm`. Return argparse's subparsers object, to which `add_action` adds an action."""
    parser = commands.add_parser(name, description=sentence(COMMANDS[name]))
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def add_action(actions: Subparsers, name: str, run: Run, purpose: str) -> argparse.ArgumentParser:
    """Add an action with the common options; return its parser. `run(options)` executes the action and returns an exit code."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=purpose, description=sentence(purpose), parents=[common_options()]
    )
    parser.set_defaults(run=run)
    return parser


def sentence(purpose: str) -> str:
    """Return a command's purpose as a sentence: `build it` becomes `Build it.`"""
    return f"{purpose[0].upper()}{purpose[1:]}."


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a YAML file, or the name of a recipe that comes with quadbench")


def add_full(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="print every figure, not only the most important ones")


def next_command(options: Options, *words: str) -> str:
    """Return a quadbench shell command with the arguments `words`, for the current command's results folder."""
    layout: Layout = options.layout
    return layout.command(*words)


def add_abi(parser: argparse.ArgumentParser, default: Abi) -> None:
    parser.add_argument(
        "--abi", choices=[abi.value for abi in Abi], default=default.value, help="the ABI of the devices (default: %(default)s)"
    )


def refuse_given(what: str, options: Options, *names: str, hint: str | None = None) -> None:
    """Raise UserError if any of the options `names` is given. `what` names the command or action that does not take them."""
    for name in names:
        if (value := getattr(options, name)) is not None and value is not False:
            word = f"--{name.replace('_', '-')}"
            raise UserError(f"{what} does not take {word}", hint=hint or f"leave {word} out")


def time_word(duration_s: float) -> str:
    """Format seconds as a duration, such as `6h`, that the function `duration_s` can parse."""
    unit = next(unit for unit, unit_s in reversed(_UNITS_S.items()) if duration_s % unit_s == 0)
    return f"{duration_s / _UNITS_S[unit]:.0f}{unit}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 adapter`, `2 adapters`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def split_list(text: str) -> Sequence[str]:
    """Split a comma-separated option value: `a, b` becomes [`a`, `b`]."""
    return [word.strip() for word in text.split(",") if word.strip()]


def duration_s(text: str) -> float:
    """Parse a duration such as `90s`, `30m`, `2h` or `7d` into seconds."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{quote(text)} is not a duration; expected one above 0, such as 30m, 2h or 7d")
    return int(match[1]) * _UNITS_S[match[2]]


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a function that parses text as an integer from `low` to `high`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{quote(text)} is not a whole number from {low} to {high}")
        return int(text)

    return read


def output_file(text: str) -> Path:
    """Parse the path of an output file; return it with links resolved. If the path exists, it must be a regular file."""
    path = Path(text).resolve()
    if not text.strip() or (path.exists() and not path.is_file()):
        raise argparse.ArgumentTypeError(f"'{text}' is not a file; expected the path of a new or existing file")
    return path
