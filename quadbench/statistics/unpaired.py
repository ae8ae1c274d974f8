"""Unpaired: one figure for each launch of two sides, measured at different times -> their ratio, and a verdict at 95 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quadbench.statistics.comparison import CONFIDENCE, EQUIVALENCE_MARGIN, Verdict, verdict_between
from quadbench.statistics.finite import finite
from quadbench.statistics.student import t_quantile


@dataclass(frozen=True, kw_only=True)
class Unpaired:
    """The comparison of a figure now with the same before. `ratio` is now / before with its interval (None with one launch).

    The interval knows how launches of one side differ. What changed between the sides it cannot tell from the sides themselves.
    """

    ratio: float
    low: float | None
    high: float | None
    verdict: Verdict


def compare_unpaired(
    before: Sequence[float], now: Sequence[float], *, margin: float = EQUIVALENCE_MARGIN, together: int = 1
) -> Unpaired:
    """Compare one figure per launch of two sides by Student's t for two samples, on logarithms.

    The spread is pooled: both sides are the same program on the same device, and two launches of each say too little to have a
    spread of its own. The verdict needs the whole interval on one side of the margin, or within it. Of several figures that are
    compared `together`, WORSE and BETTER need a t-test's p of at most 0.05 divided by their number too (Bonferroni).

    Raises:
        ValueError: a side has no launch, or a value is not positive and finite.
    """
    sides = [finite(side, name) for side, name in ((before, "before"), (now, "now"))]
    if any(side.size == 0 or (side <= 0).any() for side in sides):
        raise ValueError("a side has no launch, or a figure that is not positive; expected times or bytes above 0")
    first, second = map(np.log, sides)
    change = float(second.mean() - first.mean())
    half = _half_width(first, second, CONFIDENCE)
    verdict = Verdict.INCONCLUSIVE if half is None else verdict_between(change - half, change + half, margin)
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
