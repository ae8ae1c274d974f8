"""Sign flip: paired differences -> the exact probability that their mean is chance alone."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_BLOCKS = 40  # the exact sign-flip test enumerates 2^(n/2) half sums


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


def _signed_sums(differences: Sequence[float]) -> NDArray[np.float64]:
    """Return the sums of `differences` under every pattern of signs: (2^n,)."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def is_unlikely(p: float | None) -> bool:
    """Say whether chance alone seldom gives what was seen; None, of many differences, leaves it to their interval."""
    return p is None or p <= 0.05 + 1e-12
