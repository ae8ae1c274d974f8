"""Sides: launches of two sides, interleaved as A B B A or stored at different times -> their figures beside each other; pure."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import mean, median

from quadbench.artifacts import Bundle, DeviceFacts, RunRecord, TaskAssets
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.report.kpi import Figure, figure, kpi_title, kpi_unit, launch_values
from quadbench.report.launches import sound, temperature_c, values
from quadbench.report.units import Unit
from quadbench.statistics import Comparison, Looks, block_differences, compare_launches, hold_together, planned_looks

ALL_TASKS = "all tasks"
PRIMARY = "end_to_end"
_JUDGED = (PRIMARY, "unet_step", "switch", "first_image", "session_load", "peak_ram")
PSNR = "psnr"
SIZES = ("foundation_rom", "lora_rom")  # bytes of files
EXACT = (*SIZES, *PICTURE_METRICS)  # figures that need no statistics; PSNR is one of the metrics

Pair = tuple[tuple[TaskAssets, ...], tuple[TaskAssets, ...]]  # the tasks that both sides run, as each has them


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side's launches on a device, in the order measured, and the tasks that both sides run, as this side has them."""

    records: tuple[RunRecord, ...]
    tasks: tuple[TaskAssets, ...]

    def values(self, key: str, task: str) -> Sequence[Sequence[float]]:
        """Return each launch's values of a figure of a task, in nanoseconds, bytes or decibels."""
        if task == ALL_TASKS:
            return [[value] if (value := self.image_ns(record)) is not None else [] for record in self.records]
        (assets,) = (assets for assets in self.tasks if assets.name == task)
        if key == PSNR:
            return [[mean(scores)] if (scores := _psnr(record, task)) else [] for record in self.records]
        return launch_values(key, self.records, assets)

    def medians(self, key: str, task: str) -> list[float] | None:
        """Return one value a launch; None where a launch has none, or none above 0, of which no ratio can be taken."""
        measured = self.values(key, task)
        medians = [median(launch) for launch in measured if launch]
        return medians if medians and len(medians) == len(measured) and min(medians) > 0 else None

    def image_ns(self, record: RunRecord) -> float | None:
        """Return a launch's median time for an image, of several tasks the geometric mean; None where one has no time above 0."""
        medians = [median(images) for task in self.tasks for images in launch_values(PRIMARY, [record], task) if images]
        return math.exp(mean(map(math.log, medians))) if len(medians) == len(self.tasks) and min(medians) > 0 else None


@dataclass(frozen=True, kw_only=True)
class SideRow:
    """A figure of a task on both sides; the task ALL_TASKS stands for the geometric mean of all that both run.

    `comparison` is of B against A: a ratio above 1 says that B takes more. It is None where launches were not interleaved, and
    for what is exact: bytes, and decibels of pictures, whose unit is None.
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
        """Say whether the figure needs no statistics."""
        return self.key in EXACT


@dataclass(frozen=True, kw_only=True)
class TimedLaunch:
    """A launch of side A or B: when it began, its median time for an image, and how hot it was.

    The time is the geometric mean over tasks.

    `temperature_c` is the battery's before the launch, None where the device does not tell.
    """

    side: str
    began_at: datetime
    image_ns: float | None
    temperature_c: float | None


def timed_launches(a: Side, b: Side) -> tuple[TimedLaunch, ...]:
    """Return the launches of both sides by time."""
    launches = [
        TimedLaunch(side=name, began_at=record.started_at, image_ns=side.image_ns(record), temperature_c=temperature_c(record))
        for name, side in (("A", a), ("B", b))
        for record in side.records
    ]
    return tuple(sorted(launches, key=lambda launch: launch.began_at))


def common_tasks(a: Bundle, b: Bundle, *, wanted: Collection[str] = ()) -> Pair:
    """Return the tasks that two bundles have by name, as each has them, in A's order: those that are wanted, or all."""
    others = {task.name: task for task in b.tasks if not wanted or task.name in wanted}
    common = tuple(task for task in a.tasks if task.name in others)
    return common, tuple(others[task.name] for task in common)


def sides_of_blocks(blocks: Sequence[Sequence[RunRecord]], a: Sequence[TaskAssets], b: Sequence[TaskAssets]) -> tuple[Side, Side]:
    """Return the sides of blocks A B B A. `a` and `b` are the tasks that both run, as each has them."""
    first = tuple(record for block in blocks for record in (block[0], block[3]))
    second = tuple(record for block in blocks for record in (block[1], block[2]))
    return Side(records=first, tasks=tuple(a)), Side(records=second, tasks=tuple(b))


def compared(a: Side, b: Side, key: str, task: str, looks: Looks) -> Comparison | None:
    """Compare interleaved sides by a figure of a task that both run; None where a launch has none, or none above 0."""
    first, second = a.medians(key, task), b.medians(key, task)
    if first is None or second is None:
        return None
    return compare_launches(first, second, margin=looks.margin, confidence=looks.confidence)


def replanned(a: Side, b: Side, to_see: float) -> Looks | None:
    """Plan looks that tell an effect of `to_see`, from the spread so far; None where no affordable number of blocks does.

    Raises:
        ValueError: a launch has no time for an image.
    """
    sides = a.medians(PRIMARY, ALL_TASKS), b.medians(PRIMARY, ALL_TASKS)
    if sides[0] is None or sides[1] is None:
        raise ValueError("a launch without a time for an image")
    return planned_looks(block_differences(sides[0], sides[1]), to_see)


def interleaved_rows(device: DeviceFacts, a: Side, b: Side, looks: Looks) -> tuple[SideRow, ...]:
    """Return the rows of launches that were interleaved on a device: the first is what the sides are judged by.

    The other measured rows are judged together, so that any of them is called apart by chance in at most 5 % of comparisons.
    """
    rows = side_rows(device, a, b)
    told = {place: compared(a, b, row.key, row.task, looks) for place, row in enumerate(rows) if not row.is_exact}
    others = {place: one for place, one in told.items() if place and one}
    told |= dict(zip(others, hold_together(list(others.values()), looks.confidence), strict=True))
    return tuple(replace(row, comparison=told.get(place)) for place, row in enumerate(rows))


def side_rows(device: DeviceFacts, a: Side, b: Side) -> tuple[SideRow, ...]:
    """Return the rows of launches that ran at any time, without a comparison; figures that neither side has are left out."""
    tasks = [task.name for task in a.tasks]
    wanted = [(PRIMARY, ALL_TASKS)] if len(tasks) > 1 else []
    wanted += [(key, task) for task in tasks for key in (*_JUDGED, *SIZES, PSNR)]
    rows = [
        _row(device, key, task, replace(a, records=sound(a.records)), replace(b, records=sound(b.records)))
        for key, task in wanted
    ]
    return tuple(row for row in rows if row.a or row.b)


def _row(device: DeviceFacts, key: str, task: str, a: Side, b: Side) -> SideRow:
    return SideRow(
        device=device,
        task=task,
        key=key,
        title="PSNR, mean" if key == PSNR else kpi_title(key),
        unit=None if key == PSNR else kpi_unit(key),
        a=figure(a.values(key, task)),
        b=figure(b.values(key, task)),
    )


def _psnr(record: RunRecord, task: str) -> list[float]:
    return values(record, "psnr_db", lambda sample: sample.task == task and sample.labels.get("against") == "reference")
