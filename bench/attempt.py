"""One attempt at a measurement job -> its CPU and seconds until its first adb command, with and without an attempt server.

    python bench/attempt.py --times 20

The attempt is that of a worker, up to the device: its order, database and store are real. The adb server is a socket of this
program, which takes the first connection as the first command, reads the CPU of all processes of the attempt, and ends it.
"""

import argparse
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from quadbench.dispatch.attempt_client import SERVER_VARIABLE
from quadbench.dispatch.attempts import Attempts, serving_attempts
from quadbench.dispatch.orders import MeasureOrder, as_json
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import device_need, needs_served
from quadbench.farm.scheduler import Seat
from quadbench.pipeline import DEFAULT_RUN
from quadbench.recipe import RunSettings
from quadbench.results.engine import open_engine
from quadbench.results.layout import Layout

_NS = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="attempts of each kind (default: %(default)s)")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as adb:
        layout = Layout(Path(folder) / "results")
        os.environ |= {
            "QUADBENCH_DATABASE": "",
            "QUADBENCH_STORE": str(Path(folder) / "store"),
            "ANDROID_ADB_SERVER_PORT": str(adb.getsockname()[1]),
        }
        del os.environ["QUADBENCH_DATABASE"]
        (Path(folder) / "store").mkdir()
        jobs = claimed(layout, 2 * times)
        with serving_attempts(layout.root) as served:
            alone = Attempts(**{**vars(served), "environment": without(served.environment, SERVER_VARIABLE)})
            measured(served, jobs[0], adb)  # waits until the server is ready
            for name, attempts, own in (("imports itself", alone, jobs[:times]), ("forked", served, jobs[times:])):
                cpu_s, wall_s = zip(*(measured(attempts, job, adb) for job in own), strict=True)
                print(  # noqa: T201
                    f"{name}: CPU {statistics.median(cpu_s):.3f} s (most {max(cpu_s):.3f}), "
                    f"{statistics.median(wall_s):.3f} s (most {max(wall_s):.3f}) to the first adb command, {times} attempts"
                )


def without(environment: object, name: str) -> dict[str, str]:
    return {key: value for key, value in dict(environment).items() if key != name}  # type: ignore[call-overload]


def claimed(layout: Layout, count: int) -> list[Job]:
    """Submit so many measurements of one device each, and claim them."""
    order = MeasureOrder(name="bench", bundles={"s25": "a" * 64}, terms=RunSettings(), conduct=DEFAULT_RUN)
    engine = open_engine(layout.database)
    queue = JobQueue(engine)
    names = [f"phone-{number}" for number in range(count)]
    new = [NewJob(kind=JobKind.MEASURE, needs=device_need(name), payload=as_json(order)) for name in names]
    queue.submit("bench", new, "bench@bench", "1")
    seats = [Seat(name=name, serves=needs_served(name, {"profile": "s25"}), rested_s=1, affinity="") for name in names]
    jobs = queue.claim("bench", "1", seats, lease_s=86_400)
    engine.dispose()
    assert len(jobs) == count, f"{len(jobs)} of {count} jobs claimed"
    return list(jobs)


def measured(attempts: Attempts, job: Job, adb: socket.socket) -> tuple[float, float]:
    """Return the CPU and the seconds of an attempt until it asks adb."""
    before = processes()
    began = time.perf_counter()
    program = attempts.start(job, f"s25@{job.seat}")
    adb.settimeout(60)
    command, _ = adb.accept()
    wall_s = time.perf_counter() - began
    own = [pid for pid in processes() - before if is_of(pid)]
    cpu_s = sum(map(cpu_of, own))
    with command:
        program.kill()
        program.wait()
    return cpu_s, wall_s


def processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208


def is_of(pid: int) -> bool:
    """Say whether a process is one of Python: no other begins here meanwhile."""
    try:
        return Path(f"/proc/{pid}/exe").readlink() == Path(sys.executable).resolve()
    except OSError:
        return False


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of all threads of a process."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) * _NS


if __name__ == "__main__":
    main()
