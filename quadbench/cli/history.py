"""The command `history`: show changes in a test case's nightly metrics, accept a change, or find the build that caused it."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from quadbench.artifacts.night_record import Acknowledgement, Measurement, Subject
from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import RunConsole, print_json, print_note, print_text, print_text_table, stdout_console
from quadbench.cli.device_options import listed_devices
from quadbench.cli.options import Options, Subparsers, add_command, counted, duration_s, next_command, refuse_given
from quadbench.devices.addresses import parse_address
from quadbench.errors import UnknownNameError, UserError, quote
from quadbench.host import user_and_host
from quadbench.nightly.history import bisect, sentence, subjects_of, tables
from quadbench.nightly.history_formats import CaseDocument, CaseList, case_lines, case_table, read_cases
from quadbench.nightly.night_file import Limits
from quadbench.nightly.series import limit_of
from quadbench.nightly.verdicts import rulings_by_acknowledgement
from quadbench.observer import Observer
from quadbench.report import versus as versus_report
from quadbench.report.formatting import plural
from quadbench.report.night import subject_name
from quadbench.results.engine import database_exists, database_of, open_db, open_engine, open_for_reading
from quadbench.results.layout import Layout
from quadbench.results.manifest import MANIFEST
from quadbench.results.nights import NightStore
from quadbench.spec import is_file
from quadbench.statistics import Verdict
from quadbench.statistics.launch_comparison import verdict_within
from quadbench.study.run_comparison import CompareOptions, compare, side_of

_LISTED = 40  # nights of each case that the list looks back
_MAX_LENGTH = timedelta(days=366)  # for which an acknowledgement may hold
_MAX_REASON_LENGTH = 500
_MAX_NAMED = 20  # nights listed in an error message
_SCHEMA_VERSION = 1  # for the JSON of acknowledgements and bisections
_SHORT = 12  # shortest prefix of a digest that is accepted
_LIMIT = limit_of(versus_report.PRIMARY, Limits())
_NOT_CHANGED = "look for a change of the device or of another figure: quadbench history"


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "history", run)
    parser.epilog = "Exit codes: 0 for any verdict, 2 for wrong input, 3 for damaged results."
    parser.add_argument("case", nargs="?", metavar="CASE", help="a case of a night file (default: list all cases)")
    parser.add_argument("--devices", metavar="A,B", help="only these devices, by their names in the list (default: all)")
    parser.add_argument(
        "--all", action="store_true", help="show every figure, not only the time of an image and figures with a verdict"
    )
    word = parser.add_argument_group("accept changed figures")
    word.add_argument("--acknowledge", metavar="REASON", help="accept the figures from a night on, for this reason")
    word.add_argument("--until", type=_until, metavar="WHEN", help="the end of the acceptance, in at most a year: 30d, or a date")
    word.add_argument("--night", metavar="NIGHT", help="the first accepted night (default: the latest)")
    word.add_argument("--figure", metavar="KEY", help="only this figure, such as end_to_end or peak_ram (default: all)")
    word.add_argument("--task", metavar="TASK", help="only this task (default: all)")
    parser.add_argument(
        "--bisect",
        nargs=2,
        metavar=("GOOD", "BAD"),
        help="find the build that changed the time of an image: launch builds from GOOD to BAD (nights or bundle digests)"
        " in turn with GOOD, on the device of --devices",
    )


def run(options: Options) -> int:
    if options.acknowledge is None:
        hint = "add --acknowledge REASON"
        refuse_given("history without an acknowledgement", options, "until", "night", "figure", "task", hint=hint)
    elif options.bisect:
        raise UserError("--bisect and --acknowledge exclude each other", hint="give one of them")
    if options.case is None:
        return _list(options)
    if options.bisect:
        return run_bisect(options)
    return _show(options) if options.acknowledge is None else _acknowledge(options)


def _list(options: Options) -> int:
    """Print a table with the latest nightly result of each test case on each device. With `--json`, print JSON instead."""
    if options.acknowledge is not None or options.bisect:
        raise UserError("no case was named", hint=next_command(options, "history", "CASE", "..."))
    refuse_given("the list of cases", options, "devices", "all", hint="name a case, or leave the option out")
    with nights_of(options.layout) as nights:
        every = [nights.series(case, device, latest=_LISTED, key=versus_report.PRIMARY) for case, device in nights.cases()]
        series = [measured for measured in every if measured]  # a series may be empty if all of its nights are damaged
        lines = case_lines(nights, series)
    if options.json:
        print_json(CaseList(cases=lines))
    elif lines:
        print_text_table(stdout_console(), case_table(lines))
        print_text(f"next: {next_command(options, 'history', lines[0].case)}")
    else:
        print_text("no night yet; to run one: quadbench nightly run night.yaml")
    return 0


def _show(options: Options) -> int:
    """Print the history of a nightly test case: which measured metrics changed, when, and on which device."""
    with nights_of(options.layout) as nights:
        devices = measurements_by_device(nights, options.case, options.devices)
        histories = [one.history for one in read_cases(nights, devices.values(), is_whole=options.all or options.json)]
    if options.json:
        print_json(CaseDocument(case=options.case, devices=tuple(histories)))
        return 0
    for history in histories:
        for table in tables(history):
            print_text_table(stdout_console(), table)
    for history in histories:
        print_text(sentence(history))
    return 0


def _acknowledge(options: Options) -> int:
    """Accept a test case's changed nightly measurements as normal, from one night until an end date. Store the reason."""
    reason = one_line(options.acknowledge, _MAX_REASON_LENGTH).strip()
    if not reason or not options.until:
        raise UserError("an acknowledgement needs a reason and an end", hint="give --acknowledge 'four more steps' --until 30d")
    with nights_of(options.layout, is_written=True) as nights:
        devices = measurements_by_device(nights, options.case, options.devices)
        words = _acknowledgements(options, reason, devices)
        rulings = nights.rulings_of(options.case)
        measured = [night for of_device in devices.values() for night in of_device]
        superseding = [ruling for word in words for ruling in rulings_by_acknowledgement(word, rulings, measured, word.made_at)]
        for word in words:
            nights.acknowledge(word)
        nights.add(superseding)
    if options.json:
        print_json({"schema_version": _SCHEMA_VERSION, "acknowledged": words})
    else:
        word = words[0]
        print_text(f"{word.case} is accepted from {word.night} on, until {word.until:%Y-%m-%d %H:%M} UTC: {word.reason}")
        print_text(f"{counted(len(superseding), 'ruling')} superseded by CLEAN")
    return 0


