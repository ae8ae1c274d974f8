"""Yardstick: the same frozen files on a device tonight and before -> how far the device itself changed; pure."""

from collections.abc import Sequence
from math import isfinite, log
from statistics import fmean

from quadbench.artifacts.night import Measurement
from quadbench.nightly.figures import limit_of, said_change, tasks_of
from quadbench.nightly.night_file import Limits
from quadbench.nightly.past import LEVEL_NIGHTS, Past, Place, is_sound
from quadbench.report.kpi import KPI_TITLES
from quadbench.report.versus import PRIMARY
from quadbench.statistics import spread_of

_TOLD = (PRIMARY, "peak_ram")
BY_ACCIDENT = 0.0001  # the chance that a figure of the yardstick is called shifted though it is as ever


def yardstick_places(nights: Sequence[Measurement], latest: Measurement, key: str) -> list[Place]:
    """Return the nights with a figure of the latest one's yardstick, by the logarithm of its mean over all tasks, the same ones.

    What is in doubt is left out.
    """
    tasks = tasks_of(latest)
    return [
        (night, place)
        for night in nights
        if night.yardstick == latest.yardstick
        and tasks_of(night) == tasks
        and is_sound(night)
        and (place := _place(night, key)) is not None
    ]


def yardstick_shift(past: Past, limits: Limits) -> str | None:
    """Say by how much the yardstick's figures lie off what is usual on the device, all tasks together; None where they do not."""
    tonight, said = past.tonight, []
    for key in _TOLD:
        places = yardstick_places(past.nights, tonight, key)[-LEVEL_NIGHTS:]
        place, spread = _place(tonight, key), spread_of([other for _, other in places])
        if place is None or spread is None:
            continue
        level = [other for _, other in past.alike(places)]
        if change := spread.change(level, [place], least=limit_of(key, limits), chance=BY_ACCIDENT):
            said.append(f"{KPI_TITLES[key]} {said_change(change, key)}")
    return ", ".join(said) or None


def _place(night: Measurement, key: str) -> float | None:
    values = [point.yardstick for point in night.points if point.key == key and point.yardstick is not None]
    return fmean(map(log, values)) if values and all(isfinite(value) and value > 0 for value in values) else None
