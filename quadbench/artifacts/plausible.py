"""Plausible: a metric and its value -> what is wrong with it, the one check for whatever claims to be measured. Pure.

The limits are far outside of what any device measures. Within them no sum, ratio or chart of a report overflows.
"""

import math
from functools import lru_cache

LONGEST_NS = 10.0**17  # three years
MOST_BYTES = 2.0**50
_MOST_COUNTED = {"_ns": LONGEST_NS, "_bytes": MOST_BYTES}
_LEAST_COUNTED = 1.0  # of what is not nothing: clocks give whole nanoseconds, files and memory whole bytes
_MOST = 10.0**17  # of a metric whose name says no unit
_OF_A_PROCESS = {"peak_rss_bytes", "load_peak_rss_bytes", "rss_bytes", "pss_bytes"}  # which has some memory while it runs
_MAY_BE_ZERO = {"residual_ns", "memory_sampling_ns"}  # nothing may be left of an image's time; memory need not be read


def value_fault(metric: str, value: float) -> str | None:
    """Say what is wrong with a value, as `is 0, expected at least 1`; None where nothing is.

    Times (`..._ns`) are at least 1, sizes (`..._bytes`) 0 or at least 1, those of a
    running process at least 1, and every value is finite and below a limit.
    """
    if not math.isfinite(value):
        return f"is {value}, expected a finite number"
    low, high, may_be_zero = limits_of(metric)
    if value < low and not (may_be_zero and value == 0):
        return f"is {value:g}, expected {'0 or ' if may_be_zero else ''}at least {low:g}"
    return f"is {value:g}, expected at most {high:g}" if value > high else None


@lru_cache(maxsize=1000)  # a run has its dozens of metrics in millions of samples
def limits_of(metric: str) -> tuple[float, float, bool]:
    """Return the lowest and the highest value of a metric, and whether it may be 0 all the same."""
    may_be_zero = (metric.endswith("_bytes") and metric not in _OF_A_PROCESS) or metric in _MAY_BE_ZERO
    counted = (most for ending, most in _MOST_COUNTED.items() if metric.endswith(ending))
    return next(((_LEAST_COUNTED, most, may_be_zero) for most in counted), (-_MOST, _MOST, may_be_zero))
