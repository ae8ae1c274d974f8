"""Sweep merits: two settings of a sweep -> what is told apart of quality, time and bytes; a sweep -> those that none beats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev

from quadbench.report.sweep import BYTES, TIME, Sweep, SweepFigure, SweepPoint, quality_of, series_of
from quadbench.statistics import CONFIDENCE, Verdict, compare_unpaired
from quadbench.statistics.student import interval_of_mean

LEAST_DB = 0.5  # of likeness that matters, as nights have it
_TOLD = (Verdict.WORSE, Verdict.BETTER)


@dataclass(frozen=True, kw_only=True)
class Merit:
    """A figure of one setting against another: of quality the dB more, of time and bytes the ratio, with the interval at 95 %.

    BETTER and WORSE: the interval leaves out that there is none, and times differ by more than the sweep's noise. SAME: all of it
    lies within what does not matter. Bytes are exact. `is_noise`: it would be told, were it more than the sweep's noise.
    """

    size: float
    low: float | None
    high: float | None
    verdict: Verdict
    is_noise: bool = False

    @property
    def is_told(self) -> bool:
        """Say whether one setting is known to be better."""
        return self.verdict in _TOLD


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The scale on which a sweep judges times of a device.

    `noise` is the ratio above 1 by which the times of untouched tasks differ; None where it is not known. `together` is the
    number of times that are judged together.
    """

    noise: float | None = None
    together: int = 1


def merits(one: SweepPoint, other: SweepPoint, scale: Scale = Scale()) -> dict[str, Merit]:
    """Return what one setting has of quality, time and bytes against another of the same task, by the figure's key."""
    quality, pairs = quality_of([one, other]), {}
    for key in filter(None, (quality, TIME, BYTES)):
        mine, theirs = one.figure(key), other.figure(key)
        if mine and theirs:
            pairs[key] = (mine, theirs)
    told = {key: _of_quality(*pair) if key == quality else _of_cost(*pair, scale) for key, pair in pairs.items()}
    return {key: merit for key, merit in told.items() if merit}


def scale_of(sweep: Sweep, device: str) -> Scale:
    """Return what times of a device are held against: each pair of settings is judged in each task that the sweep touched."""
    series = [points for points in series_of(sweep) if points[0].device == device and points[0].task in sweep.touched]
    timed = [sum(point.figure(TIME) is not None for point in points) for points in series]
    return Scale(noise=noise_of(sweep, device), together=max(1, sum(math.comb(count, 2) for count in timed)))


def noise_of(sweep: Sweep, device: str) -> float | None:
    """Return the greatest ratio of two times of one task that the sweep did not touch: so far they differ by accident."""
    ratios = []
    for points in series_of(sweep):
        if points[0].device == device and points[0].task not in sweep.touched:
            times = [figure.value for point in points if (figure := point.figure(TIME))]
            ratios += [max(times) / min(times)] if len(times) > 1 and min(times) > 0 else []
    return max(ratios, default=None)


def with_best(sweep: Sweep) -> Sweep:
    """Return the sweep with those of its points marked that no other of their task and device beats."""
    scales = {device: scale_of(sweep, device) for device in dict.fromkeys(point.device for point in sweep.points)}
    series = series_of(sweep)
    beaten = {id(point) for points in series for point in points if _is_beaten(point, points, scales[point.device])}
    return replace(sweep, points=tuple(replace(point, is_best=id(point) not in beaten) for point in sweep.points))


def is_telling(points: Sequence[SweepPoint]) -> bool:
    """Say whether marks at the best tell anything: some, and not all, are beaten."""
    return len({point.is_best for point in points}) > 1


def is_flat(sweep: Sweep) -> bool:
    """Say whether no two settings are known to differ in quality, though every pair has an interval: all of it is noise."""
    pairs = [pair for points in series_of(sweep) for pair in combinations(points, 2)]
    quality = [merits(*pair).get(quality_of(pair) or "") for pair in pairs]
    return bool(quality) and all(one and one.low is not None and not one.is_told for one in quality)


def change(point: SweepPoint, before: SweepPoint, key: str) -> tuple[float, float] | None:
    """Return the mean difference of a likeness of the same items, and its standard error; None below two items."""
    mine, theirs = point.figure(key), before.figure(key)
    of_items = _of_items(mine, theirs) if mine and theirs else []
    if len(of_items) < 2:
        return None
    return fmean(of_items), stdev(of_items) / math.sqrt(len(of_items))


def _is_beaten(point: SweepPoint, rivals: Sequence[SweepPoint], scale: Scale) -> bool:
    """Say whether another setting is told to be better in something and as good in the rest. One without quality is no rival."""
    quality = quality_of(rivals)
    if quality is None or point.figure(quality) is None:
        return True
    told = (
        {merit.verdict for merit in merits(rival, point, scale).values()}
        for rival in rivals
        if rival is not point and rival.figure(quality)
    )
    return any(Verdict.BETTER in verdicts and verdicts <= {Verdict.BETTER, Verdict.SAME} for verdicts in told)


def _of_quality(mine: SweepFigure, theirs: SweepFigure) -> Merit | None:
    """Compare likeness item by item: items differ much more from each other than one does between two settings."""
    of_items = _of_items(mine, theirs)
    if not of_items:
        return None
    size, interval = fmean(of_items), interval_of_mean(of_items, CONFIDENCE)
    if interval is None:
        return Merit(size=size, low=None, high=None, verdict=Verdict.INCONCLUSIVE)
    low, high = interval
    is_same, is_apart = max(-low, high) < LEAST_DB, low > 0 or high < 0
    apart = Verdict.BETTER if size > 0 else Verdict.WORSE
    return Merit(size=size, low=low, high=high, verdict=Verdict.SAME if is_same else apart if is_apart else Verdict.INCONCLUSIVE)


def _of_items(mine: SweepFigure, theirs: SweepFigure) -> list[float]:
    return [value - theirs.each[item] for item, value in mine.each.items() if item in theirs.each]


def _of_cost(mine: SweepFigure, theirs: SweepFigure, scale: Scale) -> Merit | None:
    if min(mine.value, theirs.value) <= 0:
        return None
    if mine.key == BYTES:
        ratio = mine.value / theirs.value
        verdict = Verdict.SAME if ratio == 1 else Verdict.BETTER if ratio < 1 else Verdict.WORSE
        return Merit(size=ratio, low=None, high=None, verdict=verdict)
    sides = [list(side.each.values()) for side in (theirs, mine)]
    if not all(sides) or min(map(min, sides)) <= 0:
        return None
    told = compare_unpaired(*sides, together=scale.together)
    is_noise = told.verdict in _TOLD and abs(math.log(told.ratio)) <= math.log(scale.noise or 1.0)
    verdict = Verdict.INCONCLUSIVE if is_noise else told.verdict
    return Merit(size=told.ratio, low=told.low, high=told.high, verdict=verdict, is_noise=is_noise)
