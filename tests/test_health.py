"""Devices that fail in a row go into quarantine, and come out of it by somebody's decision and good jobs alone."""

from hypothesis import given
from hypothesis import strategies as st
from support.sentences import reads

from quadbench.devices.lab.health import (
    FAILURES_IN_A_ROW,
    GOOD_JOBS,
    Health,
    PhoneCondition,
    after_failure,
    after_good_job,
    quarantined,
    released,
)

EVENTS = st.lists(st.sampled_from(["good", "failure", "release", "quarantine"]), max_size=40)


def after(condition: PhoneCondition, event: str) -> PhoneCondition:
    match event:
        case "good":
            return after_good_job(condition)
        case "failure":
            return after_failure(condition, "lost")
        case "release":
            return released(condition)
        case _:
            return quarantined("by hand")


@given(EVENTS)
def test_quarantine_is_left_by_release_alone_and_entered_by_failures_in_a_row_alone(events: list[str]) -> None:
    condition = PhoneCondition()
    for number, event in enumerate(events):
        before, condition = condition, after(condition, event)
        was, is_now = before.health is Health.QUARANTINED, condition.health is Health.QUARANTINED
        if was and not is_now:
            assert event == "release"
        if is_now and not was:
            jobs = [job for job in events[: number + 1] if job != "release"]  # which changes nothing of a healthy device
            recent = jobs[-FAILURES_IN_A_ROW:]
            assert event == "quarantine" or before.health is Health.PROBATION or set(recent) == {"failure"}
        if before.health is Health.PROBATION and condition.health is Health.HEALTHY:
            assert events[number + 1 - GOOD_JOBS : number + 1].count("good") >= 1
            assert before.good_jobs == GOOD_JOBS - 1
        assert (condition.reason is None) <= (condition.health is not Health.QUARANTINED)


def test_the_third_failure_in_a_row_says_why() -> None:
    condition = after_failure(after_failure(PhoneCondition(), "a"), "b")
    assert (condition.health, condition.reason) == (Health.HEALTHY, "b")
    reads(after_failure(condition, "the push failed").reason, 3)
    assert after_good_job(condition) == PhoneCondition()


def test_probation_ends_by_good_jobs_or_the_next_failure() -> None:
    probation = released(quarantined("hot"))
    assert (probation.health, probation.reason) == (Health.PROBATION, "hot")
    reads(after_failure(after_good_job(probation), "lost").reason)
    for _ in range(GOOD_JOBS):
        probation = after_good_job(probation)
    assert probation == PhoneCondition()
