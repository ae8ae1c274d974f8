"""Jobs of a farm in its database, and ads of its slots -> what quadbench adds to the time that HTCondor takes.

    python bench/farm.py --devices 64 --jobs 512
    python bench/farm.py --database postgresql://quadbench@/bench

No pool runs: bench/engine.py measures one. As many threads as devices begin and finish the jobs, each with a lease and a record
between, and no time at the device. So all times are those of a database that everybody uses at once.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from threading import Lock
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.scripted_pool import ScriptedPool, phone
from support.stored_records import record

from quadbench.devices.lab.leases import Leases
from quadbench.farm.dag import dag_text
from quadbench.farm.job import Job, JobKind, JobState, NewJob
from quadbench.farm.job_status import job_counts, listed_jobs
from quadbench.farm.jobs import FarmJobs, Start, locked_attempt
from quadbench.farm.slots import Bay, Bays, device_need, read_slots
from quadbench.host import peak_memory_bytes
from quadbench.results.engine import Source, open_engine
from quadbench.results.records import RecordStore

RUN = "bench"
_LOOKS = 20
T = TypeVar("T")


@dataclass
class Times:
    """The seconds of calls, by what was called."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, what: str, call: Callable[[], T]) -> T:
        """Return the result of a call, and keep its time."""
        began = time.perf_counter()
        result = call()
        with self._lock:
            self.seconds.setdefault(what, []).append(time.perf_counter() - began)
        return result

    def __str__(self) -> str:
        """Return a line for each thing that was called: how often, its median and its longest time."""
        rows = ((what, len(one), statistics.median(one), max(one)) for what, one in self.seconds.items())
        return "\n".join(
            f"{what}: {count} times, {median * 1e3:.1f} ms (most {most * 1e3:.0f})" for what, count, median, most in rows
        )


def main() -> None:
    """Print what each call took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=512)
    parser.add_argument("--database", help="URL; a SQLite file if not given")
    options = parser.parse_args()
    times, bays = Times(), [phone(f"R{number}") for number in range(options.devices)]
    with tempfile.TemporaryDirectory() as folder:
        began, cpu_before_s = time.perf_counter(), time.process_time()
        launches = worked_off(options.database or Path(folder) / "quadbench.sqlite", bays, options.jobs, times)
        elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_before_s
    described(bays, times)
    print(f"{options.jobs} jobs on {options.devices} devices: {elapsed_s:.1f} s, {cpu_s / options.jobs:.4f} CPU seconds a job")  # noqa: T201
    print(f"every job once: {sorted(launches) == list(range(1, options.jobs + 1))}; peak {peak_memory_bytes() / 2**20:.0f} MiB")  # noqa: T201
    print(times)  # noqa: T201


def worked_off(database: Source, bays: Sequence[Bay], count: int, times: Times) -> list[int]:
    """Submit jobs, and have each begun and finished at its device. Return the launches of their records, numbered from 1."""
    engine = open_engine(database)
    jobs, records = FarmJobs(engine), RecordStore(engine)
    new = [NewJob(kind=JobKind.MEASURE, needs=device_need(bay.name)) for bay, _ in zip(cycle(bays), range(count), strict=False)]
    stored = times.of("submit all", lambda: jobs.submit(RUN, new, "bench@bench", "1", lambda _: None))
    times.of("DAG of all", lambda: dag_text(stored))
    first = stored[0].id
    by_device = [stored[number :: len(bays)] for number in range(len(bays))]

    def work(own: Sequence[Job]) -> None:
        for job in own:
            attempt(job, job.id - first + 1, records, times)

    with ThreadPoolExecutor(len(bays)) as threads:
        working = [threads.submit(work, own) for own in by_device]
        for _ in range(_LOOKS):
            times.of("settle", lambda: jobs.settle({RUN: ()}))
            times.of("status", lambda: (job_counts(engine), listed_jobs(engine)))
        for one in working:
            one.result()
    states = job_counts(engine).states
    assert states == {JobState.DONE.value: count}, states
    launches = [one.launch for one in records.run_records(RUN)]
    records.close()
    return launches


def attempt(job: Job, launch: int, records: RecordStore, times: Times) -> None:
    """Make an attempt at a job as a host does, but for the time at the device."""
    jobs, leases = FarmJobs(records.engine), Leases(records.engine)
    device = job.needs.removeprefix("device ")
    begun = times.of("begin", lambda: jobs.begin(Start(job=job.id, run=job.run_id, number=1, seat=device, host="bench")))
    lease = times.of("lease", lambda: leases.take(device, job.owner, "a bench"))
    mine = replace(record(f"{RUN}-{job.id}"), run_id=RUN, launch=launch)
    times.of("record", lambda: records.store(mine, lambda connection: locked_attempt(connection, begun)))
    times.of("end of lease", lambda: leases.end(lease))
    times.of("finish", lambda: jobs.finish(begun))


def described(bays: Sequence[Bay], times: Times) -> None:
    """Describe a host's slots, and read them as `farm status` does once it has the ads."""
    slots, pool = Bays(len(bays)), ScriptedPool(hosts={"bench": list(bays)})
    for _ in range(_LOOKS):
        times.of("ads of a host's slots", lambda: slots.ads(bays, "1"))
        times.of("ads made and read", lambda: read_slots(pool))


if __name__ == "__main__":
    main()
