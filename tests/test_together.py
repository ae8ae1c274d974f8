"""Figures that are judged together: the more there are, the clearer each has to be; few launches claim less, and no sameness."""

from itertools import islice

import numpy as np
import pytest
from support.sentences import raising

from quadbench.measure.launch_schedule import random_blocks
from quadbench.statistics import MIN_BLOCKS, Verdict
from quadbench.statistics.intervals import t_p, t_quantile
from quadbench.statistics.launch_comparison import compare_launches, compare_unpaired
from quadbench.statistics.multiple_testing import TO_TELL, JointVerdict, adjust_verdicts, holm, judge_together

Sides = tuple[list[float], list[float]]


def sides(ratio: float, launches: int, noise: float, seed: int = 0) -> Sides:
    dice = np.random.default_rng(seed)
    a, b = np.exp(dice.normal(0, noise, (2, launches)))
    return a.tolist(), (ratio * b).tolist()


def alone(of: Sides, **words: float) -> JointVerdict:
    (judged,) = judge_together([of], **words)
    return judged


def test_p_is_that_of_students_t() -> None:
    for degrees in (1, 2, 5, 22):
        assert t_p(t_quantile(0.975, degrees), 1.0, degrees) == pytest.approx(0.05)
    assert (t_p(0.0, 0.0, 3), t_p(0.1, 0.0, 3)) == (1.0, 0.0)


