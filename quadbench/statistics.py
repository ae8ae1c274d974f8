"""Statistics: values -> summaries that claim no more than their number allows; pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# The least n with which a percentile is quoted: the chance that all n samples lie below the true percentile, p^n, is then
# at most 0.13 %, so that the samples bracket it.
ENOUGH_SAMPLES = {50: 11, 90: 64, 95: 130, 99: 662}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a list of values comes to, in the values' unit. `mad` is the median absolute deviation from the median."""

    n: int
    median: float
    minimum: float
    maximum: float
    mad: float


def summarize(values: Sequence[float]) -> Summary | None:
    """The summary of `values`, or None if there are none."""
    if not values:
        return None
    middle = median(values)
    return Summary(
        n=len(values),
        median=middle,
        minimum=min(values),
        maximum=max(values),
        mad=median(abs(value - middle) for value in values),
    )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The percentile by nearest rank, or None if there are too few values to quote it."""
    if len(values) < ENOUGH_SAMPLES[percent]:
        return None
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
