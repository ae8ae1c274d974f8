"""Scripted devices as slots of an HTCondor pool, and short jobs -> what the engine costs beside the devices' time, and fairness.

    python bench/engine.py --kind shell attempt --out engine.jsonl
    python bench/engine.py --kind shell attempt --owners 2 --jobs 640 --out engine.jsonl

A cell is one kind of job and one claim life, in a pool of its own. Its line is printed and appended to the file as soon as it
ends; valid cells that the file has are left out. A shell job sleeps. An attempt is a job of a farm: a node of a DAG, at a slot
that a program describes, through `quadbench farm attempt` and an attempt server, with fence, lease and record. A gap is the time
of a device between two jobs. The CPU of daemons has that of their ended children and jobs. A cell is valid if programs of others
kept at most a quarter of a processor busy during it.
"""

import argparse
import itertools
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TESTS = str(Path(__file__).parents[1] / "tests")
sys.path.insert(0, TESTS)
os.environ["PYTHONPATH"] = os.pathsep.join((TESTS, str(Path(TESTS).parent), os.environ.get("PYTHONPATH", "")))  # for attempts

from support.condor_attempts import (  # noqa: E402
    attempt_server,
    cpu_file,
    failures,
    farm_need,
    pool_settings,
    stored_launches,
    submit_stays,
    wait_for_slots,
)
from support.condor_pool import Attributes, CondorPool, processes_under, running_pool  # noqa: E402
from support.device_stays import Stay, device_figures, devices, expression, fairness, ideal_s, need_of  # noqa: E402
from support.postgresql_server import running_postgresql  # noqa: E402

from quadbench.farm.store.opening import STORE_VARIABLE  # noqa: E402
from quadbench.results.engine import DATABASE_VARIABLE, open_engine  # noqa: E402

OWNERS = ("ann", "ben")
MOST_OTHERS = 0.25  # busy processors
DAGMAN = 7  # the universe of DAGMan's own job
_LOOK_S, _LOOKS_A_QUERY = 1.0, 10  # the queue is asked seldom: that costs the schedd time
_SAMPLES = 30
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SHELL_JOB = '#!/bin/bash\nbegan=$EPOCHREALTIME\nsleep "$3"\necho "$1 $2 $began $EPOCHREALTIME" >> "$4"\n'


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run. `jobs` are each owner's; the second owner submits `second_after_s` later."""

    kind: str
    owners: int
    claim_s: float
    slots: int
    jobs: int
    seconds: float
    second_after_s: float
    database: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The jobs of all owners."""
        return self.owners * self.jobs

    @property
    def ideal_s(self) -> float:
        return ideal_s(self.jobs, self.owners, self.slots, self.seconds)


def main() -> None:
    """Run the cells that the file does not have."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=512, help="of each owner (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a job at its device (default: %(default)s)")
    parser.add_argument("--claims", type=float, nargs="+", default=[30.0, 60.0, 120.0, 300.0], help="claim lives in seconds")
    parser.add_argument("--kind", choices=("shell", "attempt"), nargs="+", default=["shell"])
    parser.add_argument("--owners", type=int, choices=(1, 2), nargs="+", default=[1])
    parser.add_argument("--second-after", type=float, default=60.0, help="seconds until the second owner submits")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="of attempts")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the pool")
    parser.add_argument("--out", type=Path, required=True, help="file of results, to which a line is added for each cell")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is cut off takes its pool along
    settings = dict(word.split("=", 1) for word in options.set)
    lines = map(json.loads, options.out.read_text().splitlines() if options.out.exists() else ())
    had = [line["cell"] for line in lines if line["valid"]]
    for owners, kind, claim_s in itertools.product(options.owners, options.kind, options.claims):
        cell = Cell(
            kind=kind,
            owners=owners,
            claim_s=claim_s,
            slots=options.slots,
            jobs=options.jobs,
            seconds=options.seconds,
            second_after_s=options.second_after if owners > 1 else 0.0,
            database=options.database if kind == "attempt" else "",
            settings=settings,
        )
        if asdict(cell) in had:
            continue
        line = json.dumps({"cell": asdict(cell), **measured(cell)})
        print(line, flush=True)  # noqa: T201
        with options.out.open("a") as out:
            out.write(line + "\n")


