"""One attempt at a measurement job -> its CPU and seconds until its first adb command, with and without an attempt server.

    python bench/attempt.py --times 20

The attempt is that of a farm's host, up to the device: its ads, database and store are real. The adb server is a socket of this
program, which takes the first connection as the first command, reads the CPU of all processes of the attempt, and ends it.
"""

import argparse
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from quadbench.dispatch.attempt import MACHINE_AD
from quadbench.dispatch.attempt_client import SERVER_VARIABLE
from quadbench.dispatch.orders import MeasureOrder, as_json
from quadbench.farm.condor import quoted
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.slots import device_need, encoded
from quadbench.host import python_module, start_child
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
        started = ordered(layout, Path(folder) / "execute", 2 * times + 1)
        name = secrets.token_hex(8)
        command = python_module("quadbench.dispatch.attempt_server", name)
        server = start_child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline(), "the attempt server does not start"
        served = {**os.environ, SERVER_VARIABLE: name}
        measured(started[-1], served, adb)  # waits until the server has made its imports
        for kind, environment, own in (
            ("imports itself", dict(os.environ), started[:times]),
            ("forked", served, started[times:-1]),
        ):
            cpu_s, wall_s = zip(*(measured(one, environment, adb) for one in own), strict=True)
            print(  # noqa: T201
                f"{kind}: CPU {statistics.median(cpu_s):.3f} s (most {max(cpu_s):.3f}), "
                f"{statistics.median(wall_s):.3f} s (most {max(wall_s):.3f}) to the first adb command, {times} attempts"
            )
        server.kill()
        server.communicate()


def ordered(layout: Layout, execute: Path, count: int) -> list[Path]:
    """Submit so many measurements of a device each. Return their folders, with the ads of job and slot that HTCondor writes."""
    order = MeasureOrder(name="bench", bundles={"s25": "a" * 64}, terms=RunSettings(), conduct=DEFAULT_RUN)
    engine = open_engine(layout.database)
    needs = [device_need(f"phone-{number}") for number in range(count)]
    new = [NewJob(kind=JobKind.MEASURE, needs=need, payload=as_json(order)) for need in needs]
    jobs = FarmJobs(engine).submit("bench", new, "bench@bench", "1", lambda _: None)
    engine.dispose()
    folders = []
    for number, job in enumerate(jobs):
        need, name = encoded(job.needs), f"phone-{number}"
        slot = {"SlotDevice": name, "SlotServes": need, "SlotAddress": f"s25@{name}", "Machine": "bench"}
        folder = execute / str(number)
        folder.mkdir(parents=True)
        (folder / ".job.ad").write_text(f"QuadbenchJob = {job.id}\nNumShadowStarts = 1\nQuadbenchNeed = {quoted(need)}\n")
        lines = {**slot, "QuadbenchResults": str(layout.root)}
        (folder / MACHINE_AD).write_text("".join(f"{key} = {quoted(value)}\n" for key, value in lines.items()))
        folders.append(folder)
    return folders


def measured(folder: Path, environment: Mapping[str, str], adb: socket.socket) -> tuple[float, float]:
    """Return the CPU and the seconds of an attempt until it asks adb."""
    before = processes()
    began = time.perf_counter()
    program = subprocess.Popen(python_module("quadbench", "farm", "attempt", ".job.ad"), cwd=folder, env=dict(environment))
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
