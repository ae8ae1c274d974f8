"""Personal pool: a folder -> HTCondor on this machine alone, set up by `quadbench farm init`, whose host does scripted jobs.

Root's pool runs in a user namespace, where root is called nobody, and in a process namespace, which ends as a whole.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from quadbench.errors import QuadbenchError
from quadbench.farm.condor import Condor
from quadbench.farm.dag import submit_dag
from quadbench.farm.job import Job, NewJob
from quadbench.farm.jobs import FarmJobs
from quadbench.host import find_program
from quadbench.results.documents import document_text
from quadbench.results.engine import open_engine
from support.lab_pool import AS_NOBODY, OF_ITS_OWN, QUICK
from support.scripted_jobs import SCRIPT, VERSION, Script, scripted_settings

OWNER = "ana"
_PATIENCE_S = 60.0
_TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class PersonalPool:
    """A pool that runs, with a database of its own. `environment` is that of quadbench's commands."""

    folder: Path
    environment: dict[str, str]

    @property
    def condor(self) -> Condor:
        return Condor(configuration=self.folder / ".quadbench" / "pool" / "condor_config")

    @property
    def database(self) -> Path:
        return self.folder / "results" / "quadbench.sqlite"

    def quadbench(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of quadbench as the pool's user, and return what came of it."""
        command = _as_user([sys.executable, "-P", "-m", "quadbench", *words, "--results", str(self.folder / "results")])
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=_PATIENCE_S, cwd=self.folder
        )

    def submit(self, run_id: str, jobs: Sequence[NewJob]) -> list[Job]:
        """Submit jobs to the pool, and return them."""
        engine = open_engine(self.database)
        try:

            def send(stored: Sequence[Job]) -> None:
                submit_dag(self.condor, run_id, stored)

            return FarmJobs(engine).submit(run_id, jobs, f"{OWNER}@desk", VERSION, send, self.condor.identity)
        finally:
            engine.dispose()

    def hurry(self) -> None:
        """End the pauses after failed attempts."""
        name = str(self.condor.schedd()["Name"])
        with suppress(QuadbenchError):  # none is held
            self.condor.run("condor_release", "-name", name, "-constraint", "JobStatus == 5 && QuadbenchJob =!= undefined")

    def wait_until(self, is_so: Callable[[], object], *, is_hurried: bool = False) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, self._state()
            if is_hurried:
                self.hurry()
            time.sleep(0.2)

    def _state(self) -> str:
        logs = (self.folder / "results" / "farm.log", self.folder / "host.log", self.folder / "master.log")
        texts = [path.read_text()[-3000:] for path in logs if path.exists()]
        return "\n".join([*texts, str(self.condor.queue()), str(self.condor.slots("Name", "State", "SlotDevice", "SlotReady"))])


def require_pool() -> None:
    """Skip the test where no pool can be: HTCondor is not installed, or root may make no user namespace."""
    if find_program("condor_master") is None:
        pytest.skip("HTCondor is not installed: apt-get install --no-install-recommends condor")
    if os.geteuid() == 0 and subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("HTCondor takes no jobs of root, and this machine lets root make no user namespace")


@contextmanager
def personal_pool(folder: Path, phones: int, script: Script) -> Iterator[PersonalPool]:
    """Start a pool with so many phones in a folder, and end it with all its processes; skip the test where it cannot be."""
    require_pool()
    path = os.pathsep.join((str(_TESTS.parent), str(_TESTS)))
    own = {"HOME": str(folder), "LOGNAME": OWNER, "USER": OWNER, "PYTHONPATH": path, SCRIPT: document_text(script)}
    left = {name: text for name, text in os.environ.items() if not name.startswith(("QUADBENCH_", "CONDOR_", "_CONDOR_"))}
    pool = PersonalPool(folder, {**left, **own, "QUADBENCH_LEASE_S": "4"})
    home = pool.condor.configuration.parent
    home.mkdir(parents=True)
    settings = {**QUICK, **scripted_settings(home, folder / "host.log", phones)}
    (home / "condor_config.local").write_text("".join(f"{name} = {text}\n" for name, text in settings.items()))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    made = pool.quadbench("farm", "init", "--slots", str(phones), "--port", port)
    assert made.returncode == 0, made.stderr
    environment = {**pool.environment, "CONDOR_CONFIG": str(pool.condor.configuration)}
    with (folder / "master.log").open("wb") as log:
        command = _as_user(["condor_master", "-f"], of_its_own=True)
        master = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        ready = "SlotReady =?= True"
        pool.wait_until(lambda: _answers(lambda: len(pool.condor.slots("Name", constraint=ready)) == phones))
        pool.wait_until(lambda: _answers(lambda: pool.condor.queue("ClusterId") == []))
        yield pool
    finally:
        master.send_signal(signal.SIGKILL if os.geteuid() == 0 else signal.SIGQUIT)  # a process namespace dies as a whole
        master.wait(_PATIENCE_S)


def _answers(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except QuadbenchError:
        return False


def _as_user(words: Sequence[str], *, of_its_own: bool = False) -> list[str]:
    spaces = OF_ITS_OWN if of_its_own else ()
    return [*AS_NOBODY, *spaces, "--", *words] if os.geteuid() == 0 else list(words)
