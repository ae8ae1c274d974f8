"""Kills: a recipe and a results folder -> runs whose processes are killed or interrupted, and what that has spoilt, if anything.

python -m support.kills RECIPE BUNDLES HARNESS --kills 200 --seed 1    (in tests/) a line of JSON for each kill
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from quadbench.artifacts import Bundle, CompiledBundle
from quadbench.artifacts.launch_values import MEMORY_METRICS
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import QuadbenchError
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, read_manifest

DEVICES = ("local", "virtual:s25")
LAUNCHES = 6  # of a run of the tiny recipe on them
STAGES = ("start", "build", "compile", "push", "measure")
SANDBOX = ("adbd", "adb", "outer bwrap", "inner bwrap")
_LONGEST_S = {"start": 0.5, "build": 20.0, "compile": 0.4, "push": 0.8, "measure": 1.8}
PATIENCE_S = 60.0  # until a run hangs, on a machine with little else to do
_GONE_S = 6.0  # a watcher has five seconds
_EXIT_CODES = {0, 3, 5, 6}  # of a run that has lost a process


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A signal to a process of a run, `delay_s` after a stage has begun; to `quadbench` and its group where it is Ctrl-C."""

    victim: str
    stage: str
    how: signal.Signals = signal.SIGKILL
    delay_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a run: the stage in which the signal came (None: it was over before), its exit code, and what is spoilt."""

    kill: Kill
    stage: str | None
    exit_code: int
    faults: tuple[str, ...]


def kinds_of_kills() -> list[Kill]:
    """Return every kill that differs from the others by more than its moment; those in a build, which take longest, last."""
    sandbox = [(victim, stage) for victim in SANDBOX for stage in ("start", "compile", "push", "measure")]
    others = [("harness", "measure"), ("watcher", "push"), ("watcher", "measure"), *(("quadbench", stage) for stage in STAGES)]
    kills = [Kill(victim=victim, stage=stage) for victim, stage in (*sandbox, *others)]
    kills += [Kill(victim="quadbench", stage=stage, how=signal.SIGTERM) for stage in STAGES]
    # Until its first module is there, Ctrl-C is answered by Python and not by quadbench.
    kills += [Kill(victim="quadbench", stage=stage, how=signal.SIGINT) for stage in STAGES if stage != "start"]
    return sorted(kills, key=lambda kill: kill.stage == "build")


class Arena:
    """A results folder in which runs of one recipe are killed. Whatever else happens, `strike` ends with a whole run."""

    def __init__(
        self, folder: Path, recipe: Path, bundles: Path, harness: Path, dice: random.Random, *, patience_s: float = PATIENCE_S
    ) -> None:
        self.layout = Layout(folder.resolve())
        self._recipe, self._bundles, self._dice, self._patience_s = recipe, bundles, dice, patience_s
        self._environment = {**os.environ, "QUADBENCH_HARNESS": str(harness)}
        shutil.copytree(bundles, self.layout.bundles)
        with self._running() as run:
            run.process.wait(self._patience_s)
        assert run.process.returncode == 0, run.said
        self._samples = _samples_by_launch(self.layout)
        assert len(self._samples) == LAUNCHES

    def strike(self, kill: Kill) -> Outcome:
        """Kill a process of a run, then run again; in the end the stores are looked at."""
        kill = replace(kill, delay_s=self._dice.uniform(0, _LONGEST_S[kill.stage]))
        self._prepare(kill.stage)
        before = _rows(self.layout)
        with self._running() as run:
            struck = _struck(run, kill, self.layout)
            try:
                run.process.wait(self._patience_s)
            except subprocess.TimeoutExpired:
                run.process.kill()
                return Outcome(kill=kill, stage=struck, exit_code=-1, faults=("it hangs", *run.said))
        faults = [*self._of_the_end(run, kill, struck), *_orphans(self.layout), *self._of_the_stores(before, run)]
        shutil.rmtree(self.layout.bundles / "scratch", ignore_errors=True)
        if kill.stage == "build" and not _whole_bundles(self.layout):
            shutil.rmtree(self.layout.bundles, ignore_errors=True)  # else each would be built twice
            shutil.copytree(self._bundles, self.layout.bundles)
        before = _rows(self.layout)
        with self._running() as again:
            again.process.wait(4 * self._patience_s)
        if again.process.returncode:
            faults.append(f"the next run ended with {again.process.returncode}: {' / '.join(again.said)}")
        faults += [f"after the next run: {fault}" for fault in (*_orphans(self.layout), *self._of_the_stores(before, again))]
        faults += self._left_behind()
        return Outcome(kill=kill, stage=struck, exit_code=run.process.returncode, faults=tuple(faults))

    def _prepare(self, stage: str) -> None:
        """Have the next run do the work of a stage again."""
        if stage == "build":
            shutil.rmtree(self.layout.bundles)
        if stage == "compile":
            shutil.rmtree(self.layout.compiled_bundles)
        if stage == "push":
            for objects in self.layout.devices.rglob("objects"):
                shutil.rmtree(objects)

    @contextlib.contextmanager
    def _running(self) -> Iterator["Run"]:
        words = ["run", str(self._recipe), "--devices", ",".join(DEVICES), "--results", str(self.layout.root)]
        process = subprocess.Popen(
            [sys.executable, "-m", "quadbench", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        with process:
            run = Run(process)
            run.reader.start()
            try:
                yield run
            finally:
                if process.poll() is None:
                    process.kill()
                run.reader.join(self._patience_s)

    def _of_the_end(self, run: "Run", kill: Kill, struck: str | None) -> Iterator[str]:
        """Yield what is wrong with the exit code and the words of a run."""
        said, code = "\n".join(run.said), run.process.returncode
        if "Traceback" in said or "unexpected error" in said:
            yield f"a traceback: {said}"
        if struck is None:
            return
        expected = _EXIT_CODES if kill.victim != "quadbench" else {-kill.how, 128 + kill.how, 0}
        if kill.how is signal.SIGTERM:
            # It interrupts as Ctrl-C does; in an `exec` of text, as in making a dataclass, Python then ends itself so.
            expected = expected | {-signal.SIGINT, 128 + signal.SIGINT}
        if code not in expected:
            yield f"exit code {code}, expected one of {sorted(expected)}: {said}"
        if code in (3, 5, 6) and "error: " not in said and "FAILED" not in said:
            yield f"exit code {code} without a reason: {said}"

    def _of_the_stores(self, before: dict[str, tuple[object, ...]], run: "Run") -> Iterator[str]:
        """Yield what is wrong with the database, the artifacts and the records that the run has added."""
        after = _rows(self.layout)
        changed = [key for key, row in before.items() if after.get(key) != row]
        if changed:
            yield f"records lost or changed: {changed}"
        added = {key: row for key, row in after.items() if key not in before}
        launches = Counter((row[1], row[2], row[3]) for row in added.values())
        if doubled := [launch for launch, count in launches.items() if count > 1]:
            yield f"launches stored twice: {doubled}"
        told = sum(line.startswith("measure ") for line in run.said)
        if not told <= len(added) <= told + 2:  # a record is stored first, then told; Ctrl-C may come between
            yield f"{told} launches were told and {len(added)} stored"
        yield from self._of_the_samples(added)
        yield from _damaged(self.layout)

    def _of_the_samples(self, added: dict[str, tuple[object, ...]]) -> Iterator[str]:
        for run_id, address, variant, launch, status, samples in added.values():
            name = f"{address} {variant} {launch} of {run_id}"
            expected = self._samples[str(address), str(variant)]
            if status == "OK" and samples != expected:
                yield f"{name} is OK with {samples} samples, expected {expected}"
            events = self.layout.run(str(run_id)) / str(address).replace(":", "-") / f"{variant}-{launch}" / "events.jsonl"
            heard = _samples_told(events)
            if status != "OK" and not heard - 1 <= int(str(samples)) <= max(heard, 0) + expected:
                yield f"{name} is {status} with {samples} samples; {heard} were heard"

    def _left_behind(self) -> Iterator[str]:
        """Yield what lies about after a whole run that should be gone."""
        layout = self.layout
        yield from (f"left: {path}" for folder in (layout.bundles, layout.compiled_bundles) for path in folder.glob(".*"))
        yield from (f"left: {path}" for path in layout.devices.rglob(".tmp-*"))
        yield from (f"left: {path}" for path in layout.devices.rglob("runs/*"))
        yield from (f"left: {path}" for path in (*layout.root.rglob("*.part"), *layout.root.rglob("*.tmp")))


class Run:
    """A run under way, and what it has said on stderr so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.said: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(re.sub(r"^\d+/\d+ ", "", line.rstrip()))  # without the stage's number

    def stage(self, layout: Layout) -> str:
        """Return the stage that it is in."""
        words = {line.split(" ")[0] for line in self.said}
        if "measure" in words or sum(line.startswith("push ") for line in self.said) == len(DEVICES):
            return "measure"
        if "harness" not in words:
            return "build" if "build" in words else "start"
        is_compiled = any(not path.name.startswith(".") for path in layout.compiled_bundles.glob("*"))
        return "push" if is_compiled else "compile"


