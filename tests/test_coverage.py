"""Intervals at 95 % hold the truth about as often as they say."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from quadbench.statistics.intervals import half_width, interval_of_mean
from quadbench.statistics.launch_comparison import compare_paired

BENCH = Path(__file__).parents[1] / "bench" / "coverage.py"


def _share_that_holds_0(pairs: int, series: int = 2000) -> float:
    """Return how often the interval of exponential differences, whose mean is 0, holds it."""
    drawn = np.random.default_rng(1).exponential(size=(series, pairs)) - 1
    intervals = [compare_paired(own.tolist()) for own in drawn]
    return sum(one.low <= 0 <= one.high for one in intervals if one.low is not None and one.high is not None) / series


def test_the_interval_of_symmetric_values_is_students() -> None:
    values = [-3.0, -1.0, 0.0, 1.0, 3.0]
    half = half_width(values, 0.95)
    assert half is not None
    assert interval_of_mean(values, 0.95) == pytest.approx((-half, half))


def test_the_interval_reaches_further_to_the_side_of_the_tail() -> None:
    values = [0.0, 0.1, 0.2, 0.3, 0.4, 4.0]
    low, high = interval_of_mean(values, 0.95) or (0.0, 0.0)
    mean = float(np.mean(values))
    assert high - mean > 1.5 * (mean - low)
    mirrored = interval_of_mean([-value for value in values], 0.95)
    assert mirrored == pytest.approx((-high, -low))


def test_the_interval_of_few_values() -> None:
    assert interval_of_mean([1.0], 0.95) is None
    assert interval_of_mean([1.0, 1.0, 1.0], 0.95) == (1.0, 1.0)
    half = half_width([1.0, 2.0], 0.95)
    assert half is not None
    assert interval_of_mean([1.0, 2.0], 0.95) == pytest.approx((1.5 - half, 1.5 + half))


@pytest.mark.parametrize("pairs", [8, 16])
def test_skewed_differences_are_called_apart_at_the_stated_rate(pairs: int) -> None:
    assert 0.93 <= _share_that_holds_0(pairs) <= 0.97  # Student's interval holds the mean of these in 89 and 91 %


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_kind_of_interval_that_the_documentation_quotes_covers_what_it_states() -> None:
    bench = runpy.run_path(str(BENCH))
    kinds = [kind for kind in bench["kinds"]() if kind.is_close]
    assert len(kinds) > 20
    error = 0.01  # twice that of a share of 2000
    off = {(kind.name, kind.size, kind.data): bench["coverage"](kind, 2000) - kind.stated for kind in kinds}
    assert {case: by for case, by in off.items() if abs(by) > 0.02 + error} == {}
