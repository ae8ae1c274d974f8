"""Time series of a nightly case on a device: scales of metrics, smallest changes that count, the baseline, what stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, log
from statistics import fmean
from typing import Self

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Acknowledgement, Measurement, Point, Ruling, RulingKind, Subject
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.run_record import BetterDirection
from quadbench.nightly.night_file import Limits
from quadbench.report.formatting import number
from quadbench.report.kpi import KPI_TITLES
from quadbench.report.night import directions, with_unit
from quadbench.report.versus import ALL_TASKS, EXACT, PRIMARY, PSNR, SIZES
from quadbench.statistics.change_points import spread_of

FigureName = tuple[str, str]  # a task and a figure key of report.kpi
Level = tuple[Measurement, float]  # a night and a figure on its scale

UNLAUNCHED = 5  # nights with new files in which a regression may stand without new launches in turn
LEVEL_NIGHTS = 15  # nights whose median is the usual level: a lasting change becomes usual after eight
MAX_NIGHTS = 40  # nights; older ones do not count for the usual level
_BAD = {RulingKind.REGRESSION, RulingKind.INCONCLUSIVE}
_UNKNOWN = {RulingKind.MISSING, RulingKind.INCONCLUSIVE}  # such nights do not say whether a regression has ended
NIGHTS_DOUBTS = {Caveat.THROTTLED, Caveat.CHANGED_ENVIRONMENT}  # caveats of a single night rather than of a device
_TOLD = (PRIMARY, "peak_ram")
FALSE_SHIFT = 0.0001  # chance that an unchanged figure of the yardstick is called shifted


def name_of(point: Point) -> FigureName:
    return point.task, point.key


def tasks_of(night: Measurement) -> tuple[str, ...]:
    """Return the sorted names of the tasks that a night measured, without "all tasks", which stands for the mean over tasks."""
    return tuple(sorted(point.task for point in night.points if point.key == PRIMARY and point.task != ALL_TASKS))


def to_scale(point: Point) -> float | None:
    """Return a metric's value, or its ratio to the reference bundle if it has one, on a scale for comparing nights. PSNR stays in
    decibels. A positive value of another metric becomes its natural logarithm. An image distance of 0 or below gives -inf. Any
    other value of 0 or below, and a value that is not finite, gives None.
    """
    value = point.value if point.ratio is None else point.ratio
    if not math.isfinite(value):
        return None
    if point.key == PSNR:
        return value
    if value > 0:
        return math.log(value)
    metric = PICTURE_METRICS.get(point.key)
    return -math.inf if metric and metric.better is BetterDirection.LOWER else None


def from_scale(place: float, key: str) -> float:
    """Undo `to_scale`: convert a logarithm back to the metric value or ratio. Return PSNR, which is in decibels, unchanged."""
    return place if key == PSNR else math.exp(place)


def change_between(before: float, now: float) -> float:
    """Return `now` minus `before`, two results of `to_scale`. If only `before` is -inf, return inf; if both are, return 0."""
    return 0.0 if now == before else now - before


def limit_of(key: str, limits: Limits) -> float:
    """Return the smallest change of a metric that counts: in decibels for PSNR, else as a difference of logarithms."""
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
    """Return whether a metric's change, a difference of logarithms or of PSNR in decibels, is for the worse."""
    metric = PICTURE_METRICS.get(key)
    return change < 0 if metric and metric.better is BetterDirection.HIGHER else change > 0


def change_text(change: float, key: str) -> str:
    """Format a metric's change, a difference of logarithms or of PSNR in decibels: `5.1 % slower` or `0.6 dB worse`."""
    grows, shrinks = directions(key)
    if change == math.inf:
        return grows
    percent = abs(math.expm1(change)) * 100
    size = f"{abs(change):.1f} dB" if key == PSNR else f"{f'{percent:.1f}' if percent >= 0.05 else number(percent)} %"
    return f"{size} {grows if change > 0 else shrinks}"


def value_text(value: float, key: str, *, is_ratio: bool) -> str:
    """Format a metric's value with its unit, or its ratio to the value of the reference bundle (yardstick)."""
    if is_ratio:
        return f"{value:.3f} of the yardstick's"
    return f"{value:.4g}" if key in PICTURE_METRICS and key != PSNR else with_unit(value, key)


def is_sound(night: Measurement) -> bool:
    """Return whether a night's measurement has no caveats that affect times and memory, such as THROTTLED."""
    return NIGHTS_DOUBTS.isdisjoint(night.caveats)


@dataclass(frozen=True, kw_only=True)
class GoodLevel:
    """The level to which a case is held on a device. The files `last_good` made it: those of the first night, of a night whose
    launches in turn were better, or of one that a person acknowledged. `alike` are all files that launches in turn showed to be
    the same as these. They do not replace them, as many small steps would then add up unseen. `confirmed` is the index of the
    latest night that made the level or showed it again.
    """

    last_good: Subject | None = None
    alike: frozenset[Subject] = frozenset()
    confirmed: int = -1

    @classmethod
    def made_by(cls, subject: Subject | None, night: int) -> Self:
        return cls(last_good=subject, alike=frozenset({subject}), confirmed=night) if subject else cls()


