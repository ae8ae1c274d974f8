"""Change points of a time series: detection of lasting shifts of the median, and estimation of the values' standard deviation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import NormalDist, median

import numpy as np
from numpy.typing import NDArray

from quadbench.statistics.intervals import finite, t_quantile
from quadbench.statistics.modes import Modes, find_modes

MIN_BESIDE = 8  # least number of values on either side of a shift
NEAR = 50  # the most values on either side by which a shift is judged
MIN_CHANGE = 0.01  # least size of a shift, relative to the level before
MIN_STAY = 3  # least number of values of a brief stay; it has fewer than MIN_BESIDE
_MIN_EFFECT = 2.5  # least size of a shift, in standard deviations of the values beside it,
_MIN_EFFECT_OF_MANY, _MANY = 1.5, 16  # or with so many values on both sides, if the series shows how far its level moves anyway
_MIN_NOVELTY = 1.8  # least size of a shift, in the 95 % quantile of the other moves of the level
_MAX_OF_LINE = 0.9  # a slope explains the values nearly as well as a step if the step's squared error exceeds so much of its
_USUAL_MOVES, _WIDTH = 0.95, (8, 20)  # the quantile; least and most values of the two medians that show a move
_PENALTY = 3.0  # penalty of a candidate, in log n times the variance of the noise
_Z_OF_MAD = 0.6745  # MAD of a normal distribution, in standard deviations
# The quantile that estimates a deviation, and its place in a normal distribution: one value in five may lie anywhere.
_SHARE, _Z_OF_SHARE = 0.8, 1.2816
_BESIDE_FAR, _FAR = 5, 4.0  # a value is far if it is so many deviations from the median of so many values on either side
_OFF, _MIN_EFFECT_OF_STAY = 2.5, 3.0  # deviations: of each value of a brief stay, and of their median
_MAX_STAYS = 3  # with more brief stays between two shifts, they are how the series is
_LEAST_DEVIATION = MIN_CHANGE / 100

MIN_USUAL = 6  # least number of values for a spread
MAX_STEPS, HALF_OF_STEPS = 0.9, 0.5
_MEDIAN_COSTS = math.pi / 2  # variance of the median of many values, relative to that of their mean
_MIN_SPREAD = 1e-4  # spread of values that repeat exactly


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A change of a time series' median from `before` to `after`. `at` is the index of the first value after the change.

    Both are medians of the `counts` nearest values, at most 50 on a side, up to the neighbouring shifts or the ends of the
    series. `effect` is the change of the logarithm in standard deviations of these values, estimated from four in five of them;
    infinite if they do not vary.
    """

    at: int
    before: float
    after: float
    effect: float
    counts: tuple[int, int]

    @property
    def change(self) -> float:
        """Return after / before - 1, the relative change of a series' median by a shift. A change of 0.05 is 5 % more."""
        return self.after / self.before - 1


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A few values in a row, from index `begin` to before `end`, with median `there`, away from the level `around` them.

    Too few values show it for a Shift.
    """

    begin: int
    end: int
    around: float
    there: float


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels of a time series: its lasting shifts, its brief stays at other levels, and its modes, or None if it has one.

    `flat` are the values with two modes made one, by which shifts and stays are judged.
    """

    flat: tuple[float, ...]
    modes: Modes | None
    shifts: tuple[Shift, ...]
    stays: tuple[Stay, ...]


def shifts(values: Sequence[float]) -> tuple[Shift, ...]:
    """Find the lasting changes of the median in a time series of positive values. Return a tuple of Shifts, earliest first."""
    return find_levels(values).shifts


