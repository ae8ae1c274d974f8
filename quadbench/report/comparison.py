"""Comparison: launches interleaved as A B B A -> whether the shared graph takes more or less than one graph per task."""

from collections.abc import Sequence
from dataclasses import dataclass

from quadbench import statistics
from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, Status, TaskAssets, Variant
from quadbench.report.figure_table import FigureTable
from quadbench.report.kpi import launch_values
from quadbench.report.launches import devices_of, launches_on, sound
from quadbench.report.text_table import TextTable
from quadbench.report.units import times
from quadbench.statistics import EQUIVALENCE_MARGIN, LAUNCHES_PER_BLOCK, MIN_BLOCKS, Verdict, compare_launches

_COMPARED = {
    "end_to_end": "End to end",
    "switch": "Switch to this task",
    "first_image": "Switch and first image",
    "peak_ram": "Peak RAM, running",
}

_NOTE = (
    "Ratio: per-graph / shared, over blocks of launches interleaved A B B A; above 1 the shared graph takes less. Intervals are "
    f"Student's t; a verdict needs {MIN_BLOCKS} blocks, a margin of {EQUIVALENCE_MARGIN:.0%} and an exact sign-flip test."
)


@dataclass(frozen=True, kw_only=True)
class LaunchVerdict:
    """The shared graph judged against one graph per task. `ratio` is per-graph / shared, with its interval at 95 %."""

    task: str
    title: str
    blocks: int
    ratio: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict
    blocks_needed: int | None


def launch_verdicts(result: RunResult, device: DeviceFacts) -> tuple[LaunchVerdict, ...]:
    """Return one verdict for each task and compared figure; none where no whole block of launches was OK."""
    blocks = whole_blocks(launches_on(result, device))
    return tuple(
        verdict
        for task in result.bundle_on(device).tasks
        for key, title in _COMPARED.items()
        for verdict in _verdict(blocks, task, key, title)
    )


def comparison_tables(result: RunResult) -> tuple[FigureTable, ...]:
    """Return the verdicts of each device as a table, where blocks are enough for an interval."""
    judged = ((device, launch_verdicts(result, device)) for device in devices_of(result))
    return tuple(_table(device, verdicts) for device, verdicts in judged if any(verdict.low for verdict in verdicts))


def _table(device: DeviceFacts, verdicts: Sequence[LaunchVerdict]) -> FigureTable:
    return FigureTable(
        text=TextTable(
            title=f"Launch by launch on {device.address}",
            columns=("Task", "Figure", "Blocks", "Ratio", "95 % interval", "p", "Shared is"),
            numeric=(False, False, True, True, True, True, False),
            rows=tuple(_cells(verdict) for verdict in verdicts),
            notes=(_NOTE,),
        ),
        fields=("device", "task", "figure", "blocks", "ratio", "ratio_low", "ratio_high", "p", "verdict"),
        values=tuple((device.address, v.task, v.title, v.blocks, v.ratio, v.low, v.high, v.p, v.verdict.value) for v in verdicts),
    )


def _cells(verdict: LaunchVerdict) -> tuple[str, ...]:
    ratio = "–" if verdict.ratio is None else times(verdict.ratio)
    interval = "–" if verdict.low is None or verdict.high is None else f"{times(verdict.low)} – {times(verdict.high)}"
    p = "–" if verdict.p is None else f"{verdict.p:.3f}"
    return (verdict.task, verdict.title, str(verdict.blocks), ratio, interval, p, verdict.verdict.value)


def whole_blocks(records: Sequence[RunRecord]) -> tuple[tuple[RunRecord, ...], ...]:
    """Return the blocks of launches that were measured as A B B A or B A A B and are all OK.

    Launches of other variants, which may lie between them on both sides alike, are left out.
    """
    measured = [
        record
        for record in records
        if record.variant in {Variant.SHARED, Variant.PER_GRAPH} and record.status is not Status.DISCARDED
    ]
    size = 2 * LAUNCHES_PER_BLOCK
    groups = [tuple(measured[start : start + size]) for start in range(0, len(measured), size)]
    return tuple(group for group in groups if len(group) == size and _is_mirrored(group) and len(sound(group)) == size)


def _is_mirrored(group: Sequence[RunRecord]) -> bool:
    first, second, third, fourth = (record.variant for record in group)
    return first is fourth and second is third and first is not second


def _verdict(blocks: Sequence[Sequence[RunRecord]], task: TaskAssets, key: str, title: str) -> list[LaunchVerdict]:
    sides: dict[Variant, list[float]] = {Variant.PER_GRAPH: [], Variant.SHARED: []}
    launches = launch_values(key, [record for block in blocks for record in block], task)
    medians = iter(statistics.medians([values or (0.0,) for values in launches]))
    for block in blocks:
        measured = [(record.variant, next(medians)) for record in block]
        if all(middle > 0 for _, middle in measured):  # a ratio needs figures above 0
            for variant, middle in measured:
                sides[variant].append(middle)
    if not sides[Variant.SHARED]:
        return []
    comparison = compare_launches(sides[Variant.PER_GRAPH], sides[Variant.SHARED])
    return [
        LaunchVerdict(
            task=task.name,
            title=title,
            blocks=comparison.blocks,
            ratio=_inverse(comparison.ratio),
            low=_inverse(comparison.high),
            high=_inverse(comparison.low),
            p=comparison.sign_flip_p,
            verdict=comparison.verdict,
            blocks_needed=comparison.blocks_needed,
        )
    ]


def _inverse(ratio: float | None) -> float | None:
    """Turn a ratio round: the comparison speaks of shared / per-graph, the report of per-graph / shared throughout."""
    return None if ratio is None else 1 / ratio
