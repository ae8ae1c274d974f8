"""Confidence intervals and p-values of a mean: Student's t, adapted to skewed values, and the exact sign-flip test."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_BLOCKS = 40  # the exact sign-flip test enumerates 2^(n/2) half sums

MAX_WIDENED = 2.0  # simulated: no limit would gain little coverage, but one interval in ten would be over twice as wide


def finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `values` as a float array. Raise ValueError if one is not finite; the message calls the values `name`."""
    data = np.asarray(values, dtype=np.float64)
    if not np.isfinite(data).all():
        raise ValueError(f"{name} contain {data[~np.isfinite(data)][0]}; expected finite numbers")
    return data


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the exact two-sided p of a sign-flip test: the fraction of sign patterns with |sum| at least that of `differences`.

    Each of the 2^n sums is a sum over the first half plus one over the second, so sorting 2^(n/2) sums per half is enough.
    """
    n = len(differences)
    if not 1 <= n <= MAX_BLOCKS:
        raise ValueError(f"the sign-flip test got {n} differences; expected 1 to {MAX_BLOCKS}")
    observed = abs(math.fsum(differences))
    bound = observed - 1e-12 * math.fsum(abs(d) for d in differences)  # ties must count in spite of rounding
    left, right = _signed_sums(differences[: n // 2]), np.sort(_signed_sums(differences[n // 2 :]))
    above = right.size - np.searchsorted(right, bound - left, side="left")
    below = np.searchsorted(right, -bound - left, side="right")
    return min(1.0, float(above.sum() + below.sum()) / 2.0**n)


def _signed_sums(differences: Sequence[float]) -> NDArray[np.float64]:
    """Return the sums of `differences` under every pattern of signs: an array of shape (2^n,)."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def is_unlikely(p: float | None) -> bool:
    """Return True if a p-value is at most 0.05, or is None because no test was made. Return False otherwise."""
    return p is None or p <= 0.05 + 1e-12


@cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution for a probability and whole degrees of freedom."""
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"t quantile of probability {probability} with {degrees} degrees; expected 0 < p < 1 and 1 or more")
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
    """Return half the width of the confidence interval of a mean; None with fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    return t_quantile((1 + confidence) / 2, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)


def t_p(mean: float, error: float, degrees: int) -> float:
    """Return the two-sided p-value of a t-test that a mean is 0, given its standard error and degrees of freedom."""
    if error <= 0:
        return 0.0 if mean else 1.0
    return max(0.0, 2 * (1 - _t_below(abs(mean) / error, degrees)))


def interval_of_mean(values: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Return the confidence interval (low, high) of the mean of values that may be skewed; None with fewer than two values.

    With two values it is Student's t interval. From three on, Hall's cubic transformation of t corrects their skewness (P.
    Hall, On the removal of skewness by transformation, 1992; here with Student's quantiles). Neither end is further from the
    mean than MAX_WIDENED times Student's, as few values only guess their skewness.
    """
    half = half_width(values, confidence)
    if half is None:
        return None
    n, mean, deviation = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
    if n < 3 or deviation == 0:
        return mean - half, mean + half
    skewness = float(((np.asarray(values) - mean) ** 3).sum()) / deviation**3 * n / ((n - 1) * (n - 2))
    most = MAX_WIDENED * half
    below = deviation * _untransformed(half / deviation, skewness, n)
    above = -deviation * _untransformed(-half / deviation, skewness, n)
    return mean - min(max(below, 0.0), most), mean + min(max(above, 0.0), most)


def _untransformed(u: float, skewness: float, n: int) -> float:
    """Solve u = s + g s^2 / 3 + g^2 s^3 / 27 + g / (6 n) for s. Hall's correction of n values with skewness g turns s into u."""
    shifted = u - skewness / (6 * n)
    if abs(skewness) < 1e-6:
        return shifted
    return 3 / skewness * (math.cbrt(1 + skewness * shifted) - 1)


def _t_below(t: float, degrees: int) -> float:
    """Return P(T <= t) for t >= 0 and whole degrees of freedom (finite series: Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    term, total = (cosine, 0.0) if degrees % 2 else (1.0, 0.0)
    for k in range(2 + degrees % 2, degrees + 1, 2):
        total += term
        term *= (k - 1) / k * cosine * cosine
    inside = 2 / math.pi * (theta + sine * total) if degrees % 2 else sine * total
    return 0.5 + inside / 2
