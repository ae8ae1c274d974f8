"""Scripted jobs: a host whose phones are always there and nobody's; attempts lease one for a while and store one record."""

import logging
import os
import shlex
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from quadbench.devices.lab.leases import Leases, lease_time_s
from quadbench.dispatch.attempt import LOG_NAME, exit_code, log_attempt, read_order, stopped_when_over
from quadbench.errors import AttemptOverError, LeaseError, QuadbenchError, StorageError
from quadbench.farm.dag import TRY_AGAIN
from quadbench.farm.job import Job
from quadbench.farm.jobs import FarmJobs, locked_attempt
from quadbench.farm.slots import Bay, Bays, needs_served
from quadbench.host import host_name, python_module
from quadbench.results.documents import adapter_of
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout
from quadbench.results.records import Guard, RecordStore
from support.stored_records import record

SCRIPT = "QUADBENCH_TEST_SCRIPT"  # the environment variable that brings an attempt its script
VERSION = "1"
_BEATS = 4  # signs of life in the time of a lease, as a run gives them

log = logging.getLogger("quadbench")


@dataclass(frozen=True, kw_only=True)
class Script:
    """What each attempt does. `seconds` is how long it is at the device; it fails, or crashes, the first so many times."""

    seconds: float = 0.0
    failures: int = 0
    crashes: int = 0

    def carry_out(self, job: Job, address: str, records: RecordStore, guard: Guard) -> Job:
        """Make an attempt; its record is that of launch `job.id`, so that one which is stored twice is seen."""
        jobs, leases = FarmJobs(records.engine), Leases(records.engine)
        if job.attempt <= self.crashes:
            os._exit(3)
        if job.attempt <= self.failures:
            return jobs.fail(job, "the cable was pulled", is_transient=True)
        with stopped_when_over(records.engine, guard):
            try:
                self._measure(job, records, leases, guard)
            except (LeaseError, StorageError) as error:
                log.warning("failed: %s", error)
                return jobs.fail(job, str(error), is_transient=True)
            except KeyboardInterrupt:
                return jobs.give_back(job, "it was told to stop")
            return jobs.finish(job, {"address": address}, "did it")

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


def make_attempt(path: str) -> int:
    """Make the attempt whose job's ad is the file `path`, by the script of the environment."""
    try:
        start, address, results = read_order(Path(path))
        layout = Layout(results)
        with closing(RecordStore(open_engine(database_of(layout)))) as records:
            job = FarmJobs(records.engine).begin(start)
            log_attempt(layout.root / LOG_NAME, job)
            if job.state.is_end:
                return exit_code(job)
            script = adapter_of(Script).validate_json(os.environ[SCRIPT])
            return exit_code(script.carry_out(job, address, records, partial(locked_attempt, attempt=job)))
    except AttemptOverError as error:
        log.warning("%s", error)
        return TRY_AGAIN
    except QuadbenchError as error:
        log.warning("failed: %s", error)
        return TRY_AGAIN


def phones(count: int, name: str) -> list[Bay]:
    """Return the bays of so many phones, one as the other."""
    bays = []
    for number in range(count):
        labels = {"name": f"s25@{name}-{number}", "profile": "s25", "serial": f"{name}-{number}"}
        serial = labels["serial"]
        bays.append(Bay(name=serial, address=labels["name"], serves=needs_served(serial, labels), labels=labels))
    return bays


def describe_host(count: str, version: str) -> None:
    """Print the ads of a host with so many phones every second, as `farm host` does."""
    bays, mine = Bays(int(count)), phones(int(count), host_name())
    while True:
        sys.stdout.write(bays.ads(mine, version))
        sys.stdout.flush()
        time.sleep(1)


def scripted_settings(folder: Path, log: Path, count: int, version: str = VERSION) -> dict[str, str]:
    """Return HTCondor's settings of a host with so many phones and scripted attempts. Write the two programs into `folder`."""
    describe = shlex.join(python_module(__name__, str(count), version))
    attempt = shlex.join(python_module(__name__))  # in place of Python: the sixth word is the file of the job's ad
    for name, command in (("slots", f"exec {describe} 2>>{log}"), ("attempt", f'exec {attempt} "$6" 2>>{log}')):
        (folder / f"scripted-{name}").write_text(f"#!/bin/sh\n{command}\n")
        (folder / f"scripted-{name}").chmod(0o700)
    slots, python = folder / "scripted-slots", folder / "scripted-attempt"
    return {"STARTD_CRON_QUADBENCH_EXECUTABLE": str(slots), "QuadbenchPython": f'"{python}"'}


if __name__ == "__main__":
    match sys.argv[1:]:
        case [count, version]:
            describe_host(count, version)
        case [path]:
            raise SystemExit(make_attempt(path))
