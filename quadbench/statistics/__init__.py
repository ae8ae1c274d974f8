"""Statistics of lists of numbers: summaries, confidence intervals, significance tests, and verdicts on A/B comparisons.

The launch (a fresh process) is the unit of comparison. Iterations of one process share its memory layout and temperature, so
that many of them say nothing about the next process. Invalid input is a ValueError.

summary.py            medians, percentiles, outliers, warm-up iterations still needed
intervals.py          confidence intervals by Student's t, skewed means, exact sign-flip test
launch_comparison.py  verdicts from A B B A blocks, from two runs, from pairs
multiple_testing.py   several looks at one comparison; many metrics (Holm); launches needed
change_points.py      lasting shifts and brief stays in a time series, and its usual spread
modes.py              two modes of a time series, such as two speeds of a device
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
