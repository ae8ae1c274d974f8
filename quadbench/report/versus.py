"""Versus: what came of comparing two sides -> the result in a sentence a device, and tables as text."""

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quadbench.artifacts import Caveat, DeviceFacts, RunRecord, Variant
from quadbench.artifacts.names import FileName
from quadbench.report.kpi import Figure
from quadbench.report.sides import ALL_TASKS, PRIMARY, SideRow, TimedLaunch
from quadbench.report.text_table import TextTable, csv_cell
from quadbench.report.units import between, change, convert, decibels, percent, plural, show
from quadbench.statistics import Comparison, Looks, Verdict

SCHEMA_VERSION = 1
_NAMED = 4  # figures that a sentence names
_UNDOING = {  # doubts that may be why two sides differ, as a verdict has them
    Caveat.LOADED_HOST: "on a loaded host",
    Caveat.THROTTLED: "on a hot device",
    Caveat.STILL_WARMING: "while still warming",
    Caveat.CHANGED_ENVIRONMENT: "in an environment that changed",
    Caveat.DEBUG_BUILD: "with a debug build",
}


@dataclass(frozen=True, kw_only=True)
class VersusSide:
    """A side: what it was named by, what was changed of it, and the run that has its launches; of a stored run what it is of."""

    source: str
    changes: dict[str, str]
    variant: Variant
    run_id: str
    of: str | None = None  # the recipe, and what a sweep set in it
    own_tasks: tuple[str, ...] = ()  # those that the other side lacks, which are not compared

    @property
    def name(self) -> str:
        """Return what it is of or was named by, and what was changed of it."""
        changes = ", ".join(f"{key}={value}" for key, value in self.changes.items())
        return f"{self.of or self.source}{f' with {changes}' if changes else ''}"

    def __str__(self) -> str:
        changes = ", ".join(f"{key}={value}" for key, value in self.changes.items() if key != "variant")
        run = "" if self.source == self.run_id and not self.of else f", run {self.run_id}"
        return f"{self.of or self.source}{f' with {changes}' if changes else ''}, {self.variant}{run}"