def _acknowledgements(options: Options, reason: str, devices: Mapping[str, Sequence[Measurement]]) -> list[Acknowledgement]:
    """Return records that accept a test case's changed metrics as normal: one per device in `--devices`, else one for all."""
    measured = [night for of_device in devices.values() for night in of_device]
    points = [point for night in measured for point in night.points]
    for kind, name, known in (
        ("night", options.night, {night.night for night in measured}),
        ("task", options.task, {point.task for point in points}),
        ("figure", options.figure, {point.key for point in points}),
    ):
        if name is not None and name not in known:
            raise UnknownNameError(kind, name, sorted(known)[-_MAX_NAMED:])
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
    """Return the UTC end of a user's acceptance of changed metrics. `30d` means 30 days from now; a date means that day's end."""
    now = datetime.now(UTC)
    try:
        is_day = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text)
        until = (
            datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)
            if is_day
            else now + timedelta(seconds=duration_s(text))
        )
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{quote(text)} is not a date; expected one as 2026-12-31, or a duration, 30d"
        ) from error
    if not now < until <= now + _MAX_LENGTH:
        raise argparse.ArgumentTypeError(f"{quote(text)} is in the past, or more than a year from now")
    return until


def run_bisect(options: Options) -> int:
    with nights_of(options.layout) as nights:
        devices = measurements_by_device(nights, options.case, options.devices)
    if len(devices) > 1:
        addresses = ", ".join(nights[-1].address for nights in devices.values())
        raise UserError(f"--bisect needs one device, but the case was measured on {addresses}", hint="name one: --devices")
    (measured,) = devices.values()
    good, bad = options.bisect
    begin, end = _index(measured, good), _index(measured, bad)
    subjects = subjects_of(measured[begin : end + 1])  # distinct, in the order of their first night
    if begin > end:
        raise UserError(f"{quote(good)} is later than {quote(bad)}", hint="name the earlier, good one first")
    if len(subjects) < 2 or subjects[-1] == subjects[0]:
        raise UserError(f"{quote(good)} and {quote(bad)} have the same files", hint="name nights between which files changed")
    print_note(f"{plural(len(subjects), 'build')}; at most {(len(subjects) - 1).bit_length()} have to be launched")
    with RunConsole() as observer:
        side = _BisectComparison(good=subjects[0], address=measured[-1].address, layout=options.layout, observer=observer)
        if side.is_changed(subjects[-1]) is not True:
            raise UserError("no difference between GOOD and BAD was found", hint=_NOT_CHANGED)
        bisection = bisect(subjects, side.is_changed)
    first = next(night for night in measured if night.subject == bisection.first_bad)
    if options.json:
        print_json({"schema_version": _SCHEMA_VERSION, "case": options.case, "night": first.night, **asdict(bisection)})
        return 0
    for subject in bisection.unjudged:
        print_text(f"{subject_name(subject)} could not be decided")
    since = f"the change came with {subject_name(bisection.first_bad)}, which first ran in {first.night}"
    print_text(f"{since}; {subject_name(bisection.last_good)} does not differ from {subject_name(subjects[0])}")
    return 0


