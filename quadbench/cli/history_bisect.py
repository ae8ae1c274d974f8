"""History, bisected: a case and two of its nights or bundles -> the files with which it changed, by launches in turn."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from quadbench.artifacts.night import Measurement, Subject
from quadbench.cli.console import RunConsole, print_json, print_note, print_text
from quadbench.cli.measured_nights import measured_on, nights_of
from quadbench.errors import UnknownNameError, UserError, shown
from quadbench.nightly.history import bisect, subjects_of
from quadbench.nightly.night_file import Limits
from quadbench.nightly.series import limit_of
from quadbench.observer import Observer
from quadbench.report.units import plural
from quadbench.report.versus import PRIMARY, primary_row, sentence
from quadbench.results.layout import Layout
from quadbench.results.manifest import MANIFEST
from quadbench.spec import is_file
from quadbench.statistics import Verdict
from quadbench.statistics.within import verdict_within
from quadbench.study.chosen import Chosen, choose
from quadbench.study.compare import compare
from quadbench.study.manner import Manner

SCHEMA_VERSION = 1
_SHORT = 12  # characters of a digest, and the fewest that name one
_MOST_NAMED = 20  # nights, in a message
_LIMIT = limit_of(PRIMARY, Limits())
_NOT_CHANGED = "what changed then was the device, or another figure: quadbench history has both"


def add_bisect(parser: argparse.ArgumentParser) -> None:
    """Add `--bisect`."""
    parser.add_argument(
        "--bisect",
        nargs=2,
        metavar=("GOOD", "BAD"),
        help="launch what the case ran between two nights, or two bundles by their digests, in turn with GOOD, on the device that"
        " --devices names, until the files are known with which the time of an image changed",
    )


def run_bisect(options: argparse.Namespace) -> int:
    """Find the files with which a case changed."""
    with nights_of(options.layout) as nights:
        devices = measured_on(nights, options.case, options.devices)
    if len(devices) > 1:
        addresses = ", ".join(nights[-1].address for nights in devices.values())
        raise UserError(f"launches in turn need one device, and the case was measured on {addresses}", hint="name it: --devices")
    (measured,) = devices.values()
    subjects = _between(measured, *options.bisect)
    print_note(f"{plural(len(subjects), 'subject')}, of which at most {(len(subjects) - 1).bit_length()} have to be launched")
    with RunConsole(Console(stderr=True)) as observer:
        side = _Sides(good=subjects[0], address=measured[-1].address, layout=options.layout, observer=observer)
        if side.is_changed(subjects[-1]) is not True:
            raise UserError("BAD does not differ from GOOD, as far as can be told", hint=_NOT_CHANGED)
        told = bisect(subjects, side.is_changed)
    first = next(night for night in measured if night.subject == told.first_bad)
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, "case": options.case, "night": first.night, **asdict(told)})
        return 0
    for subject in told.untold:
        print_text(f"{_name(subject)} could not be told")
    since = f"the change came with {_name(told.first_bad)}, which ran first in {first.night}"
    print_text(f"{since}; {_name(told.last_good)} is as {_name(subjects[0])}")
    return 0


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """Launches subjects in turn with the good one."""

    good: Subject
    address: str
    layout: Layout
    observer: Observer

    def is_changed(self, subject: Subject) -> bool | None:
        """Say whether the time of an image on a subject differs from that on the good one; None where it cannot be told.

        Raises:
            QuadbenchError: the device fails, or the good bundle is not there.
        """
        if not is_file(self._folder(subject) / MANIFEST):
            print_note(f"{_name(subject)} is not there any more; quadbench store fetch gets it where a store has it")
            return None
        a, b = (self._chosen(one) for one in (self.good, subject))
        manner = Manner(to_see=Limits().time)
        versus = compare(a, b, [self.address], manner, layout=self.layout, observer=self.observer)
        (device,) = versus.devices
        row = primary_row(device)
        if row is None or row.comparison is None:
            return None
        print_note(f"A {_name(self.good)}, B {_name(subject)}: {sentence(device)}")
        verdict = verdict_within(row.comparison, _LIMIT)
        return None if verdict is Verdict.INCONCLUSIVE else verdict is not Verdict.SAME

    def _chosen(self, subject: Subject) -> Chosen:
        return choose(str(self._folder(subject)), {"kit": subject.kit} if subject.kit else {}, self.layout)

    def _folder(self, subject: Subject) -> Path:
        return self.layout.bundle(subject.bundle)


def _between(measured: Sequence[Measurement], good: str, bad: str) -> tuple[Subject, ...]:
    """Return the subjects from one night or bundle to another, each once, in the order in which they first ran.

    Raises:
        UnknownNameError: the case has no such night or bundle.
        UserError: the good one did not run before the bad one, or both are the same.
    """
    begin, end = (_index(measured, word) for word in (good, bad))
    subjects = subjects_of(measured[begin : end + 1])
    if len(subjects) < 2 or subjects[-1] == subjects[0]:
        raise UserError(
            f"{shown(good)} and {shown(bad)} have no other files, in this order", hint="name the earlier, good one first"
        )
    return subjects


def _index(measured: Sequence[Measurement], word: str) -> int:
    is_digest = re.fullmatch(rf"[0-9a-f]{{{_SHORT},64}}", word)
    for number, night in enumerate(measured):
        if night.night == word or (is_digest and night.subject.bundle.startswith(word)):
            return number
    raise UnknownNameError("night or bundle", word, {night.night for night in measured[-_MOST_NAMED:]})


def _name(subject: Subject) -> str:
    return f"bundle {subject.bundle[:_SHORT]}{f' with kit {subject.kit[:_SHORT]}' if subject.kit else ''}"
