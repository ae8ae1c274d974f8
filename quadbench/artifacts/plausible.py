"""Plausible: a metric and its value -> what is wrong with it, the one check for whatever claims to be measured. Pure.

The limits are far outside of what any device measures. Within them no sum, ratio or chart of a report overflows.
"""

import math

LONGEST_NS = 10.0**17  # three years
MOST_BYTES = 2.0**50
_MOST = 10.0**17  # of a metric whose name says no unit
_MAY_BE_ZERO = {"residual_ns", "memory_sampling_ns"}  # nothing may be left of an image's time; memory need not be read


def value_fault(metric: str, value: float) -> str | None:
    """Say what is wrong with a value, as `is 0, expected more than 0`; None where nothing is.

    Times (`..._ns`) are more than 0, sizes (`..._bytes`) at least 0, and every value is finite and below a limit.
    """
    low, high = _range(metric)
    if not math.isfinite(value):
        return f"is {value}, expected a finite number"
    if metric.endswith("_ns") and metric not in _MAY_BE_ZERO and value <= 0:
        return f"is {value:g}, expected more than 0"
    if value < low:
        return f"is {value:g}, expected at least {low:g}"
    return f"is {value:g}, expected less than {high:g}" if value > high else None


def _range(metric: str) -> tuple[float, float]:
    if metric.endswith("_ns"):
        return 0.0, LONGEST_NS
    return (0.0, MOST_BYTES) if metric.endswith("_bytes") else (-_MOST, _MOST)