@dataclass(frozen=True, kw_only=True)
class _BisectComparison:
    """Compares builds of a nightly test case, one at a time, with the known good build, by alternate launches on one device."""

    good: Subject
    address: str
    layout: Layout
    observer: Observer

    def is_changed(self, subject: Subject) -> bool | None:
        """Return whether a build's measured image time differs from the good build's, or None if unclear or the build is gone."""
        if not is_file(self._folder(subject) / MANIFEST):
            print_note(f"{subject_name(subject)} is gone; if a store has it, quadbench store fetch gets it")
            return None
        a, b = (side_of(str(self._folder(one)), {"kit": one.kit} if one.kit else {}, self.layout) for one in (self.good, subject))
        options = CompareOptions(to_see=Limits().time)
        versus = compare(a, b, [parse_address(self.address)], options, layout=self.layout, observer=self.observer)
        (device,) = versus.devices
        row = versus_report.primary_row(device)
        if row is None or row.comparison is None:
            return None
        print_note(f"A {subject_name(self.good)}, B {subject_name(subject)}: {versus_report.sentence(device)}")
        verdict = verdict_within(row.comparison, _LIMIT)
        return None if verdict is Verdict.INCONCLUSIVE else verdict is not Verdict.SAME

    def _folder(self, subject: Subject) -> Path:
        return self.layout.bundle(subject.bundle)


def _index(measured: Sequence[Measurement], word: str) -> int:
    is_digest = re.fullmatch(rf"[0-9a-f]{{{_SHORT},64}}", word)
    for number, night in enumerate(measured):
        if night.night == word or (is_digest and night.subject.bundle.startswith(word)):
            return number
    raise UnknownNameError("night or bundle", word, {night.night for night in measured[-_MAX_NAMED:]})


@contextmanager
def nights_of(layout: Layout, *, is_written: bool = False) -> Iterator[NightStore]:
    """Open a results folder's nightly runs for a `with` block. Yield a NightStore, read-only unless `is_written` is true."""
    if not database_exists(database_of(layout)):
        raise UserError(f"'{layout.root}' has no nights", hint="run one: quadbench nightly run night.yaml")
    with open_db(layout, open_engine if is_written else open_for_reading) as engine:
        yield NightStore(engine)


def measurements_by_device(nights: NightStore, case: str, words: str | None) -> dict[str, list[Measurement]]:
    """Return a dict from device name to measurements of `case`. `words` is a comma-separated list of devices; None means all."""
    known = {name for name, _ in nights.cases()}
    series = nights.series(case) if case in known else []
    if not series:
        raise UnknownNameError("case", case, known - {case})
    by_name: dict[str, str] = {}
    for night in series:
        by_name |= {night.device: night.device, night.address: night.device}
    wanted = listed_devices(words) or list(by_name)
    for word in wanted:
        if word not in by_name:
            raise UnknownNameError("device", word, {night.address for night in series})
    devices = dict.fromkeys(by_name[word] for word in wanted)
    return {device: [night for night in series if night.device == device] for device in devices}
