"""Change points of a time series: detection of lasting shifts of the median, and estimation of the values' standard deviation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median

import numpy as np
from numpy.typing import NDArray

from quadbench.statistics.intervals import finite, t_quantile

MIN_BESIDE = 8  # least number of values on either side of a shift
MIN_EFFECT = 2.5  # least size of a shift, in standard deviations of the values beside it
MIN_CHANGE = 0.01  # least size of a shift, relative to the level before
_PENALTY = 3.0  # penalty of a candidate, in log n times the variance of the noise
_Z_OF_MAD = 0.6745  # MAD of a normal distribution, in standard deviations
# The quantile that estimates a deviation, and its place in a normal distribution: one value in ten may lie anywhere.
_SHARE, _Z_OF_SHARE = 0.9, 1.6449

MIN_USUAL = 6  # least number of values for a spread
MAX_STEPS, HALF_OF_STEPS = 0.9, 0.5
_MEDIAN_COSTS = math.pi / 2  # variance of the median of many values, relative to that of their mean
_MIN_SPREAD = 1e-4  # spread of values that repeat exactly


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A lasting change of a time series' median from `before` to `after`. `at` is the index of the first value after the change.

    Both are medians of all `counts` values up to the neighbouring shifts or the ends of the series. `effect` is the change
    in standard deviations of these values, estimated from nine in ten of them; infinite if they do not vary.
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

    @property
    def holds(self) -> bool:
        """Return whether a shift is >= 2.5 standard deviations and >= 1 % of the old median, with 8 or more values per side."""
        is_large = self.effect >= MIN_EFFECT and abs(self.change) >= MIN_CHANGE
        return is_large and min(self.counts) >= MIN_BESIDE

    @property
    def weight(self) -> float:
        """Return the strength of evidence for a shift: the difference of medians divided by its standard error."""
        return self.effect / math.sqrt(1 / self.counts[0] + 1 / self.counts[1])


def shifts(values: Sequence[float]) -> tuple[Shift, ...]:
    """Find the lasting changes of the median in a time series of positive values. Return a tuple of Shifts, earliest first.

    Candidates minimize the squared error of a mean per segment. The weakest candidate that does not hold is removed, and its
    neighbours are evaluated again over their longer segments. This ends when all remaining shifts hold. A temporary change of
    level thus widens the spread that a shift must exceed. Single outliers do not.
    """
    data = finite(values, "values")
    if data.size and data.min() <= 0:
        raise ValueError(f"values contain {data.min():g}; expected numbers above 0")
    if data.size < 2 * MIN_BESIDE:
        return ()
    series = _Series(data / np.median(data))
    ends = [0, *_candidates(series, _PENALTY * math.log(data.size) * _noise(series.data) ** 2), data.size]
    judged = [series.shift(*ends[n : n + 3]) for n in range(len(ends) - 2)]
    while weak := [(one.weight, n) for n, one in enumerate(judged) if not one.holds]:
        _, weakest = min(weak)
        del ends[weakest + 1], judged[weakest]
        for n in range(max(0, weakest - 1), min(weakest + 1, len(judged))):
            judged[n] = series.shift(*ends[n : n + 3])
    level = float(np.median(data))
    return tuple(replace(one, before=one.before * level, after=one.after * level) for one in judged)


class _Series:
    """A time series divided by its median. Cumulative sums give the squared error of any segment without a loop."""

    def __init__(self, data: NDArray[np.float64]) -> None:
        self.data = data
        self._sums = np.concatenate([[0.0], np.cumsum(data - 1)])
        self._squares = np.concatenate([[0.0], np.cumsum((data - 1) ** 2)])

    def error(self, first: NDArray[np.intp], end: int) -> NDArray[np.float64]:
        """Return each segment's squared error around its mean. Segments begin at indexes in `first` and all stop before `end`."""
        error: NDArray[np.float64] = self._squares[end] - self._squares[first]
        error -= (self._sums[end] - self._sums[first]) ** 2 / (end - first)
        return np.maximum(error, 0.0)

    def shift(self, first: int, at: int, end: int) -> Shift:
        """Return the Shift at index `at` between `data[first:at]` and `data[at:end]`: their medians, effect size and lengths."""
        sides = self.data[first:at], self.data[at:end]
        before, after = (float(np.median(side)) for side in sides)
        off = np.concatenate([np.abs(side - level) for side, level in zip(sides, (before, after), strict=True)])
        deviation = float(np.quantile(off, _SHARE)) / _Z_OF_SHARE
        effect = abs(after - before) / deviation if deviation else math.inf
        return Shift(at=at, before=before, after=after, effect=effect, counts=(at - first, end - at))


def _noise(data: NDArray[np.float64]) -> float:
    """Return the standard deviation of a series' noise, estimated from differences of neighbouring values to ignore level shifts.

    Exactly repeated values have no noise; the result is at least a hundredth of the smallest change that counts.
    """
    steps = np.diff(data)
    mad = float(np.median(np.abs(steps - np.median(steps))))
    return max(mad / _Z_OF_MAD / math.sqrt(2), MIN_CHANGE / 100)


def _candidates(series: _Series, penalty: float) -> list[int]:
    """Return the indexes of change points that minimize squared error + `penalty` * points (PELT, Killick et al. 2012)."""
    size = series.data.size
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
