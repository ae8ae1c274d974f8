"""Comparison of two builds, A and B, from interleaved launches or stored runs: metrics, verdicts, sentences and tables."""

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import mean, median

from quadbench.artifacts import Bundle, Caveat, DeviceFacts, RunRecord, TaskAssets, Variant
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.safe_text import FileName
from quadbench.report import formatting
from quadbench.report.formatting import TextTable, Unit, between, change, convert, decibels, display, percent, plural, show
from quadbench.report.kpi import KPI_TITLES, KPI_UNITS, Figure, figure, launch_values
from quadbench.report.launches import caveats_in_order, only_ok, picture_psnr, temperature_c
from quadbench.statistics import Looks, Verdict
from quadbench.statistics.launch_comparison import Comparison, block_differences, compare_launches
from quadbench.statistics.multiple_testing import adjust_verdicts, planned_looks

ALL_TASKS = "all tasks"
PRIMARY = "end_to_end"
_JUDGED = (PRIMARY, "unet_step", "switch", "first_image", "session_load", "peak_ram")
PSNR = "psnr"
SIZES = ("foundation_rom", "lora_rom")  # bytes of files
EXACT = (*SIZES, *PICTURE_METRICS)  # figures that need no statistics; PSNR is one of the metrics

Pair = tuple[tuple[TaskAssets, ...], tuple[TaskAssets, ...]]  # the common tasks, in A's and in B's version

