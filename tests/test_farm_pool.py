"""A pool with the settings of `quadbench farm init`: each job starts once and keeps its device, and cancelled jobs leave."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.condor_attempts import OwnersPool, attempt_server, failures, pool_settings, submit_stays, wait_for_slots
from support.condor_pool import CondorPool, running_pool

from quadbench.dispatch.submission import Farm
from quadbench.farm.dag import cancel_job, remove_jobs
from quadbench.farm.job import JobState
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.store.opening import STORE_VARIABLE, open_store
from quadbench.results.engine import DATABASE_VARIABLE, open_engine

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0
SLOTS, NAME = 2, f"test-farm-pool-{os.getpid()}"
ANY, ABSENT = "wish =s25", "device R9"


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CondorPool]:
    """A pool with two scripted phones, whose database and store are in the test's folder."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(DATABASE_VARIABLE, str(tmp_path / "farm.sqlite"))
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    tests = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tests), str(tests.parent))))
    open_engine(tmp_path / "farm.sqlite").dispose()
    at_once = {"MAXJOBRETIREMENTTIME": "0"}  # a job that loses its slot is stopped at once
    settings = {**pool_settings(tmp_path / "pool", SLOTS, NAME), **at_once}
    with running_pool(tmp_path / "pool", slots=[{}] * SLOTS, settings=settings) as running, attempt_server(running, NAME):
        wait_for_slots(running, SLOTS)
        yield running


@pytest.fixture
def farm(pool: CondorPool, tmp_path: Path) -> Iterator[Farm]:
    """The farm as ann uses it."""
    engine = open_engine(tmp_path / "farm.sqlite")
    ann = OwnersPool(configuration=pool.folder / "condor_config", pool=pool, owner="ann")
    yield Farm(engine=engine, store=open_store(tmp_path / "store"), pool=ann)
    engine.dispose()


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_each_job_starts_once_and_no_other_takes_its_device(pool: CondorPool, farm: Farm, tmp_path: Path) -> None:
    database, times = str(tmp_path / "farm.sqlite"), tmp_path / "times"
    times.touch()
    submit_stays(pool, "ann", database, "run-a", dict.fromkeys(range(6), ANY), 6.0, times)
    wait_until(lambda: len(times.read_text().splitlines()) >= 6 and not farm.pool.queued_runs())
    assert failures(database, "run-a") == []
    starts = [job["NumJobStarts"] for job in pool.history("NumJobStarts", "QuadbenchJob") if "QuadbenchJob" in job]
    assert starts == [1] * 6


def test_cancelled_jobs_leave_the_queue_and_their_run_with_the_last_one(pool: CondorPool, farm: Farm, tmp_path: Path) -> None:
    submit_stays(pool, "ann", str(tmp_path / "farm.sqlite"), "run-b", dict.fromkeys(range(3), ABSENT), 1.0, tmp_path / "times")
    jobs = listed_jobs(farm.engine, "run-b").jobs
    wait_until(lambda: farm.pool.queued_runs() == {"run-b": {job.id for job in jobs}})
    for job in jobs[:2]:
        FarmJobs(farm.engine).cancel(job.id, "no longer wanted")
    remove_jobs(farm.pool, jobs[:2], "no longer wanted")
    wait_until(lambda: farm.pool.queued_runs() == {"run-b": {jobs[2].id}})
    assert cancel_job(farm.engine, farm.pool, jobs[2].id, "nor this one").state is JobState.CANCELLED
    wait_until(lambda: not farm.pool.queued_runs())
    assert {job.state for job in listed_jobs(farm.engine, "run-b").jobs} == {JobState.CANCELLED}
