"""An order file that HTCondor brings -> a scripted attempt: it leases its device, is there for a while, and stores one record.

The device is that of the slot, which the job's environment names. The job is fenced by its name alone: there is no queue of ours.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from quadbench.artifacts import SCHEMA_VERSION
from quadbench.dispatch.attempt import stopped_when_over
from quadbench.farm.fence import take_fence
from quadbench.farm.leases import Leases, lease_time_s
from quadbench.host import python_module, start_child
from quadbench.results.documents import read_document
from quadbench.results.engine import Source, begin_write, open_engine
from quadbench.results.records import RecordStore
from support.condor_pool import CondorPool
from support.stored_records import record

DEVICE = "QUADBENCH_TEST_DEVICE"  # the environment variable that brings a job its device
_BEATS = 4  # signs of life in the time of a lease, as a run gives them


@dataclass(frozen=True, kw_only=True)
class ScriptedOrder:
    """A job's number in its run, how long it is at its device, and the file that gets a line: number, device, from and until."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    number: int
    owner: str
    seconds: float
    database: str
    times: Path


@contextmanager
def attempt_server(pool: CondorPool, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the attempt server of a pool's host under the name of the pool's user: it serves nobody else."""
    words = python_module("quadbench.dispatch.attempt_server", name, f"{__name__}:{make_attempt.__name__}")
    server = start_child(pool.as_user(*words), stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline(), "the attempt server does not start"
        time.sleep(5)  # it has made its imports
        yield server
    finally:
        server.kill()
        server.communicate()


def make_attempt(path: str) -> int:
    """Make the attempt of an order: a record is that of launch `number`, so that one which is stored twice is seen."""
    order, device = read_document(Path(path), ScriptedOrder), os.environ[DEVICE]
    with closing(RecordStore(open_engine(_source(order.database)))) as records:
        with begin_write(records.engine) as connection:
            fence = take_fence(connection, f"{order.run_id}/{order.number}")
        leases = Leases(records.engine)
        with stopped_when_over(records.engine, fence.check):
            lease = leases.take(device, order.owner, "a script")
            began = time.time()
            ends_at = time.monotonic() + order.seconds
            while (left_s := ends_at - time.monotonic()) > 0:
                time.sleep(min(left_s, lease_time_s() / _BEATS))
                leases.renew(lease)
            ended = time.time()

            def guard(connection: sa.Connection) -> None:
                fence.check(connection)
                leases.check(connection, lease)

            mine = record(f"{order.run_id}-{order.number}-{fence.token}")
            records.store(replace(mine, run_id=order.run_id, launch=order.number), guard)
            leases.end(lease)
    with order.times.open("a") as times:
        times.write(f"{order.number} {device} {began:.6f} {ended:.6f}\n")
    return 0


def stored_launches(database: str, run_id: str) -> Sequence[int]:
    """Return the launches of a run's records, each as often as it is stored."""
    with closing(RecordStore(open_engine(_source(database)))) as records:
        return [stored.launch for stored in records.run_records_if_any(run_id)]


def _source(database: str) -> Source:
    return database if "://" in database else Path(database)
