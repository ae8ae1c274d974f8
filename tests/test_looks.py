"""A comparison that is looked at several times errs as seldom as one that is looked at once; plans see what they promise."""

import numpy as np
import pytest
from support.sentences import raising

from quadbench.statistics import MIN_BLOCKS, Looks, Verdict
from quadbench.statistics.launch_comparison import block_differences, compare_launches
from quadbench.statistics.multiple_testing import LOOKS, planned_looks


def launches(rng: np.random.Generator, ratio: float, blocks: int, noise: float) -> tuple[list[float], list[float]]:
    a = np.exp(rng.normal(0, noise, 2 * blocks))
    b = ratio * np.exp(rng.normal(0, noise, 2 * blocks))
    return a.tolist(), b.tolist()


def verdict_of(looks: Looks, a: list[float], b: list[float], margin: float | None = None) -> Verdict:
    """The verdict at the first look that has one."""
    for blocks in looks.at:
        comparison = compare_launches(
            a[: 2 * blocks], b[: 2 * blocks], margin=looks.margin if margin is None else margin, confidence=looks.confidence
        )
        if comparison.verdict is not Verdict.INCONCLUSIVE:
            return comparison.verdict
    return Verdict.INCONCLUSIVE


def share(verdicts: list[Verdict], *wanted: Verdict) -> float:
    return sum(verdict in wanted for verdict in verdicts) / len(verdicts)


def test_equal_sides_are_called_apart_at_most_at_the_stated_rate_even_without_a_margin() -> None:
    rng = np.random.default_rng(1)
    verdicts = [verdict_of(LOOKS, *launches(rng, 1.0, 16, 0.05), margin=0.0) for _ in range(1500)]
    assert share(verdicts, Verdict.WORSE, Verdict.BETTER) <= 0.05 + 0.017  # three standard errors of 1,500 draws


def test_looking_three_times_at_the_interval_of_one_look_would_err_more_often() -> None:
    rng = np.random.default_rng(2)
    looks = [Looks(at=(n,)) for n in LOOKS.at]
    verdicts = []
    for _ in range(500):
        a, b = launches(rng, 1.0, 16, 0.05)
        verdicts.append(any(verdict_of(look, a, b, margin=0.0) is not Verdict.INCONCLUSIVE for look in looks))
    assert sum(verdicts) / len(verdicts) > 0.07


def test_equal_sides_of_little_noise_are_the_same_at_the_first_look() -> None:
    a, b = launches(np.random.default_rng(3), 1.0, MIN_BLOCKS, 0.005)
    assert verdict_of(Looks(at=(MIN_BLOCKS,)), a, b) is Verdict.SAME


@pytest.mark.parametrize("to_see", [0.03, 0.1])
def test_a_planned_comparison_sees_the_effect_that_it_was_planned_for(to_see: float) -> None:
    rng, noise = np.random.default_rng(4), to_see / 4
    looks = planned_looks(block_differences(*launches(rng, 1.0, 40, noise)), to_see)
    assert looks is not None
    found = [verdict_of(looks, *launches(rng, 1 + to_see, looks.at[-1], noise)) for _ in range(300)]
    equal = [verdict_of(looks, *launches(rng, 1.0, looks.at[-1], noise)) for _ in range(300)]
    assert share(found, Verdict.WORSE) >= 0.85
    assert share(equal, Verdict.SAME) >= 0.75
    assert share(equal, Verdict.WORSE, Verdict.BETTER) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.03, 0.045])
def test_a_comparison_errs_seldom_though_it_was_planned_on_the_blocks_that_it_judges(noise: float) -> None:
    rng, to_see = np.random.default_rng(6), 0.05
    verdicts = []
    for _ in range(5000):
        a, b = launches(rng, 1 + to_see / 2, 40, noise)
        looks = planned_looks(block_differences(a[: 2 * MIN_BLOCKS], b[: 2 * MIN_BLOCKS]), to_see)
        verdicts += [verdict_of(looks, a, b)] if looks else []
    assert len(verdicts) > 1500
    assert share(verdicts, Verdict.WORSE, Verdict.BETTER, Verdict.SAME) <= 0.05 + 0.01  # 1.8 standard errors of 1,500 draws


def test_noise_that_no_affordable_number_of_blocks_overcomes_has_no_plan() -> None:
    assert planned_looks([0.5, -0.5, 0.4, -0.4], 0.03) is None


@pytest.mark.parametrize(("differences", "to_see"), [([0.1], 0.03), ([0.1, 0.2], 0.0), ([0.1, 0.2], float("nan"))])
def test_a_plan_needs_blocks_and_an_effect(differences: list[float], to_see: float) -> None:
    with raising(ValueError, 0):
        planned_looks(differences, to_see)


def test_the_looks_of_a_plan_begin_where_a_verdict_is_possible_and_rise() -> None:
    rng = np.random.default_rng(5)
    looks = planned_looks(block_differences(*launches(rng, 1.0, 16, 0.02)), 0.04)
    assert looks is not None
    assert looks.at[0] >= MIN_BLOCKS
    assert list(looks.at) == sorted(set(looks.at))
