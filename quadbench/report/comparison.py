"""Comparison: KPI rows -> the verdicts on launches in turn, and a table of them for each device; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from quadbench.artifacts import DeviceFacts, RunResult
from quadbench.report.figure_table import FigureTable, TextTable
from quadbench.report.kpi import WITH_VERDICT, KpiRow, kpi_rows
from quadbench.report.units import times
from quadbench.statistics import EQUIVALENCE_MARGIN, MIN_BLOCKS, Verdict

NO_VERDICT = "no verdict"


@dataclass(frozen=True, kw_only=True)
class LaunchVerdict:
    """The shared graph judged against one graph per task. `ratio` is per-graph / shared, with its interval at 95 %.

    `p` is that of equal sides, adjusted for the `together` figures of the report that were judged together. `verdict` is None
    with fewer than six blocks. Where nothing can be claimed, about `launches_needed` launches a side would tell 5 %; None of
    these would where no affordable number does.
    """

    task: str
    title: str
    blocks: int
    ratio: float
    low: float
    high: float
    p: float
    together: int
    verdict: Verdict | None
    launches_needed: int | None


def launch_verdicts(rows: Sequence[KpiRow], device: DeviceFacts) -> tuple[LaunchVerdict, ...]:
    """Return one verdict for each task and compared figure of a device, given the rows of the whole report."""
    judged = [(row, row.judged) for row in rows if row.judged and row.key in WITH_VERDICT]
    return tuple(
        LaunchVerdict(
            task=row.task,
            title=row.title,
            blocks=told.blocks,
            ratio=1 / told.ratio,
            low=1 / told.high,
            high=1 / told.low,
            p=told.p,
            together=len(judged),
            verdict=told.verdict if told.blocks >= MIN_BLOCKS else None,
            launches_needed=told.launches_needed,
        )
        for row, told in judged
        if row.device == device
    )


def comparison_tables(result: RunResult) -> tuple[FigureTable, ...]:
    """Return the verdicts of each device as a table, where a block of launches is whole."""
    rows = kpi_rows(result)
    judged = ((device, launch_verdicts(rows, device)) for device in result.devices)
    return tuple(_table(device, verdicts) for device, verdicts in judged if verdicts)


def note_on(verdicts: Sequence[LaunchVerdict]) -> str:
    """Say how verdicts came about, and how many figures of the report were judged together."""
    count = verdicts[0].together
    return (
        "Ratio: per-graph / shared, over blocks of launches interleaved A B B A; above 1 the shared graph takes less. Intervals "
        f"are Student's t at 95 %, each for itself. {count} figures of this report were judged together: p is of a t-test "
        f"and adjusted for all (Holm). A verdict needs {MIN_BLOCKS} blocks; BETTER and WORSE need the whole interval beyond "
        f"{EQUIVALENCE_MARGIN:.0%}, p of at most 0.05 and an exact sign-flip test that agrees."
    )


def _table(device: DeviceFacts, verdicts: Sequence[LaunchVerdict]) -> FigureTable:
    return FigureTable(
        text=TextTable(
            title=f"Launch by launch on {device.address}",
            columns=("Task", "Figure", "Blocks", "Ratio", "95 % interval", "p", "Shared is"),
            numeric=(False, False, True, True, True, True, False),
            rows=tuple(_cells(verdict) for verdict in verdicts),
            notes=(note_on(verdicts),),
        ),
        fields=("device", "task", "figure", "blocks", "ratio", "ratio_low", "ratio_high", "p", "verdict"),
        values=tuple((device.address, v.task, v.title, v.blocks, v.ratio, v.low, v.high, v.p, v.verdict) for v in verdicts),
    )


def _cells(verdict: LaunchVerdict) -> tuple[str, ...]:
    interval = f"{times(verdict.low)} – {times(verdict.high)}"
    p = "<0.001" if verdict.p < 0.001 else f"{verdict.p:.3f}"
    place = (verdict.task, verdict.title, str(verdict.blocks))
    return (*place, times(verdict.ratio), interval, p, verdict.verdict or NO_VERDICT)
