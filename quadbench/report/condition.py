"""Condition: an expression over a run's figures, as `shared.end_to_end_ms.p50 > 200` -> where it holds. Pure.

Names are [TASK.]SIDE.FIGURE.PART, [TASK.]SIDE.psnr_db and [TASK.]ratio.FIGURE; without a task they are of every task in turn.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from quadbench.errors import UnknownNameError, UserError
from quadbench.report.expression import Expression, read_expression
from quadbench.report.kpi import KPI_UNITS, NOT_APPLICABLE, Figure, KpiRow
from quadbench.report.pictures import Quality
from quadbench.report.units import convert

_SIDES, _RATIO = ("shared", "per_graph"), "ratio"
_PARTS = ("p50", "low", "high", "mad", "p90", "launches", "samples")
_FIGURES = {f"{key}_{unit.lower()}": key for key, unit in KPI_UNITS.items()}
_LIKENESS = ("psnr_db", "psnr_truth_db")
_Place = tuple[str, str, str]  # device, task, and the name's rest


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """An expression with its names, each as the task that it is of, if it is of one, and the rest."""

    expression: Expression
    names: dict[str, tuple[str | None, str]]


def read_condition(text: str, tasks: Iterable[str]) -> Criterion:
    """Read a condition on the figures of a run of these tasks.

    Raises:
        UserError: it is no expression, or names nothing.
        UnknownNameError: it names what no run has, or another task; the message lists the known ones.
    """
    expression, known = read_expression(text), tuple(tasks)
    if not expression.names:
        raise UserError(f"'{text}' names no figure", hint="as 'shared.end_to_end_ms.p50 > 200'; docs/commands.md has the names")
    return Criterion(expression=expression, names={name: _read_name(name, known) for name in expression.names})


def where_met(condition: Criterion, rows: Sequence[KpiRow], quality: Sequence[Quality]) -> tuple[str, ...]:
    """Say where a condition holds, on each device and for each task that it is of; a figure that is missing counts as if it did.

    A task to which a figure does not apply, as the VAE encoder's without an input image, is passed over, unless all are.
    """
    figures = dict([*_of_rows(rows), *_of_quality(quality)])
    exempt = {place for row in rows for place in _exempt(row)}
    is_of_each = any(task is None for task, _ in condition.names.values())
    met, looked_at = [], 0
    for device in dict.fromkeys(row.device.address for row in rows):
        for task in dict.fromkeys(row.task for row in rows if row.device.address == device) if is_of_each else [""]:
            places = {name: (device, own or task, rest) for name, (own, rest) in condition.names.items()}
            if exempt.isdisjoint(places.values()):
                looked_at += 1
                fault = _fault(condition, {name: figures.get(place, math.nan) for name, place in places.items()})
                met += (
                    [f"{condition.expression.text}: on {device}{', ' if task else ''}{task}{fault}"] if fault is not None else []
                )
    return tuple(met) if looked_at else (f"{condition.expression.text}: there is no figure",)


def _fault(condition: Criterion, values: dict[str, float]) -> str | None:
    """Return what is to be said where the condition holds, or where it cannot be told; None where it does not hold."""
    missing = [name for name, value in values.items() if not math.isfinite(value)]
    if missing:
        return f": there is no figure {', '.join(missing)}"
    told = ", ".join(f"{name} is {value:.6g}" for name, value in values.items())
    try:
        return f": {told}" if condition.expression.holds(values) else None
    except ArithmeticError:
        return f": it is no number, as it divides by 0 or is too large; {told}"


def _read_name(name: str, tasks: Sequence[str]) -> tuple[str | None, str]:
    """Return the task of a name, and its rest as figures are filed."""
    task, words = None, name.split(".")
    if words[0] not in (*_SIDES, _RATIO):
        task = _known("task or side", words.pop(0), (*tasks, *_SIDES, _RATIO))
    side = _known("side", words.pop(0) if words else "", (*_SIDES, _RATIO))
    if side == _RATIO:
        figure = _known("figure", words.pop(0) if words else "", _FIGURES.values())
        parts: list[str] = []
    else:
        figure = _known("figure", words.pop(0) if words else "", (*_FIGURES, *_LIKENESS))
        parts = [] if figure in _LIKENESS else [_known("part of a figure", words.pop(0) if words else "", _PARTS)]
    if words:
        raise UnknownNameError("figure", name, [".".join(filter(None, (task, side, figure, *parts)))])
    return task, ".".join((side, figure, *parts))


def _known(kind: str, word: str, known: Iterable[str]) -> str:
    if word not in known:
        raise UnknownNameError(kind, word, known)
    return word


def _of_rows(rows: Sequence[KpiRow]) -> Iterator[tuple[_Place, float]]:
    for row in rows:
        device, task, name = row.device.address, row.task, f"{row.key}_{row.unit.lower()}"
        yield (device, task, f"{_RATIO}.{row.key}"), math.nan if row.ratio is None else row.ratio
        for side, cell in zip(_SIDES, (row.shared, row.per_graph), strict=True):
            if isinstance(cell, Figure):
                sizes = {"p50": cell.value, "low": cell.low, "high": cell.high, "mad": cell.mad, "p90": cell.p90}
                for part, size in sizes.items():
                    yield (device, task, f"{side}.{name}.{part}"), math.nan if size is None else convert(size, row.unit)
                for part, count in (("launches", cell.launches), ("samples", cell.samples)):
                    yield (device, task, f"{side}.{name}.{part}"), float(count)


def _of_quality(quality: Sequence[Quality]) -> Iterator[tuple[_Place, float]]:
    for row in quality:
        cells = {
            "shared.psnr_db": row.shared_reference,
            "per_graph.psnr_db": row.per_graph_reference,
            "shared.psnr_truth_db": row.shared_truth,
            "per_graph.psnr_truth_db": row.per_graph_truth,
        }
        for name, value in cells.items():
            yield (row.device.address, row.task, name), value if isinstance(value, float) else math.nan


def _exempt(row: KpiRow) -> Iterator[_Place]:
    """Yield the figures of a row that its task cannot have."""
    for side, cell in zip(_SIDES, (row.shared, row.per_graph), strict=True):
        if isinstance(cell, str) and cell in NOT_APPLICABLE:
            for part in _PARTS:
                yield row.device.address, row.task, f"{side}.{row.key}_{row.unit.lower()}.{part}"
            yield row.device.address, row.task, f"{_RATIO}.{row.key}"
