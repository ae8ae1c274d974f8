"""History: a case's name -> what changed of it since when, on which device, and by which files; and people's words about it."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from quadbench.artifacts.device_text import one_line
from quadbench.artifacts.night import Acknowledgement, Measurement
from quadbench.cli.console import print_json, print_text, stdout_console
from quadbench.cli.history_bisect import add_bisect, run_bisect
from quadbench.cli.history_report import add_html, write_history
from quadbench.cli.measured_nights import measured_on, nights_of
from quadbench.cli.options import add_command, counted, duration_s, next_command, refuse_given
from quadbench.cli.text_tables import print_text_table
from quadbench.errors import UnknownNameError, UserError, shown
from quadbench.host import user_and_host
from quadbench.nightly.history import sentence, tables
from quadbench.nightly.history_formats import SCHEMA_VERSION, CaseDocument, CaseList, line_of, line_table, told_of
from quadbench.nightly.verdicts import acknowledged
from quadbench.report.versus import PRIMARY

_LISTED = 40  # nights of each case, by which the list says since when its level stands
_LONGEST = timedelta(days=366)  # that a word may stand
_LONGEST_REASON = 500
_MOST_NAMED = 20  # nights, in a message


def add(commands: Any) -> None:
    """Add `quadbench history` to the commands."""
    parser = add_command(commands, "history", run)
    parser.epilog = "Its exit codes are those of every command: 0 whatever was ruled, 2 wrong input, 3 results that are damaged."
    parser.add_argument("case", nargs="?", metavar="CASE", help="a case of a night's file (default: list them)")
    parser.add_argument("--devices", metavar="A,B", help="only these devices, by the names that the list has (default: all)")
    parser.add_argument(
        "--all", action="store_true", help="show every figure, not only the time of an image and what was ruled on"
    )
    word = parser.add_argument_group("say that figures are as they shall be")
    word.add_argument("--acknowledge", metavar="REASON", help="take them as the new level from a night on, and say why")
    word.add_argument("--until", type=_until, metavar="WHEN", help="how long that stands, at most a year: 30d, or 2026-12-31")
    word.add_argument("--night", metavar="NIGHT", help="the night from which on (default: the latest)")
    word.add_argument("--figure", metavar="KEY", help="only this figure, as end_to_end or peak_ram (default: all)")
    word.add_argument("--task", metavar="TASK", help="only this task (default: all)")
    add_html(parser)
    add_bisect(parser)


def run(options: argparse.Namespace) -> int:
    if options.acknowledge is None:
        hint = "add --acknowledge REASON: they say what is acknowledged"
        refuse_given("history without an acknowledgement", options, "until", "night", "figure", "task", hint=hint)
    elif options.bisect:
        raise UserError("--bisect finds files, and --acknowledge takes figures as they are", hint="give one of them")
    if options.case is None:
        return _list(options)
    if options.html and (options.bisect or options.acknowledge is not None):
        raise UserError("--html is of what history shows", hint="leave it out, or leave --bisect and --acknowledge out")
    if options.bisect:
        return run_bisect(options)
    return _show(options) if options.acknowledge is None else _acknowledge(options)


def _list(options: argparse.Namespace) -> int:
    """Print a line for every case on every device."""
    if options.acknowledge is not None or options.bisect:
        raise UserError("no case is named", hint=next_command(options, "history", "CASE", "..."))
    refuse_given("the list of cases", options, "devices", "all", hint="name a case, or leave it out")
    with nights_of(options.layout) as nights:
        every = [nights.series(case, device, latest=_LISTED, key=PRIMARY) for case, device in nights.cases()]
        series = [measured for measured in every if measured]  # where all is damaged, nothing is
        told = {night: nights.rulings(night) for night in {measured[-1].night for measured in series}}
        if options.html and series:
            write_history(options, told_of(nights, series, is_whole=False))
    lines = [line_of(measured, told[measured[-1].night]) for measured in series]
    if options.json:
        print_json(asdict(CaseList(cases=tuple(lines))))
    elif lines:
        print_text_table(stdout_console(), line_table(lines))
        print_text(f"next: {next_command(options, 'history', lines[0].case)}")
    else:
        print_text("no night yet; quadbench nightly night.yaml performs one")
    return 0


def _show(options: argparse.Namespace) -> int:
    """Print what changed of a case since when."""
    with nights_of(options.layout) as nights:
        devices = measured_on(nights, options.case, options.devices)
        told = told_of(nights, devices.values(), is_whole=options.all or options.json)
    histories = [one.history for one in told]
    if options.html:
        write_history(options, told)
    if options.json:
        print_json(asdict(CaseDocument(case=options.case, devices=tuple(histories))))
        return 0
    for history in histories:
        for table in tables(history):
            print_text_table(stdout_console(), table)
    for history in histories:
        print_text(sentence(history))
    return 0


def _acknowledge(options: argparse.Namespace) -> int:
    """Take a case's figures as the new level from a night on."""
    reason = one_line(options.acknowledge, _LONGEST_REASON).strip()
    if not reason or not options.until:
        raise UserError("an acknowledgement needs a reason and an end", hint="--acknowledge 'four more steps' --until 30d")
    with nights_of(options.layout, is_written=True) as nights:
        devices = measured_on(nights, options.case, options.devices)
        words = _words(options, reason, devices)
        rulings = nights.rulings_of(options.case)
        measured = [night for of_device in devices.values() for night in of_device]
        superseding = [ruling for word in words for ruling in acknowledged(word, rulings, measured, word.made_at)]
        for word in words:
            nights.acknowledge(word)
        nights.rule(superseding)
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, "acknowledged": [asdict(word) for word in words]})
    else:
        word = words[0]
        print_text(f"{word.case} is as it shall be from {word.night} on, until {word.until:%Y-%m-%d %H:%M} UTC: {word.reason}")
        print_text(f"{counted(len(superseding), 'ruling')} superseded by CLEAN")
    return 0


def _words(options: argparse.Namespace, reason: str, devices: Mapping[str, Sequence[Measurement]]) -> list[Acknowledgement]:
    """Return one word on all devices, or one on each that was named.

    Raises:
        UnknownNameError: the case has no such night, task or figure there.
    """
    measured = [night for of_device in devices.values() for night in of_device]
    points = [point for night in measured for point in night.points]
    for kind, name, known in (
        ("night", options.night, {night.night for night in measured}),
        ("task", options.task, {point.task for point in points}),
        ("figure", options.figure, {point.key for point in points}),
    ):
        if name is not None and name not in known:
            raise UnknownNameError(kind, name, sorted(known)[-_MOST_NAMED:])
    night = options.night or max(measured, key=lambda one: one.measured_at).night
    word = Acknowledgement(
        case=options.case,
        night=night,
        reason=reason,
        owner=user_and_host(),
        made_at=datetime.now(UTC),
        since=min(one.measured_at for one in measured if one.night == night),
        until=options.until,
        task=options.task,
        key=options.figure,
    )
    return [replace(word, device=device) for device in devices] if options.devices else [word]


def _until(text: str) -> datetime:
    """Read when an acknowledgement ends: after a duration, or with the end of a day."""
    now = datetime.now(UTC)
    is_day = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text)
    until = _end_of_day(text) if is_day else now + timedelta(seconds=duration_s(text))
    if not now < until <= now + _LONGEST:
        raise argparse.ArgumentTypeError(f"{shown(text)} is over, or more than a year from now")
    return until


def _end_of_day(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no day; expected one as 2026-12-31, or a duration as 30d") from error