def find_levels(values: Sequence[float]) -> Levels:
    """Find lasting shifts, brief stays and modes in a time series of positive values. Return the Levels.

    Candidates for shifts minimize the squared error of a mean per segment. The weakest candidate that does not hold is removed,
    and its neighbours are judged again over their longer segments. This ends when all remaining shifts hold. A shift is judged
    by the 50 values before and after it. It holds if it has at least 8 values on either side, is at least 1 % and 2.5 standard
    deviations of them, explains them better than a slope, and exceeds the moves of the level in the rest of the series. With
    16 values on either side and a rest to compare with, 1.5 deviations are enough.

    All values of a brief stay lie 2.5 standard deviations on the same side of the level between two shifts, their median 3
    deviations and 1 %. With more than 3 such stays between two shifts, the series is just so, and they are left out.
    """
    data = finite(values, "values")
    if not data.size:
        return Levels(flat=(), modes=None, shifts=(), stays=())
    if data.min() <= 0:
        raise ValueError(f"values contain {data.min():g}; expected numbers above 0")
    level = float(np.median(data))
    logs: NDArray[np.float64] = np.log(data) - math.log(level)
    modes = find_modes(logs)
    if modes:
        logs = modes.flat
    lasting = tuple(one.shift(level) for one in _lasting(logs)) if logs.size >= 2 * MIN_BESIDE else ()
    parts = pairwise([0, *(shift.at for shift in lasting), logs.size])
    stays = tuple(stay for begin, end in parts for stay in _stays(logs[begin:end], begin, level))
    flat = tuple((level * np.exp(logs)).tolist()) if modes else tuple(data.tolist())
    return Levels(flat=flat, modes=modes, shifts=lasting, stays=stays)


def _lasting(logs: NDArray[np.float64]) -> list["_Candidate"]:
    search = _Search(logs)
    search.remove_weak()
    return search.candidates


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A place where a series of logarithms may shift. `of_line` is the step's squared error by that of a straight line."""

    at: int
    before: float
    after: float
    deviation: float
    counts: tuple[int, int]
    of_line: float = 0.0

    @property
    def size(self) -> float:
        return abs(self.after - self.before)

    @property
    def effect(self) -> float:
        return self.size / self.deviation if self.deviation else math.inf

    @property
    def weight(self) -> float:
        """Return the strength of evidence for a shift: the difference of medians divided by its standard error."""
        return self.effect / math.sqrt(1 / self.counts[0] + 1 / self.counts[1])

    def holds(self, usual_move: float | None) -> bool:
        """Return whether this is a lasting shift. `usual_move` is how far the level moves elsewhere, None if not known."""
        fewest = min(self.counts)
        least = _MIN_EFFECT if usual_move is None or fewest < _MANY else _MIN_EFFECT_OF_MANY
        is_large = self.effect >= least and abs(math.expm1(self.after - self.before)) >= MIN_CHANGE
        return (
            is_large and fewest >= MIN_BESIDE and self.of_line <= _MAX_OF_LINE and self.size >= _MIN_NOVELTY * (usual_move or 0)
        )

    def shift(self, level: float) -> Shift:
        before, after = (level * math.exp(place) for place in (self.before, self.after))
        return Shift(at=self.at, before=before, after=after, effect=self.effect, counts=self.counts)


