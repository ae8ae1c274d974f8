"""Change points: labelled series, the best partition by brute force, and how often pure noise is taken for a shift."""

import csv
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sentences import raising

from quadbench.statistics.change_points import MIN_BESIDE, MIN_STAY, _candidates, _Series, find_levels, shifts
from quadbench.statistics.launch_comparison import share_interval

HANA = Path(__file__).parent / "data" / "hana_small_2021"


def _labels() -> dict[str, int]:
    """Return by file the index of the last value before its regression; 0 where its owners found none."""
    with (HANA / "metadata" / "dataset_details.csv").open() as file:
        return {row["Dataset"]: int(row["Change Point"]) for row in csv.DictReader(file, delimiter=";")}


def _values(name: str) -> list[float]:
    with (HANA / "data" / name).open() as file:
        return [float(row["Measurement"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("name", "label"), _labels().items())
def test_a_labelled_series_has_one_shift_where_its_owners_saw_the_regression_and_none_elsewhere(name: str, label: int) -> None:
    assert [shift.at for shift in shifts(_values(name))] == ([label] if label else [])


def test_a_step_is_told_with_its_levels_and_its_place() -> None:
    noise = np.random.default_rng(0).normal(1, 0.01, 60)
    (shift,) = shifts(np.where(np.arange(60) < 40, 200, 220) * noise)
    assert shift.at == 40
    assert shift.counts == (40, 20)
    assert (shift.before, shift.after) == pytest.approx((200, 220), rel=0.01)
    assert shift.change == pytest.approx(0.1, abs=0.01)


def test_exact_values_such_as_bytes_have_a_shift_without_variation() -> None:
    (shift,) = shifts([1000.0] * 10 + [1020.0] * 10)
    assert (shift.at, shift.effect) == (10, math.inf)


@pytest.mark.parametrize("far", [1, MIN_BESIDE - 1])
def test_values_that_are_far_off_for_less_than_eight_nights_are_no_shift(far: int) -> None:
    noise = np.random.default_rng(1).normal(100, 1, 60)
    noise[30 : 30 + far] += 50
    assert shifts(noise) == ()


def test_a_change_below_one_percent_is_no_shift_however_clear() -> None:
    assert shifts([1000.0] * 20 + [1009.0] * 20) == ()


def test_too_short_a_series_has_none() -> None:
    assert shifts([1.0] * 7 + [2.0] * 8) == ()
    assert shifts([]) == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_values_that_nothing_measures_are_refused(value: float) -> None:
    with raising(ValueError):
        shifts([1.0] * 20 + [value])


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=9), st.floats(0.01, 0.5))
@settings(max_examples=50, deadline=None)
def test_candidates_are_those_of_the_best_partition(values: list[float], penalty: float) -> None:
    data = np.array(values)

    def cost(points: tuple[int, ...]) -> float:
        return sum(float(((part - part.mean()) ** 2).sum()) for part in np.split(data, points)) + penalty * len(points)

    best = min(cost(points) for count in range(len(values)) for points in combinations(range(1, len(values)), count))
    assert cost(tuple(_candidates(_Series(data), penalty))) == pytest.approx(best, abs=1e-9)


@given(st.floats(1e-6, 1e12))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_the_values_does_not_matter(unit: float) -> None:
    values = np.array(_values("0013.csv"))
    assert [shift.at for shift in shifts(values * unit)] == [117]


def test_pure_noise_is_hardly_ever_taken_for_a_shift() -> None:
    rng = np.random.default_rng(2)
    alarms = sum(bool(shifts(rng.normal(100, 3, 60))) for _ in range(200))
    assert share_interval(alarms, 200)[1] < 0.05


def test_a_step_in_a_long_series_is_found_though_its_noise_differs_elsewhere() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, 600) * np.where(np.arange(600) < 400, 0.04, 0.01)
    assert [shift.at for shift in shifts(100 * np.exp(noise + 0.05 * (np.arange(600) >= 500)))] == [500]


def test_a_slow_drift_is_no_shift() -> None:
    rng = np.random.default_rng(4)
    alarms = sum(bool(shifts(100 * np.exp(rng.normal(0, 0.01, 60) + 0.002 * np.arange(60)))) for _ in range(40))
    assert alarms <= 2


def test_two_speeds_are_recognised_and_a_step_is_judged_within_them() -> None:
    rng = np.random.default_rng(5)
    slow = rng.random(120) < 0.3
    levels = find_levels(100 * np.exp(rng.normal(0, 0.01, 120) + 0.1 * slow + 0.04 * (np.arange(120) >= 80)))
    assert levels.modes is not None
    assert levels.modes.gap == pytest.approx(0.1, abs=0.01)
    assert levels.modes.is_slow.tolist() == slow.tolist()
    (shift,) = levels.shifts
    assert shift.at == pytest.approx(80, abs=2)
    assert shift.change == pytest.approx(0.04, abs=0.01)


@pytest.mark.parametrize("values", [[1.0] * 60, [1.0] * 30 + [1.1] * 30, [1.0] * 20 + [1.1] * 20 + [1.0] * 20])
def test_a_step_or_a_step_taken_back_is_no_second_speed(values: list[float]) -> None:
    assert find_levels(values).modes is None


@pytest.mark.parametrize("count", [MIN_STAY, MIN_BESIDE - 1])
@pytest.mark.parametrize("at", [0, 30, 60])
def test_a_brief_stay_is_told_wherever_it_is(count: int, at: int) -> None:
    noise = np.random.default_rng(6).normal(0, 0.01, 60 + count)
    noise[at : at + count] += 0.1
    levels = find_levels(100 * np.exp(noise))
    ((stay,), none) = levels.stays, levels.shifts
    assert (stay.begin, stay.end, none) == (at, at + count, ())
    assert stay.there / stay.around == pytest.approx(1.105, abs=0.02)


def test_noise_has_hardly_ever_a_brief_stay() -> None:
    rng = np.random.default_rng(7)
    assert sum(bool(find_levels(rng.normal(100, 3, 60)).stays) for _ in range(200)) == 0