@dataclass(frozen=True, kw_only=True)
class Window:
    """Tonight's measurement of a case on a device, with earlier measurements, their verdicts, and changes people accepted."""

    tonight: Measurement
    nights: tuple[Measurement, ...]
    rulings: tuple[Ruling, ...]
    acks: tuple[Acknowledgement, ...]

    @cached_property
    def baseline(self) -> GoodLevel:
        """Return the level to which the case is held. Only a person, or launches in turn that show an improvement, change it;
        launches in turn that show no difference add files to it. An expired acknowledgement does not count any more.
        """
        base, oldest = GoodLevel(), self.nights[0] if self.nights else self.tonight
        remembered = (word for word in self.acks if word.since >= oldest.measured_at or word.night == oldest.night)
        words = [word for word in remembered if self._is_in_force(word)]
        for place, night in enumerate(self.nights):
            rulings = self.on(night)  # empty if the night was interrupted, so it does not count as good
            if not rulings or self._waiver_expired(night, self.acks):
                continue
            is_bad = any(ruling.kind in _BAD for ruling in rulings)
            if base.last_good is None:
                held = next((ruling.last_good for ruling in rulings if ruling.last_good), None if is_bad else night.subject)
                base = GoodLevel.made_by(held, place)
            if is_bad:
                continue
            begun = [word for word in words if word.since <= night.measured_at]
            words = [word for word in words if word not in begun]
            launched = {ruling.kind for ruling in rulings if ruling.comparison and ruling.last_good == base.last_good}
            if begun or RulingKind.IMPROVEMENT in launched:
                base = GoodLevel.made_by(night.subject, place)
            elif launched:
                base = replace(base, alike=base.alike | {night.subject}, confirmed=place)
        if base.last_good is None:
            unruled = (night.subject for night in reversed(self.nights) if not self.on(night))
            base = GoodLevel.made_by(next(unruled, None), len(self.nights) - 1)
        return base

    @property
    def last_good(self) -> Subject | None:
        """Return the files (bundle and runtime kit) to compare tonight's files with, or None if none are known."""
        return self.baseline.last_good

    @property
    def is_new(self) -> bool:
        """Return whether nothing shows yet that tonight's files are as good as the last good ones."""
        return self.last_good is not None and self.tonight.subject not in self.baseline.alike

    @cached_property
    def known_good(self) -> dict[str, None]:
        """Return the ids of the earlier nights that are known to be at the baseline, in order: those with files that are known to
        be good, and those before the latest confirmation.
        """
        base = self.baseline
        return {
            night.night: None
            for place, night in enumerate(self.nights)
            if place <= base.confirmed or night.subject in base.alike
            if not any(ruling.kind in _BAD for ruling in self.on(night))
        }

    @property
    def good_night(self) -> str | None:
        """Return the id of the latest night that is known to be at the baseline, or None."""
        return next(reversed(self.known_good), None)

    @property
    def expired_ack(self) -> Acknowledgement | None:
        """Return the last waiver to expire if each earlier night (at least one) had a waiver expired by tonight; else None."""
        if not self.nights or any(not self._waiver_expired(night, self.acks) for night in self.nights):
            return None
        return max((word for word in self.acks if not self._is_in_force(word)), key=lambda word: word.until, default=None)

    def is_accepted(self, name: FigureName) -> bool:
        """Return whether a person's acceptance of this metric's change is in force and began after the last good night."""
        latest = max((night.measured_at for night in self.nights if night.subject == self.last_good), default=None)
        return any(self._is_in_force(word) and (latest is None or latest < word.since) for word in self._acks_on(name))

    def standing(self, name: FigureName) -> Ruling | None:
        """Return a metric's regression that stands, with its nights counted until tonight, or None. It stands from the night
        that told it until a night that did not. Interrupted nights, nights without a valid value, and nights that were accepted
        only for a time do not end it.
        """
        words = self._acks_on(name)
        for later, night in enumerate(reversed(self.nights), start=1):
            ruling, was_waived = self.ruling(night, name), self._waiver_expired(night, words)
            is_unknown = ruling.kind in _UNKNOWN if ruling else was_waived or name not in self._points[night.night]
            if not self.on(night) or is_unknown:
                continue
            was_told = ruling and was_waived and ruling.kind is RulingKind.CLEAN and ruling.since
            if ruling and (ruling.kind is RulingKind.REGRESSION or was_told):
                return replace(ruling, since=ruling.since or ruling.night, nights=(ruling.nights or 1) + later)
            return None
        return None

    def launched(self, ruling: Ruling) -> tuple[Measurement, int] | None:
        """Return the night whose launches in turn confirmed a standing regression, and how many nights have told it since."""
        name = ruling.task or "", ruling.key or ""
        told = [night for night in self.nights if (one := self.ruling(night, name)) and one.comparison == ruling.comparison]
        return (told[0], len(told)) if told and ruling.comparison else None

    def comparable(self, places: Sequence[Level]) -> list[Level]:
        """Return only the nights with the same environment as tonight; if no night has it, return all nights."""
        alike = [place for place in places if place[0].environment == self.tonight.environment]
        return alike or list(places)

    def on(self, night: Measurement) -> tuple[Ruling, ...]:
        return self._by_night.get(night.night, ())

    def ruling(self, night: Measurement, name: FigureName) -> Ruling | None:
        return next((ruling for ruling in self.on(night) if (ruling.task, ruling.key) == name), None)

    def series(self, point: Point) -> list[Level]:
        """Return a metric's earlier values as (night, scaled value) pairs. Skip nights that cannot be compared with tonight."""
        is_ratio, yardstick, tasks = point.ratio is not None, self.tonight.yardstick, tasks_of(self.tonight)
        sound = [night for night in self.nights if point.key in EXACT or is_sound(night)]
        if point.task == ALL_TASKS:
            sound = [night for night in sound if tasks_of(night) == tasks]
        return [
            (night, place)
            for night in sound
            if (other := self._points[night.night].get(name_of(point)))
            and (other.ratio is not None) is is_ratio
            and (night.yardstick == yardstick or not is_ratio)
            if (place := to_scale(other)) is not None
        ]

    def usual_values(self, point: Point, series: Sequence[Level]) -> list[Level]:
        """Return a metric's (night, scaled value) pairs without bad verdicts, from its last improvement or waiver on. The
        level of a metric without noise also begins anew if its environment changed it.
        """
        usual: list[Level] = []
        words = self._acks_on(name_of(point))
        start = max((word.since for word in words if self._is_in_force(word)), default=None)
        begins = {RulingKind.IMPROVEMENT, *([RulingKind.ENVIRONMENT] if point.key in EXACT else [])}
        for night, place in series:
            ruling = self.ruling(night, name_of(point))
            if (start and night.measured_at < start) or (ruling and ruling.kind in _BAD) or self._waiver_expired(night, words):
                continue
            if ruling and ruling.kind in begins:
                usual.clear()
            usual.append((night, place))
        return usual

    def _waiver_expired(self, night: Measurement, words: Sequence[Acknowledgement]) -> bool:
        """Return whether any waiver in the list `words` covered the time when `night` was measured but expired before tonight."""
        return any(word.since <= night.measured_at < word.until and not self._is_in_force(word) for word in words)

    def _is_in_force(self, word: Acknowledgement) -> bool:
        return word.since <= self.tonight.measured_at < word.until

    def _acks_on(self, name: FigureName) -> list[Acknowledgement]:
        return [word for word in self.acks if word.covers(*name)]

    @cached_property
    def _by_night(self) -> dict[str, tuple[Ruling, ...]]:
        nights: dict[str, tuple[Ruling, ...]] = {}
        for ruling in self.rulings:
            nights[ruling.night] = (*nights.get(ruling.night, ()), ruling)
        return nights

    @cached_property
    def _points(self) -> dict[str, dict[FigureName, Point]]:
        return {night.night: {name_of(point): point for point in night.points} for night in self.nights}


