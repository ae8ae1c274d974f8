"""Tables: KPI rows -> a table of text, and that table as CSV, Markdown or LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from quadbench.artifacts import RunResult
from quadbench.report.kpi import Figure, KpiRow, kpi_rows
from quadbench.report.units import Unit, convert, show, times


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text. `numeric` says which columns are set flush right; `notes` go below it."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


_COLUMNS = (
    "Device",
    "Task",
    "Figure",
    "Unit",
    "Shared",
    "Per-graph",
    "Ratio",
    "n",
    "Shared from - to",
    "Per-graph from - to",
    "Doubts",
)
_NUMERIC = (False, False, False, False, True, True, True, True, True, True, False)

_NOTES = (
    "Medians of the launches' medians, and the lowest and highest launch; with one launch, its lowest and highest sample.",
    "Ratio: per-graph / shared; above 1 the shared graph takes less. n: launches x samples of a launch. MB: 2^20 bytes.",
)


def kpi_table(result: RunResult) -> Table:
    """Every device, task and figure of a run, in milliseconds and MB."""
    rows = kpi_rows(result)
    doubts = dict.fromkeys(caveat for row in rows for caveat in row.caveats)
    return Table(
        title=f"{result.bundle.recipe_name}, run {result.run_id}",
        columns=_COLUMNS,
        numeric=_NUMERIC,
        rows=tuple(_cells(row) for row in rows),
        notes=_NOTES + tuple(f"{doubt}: {doubt.advice}" for doubt in doubts),
    )


def to_csv(result: RunResult) -> str:
    """One line a device, task and figure, with full precision; a cell without a figure is empty and `note` says why."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = [f"{variant}_{field}" for variant in ("shared", "per_graph") for field in _FIELDS]
    writer.writerow(["run_id", "device", "task", "figure", "unit", *fields, "ratio", "caveats", "note"])
    for row in kpi_rows(result):
        numbers = [value for cell in (row.shared, row.per_graph) for value in _numbers(cell, row.unit)]
        ratio = "" if row.ratio is None else repr(row.ratio)
        names = [result.run_id, row.device.address, row.task, row.key, row.unit.value]
        writer.writerow([*names, *numbers, ratio, " ".join(row.caveats), _note(row)])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A GitHub table with its notes below."""
    lines = [f"**{_markdown(table.title)}**", "", _pipes(table.columns)]
    lines.append(_pipes(["---:" if numeric else "---" for numeric in table.numeric]))
    lines += [_pipes([_markdown(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes)]) + "\n"


def to_latex(table: Table) -> str:
    """A `tabular` for booktabs with its caption."""
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    rows = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in table.rows]
    caption = _latex(" ".join((f"{table.title}.", *table.notes)))
    head = " & ".join(_latex(column) for column in table.columns) + r" \\"
    lines = [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def count(figure: Figure) -> str:
    """Launches and samples of each, as `3 x 20`; `3 launches, 55` where the launches differ."""
    each, rest = divmod(figure.samples, figure.launches)
    return f"{figure.launches} launches, {figure.samples}" if rest else f"{figure.launches} × {each}"


def spread(figure: Figure, unit: Unit) -> str:
    """The lowest and highest launch (or sample)."""
    return f"{show(figure.low, unit)} – {show(figure.high, unit)}"


_FIELDS = ("median", "low", "high", "mad", "p90", "launches", "samples")


def _cells(row: KpiRow) -> tuple[str, ...]:
    figures = [cell for cell in (row.shared, row.per_graph) if isinstance(cell, Figure)]
    counts = list(dict.fromkeys(count(figure) for figure in figures))
    return (
        row.device.address,
        row.task,
        row.title,
        row.unit.value,
        _value(row.shared, row.unit),
        _value(row.per_graph, row.unit),
        "" if row.ratio is None else times(row.ratio),
        "" if row.is_exact else " / ".join(counts),
        _spread(row.shared, row),
        _spread(row.per_graph, row),
        ", ".join(row.caveats),
    )


def _value(cell: Figure | str, unit: Unit) -> str:
    return cell if isinstance(cell, str) else show(cell.value, unit)


def _spread(cell: Figure | str, row: KpiRow) -> str:
    return "" if isinstance(cell, str) or row.is_exact else spread(cell, row.unit)


def _numbers(cell: Figure | str, unit: Unit) -> list[str]:
    if isinstance(cell, str):
        return [""] * len(_FIELDS)
    sizes = [None if size is None else convert(size, unit) for size in (cell.value, cell.low, cell.high, cell.mad, cell.p90)]
    return [*("" if size is None else repr(size) for size in sizes), str(cell.launches), str(cell.samples)]


def _note(row: KpiRow) -> str:
    cells = {"shared": row.shared, "per-graph": row.per_graph}
    return "; ".join(f"{name}: {cell}" for name, cell in cells.items() if isinstance(cell, str))


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]" else letter for letter in text)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
