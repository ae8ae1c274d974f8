"""The farm's queue in both engines: each job runs once at a time, whoever comes late stores nothing, and no job is lost."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.sentences import raising, reads, says
from support.stored_records import query, record

from quadbench.errors import ArtifactError, AttemptOverError, UnknownNameError, UserError
from quadbench.farm.job import Job, JobKind, JobState, NewJob
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import capability_need, device_need
from quadbench.farm.scheduler import Seat
from quadbench.results.engine import Source, open_engine
from quadbench.results.records import RecordStore

ANA, VERSION = "ana@lab-1", "0.1.0"
BUILD = NewJob(kind=JobKind.BUILD, needs=capability_need("build"))
HOST = Seat(name="host", serves=frozenset({capability_need("build")}))


@pytest.fixture
def jobs(engine: sa.Engine) -> JobQueue:
    return JobQueue(engine)


def submit(jobs: JobQueue, *batch: NewJob, run_id: str = "run-a", owner: str = ANA) -> list[int]:
    return jobs.submit(run_id, batch or [BUILD], owner, VERSION)


def claim(jobs: JobQueue, worker: str = "one", seats: Sequence[Seat] = (HOST,), lease_s: float = 60.0) -> list[Job]:
    return jobs.claim(worker, VERSION, seats, lease_s)


def states(database: Source) -> list[str]:
    return [str(state) for (state,) in query(database, "SELECT state FROM jobs ORDER BY id")]


def test_a_job_goes_from_a_batch_to_a_worker_and_is_done(database: Source, jobs: JobQueue) -> None:
    phone = NewJob(kind=JobKind.MEASURE, needs=device_need("R3CX"), payload={"recipe": "a"}, after=(0,), affinity="b-1")
    build, measure = submit(jobs, BUILD, phone)
    seats = [HOST, Seat(name="R3CX", serves=frozenset({device_need("R3CX")}))]
    (attempt,) = claim(jobs, seats=seats)
    assert (attempt.id, attempt.attempt, attempt.seat, attempt.worker) == (build, 1, "host", "one")
    assert claim(jobs, seats=seats) == []
    jobs.finish(attempt)
    (second,) = claim(jobs, seats=seats)
    assert (second.id, second.after, second.payload, second.affinity) == (measure, (build,), {"recipe": "a"}, "b-1")
    assert states(database) == ["done", "running"]


@pytest.mark.slow
def test_of_many_that_ask_at_once_each_job_goes_to_one(jobs: JobQueue) -> None:
    ids = submit(jobs, *[BUILD] * 512)
    assert _all_claimed_by_threads(jobs) == sorted(ids)


def _all_claimed_by_threads(jobs: JobQueue) -> list[int]:
    seats = [Seat(name=f"host-{number}", serves=HOST.serves) for number in range(4)]

    def work(number: int) -> list[int]:
        done: list[int] = []
        while claimed := claim(jobs, f"worker-{number}", seats) or _anything_left(jobs):
            for job in claimed:
                jobs.finish(job)
                done.append(job.id)
        return done

    with ThreadPoolExecutor(16) as pool:
        return sorted(job for done in pool.map(work, range(16)) for job in done)


def _anything_left(jobs: JobQueue) -> list[Job]:
    """Wait a moment for rows that others look at; nothing is left once no job waits."""
    time.sleep(0.05)
    return claim(jobs)


def _work_in_a_process(database: Source, number: int, done: "multiprocessing.Queue[int]") -> None:
    engine = open_engine(database)
    jobs = JobQueue(engine)
    while claimed := claim(jobs, f"worker-{number}") or _anything_left(jobs):
        for job in claimed:
            jobs.finish(job)
            done.put(job.id)
    engine.dispose()
    done.put(0)


@pytest.mark.slow
def test_processes_share_the_jobs_and_each_is_done_once(database: Source, jobs: JobQueue) -> None:
    ids = submit(jobs, *[BUILD] * 60)
    context = multiprocessing.get_context("spawn")
    done: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=_work_in_a_process, args=(database, number, done)) for number in range(3)]
    for worker in workers:
        worker.start()
    told, ended = [], 0
    while ended < len(workers):
        if job := done.get(timeout=60):
            told.append(job)
        else:
            ended += 1
    for worker in workers:
        worker.join(60)
    assert sorted(told) == ids


def test_an_attempt_that_was_lost_is_taken_over_and_changes_nothing_any_more(
    database: Source, engine: sa.Engine, jobs: JobQueue
) -> None:
    submit(jobs)
    (zombie,) = claim(jobs, "one", lease_s=0.05)
    time.sleep(0.1)
    with raising(AttemptOverError, 1):
        jobs.renew(zombie)
    (lost,) = jobs.expire()
    assert lost.state == JobState.WAITING
    reads(lost.reason, "one")
    query(database, "UPDATE jobs SET not_before = NULL")
    (later,) = claim(jobs, "two")
    assert (later.id, later.attempt) == (zombie.id, 2)
    for act in (
        lambda: jobs.finish(zombie),
        lambda: jobs.fail(zombie, "late", is_transient=False),
        lambda: RecordStore(engine).store(record(), lambda connection: jobs.finish_within(connection, zombie)),
    ):
        with raising(AttemptOverError, "two"):
            act()
    assert RecordStore(engine).run_ids() == []
    assert RecordStore(engine).store(record(), lambda connection: jobs.finish_within(connection, later))
    assert states(database) == ["done"]


def test_what_is_not_stored_is_not_done(database: Source, engine: sa.Engine, jobs: JobQueue) -> None:
    submit(jobs)
    (attempt,) = claim(jobs)

    def full(connection: sa.Connection) -> None:
        jobs.finish_within(connection, attempt)
        raise ArtifactError("no room")

    with raising(ArtifactError):
        RecordStore(engine).store(record(), full)
    assert states(database) == ["running"]
    jobs.finish(attempt)


def test_a_renewed_attempt_goes_on(jobs: JobQueue) -> None:
    submit(jobs)
    (attempt,) = claim(jobs, lease_s=1.5)
    for _ in range(8):
        time.sleep(0.25)
        jobs.renew(attempt, lease_s=1.5)
    assert jobs.expire() == []
    jobs.finish(attempt)


def test_a_passing_fault_is_tried_again_later_until_the_attempts_are_used_up(database: Source, jobs: JobQueue) -> None:
    submit(jobs, NewJob(kind=JobKind.BUILD, needs=BUILD.needs, most_attempts=2))
    (attempt,) = claim(jobs)
    assert jobs.fail(attempt, "the cable", is_transient=True).state is JobState.WAITING
    assert claim(jobs) == []  # not before a pause is over
    query(database, "UPDATE jobs SET not_before = NULL")
    (second,) = claim(jobs)
    assert jobs.fail(second, "the cable again", is_transient=True).state is JobState.FAILED
    told = query(database, "SELECT number, reason FROM attempts ORDER BY number")
    reads(told, 1, 2)


def test_a_failure_takes_all_that_need_it_with_it(database: Source, jobs: JobQueue) -> None:
    chain = [BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)), NewJob(kind=JobKind.MEASURE, needs="x", after=(1,))]
    first, *_ = submit(jobs, *chain, BUILD)
    (attempt,) = claim(jobs)
    jobs.fail(attempt, "no such adapter", is_transient=False)
    assert states(database) == ["failed", "cancelled", "cancelled", "waiting"]
    (_, second, third, _) = query(database, "SELECT reason FROM jobs ORDER BY id")
    assert second == third
    reads(third, first)


def test_what_waits_is_cancelled_at_once_and_what_runs_is_asked_to_stop(database: Source, jobs: JobQueue) -> None:
    submit(jobs, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)), BUILD)
    (attempt,) = claim(jobs)
    jobs.cancel_run("run-a", "ana@lab-1 has cancelled it")
    assert states(database) == ["running", "cancelled", "cancelled"]
    assert jobs.renew(attempt).is_stopping
    assert jobs.fail(attempt, "stopped", is_transient=True).state is JobState.CANCELLED
    assert query(database, "SELECT reason FROM jobs ORDER BY id")[0] == ("ana@lab-1 has cancelled it",)


def test_a_job_that_waits_is_cancelled_with_those_behind_it(database: Source, jobs: JobQueue) -> None:
    first, *_ = submit(jobs, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)))
    assert jobs.cancel(first, "not needed").state is JobState.CANCELLED
    assert states(database) == ["cancelled", "cancelled"]
    with raising(UnknownNameError, 999):
        jobs.cancel(999, "not needed")
    with raising(UnknownNameError, "nothing"):
        jobs.cancel_run("nothing", "not needed")


def test_a_job_begins_once_all_that_it_needs_are_done(jobs: JobQueue) -> None:
    submit(jobs, *[BUILD] * 8, NewJob(kind=JobKind.COMPILE, needs="x", after=tuple(range(8))))
    seats = [Seat(name=f"host-{number}", serves=HOST.serves) for number in range(8)]
    attempts = claim(jobs, seats=seats)
    last = [Seat(name="last", serves=frozenset({"x"}))]
    assert len(attempts) == 8
    jobs.finish(attempts.pop())
    assert claim(jobs, seats=last) == []
    with ThreadPoolExecutor(7) as pool:
        list(pool.map(jobs.finish, attempts))
    assert len(claim(jobs, seats=last)) == 1


def test_another_quadbench_gets_none_of_the_jobs(jobs: JobQueue) -> None:
    submit(jobs)
    assert jobs.claim("one", "0.2.0", [HOST], 60.0) == []
    assert len(claim(jobs)) == 1


def test_a_worker_of_another_schema_is_refused(database: Source, jobs: JobQueue) -> None:
    submit(jobs)
    query(database, "UPDATE alembic_version SET version_num = '9999'")
    with raising(ArtifactError, 9999):
        claim(jobs)


NO_JOBS = [
    ((), (0,)),
    ((NewJob(kind=JobKind.BUILD, needs="x", after=(0,)),), (0,)),
    ((NewJob(kind=JobKind.BUILD, needs=""),), ("needs", 1)),
    ((NewJob(kind=JobKind.BUILD, needs="x", priority=101),), ("priority", 101, -100, 100)),
    ((NewJob(kind=JobKind.BUILD, needs="x", most_attempts=0),), ("most_attempts", 0, 1)),
    ((BUILD, NewJob(kind=JobKind.BUILD, needs="x", payload={"a": float("nan")})), ()),
    ((BUILD, NewJob(kind=JobKind.BUILD, needs="x", payload={"a": object()})), ()),
    ((NewJob(kind=JobKind.BUILD, needs="x", payload={"a": "b" * 70_000}),), (70009,)),
]


def test_what_cannot_be_a_job_is_refused_with_the_whole_batch(database: Source, jobs: JobQueue) -> None:
    for batch, numbers in NO_JOBS:
        with raising(UserError, *numbers):
            jobs.submit("run-a", batch, ANA, VERSION)
        assert states(database) == [], numbers


def test_a_run_is_submitted_once(database: Source, jobs: JobQueue) -> None:
    submit(jobs)
    with raising(UserError, "run-a"):
        submit(jobs)
    with raising(UserError):
        submit(jobs, run_id="../run")
    assert states(database) == ["waiting"]


DAMAGES = [
    ("payload = '{'", "payload"),
    ("payload = '[1]'", "payload"),
    ("payload = '{\"a\": NaN}'", "payload"),
    ("attempt = -1", "attempt: -1, expected 0 to 3"),
    ("attempt = 7", "attempt: 7, expected 0 to 3"),
    ("kind = 'paint'", "kind"),
    ("priority = 2000000000", "priority"),
    ("most_attempts = 0", "most_attempts"),
    ("run_id = '../run'", "cannot name a file"),
    ("affinity = '" + "b" * 400 + "'", "affinity"),
]


def test_a_row_that_nothing_has_written_fails_by_name_and_keeps_no_other_from_its_turn(database: Source, jobs: JobQueue) -> None:
    *damaged, good = submit(jobs, *[BUILD] * len(DAMAGES), BUILD)
    for job, (change, _) in zip(damaged, DAMAGES, strict=True):
        query(database, f"UPDATE jobs SET {change} WHERE id = {job}")
    assert [job.id for job in claim(jobs)] == [good]
    rows = query(database, "SELECT id, state, reason FROM jobs WHERE reason IS NOT NULL ORDER BY id")
    assert [(job, state) for job, state, _ in rows] == [(job, "failed") for job in damaged]
    for (job, _, told), (change, reason) in zip(rows, DAMAGES, strict=True):
        says(str(told), job)
        assert reason in str(told), change


def test_a_running_job_whose_row_was_damaged_is_neither_finished_nor_waited_for(database: Source, jobs: JobQueue) -> None:
    for number, (change, _) in enumerate(DAMAGES[:4]):
        batch = [BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,))]
        damaged, behind = submit(jobs, *batch, run_id=f"run-{number}")
        (attempt,) = claim(jobs)
        query(database, f"UPDATE jobs SET {change} WHERE id = {damaged}")
        with raising(ArtifactError, damaged, snapshot=False):
            jobs.finish(attempt)
        with raising(ArtifactError, "the job has failed now", snapshot=False):
            jobs.cancel(damaged, "damaged")
        told = query(database, f"SELECT state, reason FROM jobs WHERE id IN ({damaged}, {behind}) ORDER BY id")
        assert [state for state, _ in told] == ["failed", "cancelled"], change
        reads(told[1][1], damaged, snapshot=False)


def test_a_lost_job_whose_row_was_damaged_keeps_no_other_from_being_taken_over(database: Source, jobs: JobQueue) -> None:
    damaged, _ = submit(jobs, BUILD, BUILD)
    claim(jobs, seats=[HOST, Seat(name="two", serves=HOST.serves)], lease_s=0.01)
    query(database, f"UPDATE jobs SET payload = 'x', until = '2020-01-01 00:00:00.000000' WHERE id = {damaged}")
    time.sleep(0.05)
    assert len(jobs.expire()) == 1
    assert states(database) == ["failed", "waiting"]


def test_a_row_that_nobody_would_look_at_is_left_out(database: Source, jobs: JobQueue) -> None:
    changes = ["state = 'sleeping'", "open_needs = -1", "open_needs = 3", "not_before = '2999-01-01'"]
    *left_out, good = submit(jobs, *[BUILD] * len(changes), BUILD)
    for job, change in zip(left_out, changes, strict=True):
        query(database, f"UPDATE jobs SET {change} WHERE id = {job}")
    seats = [Seat(name=f"host-{number}", serves=HOST.serves) for number in range(len(changes) + 1)]
    claimed = {job.id for job in claim(jobs, seats=seats)}
    assert [change for job, change in zip(left_out, changes, strict=True) if job in claimed] == []
    assert good in claimed


def test_jobs_that_need_each_other_wait_and_are_cancelled_like_others(database: Source, jobs: JobQueue) -> None:
    first, second = submit(jobs, BUILD, NewJob(kind=JobKind.BUILD, needs=BUILD.needs, after=(0,)))
    query(database, f"INSERT INTO job_needs (job, needed) VALUES ({first}, {second})")
    query(database, f"UPDATE jobs SET open_needs = 1 WHERE id = {first}")
    assert claim(jobs) == []
    jobs.cancel(first, "a circle")
    assert states(database) == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    "change",
    [
        "owner = x'00ff'",
        "started_at = 'yesterday'",
        "submitted_at = 5",
        "counts_from = x'01'",
        "priority = 'high'",
        "until = 'x'",
    ],
)
def test_a_value_of_no_type_costs_no_other_job_its_turn(change: str, tmp_path: Path) -> None:
    """SQLite alone takes any value anywhere."""
    database = tmp_path / "any.sqlite"
    engine = open_engine(database)
    jobs = JobQueue(engine)
    damaged, _, _ = submit(jobs, BUILD, BUILD, BUILD)
    seats = [Seat(name=name, serves=HOST.serves) for name in ("a", "b", "c")]
    (begun,) = claim(jobs, seats=seats[:1])
    jobs.finish(begun)
    query(database, "UPDATE attempts SET started_at = 'x', owner = x'00'")
    query(database, f"UPDATE jobs SET state = 'waiting', {change} WHERE id = {damaged}")
    assert {job.id for job in claim(jobs, seats=seats)} >= {2, 3}
    jobs.cancel_run("run-a", "over")
    engine.dispose()


def test_a_record_of_an_attempt_that_is_over_is_not_stored(database: Source, engine: sa.Engine, jobs: JobQueue) -> None:
    submit(jobs)
    (attempt,) = claim(jobs)
    records = RecordStore(engine)
    records.store(record("in time"), lambda connection: jobs.check(connection, attempt))
    jobs.give_back(attempt, "told to stop")
    claim(jobs, "two")
    with raising(AttemptOverError, "two"):
        records.store(record("late", launch=1), lambda connection: jobs.check(connection, attempt))
    assert query(database, "SELECT record_id FROM records") == [("in time",)]
