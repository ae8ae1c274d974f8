"""Tables: KPI rows -> the table of a run's figures, as text and for machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quadbench.artifacts import RunResult
from quadbench.recipe.published import published_table
from quadbench.report import words
from quadbench.report.figure_table import FigureTable
from quadbench.report.int8 import int8_note
from quadbench.report.kpi import MERGED, NO_ADAPTER, NO_INPUT_IMAGE, Figure, KpiRow, kpi_rows
from quadbench.report.launches import EMULATED
from quadbench.report.text_table import TextTable
from quadbench.report.units import Unit, convert, number, rough_times, show

_NOTES = (
    "Medians of the launches' medians, and the lowest and highest launch; with one launch, its lowest and highest sample.",
    f"{words.SIDES} {words.RATIO} n: launches × samples of a launch. MB: 2^20 bytes.",
    f"{words.RESIDUAL} {words.FOUNDATION_ROM}",
)


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the KPI table."""

    name: str
    cell: Callable[[KpiRow], str]
    is_numeric: bool = False


def kpi_table(result: RunResult, *, is_whole: bool = True) -> TextTable:
    """Return every device, task and figure of a run, in milliseconds and MB; what is the same in every row is in title and notes.

    One that is not whole fits a terminal of 100 characters: it lacks the spread, and the doubts, which are told once elsewhere.
    """
    rows = kpi_rows(result)
    devices = dict.fromkeys(row.device.address for row in rows)
    doubts = {frozenset(caveat for row in rows if row.device.address == device for caveat in row.caveats) for device in devices}
    all_doubts = [doubt for row in rows for doubt in row.caveats]
    columns = (
        *((_Column(name="Device", cell=lambda row: row.device.address),) if len(devices) > 1 else ()),
        *_COLUMNS,
        *((_PUBLISHED_COLUMN,) if result.published else ()),
        *(_SPREAD_COLUMNS if is_whole else ()),
        *(
            (_Column(name="Doubts", cell=lambda row: ", ".join(caveat.words for caveat in row.caveats)),)
            if len(doubts) > 1
            else ()
        ),
    )
    on = f" on {next(iter(devices))}" if len(devices) == 1 else ""
    return TextTable(
        title=f"{result.bundle.recipe_name}{on}, run {result.run_id}",
        columns=tuple(column.name for column in columns),
        numeric=tuple(column.is_numeric for column in columns),
        rows=tuple(tuple(column.cell(row) for column in columns) for row in rows),
        notes=(
            *_NOTES,
            *filter(None, (int8_note(bundle.artifact) for bundle in result.bundles)),
            *((published_table(result.published).note,) if result.published else ()),
            *((f"{doubt.words}: {doubt.advice}" for doubt in dict.fromkeys(all_doubts)) if is_whole else ()),
        ),
    )


def kpi_figures(result: RunResult) -> FigureTable:
    """Return a row a device, task and figure, for machines with the spread of both sides, and a note where there is no figure."""
    sides = [f"{variant}_{field}" for variant in ("shared", "per_graph") for field in _FIELDS]
    return FigureTable(
        text=kpi_table(result),
        fields=("run_id", "device", "task", "figure", "unit", *sides, "ratio", "published", "caveats", "note"),
        values=tuple(
            (
                *(result.run_id, row.device.address, row.task, row.key, row.unit.value),
                *(value for cell in (row.shared, row.per_graph) for value in _values(cell, row.unit)),
                *(row.ratio, row.published, " ".join(row.caveats), _note(row)),
            )
            for row in kpi_rows(result)
        ),
    )


def count(figure: Figure) -> str:
    """Return launches and samples of each, as `3 × 20`; `3 launches, 55` where the launches differ."""
    each, rest = divmod(figure.samples, figure.launches)
    return f"{figure.launches} launches, {figure.samples}" if rest else f"{figure.launches} × {each}"


def spread(figure: Figure, unit: Unit) -> str:
    """Return the lowest and highest launch (or sample) in words."""
    return f"{show(figure.low, unit)} – {show(figure.high, unit)}"


_FIELDS = ("median", "low", "high", "mad", "p90", "launches", "samples", "outliers")


def _count(row: KpiRow) -> str:
    counts = dict.fromkeys(count(cell) for cell in (row.shared, row.per_graph) if isinstance(cell, Figure))
    return "" if row.is_exact else " / ".join(counts)


def _value(cell: Figure | str, unit: Unit) -> str:
    return _SHORT.get(cell, cell) if isinstance(cell, str) else show(cell.value, unit)


# What a text table has no room for; the HTML and the CSV say it in full.
_SHORT = {NO_INPUT_IMAGE: "n/a", NO_ADAPTER: "n/a", MERGED: "merged", EMULATED: "emulated"}


def _spread(cell: Figure | str, row: KpiRow) -> str:
    return "" if isinstance(cell, str) or row.is_exact else spread(cell, row.unit)


_COLUMNS = (
    _Column(name="Task", cell=lambda row: row.task),
    _Column(name="Figure", cell=lambda row: row.title),
    _Column(name="Unit", cell=lambda row: row.unit.value),
    _Column(name="Shared", cell=lambda row: _value(row.shared, row.unit), is_numeric=True),
    _Column(name="Per-graph", cell=lambda row: _value(row.per_graph, row.unit), is_numeric=True),
    _Column(name="Ratio", cell=lambda row: "" if row.ratio is None else rough_times(row.ratio), is_numeric=True),
    _Column(name="n", cell=_count, is_numeric=True),
)

_PUBLISHED_COLUMN = _Column(
    name="Published", cell=lambda row: "" if row.published is None else number(row.published), is_numeric=True
)

_SPREAD_COLUMNS = (
    _Column(name="Shared, from – to", cell=lambda row: _spread(row.shared, row), is_numeric=True),
    _Column(name="Per-graph, from – to", cell=lambda row: _spread(row.per_graph, row), is_numeric=True),
)


def _values(cell: Figure | str, unit: Unit) -> Sequence[float | None]:
    if isinstance(cell, str):
        return [None] * len(_FIELDS)
    sizes = [None if size is None else convert(size, unit) for size in (cell.value, cell.low, cell.high, cell.mad, cell.p90)]
    return [*sizes, cell.launches, cell.samples, cell.outliers]


def _note(row: KpiRow) -> str:
    cells = {"shared": row.shared, "per-graph": row.per_graph}
    return "; ".join(f"{name}: {cell}" for name, cell in cells.items() if isinstance(cell, str))
