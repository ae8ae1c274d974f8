"""Within: launches in turn and the least change that matters -> whether one side takes more by as much, or not; pure."""

import math

from quadbench.statistics.comparison import MIN_BLOCKS, Comparison, Verdict
from quadbench.statistics.sign_flip import is_unlikely


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
