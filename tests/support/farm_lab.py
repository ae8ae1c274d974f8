"""Farm lab: a lab, PostgreSQL and S3 on its switch -> a farm: a pool with its head there, a results folder on each host."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from quadbench.farm.dag import submit_dag
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.farm.jobs import FarmJobs
from quadbench.results.documents import document_text
from quadbench.results.engine import open_engine
from support.lab import Host, Lab, inside
from support.lab_pool import LabPool, lab_pool
from support.postgresql_server import PostgresqlServer
from support.s3_server import S3Server
from support.scripted_jobs import SCRIPT, VERSION, Script, scripted_settings
from support.stored_records import query

LEASE_S = 4.0  # that of a lab is thirty times as short as a farm's, and so are the times after which a connection counts as lost
_PATIENCE_S = 60.0
RUN_S = 600.0  # that a run which builds may take, on a machine with other things to do
_TESTS = Path(__file__).parents[1]
_QUICK = {
    "connect_timeout": "2",
    "tcp_user_timeout": "2000",
    "keepalives_idle": "1",
    "keepalives_interval": "1",
    "keepalives_count": "2",
    "options": "-c lock_timeout=4s -c idle_in_transaction_session_timeout=2s -c tcp_user_timeout=2s"
    " -c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2",
}


@dataclass
class FarmLab:
    """A farm with a database of its own. `database` is its URL as tests reach it, whatever becomes of the network."""

    lab: Lab
    server: PostgresqlServer
    database: str
    store: str
    folder: Path
    pool: LabPool

    @property
    def environment(self) -> Mapping[str, str]:
        return self.pool.environment

    def results(self, host: Host) -> Path:
        return self.folder / host.name

    def log(self, host: Host) -> str:
        """Return what a host's programs and attempts have logged."""
        logs = (self.results(host) / "farm.log", self.pool.condor(host).configuration.parent / "log" / "HostLog")
        return "".join(path.read_text() for path in (*logs, self.folder / f"{host.name}.log") if path.exists())

    def start_host(self, host: Host, devices: str) -> subprocess.Popen[bytes]:
        """Start a host of the pool with these devices."""
        self.pool.set_up(host, "--devices", devices)
        return self.pool.start(host)

    def start_scripted(self, host: Host, count: int, seconds: float, version: str = VERSION) -> subprocess.Popen[bytes]:
        """Start a host of the pool with so many phones, which does scripted jobs of so many seconds."""
        home = self.pool.condor(host).configuration.parent
        home.mkdir(parents=True, exist_ok=True)
        settings = scripted_settings(home, self.folder / f"{host.name}.log", count, version)
        self.pool.set_up(host, "--slots", str(count), settings=settings)
        return self.pool.start(host, {SCRIPT: document_text(Script(seconds=seconds))})

    def start_quadbench(self, host: Host, *words: object, results: Path) -> subprocess.Popen[bytes]:
        """Start a command of quadbench on a host."""
        command = sys.executable, "-m", "quadbench", *words, "--results", results
        settings = self.pool.settings_of_desk(host)
        return self.lab.start(host, *command, log=self.folder / f"{host.name}.log", environment=settings)

    def submit(self, count: int, needs: str, run_id: str = "run", version: str = VERSION) -> list[int]:
        """Submit so many scripted jobs from the first host."""
        engine = open_engine(self.database)
        desk = self.lab.hosts[0]
        new = [NewJob(kind=JobKind.MEASURE, needs=needs, most_attempts=100)] * count

        def send(jobs: Sequence[Job]) -> None:
            inside(self.lab.switch, lambda: submit_dag(self.pool.condor(self.lab.switch), run_id, jobs))

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("QUADBENCH_LEASE_S", self.environment["QUADBENCH_LEASE_S"])
                return [job.id for job in FarmJobs(engine).submit(run_id, new, f"ana@{desk.name}", version, send)]
        finally:
            engine.dispose()

    def stop_hosts(self) -> None:
        """Tell all hosts to end their jobs, and wait until they have."""
        for host in self.lab.hosts:
            if master := self.pool.masters.pop(host.name, None):
                for pid in self.pool.daemons(host, "condor_master"):
                    os.kill(pid, signal.SIGTERM)
                master.wait(_PATIENCE_S)

    def run(self, host: Host, *words: object, results: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of quadbench on a host, in its results folder or another, and return what came of it."""
        command = host.command(sys.executable, "-m", "quadbench", *words, "--results", results or self.results(host))
        settings = {**os.environ, **self.pool.settings_of_desk(host)}
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=RUN_S)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        return query(self.database, statement)

    def number(self, statement: str) -> int:
        """Return the one number that a statement gives."""
        return int(str(self.query(statement)[0][0]))

    def count(self, state: str) -> int:
        return self.number(f"SELECT count(*) FROM jobs WHERE state = '{state}'")

    def wait_for_attempt(self) -> None:
        """Wait until an attempt has a device, so that it is under way and not only claimed."""
        self.wait_until(lambda: self.number("SELECT count(*) FROM leases WHERE job_owner IS NOT NULL") > 0)

    def wait_for_slots(self, count: int) -> None:
        """Wait until so many devices and places for builds are ready."""
        self.wait_until(lambda: self.pool.slot_count() >= count)

    def hurry(self) -> None:
        """End the pauses after failed attempts, which are made for things that take their time to mend."""
        held = "JobStatus == 5 && QuadbenchJob =!= undefined"
        self.pool.tool("condor_release", "-name", "quadbench@", "-constraint", held, is_owner=True)

    def wait_until(self, is_so: Callable[[], bool], *, is_hurried: bool = False, patience_s: float = _PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not is_so():
            assert time.monotonic() < deadline, self._state()
            if is_hurried:
                self.hurry()
            time.sleep(0.2)

    def _state(self) -> str:
        """Return what explains why something has not happened: logs, queue, slots and jobs."""
        logs = "\n".join(self.log(host)[-3000:] for host in self.lab.hosts)
        queue = self.pool.tool("condor_q", "-name", "quadbench@", "-allusers", "-nobatch", "-wide")
        slots = self.pool.tool("condor_status", "-af:h", "Name", "State", "Activity", "SlotDevice", "SlotReady", "SlotWhyNot")
        return f"{logs}\n{queue}\n{slots}\n{self.query('SELECT id, kind, state, attempt, seat, reason FROM jobs')}"


@contextmanager
def farm_lab(
    lab: Lab, server: PostgresqlServer, s3: S3Server, folder: Path, *, store: str | None = None, lease_s: float = LEASE_S
) -> Iterator[FarmLab]:
    """Make an empty farm on the hosts of a lab; what runs there ends with it. Its store is a new bucket, or the one given."""
    database = server.new_database()
    open_engine(database).dispose()  # makes its tables
    name = database.partition("@/")[2].partition("?")[0]
    place = store or s3.new_bucket()
    environment = {
        **s3.environment,
        "QUADBENCH_DATABASE": f"postgresql://quadbench@{lab.switch.address}/{name}?{urlencode(_QUICK)}",
        "QUADBENCH_STORE": place,
        "QUADBENCH_LEASE_S": str(lease_s),
        "PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS)]),
    }
    try:
        with lab_pool(lab, folder, environment) as pool:
            yield FarmLab(lab=lab, server=server, database=database, store=place, folder=folder, pool=pool)
    finally:
        for host in lab.hosts:
            host.mend()
            host.thaw()
        lab.stop()
