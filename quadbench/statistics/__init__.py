"""Statistics: lists of numbers -> summaries and verdicts; pure.

The iteration describes a launch, the launch is the unit of comparison: iterations of one process share its luck with memory
layout and temperature, so that many of them say nothing about the next process.

Whatever makes no sense is a ValueError: numbers that are not finite, times that are not above 0, sides of unequal length.
"""

from quadbench.statistics.change_points import HALF_OF_STEPS, Spread, shifts, spread_of
from quadbench.statistics.intervals import MAX_BLOCKS
from quadbench.statistics.launch_comparison import (
    CONFIDENCE,
    EQUIVALENCE_MARGIN,
    LAUNCHES_PER_BLOCK,
    MIN_BLOCKS,
    Comparison,
    Paired,
    Verdict,
    block_differences,
    compare_launches,
    compare_unpaired,
    interval_of_share,
    paired,
)
from quadbench.statistics.multiple_testing import (
    LOOKS,
    TO_TELL,
    JointVerdict,
    Looks,
    hold_together,
    judge_together,
    planned_looks,
)
from quadbench.statistics.summary import (
    ENOUGH_SAMPLES,
    count_outliers,
    medians,
    percentile,
    settled_from,
    summarize,
)

__all__ = [
    "CONFIDENCE",
    "ENOUGH_SAMPLES",
    "EQUIVALENCE_MARGIN",
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
    "Spread",
    "Verdict",
    "block_differences",
    "compare_launches",
    "compare_unpaired",
    "count_outliers",
    "hold_together",
    "interval_of_share",
    "judge_together",
    "medians",
    "paired",
    "percentile",
    "planned_looks",
    "settled_from",
    "shifts",
    "spread_of",
    "summarize",
]
