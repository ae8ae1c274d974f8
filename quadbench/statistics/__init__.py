"""Statistics: lists of numbers -> summaries and verdicts; pure.

The iteration describes a launch, the launch is the unit of comparison: iterations of one process share its luck with memory
layout and temperature, so that many of them say nothing about the next process.
"""

from quadbench.statistics.change_points import DETECTOR, Shift, shifts
from quadbench.statistics.comparison import (
    CONFIDENCE,
    EQUIVALENCE_MARGIN,
    LAUNCHES_PER_BLOCK,
    MIN_BLOCKS,
    Comparison,
    Verdict,
    block_differences,
    compare_launches,
)
from quadbench.statistics.looks import LOOKS, Looks, planned_looks
from quadbench.statistics.paired import Paired, paired
from quadbench.statistics.share import interval_of_share
from quadbench.statistics.sign_flip import MAX_BLOCKS, sign_flip_p
from quadbench.statistics.student import interval_of_mean, t_quantile
from quadbench.statistics.summary import (
    ENOUGH_SAMPLES,
    Summary,
    count_outliers,
    medians,
    outliers,
    percentile,
    settled_from,
    summarize,
)
from quadbench.statistics.together import TO_TELL, JointVerdict, hold_together, judge_together
from quadbench.statistics.unpaired import Unpaired, compare_unpaired
from quadbench.statistics.usual import FEWEST_USUAL, HALF_OF_STEPS, Spread, spread_of

__all__ = [
    "CONFIDENCE",
    "DETECTOR",
    "ENOUGH_SAMPLES",
    "EQUIVALENCE_MARGIN",
    "FEWEST_USUAL",
    "HALF_OF_STEPS",
    "LAUNCHES_PER_BLOCK",
    "LOOKS",
    "MAX_BLOCKS",
    "MIN_BLOCKS",
    "TO_TELL",
    "Comparison",
    "JointVerdict",
    "Looks",
    "Paired",
    "Shift",
    "Spread",
    "Summary",
    "Unpaired",
    "Verdict",
    "block_differences",
    "compare_launches",
    "compare_unpaired",
    "count_outliers",
    "hold_together",
    "interval_of_mean",
    "interval_of_share",
    "judge_together",
    "medians",
    "outliers",
    "paired",
    "percentile",
    "planned_looks",
    "settled_from",
    "shifts",
    "sign_flip_p",
    "spread_of",
    "summarize",
    "t_quantile",
]
