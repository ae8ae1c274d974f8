"""The command `nightly`: measure the test cases of a YAML file on local devices or a farm, and report regressions."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from quadbench.artifacts.safe_text import check_file_name
from quadbench.cli import console
from quadbench.cli.options import Options, Subparsers, add_action, add_group, duration_s, next_command, output_file, time_word
from quadbench.cli.run_source import add_farm, use_farm
from quadbench.errors import QuadbenchError, StorageError, UserError
from quadbench.nightly.exports import WEBHOOK_VARIABLE, check_address, night_junit, post_night
from quadbench.nightly.launcher import Launcher, LocalLauncher
from quadbench.nightly.night_plan import NightPlan, PlannedCase, plan_night
from quadbench.nightly.night_report import ERROR, NightResult, exit_code
from quadbench.nightly.perform import perform
from quadbench.observer import Observer
from quadbench.report.formatting import TextTable, plural
from quadbench.report.night import NightView
from quadbench.report.night_formats import device_table, finding_lines, night_json, write_night_report
from quadbench.results.bundles import freeze, frozen_name
from quadbench.results.disk import require_writable, write_atomic
from quadbench.results.engine import source_name
from quadbench.results.layout import Layout
from quadbench.spec.variables import secret_variable
from quadbench.study.run_comparison import side_of
from quadbench.target.profile import LOCAL_NAME

_PLAN_SCHEMA_VERSION = 1
_MORNING = timedelta(hours=12)  # a night that begins in the evening has the next day's date


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "nightly")
    night = add_action(
        actions, "run", run, "measure the cases of a night file and report what got worse; or resume an interrupted night"
    )
    add_file(night)
    night.add_argument(
        "--night", metavar="WORD", help="the night's name after the file's name (default: the date of its morning)"
    )
    night.add_argument(
        "--dry-run", action="store_true", help="list what would be measured and the file's problems, without measuring"
    )
    add_outputs(night)
    frozen = add_action(actions, "freeze", run_freeze, "give a bundle a permanent name, as the reference (yardstick) of nights")
    frozen.add_argument("name", metavar="NAME", help="the name that night files have under `yardstick`")
    frozen.add_argument("source", metavar="SOURCE", help="a recipe (built if necessary), a bundle's folder, or a run")


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the argument FILE (the list of nightly test cases) and the options `--budget` and `--farm` to a command's parser."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the night file")
    parser.add_argument(
        "--budget", type=duration_s, metavar="TIME", help="start nothing later than this after the night's start, such as 6h"
    )
    add_farm(parser)


def run(options: Options) -> int:
    plan = plan_night(options.file, options.layout, on_farm=bool(options.farm))
    night_id = f"{plan.name}-{options.night or (datetime.now().astimezone() + _MORNING).date().isoformat()}"
    try:
        check_file_name(night_id)
    except ValueError as error:
        raise UserError(f"the night's name is not valid: {error}") from error
    if options.dry_run:
        return print_plan(night_id, plan, as_json=options.json)
    require_writable(options.layout.root)
    if options.farm:
        use_farm(options.farm)
    plan = replace(plan, budget_s=options.budget) if options.budget else plan
    if not plan.cases:
        raise UserError("\n".join(f"case '{name}': {why}" for name, why in plan.faults.items()))
    print_faults(plan)
    with console.RunConsole() as observer, _launcher(options, night_id, observer) as launcher:
        try:
            result = perform(night_id, plan, launcher, layout=options.layout)
        except KeyboardInterrupt:
            again = night_command(options, "--night", night_id.removeprefix(f"{plan.name}-"))
            console.print_note(f"night {night_id} has not ended; to resume: {again}")
            raise
        except OSError as error:
            raise StorageError(f"'{options.layout.root}' cannot be used: {error}") from error
    is_told = write_outputs(options, result, options.layout)
    return exit_code(result.night) or (0 if is_told else ERROR)


@contextmanager
def _launcher(options: Options, night_id: str, observer: Observer) -> Iterator[Launcher]:
    """Yield the launcher of nightly comparisons: a FarmLauncher if `--farm` is given, else a LocalLauncher (local devices)."""
    if not options.farm:
        yield LocalLauncher(layout=options.layout, observer=observer)
        return
    from quadbench.dispatch.submission import open_farm
    from quadbench.nightly.farm_launcher import FarmLauncher

    with open_farm(options.layout) as farm:
        yield FarmLauncher(night_id=night_id, farm=farm, layout=options.layout, observer=observer)


def run_freeze(options: Options) -> int:
    frozen_name(options.name)
    with console.RunConsole() as observer:
        chosen = side_of(options.source, {}, options.layout)
        (bundle,) = chosen.bundles([LOCAL_NAME], layout=options.layout, observer=observer).values()
    frozen = freeze(options.name, bundle, options.layout)
    console.print_answer(options, frozen, f"'{options.name}' is now the permanent name of bundle {frozen.bundle}")
    return 0


def print_plan(night_id: str, plan: NightPlan, *, as_json: bool) -> int:
    """Print the plan of a nightly run: its test cases and devices. Return the exit code, nonzero if a case cannot be measured."""
    if as_json:
        cases = [_as_json(case) for case in plan.cases]
        console.print_json({"schema_version": _PLAN_SCHEMA_VERSION, "night": night_id, "cases": cases, "faults": plan.faults})
    else:
        rows = [(one.name, one.side.name, one.yardstick.name, ", ".join(one.words), one.owner or "–") for one in plan.cases]
        table = TextTable.of_words(night_id, ("Case", "Runs", "Yardstick", "Devices", "Owner"), rows)
        console.print_text_table(console.stdout_console(), table)
        console.print_text(f"{night_id} would measure {plural(len(plan.cases), 'case')} in {plural(plan.blocks, 'block')} each")
    print_faults(plan)
    return ERROR if plan.faults else 0


def print_faults(plan: NightPlan) -> None:
    """Print on stderr which test cases a nightly run cannot measure, or measures without some tasks, and the reasons."""
    for case in plan.cases:
        if case.left_out:
            console.print_note(f"case '{case.name}': {case.left_out}")
    for name, why in plan.faults.items():
        console.print_error(f"case '{name}' cannot be measured: {why}")


def _as_json(case: PlannedCase) -> dict[str, object]:
    document = {"name": case.name, "source": case.side.source, "changes": case.side.changes, "yardstick": case.yardstick.source}
    more = {"devices": case.words, "owner": case.owner, "quality": case.quality, "limits": case.limits.model_dump()}
    return {**document, "variant": case.side.variant, "tasks": case.side.tasks, "left_out": case.left_out, **more}


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add all options for the outputs of a nightly run: JUnit XML and a webhook."""
    parser.add_argument("--junit", type=output_file, metavar="FILE", help="write JUnit XML to this file, one suite per device")
    parser.add_argument(
        "--webhook",
        type=_webhook_address,
        default=secret_variable(WEBHOOK_VARIABLE),  # argparse validates the default too
        metavar="URL",
        help=f"post one message per night there, in Slack's format (default: ${WEBHOOK_VARIABLE}, hidden from other users)",
    )


