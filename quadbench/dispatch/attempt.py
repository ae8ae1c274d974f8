"""Execute one job that a worker has claimed, in a process of its own, and store the job's outcome.

A separate process isolates each attempt: a crash, hang or leak affects no other, and all attempts end with their worker.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from quadbench.artifacts import SCHEMA_VERSION
from quadbench.dispatch.duties import Host, do
from quadbench.dispatch.log_lines import LogLines, LogObserver, log_to_stderr
from quadbench.dispatch.orders import CompileAnswer, answer_of, as_json
from quadbench.errors import AttemptOverError, DeviceError, QuadbenchError, StorageError
from quadbench.farm.accounts import answers
from quadbench.farm.fence import take_fence
from quadbench.farm.job import Account, Job, JobKind
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import lease_time_s
from quadbench.farm.store.opening import required_store
from quadbench.host import background
from quadbench.results.documents import read_document
from quadbench.results.engine import begin_write, database_of, open_engine
from quadbench.results.layout import Layout

_PAUSE_S = 2.0  # between retries to store an attempt's outcome
_TICK_S = 1.0  # between looks at the clock, which show that the process stood still
_STOOD_STILL_S = 2.0
_BEATS = 4  # looks at the database in a lease's time

log = logging.getLogger(__name__)
Ending = Callable[[Account], object]
Guard = Callable[[sa.Connection], None]


@dataclass(frozen=True, kw_only=True)
class AttemptOrder:
    """The content of an attempt's order file: the job to execute, the device's address ("" if none) and the results folder.

    The database and the store are those of the environment.
    """

    schema_version: int = SCHEMA_VERSION
    job: Job
    address: str
    results: Path
    logs_json: bool = False


def make_attempt(path: str) -> int:
    """Execute the job in the order file `path`. Return 0 even if the job fails, and a nonzero exit code if it cannot begin.

    Raises:
        SystemExit: the database was unreachable for a lease's time when the outcome was to be stored.
    """
    with ExitStack() as stack:
        try:
            order = read_document(Path(path), AttemptOrder)
            lines = log_to_stderr(order.job, as_json=order.logs_json)
            layout = Layout(order.results)
            engine = open_engine(database_of(layout))
            stack.callback(engine.dispose)
            guard = take_guard(engine, order.job)
        except QuadbenchError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
        with stopped_when_over(engine, guard):
            ending, answer = _made(order, layout, engine, guard)
        _end(ending, answer, lines)
    return 0


def take_guard(engine: sa.Engine, job: Job) -> Guard:
    """Record an attempt's start in the database. Return a function that takes a database connection and returns None.
    The function raises AttemptOverError if the attempt is over, for example because a later attempt at the job has begun.

    Raises:
        StorageError, ArtifactError: the database cannot be used.
    """
    queue = JobQueue(engine)
    with begin_write(engine) as connection:
        queue.check(connection, job)  # an attempt that starts late takes no number from the one that runs
        fence = take_fence(connection, f"{job.run_id}/{job.id}")

    def guard(connection: sa.Connection) -> None:
        queue.check(connection, job)
        fence.check(connection)

    return guard


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


def _made(order: AttemptOrder, layout: Layout, engine: sa.Engine, guard: Guard) -> tuple[Ending, dict[str, object] | None]:
    """Execute a job. Return a pair: a function that stores the outcome, and the result as a JSON object (None if there is none).
    The function takes an Account (a job's result and log). Its return value is unused.
    """
    queue, job = JobQueue(engine), order.job
    try:
        host = Host(layout=layout, store=required_store(), observer=LogObserver(), guard=guard)
        answer = do(job, _compiled_for(job, engine), order.address, host)
    except QuadbenchError as error:
        log.warning("failed: %s", error)
        reason, is_transient = str(error), may_pass(error)
        return lambda account: queue.fail(job, reason, is_transient=is_transient, account=account), None
    except KeyboardInterrupt:
        log.info("stopped")
        return lambda account: queue.give_back(job, "its worker was told to stop", account=account), None
    return lambda account: queue.finish(job, account), as_json(answer) if answer else None


def may_pass(error: QuadbenchError) -> bool:
    """Return True if a retry may help: the error is marked transient, or is a DeviceError or StorageError."""
    return error.transient or isinstance(error, (DeviceError, StorageError))


def _compiled_for(job: Job, engine: sa.Engine) -> list[CompileAnswer]:
    needed = [other for other in listed_jobs(engine, job.run_id).jobs if other.id in job.after and other.kind is JobKind.COMPILE]
    raw = answers(engine, needed)
    return [answer_of(other, raw.get(other.id), CompileAnswer) for other in needed]


def _end(ending: Ending, answer: dict[str, object] | None, lines: LogLines) -> None:
    """Store an attempt's outcome. If the database is unreachable, retry for one lease duration, then raise SystemExit."""
    deadline = time.monotonic() + lease_time_s()
    while True:
        try:
            ending(Account(answer=answer, lines=lines.text()))
            return
        except AttemptOverError as error:
            log.warning("%s", error)
            return
        except StorageError as error:
            if time.monotonic() > deadline:
                log.error("the end of the attempt is not stored: %s", error)
                raise SystemExit(error.exit_code) from error
            log.warning("the end of the attempt is not stored yet: %s", error)
            time.sleep(_PAUSE_S)
