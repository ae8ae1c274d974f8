"""Execute one farm job that HTCondor has started at a slot of this host, and store the job's outcome.

A process of its own isolates each attempt: a crash, hang or leak affects no other.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import sqlalchemy as sa

from quadbench.devices.lab.leases import lease_time_s
from quadbench.dispatch.duties import Host, do
from quadbench.dispatch.log_lines import LogLines, LogObserver, log_attempt
from quadbench.dispatch.orders import CompileAnswer, answer_of, as_json
from quadbench.errors import ArtifactError, AttemptOverError, DeviceError, QuadbenchError, StorageError, UnknownNameError
from quadbench.farm.condor import read_ad
from quadbench.farm.dag import JOB_DONE, JOB_FAILED, TRY_AGAIN
from quadbench.farm.job import Account, Job, JobKind, JobState
from quadbench.farm.job_status import answers, listed_jobs
from quadbench.farm.jobs import FarmJobs, Start
from quadbench.farm.store.opening import required_store
from quadbench.host import OWNER_VARIABLE, background
from quadbench.results.engine import begin_write, open_db
from quadbench.results.layout import Layout
from quadbench.spec.variables import set_variable

_PAUSE_S = 2.0  # between retries to store an attempt's outcome
_TICK_S = 1.0  # between looks at the clock, which show that the process stood still
_STOOD_STILL_S = 2.0
_BEATS = 4  # looks at the database in a lease's time
MACHINE_AD = ".machine.ad"  # HTCondor's name of the slot's ad, beside that of the job
LOG_NAME = "farm.log"

log = logging.getLogger(__name__)
Ending = Callable[[Account], Job]
Guard = Callable[[sa.Connection], None]


def make_attempt(path: str) -> int:
    """Execute the job whose ad is the file `path`. Return 0 if it is done, 65 if it failed for good, 75 if it is tried again."""
    try:
        start, address, results = read_order(Path(path))
        layout = Layout(results)
        with open_db(layout) as engine:
            job = FarmJobs(engine).begin(start)
            lines = log_attempt(layout.root / LOG_NAME, job)
            if job.state.is_end:
                return exit_code(job)
            set_variable(OWNER_VARIABLE, job.owner)
            guard = guard_of(engine, job)
            with stopped_when_over(engine, guard):
                ending, answer = _made(job, address, layout, engine, guard)
            return _end(ending, answer, lines)
    except QuadbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return JOB_FAILED if isinstance(error, UnknownNameError) else TRY_AGAIN  # its run was never submitted as a whole


def read_order(path: Path) -> tuple[Start, str, Path]:
    """Read a job's ad and, beside it, the ad of the slot where HTCondor has started the job. Return the start of the job, the
    address of the slot's device ("" if it has none), and the host's results folder.

    Raises:
        ArtifactError: an ad cannot be read, or the slot does not serve the job: its device has changed since they were matched.
    """
    job, slot = read_ad(path), read_ad(path.with_name(MACHINE_AD))
    number, start = job.get("QuadbenchJob"), job.get("NumShadowStarts")
    run, need, seat = job.get("QuadbenchRun"), job.get("QuadbenchNeed"), slot.get("SlotDevice")
    if not (isinstance(number, int) and isinstance(start, int)) or not all(isinstance(text, str) for text in (run, need, seat)):
        raise ArtifactError(f"'{path}' is no ad of a farm job at a slot of quadbench")
    if need not in str(slot.get("SlotServes")).split(","):
        raise ArtifactError(f"slot '{slot.get('Name')}' has '{seat}' now, which does not serve '{unquote(str(need))}'")
    results = Path(str(slot.get("QuadbenchResults") or "results"))
    host = str(slot.get("Machine") or "unknown")
    return Start(job=number, run=str(run), number=start, seat=str(seat), host=host), str(slot.get("SlotAddress") or ""), results


def exit_code(job: Job) -> int:
    """Return the exit code that tells HTCondor what came of a job: done, failed for good, or to be tried again."""
    return JOB_DONE if job.state is JobState.DONE else JOB_FAILED if job.state.is_end else TRY_AGAIN


def guard_of(engine: sa.Engine, job: Job) -> Guard:
    """Return a function that takes a database connection and raises AttemptOverError if this attempt at a job is over."""
    return partial(FarmJobs(engine).check, attempt=job)


@contextmanager
def stopped_when_over(engine: sa.Engine, guard: Guard) -> Iterator[None]:
    """Call `guard` regularly in a `with` block. If `guard` raises AttemptOverError, kill the attempt's process group."""

    def watch(ended: threading.Event) -> None:
        ticked = checked = time.monotonic()
        while not ended.wait(_TICK_S):
            now = time.monotonic()
            if now - ticked > _STOOD_STILL_S or now - checked > lease_time_s() / _BEATS:
                checked = now
                try:
                    with begin_write(engine) as connection:
                        guard(connection)
                except AttemptOverError as error:
                    log.warning("%s", error)
                    os.killpg(0, signal.SIGKILL)
                except StorageError as error:
                    log.warning("whether the attempt goes on is not known: %s", error)
            ticked = now

    with background(watch, "quadbench-attempt"):
        yield


def _made(job: Job, address: str, layout: Layout, engine: sa.Engine, guard: Guard) -> tuple[Ending, dict[str, object] | None]:
    """Execute a job. Return a pair: a function that stores the outcome, and the result as a JSON object (None if there is none).
    The function takes an Account (a job's result and log) and returns the job.
    """
    jobs = FarmJobs(engine)
    try:
        host = Host(layout=layout, store=required_store(), observer=LogObserver(), guard=guard)
        answer = do(job, _compiled_for(job, engine), address, host)
    except QuadbenchError as error:
        log.warning("failed: %s", error)
        reason, is_transient = str(error), error.transient or isinstance(error, (DeviceError, StorageError))
        return lambda account: jobs.fail(job, reason, is_transient=is_transient, account=account), None
    except KeyboardInterrupt:
        log.info("stopped")
        return lambda account: jobs.give_back(job, "it was told to stop", account=account), None
    return lambda account: jobs.finish(job, account), as_json(answer) if answer else None


def _compiled_for(job: Job, engine: sa.Engine) -> list[CompileAnswer]:
    needed = [other for other in listed_jobs(engine, job.run_id).jobs if other.id in job.after and other.kind is JobKind.COMPILE]
    raw = answers(engine, needed)
    return [answer_of(other, raw.get(other.id), CompileAnswer) for other in needed]


def _end(ending: Ending, answer: dict[str, object] | None, lines: LogLines) -> int:
    """Store an attempt's outcome, and return its exit code. If the database is unreachable, retry for one lease duration."""
    deadline = time.monotonic() + lease_time_s()
    while True:
        try:
            return exit_code(ending(Account(answer=answer, lines=lines.text())))
        except AttemptOverError as error:
            log.warning("%s", error)
            return TRY_AGAIN
        except StorageError as error:
            if time.monotonic() > deadline:
                log.error("the end of the attempt is not stored: %s", error)
                return TRY_AGAIN
            log.warning("the end of the attempt is not stored yet: %s", error)
            time.sleep(_PAUSE_S)
