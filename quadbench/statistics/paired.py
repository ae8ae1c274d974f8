"""Paired: differences of pairs that were measured on the same input -> whether their mean is told apart from 0."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quadbench.statistics.comparison import CONFIDENCE, MIN_BLOCKS
from quadbench.statistics.finite import finite
from quadbench.statistics.sign_flip import MAX_BLOCKS, is_unlikely, sign_flip_p
from quadbench.statistics.student import interval_of_mean


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
    """Judge the mean of differences, each of one pair that was measured on the same input; inputs are independent.

    Raises:
        ValueError: there are no differences, or one is not finite.
    """
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
