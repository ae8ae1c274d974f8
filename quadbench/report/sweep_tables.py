"""Sweep tables: Sweep -> a table for each task and device, and all of it as CSV."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from quadbench.recipe.published import published_table
from quadbench.report.sweep import PSNR, Sweep, SweepFigure, SweepPoint, change, series_of
from quadbench.report.text_table import TextTable, csv_cell

_NOTE = (
    "Shared graph against the float reference. ±: standard error over items. change: of the same items' PSNR from the row "
    "above. Times: median of the launches' medians."
)


@dataclass(frozen=True, kw_only=True)
class _SweepColumn:
    """A column of a sweep's table."""

    name: str
    cell: Callable[[SweepPoint, SweepPoint | None], str]  # of a point and the one above


def sweep_tables(sweep: Sweep) -> tuple[TextTable, ...]:
    """Return a table for each task and device: values down, figures across; a figure that no value has is left out."""
    return tuple(_table(sweep, points) for points in series_of(sweep))


def sweep_csv(sweep: Sweep) -> str:
    """Return one line for each value, task, device and figure, with full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [csv_cell(sweep.key), "task", "device", "figure", "unit", "mean", "standard_error", "n", "published", "run_id"]
    )
    for point in sweep.points:
        for figure in point.figures:
            mean, error, published = (
                "" if size is None else repr(size) for size in (figure.value, figure.error, figure.published)
            )
            place = map(csv_cell, (point.value, point.task, point.device, figure.key, figure.unit))
            writer.writerow([*place, mean, error, figure.n, published, csv_cell(point.run_id)])
    return out.getvalue()


def _table(sweep: Sweep, points: Sequence[SweepPoint]) -> TextTable:
    columns = [_SweepColumn(name=sweep.key.rpartition(".")[2], cell=lambda point, _: point.value), *_columns(points)]
    rows = zip(points, [None, *points], strict=False)
    return TextTable(
        title=f"{sweep.recipe_name}: {points[0].task} on {points[0].device}, over {sweep.key}",
        columns=tuple(column.name for column in columns),
        numeric=tuple(True for _ in columns),
        rows=tuple(tuple(column.cell(point, above) for column in columns) for point, above in rows),
        notes=tuple(_notes(sweep, points)),
    )


def _columns(points: Sequence[SweepPoint]) -> Iterator[_SweepColumn]:
    for key, figure in {figure.key: figure for point in points for figure in point.figures}.items():
        yield _SweepColumn(name=", ".join(filter(None, (figure.title, figure.unit))), cell=partial(_cell, key))
        if key == PSNR:
            yield _SweepColumn(name="change", cell=_change)
        if any(at_point and at_point.published is not None for at_point in (_figure(point, key) for point in points)):
            yield _SweepColumn(name="published", cell=partial(_published, key))


def _notes(sweep: Sweep, points: Sequence[SweepPoint]) -> Iterator[str]:
    yield _NOTE
    if sweep.published and any(figure.published is not None for point in points for figure in point.figures):
        yield published_table(sweep.published).note
    yield from (f"{point.value}: {point.reason}" for point in points if point.reason)
    for caveat in dict.fromkeys(caveat for point in points for caveat in point.caveats):
        yield f"{caveat}: {caveat.advice}"


def _figure(point: SweepPoint, key: str) -> SweepFigure | None:
    return next((figure for figure in point.figures if figure.key == key), None)


def _cell(key: str, point: SweepPoint, _: SweepPoint | None) -> str:
    figure = _figure(point, key)
    if figure is None:
        return "-"
    error = "" if figure.error is None else f" ± {_number(figure.error, figure.unit)}"
    return f"{_number(figure.value, figure.unit)}{error}"


def _change(point: SweepPoint, above: SweepPoint | None) -> str:
    difference = change(point, above) if above else None
    return f"{difference[0]:+.2f} ± {difference[1]:.2f}" if difference else ""


def _published(key: str, point: SweepPoint, _: SweepPoint | None) -> str:
    figure = _figure(point, key)
    return "" if figure is None or figure.published is None else f"{figure.published:g}"


def _number(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "dB" else f"{value:.1f}" if unit in ("ms", "%") else f"{value:.4f}"
