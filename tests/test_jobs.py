"""The farm's jobs in both databases: each start counts once, whoever comes late stores nothing, and no job is lost."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from support.sentences import raising, reads
from support.stored_records import query, record

from quadbench.errors import AttemptOverError, QuadbenchError, ServiceError, UnknownNameError, UserError
from quadbench.farm.job import MOST_ATTEMPTS, Job, JobKind, JobState, NewJob
from quadbench.farm.job_status import answers, job_with_attempts, last_jobs
from quadbench.farm.jobs import FarmJobs, Start, check_job, locked_attempt
from quadbench.farm.slots import capability_need, device_need
from quadbench.results.engine import Source, begin_write
from quadbench.results.records import RecordStore

ANA, VERSION = "ana@lab-1", "0.1.0"
BUILD = NewJob(kind=JobKind.BUILD, needs=capability_need("build"))
BEHIND = NewJob(kind=JobKind.COMPILE, needs="x", after=(0,))


@pytest.fixture
def jobs(engine: sa.Engine) -> FarmJobs:
    return FarmJobs(engine)


def submit(jobs: FarmJobs, *batch: NewJob, run_id: str = "run-a") -> list[int]:
    return [job.id for job in jobs.submit(run_id, batch or [BUILD], ANA, VERSION, lambda _: None)]


def begin(jobs: FarmJobs, job: int, number: int = 1, seat: str = "R3CX") -> Job:
    return jobs.begin(Start(job=job, run="run-a", number=number, seat=seat, host="lab-1"))


def states(database: Source) -> list[str]:
    return [str(state) for (state,) in query(database, "SELECT state FROM jobs ORDER BY id")]


def attempts(database: Source) -> list[tuple[object, ...]]:
    return query(database, "SELECT job, number, ended_at IS NOT NULL, reason FROM attempts ORDER BY job, number")


def grow_old(database: Source) -> None:
    query(database, "UPDATE jobs SET submitted_at = '2020-01-01 00:00:00.000000'")


def test_a_job_is_stored_sent_begun_and_done(database: Source, engine: sa.Engine, jobs: FarmJobs) -> None:
    sent: list[Sequence[Job]] = []
    measure = NewJob(kind=JobKind.MEASURE, needs=device_need("R3CX"), payload={"a": [1]}, after=(0,), affinity="b-1")
    stored = jobs.submit("run-a", [BUILD, measure], ANA, VERSION, sent.append)
    assert [list(batch) for batch in sent] == [stored]
    first, second = stored
    assert (second.after, second.payload, second.affinity) == ((first.id,), {"a": [1]}, "b-1")
    assert {(job.run_id, job.owner, job.version, job.state, job.attempt) for job in stored} == {
        ("run-a", ANA, VERSION, JobState.WAITING, 0)
    }
    attempt = begin(jobs, first.id, seat="room@lab-1")
    assert (attempt.state, attempt.attempt, attempt.seat, attempt.needs) == (JobState.RUNNING, 1, "room@lab-1", BUILD.needs)
    assert states(database) == ["running", "waiting"]
    done = jobs.finish(attempt, {"bundle": "b"}, "it went well")
    assert (done.state, done.reason, states(database)) == (JobState.DONE, None, ["done", "waiting"])
    (past,) = job_with_attempts(engine, first.id)[1]
    assert (past.number, past.host, past.seat, past.lines) == (1, "lab-1", "room@lab-1", "it went well")
    assert past.ended_at == done.ended_at
    assert answers(engine, [done, second]) == {first.id: {"bundle": "b"}}


@pytest.mark.parametrize("error", [ServiceError("the pool does not answer"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_a_run_that_the_pool_does_not_take_leaves_nothing_and_may_be_submitted_again(
    database: Source, jobs: FarmJobs, error: BaseException
) -> None:
    def send(_: Sequence[Job]) -> None:
        raise error

    with pytest.raises(type(error)):
        jobs.submit("run-a", [BUILD, BEHIND], ANA, VERSION, send)
    assert query(database, "SELECT (SELECT COUNT(*) FROM jobs), (SELECT COUNT(*) FROM job_needs)") == [(0, 0)]
    assert len(submit(jobs, BUILD, BEHIND)) == 2


NO_JOBS = [
    ((NewJob(kind=JobKind.BUILD, needs=""),), ("needs", 1)),
    ((NewJob(kind=JobKind.BUILD, needs="x\ny"),), ("needs", 1)),
    ((NewJob(kind=JobKind.BUILD, needs="x", most_attempts=0),), ("most_attempts", 0, 1)),
    ((NewJob(kind=JobKind.BUILD, needs="x", affinity="b" * 301),), ("affinity", 301)),
    ((BUILD, NewJob(kind=JobKind.BUILD, needs="x", payload={"a": float("nan")})), ()),
    ((BUILD, NewJob(kind=JobKind.BUILD, needs="x", payload={"a": object()})), ()),
    ((NewJob(kind=JobKind.BUILD, needs="x", payload={"a": "b" * 70_000}),), (70009,)),
]


def test_what_cannot_be_a_job_is_refused_with_the_whole_batch_before_it_is_sent(database: Source, jobs: FarmJobs) -> None:
    sent: list[object] = []
    for batch, numbers in NO_JOBS:
        with raising(UserError, *numbers):
            jobs.submit("run-a", batch, ANA, VERSION, sent.append)
        assert (states(database), sent) == ([], []), numbers
    with raising(UserError, "needs"):
        check_job(NewJob(kind=JobKind.BUILD, needs=""))


def test_a_run_is_submitted_once(database: Source, jobs: FarmJobs) -> None:
    submit(jobs)
    with raising(UserError, "run-a"):
        submit(jobs)
    with raising(UserError):
        submit(jobs, run_id="../run")
    assert states(database) == ["waiting"]


@pytest.mark.parametrize("number", [2, 1, 0, -1])
def test_a_start_that_is_no_later_than_the_last_one_is_refused_and_disturbs_nothing(
    database: Source, jobs: FarmJobs, number: int
) -> None:
    (job,) = submit(jobs)
    attempt = begin(jobs, job, 2)
    with raising(AttemptOverError, f"run-a/{job}"):
        begin(jobs, job, number, seat="another")
    assert attempts(database) == [(job, 1, 0, None)]
    assert jobs.finish(attempt).seat == "R3CX"


def test_of_starts_at_once_one_with_each_number_begins_and_the_last_goes_on(database: Source, jobs: FarmJobs) -> None:
    (job,) = submit(jobs, NewJob(kind=JobKind.BUILD, needs="x", most_attempts=100))

    def start(number: int) -> Job | None:
        try:
            return begin(jobs, job, number % 8, seat=f"seat-{number}")
        except AttemptOverError:
            return None

    with ThreadPoolExecutor(8) as pool:
        begun = [attempt for attempt in pool.map(start, range(24)) if attempt]
    last = max(begun, key=lambda attempt: attempt.attempt)
    assert [attempt.attempt for attempt in sorted(begun, key=lambda one: one.attempt)] == list(range(1, len(begun) + 1))
    assert [ended for _, _, ended, _ in attempts(database)] == [1] * (len(begun) - 1) + [0]
    assert jobs.finish(last).state is JobState.DONE


def test_a_lost_attempt_counts_and_changes_nothing_any_more(database: Source, engine: sa.Engine, jobs: FarmJobs) -> None:
    (job,) = submit(jobs)
    zombie = jobs.begin(Start(job=job, run="run-a", number=1, seat="one", host="lab-1"))
    later = begin(jobs, job, 2, seat="two")
    assert (later.attempt, later.seat) == (2, "two")
    ((_, _, is_ended, told), (_, _, goes_on, _)) = attempts(database)
    assert (is_ended, goes_on) == (1, 0)
    reads(told, "one")
    records = RecordStore(engine)
    for act in (
        lambda: jobs.finish(zombie, {"a": 1}, "late"),
        lambda: jobs.fail(zombie, "late", is_transient=False),
        lambda: jobs.give_back(zombie, "late"),
        lambda: records.store(record(), lambda connection: locked_attempt(connection, zombie)),
    ):
        with raising(AttemptOverError, "two"):
            act()
    assert records.run_ids() == []
    assert query(database, "SELECT answer, lines FROM attempts WHERE number = 1") == [(None, "")]
    assert records.store(record(), lambda connection: locked_attempt(connection, later))
    assert jobs.finish(later).state is JobState.DONE


def test_a_job_whose_third_attempt_is_lost_has_failed_and_is_not_begun_again(database: Source, jobs: FarmJobs) -> None:
    job, _ = submit(jobs, BUILD, BEHIND)
    for number in (1, 2, 3):
        assert begin(jobs, job, number).attempt == number
    ended = begin(jobs, job, 4)
    assert (ended.state, ended.attempt) == (JobState.FAILED, 3)
    reads(ended.reason, "R3CX")
    assert states(database) == ["failed", "cancelled"]
    assert [(number, is_ended) for _, number, is_ended, _ in attempts(database)] == [(1, 1), (2, 1), (3, 1)]


def test_a_lost_attempt_of_a_job_that_was_to_stop_ends_the_job(database: Source, jobs: FarmJobs) -> None:
    (job,) = submit(jobs)
    begin(jobs, job)
    jobs.cancel(job, "no longer wanted")
    ended = begin(jobs, job, 2)
    assert (ended.state, ended.reason, states(database)) == (JobState.CANCELLED, "no longer wanted", ["cancelled"])


def test_a_job_that_has_ended_is_not_begun_again(database: Source, jobs: FarmJobs) -> None:
    done, bad, waiting = submit(jobs, BUILD, BUILD, BUILD)
    jobs.finish(begin(jobs, done))
    jobs.fail(begin(jobs, bad), "no such adapter", is_transient=False)
    jobs.cancel(waiting, "not needed")
    told = attempts(database)
    ended = [begin(jobs, job, 2) for job in (done, bad, waiting)]
    assert [job.state for job in ended] == [JobState.DONE, JobState.FAILED, JobState.CANCELLED]
    assert attempts(database) == told
    for job in ended:
        assert jobs.cancel(job.id, "too late") == job
        with raising(AttemptOverError, job.state, snapshot=False):
            jobs.finish(job)
    with raising(UnknownNameError, 999):
        begin(jobs, 999)
    assert query(database, "SELECT COUNT(*) FROM fences") == [(3,)]


def test_what_is_checked_holds_until_the_transaction_ends(database: Source, engine: sa.Engine, jobs: FarmJobs) -> None:
    (job,) = submit(jobs)
    attempt = jobs.begin(Start(job=job, run="run-a", number=1, seat="one", host="lab-1"))
    later = threading.Thread(target=begin, args=(jobs, job, 2))
    with begin_write(engine) as connection:
        locked_attempt(connection, attempt)
        later.start()
        later.join(0.3)
        assert later.is_alive()
        locked_attempt(connection, attempt)
    later.join(30)
    assert [number for _, number, _, _ in attempts(database)] == [1, 2]


def test_a_passing_fault_is_tried_again_until_the_attempts_are_used_up(database: Source, jobs: FarmJobs) -> None:
    (job,) = submit(jobs, NewJob(kind=JobKind.BUILD, needs=BUILD.needs, most_attempts=2))
    waiting = jobs.fail(begin(jobs, job, 1), "the cable", is_transient=True)
    assert (waiting.state, waiting.seat, waiting.reason) == (JobState.WAITING, None, "the cable")
    with raising(AttemptOverError, "the job is waiting"):
        jobs.finish(waiting)
    assert jobs.fail(begin(jobs, job, 5), "the cable\nagain", is_transient=True).state is JobState.FAILED
    assert [(number, reason) for _, number, _, reason in attempts(database)] == [(1, "the cable"), (2, "the cable / again")]


def test_an_attempt_that_was_told_to_stop_does_not_count(database: Source, jobs: FarmJobs) -> None:
    (job,) = submit(jobs, NewJob(kind=JobKind.BUILD, needs=BUILD.needs, most_attempts=1))
    for number in range(1, 4):
        assert jobs.give_back(begin(jobs, job, number), "its host drains").state is JobState.WAITING
    assert jobs.finish(begin(jobs, job, 4)).attempt == 4
    assert [reason for *_, reason in attempts(database)] == ["its host drains"] * 3 + [None]


def test_a_job_without_attempts_left_fails_when_it_is_begun(database: Source, jobs: FarmJobs) -> None:
    job, _ = submit(jobs, BUILD, BEHIND)
    query(database, f"UPDATE jobs SET attempt = {MOST_ATTEMPTS - 1}, most_attempts = {MOST_ATTEMPTS} WHERE id = {job}")
    assert jobs.give_back(begin(jobs, job), "its host drains").state is JobState.WAITING
    ended = begin(jobs, job, 2)
    assert (ended.state, states(database)) == (JobState.FAILED, ["failed", "cancelled"])
    reads(ended.reason, MOST_ATTEMPTS)


def test_a_failure_takes_all_that_need_it_with_it(database: Source, jobs: FarmJobs) -> None:
    chain = [BUILD, BEHIND, NewJob(kind=JobKind.MEASURE, needs="x", after=(1,))]
    first, *_ = submit(jobs, *chain, BUILD)
    jobs.fail(begin(jobs, first), "no such adapter", is_transient=False)
    assert states(database) == ["failed", "cancelled", "cancelled", "waiting"]
    (_, second, third, _) = query(database, "SELECT reason FROM jobs ORDER BY id")
    assert second == third
    reads(third, first)


def test_what_waits_is_cancelled_at_once_and_what_runs_is_asked_to_stop(database: Source, jobs: FarmJobs) -> None:
    batch = submit(jobs, BUILD, BUILD, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)), BUILD)
    failing, given_back, finishing = (begin(jobs, job) for job in batch[:3])
    changed = jobs.cancel_run("run-a", "ana@lab-1 has cancelled it")
    assert [job.is_stopping for job in changed] == [True, True, True, False, False]
    assert states(database) == [*["running"] * 3, "cancelled", "cancelled"]
    assert jobs.fail(failing, "stopped", is_transient=True).state is JobState.CANCELLED
    assert jobs.give_back(given_back, "stopped").reason == "ana@lab-1 has cancelled it"
    assert jobs.finish(finishing).state is JobState.DONE
    assert states(database) == ["cancelled", "cancelled", "done", "cancelled", "cancelled"]
    assert jobs.cancel_run("run-a", "again") == []


def test_jobs_whose_run_has_left_the_pool_are_ended(database: Source, jobs: FarmJobs) -> None:
    running, stopping, *_ = submit(jobs, BUILD, BUILD, BUILD, BEHIND)
    begin(jobs, running)
    begin(jobs, stopping)
    jobs.cancel(stopping, "no longer wanted")
    submit(jobs, run_id="run-b")
    assert jobs.settle({}) == []  # they are new: the pool may not have them yet
    grow_old(database)
    assert jobs.settle({"run-a": (), "run-b": ()}) == []
    ended = {job.id: job for job in jobs.settle({"run-b": ()})}
    assert states(database) == ["failed", "cancelled", "cancelled", "cancelled", "waiting"]
    assert [job.state.value for job in ended.values()] == states(database)[:4]
    reads(ended[running].reason, "queue")
    assert ended[stopping].reason == "no longer wanted"
    assert [is_ended for _, _, is_ended, _ in attempts(database)] == [1, 1]
    assert begin(jobs, running, 2).state is JobState.FAILED


def test_what_is_not_stored_is_not_done(database: Source, engine: sa.Engine, jobs: FarmJobs) -> None:
    (job,) = submit(jobs)
    attempt = begin(jobs, job)

    def full(connection: sa.Connection) -> None:
        locked_attempt(connection, attempt)
        raise QuadbenchError("no room")

    with pytest.raises(QuadbenchError):
        RecordStore(engine).store(record(), full)
    assert (RecordStore(engine).run_ids(), states(database)) == ([], ["running"])
    jobs.finish(attempt)


# What devices did last


def test_a_device_s_last_job_is_the_one_that_it_began_last(database: Source, engine: sa.Engine, jobs: FarmJobs) -> None:
    first, second, third = submit(jobs, *(NewJob(kind=JobKind.MEASURE, needs="x", affinity=f"b-{n}") for n in range(3)))
    assert last_jobs(engine, ["R3CX", "Z9"]) == {}
    jobs.finish(begin(jobs, third))
    jobs.finish(begin(jobs, second, seat="Z9"))
    query(database, "UPDATE jobs SET started_at = '2020-01-01 00:00:00', ended_at = '2020-01-01 01:00:00' WHERE seat IS NOT NULL")
    (files, rested_s), (other_files, _) = (last_jobs(engine, ["R3CX", "Z9"])[seat] for seat in ("R3CX", "Z9"))
    assert (files, other_files) == ("b-2", "b-1")
    assert rested_s > 3600 * 24 * 365
    attempt = begin(jobs, first)  # the older job is the later one here
    assert last_jobs(engine, ["R3CX"]) == {"R3CX": ("b-0", 0.0)}
    jobs.finish(attempt)
    files, rested_s = last_jobs(engine, ["R3CX"])["R3CX"]
    assert (files, 0 <= rested_s < 60) == ("b-0", True)


def test_answers_are_those_of_the_last_attempts_at_jobs_that_are_done(
    database: Source, engine: sa.Engine, jobs: FarmJobs
) -> None:
    again, silent, bad, waiting = submit(jobs, BUILD, BUILD, BUILD, BUILD)
    jobs.fail(begin(jobs, again), "the cable", is_transient=True)
    ended = [
        jobs.finish(begin(jobs, again, 2), {"attempt": 2}),
        jobs.finish(begin(jobs, silent)),
        jobs.fail(begin(jobs, bad), "no", is_transient=False),
        begin(jobs, waiting),
    ]
    query(database, "UPDATE attempts SET answer = '1' WHERE reason IS NOT NULL")
    assert answers(engine, ended) == {again: {"attempt": 2}, silent: None}
    assert answers(engine, []) == {}
