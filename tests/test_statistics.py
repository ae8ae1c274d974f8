"""Summaries quote only what the samples allow; verdicts match textbook values and refuse to guess."""

import itertools
import math
from statistics import median

import numpy as np
import pytest
from support.sentences import raising

from quadbench.statistics import Verdict, count_outliers, medians, percentile, summarize
from quadbench.statistics.intervals import sign_flip_p, t_quantile
from quadbench.statistics.launch_comparison import compare_launches, share_interval
from quadbench.statistics.summary import ENOUGH_SAMPLES, outliers, settling_index


def abba(ratio: float, blocks: int, noise: float, seed: int = 7) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    a = 100 * np.exp(rng.normal(0, noise, 2 * blocks))
    b = 100 * ratio * np.exp(rng.normal(0, noise, 2 * blocks))
    return a.tolist(), b.tolist()


def test_summary_of_known_values() -> None:
    summary = summarize([float(v) for v in range(1, 12)])
    assert summary is not None
    assert (summary.n, summary.minimum, summary.mean, summary.maximum) == (11, 1.0, 6.0, 11.0)
    assert (summary.median, summary.p50, summary.p90) == (6.0, 6.0, None)
    assert summary.mad == 3.0
    assert summary.std == pytest.approx(math.sqrt(11))
    assert summary.cv == pytest.approx(math.sqrt(11) / 6)


def test_one_value_has_no_spread() -> None:
    summary = summarize([5.0])
    assert summary is not None
    assert (summary.std, summary.cv, summary.mad) == (None, None, 0.0)


@pytest.mark.parametrize(("percent", "needed"), [(50, 11), (90, 64), (95, 130), (99, 662)])
def test_a_percentile_is_quoted_from_its_number_of_samples_on(percent: int, needed: int) -> None:
    values = [float(v) for v in range(needed)]
    assert percentile(values[:-1], percent) is None
    assert percentile(values, percent) == np.percentile(values, percent, method="inverted_cdf")


@pytest.mark.parametrize(("percent", "needed"), ENOUGH_SAMPLES.items())
def test_sample_numbers_leave_two_samples_above_the_percentile_with_99_percent_confidence(percent: int, needed: int) -> None:
    def fewer_than_two_above(n: int) -> float:
        q = percent / 100
        return float(q**n + n * (1 - q) * q ** (n - 1))

    assert fewer_than_two_above(needed) <= 0.01 < fewer_than_two_above(needed - 1)


def test_no_values_have_no_summary() -> None:
    assert summarize([]) is None


def test_infinite_values_are_refused() -> None:
    with raising(ValueError):
        summarize([1.0, math.inf])


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.975, 1, 12.706205),
        (0.975, 2, 4.302653),
        (0.975, 5, 2.570582),
        (0.975, 9, 2.262157),
        (0.975, 15, 2.131450),
        (0.975, 30, 2.042272),
        (0.995, 4, 4.604095),
        (0.95, 10, 1.812461),
        (0.025, 5, -2.570582),
        (0.5, 3, 0.0),
    ],
)
def test_t_quantile_matches_printed_tables(probability: float, degrees: int, expected: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(expected, abs=1e-6)


def test_sign_flip_p_equals_the_plain_enumeration() -> None:
    differences = [0.3, -0.1, 0.25, 0.2, 0.05, -0.02, 0.4]
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in itertools.product((1, -1), repeat=7)]
    expected = sum(total >= abs(sum(differences)) - 1e-12 for total in sums) / len(sums)
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_sign_flip_p_of_equal_differences_is_the_smallest_possible() -> None:
    assert sign_flip_p([0.1] * 6) == 2 / 2**6
    assert sign_flip_p([0.1] * 30) == 2 / 2**30


def test_sign_flip_p_of_nothing_but_zeros_is_one() -> None:
    assert sign_flip_p([0.0] * 8) == 1.0


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.10, Verdict.WORSE), (0.90, Verdict.BETTER), (1.0, Verdict.SAME), (1.02, Verdict.INCONCLUSIVE)]
)
def test_verdict_follows_the_interval_and_the_margin(ratio: float, verdict: Verdict) -> None:
    comparison = compare_launches(*abba(ratio, blocks=8, noise=0.005))
    assert comparison.verdict is verdict
    assert comparison.low is not None
    assert comparison.high is not None
    assert comparison.low < ratio < comparison.high
    assert comparison.blocks == 8


