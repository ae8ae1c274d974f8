"""Comparisons of two sides: interleaved launches, unpaired ones, pairs on the same input, and shares."""

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
LAUNCHES_PER_BLOCK = 2  # of each side: A B B A

# With fewer blocks no sign-flip test can reach p <= 0.05: its smallest two-sided p is 2 / 2^n.
MIN_BLOCKS = 6


class Verdict(StrEnum):
    """The result of comparing B with A, where less is better (time, bytes)."""

    WORSE = "WORSE"
    BETTER = "BETTER"
    SAME = "SAME"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of B with A over ABBA blocks. `ratio` is B / A with its interval (None with fewer than two blocks).

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


def compare_launches(
    a: Sequence[float], b: Sequence[float], *, margin: float = EQUIVALENCE_MARGIN, confidence: float = CONFIDENCE
) -> Comparison:
    """Compare one figure per launch, in the order measured, of sides A and B that were interleaved as A B B A.

    Each block's d is the mean of log B minus the mean of log A, which cancels a linear drift. An incomplete last one is left out.
    The verdict needs the whole interval on one side of the margin (or between -margin and +margin: SAME), and for WORSE and
    BETTER an exact sign-flip p of at most 0.05 too; with more than MAX_BLOCKS blocks, where the interval needs no such second
    opinion, there is no p. A higher `confidence` of the interval pays for looking more than once (`Looks`).
    """
    differences = block_differences(a, b)
    n = len(differences)
    if n == 0:
        return Comparison(
            blocks=0, ratio=None, low=None, high=None, sign_flip_p=None, verdict=Verdict.INCONCLUSIVE, blocks_needed=None
        )
    mean, half = float(np.mean(differences)), half_width(differences, confidence)
    p = sign_flip_p(differences) if n <= MAX_BLOCKS else None
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
        blocks_needed=_blocks_needed(differences, math.log1p(margin), confidence) if verdict is Verdict.INCONCLUSIVE else None,
    )


def block_differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return each whole block's mean of log B minus its mean of log A."""
    first, second = finite(a, "side A"), finite(b, "side B")
    if first.size != second.size:
        raise ValueError(f"side A has {first.size} launches and side B {second.size}; expected as many on both")
    if (first <= 0).any() or (second <= 0).any():
        raise ValueError("a launch's figure is not positive; expected times or bytes above 0, whose ratio is compared")
    starts = range(0, first.size + 1, LAUNCHES_PER_BLOCK)
    return [float(np.log(second[i:j]).mean() - np.log(first[i:j]).mean()) for i, j in pairwise(starts)]


def verdict_between(low: float, high: float, margin: float) -> Verdict:
    """Return the verdict of an interval of log B - log A alone: beyond the margin (0.02 is 2 %), within it, or neither."""
    limit = math.log1p(margin)
    if low > limit:
        return Verdict.WORSE
    if high < -limit:
        return Verdict.BETTER
    return Verdict.SAME if -limit < low and high < limit else Verdict.INCONCLUSIVE


def _blocks_needed(differences: Sequence[float], margin: float, confidence: float) -> int | None:
    """Return the fewest blocks at which an interval of this spread around this mean no longer straddles a margin."""
    if len(differences) < 2:
        return None
    room = abs(abs(float(np.mean(differences))) - margin)
    std = float(np.std(differences, ddof=1))
    for n in range(max(MIN_BLOCKS, len(differences) + 1), MAX_BLOCKS + 1):
        if t_quantile((1 + confidence) / 2, n - 1) * std / math.sqrt(n) < room:
            return n
    return None


