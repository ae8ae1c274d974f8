"""Scripted devices as slots of a test pool, and attempts of the product at them, of which only the device is left out.

The slots are described by a program, as `quadbench farm host` describes them. The jobs of an owner are a DAG of quadbench.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from quadbench.devices.lab.leases import Leases, lease_time_s
from quadbench.devices.lab.selection import Wish
from quadbench.dispatch import attempt
from quadbench.dispatch.duties import Host
from quadbench.dispatch.orders import CompileAnswer
from quadbench.farm.condor import Condor
from quadbench.farm.dag import submit_dag
from quadbench.farm.job import Job, JobKind, JobState, NewJob
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.pool_setup import PoolRole, PoolSettings, _configuration
from quadbench.farm.slots import Bay, Bays, device_need, needs_served, wish_need
from quadbench.host import python_module, start_child
from quadbench.results.engine import Source, database_of, open_engine
from quadbench.results.records import RecordStore
from support.condor_pool import CondorPool
from support.device_stays import devices
from support.stored_records import record

VERSION = "1"  # of quadbench, in ads and jobs
PROFILE = "s25"
_BEATS = 4  # signs of life in the time of a lease, as a run gives them
_LOOK_S = 10.0  # interval of the ads, as a host's
_stayed: list[Path] = []  # the file of times, once this process has been at its device
_OF_ROLES = "# The head matches"  # begins the settings of roles in a configuration


@dataclass(frozen=True, kw_only=True)
class OwnersPool(Condor):
    """A test pool as one of its owners uses it."""

    pool: CondorPool
    owner: str

    def run(self, tool: str, *words: str, folder: Path | None = None, as_host: bool = False) -> str:
        return self.pool.tool(tool, *words, owner=self.owner, folder=folder)


def pool_settings(folder: Path, count: int, server: str) -> dict[str, str]:
    """Return the settings that `quadbench farm init` writes for head and host, for a pool in `folder` with scripted devices."""
    folder.mkdir()
    program = folder / "describe-slots"
    program.write_text(f"#!/bin/sh\nexec {' '.join(python_module(__name__, str(count), server))}\n")
    program.chmod(0o755)
    roles = (PoolRole.HEAD, PoolRole.HOST)
    whole = _configuration(folder, PoolSettings(roles=roles, slots=count, results=folder.with_name("results")))
    lines = (line.partition(" = ") for line in whole.partition(_OF_ROLES)[2].splitlines())
    return {name: value for name, equals, value in lines if equals and name != "CLAIM_WORKLIFE"}


def wait_for_slots(pool: CondorPool, count: int, patience_s: float = 120.0) -> None:
    """Wait until the collector knows every slot as ready."""
    deadline = time.monotonic() + patience_s
    while sum(slot.get("SlotReady") is True for slot in pool.slots("SlotReady")) < count:
        assert time.monotonic() < deadline, "the slots are not described"
        time.sleep(1)


def submit_stays(
    pool: CondorPool, owner: str, database: str, run_id: str, needs: Mapping[int, str], seconds: float, times: Path
) -> None:
    """Submit an owner's jobs, each by its number and need, as a run. Each is at its device for so many seconds."""
    jobs = [
        NewJob(kind=JobKind.MEASURE, needs=need, payload={"number": number, "seconds": seconds, "times": str(times)})
        for number, need in needs.items()
    ]
    condor = OwnersPool(configuration=pool.folder / "condor_config", pool=pool, owner=owner)

    def send(stored: Sequence[Job]) -> None:
        submit_dag(condor, run_id, stored)

    engine = open_engine(_source(database))
    FarmJobs(engine).submit(run_id, jobs, owner, VERSION, send)
    engine.dispose()


def farm_need(requirement: Mapping[str, str]) -> str:
    """Return the need of a farm's job that requires a device by its serial, one with a chip, or any."""
    if serial := requirement.get("PhoneSerial"):
        return device_need(serial)
    key, value = ("chip", requirement["PhoneChip"]) if requirement else (None, PROFILE)
    return wish_need(Wish(word="", key=key, value=value, count=1))


def failures(database: str, run_id: str) -> list[str]:
    """Return why jobs of a run are not done."""
    engine = open_engine(_source(database))
    jobs = listed_jobs(engine, run_id).jobs
    engine.dispose()
    return [f"job {job.id} is {job.state}: {job.reason}" for job in jobs if job.state is not JobState.DONE]


def stored_launches(database: str, run_id: str) -> Sequence[int]:
    """Return the launches of a run's records, each as often as it is stored."""
    with closing(RecordStore(open_engine(_source(database)))) as records:
        return [stored.launch for stored in records.run_records_if_any(run_id)]


@contextmanager
def attempt_server(pool: CondorPool, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the attempt server of a pool's host under the name of the pool's user: it serves nobody else."""
    words = python_module("quadbench.dispatch.attempt_server", name, f"{__name__}:{make_attempt.__name__}")
    server = start_child(pool.as_user(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline(), "the attempt server does not start"
        time.sleep(5)  # it has made its imports
        yield server
    finally:
        server.kill()
        server.communicate()


def make_attempt(path: str) -> int:
    """Make an attempt as the product does, at a device that is only leased."""
    attempt.do = _stay  # type: ignore[attr-defined]  # where the product's module looks it up
    code = attempt.make_attempt(path)
    for times in _stayed:
        with cpu_file(times).open("a") as file:
            file.write(f"{time.process_time():.3f}\n")
    return code


def cpu_file(times: Path) -> Path:
    """Return the file that gets the CPU seconds of each attempt, beside that of its times."""
    return times.with_name("cpu")


def _stay(job: Job, compiled: Sequence[CompileAnswer], address: str, host: Host) -> None:
    """Lease the job's device, be there for a while, and store one record: that of launch `number`, so that two are seen."""
    number, seconds = int(job.payload["number"]), float(job.payload["seconds"])
    with closing(RecordStore(open_engine(database_of(host.layout)))) as records:
        leases = Leases(records.engine)
        lease = leases.take(job.seat or "", job.owner, "a script")
        began, ends_at = time.time(), time.monotonic() + seconds
        while (left_s := ends_at - time.monotonic()) > 0:
            time.sleep(min(left_s, lease_time_s() / _BEATS))
            leases.renew(lease)
        ended = time.time()

        def guard(connection: sa.Connection) -> None:
            host.guard(connection)
            leases.check(connection, lease)

        records.store(replace(record(f"{job.run_id}-{job.id}-{job.attempt}"), run_id=job.run_id, launch=number), guard)
        leases.end(lease)
    _stayed.append(Path(job.payload["times"]))
    with _stayed[0].open("a") as times:
        times.write(f"{number} {job.seat} {began:.6f} {ended:.6f}\n")


def _source(database: str) -> Source:
    return database if "://" in database else Path(database)


def scripted_bays(count: int) -> list[Bay]:
    """Return so many scripted devices as bays."""
    bays = []
    for attributes in devices(count):
        serial = attributes["PhoneSerial"]
        labels = {"name": f"{PROFILE}@{serial}", "serial": serial, "profile": PROFILE, "chip": attributes["PhoneChip"]}
        bays.append(Bay(name=serial, address=labels["name"], serves=needs_served(serial, labels), labels=labels))
    return bays


def main(count: str, server: str) -> None:
    """Print the ads of so many scripted devices every ten seconds."""
    bays, slots = scripted_bays(int(count)), Bays(int(count))
    while True:
        sys.stdout.write(slots.ads(bays, VERSION, server))
        sys.stdout.flush()
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
