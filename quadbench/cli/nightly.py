"""Nightly: the file of a night -> the night performed here or by a farm, what got worse, and an exit code that says so."""

import argparse
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from quadbench.artifacts.names import check_file_name
from quadbench.cli.console import RunConsole, print_error, print_json, print_note, print_text
from quadbench.cli.farm_submit import add_farm, use_farm
from quadbench.cli.options import add_command, duration_s, next_command
from quadbench.errors import QuadbenchError, UserError
from quadbench.nightly.bench import Here
from quadbench.nightly.ending import ERROR, exit_code
from quadbench.nightly.night_file import load_night_file
from quadbench.nightly.perform import perform
from quadbench.nightly.plan import planned
from quadbench.results.frozen import freeze
from quadbench.study.chosen import choose
from quadbench.target.profile import LOCAL_NAME

_MORNING = timedelta(hours=12)  # a night that begins in the evening is that of the next morning
_ACTIONS = "FILE | freeze NAME SOURCE"


def add(commands: Any) -> None:
    """Add `quadbench nightly` to the commands."""
    parser = add_command(commands, "nightly", run)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="FILE",
        help="the file of a night; or freeze NAME SOURCE, which gives the bundle of a recipe, a folder or a run a name for good",
    )
    parser.add_argument(
        "--night", metavar="WORD", help="the word behind the file's name in the night's id (default: the date of its morning)"
    )
    parser.add_argument(
        "--budget",
        type=duration_s,
        metavar="TIME",
        help="begin nothing after this, counted from when the night first began, as 6h",
    )
    add_farm(parser)


def run(options: argparse.Namespace) -> int:
    try:
        match options.words:
            case ["freeze", name, source]:
                return _freeze(options, name, source)
            case [file]:
                return _perform(options, Path(file))
    except QuadbenchError as error:  # whose own exit codes mean other things than those of a night
        return _failed(options, error)
    return _failed(options, UserError(f"'{' '.join(options.words)}' is nothing to perform", hint=f"expected {_ACTIONS}"))


def _perform(options: argparse.Namespace, path: Path) -> int:
    file = load_night_file(path)
    night_id = _night_id(file.name, options.night)
    if options.farm:
        use_farm(options.farm)
    plan = planned(file, path.parent, options.layout)
    plan = replace(plan, budget_s=options.budget) if options.budget else plan
    with RunConsole(Console(stderr=True)) as observer:
        try:
            night = perform(night_id, plan, Here(layout=options.layout, observer=observer), layout=options.layout)
        except KeyboardInterrupt:
            print_note(f"night {night_id} goes on where it was: {next_command(options, 'nightly', str(path), *_night(options))}")
            raise
    for ruling in night.rulings:
        print_text(f"{ruling.case} on {ruling.address}: {ruling.key or 'all'}: {ruling.kind}: {ruling.cause}")
    return exit_code(night.rulings)


def _freeze(options: argparse.Namespace, name: str, source: str) -> int:
    with RunConsole(Console(stderr=True)) as observer:
        chosen = choose(source, {}, options.layout)
        (bundle,) = chosen.bundles([LOCAL_NAME], layout=options.layout, observer=observer).values()
    frozen = freeze(name, bundle, options.layout)
    if options.json:
        print_json(asdict(frozen))
    else:
        print_text(f"'{name}' is bundle {frozen.bundle} for good")
    return 0


def _night_id(name: str, word: str | None) -> str:
    night_id = f"{name}-{word or (datetime.now().astimezone() + _MORNING).date().isoformat()}"
    try:
        return check_file_name(night_id)
    except ValueError as error:
        raise UserError(f"no night can be called so: {error}") from error


def _night(options: argparse.Namespace) -> tuple[str, ...]:
    return ("--night", options.night) if options.night else ()


def _failed(options: argparse.Namespace, error: QuadbenchError) -> int:
    if options.json:
        print_json({"error": str(error), "exit_code": ERROR})
    print_error(str(error))
    return ERROR
