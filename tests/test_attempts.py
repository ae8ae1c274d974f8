"""An attempt knows its job and device from HTCondor's ads, and stores nothing once a later one has begun."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.sentences import raising, says

from quadbench.dispatch import attempt
from quadbench.errors import ArtifactError
from quadbench.farm.dag import JOB_DONE, JOB_FAILED, TRY_AGAIN
from quadbench.farm.job import Job, JobKind, JobState, NewJob
from quadbench.farm.job_status import job_with_attempts
from quadbench.farm.jobs import FarmJobs, Start
from quadbench.farm.slots import device_need, encoded
from quadbench.host import OWNER_VARIABLE, python_module, user_and_host
from quadbench.results.engine import Source

PATIENCE_S = 30.0


def test_without_an_ad_an_attempt_is_tried_again(tmp_path: Path) -> None:
    command = python_module("quadbench", "farm", "attempt", ".job.ad")
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    says(ended.stderr, ".job.ad")
    assert ended.returncode == TRY_AGAIN


NEED = device_need("phone")


def submit(engine: sa.Engine, most_attempts: int = 3) -> Job:
    new = NewJob(kind=JobKind.MEASURE, needs=NEED, most_attempts=most_attempts)
    (job,) = FarmJobs(engine).submit("run", [new], "ana@lab", "1", lambda jobs: None)
    return job


def write_ads(folder: Path, job: int, start: int, *, serves: str = encoded(NEED), seat: str = '"phone"') -> Path:
    """Write the ads of a job and its slot as HTCondor does, and return the path of the job's."""
    needed = f'QuadbenchNeed = "{encoded(NEED)}"\nRequirements = QuadbenchJob > 0\n'
    (folder / ".job.ad").write_text(f'QuadbenchJob = {job}\nQuadbenchRun = "run"\nNumShadowStarts = {start}\n{needed}')
    results = f'QuadbenchResults = "{folder}/results"\nMachine = "lab-1"\n'
    slot = f'SlotDevice = {seat}\nSlotServes = "other,{serves}"\nSlotAddress = "s25@phone"\nName = "slot1@lab-1"\n'
    (folder / attempt.MACHINE_AD).write_text(results + slot)
    return folder / ".job.ad"


def test_an_attempt_knows_its_job_its_start_and_its_device_from_the_ads(tmp_path: Path) -> None:
    start = Start(job=7, run="run", number=2, seat="phone", host="lab-1")
    assert attempt.read_order(write_ads(tmp_path, 7, 2)) == (start, "s25@phone", tmp_path / "results")


def test_a_slot_that_has_another_device_now_makes_no_attempt(tmp_path: Path) -> None:
    with raising(ArtifactError, "slot1@lab-1", "phone", NEED):
        attempt.read_order(write_ads(tmp_path, 7, 2, serves="device%20tablet"))


@pytest.mark.parametrize("seat", ["7", "undefined", "time()"])
def test_a_slot_without_a_device_is_refused(tmp_path: Path, seat: str) -> None:
    with raising(ArtifactError, ".job.ad"):
        attempt.read_order(write_ads(tmp_path, 7, 2, seat=seat))


def test_the_exit_code_says_what_came_of_a_job_also_to_a_start_after_its_end(
    engine: sa.Engine, database: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUADBENCH_DATABASE", str(database) if "://" in str(database) else f"sqlite:///{database}")
    monkeypatch.delenv("QUADBENCH_STORE", raising=False)
    monkeypatch.setenv(OWNER_VARIABLE, "")  # an attempt sets it for its process
    job = submit(engine)
    first = attempt.make_attempt(str(write_ads(tmp_path, job.id, 1)))
    assert first == JOB_FAILED  # no store is named, which no later start mends
    assert user_and_host() == job.owner
    read, (only,) = job_with_attempts(engine, job.id)
    assert (read.state, read.attempt, only.host, only.seat) == (JobState.FAILED, 1, "lab-1", "phone")
    assert "no store is named" in (only.reason or "")
    assert "no store is named" in (tmp_path / "results" / attempt.LOG_NAME).read_text()
    assert attempt.make_attempt(str(write_ads(tmp_path, job.id, 2))) == JOB_FAILED
    assert attempt.make_attempt(str(write_ads(tmp_path, 999, 1))) == JOB_FAILED  # a job that nobody knows is not started again
    assert attempt.make_attempt(str(tmp_path / "missing")) == TRY_AGAIN
    assert attempt.exit_code(replace(read, state=JobState.DONE)) == JOB_DONE
    assert attempt.exit_code(replace(read, state=JobState.WAITING)) == TRY_AGAIN
    assert len(job_with_attempts(engine, job.id)[1]) == 1


def test_a_frozen_attempt_that_wakes_after_another_has_begun_ends_within_a_second(database: Source, engine: sa.Engine) -> None:
    start = Start(job=submit(engine).id, run="run", number=1, seat="phone", host="lab-1")
    code = f"""
import time
from functools import partial
from quadbench.dispatch.attempt import stopped_when_over
from quadbench.farm.jobs import FarmJobs, Start, locked_attempt
from quadbench.results.engine import open_engine
import os
from pathlib import Path
engine = open_engine({str(database)!r} if "://" in {str(database)!r} else Path({str(database)!r}))
with stopped_when_over(engine, partial(locked_attempt, attempt=FarmJobs(engine).begin({start}))):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
    pipe = subprocess.PIPE
    program = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    FarmJobs(engine).begin(replace(start, number=2))
    time.sleep(attempt._STOOD_STILL_S + 0.5)
    assert program.poll() is None
    os.kill(pid, signal.SIGCONT)
    woken = time.monotonic()
    _, errors = program.communicate(timeout=PATIENCE_S)
    sys.stdout.write(f"ended {time.monotonic() - woken:.2f} s after it woke\n")
    assert program.returncode == -signal.SIGKILL
    assert f"attempt 1 at job {start.job} is over" in errors