def measured(cell: Cell) -> dict[str, Any]:
    """Run a cell in a new pool, and return its figures."""
    print(f"{cell}\nload average {os.getloadavg()}, ideal {cell.ideal_s:.0f} s", file=sys.stderr, flush=True)  # noqa: T201
    load_before, others_before = os.getloadavg()[0], others_runnable()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quadbench-engine-")))
        database = str(folder / "quadbench.sqlite")
        if cell.database == "postgresql":
            server = stack.enter_context(running_postgresql())
            server.folder.chmod(0o711)  # to root in a namespace, which attempts are, it is another user's
            database = server.new_database_with_tables()
        name, settings = f"engine-{secrets.token_hex(4)}", dict[str, str]()
        slots: Sequence[Attributes] = devices(cell.slots)
        if cell.kind == "attempt":
            (folder / "store").mkdir()
            os.environ |= {DATABASE_VARIABLE: database, STORE_VARIABLE: str(folder / "store")}  # of the pool and its jobs
            open_engine(database if "://" in database else Path(database)).dispose()
            slots = [{}] * cell.slots
            settings = pool_settings(folder / "pool", cell.slots, name)
        pool = stack.enter_context(
            running_pool(folder / "pool", slots=slots, claim_life_s=cell.claim_s, settings={**settings, **cell.settings})
        )
        run = Run(cell, pool, database, name)
        if cell.kind == "attempt":
            stack.enter_context(attempt_server(pool, name))
            wait_for_slots(pool, cell.slots)
        others = others_busy()
        figures = run.figures()
        busy = others(run.attempts_cpu_s)
    load = {"load_average_before": load_before, "others_before": others_before, "others_during": round(busy, 2)}
    return {"valid": busy <= MOST_OTHERS, **load, **figures}


