"""Comparison: one figure for each launch of two interleaved sides -> their ratio, and a verdict at 95 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from quadbench.statistics.finite import finite
from quadbench.statistics.sign_flip import MAX_BLOCKS, is_unlikely, sign_flip_p
from quadbench.statistics.student import half_width, t_quantile

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

    Raises:
        ValueError: the sides differ in length, or a value is not positive and finite.
    """
    differences = block_differences(a, b)
    n = len(differences)
    if n == 0:
        return Comparison(
            blocks=0, ratio=None, low=None, high=None, sign_flip_p=None, verdict=Verdict.INCONCLUSIVE, blocks_needed=None
        )
    mean, half = float(np.mean(differences)), half_width(differences, confidence)
    p = sign_flip_p(differences) if n <= MAX_BLOCKS else None
    verdict = _verdict(n, mean, half, p, margin)
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
    """Return each whole block's mean of log B minus its mean of log A.

    Raises:
        ValueError: the sides differ in length, or a value is not positive and finite.
    """
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


def _verdict(n: int, mean: float, half: float | None, p: float | None, margin: float) -> Verdict:
    if n < MIN_BLOCKS or half is None:
        return Verdict.INCONCLUSIVE
    verdict = verdict_between(mean - half, mean + half, margin)
    return verdict if verdict is Verdict.SAME or is_unlikely(p) else Verdict.INCONCLUSIVE


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
