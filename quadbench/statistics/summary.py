"""Summary of a list of values: spread, percentiles supported by enough values, outliers and warm-up."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadbench.statistics.intervals import finite

_Z_OF_MAD = 0.6745  # MAD of a normal distribution, in standard deviations
_FAR = 3.5  # modified z-score above which a value is an outlier
_SLOWER = 0.05  # relative excess over the settled level of a value that still warms up
_MIN_WITH_OUTLIERS = 3  # two values are equally far from their median
_FEWEST = 6  # least number of values to find a settled level

# Fewest samples for which, with 99 % confidence, at least two of them lie above the percentile q, so that it is not read off
# the largest value alone: the smallest n with q^n + n (1 - q) q^(n-1) <= 0.01.
ENOUGH_SAMPLES = {50: 11, 90: 64, 95: 130, 99: 662}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Descriptive statistics of a list of values, in their unit.

    `median` describes these values. `p50` and the other percentiles describe the process behind them, and are None with too few
    values (ENOUGH_SAMPLES). `std` is the sample's (n - 1), None for one value; `cv` is std / mean, None if undefined. `mad` is
    the median absolute deviation from the median, unscaled.
    """

    n: int
    minimum: float
    mean: float
    std: float | None
    median: float
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    maximum: float
    cv: float | None
    mad: float


def summarize(values: Sequence[float]) -> Summary | None:
    """Return a Summary of `values`: mean, median, spread, percentiles and extremes. Return None for an empty list."""
    data = finite(values, "values")
    if data.size == 0:
        return None
    mean, middle = float(data.mean()), float(np.median(data))
    std = float(data.std(ddof=1)) if data.size > 1 else None
    return Summary(
        n=data.size,
        minimum=float(data.min()),
        mean=mean,
        std=std,
        median=middle,
        p50=percentile(values, 50),
        p90=percentile(values, 90),
        p95=percentile(values, 95),
        p99=percentile(values, 99),
        maximum=float(data.max()),
        cv=std / mean if std is not None and mean != 0 else None,
        mad=float(np.median(np.abs(data - middle))),
    )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the percentile `percent` of a list by nearest rank, or None with fewer values than ENOUGH_SAMPLES[percent]."""
    if percent not in ENOUGH_SAMPLES:
        raise ValueError(f"no sample count is known for percentile {percent}; known: {', '.join(map(str, ENOUGH_SAMPLES))}")
    if len(values) < ENOUGH_SAMPLES[percent]:
        return None
    return float(sorted(values)[math.ceil(percent / 100 * len(values)) - 1])


def medians(lists: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the median of each list of values; no list may be empty."""
    middles = np.empty(len(lists))
    for places, rows in _of_each_length(lists):
        middles[places] = np.median(rows, axis=1)
    return tuple(middles.tolist())


def outliers(values: Sequence[float]) -> tuple[int, ...]:
    """Return indexes of outliers: |modified z-score| > 3.5 (Iglewicz, Hoaglin 1993); () if the median absolute deviation is 0."""
    return tuple(np.flatnonzero(_are_far(finite([values], "values"))).tolist())


def count_outliers(lists: Sequence[Sequence[float]]) -> int:
    """Return the total number of outliers in several lists. Each list is judged alone, by the rule in `outliers`."""
    return sum(int(_are_far(rows).sum()) for _, rows in _of_each_length(lists))


def _are_far(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a boolean for each value of a 2-D array (lists, values): whether the value is an outlier within its list."""
    if rows.shape[1] < _MIN_WITH_OUTLIERS:
        return np.zeros(rows.shape, dtype=bool)
    distances = np.abs(rows - np.median(rows, axis=1, keepdims=True))
    mad = np.median(distances, axis=1, keepdims=True)
    return (distances * _Z_OF_MAD > _FAR * mad) & (mad > 0)


def _of_each_length(lists: Sequence[Sequence[float]]) -> Iterator[tuple[list[int], NDArray[np.float64]]]:
    """Group lists by length. Per length, yield `(indexes, array)`: the lists' indexes, and the lists as rows of a 2-D array."""
    if len(set(map(len, lists))) == 1:
        yield list(range(len(lists))), finite(lists, "values")
        return
    by_length = defaultdict[int, list[int]](list)
    for place, values in enumerate(lists):
        by_length[len(values)].append(place)
    for places in by_length.values():
        yield places, finite([lists[place] for place in places], "values")


def settling_index(values: Sequence[float]) -> int:
    """Return the number of warm-up values at the start of a list: those well above the median of the list's second half.

    The second half is taken as settled. Leading values still warm up if they exceed its median by more than 5 % and by more
    than _FAR of its deviations. With fewer than _FEWEST values the result is 0.
    """
    data = finite(values, "values")
    if data.size < _FEWEST:
        return 0
    half = data[data.size // 2 :]
    middle = float(np.median(half))
    limit = middle + max(_FAR * float(np.median(np.abs(half - middle))) / _Z_OF_MAD, _SLOWER * middle)
    return next((place for place, value in enumerate(data) if value <= limit), data.size)
