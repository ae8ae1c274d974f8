"""Series in the order of time: their usual spread, and where the level shifts and stays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median

import numpy as np
from numpy.typing import NDArray

from quadbench.statistics.intervals import finite, t_quantile

FEWEST_BESIDE = 8  # values on either side of a shift
LEAST_EFFECT = 2.5  # of a shift, in deviations of the values beside it
LEAST_CHANGE = 0.01  # of a shift, relative to the level before
_PENALTY = 3.0  # of a candidate, in log n times the variance of the noise
_Z_OF_MAD = 0.6745  # a normal distribution's MAD in its standard deviations
# The share of values by which a deviation is told, and where it ends in a normal distribution: one value in ten may lie anywhere.
_SHARE, _Z_OF_SHARE = 0.9, 1.6449

FEWEST_USUAL = 6  # values by which their spread is told
MOST_STEPS, HALF_OF_STEPS = 0.9, 0.5
_MEDIAN_COSTS = math.pi / 2  # the variance of many values' median, in that of their mean
_LEAST_SPREAD = 1e-4  # of values that repeat exactly


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A change of level, which was `before` up to the value with index `at` and is `after` from there on.

    Both are medians of all values beside the shift, as far as the neighbouring shifts or the ends of the series; `counts` has how
    many these are. `effect` is the change in their standard deviations, as nine in ten of them tell it; infinite where those do
    not vary.
    """

    at: int
    before: float
    after: float
    effect: float
    counts: tuple[int, int]

    @property
    def change(self) -> float:
        """Return the change relative to the level before: 0.05 is 5 % more."""
        return self.after / self.before - 1

    @property
    def holds(self) -> bool:
        """Say whether it is large enough, and long enough on both sides."""
        is_large = self.effect >= LEAST_EFFECT and abs(self.change) >= LEAST_CHANGE
        return is_large and min(self.counts) >= FEWEST_BESIDE

    @property
    def weight(self) -> float:
        """Return the evidence for it: the effect in standard errors of the difference between so many values."""
        return self.effect / math.sqrt(1 / self.counts[0] + 1 / self.counts[1])


def shifts(values: Sequence[float]) -> tuple[Shift, ...]:
    """Return the shifts of a series of positive values, in order.

    The candidates are where a mean for each segment fits best. Of those that do not hold, the one with the least evidence is
    taken away, and its neighbours are judged anew by all values that are beside them then, until every shift that is left holds.
    So a level that comes and goes widens the variation out of which a shift has to stand, and single far values do not.
    """
    data = finite(values, "values")
    if data.size and data.min() <= 0:
        raise ValueError(f"values hold {data.min():g}; expected numbers above 0")
    if data.size < 2 * FEWEST_BESIDE:
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
    """A series whose level is about 1, of which the squared error of any stretch is known at once."""

    def __init__(self, data: NDArray[np.float64]) -> None:
        self.data = data
        self._sums = np.concatenate([[0.0], np.cumsum(data - 1)])
        self._squares = np.concatenate([[0.0], np.cumsum((data - 1) ** 2)])

    def error(self, first: NDArray[np.intp], end: int) -> NDArray[np.float64]:
        """Return the squared error of the mean of the stretches that begin at `first` and end before `end`."""
        error: NDArray[np.float64] = self._squares[end] - self._squares[first]
        error -= (self._sums[end] - self._sums[first]) ** 2 / (end - first)
        return np.maximum(error, 0.0)

    def shift(self, first: int, at: int, end: int) -> Shift:
        """Return the shift between two stretches that meet."""
        sides = self.data[first:at], self.data[at:end]
        before, after = (float(np.median(side)) for side in sides)
        off = np.concatenate([np.abs(side - level) for side, level in zip(sides, (before, after), strict=True)])
        deviation = float(np.quantile(off, _SHARE)) / _Z_OF_SHARE
        effect = abs(after - before) / deviation if deviation else math.inf
        return Shift(at=at, before=before, after=after, effect=effect, counts=(at - first, end - at))


def _noise(data: NDArray[np.float64]) -> float:
    """Return the standard deviation of the noise, by the differences of neighbours, which a shift hardly changes.

    Values that are repeated exactly have none; it is at least a hundredth of the least change that counts.
    """
    steps = np.diff(data)
    mad = float(np.median(np.abs(steps - np.median(steps))))
    return max(mad / _Z_OF_MAD / math.sqrt(2), LEAST_CHANGE / 100)


def _candidates(series: _Series, penalty: float) -> list[int]:
    """Return the change points of least squared error plus a penalty for each (PELT: Killick, Fearnhead and Eckley 2012)."""
    size = series.data.size
    least = np.empty(size + 1)
    least[0] = -penalty
    last = np.zeros(size + 1, dtype=np.intp)
    starts = np.array([0], dtype=np.intp)
    for end in range(1, size + 1):
        costs = least[starts] + series.error(starts, end)
        best = int(np.argmin(costs))
        least[end], last[end] = costs[best] + penalty, starts[best]
        starts = np.append(starts[costs <= least[end]], end)  # no other can ever be the best one again
    points = []
    while (size := int(last[size])) > 0:
        points.append(size)
    return points[::-1]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The standard deviation of one value around its level, and by how many values it is told."""

    deviation: float
    count: int

    def change(self, before: Sequence[float], now: Sequence[float], *, least: float, chance: float) -> float | None:
        """Return by how much the median of later values lies off that of earlier ones.

        None where that is no more than `least`, or than what accidents make of it but for a `chance`. A quantile of the steps
        tells a deviation about as well as half as many values do otherwise: simulated chances of 5 % are 4.5 to 5.3 % so.
        """
        if not before or not now:
            raise ValueError(f"{len(before)} values before and {len(now)} now; expected at least one of each")
        apart = 1 / len(now) + (_MEDIAN_COSTS / len(before) if len(before) > 1 else 1.0)
        reach = t_quantile(1 - chance / 2, self.count // 2) * self.deviation * math.sqrt(apart)
        change = median(now) - median(before)
        return change if abs(change) > max(least, reach) else None


def spread_of(values: Sequence[float], share: float = MOST_STEPS) -> Spread | None:
    """Return the spread of a series by the steps from one value to the next, which a change of its level hardly touches.

    It is told by the greatest of a share of the steps: the others may be of any size. With MOST_STEPS, single far values widen
    it; with HALF_OF_STEPS, they do not. None with fewer than FEWEST_USUAL values.
    """
    data = finite(values, "values")
    if data.size < FEWEST_USUAL:
        return None
    step = float(np.quantile(np.abs(np.diff(data)), share)) / NormalDist().inv_cdf((1 + share) / 2)
    return Spread(deviation=max(step / math.sqrt(2), _LEAST_SPREAD), count=data.size)
