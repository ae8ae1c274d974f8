"""Whatever stands in a column of the queue's tables, all is answered or refused by name, and good jobs get their turn."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bad_input.databases import _VALUES as VALUES
from support.stored_records import query

from quadbench.errors import QuadbenchError
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.job_status import job_with_attempts, listed_jobs, queue_status
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import capability_need
from quadbench.farm.scheduler import Seat
from quadbench.farm.workers import NewWorker, WorkerDevice, Workers
from quadbench.results.engine import open_engine
from quadbench.results.schema import AttemptRow, JobNeedRow, JobRow, WorkerRow

BUILD = NewJob(kind=JobKind.BUILD, needs=capability_need("build"))
HOST = Seat(name="host-1", serves=frozenset({capability_need("build")}))
PHONE = WorkerDevice(name="R3CX", address="s25@R3CX", labels={"profile": "s25"})
WORKER = NewWorker(name="one", host="lab-1", version="0.1.0", capabilities=("build",), devices=(PHONE,))
COLUMNS = [
    (table.__tablename__, column.name)
    for table in (JobRow, JobNeedRow, AttemptRow, WorkerRow)
    for column in table.__table__.columns
    if not column.primary_key or table in (JobNeedRow, WorkerRow)
]


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with jobs that have ended, run, are lost, wait and need each other, and with two workers."""
    path = tmp_path_factory.mktemp("queue") / "quadbench.sqlite"
    engine = open_engine(path)
    jobs = JobQueue(engine)
    jobs.submit("run-a", [BUILD] * 4, "ana@lab-1", "0.1.0")
    (done,), (lost,), _ = (jobs.claim("one", "0.1.0", [HOST], lease_s) for lease_s in (60.0, 0.0, 60.0))
    jobs.finish(done)
    assert lost.id == 2
    jobs.submit("run-b", [BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,))], "ben@lab-2", "0.1.0")
    for name in ("one", "two"):
        Workers(engine).note(NewWorker(name=name, host="lab-1", version="0.1.0", capabilities=("build",), devices=(PHONE,)))
    engine.dispose()
    return path


@contextlib.contextmanager
def _refused_by_name() -> Iterator[None]:
    with contextlib.suppress(QuadbenchError):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("place", COLUMNS, ids=".".join)
def test_any_value_in_any_column_is_refused_by_name_or_left_out(place: tuple[str, str], queue: Path, tmp_path: Path) -> None:
    table, column = place
    for number, value in enumerate(VALUES[COLUMNS.index(place) % 4 :: 4]):  # a share for each: all of them take minutes
        path = tmp_path / f"{number}.sqlite"
        shutil.copyfile(queue, path)
        with contextlib.suppress(Exception):  # what the table itself does not take
            query(path, f"UPDATE {table} SET {column} = {value}")
        engine = open_engine(path)
        jobs, workers = JobQueue(engine), Workers(engine)
        (good,) = jobs.submit("run-c", [BUILD], "cara@lab-3", "0.1.0")
        assert good > 6
        attempts = []
        for _ in range(6):
            with _refused_by_name():
                attempts += jobs.claim("three", "0.1.0", [HOST])
        assert good in [attempt.id for attempt in attempts], value
        for attempt in attempts:
            with _refused_by_name():
                jobs.renew(attempt)
            with _refused_by_name():
                jobs.fail(attempt, "a fault", is_transient=attempt.id % 2 == 0)
        for ask in (
            lambda queue=engine: queue_status(queue),
            lambda queue=engine: listed_jobs(queue),
            lambda queue=engine: listed_jobs(queue, "run-a"),
            lambda queue=engine: job_with_attempts(queue, 1),
            lambda known=workers: known.known(),
            lambda known=workers: known.note(WORKER),
            lambda known=workers: known.why_idle(WORKER),
            lambda queue=jobs: queue.cancel(5, "over"),
            lambda queue=jobs: queue.cancel_run("run-b", "over"),
        ):
            with _refused_by_name():
                ask()
        engine.dispose()