def interval_of_share(count: float, tries: int) -> tuple[float, float]:
    """Return Wilson's interval at 95 % of a probability (Wilson 1927): it holds for few tries and for shares near 0 and 1.

    A try may count in part, as one of several things that happened; the interval is then no narrower than it need be.
    """
    if tries < 1 or not 0 <= count <= tries:
        raise ValueError(f"{count} of {tries} tries; expected at least one, and no more counts than tries")
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), count / tries
    middle = (share + z * z / (2 * tries)) / (1 + z * z / tries)
    half = z / (1 + z * z / tries) * math.sqrt(share * (1 - share) / tries + (z / (2 * tries)) ** 2)
    return (middle - half if count else 0.0), (middle + half if count < tries else 1.0)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The mean difference of pairs, with its interval at 95 % (None with fewer than two pairs), for skewed differences too.

    `is_told_apart` says that the mean is not 0: of at least MIN_BLOCKS pairs the whole interval lies on one side of 0, and the
    exact sign-flip p is at most 0.05; with more than MAX_BLOCKS pairs there is no p, and the interval alone decides.
    """

    pairs: int
    mean: float
    low: float | None
    high: float | None
    sign_flip_p: float | None
    is_told_apart: bool


def paired(differences: Sequence[float]) -> Paired:
    """Judge the mean of differences, each of one pair that was measured on the same input; inputs are independent."""
    n = finite(differences, "differences").size
    if n == 0:
        raise ValueError("no differences; expected one for each pair")
    low, high = interval_of_mean(differences, CONFIDENCE) or (None, None)
    p = sign_flip_p(differences) if n <= MAX_BLOCKS else None
    return Paired(
        pairs=n,
        mean=float(np.mean(differences)),
        low=low,
        high=high,
        sign_flip_p=p,
        is_told_apart=n >= MIN_BLOCKS and is_unlikely(p) and low is not None and high is not None and (low > 0 or high < 0),
    )


@dataclass(frozen=True, kw_only=True)
class Unpaired:
    """The comparison of a figure now with the same before. `ratio` is now / before with its interval (None with one launch).

    The interval knows how launches of one side differ. What changed between the sides it cannot tell from the sides themselves.
    """

    ratio: float
    low: float | None
    high: float | None
    verdict: Verdict


def compare_unpaired(before: Sequence[float], now: Sequence[float], *, together: int = 1) -> Unpaired:
    """Compare one figure per launch of two sides by Student's t for two samples, on logarithms.

    The spread is pooled: both sides are the same program on the same device, and two launches of each say too little to have a
    spread of its own. The verdict needs the whole interval on one side of the margin, or within it. Of several figures that are
    compared `together`, WORSE and BETTER need a t-test's p of at most 0.05 divided by their number too (Bonferroni).
    """
    sides = [finite(side, name) for side, name in ((before, "before"), (now, "now"))]
    if any(side.size == 0 or (side <= 0).any() for side in sides):
        raise ValueError("a side has no launch, or a figure that is not positive; expected times or bytes above 0")
    first, second = map(np.log, sides)
    change = float(second.mean() - first.mean())
    half = _half_width(first, second, CONFIDENCE)
    verdict = Verdict.INCONCLUSIVE if half is None else verdict_between(change - half, change + half, EQUIVALENCE_MARGIN)
    if verdict is not Verdict.SAME and abs(change) <= (_half_width(first, second, 1 - (1 - CONFIDENCE) / together) or 0.0):
        verdict = Verdict.INCONCLUSIVE
    return Unpaired(
        ratio=math.exp(change),
        low=None if half is None else math.exp(change - half),
        high=None if half is None else math.exp(change + half),
        verdict=verdict,
    )


def _half_width(first: np.ndarray, second: np.ndarray, confidence: float) -> float | None:
    """Return half the width of the interval of the means' difference; None where a side has one launch."""
    if min(first.size, second.size) < 2:
        return None
    degrees = first.size + second.size - 2
    squares = float(((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum())
    return t_quantile((1 + confidence) / 2, degrees) * math.sqrt(squares / degrees * (1 / first.size + 1 / second.size))


def verdict_within(compared: Comparison, limit: float) -> Verdict:
    """Judge launches in turn by the least change that matters, on a scale of logarithms.

    SAME where the whole interval lies within the limit; else WORSE or BETTER where it lies beyond half of it, and the signs of
    the blocks say so too. So a change by the limit is told, and one by less than half of it never is.
    """
    if compared.low is None or compared.high is None or compared.blocks < MIN_BLOCKS:
        return Verdict.INCONCLUSIVE
    low, high = math.log(compared.low), math.log(compared.high)
    if -limit < low and high < limit:
        return Verdict.SAME
    if is_unlikely(compared.sign_flip_p) and (low > limit / 2 or high < -limit / 2):
        return Verdict.WORSE if low > 0 else Verdict.BETTER
    return Verdict.INCONCLUSIVE
