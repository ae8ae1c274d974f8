"""Summaries, intervals, tests and verdicts for lists of numbers.

The launch (a fresh process) is the unit of comparison. Iterations of one process share its memory layout and temperature, so
that many of them say nothing about the next process.

Invalid input is a ValueError: numbers that are not finite, times that are not above 0, sides of unequal length.
"""

from quadbench.statistics.launch_comparison import EQUIVALENCE_MARGIN, LAUNCHES_PER_BLOCK, MIN_BLOCKS, Verdict
from quadbench.statistics.multiple_testing import Looks
from quadbench.statistics.summary import count_outliers, medians, percentile, summarize

__all__ = [
    "EQUIVALENCE_MARGIN",
    "LAUNCHES_PER_BLOCK",
    "MIN_BLOCKS",
    "Looks",
    "Verdict",
    "count_outliers",
    "medians",
    "percentile",
    "summarize",
]