def test_few_blocks_are_inconclusive_however_clear_they_look() -> None:
    comparison = compare_launches(*abba(2.0, blocks=5, noise=0.001))
    assert (comparison.verdict, comparison.blocks_needed) == (Verdict.INCONCLUSIVE, 6)


def test_a_single_block_gives_a_ratio_without_interval() -> None:
    comparison = compare_launches([100.0, 100.0], [50.0, 50.0])
    assert (comparison.blocks, comparison.low, comparison.verdict) == (1, None, Verdict.INCONCLUSIVE)
    assert comparison.ratio == pytest.approx(0.5)


def test_an_incomplete_block_is_left_out() -> None:
    assert compare_launches([1.0] * 3, [1.0] * 3).blocks == 1
    assert compare_launches([1.0], [1.0]).ratio is None


def test_very_many_blocks_are_judged_by_their_interval_alone() -> None:
    comparison = compare_launches(*abba(1.10, blocks=60, noise=0.01))
    assert (comparison.verdict, comparison.sign_flip_p) == (Verdict.WORSE, None)


def test_a_linear_drift_cancels_within_a_block() -> None:
    times = [math.exp(0.01 * i) for i in range(48)]  # A B B A A B B A ...
    a = [t for i, t in enumerate(times) if i % 4 in (0, 3)]
    b = [t for i, t in enumerate(times) if i % 4 in (1, 2)]
    comparison = compare_launches(a, b)
    assert comparison.verdict is Verdict.SAME
    assert comparison.ratio == pytest.approx(1.0)


def test_noise_names_the_number_of_blocks_that_would_settle_it() -> None:
    comparison = compare_launches(*abba(1.06, blocks=6, noise=0.05))
    assert comparison.verdict is Verdict.INCONCLUSIVE
    assert comparison.blocks_needed is None or comparison.blocks_needed > 6


def test_sides_of_different_length_or_without_positive_figures_are_refused() -> None:
    with raising(ValueError, 2, 1):
        compare_launches([1.0, 2.0], [1.0])
    with raising(ValueError):
        compare_launches([1.0, 0.0], [1.0, 1.0])


def test_a_value_far_from_all_others_is_named_and_nothing_is_among_equal_ones() -> None:
    assert outliers([10.0, 10.1, 9.9, 10.2, 14.0, 10.0]) == (4,)
    assert outliers([10.0] * 5 + [11.0]) == ()  # no spread to measure it by
    assert outliers([]) == ()


def test_values_that_still_fall_say_how_many_are_warm_up() -> None:
    assert settling_index([18.0, 12.0, 10.0, 10.1, 9.9, 10.0, 10.05, 9.95]) == 2
    assert settling_index([10.0, 10.1, 9.9, 10.0, 10.05, 9.95]) == 0
    assert settling_index([18.0, 10.0, 10.0]) == 0  # too few to know


def test_steady_noise_is_seldom_taken_for_warm_up() -> None:
    rng = np.random.default_rng(8)
    called = [settling_index((100 * np.exp(rng.normal(0, 0.03, 12))).tolist()) > 0 for _ in range(500)]
    assert sum(called) / len(called) < 0.05


def test_the_interval_of_a_share_holds_for_few_tries_and_at_the_ends() -> None:
    assert share_interval(0, 40) == (0.0, pytest.approx(0.0876, abs=1e-4))
    assert share_interval(2, 40) == (pytest.approx(0.0138, abs=1e-4), pytest.approx(0.1650, abs=1e-4))
    assert share_interval(3, 3)[1] == 1.0
    with raising(ValueError):
        share_interval(0, 0)


def test_many_lists_are_summed_up_as_each_by_itself() -> None:
    lists = [[3.0, 1.0, 2.0], [4.0, 1.0], [10.0, 10.1, 9.9, 10.2, 14.0, 10.0], [5.0], [1.0, 9.0, 2.0]]
    assert medians(lists) == tuple(map(median, lists))
    assert count_outliers(lists) == sum(len(outliers(values)) for values in lists) == 2
    assert (medians([]), count_outliers([])) == ((), 0)
