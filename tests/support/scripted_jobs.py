"""Scripted jobs: attempts that lease a device, are at it for a while, store one record and end, without any device."""

import time
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import sqlalchemy as sa

from quadbench.errors import LeaseError, StorageError
from quadbench.farm.job import Account, Job
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import Leases, lease_time_s
from quadbench.farm.workers import WorkerDevice
from quadbench.host import end_with_parent
from quadbench.results.engine import Source, open_engine
from quadbench.results.records import RecordStore
from support.stored_records import record

_BEATS = 4  # signs of life in the time of a lease, as a run gives them


@dataclass(frozen=True, kw_only=True)
class Script:
    """What each attempt does. `seconds` is how long it is at the device; it fails, or crashes, the first so many times."""

    database: Source
    seconds: float = 0.0
    failures: int = 0
    crashes: int = 0

    def carry_out(self, job: Job, address: str) -> None:
        """Make an attempt; its record is that of launch `job.id`, so that one which is stored twice is seen."""
        end_with_parent()
        with closing(RecordStore(open_engine(self.database))) as records:
            queue, leases = JobQueue(records.engine), Leases(records.engine)
            if job.attempt <= self.crashes:
                raise SystemExit(3)
            if job.attempt <= self.failures:
                queue.fail(job, "the cable was pulled", is_transient=True)
                return
            try:
                self._measure(job, records, queue, leases)
            except LeaseError as error:
                queue.fail(job, str(error), is_transient=True)
                return
            queue.finish(job, Account(answer={"address": address}, lines="did it"))

    def _measure(self, job: Job, records: RecordStore, queue: JobQueue, leases: Leases) -> None:
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
            queue.check(connection, job)
            leases.check(connection, lease)

        records.store(mine, guard)
        leases.end(lease)


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