def _struck(run: Run, kill: Kill, layout: Layout) -> str | None:
    """Wait for the moment and kill. Return the stage in which it was, None where the run was over before."""
    began: float | None = None
    while run.process.poll() is None:
        stage = run.stage(layout)
        if STAGES.index(stage) >= STAGES.index(kill.stage) and (victims := _processes(run, kill.victim, layout)):
            began = began or time.monotonic()
            if time.monotonic() - began >= kill.delay_s:
                with contextlib.suppress(ProcessLookupError):
                    if kill.how is signal.SIGINT:
                        os.killpg(victims[0], kill.how)  # as a terminal does
                    else:
                        os.kill(victims[-1], kill.how)
                    return stage
        time.sleep(0.003)
    return None


def _processes(run: Run, kind: str, layout: Layout) -> list[int]:
    """Return the ids of a run's processes of one kind."""
    if kind == "quadbench":
        return [run.process.pid]
    carriers = _carriers(layout)
    match kind:
        case "harness":
            return [pid for pid in carriers if b"objects/" in _read(pid, "cmdline").split(b"\0")[0] and _comm(pid) != "setpriv"]
        case "outer bwrap" | "inner bwrap":
            sandboxes = [pid for pid in carriers if _comm(pid) == "bwrap"]
            outer = [pid for pid in sandboxes if _parent(pid) not in sandboxes]
            return outer if kind == "outer bwrap" else [pid for pid in sandboxes if pid not in outer]
        case "watcher":
            return [pid for pid in _all() if _parent(pid) == run.process.pid and b"process_marks.py" in _read(pid, "cmdline")]
    return [pid for pid in carriers if _comm(pid) == kind]


