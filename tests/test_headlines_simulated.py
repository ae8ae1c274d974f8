"""In simulated runs of equal variants the report's first sentence claims a difference in at most 5 % of reports."""

from collections import Counter
from itertools import product
from math import comb

import numpy as np
import pytest
from support.simulated_reports import OPPONENTS, Claims, Setting, claims_of, simulated_rows

from quadbench.statistics.launch_comparison import share_interval

TASKS, DEVICES, LAUNCHES, NOISE = (1, 2, 6, 10), (1, 3), (2, 3, 4, 6, 8, 12, 24, 40), (0.01, 0.03, 0.06)


def simulated(setting: Setting, reports: int, seed: int = 0) -> list[Claims]:
    rng = np.random.default_rng([seed, *str(setting).encode()])
    claims = [claims_of(simulated_rows(setting, rng)) for _ in range(reports)]
    assert [one.disagreement for one in claims if one.disagreement] == []  # no sentence contradicts the verdicts below it
    return claims


def count_of(claims: list[Claims]) -> int:
    return sum(one.any for one in claims)


def chance_of(found: int, runs: int) -> float:
    """The probability of so many claims or more, were one report in twenty to claim something."""
    return sum(comb(runs, count) * 0.05**count * 0.95 ** (runs - count) for count in range(found, runs + 1))


@pytest.mark.slow
def test_equal_variants_are_told_to_differ_in_at_most_one_report_in_twenty() -> None:
    reports, counts = Counter[tuple[str, object]](), Counter[tuple[str, object]]()
    for tasks, devices, launches, noise in product(TASKS, DEVICES, LAUNCHES, NOISE):
        runs = 120 if tasks * devices < 6 else 30
        found = count_of(simulated(Setting(tasks=tasks, devices=devices, launches=launches, noise=noise), runs))
        assert chance_of(found, runs) > 1e-4, (tasks, devices, launches, noise, found)
        for group in (("tasks", tasks), ("devices", devices), ("launches", launches), ("noise", noise)):
            reports[group] += runs
            counts[group] += found
    assert sum(reports.values()) // 4 >= 10_000
    for group, runs in reports.items():
        assert share_interval(counts[group], runs)[1] <= 0.05, group


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPPONENTS)
def test_noise_of_other_kinds_is_no_difference_either(kind: str) -> None:
    found = [count_of(simulated(Setting(tasks=2, launches=launches, kind=kind), 250)) for launches in LAUNCHES]
    assert share_interval(sum(found), 250 * len(found))[1] <= 0.05
    assert max(share_interval(count, 250)[0] for count in found) <= 0.05


@pytest.mark.slow
def test_conditions_are_called_unequal_by_chance_in_at_most_one_run_in_twenty_and_seen_where_they_are() -> None:
    for launches in (2, 12):
        equal = simulated(Setting(tasks=2, launches=launches, noise=0.06), 600)
        assert share_interval(sum(one.is_unequal for one in equal), 600)[0] <= 0.05
    unequal = simulated(Setting(tasks=2, launches=12, truth={"vae_decoder": 0.15}), 200)
    assert share_interval(sum(one.is_unequal for one in unequal), 200)[0] >= 0.9


def test_eight_per_cent_at_noise_of_three_are_in_the_first_sentence_from_twelve_launches_on() -> None:
    claims = simulated(Setting(launches=12, noise=0.03, truth={"end_to_end": 0.08}), 600)
    assert share_interval(sum(1 in one.first["end_to_end"] for one in claims), 600)[0] >= 0.9
    assert not any(-1 in one.first["end_to_end"] for one in claims)
