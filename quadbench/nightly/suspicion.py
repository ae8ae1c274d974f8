"""Suspicion: a night of a case on a device and the nights before -> what may have changed there, cheaply told; pure.

The gate. It is sensitive where files changed, since what it suspects is then confirmed by launches in turn, and strict where they
did not, since nothing confirms it there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from quadbench.artifacts.fingerprint import unlike
from quadbench.artifacts.night import Acknowledgement, Measurement, Point, Ruling, Subject
from quadbench.nightly.figures import (
    FigureName,
    change_between,
    is_exact,
    is_worse,
    limit_of,
    name_of,
    said_change,
    said_value,
    scaled,
    unscaled,
)
from quadbench.nightly.night_file import Limits
from quadbench.nightly.past import LEVEL_NIGHTS, Past, Place
from quadbench.nightly.yardstick import yardstick_shift
from quadbench.report.units import plural
from quadbench.statistics import HALF_OF_STEPS, Spread, spread_of

RULES = 3  # the version of what stands here and in `judging`, which is kept with each ruling
BY_ACCIDENT = 0.05  # the chance that a new subject's figure is suspected though it is as ever: a confirmation then clears it
SURELY_BY_ACCIDENT = 0.001  # the chance that a case on a device is ruled on without a confirmation, all its figures together

_LOST = "it was not measured, and the night before it was"


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A figure that may have changed, with why. `expected` is its usual value, or usual ratio to the yardstick.

    `is_worse` is None where there is no telling what is usual, or whether the change matters. One that `is_sure` needs no
    confirmation to have changed, only to say whose doing it is; `was_so`: the night before was as far off already. `known` is the
    confirmed ruling of that night on the same files. What is exact `has_same_files` where the night that it is held against ran
    tonight's.
    """

    task: str
    key: str
    value: float
    expected: float | None
    is_worse: bool | None
    is_sure: bool
    why: str
    was_so: bool = False
    has_same_files: bool = False
    known: Ruling | None = None

    @property
    def name(self) -> FigureName:
        """Return the figure."""
        return self.task, self.key

    @property
    def is_vague(self) -> bool:
        """Say whether all that speaks for it is that the files are new, and that too few nights say what is usual."""
        return self.is_worse is None and not self.is_sure and self.known is None


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """The gate's answer about a case on a device. `last_good` is the subject to confirm it against; None where no night was good.

    `accepted` are the figures that a word in force accepts as they are, whatever launches in turn with the last good subject say.
    `lost` says by figure why tonight lacks it, `yardstick` says how the yardstick itself shifted, and `around` what changed
    in the environment since the night before. `over` is a person's word that has ended, and all that is known was accepted by.
    """

    tonight: Measurement
    limits: Limits
    nights: int  # before this one
    last_good: Subject | None
    suspects: tuple[Suspect, ...]
    accepted: frozenset[FigureName]
    lost: dict[FigureName, str]
    yardstick: str | None
    around: str | None
    over: Acknowledgement | None

    @property
    def is_same(self) -> bool:
        """Say whether tonight's files are those of the last good night."""
        return self.last_good == self.tonight.subject

    @property
    def to_confirm(self) -> bool:
        """Say whether launches in turn of the last good subject (A) and tonight's (B) would tell more."""
        is_open = any(not is_exact(one.key) and one.known is None for one in self.suspects)
        return is_open and self.last_good is not None and not self.is_same


def suspicion(
    tonight: Measurement,
    history: Sequence[Measurement],
    rulings: Sequence[Ruling],
    acknowledged: Sequence[Acknowledgement],
    limits: Limits,
) -> Suspicion:
    """Judge a night by the ones before it, in the order of time, and by the rulings on them that stand."""
    past = Past.of(tonight, history, rulings, acknowledged)
    gate = _Gate(past=past, limits=limits)
    names = {name_of(point) for point in tonight.points}
    latest = past.nights[-1] if past.nights else tonight
    changed = unlike([latest.environment], [tonight.environment])
    return Suspicion(
        tonight=tonight,
        limits=limits,
        nights=len(past.nights),
        last_good=past.last_good,
        suspects=tuple(suspect for point in tonight.points if (suspect := gate.suspect(point))),
        accepted=frozenset(filter(past.is_accepted, names)),
        lost={name_of(point): _LOST for point in latest.points if name_of(point) not in names},
        yardstick=yardstick_shift(past, limits),
        around="; ".join(f"{name} was {before} and is {now}" for name, (before, now) in changed.items()) or None,
        over=past.over,
    )