def _carriers(layout: Layout) -> list[int]:
    wanted = f"QUADBENCH_PROCESS={layout.devices}/".encode()
    return [pid for pid in _all() if wanted in _read(pid, "environ")]


def _all() -> list[int]:
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdecimal())  # noqa: PTH208


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _comm(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def _parent(pid: int) -> int:
    words = _read(pid, "stat").rpartition(b")")[2].split()
    return int(words[1]) if words else 0


def _orphans(layout: Layout) -> list[str]:
    """Return the processes of the folder's devices that still run, once a watcher has had its time."""
    deadline = time.monotonic() + _GONE_S
    while (left := _carriers(layout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"orphan {pid} {_comm(pid)}" for pid in left]


def _rows(layout: Layout) -> dict[str, tuple[object, ...]]:
    """Return run, device, variant, launch, status and number of samples that the plan fixes, of every record."""
    if not layout.database.exists():
        return {}
    clocked = ", ".join(f"'{metric}'" for metric in sorted(MEMORY_METRICS))
    query = (
        "SELECT r.record_id, r.run_id, r.device_address, r.variant, r.launch, r.status,"
        f" (SELECT count(*) FROM samples s WHERE s.record = r.id AND s.metric NOT IN ({clocked})) FROM records r"
    )
    with contextlib.closing(sqlite3.connect(layout.database, timeout=10)) as database:
        return {row[0]: row[1:] for row in database.execute(query)}


def _samples_by_launch(layout: Layout) -> dict[tuple[str, str], object]:
    return {(str(row[1]), str(row[2])): row[5] for row in _rows(layout).values()}


def _samples_told(events: Path) -> int:
    """Return how many samples that the plan fixes stand in a launch's events."""
    if not events.exists():
        return 0
    lines = [line for line in events.read_text(errors="replace").splitlines() if line.endswith("}")]
    read = [json.loads(line) for line in lines]
    return sum(event["event"] == "sample" and event["metric"] not in MEMORY_METRICS for event in read)


def _damaged(layout: Layout) -> Iterator[str]:
    """Yield what is damaged in the database and the artifacts."""
    if layout.database.exists():
        with contextlib.closing(sqlite3.connect(layout.database, timeout=10)) as database:
            for check in ("integrity_check", "foreign_key_check"):
                rows = database.execute(f"PRAGMA {check}").fetchall()
                if rows not in ([], [("ok",)]):
                    yield f"{check}: {rows}"
    for kind, folder in ((Bundle, layout.bundles), (CompiledBundle, layout.compiled_bundles)):
        for path in folder.glob("*"):
            if path.name.startswith(".") or path.name == layout.scratch.name:
                continue
            try:
                stored = read_manifest(path, kind)
                check_contents(stored, file_refs(stored.artifact))
            except QuadbenchError as error:
                yield str(error)


def _whole_bundles(layout: Layout) -> list[Path]:
    return [path for path in layout.bundles.glob("*") if not path.name.startswith(".") and path != layout.scratch]


def main(words: Sequence[str] | None = None) -> None:
    """Kill as often as the command line says, and print what came of it."""
    parser = argparse.ArgumentParser()
    for name in ("recipe", "bundles", "harness"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--builds", type=int, default=12, help="how many of them in a build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, metavar="S", help="until a run hangs; more beside other work"
    )
    parser.add_argument("--how", type=lambda name: signal.Signals[name], help="only this signal, as SIGINT")
    options = parser.parse_args(words)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has children ignore Ctrl-C
    dice = random.Random(options.seed)
    kinds = [kill for kill in kinds_of_kills() if options.how in (None, kill.how)]
    quick, slow = ([kill for kill in kinds if (kill.stage == "build") is is_slow] for is_slow in (False, True))
    plan = [quick[i % len(quick)] for i in range(options.kills - options.builds)]
    dice.shuffle(plan)
    plan += [slow[i % len(slow)] for i in range(options.builds)]
    with tempfile.TemporaryDirectory() as folder:
        results, patience_s = Path(folder) / "results", options.patience
        arena = Arena(results, options.recipe, options.bundles, options.harness, dice, patience_s=patience_s)
        for kill in plan:
            sys.stdout.write(f"{json.dumps(asdict(arena.strike(kill)), default=str)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