class _Search:
    """The candidates for shifts in a series of logarithms, of which the weakest are removed until all that are left hold."""

    def __init__(self, logs: NDArray[np.float64]) -> None:
        near = _without_far(logs)
        penalty = _PENALTY * math.log(logs.size) * _noise(near) ** 2
        self._logs = logs
        self._ends = [0, *_candidates(_Series(near), penalty), logs.size]
        self.candidates = [self._judged(number) for number in range(len(self._ends) - 2)]
        least, most = _WIDTH
        self._width = min(max(logs.size // least, least), most)
        medians = np.median(np.lib.stride_tricks.sliding_window_view(logs, self._width), axis=1)
        self._moves = np.abs(medians[self._width :] - medians[: -self._width])  # of the level at index `width` and later ones
        self._candidates_near = np.zeros(self._moves.size, dtype=np.intp)
        for at in self._ends[1:-1]:
            self._count(at, 1)

    def remove_weak(self) -> None:
        """Remove one candidate after the other, each time the weakest that does not hold, and judge its neighbours again."""
        usual = self._usual_move()
        while weak := [(one.weight, number) for number, one in enumerate(self.candidates) if not one.holds(usual)]:
            _, weakest = min(weak)
            self._count(self._ends[weakest + 1], -1)
            del self._ends[weakest + 1], self.candidates[weakest]
            for number in range(max(0, weakest - 1), min(weakest + 1, len(self.candidates))):
                self.candidates[number] = self._judged(number)
            usual = self._usual_move()

    def _count(self, at: int, more: int) -> None:
        """Count a candidate at all places whose medians on either side it would mix."""
        self._candidates_near[max(0, at - 2 * self._width + 1) : max(0, at)] += more

    def _usual_move(self) -> float | None:
        """Return how far the level moves where no candidate is near, a high quantile; None if too few values are left."""
        free = self._moves[self._candidates_near == 0]
        return float(np.quantile(free, _USUAL_MOVES)) if free.size >= 2 * self._width else None

    def _judged(self, number: int) -> _Candidate:
        first, at, end = self._ends[number : number + 3]
        sides = self._logs[max(first, at - NEAR) : at], self._logs[at : min(end, at + NEAR)]
        before, after = (float(np.median(side)) for side in sides)
        off = np.concatenate([side - level for side, level in zip(sides, (before, after), strict=True)])
        deviation = float(np.quantile(np.abs(off), _SHARE)) / _Z_OF_SHARE
        most = _FAR * max(deviation, _LEAST_DEVIATION)
        near = np.clip(off, -most, most)  # far values must not decide between step and slope
        near[sides[0].size :] += after - before
        of_line = _error_of_step(near, sides[0].size) / max(_error_of_line(near), 1e-300)
        counts = (sides[0].size, sides[1].size)
        return _Candidate(at=at, before=before, after=after, deviation=deviation, counts=counts, of_line=of_line)


def _error_of_step(data: NDArray[np.float64], at: int) -> float:
    return float(sum(((side - side.mean()) ** 2).sum() for side in (data[:at], data[at:])))


def _error_of_line(data: NDArray[np.float64]) -> float:
    x, y = np.arange(data.size) - (data.size - 1) / 2, data - data.mean()
    return float(((y - x * (x @ y) / (x @ x)) ** 2).sum())


def _stays(part: NDArray[np.float64], first: int, unit: float) -> list[Stay]:
    """Return the brief stays of logarithms of value / `unit` between two lasting shifts; none if they are too many.

    `first` is the first logarithm's index in the series.
    """
    if part.size < MIN_BESIDE:
        return []
    around = float(np.median(part))
    off = part - around
    deviation = max(float(np.median(np.abs(off))) / _Z_OF_MAD, _LEAST_DEVIATION)
    sides = np.where(np.abs(off) >= _OFF * deviation, np.sign(off), 0).tolist()
    stays, begin = list[Stay](), 0
    for side, group in groupby(sides):
        end = begin + len(list(group))
        size = float(np.median(off[begin:end]))
        is_far = abs(size) >= _MIN_EFFECT_OF_STAY * deviation and abs(math.expm1(size)) >= MIN_CHANGE
        if side and is_far and MIN_STAY <= end - begin < MIN_BESIDE:
            levels = unit * math.exp(around), unit * math.exp(around + size)
            stays.append(Stay(begin=first + begin, end=first + end, around=levels[0], there=levels[1]))
        begin = end
    return stays if len(stays) <= _MAX_STAYS else []


class _Series:
    """A time series whose cumulative sums give the squared error of any segment without a loop."""

    def __init__(self, data: NDArray[np.float64]) -> None:
        centred = data - data.mean()
        self.size = data.size
        self._sums = np.concatenate([[0.0], np.cumsum(centred)])
        self._squares = np.concatenate([[0.0], np.cumsum(centred**2)])

    def error(self, first: NDArray[np.intp], end: int) -> NDArray[np.float64]:
        """Return each segment's squared error around its mean. Segments begin at indexes in `first` and all stop before `end`."""
        error: NDArray[np.float64] = self._squares[end] - self._squares[first]
        error -= (self._sums[end] - self._sums[first]) ** 2 / (end - first)
        return np.maximum(error, 0.0)


def _without_far(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a series whose single far values are replaced by the medians of the values around them (Hampel's filter)."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(data, _BESIDE_FAR, mode="reflect"), 2 * _BESIDE_FAR + 1)
    medians = np.median(around, axis=1)
    local = np.median(np.abs(around - medians[:, None]), axis=1)
    overall = float(np.median(np.abs(data - medians)))
    deviations = np.maximum(np.maximum(local, overall) / _Z_OF_MAD, 1e-9 / _FAR)
    return np.where(np.abs(data - medians) > _FAR * deviations, medians, data)


def _noise(data: NDArray[np.float64]) -> float:
    """Return the standard deviation of a series' noise, estimated from differences of neighbouring values to ignore level shifts.

    Exactly repeated values have no noise; the result is at least a hundredth of the smallest change that counts.
    """
    steps = np.diff(data)
    mad = float(np.median(np.abs(steps - np.median(steps))))
    return max(mad / _Z_OF_MAD / math.sqrt(2), _LEAST_DEVIATION)


def _candidates(series: _Series, penalty: float) -> list[int]:
    """Return the indexes of change points that minimize squared error + `penalty` * points (PELT, Killick et al. 2012)."""
    size = series.size
    least = np.empty(size + 1)
    least[0] = -penalty
    last = np.zeros(size + 1, dtype=np.intp)
    starts = np.array([0], dtype=np.intp)
    for end in range(1, size + 1):
        costs = least[starts] + series.error(starts, end)
        best = int(np.argmin(costs))
        least[end], last[end] = costs[best] + penalty, starts[best]
        starts = np.append(starts[costs <= least[end]], end)  # PELT pruning: other starts can never be best again
    points = []
    while (size := int(last[size])) > 0:
        points.append(size)
    return points[::-1]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The noise of a time series: the standard deviation of a single value, estimated from `count` values."""

    deviation: float
    count: int

    def change(self, before: Sequence[float], now: Sequence[float], *, least: float, chance: float) -> float | None:
        """Return the median of list `now` minus the median of list `before`. Return None if noise may explain the difference.

        It must exceed `least`, and the size that accidents reach with probability `chance`. A deviation from a quantile of
        steps is as precise as an ordinary one from half as many values: simulated chances of 5 % are 4.5 to 5.3 %.
        """
        if not before or not now:
            raise ValueError(f"{len(before)} values before and {len(now)} now; expected at least one of each")
        apart = 1 / len(now) + (_MEDIAN_COSTS / len(before) if len(before) > 1 else 1.0)
        reach = t_quantile(1 - chance / 2, self.count // 2) * self.deviation * math.sqrt(apart)
        change = median(now) - median(before)
        return change if abs(change) > max(least, reach) else None


def spread_of(values: Sequence[float], share: float = MAX_STEPS) -> Spread | None:
    """Return a series' Spread (noise), estimated from differences of neighbouring values. Return None below 6 values (MIN_USUAL).

    A change of level hardly affects these steps. The estimate is the quantile `share` of the steps, so larger ones may have any
    size. With MAX_STEPS, single outliers widen it; with HALF_OF_STEPS, they do not.
    """
    data = finite(values, "values")
    if data.size < MIN_USUAL:
        return None
    step = float(np.quantile(np.abs(np.diff(data)), share)) / NormalDist().inv_cdf((1 + share) / 2)
    return Spread(deviation=max(step / math.sqrt(2), _MIN_SPREAD), count=data.size)