def write_outputs(options: Options, result: NightResult, layout: Layout) -> bool:
    """Write, print and post a nightly run's results as the options ask. Go on after a failure, and return False; else True."""
    view = result.view(layout.root_arguments)
    folder = layout.night(view.night.night_id)
    word = result.night.night_id.removeprefix(f"{result.night.name}-")  # a finished night is only reported again
    commands = {"The same again": night_command(options), "As data": night_command(options, "--night", word, "--json")}
    writers: list[Callable[[], object]] = [
        lambda: write_night_report(view, commands, layout),
        lambda: write_atomic(folder / "night.json", night_json(view)),
    ]
    if options.junit:
        writers.append(lambda: write_atomic(options.junit, night_junit(view).decode()))
    is_told = [_succeeded(write) for write in writers]
    _print(options, view, folder / "night.html")
    if options.webhook:  # last, as the server may answer slowly
        is_told.append(_succeeded(lambda: post_night(view, options.webhook, folder / "webhook.json")))
    return all(is_told)


def night_command(options: Options, *words: str) -> str:
    """Return a shell command to repeat a nightly run (file, budget, farm without password). Append the arguments `words`."""
    farm = ("--farm", source_name(options.farm)) if options.farm else ()
    budget = ("--budget", time_word(options.budget)) if options.budget else ()
    return next_command(options, "nightly", "run", str(options.file), *words, *farm, *budget)


def _succeeded(write: Callable[[], object]) -> bool:
    try:
        write()
    except (QuadbenchError, OSError, ValueError) as error:  # ValueError: text that cannot be encoded or decoded
        console.print_error(str(error))
        return False
    return True


def _print(options: Options, view: NightView, report: Path) -> None:
    if options.json:
        console.print_text(night_json(view))
        return
    terminal = console.stdout_console()
    console.print_text_table(terminal, device_table(view))
    for finding in reversed(view.findings):  # the worst finding comes last, next to the summary
        console.print_text("\n".join(finding_lines(finding)))
    console.print_text(f"Report: {report}")
    terminal.print(view.sentence, style="bold", highlight=False)


def _webhook_address(text: str) -> str:
    try:
        return check_address(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(error.message) from error
