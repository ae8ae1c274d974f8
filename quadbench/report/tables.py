"""Tables: KPI rows -> a table of text, and that table as CSV, Markdown or LaTeX."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quadbench.artifacts import RunResult
from quadbench.recipe.published import published_table
from quadbench.report import words
from quadbench.report.int8 import int8_note
from quadbench.report.kpi import MERGED, NO_ADAPTER, NO_INPUT_IMAGE, Figure, KpiRow, kpi_rows
from quadbench.report.launches import EMULATED
from quadbench.report.text_table import TextTable, csv_cell, plain_cell
from quadbench.report.units import Unit, convert, number, show, times

_NOTES = (
    "Medians of the launches' medians, and the lowest and highest launch; with one launch, its lowest and highest sample.",
    f"{words.SIDES} n: launches × samples of a launch. MB: 2^20 bytes.",
    f"{words.RESIDUAL} {words.FOUNDATION_ROM}",
)


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the KPI table."""

    name: str
    cell: Callable[[KpiRow], str]
    is_numeric: bool = False


def kpi_table(result: RunResult, *, with_spread: bool = True) -> TextTable:
    """Return every device, task and figure of a run, in milliseconds and MB; what is the same in every row is in title and notes.

    Without the columns of the spread it fits a terminal of 100 characters.
    """
    rows = kpi_rows(result)
    devices = dict.fromkeys(row.device.address for row in rows)
    doubts = {frozenset(caveat for row in rows if row.device.address == device for caveat in row.caveats) for device in devices}
    columns = (
        *((_Column(name="Device", cell=lambda row: row.device.address),) if len(devices) > 1 else ()),
        *_COLUMNS,
        *((_PUBLISHED_COLUMN,) if result.published else ()),
        *(_SPREAD_COLUMNS if with_spread else ()),
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
        notes=_NOTES
        + tuple(filter(None, (int8_note(bundle.artifact) for bundle in result.bundles)))
        + ((published_table(result.published).note,) if result.published else ())
        + tuple(f"{doubt.words}: {doubt.advice}" for doubt in dict.fromkeys(doubt for row in rows for doubt in row.caveats)),
    )


def to_csv(result: RunResult) -> str:
    """Return one line a device, task and figure, with full precision; a cell without a figure is empty and `note` says why."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = [f"{variant}_{field}" for variant in ("shared", "per_graph") for field in _FIELDS]
    writer.writerow(["run_id", "device", "task", "figure", "unit", *fields, "ratio", "published", "caveats", "note"])
    for row in kpi_rows(result):
        numbers = [value for cell in (row.shared, row.per_graph) for value in _numbers(cell, row.unit)]
        ratio = "" if row.ratio is None else repr(row.ratio)
        names = [result.run_id, row.device.address, row.task, row.key, row.unit.value]
        published = "" if row.published is None else repr(row.published)
        words = [" ".join(row.caveats), _note(row)]
        writer.writerow([*map(csv_cell, names), *numbers, ratio, published, *map(csv_cell, words)])
    return out.getvalue()


def to_markdown(table: TextTable) -> str:
    """Return a GitHub table with its notes below."""
    lines = [f"**{_markdown(table.title)}**", "", _pipes([_markdown(column) for column in table.columns])]
    lines.append(_pipes(["---:" if numeric else "---" for numeric in table.numeric]))
    lines += [_pipes([_markdown(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes)]) + "\n"


def to_latex(table: TextTable) -> str:
    """Return a `tabular` for booktabs with its caption."""
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    rows = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in table.rows]
    caption = _latex(" ".join((f"{table.title}.", *table.notes)))
    head = " & ".join(_latex(column) for column in table.columns) + r" \\"
    lines = [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


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
    _Column(name="Ratio", cell=lambda row: "" if row.ratio is None else times(row.ratio), is_numeric=True),
    _Column(name="n", cell=_count, is_numeric=True),
)

_PUBLISHED_COLUMN = _Column(
    name="Published", cell=lambda row: "" if row.published is None else number(row.published), is_numeric=True
)

_SPREAD_COLUMNS = (
    _Column(name="Shared, from – to", cell=lambda row: _spread(row.shared, row), is_numeric=True),
    _Column(name="Per-graph, from – to", cell=lambda row: _spread(row.per_graph, row), is_numeric=True),
)


def _numbers(cell: Figure | str, unit: Unit) -> list[str]:
    if isinstance(cell, str):
        return [""] * len(_FIELDS)
    sizes = [None if size is None else convert(size, unit) for size in (cell.value, cell.low, cell.high, cell.mad, cell.p90)]
    return [*("" if size is None else repr(size) for size in sizes), *map(str, (cell.launches, cell.samples, cell.outliers))]


def _note(row: KpiRow) -> str:
    cells = {"shared": row.shared, "per-graph": row.per_graph}
    return "; ".join(f"{name}: {cell}" for name, cell in cells.items() if isinstance(cell, str))


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]" else letter for letter in plain_cell(text))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in plain_cell(text))