@dataclass(frozen=True, kw_only=True)
class _Gate:
    """The gate that a night's figures pass, one after the other."""

    past: Past
    limits: Limits

    def suspect(self, point: Point) -> Suspect | None:
        """Suspect a figure, or do not."""
        place, series = scaled(point), self.past.series(point)
        usual = self.past.usual(point, series)
        if place is None:
            return replace(_suspect(point, f"{point.value:g} cannot be its value"), is_sure=True)
        if is_exact(point.key):
            return self._exact(point, place, usual)
        if known := self.past.known(point):
            return replace(_suspect(point, known.cause), expected=known.expected, known=known)
        recent = [other for _, other in series[-LEVEL_NIGHTS:]]
        spread, narrow = spread_of(recent), spread_of(recent, HALF_OF_STEPS)
        if spread and narrow and usual:
            return self._sudden(point, place, usual, spread) or self._since_it_came(point, place, usual, narrow)
        few = f"{plural(len(usual), 'night')} before are too few to know what is usual"
        is_vague = self._is_new and series and not self.past.is_accepted(name_of(point))
        return _suspect(point, few) if is_vague else None

    @property
    def _is_new(self) -> bool:
        return self.past.last_good not in (None, self.past.tonight.subject)

    def _exact(self, point: Point, place: float, usual: Sequence[Place]) -> Suspect | None:
        """Suspect what launches do not vary by the latest night alone."""
        if not usual:
            return None
        before, level = usual[-1]
        change = change_between(level, place)
        if abs(change) <= limit_of(point.key, self.limits):
            return None
        suspect = _strayed(point, change, level, "before", is_sure=True)
        if math.isinf(level):
            suspect = replace(suspect, is_worse=None, why=f"{suspect.why}; no limit is a share of {suspect.expected:g}")
        return replace(suspect, has_same_files=before.subject == self.past.tonight.subject)

    def _sudden(self, point: Point, place: float, usual: Sequence[Place], spread: Spread) -> Suspect | None:
        """Suspect what strays tonight from the nights before, whatever ran in them."""
        level = [other for _, other in self.past.alike(usual)[-LEVEL_NIGHTS:]]
        chance = SURELY_BY_ACCIDENT / sum(not is_exact(other.key) for other in self.past.tonight.points)
        change = spread.change(level, [place], least=limit_of(point.key, self.limits), chance=chance)
        if change is None:
            return None
        was_so = abs(place - usual[-1][1]) < abs(change) / 2
        return replace(_strayed(point, change, median(level), "usual", is_sure=True), was_so=was_so)

    def _since_it_came(self, point: Point, place: float, usual: Sequence[Place], spread: Spread) -> Suspect | None:
        """Suspect what may have changed, be it little, with tonight's subject, by all nights that it has run."""
        subject = self.past.tonight.subject
        now = [*(other for night, other in usual if night.subject == subject), place] if self._is_new else []
        level = [other for _, other in self.past.alike([one for one in usual if one[0].subject != subject])[-LEVEL_NIGHTS:]]
        least = limit_of(point.key, self.limits) / 2
        change = spread.change(level, now, least=least, chance=BY_ACCIDENT) if now and level else None
        return _strayed(point, change, median(level), "with the files before") if change else None


def _suspect(point: Point, why: str) -> Suspect:
    value = point.value if point.ratio is None else point.ratio
    return Suspect(task=point.task, key=point.key, value=value, expected=None, is_worse=None, is_sure=False, why=why)


def _strayed(point: Point, change: float, level: float, than: str, *, is_sure: bool = False) -> Suspect:
    is_ratio, expected = point.ratio is not None, unscaled(level, point.key)
    suspect = _suspect(point, "")
    values = [said_value(value, point.key, is_ratio=is_ratio) for value in (suspect.value, expected)]
    why = f"it is {said_change(change, point.key)} than {than}: {values[0]} rather than {values[1]}"
    return replace(suspect, why=why, expected=expected, is_worse=is_worse(change, point.key), is_sure=is_sure)