SCHEMA_VERSION = 1
_NAMED = 4  # figures that a sentence names
_UNDOING = {  # caveats that may explain a difference, in the words of a verdict
    Caveat.LOADED_HOST: "on a loaded host",
    Caveat.THROTTLED: "on a hot device",
    Caveat.STILL_WARMING: "while still warming",
    Caveat.CHANGED_ENVIRONMENT: "in a changed environment",
    Caveat.DEBUG_BUILD: "with a debug build",
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """A build in a comparison of two: its launches on a device, in order, and its settings of the tasks that both builds have."""

    records: tuple[RunRecord, ...]
    tasks: tuple[TaskAssets, ...]

    def values(self, key: str, task: str) -> Sequence[Sequence[float]]:
        """Return one sequence per launch: a task's values of metric `key` in ns, bytes or decibels, empty if not measured."""
        if task == ALL_TASKS:
            return [[value] if (value := self.image_ns(record)) is not None else [] for record in self.records]
        (assets,) = (assets for assets in self.tasks if assets.name == task)
        if key == PSNR:
            return [[mean(scores)] if (scores := picture_psnr([record], task)) else [] for record in self.records]
        return launch_values(key, self.records, assets)

    def medians(self, key: str, task: str) -> list[float] | None:
        """Return each launch's median of metric `key`; None if there is no launch, or if a median is missing or not above 0."""
        measured = self.values(key, task)
        medians = [median(launch) for launch in measured if launch]
        return medians if medians and len(medians) == len(measured) and min(medians) > 0 else None

    def image_ns(self, record: RunRecord) -> float | None:
        """Return the geometric mean over tasks of a launch's median image times; None if a task has no time above 0."""
        medians = [median(images) for task in self.tasks for images in launch_values(PRIMARY, [record], task) if images]
        return math.exp(mean(map(math.log, medians))) if len(medians) == len(self.tasks) and min(medians) > 0 else None


@dataclass(frozen=True, kw_only=True)
class SideRow:
    """A metric of a task in the compared builds A and B. The task ALL_TASKS stands for the geometric mean over tasks.
    `comparison` has the ratio B / A and a verdict. `comparison` is None for file sizes and PSNR. For other metrics, it is None if
    launches were not interleaved or a launch has no value above 0. `unit` is None for PSNR, whose values are in decibels.
    """

    device: DeviceFacts
    task: str
    key: str
    title: str
    unit: Unit | None
    a: Figure | None
    b: Figure | None
    comparison: Comparison | None = None

    @property
    def is_exact(self) -> bool:
        """Return whether the metric is exact (bytes or image quality), so that it needs no statistics."""
        return self.key in EXACT

    @property
    def values(self) -> tuple[float | None, float | None]:
        """Return the pair (A's value, B's value) of the metric. A missing value is None."""
        return (self.a.value if self.a else None, self.b.value if self.b else None)

    @property
    def ratio(self) -> float | None:
        """Return the metric's value for build B divided by that for build A; None for decibels and missing values."""
        a, b = self.values
        return b / a if a and b and self.unit else None

    @property
    def outcome(self) -> str:
        """Return the metric's verdict, such as `BETTER`. Without one: `exact` (bytes, image quality) or else `no verdict`."""
        return self.comparison.verdict if self.comparison else "exact" if self.is_exact else "no verdict"


@dataclass(frozen=True, kw_only=True)
class TimedLaunch:
    """A launch of compared build A or B with its start, median image time and battery temperature.
    The time is the geometric mean over tasks. `temperature_c` was read before the launch; None if unknown.
    """

    side: str
    began_at: datetime
    image_ns: float | None
    temperature_c: float | None


def timed_launches(a: Side, b: Side) -> tuple[TimedLaunch, ...]:
    """Return the launches of both compared builds, A and B, in order of time."""
    launches = [
        TimedLaunch(side=name, began_at=record.started_at, image_ns=side.image_ns(record), temperature_c=temperature_c(record))
        for name, side in (("A", a), ("B", b))
        for record in side.records
    ]
    return tuple(sorted(launches, key=lambda launch: launch.began_at))


def common_tasks(a: Bundle, b: Bundle, *, wanted: Collection[str] = ()) -> Pair:
    """Return the tasks that both bundles have, in A's order, as two tuples: A's definitions and B's. If `wanted` is not empty,
    only tasks named there are returned.
    """
    others = {task.name: task for task in b.tasks if not wanted or task.name in wanted}
    common = tuple(task for task in a.tasks if task.name in others)
    return common, tuple(others[task.name] for task in common)


def sides_of_blocks(blocks: Sequence[Sequence[RunRecord]], a: Sequence[TaskAssets], b: Sequence[TaskAssets]) -> tuple[Side, Side]:
    """Split blocks of launches (in the order A, B, B, A) by build. Return a `Side` of A with tasks `a`, and one of B with `b`."""
    first = tuple(record for block in blocks for record in (block[0], block[3]))
    second = tuple(record for block in blocks for record in (block[1], block[2]))
    return Side(records=first, tasks=tuple(a)), Side(records=second, tasks=tuple(b))


def compare_key(a: Side, b: Side, key: str, task: str, looks: Looks) -> Comparison | None:
    """Return a `Comparison` of builds A and B in metric `key` of a task. Return None if any launch lacks a median above 0."""
    first, second = a.medians(key, task), b.medians(key, task)
    if first is None or second is None:
        return None
    return compare_launches(first, second, margin=looks.margin, confidence=looks.confidence)


def replan_looks(a: Side, b: Side, to_see: float) -> Looks | None:
    """Plan interim analyses to detect a relative change of image time of at least `to_see` (0.05 is 5 %). The spread of the
    launches so far sets the number of blocks. Return the plan, or None if it needs more than MAX_BLOCKS blocks.
    """
    sides = a.medians(PRIMARY, ALL_TASKS), b.medians(PRIMARY, ALL_TASKS)
    if sides[0] is None or sides[1] is None:
        raise ValueError("a launch without a time for an image")
    return planned_looks(block_differences(sides[0], sides[1]), to_see)


def interleaved_rows(device: DeviceFacts, a: Side, b: Side, looks: Looks) -> tuple[SideRow, ...]:
    """Return a row for each metric of builds A and B from interleaved launches on a device. The first row, image time, decides
    the comparison. The other rows are tested together: for equal builds, the chance of any false difference is at most 5 %.
    """
    rows = side_rows(device, a, b)
    diffs = {place: compare_key(a, b, row.key, row.task, looks) for place, row in enumerate(rows) if not row.is_exact}
    others = {place: one for place, one in diffs.items() if place and one}
    diffs |= dict(zip(others, adjust_verdicts(list(others.values()), looks.confidence), strict=True))
    return tuple(replace(row, comparison=diffs.get(place)) for place, row in enumerate(rows))


def side_rows(device: DeviceFacts, a: Side, b: Side) -> tuple[SideRow, ...]:
    """Return a row for each metric of builds A and B from OK launches, without verdicts. Metrics that neither has are omitted."""
    tasks = [task.name for task in a.tasks]
    wanted = [(PRIMARY, ALL_TASKS)] if len(tasks) > 1 else []
    wanted += [(key, task) for task in tasks for key in (*_JUDGED, *SIZES, PSNR)]
    a, b = replace(a, records=only_ok(a.records)), replace(b, records=only_ok(b.records))
    rows = [
        SideRow(
            device=device,
            task=task,
            key=key,
            title="PSNR, mean" if key == PSNR else KPI_TITLES[key],
            unit=None if key == PSNR else KPI_UNITS[key],
            a=figure(a.values(key, task)),
            b=figure(b.values(key, task)),
        )
        for key, task in wanted
    ]
    return tuple(row for row in rows if row.a or row.b)


@dataclass(frozen=True, kw_only=True)
class VersusSide:
    """One of two compared builds: the source (such as a recipe), the changed settings, the variant, and the id of the run."""

    source: str
    changes: dict[str, str]
    variant: Variant
    run_id: str
    of: str | None = None  # the recipe and swept values of a stored run
    own_tasks: tuple[str, ...] = ()  # tasks that the other side lacks; they are not compared

    @property
    def name(self) -> str:
        """Return the build's display name: its source, such as a recipe, then changed settings, as in `NAME with KEY=VALUE`."""
        changes = ", ".join(f"{key}={value}" for key, value in self.changes.items())
        return f"{self.of or self.source}{f' with {changes}' if changes else ''}"

    def __str__(self) -> str:
        changes = ", ".join(f"{key}={value}" for key, value in self.changes.items() if key != "variant")
        run = "" if self.source == self.run_id and not self.of else f", run {self.run_id}"
        return f"{self.of or self.source}{f' with {changes}' if changes else ''}, {self.variant}{run}"


@dataclass(frozen=True, kw_only=True)
class VersusDevice:
    """A comparison of builds A and B on one device. `looks` are the interim analyses, None for stored runs. Stored runs get no
    verdicts, because their launches were not interleaved. `differences` maps the name of each differing input or setting to the
    values in A and B. `caveats` and `launches` cover A and B; `launches` are in order of time.
    """

    device: DeviceFacts
    blocks: int
    looks: Looks | None
    rows: tuple[SideRow, ...]
    differences: dict[str, tuple[str, str]]
    caveats: tuple[Caveat, ...]
    broken: str | None = None  # reason for an early end
    launches: tuple[TimedLaunch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Versus:
    """A complete comparison of two builds. `failures` maps the address of each omitted device to the reason."""

    schema_version: int = SCHEMA_VERSION
    comparison_id: FileName
    a: VersusSide
    b: VersusSide
    to_see: float | None
    devices: tuple[VersusDevice, ...]
    failures: dict[str, str]

    @property
    def title(self) -> str:
        """Return the title `NAME against NAME` for builds A and B. Equal names are followed by the build's variant and run id."""
        a, b = (self.a.name, self.b.name) if self.a.name != self.b.name else (str(self.a), str(self.b))
        return f"{a} against {b}"

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        return caveats_in_order(caveat for device in self.devices for caveat in device.caveats)

    @property
    def is_stored(self) -> bool:
        """Return True for a comparison of stored runs, False if builds A and B were launched in turn."""
        return all(device.looks is None for device in self.devices)

    @property
    def settling_command(self) -> tuple[str, ...]:
        """Return the arguments of a `compare` command that launches builds A and B in turn on the same devices, for a verdict."""
        return self._words(self._addresses)

    @property
    def command_elsewhere(self) -> tuple[str, ...]:
        """Return the arguments of a `compare` command for another device. NAME is a placeholder for the device's address."""
        return self._words(["NAME"])

    @property
    def repeat_command(self) -> tuple[str, ...]:
        """Return the arguments of a `compare` command that repeats the comparison. For stored runs, `--devices` is omitted."""
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
    """Return the image time row that decides a device's comparison: for ALL_TASKS if any, else for the first task, else None."""
    rows = [row for row in device.rows if row.key == PRIMARY]
    return next((row for row in rows if row.task == ALL_TASKS), rows[0] if rows else None)


def is_decided(device: VersusDevice) -> bool:
    """Return whether a device's verdict on image time is known: better, worse or the same."""
    row = primary_row(device)
    return row is not None and row.comparison is not None and row.comparison.verdict is not Verdict.INCONCLUSIVE


def sentence(device: VersusDevice) -> str:
    """Return the result of a comparison on a device as a sentence."""
    row, where = primary_row(device), f"On {device.device.address}"
    if device.looks is None:
        return f"{where}, {_stored_sentence(row)}. Whether they caused it is unknown: the runs were not launched in turn."
    if row is None or row.comparison is None or row.comparison.ratio is None:
        return f"{where}, there are no times to compare{f': {device.broken}' if device.broken else ''}."
    far = row.comparison.far_blocks
    early = f"; {plural(far, 'block')} far from all others left out of the interval" if far else ""
    early += f"; the comparison ended early: {device.broken}" if device.broken else ""
    circumstances = [words for caveat, words in _UNDOING.items() if caveat in device.caveats]  # possible causes of the difference
    but = "and" if row.comparison.verdict is Verdict.INCONCLUSIVE else "but"
    undone = f", {but} measured {' and '.join(circumstances)}" if circumstances else ""
    return f"{where}, {_comparison_sentence(row, row.comparison, device.looks)}{undone}{early}."


def answer(versus: Versus) -> tuple[str, ...]:
    """Return a comparison's result as sentences: one on image time per device, then any on tasks, file sizes and PSNR."""
    return (*map(sentence, versus.devices), *exact_sentences(versus))


def exact_sentences(versus: Versus) -> tuple[str, ...]:
    """Return sentences on two builds: which tasks only one build has, and which file sizes or PSNR values differ, if any."""
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
    """Return a build's value as text: whole bytes for a file size, rounded decibels for PSNR, empty text if missing."""
    return "" if side is None else f"{side.value:.0f}" if row.unit else decibels(side.value)


def _stored_sentence(row: SideRow | None) -> str:
    if row is None or row.a is None or row.b is None or row.a.value <= 0:
        return "there are no times to compare"
    size = change(row.b.value / row.a.value)
    return "an image took the same time on A and B" if size.startswith("0.0 %") else f"an image took {size} time on B than on A"


def _comparison_sentence(row: SideRow, result: Comparison, looks: Looks) -> str:
    blocks = plural(result.blocks, "block")
    a, b = (f"{show(side.value, row.unit)} {row.unit}" if side and row.unit else "unknown" for side in (row.a, row.b))
    of = " of all tasks together" if row.task == ALL_TASKS else ""
    within = f"{between(result.low, result.high)}, {blocks}" if result.low is not None and result.high is not None else blocks
    match result.verdict:
        case Verdict.WORSE | Verdict.BETTER:
            less = f"an image takes {change(result.ratio)} time on B than on A"
            return f"{less} ({within}; medians{of}: A {a}, B {b}): {result.verdict}"
        case Verdict.SAME:
            return f"an image takes the same time on A and B, to within {percent(looks.margin)} ({within}): {result.verdict}"
        case Verdict.INCONCLUSIVE:
            enough = f"about {result.blocks_needed} blocks" if result.blocks_needed else "no affordable number"
            more = f"{within}; {enough} would show it"
            return f"it is unknown whether an image takes more time on B than on A ({more}): {result.verdict}"


def side_table(device: VersusDevice) -> TextTable:
    looks = device.looks
    notes: tuple[str, ...] = ()
    if looks:
        others = sum(row.comparison is not None for row in device.rows[1:])
        together = f" The {others} below the first were tested together (Holm's method)." if others > 1 else ""
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
    """Return one table per device for export: its metrics of builds A and B, with notes on the builds, the result and caveats."""
    notes = (f"Comparison {versus.comparison_id}.", f"A: {versus.a}.", f"B: {versus.b}.", "MB: 2^20 bytes.")
    return tuple(
        replace(
            table := side_table(device),
            title=f"{versus.title} on {device.device.address}",
            notes=(*notes, sentence(device), *table.notes, *(f"{one.label}: {one.advice}" for one in device.caveats)),
        )
        for device in versus.devices
    )


def versus_csv(versus: Versus) -> str:
    """Return the comparison as CSV: one line for each device, task and metric, with full precision."""
    fields = ("device", "task", "figure", "unit", "a", "b", "ratio", "low", "high", "verdict", "run_a", "run_b")
    rows = []
    for device, row in ((one, row) for one in versus.devices for row in one.rows):
        sides = [value if value is None or row.unit is None else convert(value, row.unit) for value in row.values]
        result = row.comparison
        ends = (result.ratio, result.low, result.high) if result else (None, None, None)
        place = (device.device.address, row.task, row.key, row.unit or "dB")
        rows.append((*place, *sides, *ends, row.outcome, versus.a.run_id, versus.b.run_id))
    return formatting.csv_text(fields, rows)


def difference_table(device: VersusDevice) -> TextTable:
    """Return a table of the settings that differ between the two compared builds on a device."""
    rows = ((name, *values) for name, values in device.differences.items())
    return TextTable.of_words(f"{device.device.address}: what differs", ("What", "A", "B"), rows)


def _cells(row: SideRow) -> tuple[str, ...]:
    figure = (row.task, formatting.labelled(row.title, row.unit), *(display(value, row.unit) for value in row.values))
    result = row.comparison
    if result is None or result.ratio is None:
        return (*figure, "–" if row.ratio is None else f"{row.ratio:.3f}", "–", "exact" if row.is_exact else "–")
    interval = f"{result.low:.3f} to {result.high:.3f}" if result.low is not None else "–"
    return (*figure, f"{result.ratio:.3f}", interval, result.verdict.value)


def caveats_of(sides: Sequence[Sequence[RunRecord]]) -> tuple[Caveat, ...]:
    """Return the caveats of the launches of both compared builds, without duplicates."""
    return caveats_in_order(caveat for side in sides for record in side for caveat in record.caveats)
