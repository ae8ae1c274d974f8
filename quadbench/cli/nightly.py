"""Nightly: the file of a night -> the night performed here or by a farm, what got worse, and an exit code that says so."""

import argparse
import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from quadbench.artifacts.names import check_file_name
from quadbench.cli.console import RunConsole, print_error, print_json, print_note, print_text
from quadbench.cli.farm_submit import add_farm, use_farm
from quadbench.cli.night_dry_run import print_faults, print_plan
from quadbench.cli.night_outputs import add_outputs, is_webhook_given, night_command, write_outputs
from quadbench.cli.options import add_command, duration_s, duration_word, refuse_given
from quadbench.errors import QuadbenchError, UserError
from quadbench.host import python_module
from quadbench.nightly.exports import WEBHOOK_VARIABLE
from quadbench.nightly.launcher import Here, Launcher
from quadbench.nightly.night_file import load_night_file
from quadbench.nightly.night_plan import planned
from quadbench.nightly.night_report import ERROR, exit_code
from quadbench.nightly.perform import perform
from quadbench.nightly.schedule import cron_line, systemd_files
from quadbench.observer import Observer
from quadbench.results.engine import has_password
from quadbench.results.frozen import freeze, frozen_name
from quadbench.results.storage import require_writable
from quadbench.study.chosen import choose
from quadbench.target.profile import LOCAL_NAME

_BEGIN = "02:00"
_MORNING = timedelta(hours=12)  # a night that begins in the evening is that of the next morning


def add(commands: Any) -> None:
    """Add `quadbench nightly` to the commands."""
    parser = add_command(commands, "nightly", run)
    parser.usage = "quadbench nightly [-h] [OPTION...] (FILE | freeze NAME SOURCE | schedule FILE)"
    parser.add_argument(
        "words",
        nargs="+",
        metavar="FILE",
        help="the file of a night, which is performed or goes on; `freeze NAME SOURCE` gives the bundle of a recipe, of a folder"
        " or of a run a name for good; `schedule FILE` prints systemd's timer that performs it every night",
    )
    parser.add_argument(
        "--night", metavar="WORD", help="what the night is called behind the file's name (default: the date of its morning)"
    )
    parser.add_argument(
        "--budget", type=duration_s, metavar="TIME", help="begin nothing after this, counted from the night's beginning, as 6h"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be measured and what is wrong with the file, and measure nothing"
    )
    add_farm(parser)
    add_outputs(parser)
    parser.add_argument("--at", metavar="TIME", help=f"when the scheduled night begins (default: {_BEGIN})")
    parser.add_argument("--cron", action="store_true", help="schedule by a line of a crontab")


def run(options: argparse.Namespace) -> int:
    try:
        if options.dry_run and len(options.words) > 1:
            raise UserError("--dry-run is of a night", hint="quadbench nightly FILE --dry-run")
        if is_webhook_given(options) and len(options.words) > 1:
            hint = f"a scheduled night takes ${WEBHOOK_VARIABLE}: the address is a password, and stands in no command"
            raise UserError("--webhook is of a night that is performed now", hint=hint)
        match options.words:
            case ["freeze", name, source]:
                return _freeze(options, name, source)
            case ["schedule", file]:
                return _schedule(options, Path(file))
            case [file]:
                return _perform(options, Path(file))
        words = " ".join(options.words)
        raise UserError(f"'{words}' is nothing to perform", hint="expected FILE, or freeze NAME SOURCE, or schedule FILE")
    except (QuadbenchError, OSError) as error:  # whose own exit codes mean other things than those of a night
        if options.json:
            print_json({"error": str(error), "exit_code": ERROR})
        print_error(str(error))
        return ERROR


def _perform(options: argparse.Namespace, path: Path) -> int:
    refuse_given("a night that is performed now", options, "at", "cron")
    plan = planned(path, options.layout, on_farm=bool(options.farm))
    night_id = _night_id(plan.name, options.night)
    if options.dry_run:
        return print_plan(night_id, plan, as_json=options.json)
    require_writable(options.layout.root)
    if options.farm:
        use_farm(options.farm)
    plan = replace(plan, budget_s=options.budget) if options.budget else plan
    if not plan.cases:
        raise UserError("\n".join(f"case '{name}': {why}" for name, why in plan.faults.items()))
    print_faults(plan)
    with RunConsole(Console(stderr=True)) as observer, _launcher(options, night_id, observer) as launcher:
        try:
            performed = perform(night_id, plan, launcher, layout=options.layout)
        except KeyboardInterrupt:
            again = night_command(options, "--night", night_id.removeprefix(f"{plan.name}-"))
            print_note(f"night {night_id} is not over; to go on: {again}")
            raise
    is_told = write_outputs(options, performed, options.layout)
    return exit_code(performed.night) or (0 if is_told else ERROR)


@contextmanager
def _launcher(options: argparse.Namespace, night_id: str, observer: Observer) -> Iterator[Launcher]:
    """Give what launches for the night: this machine's devices, or a farm's."""
    if not options.farm:
        yield Here(layout=options.layout, observer=observer)
        return
    from quadbench.dispatch.submission import open_farm
    from quadbench.nightly.farm_launcher import OfFarm

    with open_farm(options.layout) as farm:
        yield OfFarm(night_id=night_id, farm=farm, layout=options.layout, observer=observer)


def _freeze(options: argparse.Namespace, name: str, source: str) -> int:
    refuse_given("freeze", options, "night", "budget", "farm", "junit", "markdown", "github", "at", "cron")
    frozen_name(name)
    with RunConsole(Console(stderr=True)) as observer:
        chosen = choose(source, {}, options.layout)
        (bundle,) = chosen.bundles([LOCAL_NAME], layout=options.layout, observer=observer).values()
    frozen = freeze(name, bundle, options.layout)
    if options.json:
        print_json(asdict(frozen))
    else:
        print_text(f"'{name}' is bundle {frozen.bundle} for good")
    return 0


def _schedule(options: argparse.Namespace, path: Path) -> int:
    refuse_given("schedule, as every night has its own date,", options, "night")
    name, at = load_night_file(path).name, options.at or _BEGIN
    command = python_module("quadbench", "nightly", str(path.resolve()), "--results", str(options.layout.root.resolve()))
    command += _carried(options)
    if options.cron:
        print_text(cron_line(command, path.resolve().parent, at))
        return 0
    files = systemd_files(name, command, path.resolve().parent, getpass.getuser(), at)
    print_text("\n".join(f"# /etc/systemd/system/{file}\n{text}" for file, text in files.items()))
    return 0


def _carried(options: argparse.Namespace) -> list[str]:
    """Return the options that a scheduled night is performed with.

    Raises:
        UserError: the address of the farm's database has a password, which whoever reads the schedule would see.
    """
    if options.farm and has_password(options.farm):
        hint = "leave the password out, and put it into ~/.pgpass of the user who performs the night"
        message = "the address of the farm's database has a password, which whoever reads the schedule would see"
        raise UserError(message, hint=hint)
    budget = duration_word(options.budget) if options.budget else None
    values = {"--farm": options.farm, "--budget": budget, "--junit": options.junit, "--markdown": options.markdown}
    words = [word for name, value in values.items() if value for word in (name, str(value))]
    return [*words, "--github"] if options.github else words


def _night_id(name: str, word: str | None) -> str:
    night_id = f"{name}-{word or (datetime.now().astimezone() + _MORNING).date().isoformat()}"
    try:
        return check_file_name(night_id)
    except ValueError as error:
        raise UserError(f"no night can be called so: {error}") from error
