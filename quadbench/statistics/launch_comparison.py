"""Compare builds A and B statistically, by interleaved or unpaired launches, or by pairs of results for the same input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from quadbench.statistics.intervals import MAX_BLOCKS, finite, half_width, interval_of_mean, is_unlikely, sign_flip_p, t_quantile

CONFIDENCE = 0.95
EQUIVALENCE_MARGIN = 0.02
LAUNCHES_PER_BLOCK = 2  # of each of the two builds, in the order A B B A

_FAR_LEVEL = 0.001  # the chance that a block of normally distributed differences is called far
_FAR_SHARE = 6  # at most one block in so many is

# With fewer blocks no sign-flip test can reach p <= 0.05: its smallest two-sided p is 2 / 2^n.
MIN_BLOCKS = 6


class Verdict(StrEnum):
    """The verdict on build B against build A: WORSE, BETTER, SAME or INCONCLUSIVE. Lower values (time, bytes) are better."""

    WORSE = "WORSE"
    BETTER = "BETTER"
    SAME = "SAME"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of builds A and B from A B B A launch blocks. `ratio` is B / A, with confidence interval `low` to `high`.

    `low` and `high` are None below two blocks. `blocks_needed` is set for INCONCLUSIVE: about how many blocks would give a
    verdict with the same spread. It is None with fewer than two blocks, or if no affordable number would. `far_blocks` counts
    blocks with a far launch, whose size does not count.
    """

    blocks: int
    ratio: float | None
    low: float | None
    high: float | None
    sign_flip_p: float | None
    verdict: Verdict
    blocks_needed: int | None
    far_blocks: int = 0


def compare_launches(
    a: Sequence[float], b: Sequence[float], *, margin: float = EQUIVALENCE_MARGIN, confidence: float = CONFIDENCE
) -> Comparison:
    """Return the comparison of builds A and B in one metric. `a` and `b` hold values in launch order, from A B B A blocks.

    Each block's d is the mean of log B minus the mean of log A, which cancels a linear drift. An incomplete block is left out.
    A verdict needs the whole interval on one side of the margin, or within it (SAME). WORSE and BETTER also need an exact
    sign-flip p of at most 0.05. A far block (`_far_blocks`) is left out of the interval; in the sign-flip test it counts as the
    nearest other block. With more than MAX_BLOCKS blocks the interval alone decides, and there is no p. A higher
    `confidence` compensates for several looks (`Looks`).
    """
    differences = block_differences(a, b)
    n = len(differences)
    if n == 0:
        return Comparison(
            blocks=0, ratio=None, low=None, high=None, sign_flip_p=None, verdict=Verdict.INCONCLUSIVE, blocks_needed=None
        )
    far = _far_blocks(differences)
    near = [difference for number, difference in enumerate(differences) if number not in far]
    mean, half = float(np.mean(near)), half_width(near, confidence)
    p = sign_flip_p(np.clip(differences, min(near), max(near)).tolist()) if n <= MAX_BLOCKS else None
    verdict = Verdict.INCONCLUSIVE
    if n >= MIN_BLOCKS and half is not None:
        by_interval = verdict_between(mean - half, mean + half, margin)
        verdict = by_interval if by_interval is Verdict.SAME or is_unlikely(p) else Verdict.INCONCLUSIVE
    return Comparison(
        blocks=n,
        ratio=math.exp(mean),
        low=math.exp(mean - half) if half is not None else None,
        high=math.exp(mean + half) if half is not None else None,
        sign_flip_p=p,
        verdict=verdict,
        blocks_needed=_blocks_needed(near, math.log1p(margin), confidence) if verdict is Verdict.INCONCLUSIVE else None,
        far_blocks=len(far),
    )


def _far_blocks(differences: Sequence[float]) -> frozenset[int]:
    """Return the indexes of differences that are far from all others, at most one in six (generalized ESD test, Rosner 1983).

    The k-th of them is compared with the values that are nearer, by Student's t. The largest k that is far decides, so that far
    values cannot hide each other.
    """
    data = np.asarray(differences)
    order = np.argsort(np.abs(data - np.median(data)))
    for count in range(data.size // _FAR_SHARE, 0, -1):
        near, far = data[order[:-count]], float(data[order[-count]])
        error = float(near.std(ddof=1)) * math.sqrt(1 + 1 / near.size)
        chance = _FAR_LEVEL / 2 / (near.size + 1)
        if abs(far - float(near.mean())) > t_quantile(1 - chance, near.size - 1) * error > 0:
            return frozenset(order[-count:].tolist())
    return frozenset()


def block_differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return the mean of log B minus the mean of log A for each complete A B B A block of launches."""
    first, second = finite(a, "side A"), finite(b, "side B")
    if first.size != second.size:
        raise ValueError(f"side A has {first.size} launches and side B {second.size}; expected equal numbers")
    if (first <= 0).any() or (second <= 0).any():
        raise ValueError("a launch's value is not positive; expected times or bytes above 0, as ratios are compared")
    starts = range(0, first.size + 1, LAUNCHES_PER_BLOCK)
    return [float(np.log(second[i:j]).mean() - np.log(first[i:j]).mean()) for i, j in pairwise(starts)]


def verdict_between(low: float, high: float, margin: float) -> Verdict:
    """Judge an interval of log(B / A) by L = log(1 + margin): WORSE above L, BETTER below -L, SAME within ±L, or INCONCLUSIVE."""
    limit = math.log1p(margin)
    if low > limit:
        return Verdict.WORSE
    if high < -limit:
        return Verdict.BETTER
    return Verdict.SAME if -limit < low and high < limit else Verdict.INCONCLUSIVE


def _blocks_needed(differences: Sequence[float], margin: float, confidence: float) -> int | None:
    """Estimate how many A B B A blocks a verdict needs. Return None if it is over MAX_BLOCKS, or from one block alone."""
    if len(differences) < 2:
        return None
    room = abs(abs(float(np.mean(differences))) - margin)
    std = float(np.std(differences, ddof=1))
    for n in range(max(MIN_BLOCKS, len(differences) + 1), MAX_BLOCKS + 1):
        if t_quantile((1 + confidence) / 2, n - 1) * std / math.sqrt(n) < room:
            return n
    return None


def share_interval(count: float, tries: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval (low, high) of `count` / `tries` (Wilson 1927). It is valid for few tries and near 0 or 1.

    A try may count as a fraction, if it combines several events; the interval is then wider than necessary, not narrower.
    """
    if tries < 1 or not 0 <= count <= tries:
        raise ValueError(f"{count} of {tries} tries; expected at least one try, and a count from 0 to the tries")
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), count / tries
    middle = (share + z * z / (2 * tries)) / (1 + z * z / tries)
    half = z / (1 + z * z / tries) * math.sqrt(share * (1 - share) / tries + (z / (2 * tries)) ** 2)
    return (middle - half if count else 0.0), (middle + half if count < tries else 1.0)


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """The mean difference between paired values, and its 95 % interval `low` to `high`. With one pair, `low` and `high` are None.

    `is_told_apart` means that the mean is not 0. It needs MIN_BLOCKS pairs, the whole interval on one side of 0, and an exact
    sign-flip p of at most 0.05. A far block (`_far_blocks`) is left out of the interval; in the sign-flip test it counts as the
    nearest other block. With more than MAX_BLOCKS pairs there is no p, and the interval alone decides.
    """

    pairs: int
    mean: float
    low: float | None
    high: float | None
    sign_flip_p: float | None
    is_told_apart: bool


