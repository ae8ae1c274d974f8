"""Budget: a block is begun where it would end in time, by what launches took so far."""

from dataclasses import replace
from datetime import timedelta

import pytest

from quadbench.artifacts import LaunchPlan, RunRecord, Sample, Status, Variant
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.measure.launch_schedule import Budget, expected_duration_s

S, P = Variant.SHARED, Variant.PER_GRAPH


def launch(variant: Variant, images: int = 10) -> LaunchPlan:
    return LaunchPlan(variant=variant, launch=0, sequence=(SequenceBlock(task="restyle", warmup=2, iterations=images - 2),))


BLOCK = (launch(S), launch(P), launch(P), launch(S))


def took(record: RunRecord, variant: Variant, seconds: float, images: int) -> RunRecord:
    samples = tuple(Sample(metric="end_to_end_ns", value=1.0, task="restyle") for _ in range(images))
    return replace(record, variant=variant, ended_at=record.started_at + timedelta(seconds=seconds), samples=samples)


def test_before_anything_was_measured_nothing_is_known() -> None:
    assert expected_duration_s(BLOCK, []) == 0.0


def test_a_launch_takes_as_long_as_the_longest_of_its_variant(record: RunRecord) -> None:
    assert expected_duration_s(BLOCK, [took(record, S, 5, 10), took(record, S, 7, 10), took(record, P, 20, 10)]) == 54.0


def test_a_launch_that_was_cut_off_shortens_no_other(record: RunRecord) -> None:
    cut_off = replace(took(record, S, 1, 1), status=Status.FAILED)
    assert expected_duration_s((launch(S),), [cut_off]) == 10.0
    assert expected_duration_s((launch(S),), [cut_off, replace(took(record, S, 7, 10), status=Status.DISCARDED)]) == 7.0


def test_a_launch_that_hung_until_it_was_ended_may_do_so_again(record: RunRecord) -> None:
    hung = replace(took(record, S, 1800, 0), status=Status.FAILED)
    assert expected_duration_s(BLOCK, [hung]) == 3600.0
    assert expected_duration_s(BLOCK, [hung, took(record, P, 60, 10)]) == 3720.0
    painted = replace(took(record, S, 1800, 1), status=Status.FAILED)
    assert expected_duration_s(BLOCK, [painted, took(record, P, 60, 10)]) == 3720.0


@pytest.mark.parametrize("status", [Status.ABORTED, Status.SKIPPED])
def test_a_launch_that_was_interrupted_or_never_began_delays_no_other(record: RunRecord, status: Status) -> None:
    asleep = replace(took(record, S, 28800, 0), status=status)
    assert expected_duration_s(BLOCK, [took(record, S, 60, 10), took(record, P, 60, 10), asleep]) == 240.0
    assert expected_duration_s(BLOCK, [took(record, P, 60, 10), asleep]) == 240.0
    painted = replace(took(record, S, 28800, 1), status=status)
    assert expected_duration_s(BLOCK, [painted]) == 0.0
    assert expected_duration_s(BLOCK, [replace(took(record, S, 5, 1), status=Status.FAILED), painted]) == 200.0


def test_of_a_variant_that_never_ran_the_slowest_images_of_another_tell(record: RunRecord) -> None:
    assert expected_duration_s(BLOCK, [took(record, Variant.FLOAT, 6, 3)]) == 80.0


def test_a_block_is_allowed_that_ends_in_time(record: RunRecord) -> None:
    ended = [took(record, S, 5, 10), took(record, P, 20, 10)]
    assert Budget(ends_at=150.0, clock=lambda: 100.0).allows(BLOCK, ended)
    assert not Budget(ends_at=149.0, clock=lambda: 100.0).allows(BLOCK, ended)
    assert not Budget(ends_at=99.0, clock=lambda: 100.0).allows(BLOCK, [])