def yardstick_values(nights: Sequence[Measurement], latest: Measurement, key: str) -> list[Level]:
    """Return pairs (night, mean log of reference bundle's metric `key`). Skip nights with caveats or tasks unlike `latest`'s."""
    tasks = tasks_of(latest)
    return [
        (night, place)
        for night in nights
        if night.yardstick == latest.yardstick
        and tasks_of(night) == tasks
        and is_sound(night)
        and (place := _level(night, key)) is not None
    ]


def yardstick_shift(past: Window, limits: Limits) -> str | None:
    """Return text on changes of the reference bundle's image time and peak RAM since earlier nights; None if neither changed."""
    tonight, changes = past.tonight, []
    for key in _TOLD:
        places = yardstick_values(past.nights, tonight, key)[-LEVEL_NIGHTS:]
        place, spread = _level(tonight, key), spread_of([other for _, other in places])
        if place is None or spread is None:
            continue
        level = [other for _, other in past.comparable(places)]
        if change := spread.change(level, [place], least=limit_of(key, limits), chance=FALSE_SHIFT):
            changes.append(f"{KPI_TITLES[key]} {change_text(change, key)}")
    return ", ".join(changes) or None


def _level(night: Measurement, key: str) -> float | None:
    values = [point.yardstick for point in night.points if point.key == key and point.yardstick is not None]
    return fmean(map(log, values)) if values and all(isfinite(value) and value > 0 for value in values) else None
