"""Execute one job that a worker has claimed, in a process of its own, and store the job's outcome.

A separate process isolates each attempt: a crash, hang or leak affects no other, and all attempts end with their worker.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from quadbench.dispatch.duties import Host, do
from quadbench.dispatch.log_lines import LogLines, LogObserver, log_to_stderr
from quadbench.dispatch.orders import CompileAnswer, answer_of, as_json
from quadbench.errors import AttemptOverError, DeviceError, QuadbenchError, StorageError
from quadbench.farm.accounts import answers
from quadbench.farm.job import Account, Job, JobKind
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import lease_time_s
from quadbench.farm.store.opening import Source as StoreSource
from quadbench.farm.store.opening import open_store
from quadbench.host import end_with_parent
from quadbench.results.engine import Source, open_engine
from quadbench.results.layout import Layout

_PAUSE_S = 2.0  # between retries to store an attempt's outcome

log = logging.getLogger(__name__)
Ending = Callable[[Account], object]


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """The environment in which a worker's jobs run: this host's results folder, and the farm's database and store."""

    layout: Layout
    database: Source
    store: StoreSource
    logs_json: bool = False

    def carry_out(self, job: Job, address: str) -> None:
        """Execute a job in this process, which runs nothing else, and store the outcome. `address` is its device's, or empty."""
        os.setsid()  # Ctrl-C goes to the worker, which signals its attempts
        end_with_parent()
        engine = open_engine(self.database)
        try:
            lines = log_to_stderr(job, as_json=self.logs_json)
            ending, answer = self._made(job, address, engine)
            _end(ending, answer, lines)
        finally:
            engine.dispose()

    def _made(self, job: Job, address: str, engine: sa.Engine) -> tuple[Ending, dict[str, object] | None]:
        """Execute the job. Return a function that stores the outcome, and the job's result as JSON data."""
        queue = JobQueue(engine)
        try:
            guard = partial(queue.check, attempt=job)
            host = Host(layout=self.layout, store=open_store(self.store), observer=LogObserver(), guard=guard)
            answer = do(job, _compiled_for(job, engine), address, host)
        except QuadbenchError as error:
            log.warning("failed: %s", error)
            reason, is_transient = str(error), may_pass(error)
            return lambda account: queue.fail(job, reason, is_transient=is_transient, account=account), None
        except KeyboardInterrupt:
            log.info("stopped")
            return lambda account: queue.give_back(job, "its worker was told to stop", account=account), None
        return lambda account: queue.finish(job, account), as_json(answer) if answer else None


def may_pass(error: QuadbenchError) -> bool:
    """Return True if the error is transient, so that a retry may help: a device, lease, disk, store or database failed."""
    return error.transient or isinstance(error, (DeviceError, StorageError))


def _compiled_for(job: Job, engine: sa.Engine) -> list[CompileAnswer]:
    needed = [other for other in listed_jobs(engine, job.run_id).jobs if other.id in job.after and other.kind is JobKind.COMPILE]
    raw = answers(engine, needed)
    return [answer_of(other, raw.get(other.id), CompileAnswer) for other in needed]


def _end(ending: Ending, answer: dict[str, object] | None, lines: LogLines) -> None:
    """Store an attempt's outcome. While the database is unreachable, try again as long as the attempt's lease lasts.

    Raises:
        SystemExit: the database was unreachable for all that time.
    """
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
