"""The nights of a case on a device as series: scales of figures, changes that matter, nights that count. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, log
from statistics import fmean

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Acknowledgement, Measurement, Point, Ruling, RulingKind, Subject
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.run_record import Better
from quadbench.nightly.night_file import Limits
from quadbench.report.formatting import number
from quadbench.report.kpi import KPI_TITLES
from quadbench.report.night import directions, with_unit
from quadbench.report.versus import ALL_TASKS, EXACT, PRIMARY, PSNR, SIZES
from quadbench.statistics.change_points import spread_of

FigureName = tuple[str, str]  # a task, and a key as report.kpi names figures
Place = tuple[Measurement, float]  # a night with a figure's value, on its scale

NEW_NIGHTS = 5  # in which a subject that came is compared with the one before it
LEVEL_NIGHTS = 15  # of which the median says what is usual: a change that stays is usual after eight
REMEMBERED = 40  # nights; what is older says nothing of what is usual
_BAD = {RulingKind.REGRESSION, RulingKind.INCONCLUSIVE}
NIGHTS_DOUBTS = {Caveat.THROTTLED, Caveat.CHANGED_ENVIRONMENT}  # about a night, not about a device: they come and go
_TOLD = (PRIMARY, "peak_ram")
BY_ACCIDENT = 0.0001  # the chance that a figure of the yardstick is called shifted though it is as ever


def name_of(point: Point) -> FigureName:
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
    return f"{value:.4g}" if key in PICTURE_METRICS and key != PSNR else with_unit(value, key)


def is_sound(night: Measurement) -> bool:
    """Say whether nothing casts doubt on what a night measured of times and memory."""
    return NIGHTS_DOUBTS.isdisjoint(night.caveats)


@dataclass(frozen=True, kw_only=True)
class Past:
    """A case on a device tonight, and before: the nights in the order of time, the rulings on them that stand, people's words."""

    tonight: Measurement
    nights: tuple[Measurement, ...]
    rulings: tuple[Ruling, ...]
    words: tuple[Acknowledgement, ...]

    @cached_property
    def last_good(self) -> Subject | None:
        """Return the subject that tonight's is held against; None where none is known.

        It is tonight's own where that has been good for NEW_NIGHTS nights, has been launched in turn with the one before, or was
        accepted by a word in force on all figures.
        Where no night that is remembered was good, it is still what the latest one was held against, else what ran unruled.
        """
        good = [night for night in self.nights if self._is_good(night)]
        if not good:
            held = (ruling.last_good for night in reversed(self.nights) for ruling in self.on(night) if ruling.last_good)
            unruled = (night.subject for night in reversed(self.nights) if not self.on(night))
            return next(held, None) or next(unruled, None)
        subject = self.tonight.subject
        own = next((n for n, night in enumerate(reversed(good)) if night.subject != subject), len(good))
        before = good[-own - 1].subject if own < len(good) else subject
        is_known = any(r.comparison and r.last_good == before for night in good[len(good) - own :] for r in self.on(night))
        accepted = {word.night for word in self.words if self._is_in_force(word) and word.task is None and word.key is None}
        is_known |= any(night.night in accepted and night.subject == subject for night in good)
        return subject if own >= NEW_NIGHTS or is_known else before

    @property
    def over(self) -> Acknowledgement | None:
        """Return the word that is over by which every night that is remembered was accepted, if there is one."""
        if not self.nights or any(not self._is_on_sufferance(night, self.words) for night in self.nights):
            return None
        return max((word for word in self.words if not self._is_in_force(word)), key=lambda word: word.until, default=None)

    def is_accepted(self, name: FigureName) -> bool:
        """Say whether a word in force accepts a figure as it came to be since the last good files ran."""
        latest = max((night.measured_at for night in self.nights if night.subject == self.last_good), default=None)
        return any(self._is_in_force(word) and (latest is None or latest < word.since) for word in self._words_on(name))

    def known(self, point: Point) -> Ruling | None:
        """Return the confirmed regression of a figure that tonight's files had already in the night before, around the same."""
        latest = self.nights[-1] if self.nights else None
        if latest is None or (latest.subject, latest.environment) != (self.tonight.subject, self.tonight.environment):
            return None
        ruling = self.ruling(latest, name_of(point))
        is_confirmed = ruling and ruling.kind is RulingKind.REGRESSION and ruling.comparison
        return ruling if ruling and is_confirmed and ruling.last_good == self.last_good else None

    def alike(self, places: Sequence[Place]) -> list[Place]:
        """Return those of some nights whose environment is tonight's; all of them where there is none."""
        alike = [place for place in places if place[0].environment == self.tonight.environment]
        return alike or list(places)

    def on(self, night: Measurement) -> tuple[Ruling, ...]:
        return self._by_night.get(night.night, ())

    def ruling(self, night: Measurement, name: FigureName) -> Ruling | None:
        return next((ruling for ruling in self.on(night) if (ruling.task, ruling.key) == name), None)

    def series(self, point: Point) -> list[Place]:
        """Return every value of a figure that can be held against tonight's; of all tasks, those of the same ones."""
        is_ratio, yardstick, tasks = point.ratio is not None, self.tonight.yardstick, tasks_of(self.tonight)
        sound = [night for night in self.nights if is_exact(point.key) or is_sound(night)]
        if point.task == ALL_TASKS:
            sound = [night for night in sound if tasks_of(night) == tasks]
        return [
            (night, place)
            for night in sound
            if (other := self._points[night.night].get(name_of(point)))
            and (other.ratio is not None) is is_ratio
            and (night.yardstick == yardstick or not is_ratio)
            if (place := scaled(other)) is not None
        ]

    def usual(self, point: Point, series: Sequence[Place]) -> list[Place]:
        """Return those of a figure's values that say what is usual: since it improved or was acknowledged, without bad nights."""
        usual: list[Place] = []
        words = self._words_on(name_of(point))
        start = max((word.since for word in words if self._is_in_force(word)), default=None)
        for night, place in series:
            ruling = self.ruling(night, name_of(point))
            if (start and night.measured_at < start) or (ruling and ruling.kind in _BAD) or self._is_on_sufferance(night, words):
                continue
            if ruling and ruling.kind is RulingKind.IMPROVEMENT:
                usual.clear()
            usual.append((night, place))
        return usual

    def _is_good(self, night: Measurement) -> bool:
        rulings = self.on(night)  # none where a night was cut short, so that nothing says that it was good
        return bool(rulings) and not any(r.kind in _BAD for r in rulings) and not self._is_on_sufferance(night, self.words)

    def _is_on_sufferance(self, night: Measurement, words: Sequence[Acknowledgement]) -> bool:
        """Say whether a night's value was accepted by a person for a time that is over."""
        return any(word.since <= night.measured_at < word.until and not self._is_in_force(word) for word in words)

    def _is_in_force(self, word: Acknowledgement) -> bool:
        return word.since <= self.tonight.measured_at < word.until

    def _words_on(self, name: FigureName) -> list[Acknowledgement]:
        return [word for word in self.words if word.task in (None, name[0]) and word.key in (None, name[1])]

    @cached_property
    def _by_night(self) -> dict[str, tuple[Ruling, ...]]:
        nights: dict[str, tuple[Ruling, ...]] = {}
        for ruling in self.rulings:
            nights[ruling.night] = (*nights.get(ruling.night, ()), ruling)
        return nights

    @cached_property
    def _points(self) -> dict[str, dict[FigureName, Point]]:
        return {night.night: {name_of(point): point for point in night.points} for night in self.nights}


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
