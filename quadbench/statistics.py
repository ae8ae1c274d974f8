"""Statistics: lists of numbers -> summaries and A/B verdicts; pure.

The iteration describes a launch, the launch is the unit of comparison: iterations of one process share its luck with memory
layout and temperature, so that many of them say nothing about the next process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
EQUIVALENCE_MARGIN = 0.02
LAUNCHES_PER_BLOCK = 2  # of each side: A B B A
MAX_BLOCKS = 40  # the exact sign-flip test enumerates 2^(n/2) half sums

# Fewest samples for which, with 99 % confidence, at least two of them lie above the percentile q, so that it is not read off
# the largest value alone: the smallest n with q^n + n (1 - q) q^(n-1) <= 0.01.
ENOUGH_SAMPLES = {50: 11, 90: 64, 95: 130, 99: 662}

# With fewer blocks no sign-flip test can reach p <= 0.05: its smallest two-sided p is 2 / 2^n.
MIN_BLOCKS = 6


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The summary of a list of values, in their unit.

    `median` is the middle of these values; `p50` and the other percentiles speak of the process behind them and are None where
    the values are too few for that (ENOUGH_SAMPLES). `std` is the sample's (n - 1), None for one value; `cv` is std / mean, None
    where that is undefined; `mad` is the median absolute deviation from the median, unscaled.
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


class Verdict(StrEnum):
    """The result of comparing B with A, where less is better (time, bytes)."""

    WORSE = "WORSE"
    BETTER = "BETTER"
    SAME = "SAME"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of B with A over ABBA blocks. `ratio` is B / A with its interval at 95 % (None with fewer than two blocks).

    `blocks_needed` is set on an INCONCLUSIVE one: about how many blocks would settle it if the spread stays as it is;
    None where that cannot be told (fewer than two blocks) or where no affordable number would.
    """

    blocks: int
    ratio: float | None
    low: float | None
    high: float | None
    sign_flip_p: float | None
    verdict: Verdict
    blocks_needed: int | None


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The mean difference of pairs, with its interval at 95 % (None with fewer than two pairs).

    `is_told_apart` says that the mean is not 0: of at least MIN_BLOCKS pairs the whole interval lies on one side of 0, and the
    exact sign-flip p is at most 0.05; with more than MAX_BLOCKS pairs there is no p, and the interval alone decides.
    """

    pairs: int
    mean: float
    low: float | None
    high: float | None
    sign_flip_p: float | None
    is_told_apart: bool


def summarize(values: Sequence[float]) -> Summary | None:
    """Return the summary of `values`, or None if there are none.

    Raises:
        ValueError: a value is not finite.
    """
    data = _finite(values, "values")
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
    """Return the percentile by nearest rank, or None if there are too few values to quote it.

    Raises:
        ValueError: the percentile is not one of ENOUGH_SAMPLES.
    """
    if percent not in ENOUGH_SAMPLES:
        raise ValueError(f"no sample count is known for percentile {percent}; known: {', '.join(map(str, ENOUGH_SAMPLES))}")
    if len(values) < ENOUGH_SAMPLES[percent]:
        return None
    return float(sorted(values)[math.ceil(percent / 100 * len(values)) - 1])


def compare_launches(a: Sequence[float], b: Sequence[float], *, margin: float = EQUIVALENCE_MARGIN) -> Comparison:
    """Compare one figure per launch, in the order measured, of sides A and B that were interleaved as A B B A.

    Each block's d is the mean of log B minus the mean of log A, which cancels a linear drift. An incomplete last one is left out.
    The verdict needs the whole interval on one side of the margin (or between -margin and +margin: SAME), and for WORSE and
    BETTER an exact sign-flip p of at most 0.05 too; with more than MAX_BLOCKS blocks, where the interval needs no such second
    opinion, there is no p.

    Raises:
        ValueError: the sides differ in length, or a value is not positive and finite.
    """
    differences = _block_differences(a, b)
    n = len(differences)
    if n == 0:
        return Comparison(
            blocks=0, ratio=None, low=None, high=None, sign_flip_p=None, verdict=Verdict.INCONCLUSIVE, blocks_needed=None
        )
    mean, half = float(np.mean(differences)), _half_width(differences)
    p = sign_flip_p(differences) if n <= MAX_BLOCKS else None
    verdict = _verdict(n, mean, half, p, math.log1p(margin))
    return Comparison(
        blocks=n,
        ratio=math.exp(mean),
        low=math.exp(mean - half) if half is not None else None,
        high=math.exp(mean + half) if half is not None else None,
        sign_flip_p=p,
        verdict=verdict,
        blocks_needed=_blocks_needed(differences, math.log1p(margin)) if verdict is Verdict.INCONCLUSIVE else None,
    )


def paired(differences: Sequence[float]) -> Paired:
    """Judge the mean of differences, each of one pair that was measured on the same input; inputs are independent.

    Raises:
        ValueError: there are no differences, or one is not finite.
    """
    n = _finite(differences, "differences").size
    if n == 0:
        raise ValueError("no differences; expected one for each pair")
    mean, half = float(np.mean(differences)), _half_width(differences)
    p = sign_flip_p(differences) if n <= MAX_BLOCKS else None
    return Paired(
        pairs=n,
        mean=mean,
        low=mean - half if half is not None else None,
        high=mean + half if half is not None else None,
        sign_flip_p=p,
        is_told_apart=n >= MIN_BLOCKS and _is_unlikely(p) and half is not None and abs(mean) > half,
    )


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the exact two-sided p: the share of all 2^n sign patterns whose sum is at least as far from 0 as the observed one.

    Every sum is one of the first half's plus one of the second's, so sorting the halves' 2^(n/2) sums replaces the enumeration.

    Raises:
        ValueError: there are no differences, or more than MAX_BLOCKS.
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


def _block_differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    first, second = _finite(a, "side A"), _finite(b, "side B")
    if first.size != second.size:
        raise ValueError(f"side A has {first.size} launches and side B {second.size}; expected as many on both")
    if (first <= 0).any() or (second <= 0).any():
        raise ValueError("a launch's figure is not positive; expected times or bytes above 0, whose ratio is compared")
    starts = range(0, first.size + 1, LAUNCHES_PER_BLOCK)
    return [float(np.log(second[i:j]).mean() - np.log(first[i:j]).mean()) for i, j in pairwise(starts)]


def _half_width(differences: Sequence[float]) -> float | None:
    n = len(differences)
    if n < 2:
        return None
    return t_quantile((1 + CONFIDENCE) / 2, n - 1) * float(np.std(differences, ddof=1)) / math.sqrt(n)


def _verdict(n: int, mean: float, half: float | None, p: float | None, margin: float) -> Verdict:
    is_systematic = _is_unlikely(p)
    if n < MIN_BLOCKS or half is None:
        return Verdict.INCONCLUSIVE
    if -margin < mean - half and mean + half < margin:
        return Verdict.SAME
    if is_systematic and mean - half > margin:
        return Verdict.WORSE
    if is_systematic and mean + half < -margin:
        return Verdict.BETTER
    return Verdict.INCONCLUSIVE


def _is_unlikely(p: float | None) -> bool:
    """Say whether chance alone seldom gives what was seen, or whether the interval needs no second opinion (None)."""
    return p is None or p <= 1 - CONFIDENCE + 1e-12


def _blocks_needed(differences: Sequence[float], margin: float) -> int | None:
    """Return the fewest blocks at which an interval of this spread around this mean no longer straddles a margin."""
    if len(differences) < 2:
        return None
    room = abs(abs(float(np.mean(differences))) - margin)
    std = float(np.std(differences, ddof=1))
    for n in range(max(MIN_BLOCKS, len(differences) + 1), MAX_BLOCKS + 1):
        if t_quantile((1 + CONFIDENCE) / 2, n - 1) * std / math.sqrt(n) < room:
            return n
    return None


def _signed_sums(differences: Sequence[float]) -> NDArray[np.float64]:
    """Return the sums of `differences` under every pattern of signs: (2^n,)."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def _finite(values: Sequence[float], name: str) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if not np.isfinite(data).all():
        raise ValueError(f"{name} hold {data[~np.isfinite(data)][0]}; expected finite numbers")
    return data
