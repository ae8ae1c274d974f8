"""Sweep tables: Sweep -> a table for each task and device, whole or as a terminal has room for it, and all of it as CSV."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from quadbench.recipe.published import published_table
from quadbench.report.sweep import (
    BYTES,
    PSNR,
    PSNR_TEACHER,
    PSNR_TRUTH,
    RAM,
    TIME,
    Sweep,
    SweepPoint,
    quality_of,
    series_of,
)
from quadbench.report.sweep_merits import change, is_telling
from quadbench.report.text_table import TextTable, csv_cell

_NOTE = (
    "Shared graph; PSNR is against the float reference of the same setting. ±: standard error over items. change: of the same "
    "items' PSNR from the row above. Times: median of the launches' medians."
)
_TEACHER_NOTE = "PSNR to teacher: to the float pictures of 100 DDIM steps, which is what fewer steps and rounding cost together."
_BEST_NOTE = "*: no other row is known to be better in {quality}, end-to-end time or all files and as good in the rest of them."
_UNTOUCHED = ", which the sweep did not touch: its times show the noise"
_TELLING = (PSNR, PSNR_TEACHER, PSNR_TRUTH, TIME, BYTES, RAM)


@dataclass(frozen=True, kw_only=True)
class _SweepColumn:
    """A column of a sweep's table."""

    name: str
    cell: Callable[[SweepPoint, SweepPoint | None], str]  # of a point and the one above


def sweep_tables(sweep: Sweep, *, is_whole: bool = True) -> tuple[TextTable, ...]:
    """Return a table for each task and device: settings down, figures across; a figure that no setting has is left out.

    One that is not whole has the most telling figures, and fits a terminal of 100 characters.
    """
    return tuple(_table(sweep, points, is_whole) for points in series_of(sweep))


def sweep_csv(sweep: Sweep) -> str:
    """Return one line for each setting, task, device and figure, with full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*map(csv_cell, sweep.keys), "task", "device", *_FIELDS, "is_best", "run_id"])
    for point in sweep.points:
        for figure in point.figures:
            mean, error, published = (
                "" if size is None else repr(size) for size in (figure.value, figure.error, figure.published)
            )
            place = map(csv_cell, (*point.setting.values(), point.task, point.device, figure.key, figure.unit))
            writer.writerow([*place, mean, error, figure.n, published, int(point.is_best), csv_cell(point.run_id)])
    return out.getvalue()


_FIELDS = ("figure", "unit", "mean", "standard_error", "n", "published")


def _table(sweep: Sweep, points: Sequence[SweepPoint], is_whole: bool) -> TextTable:
    keys = [_SweepColumn(name=_short(key, sweep.keys), cell=partial(_setting, key)) for key in sweep.keys]
    best = [_SweepColumn(name="best", cell=lambda point, _: "*" if point.is_best else "")] if is_telling(points) else []
    columns = [*keys, *_columns(points, is_whole), *best]
    rows = zip(points, [None, *points], strict=False)
    untouched = "" if points[0].task in sweep.touched else _UNTOUCHED
    return TextTable(
        title=f"{sweep.recipe_name}: {points[0].task} on {points[0].device}, over {', '.join(sweep.keys)}{untouched}",
        columns=tuple(column.name for column in columns),
        numeric=tuple(True for _ in columns),
        rows=tuple(tuple(column.cell(point, above) for column in columns) for point, above in rows),
        notes=tuple(_notes(sweep, points)),
    )


def _short(key: str, keys: Sequence[str]) -> str:
    """Return a key's last word, or more of it where another key ends alike."""
    words = key.split(".")
    ends = (".".join(words[-count:]) for count in range(1, len(words)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)


def _setting(key: str, point: SweepPoint, _: SweepPoint | None) -> str:
    return point.setting[key]


def _columns(points: Sequence[SweepPoint], is_whole: bool) -> Iterator[_SweepColumn]:
    known = {figure.key: figure for point in points for figure in point.figures}
    for key, figure in known.items() if is_whole else ((key, known[key]) for key in _TELLING if key in known):
        yield _SweepColumn(name=", ".join(filter(None, (figure.title, figure.unit))), cell=partial(_cell, key))
        if key == PSNR and is_whole:
            yield _SweepColumn(name="change", cell=_change)
        if is_whole and any((own := point.figure(key)) and own.published is not None for point in points):
            yield _SweepColumn(name=f"{figure.title}, published", cell=partial(_published, key))


def _notes(sweep: Sweep, points: Sequence[SweepPoint]) -> Iterator[str]:
    yield _NOTE
    if any(point.figure(PSNR_TEACHER) for point in points):
        yield _TEACHER_NOTE
    if (quality := quality_of(points)) and is_telling(points):
        yield _BEST_NOTE.format(quality=next(figure.title for point in points if (figure := point.figure(quality))))
    if sweep.published and any(figure.published is not None for point in points for figure in point.figures):
        yield published_table(sweep.published).note
    yield from (f"{point.value}: {point.reason}" for point in points if point.reason)
    for caveat in dict.fromkeys(caveat for point in points for caveat in point.caveats):
        yield f"{caveat.words}: {caveat.advice}"


def _cell(key: str, point: SweepPoint, _: SweepPoint | None) -> str:
    figure = point.figure(key)
    if figure is None:
        return "-"
    error = "" if figure.error is None else f" ± {_number(figure.error, figure.unit)}"
    return f"{_number(figure.value, figure.unit)}{error}"


def _change(point: SweepPoint, above: SweepPoint | None) -> str:
    difference = change(point, above, PSNR) if above else None
    return f"{difference[0]:+.2f} ± {difference[1]:.2f}" if difference else ""


def _published(key: str, point: SweepPoint, _: SweepPoint | None) -> str:
    figure = point.figure(key)
    return "" if figure is None or figure.published is None else f"{figure.published:g}"


def _number(value: float, unit: str) -> str:
    """Write a value with its unit's decimals; one that they would leave nothing of, with two digits."""
    decimals = _DECIMALS.get(unit, 4)
    return f"{value:.{decimals}f}" if not value or abs(value) >= 10 ** (1 - decimals) else f"{value:.2g}"


_DECIMALS = {"dB": 2, "ms": 1, "%": 1, "MB": 2}