def compare_paired(differences: Sequence[float]) -> PairedComparison:
    """Test if the mean of `differences`, one per pair, is 0; return a PairedComparison. Every pair needs a different input."""
    n = finite(differences, "differences").size
    if n == 0:
        raise ValueError("no differences; expected one for each pair")
    low, high = interval_of_mean(differences, CONFIDENCE) or (None, None)
    p = sign_flip_p(differences) if n <= MAX_BLOCKS else None
    return PairedComparison(
        pairs=n,
        mean=float(np.mean(differences)),
        low=low,
        high=high,
        sign_flip_p=p,
        is_told_apart=n >= MIN_BLOCKS and is_unlikely(p) and low is not None and high is not None and (low > 0 or high < 0),
    )


@dataclass(frozen=True, kw_only=True)
class UnpairedComparison:
    """The comparison of a metric in two runs. `ratio` is later run / earlier run, with 95 % interval `low` to `high`.

    `low` and `high` are None if a run has one launch. The interval covers only the variation between launches of one run.
    """

    ratio: float
    low: float | None
    high: float | None
    verdict: Verdict


def compare_unpaired(before: Sequence[float], now: Sequence[float], *, together: int = 1) -> UnpairedComparison:
    """Return the comparison of two builds in one metric, by Student's t-test on logarithms. Each list has one value per launch.

    The spread is pooled, as both builds run the same program on the same device and may have only two launches each. A verdict
    needs the whole interval on one side of the margin, or within it. If several metrics are compared `together`, WORSE and
    BETTER also need a p of at most 0.05 divided by their number (Bonferroni).
    """
    sides = [finite(side, name) for side, name in ((before, "before"), (now, "now"))]
    if any(side.size == 0 or (side <= 0).any() for side in sides):
        raise ValueError("a build has no launch, or a value that is not positive; expected times or bytes above 0")
    first, second = map(np.log, sides)
    change = float(second.mean() - first.mean())
    half = _half_width(first, second, CONFIDENCE)
    verdict = Verdict.INCONCLUSIVE if half is None else verdict_between(change - half, change + half, EQUIVALENCE_MARGIN)
    if verdict is not Verdict.SAME and abs(change) <= (_half_width(first, second, 1 - (1 - CONFIDENCE) / together) or 0.0):
        verdict = Verdict.INCONCLUSIVE
    return UnpairedComparison(
        ratio=math.exp(change),
        low=None if half is None else math.exp(change - half),
        high=None if half is None else math.exp(change + half),
        verdict=verdict,
    )


def _half_width(first: np.ndarray, second: np.ndarray, confidence: float) -> float | None:
    """Return half the width of the confidence interval of the difference of two means; None if a list has only one value."""
    if min(first.size, second.size) < 2:
        return None
    degrees = first.size + second.size - 2
    squares = float(((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum())
    return t_quantile((1 + confidence) / 2, degrees) * math.sqrt(squares / degrees * (1 / first.size + 1 / second.size))


def verdict_within(compared: Comparison, limit: float) -> Verdict:
    """Return the Verdict on a Comparison for `limit`, a bound on |log(B / A)|. It is INCONCLUSIVE below MIN_BLOCKS blocks.

    SAME needs the whole interval within the limit. WORSE and BETTER need it beyond half the limit, and a sign-flip p that
    agrees. So a change by the limit is detected, and one below half the limit never is.
    """
    if compared.low is None or compared.high is None or compared.blocks < MIN_BLOCKS:
        return Verdict.INCONCLUSIVE
    low, high = math.log(compared.low), math.log(compared.high)
    if -limit < low and high < limit:
        return Verdict.SAME
    if is_unlikely(compared.sign_flip_p) and (low > limit / 2 or high < -limit / 2):
        return Verdict.WORSE if low > 0 else Verdict.BETTER
    return Verdict.INCONCLUSIVE
