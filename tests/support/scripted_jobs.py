"""Scripted jobs: attempts that lease a device, are at it for a while, store one record and end, without any device."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from quadbench.dispatch.attempt import AttemptOrder, Guard, stopped_when_over, take_guard
from quadbench.dispatch.attempts import Attempts, serving_attempts
from quadbench.dispatch.log_lines import log_to_stderr
from quadbench.errors import LeaseError, StorageError
from quadbench.farm.job import Account, Job
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import Leases, lease_time_s
from quadbench.farm.workers import WorkerDevice
from quadbench.results.documents import adapter_of, document_text, read_document
from quadbench.results.engine import Source, open_engine
from quadbench.results.records import RecordStore
from support.stored_records import record

SCRIPT = "QUADBENCH_TEST_SCRIPT"  # the environment variable that brings an attempt its script
_BEATS = 4  # signs of life in the time of a lease, as a run gives them


@dataclass(frozen=True, kw_only=True)
class Script:
    """What each attempt does. `seconds` is how long it is at the device; it fails, or crashes, the first so many times."""

    database: Source
    seconds: float = 0.0
    failures: int = 0
    crashes: int = 0

    @contextmanager
    def attempts(self) -> Iterator[Attempts]:
        """Serve attempts of this script, which reaches them by their environment."""
        with serving_attempts(Path("results"), runner=f"{__name__}:{make_attempt.__name__}") as attempts:
            script = document_text(replace(self, database=str(self.database)))
            yield replace(attempts, environment={**attempts.environment, SCRIPT: script})

    def carry_out(self, job: Job, address: str) -> None:
        """Make an attempt; its record is that of launch `job.id`, so that one which is stored twice is seen."""
        with closing(RecordStore(open_engine(self.database))) as records:
            queue, leases, guard = JobQueue(records.engine), Leases(records.engine), take_guard(records.engine, job)
            if job.attempt <= self.crashes:
                raise SystemExit(3)
            if job.attempt <= self.failures:
                queue.fail(job, "the cable was pulled", is_transient=True)
                return
            with stopped_when_over(records.engine, guard):
                try:
                    self._measure(job, records, leases, guard)
                except LeaseError as error:
                    queue.fail(job, str(error), is_transient=True)
                    return
                queue.finish(job, Account(answer={"address": address}, lines="did it"))

    def _measure(self, job: Job, records: RecordStore, leases: Leases, is_current: Guard) -> None:
        if job.id in {stored.launch for stored in records.run_records_if_any(job.run_id)}:
            return  # by an attempt that was cut off before it could end the job
        lease = leases.take(job.seat or "", job.owner, "a script")
        ends_at = time.monotonic() + self.seconds
        while (left_s := ends_at - time.monotonic()) > 0:
            time.sleep(min(left_s, lease_time_s() / _BEATS))
            with suppress(StorageError):
                leases.renew(lease)
        mine = replace(record(f"{job.run_id}-{job.id}-{job.attempt}"), run_id=job.run_id, launch=job.id)

        def guard(connection: sa.Connection) -> None:
            is_current(connection)
            leases.check(connection, lease)

        records.store(mine, guard)
        leases.end(lease)


def make_attempt(order: str) -> int:
    """Make the attempt of an order by the script of the environment."""
    read = read_document(Path(order), AttemptOrder)
    log_to_stderr(read.job, as_json=False)
    adapter_of(Script).validate_json(os.environ[SCRIPT]).carry_out(read.job, read.address)
    return 0


@dataclass(frozen=True)
class Phones:
    """Devices that are always there and nobody's."""

    present: tuple[WorkerDevice, ...]

    def free(self) -> tuple[WorkerDevice, ...]:
        return self.present


def phones(count: int, name: str = "phone") -> Phones:
    """Return so many phones, one as the other."""
    return Phones(
        tuple(
            WorkerDevice(name=serial, address=f"s25@{serial}", labels={"profile": "s25", "serial": serial})
            for serial in (f"{name}-{number}" for number in range(count))
        )
    )
