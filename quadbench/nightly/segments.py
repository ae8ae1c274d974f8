"""Segments: the nights of a case on a device -> the stretches in which a figure's level stayed, and what changed between."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median

from quadbench.artifacts.fingerprint import unlike
from quadbench.artifacts.night import Measurement
from quadbench.nightly.figures import FigureName, change_between, name_of, scaled, tasks_of, unscaled
from quadbench.report.versus import ALL_TASKS
from quadbench.statistics import shifts


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Nights between which nothing shifted: `level` is the median of a figure, or of its ratio to the yardstick.

    `change` is the level's change since the segment before, on the figure's scale, inf from a level of 0; None for the first one,
    and behind a change of the yardstick, or of the tasks of a figure of all. `changed` has by name what was otherwise in the last
    night before it: files, yardstick, environment.
    """

    first: str  # the night's id
    since: datetime  # when that night measured it
    last: str
    nights: int
    level: float
    is_ratio: bool
    change: float | None
    changed: dict[str, tuple[str, str]]


def segments(nights: Sequence[Measurement], name: FigureName) -> tuple[Segment, ...]:
    """Return the segments of a figure, by time: between shifts of its level, changes of the environment and of the yardstick."""
    values = [
        (night, place, (point.ratio is not None, tasks_of(night) if name[0] == ALL_TASKS else ()))
        for night in nights
        for point in night.points
        if name_of(point) == name and (place := scaled(point)) is not None
    ]
    if not values:
        return ()
    edges = [0, *_edges(values, name[1]), len(values)]
    stretches = [values[begin:end] for begin, end in pairwise(edges)]
    levels = [median(place for _, place, _ in stretch) for stretch in stretches]
    return tuple(
        Segment(
            first=stretch[0][0].night,
            since=stretch[0][0].measured_at,
            last=stretch[-1][0].night,
            nights=len(stretch),
            level=unscaled(level, name[1]),
            is_ratio=stretch[0][2][0],
            change=change_between(before, level) if number and _are_alike(stretches[number - 1][-1], stretch[0]) else None,
            changed=_changed(stretches[number - 1][-1][0], stretch[0][0]) if number else {},
        )
        for number, (stretch, before, level) in enumerate(zip(stretches, [0.0, *levels], levels, strict=False))
    )


_Value = tuple[Measurement, float, tuple[bool, tuple[str, ...]]]  # whether it is a ratio, and of which tasks one of all is


def _edges(values: Sequence[_Value], key: str) -> list[int]:
    """Return where segments begin: where the yardstick or environment changed, at steps from and to 0, and at shifts between."""
    hard = [
        number
        for number, (before, now) in enumerate(pairwise(values), start=1)
        if not _are_alike(before, now) or before[0].environment != now[0].environment or _is_none(before) is not _is_none(now)
    ]
    edges = set(hard)
    for begin, end in pairwise([0, *hard, len(values)]):
        positive = [unscaled(place, key) for _, place, _ in values[begin:end]]
        if min(positive) > 0:  # decibels and distances may be 0
            edges |= {begin + shift.at for shift in shifts(positive)}
    return sorted(edges)


def _is_none(value: _Value) -> bool:
    """Say whether a value is a distance of 0."""
    return math.isinf(value[1])


def _are_alike(before: _Value, now: _Value) -> bool:
    """Say whether two nights' values are of one scale."""
    return before[2] == now[2] and (not now[2][0] or before[0].yardstick == now[0].yardstick)


def _changed(before: Measurement, now: Measurement) -> dict[str, tuple[str, str]]:
    """Return by name what was not the same in two nights."""
    held = [
        {"files": night.subject.bundle, "kit": night.subject.kit or "none", "yardstick": night.yardstick}
        for night in (before, now)
    ]
    return unlike(held[:1], held[1:]) | unlike([before.environment], [now.environment])
