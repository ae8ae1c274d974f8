"""What is usual is told by earlier values, and what strays from it by more than accidents do."""

import numpy as np
import pytest
from support.sentences import raising

from quadbench.statistics.change_points import HALF_OF_STEPS, MIN_USUAL, Spread, spread_of
from quadbench.statistics.launch_comparison import share_interval


@pytest.mark.parametrize("share", [0.9, HALF_OF_STEPS])
@pytest.mark.parametrize("count", [MIN_USUAL, 15])
def test_accidents_are_taken_for_changes_as_often_as_stated(share: float, count: int) -> None:
    rng, tries, alarms = np.random.default_rng(0), 2000, 0
    for _ in range(tries):
        *before, now = rng.normal(0, 0.01, count + 1).tolist()
        spread = spread_of(before, share)
        assert spread is not None
        alarms += spread.change(before, [now], least=0.0, chance=0.05) is not None
    low, high = share_interval(alarms, tries)
    assert low < 0.06
    assert high > 0.04


def test_a_change_of_the_level_hardly_touches_the_spread() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 20)
    steady, shifted = (spread_of((noise + level).tolist()) for level in (0.0, np.repeat([0.0, 0.1], 10)))
    assert steady is not None
    assert shifted is not None
    assert shifted.deviation < 1.5 * steady.deviation


def test_single_far_values_widen_the_spread_unless_half_of_the_steps_tell_it() -> None:
    values = np.random.default_rng(0).normal(0, 0.01, 15)
    values[[3, 8]] += 0.2
    most, half = spread_of(values.tolist()), spread_of(values.tolist(), HALF_OF_STEPS)
    assert most is not None
    assert half is not None
    assert most.deviation > 5 * half.deviation


def test_a_change_has_to_matter_too() -> None:
    spread = Spread(deviation=0.001, count=15)
    assert spread.change([0.0] * 15, [0.02], least=0.03, chance=0.05) is None
    assert spread.change([0.0] * 15, [0.04], least=0.03, chance=0.05) == 0.04


def test_values_that_repeat_exactly_have_a_spread_all_the_same() -> None:
    spread = spread_of([1.0] * 10)
    assert spread is not None
    assert spread.deviation > 0


def test_few_values_have_no_spread() -> None:
    assert spread_of([1.0] * (MIN_USUAL - 1)) is None


@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], [])])
def test_a_change_takes_values_on_both_sides(sides: tuple[list[float], list[float]]) -> None:
    with raising(ValueError):
        Spread(deviation=1.0, count=15).change(*sides, least=0.0, chance=0.05)


def test_what_is_not_finite_is_refused() -> None:
    with raising(ValueError):
        spread_of([1.0, float("nan")] * 5)
