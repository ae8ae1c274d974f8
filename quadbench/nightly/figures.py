"""Figures: a point of a night -> its place on a scale on which changes add up, what change of it matters, and in words."""

import math

from quadbench.artifacts.night import Measurement, Point
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.scores import Better
from quadbench.nightly.night_file import Limits
from quadbench.report.kpi import KPI_UNITS
from quadbench.report.night_words import directions
from quadbench.report.units import decibels, number, show
from quadbench.report.versus import ALL_TASKS, EXACT, PRIMARY, PSNR, SIZES

FigureName = tuple[str, str]  # a task, and a key as report.kpi names figures


def name_of(point: Point) -> FigureName:
    """Return what a point is a value of."""
    return point.task, point.key


def tasks_of(night: Measurement) -> tuple[str, ...]:
    """Return the tasks that a night has measured, by name, over which a figure of all tasks together is the mean."""
    return tuple(sorted(point.task for point in night.points if point.key == PRIMARY and point.task != ALL_TASKS))


def is_exact(key: str) -> bool:
    """Say whether a figure is the same in every launch of the same files, so that it needs no statistics."""
    return key in EXACT


def scaled(point: Point) -> float | None:
    """Return the logarithm of what is followed of a point, the ratio or else the value, or its decibels; None if it cannot be.

    That of a distance between pictures of 0 is -inf. So is that of one below 0, as a KID may be: it is an estimate of 0.
    """
    value = point.value if point.ratio is None else point.ratio
    if not math.isfinite(value):
        return None
    if point.key == PSNR:
        return value
    if value > 0:
        return math.log(value)
    metric = PICTURE_METRICS.get(point.key)
    return -math.inf if metric and metric.better is Better.LOWER else None


def unscaled(place: float, key: str) -> float:
    """Return the value or ratio that `scaled` has brought to its place."""
    return place if key == PSNR else math.exp(place)


def change_between(before: float, now: float) -> float:
    """Return the change from one place to another; inf where it is one from a distance of 0, of which no share can be taken."""
    return 0.0 if now == before else now - before


def limit_of(key: str, limits: Limits) -> float:
    """Return the least change of a figure that matters, on its scale."""
    if key == PSNR:
        return limits.psnr_db
    if key in SIZES:
        share = limits.rom
    elif key in PICTURE_METRICS:
        share = limits.quality
    elif key.endswith("_ram"):
        share = limits.ram
    else:
        share = {"session_load": limits.session_load, "switch": limits.switch}.get(key) or limits.time
    return math.log1p(share)


def is_worse(change: float, key: str) -> bool:
    """Say whether a change of a figure, on its scale, is one that nobody wants."""
    metric = PICTURE_METRICS.get(key)
    return change < 0 if metric and metric.better is Better.HIGHER else change > 0


def said_change(change: float, key: str) -> str:
    """Write a change on a figure's scale: `5.1 % slower`, `0.6 dB worse`; one from 0 is only `worse`."""
    grows, shrinks = directions(key)
    if change == math.inf:
        return grows
    percent = abs(math.expm1(change)) * 100
    size = f"{abs(change):.1f} dB" if key == PSNR else f"{f'{percent:.1f}' if percent >= 0.05 else number(percent)} %"
    return f"{size} {grows if change > 0 else shrinks}"


def said_value(value: float, key: str, *, is_ratio: bool) -> str:
    """Write a value, or its ratio to the yardstick's."""
    if is_ratio:
        return f"{value:.3f} of the yardstick's"
    if key in SIZES:
        return f"{value:,.0f} bytes"
    if key in PICTURE_METRICS:
        return decibels(value) if key == PSNR else f"{value:.4g}"
    unit = KPI_UNITS.get(key)
    return f"{show(value, unit)} {unit}" if unit else number(value)