def test_holm_multiplies_the_smallest_p_by_all_and_the_next_by_one_less() -> None:
    assert holm([0.02, 0.01, 0.5, 0.03]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == []


def test_from_six_blocks_on_what_is_told_is_a_verdict() -> None:
    judged = alone(sides(1.2, 12, 0.02))
    assert (judged.blocks, judged.claim, judged.verdict) == (6, Verdict.WORSE, Verdict.WORSE)
    told = compare_launches(*sides(1.2, 12, 0.02))
    assert (judged.ratio, judged.low, judged.high) == pytest.approx((told.ratio, told.low, told.high))
    assert alone(sides(0.8, 12, 0.02)).verdict is Verdict.BETTER
    assert alone(sides(1.0, 12, 0.005)).verdict is Verdict.SAME


def test_below_six_blocks_a_difference_may_be_claimed_without_a_verdict_and_nothing_is_the_same() -> None:
    judged = alone(sides(1.5, 2, 0.005))
    assert (judged.blocks, judged.claim, judged.verdict) == (1, Verdict.WORSE, Verdict.INCONCLUSIVE)
    told = compare_unpaired(*sides(1.5, 2, 0.005))
    assert (judged.ratio, judged.low, judged.high) == pytest.approx((told.ratio, told.low, told.high))
    assert alone(sides(1.0, 10, 0.001)).claim is Verdict.INCONCLUSIVE


def test_two_launches_of_a_side_that_lie_beyond_the_others_claim_nothing_by_that_alone() -> None:
    assert alone(([100.0, 103.0], [104.0, 107.0])).claim is Verdict.INCONCLUSIVE


def test_few_launches_need_more_than_five_per_cent() -> None:
    exact = ([100.0, 100.0], [104.0, 104.0])
    assert alone(exact).claim is Verdict.INCONCLUSIVE
    assert alone((exact[0], [106.0, 106.0])).claim is Verdict.WORSE
    assert alone((exact[0] * MIN_BLOCKS, exact[1] * MIN_BLOCKS)).claim is Verdict.WORSE


def test_the_more_figures_are_judged_the_clearer_each_has_to_be() -> None:
    clear, rest = sides(1.06, 12, 0.02), [sides(1.0, 12, 0.02, seed) for seed in range(1, 200)]
    assert judge_together([clear])[0].claim is Verdict.WORSE
    assert judge_together([clear, *rest])[0].claim is Verdict.INCONCLUSIVE
    far = judge_together([sides(1.3, 12, 0.02), *rest])
    assert far[0].claim is Verdict.WORSE


def test_a_difference_that_signs_do_not_bear_out_is_none() -> None:
    a, b = [1.0] * 14, [value for block in (1.2, 1.2, 1.2, 1.2, 1.2, 0.99, 0.99) for value in (block, block)]
    assert alone((a, b)).low > 1.02
    assert alone((a, b)).verdict is Verdict.INCONCLUSIVE


def test_what_cannot_be_told_says_how_many_launches_would_tell_five_per_cent() -> None:
    noise = 0.06
    judged = alone(sides(1.0, 12, noise, 3))
    assert judged.launches_needed is not None
    found = [alone(sides(1 + TO_TELL, judged.launches_needed, noise, seed)).claim is Verdict.WORSE for seed in range(200)]
    assert sum(found) > 0.6 * len(found)  # the spread was estimated by twelve launches of a side
    assert alone(sides(1.0, 12, 0.5)).launches_needed is None
    assert alone(sides(1.5, 12, 0.01)).launches_needed is None  # it is told


NAN = float("nan")


@pytest.mark.parametrize(
    "bad", [([1.0], [1.0]), ([], []), ([1.0, 2.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, NAN], [1.0, 1.0])]
)
def test_only_whole_blocks_of_positive_figures_are_judged(bad: Sides) -> None:
    with raising(ValueError):
        judge_together([bad])


def test_comparisons_at_one_look_hold_for_all_of_them_at_once() -> None:
    slight = compare_launches(*sides(1.06, 12, 0.02), confidence=0.978)
    clear = compare_launches(*sides(1.5, 12, 0.02), confidence=0.978)
    rest = [compare_launches(*sides(1.0, 12, 0.02, seed), confidence=0.978) for seed in range(1, 60)]
    assert [one.verdict for one in adjust_verdicts([slight, clear], 0.978)] == [Verdict.WORSE, Verdict.WORSE]
    held = adjust_verdicts([slight, clear, *rest], 0.978)
    assert [one.verdict for one in held[:2]] == [Verdict.INCONCLUSIVE, Verdict.WORSE]
    assert (held[0].low, held[0].high) == (slight.low, slight.high)


def test_runs_of_two_times_are_told_apart_only_where_that_holds_for_all_figures() -> None:
    before, now = sides(1.06, 4, 0.02)
    assert compare_unpaired(before, now).verdict is Verdict.WORSE
    assert compare_unpaired(before, now, together=200).verdict is Verdict.INCONCLUSIVE


def test_equal_launches_are_seldom_called_different() -> None:
    dice = np.random.default_rng(7)
    wrong = 0
    for _ in range(2000):
        a, b = np.exp(dice.normal(0, 0.05, (2, 2)))
        wrong += compare_unpaired(list(a), list(b)).verdict in (Verdict.WORSE, Verdict.BETTER)
    assert wrong < 0.05 * 2000


def test_a_side_without_launches_or_with_a_figure_of_nothing_is_refused() -> None:
    for before, now in (([], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0], [float("nan")])):
        with raising(ValueError):
            compare_unpaired(before, now)


def share_covered(is_drawn: bool, blocks: int, runs: int = 1500) -> float:
    """How often the interval holds the truth where a disturbance recurs with every block of four launches."""
    dice, covered = np.random.default_rng(5), 0
    times = np.arange(4 * blocks)
    for run in range(runs):
        orders = random_blocks("AB", f"run {run}") if is_drawn else iter([tuple("ABBA")] * blocks)
        order = np.array([side for block in islice(orders, blocks) for side in block])
        log = dice.normal(0, 0.03, times.size) + 0.02 * np.sin(2 * np.pi * (times + 4 * dice.random()) / 4)
        told = compare_launches(np.exp(log[order == "A"]).tolist(), np.exp(log[order == "B"]).tolist())
        assert told.low is not None
        assert told.high is not None
        covered += told.low <= 1 <= told.high
    return covered / runs


@pytest.mark.parametrize("blocks", [6, pytest.param(12, marks=pytest.mark.slow)])
def test_a_disturbance_of_a_block_s_period_does_not_break_intervals_as_the_order_is_drawn(blocks: int) -> None:
    assert share_covered(True, blocks) >= 0.95 - 0.012  # two standard errors of 1,500 runs
    assert share_covered(False, blocks) < 0.9
