"""A farm's phones and jobs in PostgreSQL -> what a host's look, an attempt at a job, and its signs of life cost there.

    python bench/farm_database.py --phones 1000 10000

A look is what a host asks and stores every ten seconds to describe its 16 phones. An attempt begins, leases its phone, stores
launches, ends the lease and the job; files and the device are left out. A sign of life is the guard's transaction and the
renewal of a lease, together. Each number of phones has a database of its own, whose phones are all leased and have had ten jobs
each. The server commits to disk, as it does by default. The time of the server is CPU time of its processes, with ended ones.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa
from engine import cpu_under, others_busy  # it also puts tests/ on the path
from support import postgresql_server
from support.stored_records import record

from quadbench.devices.lab.inventory import Inventory, Sighting
from quadbench.devices.lab.leases import Leases
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.farm.job_status import answers, job_counts, last_jobs, listed_jobs
from quadbench.farm.jobs import FarmJobs, Start, locked_attempt
from quadbench.farm.slots import device_need
from quadbench.results.engine import begin_write, open_engine
from quadbench.results.records import RecordStore
from quadbench.results.schema import JobRow, LeaseRow

EACH_HOST, JOBS_EACH, OWNER = 16, 10, "ann"
TIMES, LAUNCHES = 100, 10
BATCH = 20_000  # jobs of a run


def main() -> None:
    """Print a line for each number of phones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--phones", type=int, nargs="+", default=[1000])
    options = parser.parse_args()
    postgresql_server._QUICK = ("max_connections=200",)  # commits reach the disk
    for phones in options.phones:
        with postgresql_server.running_postgresql() as server:
            assert server._process
            engine = open_engine(server.new_database_with_tables())
            filled(engine, phones)
            server.execute("CHECKPOINT")
            figures = Costs(engine, server._process.pid).figures(phones)
        print(json.dumps({"phones": phones, **figures}), flush=True)  # noqa: T201


def filled(engine: sa.Engine, phones: int) -> None:
    """Store phones, a lease and ten ended jobs of each."""
    inventory, leases = Inventory(engine), Leases(engine)
    inventory.note_seen([sighting(number) for number in range(phones)])
    leases.take(device(0), OWNER, "a job", 3600)
    with begin_write(engine) as connection:
        lease = connection.execute(sa.select(*LeaseRow.__table__.columns)).mappings().one()
        connection.execute(sa.insert(LeaseRow), [{**lease, "device": device(number)} for number in range(1, phones)])
    for first in range(0, phones * JOBS_EACH, BATCH):
        jobs = [new_job(number) for number in range(first, min(first + BATCH, phones * JOBS_EACH))]
        FarmJobs(engine).submit(f"past-{first}", jobs, OWNER, "1", lambda _: None)
    seat = sa.func.substr(JobRow.needs, len(device_need("")) + 1)
    with begin_write(engine) as connection:
        times = {"started_at": datetime.now(UTC), "ended_at": datetime.now(UTC)}
        connection.execute(sa.update(JobRow).values(state="done", seat=seat, attempt=1, **times))
        connection.execute(sa.text("ANALYZE"))  # as the server does by itself, sooner or later


class Costs:
    """The costs of what hosts and attempts do in a database, by the CPU time of the server and of this process."""

    def __init__(self, engine: sa.Engine, server: int) -> None:
        self._engine, self._server = engine, server

    def figures(self, phones: int) -> dict[str, object]:
        engine, others = self._engine, others_busy()
        inventory, leases, jobs = Inventory(engine), Leases(engine), FarmJobs(engine)
        some = [sighting(number) for number in range(EACH_HOST)]
        seats = [one.device for one in some]
        stored = jobs.submit("now", [new_job(number) for number in range(TIMES)], OWNER, "1", lambda _: None)
        figures = {
            "look": self._cost(
                lambda _: (inventory.note_seen(some), inventory.phones(seats), leases.standing(seats), last_jobs(engine, seats))
            ),
            "look_phones": self._cost(lambda _: inventory.phones(seats)),
            "look_leases": self._cost(lambda _: leases.standing(seats)),
            "look_last_jobs": self._cost(lambda _: last_jobs(engine, seats)),
            "attempt": self._cost(lambda number: attempt(engine, stored[number], f"unleased-{number}")),
        }
        (new,) = jobs.submit("beat", [new_job(0)], OWNER, "1", lambda _: None)
        job = jobs.begin(Start(job=new.id, run=new.run_id, number=1, seat="a", host="h"))
        lease = leases.take("a", OWNER, "a job", 3600)

        def sign_of_life(_: int) -> None:
            with begin_write(engine) as connection:
                locked_attempt(connection, job)
            leases.renew(lease, 3600)

        figures["sign_of_life"] = self._cost(sign_of_life)
        figures["counts"] = self._cost(lambda _: job_counts(engine))
        return {"at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "others_during": round(others(), 2), **figures}

    def _cost(self, act: Callable[[int], object]) -> dict[str, float]:
        """Return the milliseconds of one act, of many: those that pass, and CPU time of the server and of this process."""
        server_s, own_s, began = cpu_under(self._server), time.process_time(), time.monotonic()
        for number in range(TIMES):
            act(number)
        spans = {
            "ms": time.monotonic() - began,
            "server_cpu_ms": cpu_under(self._server) - server_s,
            "own_cpu_ms": time.process_time() - own_s,
        }
        return {name: round(1000 * span_s / TIMES, 2) for name, span_s in spans.items()}


def attempt(engine: sa.Engine, new: Job, seat: str) -> None:
    """Begin and finish a job, with a lease and launches, by the transactions of `quadbench farm attempt`."""
    jobs, leases, inventory = FarmJobs(engine), Leases(engine), Inventory(engine)
    job = jobs.begin(Start(job=new.id, run=new.run_id, number=1, seat=seat, host="host0"))
    answers(engine, [other for other in listed_jobs(engine, job.run_id) if other.id in job.after])
    lease = leases.take(seat, OWNER, "a job")
    with closing(RecordStore(engine)) as records:
        for launch in range(LAUNCHES):
            one = replace(record(f"{job.run_id}-{job.id}-{launch}"), run_id=job.run_id, launch=launch)
            records.store(records.in_database_time(one), partial(locked_attempt, attempt=job))
    inventory.note_seen([replace(sighting(0), device=seat)])
    leases.end(lease)
    jobs.finish(job)


def new_job(number: int) -> NewJob:
    return NewJob(kind=JobKind.MEASURE, needs=device_need(device(number // JOBS_EACH)), affinity="bundle")


def device(number: int) -> str:
    return f"R{number:05}"


def sighting(number: int) -> Sighting:
    name = device(number)
    facts = {"model": "SM-S938B", "profile": "s25", "chip": "SM8750", "android_release": "15", "abi": "arm64-v8a"}
    return Sighting(device=name, address=name, serial=name, state="device", host=f"host{number // EACH_HOST}", **facts)


if __name__ == "__main__":
    main()
