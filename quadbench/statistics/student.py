"""Student: degrees of freedom -> quantiles of Student's t, and the interval of a mean."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np


@cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return the value of Student's t below which a share `probability` of the distribution lies, for whole degrees of freedom.

    Raises:
        ValueError: the probability is not between 0 and 1, or the degrees are fewer than 1.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"t quantile of probability {probability} with {degrees} degrees; expected 0 < p < 1 and at least 1")
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while _t_below(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def half_width(values: Sequence[float], confidence: float) -> float | None:
    """Return half the width of the interval of the values' mean; None with fewer than two."""
    n = len(values)
    if n < 2:
        return None
    return t_quantile((1 + confidence) / 2, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)


def t_p(mean: float, error: float, degrees: int) -> float:
    """Return the two-sided p of a mean of 0, whose standard error was estimated with so many degrees of freedom."""
    if error <= 0:
        return 0.0 if mean else 1.0
    return max(0.0, 2 * (1 - _t_below(abs(mean) / error, degrees)))


def _t_below(t: float, degrees: int) -> float:
    """Return P(T <= t) for t >= 0, by the finite series for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    term, total = (cosine, 0.0) if degrees % 2 else (1.0, 0.0)
    for k in range(2 + degrees % 2, degrees + 1, 2):
        total += term
        term *= (k - 1) / k * cosine * cosine
    inside = 2 / math.pi * (theta + sine * total) if degrees % 2 else sine * total
    return 0.5 + inside / 2