@dataclass(frozen=True, kw_only=True)
class VersusDevice:
    """Both sides on one device. `looks` is None where their launches were not interleaved; then there are no verdicts.

    `differences` are what else is not the same on both sides, by name; `caveats` are those of either; `launches` are those that
    count, by time.
    """

    device: DeviceFacts
    blocks: int
    looks: Looks | None
    rows: tuple[SideRow, ...]
    differences: dict[str, tuple[str, str]]
    caveats: tuple[Caveat, ...]
    broken: str | None = None  # why it ended without having seen enough
    launches: tuple[TimedLaunch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Versus:
    """A comparison, whole. `failures` has by address why devices were left out."""

    schema_version: int = SCHEMA_VERSION
    comparison_id: FileName
    a: VersusSide
    b: VersusSide
    to_see: float | None
    devices: tuple[VersusDevice, ...]
    failures: dict[str, str]

    @property
    def title(self) -> str:
        """Return both sides' names, or, where these are the same, all that is known of them."""
        a, b = (self.a.name, self.b.name) if self.a.name != self.b.name else (str(self.a), str(self.b))
        return f"{a} against {b}"

    @property
    def is_stored(self) -> bool:
        """Say whether both sides were stored before, not launched in turn."""
        return all(device.looks is None for device in self.devices)

    @property
    def settling(self) -> tuple[str, ...]:
        """Return the words that launch both sides in turn on the same devices."""
        return self._words(self._addresses)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Return the words that launch both sides in turn on another device, for which NAME stands."""
        return self._words(["NAME"])

    @property
    def again(self) -> tuple[str, ...]:
        """Return the words that compare the same again: stored runs as they are, anything else on the same devices."""
        return self._words([] if self.is_stored else self._addresses)

    @property
    def _addresses(self) -> list[str]:
        return [*(device.device.address for device in self.devices), *self.failures]

    def _words(self, addresses: Sequence[str]) -> tuple[str, ...]:
        sides = (("--a", self.a), ("--b", self.b))
        changes = [word for option, side in sides for pair in side.changes.items() for word in (option, "=".join(pair))]
        devices = ["--devices", ",".join(addresses)] if addresses else []
        to_see = [] if self.to_see is None else ["--to-see", f"{100 * self.to_see:g}%"]
        return ("compare", self.a.source, self.b.source, *changes, *devices, *to_see)


def primary_row(device: VersusDevice) -> SideRow | None:
    """Return the row that a device's sides are judged by: the time for an image, of all tasks where there are several."""
    rows = [row for row in device.rows if row.key == PRIMARY]
    return next((row for row in rows if row.task == ALL_TASKS), rows[0] if rows else None)


def is_decided(device: VersusDevice) -> bool:
    """Say whether the times of a device's sides were told apart, or are the same."""
    row = primary_row(device)
    return row is not None and row.comparison is not None and row.comparison.verdict is not Verdict.INCONCLUSIVE


def sentence(device: VersusDevice) -> str:
    """Say what came of the comparison on a device, the result first."""
    row, where = primary_row(device), f"On {device.device.address}"
    if device.looks is None:
        return f"{where}, {_stored(row)}. Whether that is their doing is not known: the runs were not launched in turn."
    if row is None or row.comparison is None or row.comparison.ratio is None:
        return f"{where}, there are no times to compare{f': {device.broken}' if device.broken else ''}."
    early = f"; it ended early: {device.broken}" if device.broken else ""
    return f"{where}, {_said(row, row.comparison, device.looks)}{_undone(row.comparison.verdict, device.caveats)}{early}."


def answer(versus: Versus) -> tuple[str, ...]:
    """Return the result in sentences: one for each device, then what is exact over all of them."""
    return (*map(sentence, versus.devices), *exact_sentences(versus))


def exact_sentences(versus: Versus) -> tuple[str, ...]:
    """Say which tasks one side alone has, and whether the bytes and the pictures of the others are the same on both."""
    sides = (("A", versus.a), ("B", versus.b))
    alone = [f"Only {name} has {', '.join(side.own_tasks)}." for name, side in sides if side.own_tasks]
    exact = [row for device in versus.devices for row in device.rows if row.is_exact]
    if not exact:
        return tuple(alone)
    unlike = dict.fromkeys(f"{row.title} of {row.task}" for row in exact if _shown_value(row, row.a) != _shown_value(row, row.b))
    if not unlike:
        tasks = " and ".join(dict.fromkeys(row.task for row in exact))
        return (*alone, f"The bytes and the pictures of {tasks} are the same on A and B.")
    named = ", ".join(itertools.islice(unlike, _NAMED))
    more = f" and {len(unlike) - _NAMED} more" if len(unlike) > _NAMED else ""
    return (*alone, f"Not the same on A and B: {named}{more}.")


def _shown_value(row: SideRow, side: Figure | None) -> str:
    """Return a side's bytes, or its decibels as reports show them."""
    return "" if side is None else f"{side.value:.0f}" if row.unit else decibels(side.value)


def _stored(row: SideRow | None) -> str:
    if row is None or row.a is None or row.b is None or row.a.value <= 0:
        return "there are no times to compare"
    told = change(row.b.value / row.a.value)
    return "an image took the same time on A and B" if told.startswith("0.0 %") else f"an image took {told} time on B than on A"


def _said(row: SideRow, told: Comparison, looks: Looks) -> str:
    blocks = plural(told.blocks, "block")
    a, b = (f"{show(side.value, row.unit)} {row.unit}" if side and row.unit else "unknown" for side in (row.a, row.b))
    of = " of all tasks together" if row.task == ALL_TASKS else ""
    within = f"{between(told.low, told.high)}, {blocks}" if told.low is not None and told.high is not None else blocks
    match told.verdict:
        case Verdict.WORSE | Verdict.BETTER:
            less = f"an image takes {change(told.ratio)} time on B than on A"
            return f"{less} ({within}; medians{of}: A {a}, B {b}): {told.verdict}"
        case Verdict.SAME:
            return f"an image takes the same time on A and B, to within {percent(looks.margin)} ({within}): {told.verdict}"
        case Verdict.INCONCLUSIVE:
            more = f"about {told.blocks_needed} blocks would" if told.blocks_needed else "no affordable number would"
            return f"whether an image takes more time on B than on A cannot be told ({within}); {more}: {told.verdict}"


def _undone(verdict: Verdict, caveats: Sequence[Caveat]) -> str:
    """Return the clause that says under what circumstances a verdict came about that may be why."""
    circumstances = [words for caveat, words in _UNDOING.items() if caveat in caveats]
    but = "and" if verdict is Verdict.INCONCLUSIVE else "but"
    return f", {but} measured {' and '.join(circumstances)}" if circumstances else ""


def side_table(device: VersusDevice) -> TextTable:
    """Return a device's figures of both sides beside each other."""
    looks = device.looks
    notes: tuple[str, ...] = ()
    if looks:
        others = sum(row.comparison is not None for row in device.rows[1:])
        together = f" The {others} below the first were judged together (Holm)." if others > 1 else ""
        interval = f"B / A with its interval at {looks.confidence:.1%}, over {plural(device.blocks, 'block')} A B B A."
        notes = (f"{interval}{together}",)
    return TextTable(
        title=f"{device.device.address}: A and B",
        columns=("Task", "Figure", "A", "B", "B / A", "Interval", "Verdict"),
        numeric=(False, False, True, True, True, True, False),
        rows=tuple(_cells(row) for row in device.rows),
        notes=notes,
    )


def exported_tables(versus: Versus) -> tuple[TextTable, ...]:
    """Return each device's figures for elsewhere, with what the sides are, how they were launched and what is doubtful."""
    told = (f"Comparison {versus.comparison_id}.", f"A: {versus.a}.", f"B: {versus.b}.", "MB: 2^20 bytes.")
    return tuple(
        replace(
            table := side_table(device),
            title=f"{versus.title} on {device.device.address}",
            notes=(*told, sentence(device), *table.notes, *(f"{one.words}: {one.advice}" for one in device.caveats)),
        )
        for device in versus.devices
    )


def versus_csv(versus: Versus) -> str:
    """Return one line for each device, task and figure, with full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("device", "task", "figure", "unit", "a", "b", "ratio", "low", "high", "verdict", "run_a", "run_b"))
    runs = [csv_cell(side.run_id) for side in (versus.a, versus.b)]
    for device in versus.devices:
        for row in device.rows:
            told = row.comparison
            ends = (told.ratio, told.low, told.high) if told else (None, None, None)
            values = [
                None if side is None else convert(side.value, row.unit) if row.unit else side.value for side in (row.a, row.b)
            ]
            numbers = ["" if value is None else repr(value) for value in (*values, *ends)]
            place = map(csv_cell, (device.device.address, row.task, row.key, row.unit or "dB"))
            verdict = told.verdict if told else "exact" if row.is_exact else "no verdict"
            writer.writerow([*place, *numbers, verdict, *runs])
    return out.getvalue()


def difference_table(device: VersusDevice) -> TextTable:
    """Return what is not the same on both sides of a device."""
    return TextTable(
        title=f"{device.device.address}: what differs",
        columns=("What", "A", "B"),
        numeric=(False, False, False),
        rows=tuple((name, *values) for name, values in device.differences.items()),
    )


def _cells(row: SideRow) -> tuple[str, ...]:
    a, b = (None if side is None else side.value for side in (row.a, row.b))
    shown = [("–" if value is None else show(value, row.unit) if row.unit else decibels(value)) for value in (a, b)]
    title = f"{row.title}, {row.unit}" if row.unit else row.title
    ratio = f"{b / a:.3f}" if a and b and row.unit else "–"
    told = row.comparison
    if told is None or told.ratio is None:
        return (row.task, title, *shown, ratio, "–", "exact" if row.is_exact else "–")
    interval = f"{told.low:.3f} to {told.high:.3f}" if told.low is not None else "–"
    return (row.task, title, *shown, f"{told.ratio:.3f}", interval, told.verdict.value)


def caveats_of(sides: Sequence[Sequence[RunRecord]]) -> tuple[Caveat, ...]:
    """Return every doubt about a launch of either side."""
    seen = {caveat for side in sides for record in side for caveat in record.caveats}
    return tuple(caveat for caveat in Caveat if caveat in seen)
