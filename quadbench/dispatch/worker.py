"""The worker process: claim jobs for this host's devices, run each in its own process, and stop on request."""

import logging
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from typing import Protocol

import sqlalchemy as sa

from quadbench.errors import AttemptOverError, StorageError
from quadbench.farm.job import Job
from quadbench.farm.job_status import asked_to_stop
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import lease_time_s
from quadbench.farm.need import capability_need, needs_served
from quadbench.farm.scheduler import Seat
from quadbench.farm.workers import NewWorker, WorkerDevice, Workers
from quadbench.host import signal_name

LOOK_S = 1.0  # interval between polls of the queue
_BEATS = 4  # heartbeats in a lease's time, so that a single failure does no harm
_GRACE_S = 5.0  # for a process to exit after its outcome was stored
_AWAY_S = 5.0  # pause while the database is unreachable

log = logging.getLogger(__name__)

Start = Callable[[Job, str], subprocess.Popen[bytes]]


class Meter(Protocol):
    """The interface through which a worker counts attempts for its metrics."""

    def begun(self, job: Job) -> None: ...

    def ended(self, job: Job, seconds: float) -> None: ...


@dataclass(frozen=True, kw_only=True)
class _Last:
    """The job that ended last on a device or host: bundle and target (`affinity`), and end time (`at`) in monotonic seconds."""

    affinity: str
    at: float


@dataclass(kw_only=True)
class _Running:
    """A running attempt at a job. `interrupts` counts how often its process was asked to stop."""

    job: Job
    process: subprocess.Popen[bytes]
    ended: int  # a descriptor that becomes readable when the process ends
    begun: float
    beat: float
    interrupts: int = 0
    is_over: bool = False  # the queue refused its renewal: its outcome is stored, or its lease was lost

    def interrupt(self, times: int) -> None:
        """Send SIGINT to the process, at most `times` in total. One ends the process after the current launch, two end it now."""
        if self.interrupts < times:
            self.interrupts += 1
            self.process.send_signal(signal.SIGINT)


class Devices(Protocol):
    """The interface through which a worker lists its host's ready devices: all (`present`) or those free for jobs (`free`)."""

    @property
    def present(self) -> tuple[WorkerDevice, ...]: ...

    def free(self) -> Sequence[WorkerDevice]: ...


class Worker:
    """The worker of one host. `start` takes a job and a device address, starts a process for the job, and returns the process."""

    def __init__(self, itself: NewWorker, engine: sa.Engine, devices: Devices, start: Start, meter: Meter) -> None:
        self._itself, self._devices, self._start, self._meter = itself, devices, start, meter
        self._engine, self._queue, self._workers = engine, JobQueue(engine), Workers(engine)
        self._running: dict[str, _Running] = {}  # by seat
        self._last: dict[str, _Last] = {}
        self._stops = 0
        self._told_at = -math.inf

    def stop(self) -> None:
        """Claim no more jobs. Running jobs return to the queue after their current launch, or at once after a second call."""
        self._stops += 1

    def work(self) -> None:
        """Run jobs until `stop` is called and their processes end. Without a database at the end, failures go unrecorded."""
        while not (self._stops and not self._running):
            pause_s = LOOK_S
            try:
                self._tell()
                self._clear()
                self._give_signs_of_life()
                if not self._stops:
                    self._begin()
            except StorageError as error:
                log.warning("the queue is not reached: %s", error)
                pause_s = _AWAY_S
                if self._stops and not self._alive:
                    log.warning("stopped with %d attempts that end with their leases", len(self._running))
                    break
            connection.wait([one.ended for one in self._alive], pause_s)
            for one in self._running.values():
                one.interrupt(self._stops)
        with suppress(StorageError):
            self._workers.leave(self._itself.name)

    @property
    def _alive(self) -> list[_Running]:
        """Return the attempts whose processes are still running."""
        return [one for one in self._running.values() if one.process.poll() is None]

    def _tell(self) -> None:
        """Store a heartbeat and the device list in the database when due. If the worker is marked as draining, claim no jobs."""
        if time.monotonic() - self._told_at < lease_time_s() / _BEATS:
            return
        is_to_drain = self._workers.note(replace(self._itself, devices=self._devices.present))
        if reason := self._workers.why_idle(self._itself):
            log.warning("%s", reason)
        if is_to_drain and not self._stops:
            self.stop()
        self._told_at = time.monotonic()

    def _begin(self) -> None:
        """Claim jobs from the queue for this host's free devices and capabilities, and start a process for each job."""
        free = {device.name: device for device in self._devices.free() if device.name not in self._running}
        room = f"room@{self._itself.host}"
        seats = [self._seat(device.name, needs_served(device.name, device.labels)) for device in free.values()]
        if self._itself.capabilities and room not in self._running:
            seats.append(self._seat(room, frozenset(map(capability_need, self._itself.capabilities))))
        for job in self._queue.claim(self._itself.name, self._itself.version, seats) if seats else ():
            seat = job.seat or ""
            address = free[seat].address if seat in free else ""
            process, now = self._start(job, address), time.monotonic()
            self._running[seat] = _Running(job=job, process=process, ended=os.pidfd_open(process.pid), begun=now, beat=now)
            self._meter.begun(job)
            log.info("job %d of run %s begins at %s, attempt %d", job.id, job.run_id, job.seat, job.attempt)

    def _seat(self, name: str, serves: frozenset[str]) -> Seat:
        last = self._last.get(name, _Last(affinity="", at=-math.inf))
        return Seat(name=name, serves=serves, rested_s=time.monotonic() - last.at, affinity=last.affinity)

    def _clear(self) -> None:
        """Forget attempts whose processes have ended. In the queue, record an attempt as failed if its exit code is not 0."""
        for seat, one in list(self._running.items()):
            if (code := one.process.poll()) is None:
                continue
            if code != 0:
                with suppress(AttemptOverError):
                    self._queue.fail(one.job, f"its process ended with {_code(code)}", is_transient=True)
            now = time.monotonic()
            self._meter.ended(one.job, now - one.begun)
            self._last[seat] = _Last(affinity=one.job.affinity, at=now)
            del self._running[seat]
            os.close(one.ended)

    def _give_signs_of_life(self) -> None:
        """Renew the leases of running attempts when due. Interrupt cancelled jobs, and kill attempts whose lease is lost."""
        cancelled = asked_to_stop(self._engine, self._itself.name) if self._running else ()
        for one in self._running.values():
            if one.job.id in cancelled:
                one.interrupt(1)
            if time.monotonic() - one.beat < lease_time_s() / _BEATS:
                continue
            try:
                self._queue.renew(one.job)
                one.beat = time.monotonic()
            except AttemptOverError as error:
                if one.is_over:
                    log.warning("%s", error)
                    one.process.kill()
                one.is_over, one.beat = True, one.beat + _GRACE_S


def _code(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code} ({signal_name(-code)})"
