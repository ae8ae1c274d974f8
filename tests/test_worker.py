"""A worker does each job once, on one device at a time; it bears attempts that fail or crash, and stops as it is told."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.postgresql_server import running_postgresql
from support.scripted_jobs import Phones, Script, phones
from support.sentences import reads
from support.stored_records import query

from quadbench.dispatch.worker import LOOK_S, Worker
from quadbench.farm.accounts import answers
from quadbench.farm.job import Job, JobKind, JobState, NewJob
from quadbench.farm.job_status import job_with_attempts, listed_jobs, queue_status
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import device_need, wish_need
from quadbench.farm.selection import Wish
from quadbench.farm.workers import NewWorker, Workers
from quadbench.results.engine import Source, open_engine

pytestmark = pytest.mark.slow  # each of these has real processes and waits for them

ANY_S25 = wish_need(Wish(word="s25", key=None, value="s25", count=1))
PATIENCE_S = 60.0


@pytest.fixture(scope="module", autouse=True)
def children_find_scripts() -> Iterator[None]:
    """Let processes that a worker starts import what the tests share, as an installed package's are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


class Unmetered:
    """Nobody watches."""

    def begun(self, job: Job) -> None: ...

    def ended(self, job: Job, seconds: float) -> None: ...


@contextmanager
def working(engine: sa.Engine, script: Script, devices: Phones, name: str = "one") -> Iterator[Worker]:
    """Have a worker work in a thread; it is stopped at the end."""
    itself = NewWorker(name=name, host=name, version="1", capabilities=(), devices=())
    with script.attempts() as attempts:
        worker = Worker(itself, engine, devices, attempts.start, Unmetered())
        thread = threading.Thread(target=worker.work)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def submit(engine: sa.Engine, *needs: str) -> list[int]:
    return JobQueue(engine).submit("run", [NewJob(kind=JobKind.MEASURE, needs=need) for need in needs], "ana@lab", "1")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def are_done(engine: sa.Engine, count: int) -> Callable[[], bool]:
    return lambda: queue_status(engine).states.get(JobState.DONE.value, 0) == count


def test_every_job_is_done_once_and_leaves_its_answer_and_the_lines_of_its_log(database: Source, engine: sa.Engine) -> None:
    ids = submit(engine, *[ANY_S25] * 20, device_need("phone-3"))
    with working(engine, Script(database=database), phones(4)):
        wait_until(are_done(engine, 21))
    launches = [launch for (launch,) in query(database, "SELECT launch FROM records ORDER BY launch")]
    assert launches == ids
    jobs = listed_jobs(engine, "run").jobs
    assert {job.attempt for job in jobs} == {1}
    assert answers(engine, jobs)[ids[-1]] == {"address": "s25@phone-3"}
    assert [past.lines for past in job_with_attempts(engine, ids[0])[1]] == ["did it"]


def test_two_workers_share_the_jobs_and_none_is_done_twice(database: Source, engine: sa.Engine) -> None:
    ids = submit(engine, *[ANY_S25] * 30)
    script = Script(database=database, seconds=0.05)
    with working(engine, script, phones(3)), working(engine, script, Phones(phones(6).present[3:]), "two"):
        wait_until(are_done(engine, 30))
    assert [launch for (launch,) in query(database, "SELECT launch FROM records ORDER BY launch")] == ids
    assert {str(worker) for (worker,) in query(database, "SELECT DISTINCT worker FROM attempts")} == {"one", "two"}


@pytest.mark.parametrize(("trouble", "reason"), [("failures", "the cable was pulled"), ("crashes", "exit code 3")])
def test_an_attempt_that_fails_or_crashes_is_followed_by_another(
    database: Source, engine: sa.Engine, trouble: str, reason: object
) -> None:
    (job_id,) = submit(engine, ANY_S25)
    with working(engine, Script(database=database, **{trouble: 1}), phones(1)):
        wait_until(lambda: listed_jobs(engine, "run").jobs[0].not_before is not None)
        query(database, "UPDATE jobs SET not_before = NULL")
        wait_until(are_done(engine, 1))
    _, attempts = job_with_attempts(engine, job_id)
    reads([attempt.reason for attempt in attempts], reason)


def test_a_device_is_at_one_job_at_a_time(database: Source, engine: sa.Engine) -> None:
    submit(engine, *[device_need("phone-0")] * 5)
    with working(engine, Script(database=database, seconds=0.1), phones(2)):
        wait_until(are_done(engine, 5))
    rows = query(database, "SELECT started_at, ended_at FROM attempts ORDER BY started_at")
    assert all(str(after[0]) >= str(before[1]) for before, after in pairwise(rows))


def test_a_worker_that_is_told_to_stop_begins_nothing_more_and_is_forgotten(database: Source, engine: sa.Engine) -> None:
    submit(engine, *[device_need("phone-0")] * 20)
    with working(engine, Script(database=database, seconds=0.3), phones(1)) as worker:
        wait_until(lambda: queue_status(engine).states.get("running", 0) == 1)
        worker.stop()
    states = queue_status(engine).states
    assert states.get("running", 0) == 0
    assert states["waiting"] >= 18
    assert Workers(engine).known() == []


def test_a_worker_that_is_asked_to_drain_stops_by_itself(
    database: Source, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUADBENCH_LEASE_S", "2")
    with working(engine, Script(database=database), phones(1)):
        wait_until(lambda: bool(Workers(engine).known()))
        assert Workers(engine).drain("one")
        wait_until(lambda: not Workers(engine).known())


def test_a_worker_whose_database_is_away_waits_in_peace_and_stops_as_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def has_told(times: int) -> Callable[[], bool]:
        return lambda: caplog.text.count("the queue is not reached") >= times

    with running_postgresql() as server:
        url = server.new_database()
        engine = open_engine(url)
        submit(engine, ANY_S25)
        with working(engine, Script(database=url, seconds=1), phones(1)) as worker:
            wait_until(lambda: queue_status(engine).states.get("running", 0) == 1)
            server.stop()
            wait_until(has_told(3))  # the attempt, which takes less, has ended by then
            since = time.monotonic()
            wait_until(has_told(5))
            assert time.monotonic() - since > LOOK_S
            worker.stop()
        engine.dispose()


def test_a_job_that_is_cancelled_while_it_runs_is_interrupted_and_ends(database: Source, engine: sa.Engine) -> None:
    (job_id,) = submit(engine, ANY_S25)
    with working(engine, Script(database=database, seconds=30), phones(1)):
        wait_until(lambda: queue_status(engine).states.get("running", 0) == 1)
        JobQueue(engine).cancel(job_id, "no longer wanted")
        wait_until(lambda: listed_jobs(engine, "run").jobs[0].state is JobState.CANCELLED)
    assert query(database, "SELECT count(*) FROM records") == [(0,)]


def test_all_attempts_of_a_worker_that_is_killed_end_with_it(database: Source, engine: sa.Engine) -> None:
    submit(engine, ANY_S25, ANY_S25)
    settings = {**os.environ, "QUADBENCH_DATABASE": str(database), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "support.scripted_worker", "2", "1000"]
    worker = subprocess.Popen(command, env=settings, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: query(database, "SELECT count(*) FROM leases WHERE job_owner IS NOT NULL") == [(2,)])
    worker.kill()
    worker.wait()
    wait_until(lambda: not is_there(worker.pid))


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
