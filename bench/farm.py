"""Scripted devices and short jobs on one machine -> what a worker and its queue cost beside the devices' time.

    python bench/farm.py --devices 64 --jobs 512 --seconds 30
    python bench/farm.py --database postgresql://quadbench@/bench

Each job is an attempt as the tests have them: it leases its device, is at it for so many seconds, and stores one record.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = str(Path(__file__).parents[1] / "tests")
sys.path.insert(0, TESTS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))  # for the worker's processes

import sqlalchemy as sa  # noqa: E402
from support.scripted_jobs import Script, phones  # noqa: E402

from quadbench.dispatch.worker import Worker  # noqa: E402
from quadbench.farm.job import Job, JobKind, JobState, NewJob  # noqa: E402
from quadbench.farm.job_status import queue_status  # noqa: E402
from quadbench.farm.jobs import JobQueue  # noqa: E402
from quadbench.farm.need import wish_need  # noqa: E402
from quadbench.farm.selection import Wish  # noqa: E402
from quadbench.farm.workers import NewWorker, Workers  # noqa: E402
from quadbench.host import peak_memory_bytes  # noqa: E402
from quadbench.results.engine import Source, open_engine  # noqa: E402
from quadbench.results.records import RecordStore  # noqa: E402
from quadbench.results.schema import JobRow  # noqa: E402

_LOOK_S = 2.0  # between looks at the whole status


class Unmetered:
    """Nobody watches."""

    def begun(self, job: Job) -> None: ...

    def ended(self, job: Job, seconds: float) -> None: ...


def main() -> None:
    """Print what the jobs took, and what of it was not the devices'."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a job at its device")
    parser.add_argument("--database", help="URL; a SQLite file if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database: Source = options.database or Path(folder) / "quadbench.sqlite"
        elapsed_s, status_s = measured(database, options.devices, options.jobs, options.seconds)
        with RecordStore(open_engine(database)) as records:
            stored = [record for run_id in records.run_ids() for record in records.run_records(run_id)]
    whole = options.jobs == len(stored) == len({record.launch for record in stored})
    busy = options.jobs * options.seconds / (options.devices * elapsed_s)
    cpu_s = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{options.jobs} jobs of {options.seconds:g} s on {options.devices} devices: {elapsed_s:.1f} s")  # noqa: T201
    print(f"every job once: {whole}; devices busy {busy:.1%}; {cpu_s / options.jobs:.3f} CPU seconds a job")  # noqa: T201
    print(f"status {status_s * 1000:.0f} ms; the worker's peak {peak_memory_bytes() / 2**20:.0f} MiB")  # noqa: T201


def measured(database: Source, devices: int, jobs: int, seconds: float) -> tuple[float, float]:
    """Have one worker do the jobs. Return how long that took, and the longest time of a whole status meanwhile."""
    engine = open_engine(database)
    itself = NewWorker(name="bench", host="bench", version="1", capabilities=(), devices=())
    with Script(database=database, seconds=seconds).attempts() as attempts:
        time.sleep(5)  # the server of attempts has made its imports
        return work(Worker(itself, engine, phones(devices), attempts.start, Unmetered()), engine, jobs)


def work(worker: Worker, engine: sa.Engine, jobs: int) -> tuple[float, float]:
    """Have a worker do the jobs; the result is that of `measured`."""
    queue, longest = JobQueue(engine), 0.0
    need = wish_need(Wish(word="s25", key=None, value="s25", count=1))
    thread = threading.Thread(target=worker.work)
    thread.start()
    queue.submit("bench", [NewJob(kind=JobKind.MEASURE, needs=need) for _ in range(jobs)], "bench@bench", "1")
    while True:
        asked = time.monotonic()
        states = queue_status(engine).states
        Workers(engine).known()
        longest = max(longest, time.monotonic() - asked)
        if states.get(JobState.DONE.value, 0) + states.get(JobState.FAILED.value, 0) >= jobs:
            break
        time.sleep(_LOOK_S)
    worker.stop()
    thread.join()
    with engine.connect() as connection:
        began, ended = connection.execute(sa.select(sa.func.min(JobRow.submitted_at), sa.func.max(JobRow.ended_at))).one()
    engine.dispose()
    return (ended - began).total_seconds(), longest


if __name__ == "__main__":
    main()
