"""Usual: values in the order of time, on a scale on which changes add up -> how far later ones stray from them by accident."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np

from quadbench.statistics.finite import finite
from quadbench.statistics.student import t_quantile

FEWEST_USUAL = 6  # values by which their spread is told
MOST_STEPS, HALF_OF_STEPS = 0.9, 0.5
_MEDIAN_COSTS = math.pi / 2  # the variance of many values' median, in that of their mean
_LEAST_SPREAD = 1e-4  # of values that repeat exactly


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The standard deviation of one value around its level, and by how many values it is told."""

    deviation: float
    count: int

    def change(self, before: Sequence[float], now: Sequence[float], *, least: float, chance: float) -> float | None:
        """Return by how much the median of later values lies off that of earlier ones.

        None where that is no more than `least`, or than what accidents make of it but for a `chance`. A quantile of the steps
        tells a deviation about as well as half as many values do otherwise: simulated chances of 5 % are 4.5 to 5.3 % so.

        Raises:
            ValueError: there are no earlier or no later values.
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

    Raises:
        ValueError: a value is not finite.
    """
    data = finite(values, "values")
    if data.size < FEWEST_USUAL:
        return None
    step = float(np.quantile(np.abs(np.diff(data)), share)) / NormalDist().inv_cdf((1 + share) / 2)
    return Spread(deviation=max(step / math.sqrt(2), _LEAST_SPREAD), count=data.size)