class Run:
    """A cell's jobs in its pool."""

    def __init__(self, cell: Cell, pool: CondorPool, database: str, name: str) -> None:
        self.cell, self.pool, self.database = cell, pool, database
        self.run_ids = [f"{name}-{owner}" for owner in range(cell.owners)]
        self._times = pool.folder / "times"
        self._times.touch()
        self._errors = pool.folder / "errors"
        self._errors.mkdir()
        script = pool.folder / "job.sh"
        script.write_text(_SHELL_JOB)
        script.chmod(0o755)

    def figures(self) -> dict[str, Any]:
        cell, cpu_before = self.cell, self._cpu()
        submitted: list[float] = []
        submit_s: list[float] = []
        for owner in range(cell.owners):
            time.sleep(cell.second_after_s if owner else 0)
            submitted.append(time.time())
            self._submit(owner)
            submit_s.append(time.time() - submitted[-1])
        rss_mib = self._wait(3 * cell.ideal_s + cell.second_after_s + 120)
        cpu = {name: round(after - cpu_before.get(name, 0.0), 2) for name, after in self._cpu().items()}
        stays = self._stays()
        ended = [job for job in self.pool.history("NumJobStarts", "ExitCode", "JobUniverse") if job.get("JobUniverse") != DAGMAN]
        count = cell.count
        figures: dict[str, Any] = {
            "each_once": sorted(stay.number for stay in stays) == list(range(count)) and self._stored_once(count),
            "one_start_each": [(job.get("NumJobStarts"), job.get("ExitCode")) for job in ended] == [(1, 0)] * count,
            "trouble": self._trouble(),
            "submit_s": [round(value, 3) for value in submit_s],
            "cpu_job_s": round(sum(cpu.values()) / count, 4),
            "cpu_s": cpu,
            "rss_mib": rss_mib,
        }
        if stays:
            elapsed_s = max(stay.ended for stay in stays) - submitted[0]
            first_s = min(stay.began for stay in stays) - submitted[0]
            figures |= {"elapsed_s": round(elapsed_s, 1), "ideal_s": cell.ideal_s, "first_start_s": round(first_s, 2)}
            figures["elapsed_over_ideal"] = round(elapsed_s / cell.ideal_s, 4)
        figures |= device_figures(stays, cell.seconds)
        return figures | (fairness(stays, submitted) if cell.owners > 1 else {})

    def _submit(self, owner: int) -> None:
        """Submit an owner's jobs: shell jobs by a submit description, attempts as a DAG."""
        cell, first = self.cell, owner * self.cell.jobs
        needs = {first + number: need_of(number, cell.slots) for number in range(cell.jobs)}
        if cell.kind == "attempt":
            ordered = {number: farm_need(need) for number, need in needs.items()}
            submit_stays(self.pool, OWNERS[owner], self.database, self.run_ids[owner], ordered, cell.seconds, self._times)
            return
        settings = {
            "executable": str(self.pool.folder / "job.sh"),
            "arguments": f'"$(number) $$(PhoneSerial) {cell.seconds:g} {self._times}"',
            "transfer_executable": "False",
            "should_transfer_files": "NO",
            "error": f"{self._errors}/$(number)",
            "requirements": "$(need)",
        }
        lines = [f"{number}, {expression(need)}" for number, need in needs.items()]
        self.pool.submit(
            "".join(f"{name} = {value}\n" for name, value in settings.items())
            + "\n".join(["queue number, need from (", *lines, ")", ""]),
            OWNERS[owner],
        )

    def _wait(self, most_s: float) -> dict[str, list[float]]:
        """Wait until no job is left, or for so long. Return how many of each daemon ran half-way, and their memory in MiB."""
        deadline, count = time.monotonic() + most_s, self.cell.count
        rss_mib: dict[str, list[float]] = {}
        looks = itertools.count(1)
        while time.monotonic() < deadline:
            done = self._times.read_bytes().count(b"\n")
            if not rss_mib and done >= count / 2:
                rss_mib = self._memory()
            if (done >= count or next(looks) % _LOOKS_A_QUERY == 0) and not self.pool.jobs("ClusterId"):
                break
            time.sleep(_LOOK_S)
        return rss_mib

    def _memory(self) -> dict[str, list[float]]:
        sums: dict[str, list[float]] = {}
        for daemon in self.pool.daemons():
            number, mib = sums.get(daemon.name, [0, 0.0])
            sums[daemon.name] = [number + 1, round(mib + daemon.rss_bytes / 2**20, 1)]
        return sums

    def _cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each daemon, with its ended children, and of attempts."""
        sums: dict[str, float] = {}
        for daemon in self.pool.daemons():
            sums[daemon.name] = sums.get(daemon.name, 0.0) + daemon.cpu_s
        return sums | ({"attempts": self.attempts_cpu_s} if self.cell.kind == "attempt" else {})

    @property
    def attempts_cpu_s(self) -> float:
        """Return the CPU seconds that attempts have told: their server does not wait for them, so its own time has not theirs."""
        return sum(map(float, cpu_file(self._times).read_text().split())) if cpu_file(self._times).exists() else 0.0

    def _stays(self) -> list[Stay]:
        rows = map(str.split, self._times.read_text().splitlines())
        return [
            Stay(number=number, owner=number // self.cell.jobs, device=row[1], began=float(row[2]), ended=float(row[3]))
            for row in rows
            for number in (int(row[0]),)
        ]

    def _trouble(self) -> list[str]:
        """Return why jobs are still in the queue, and what failed attempts said; the first few of them."""
        held = [str(job.get("HoldReason", "not ended")) for job in self.pool.jobs("HoldReason", "JobStatus")]
        said = [path.read_text() for path in sorted(self._errors.iterdir()) if path.stat().st_size]
        if self.cell.kind == "attempt":
            said += [reason for run_id in self.run_ids for reason in failures(self.database, run_id)]
        return [text[-300:] for text in (held + said)[:5]]

    def _stored_once(self, count: int) -> bool:
        if self.cell.kind == "shell":
            return True
        launches = [launch for run_id in self.run_ids for launch in stored_launches(self.database, run_id)]
        return sorted(launches) == list(range(count))


def others_runnable() -> float:
    """Return how many tasks want a processor on the average of three seconds, before anything of a cell runs."""
    counts = []
    for _ in range(_SAMPLES):
        running, _, _ = Path("/proc/loadavg").read_text().split()[3].partition("/")
        counts.append(int(running) - 1)  # this program asks
        time.sleep(0.1)
    return round(sum(counts) / len(counts), 2)


def others_busy() -> Callable[..., float]:
    """Begin to watch. The result returns how many processors have been busy since, on the average, with programs of others.

    It takes CPU seconds of own programs that are not children of this one.
    """

    def now() -> tuple[float, float, float]:
        user, nice, system, _, _, interrupts, soft, *_ = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
        busy_s = sum(map(int, (user, nice, system, interrupts, soft))) / _TICKS_PER_S
        return time.monotonic(), busy_s, cpu_under(os.getpid())

    began, busy_before_s, own_before_s = now()

    def since(besides_s: float = 0.0) -> float:
        at, busy_s, own_s = now()
        return max(0.0, busy_s - busy_before_s - (own_s - own_before_s) - besides_s) / (at - began)

    return since


def cpu_under(pid: int) -> float:
    return sum(process.cpu_s for process in processes_under(pid))


if __name__ == "__main__":
    main()
