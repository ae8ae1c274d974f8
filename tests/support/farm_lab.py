"""Farm lab: a lab, PostgreSQL and S3 on its switch -> a farm: on each host a worker with a results folder of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from quadbench.results.engine import open_engine
from support.lab import Host, Lab
from support.postgresql_server import PostgresqlServer
from support.s3_server import S3Server
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
    environment: Mapping[str, str]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def results(self, host: Host) -> Path:
        return self.folder / host.name

    def log(self, host: Host) -> str:
        return (self.folder / f"{host.name}.log").read_text()

    def start_worker(self, host: Host, devices: str) -> subprocess.Popen[bytes]:
        """Start a real worker for these devices."""
        return self._started(host, "quadbench", "farm", "worker", "--devices", devices, "--results", self.results(host))

    def start_quadbench(self, host: Host, *words: object, results: Path) -> subprocess.Popen[bytes]:
        """Start a command of quadbench on a host; what it says is in the log of the host's worker."""
        command = sys.executable, "-m", "quadbench", *words, "--results", results
        return self.lab.start(host, *command, log=self.folder / f"{host.name}.log", environment=self.environment)

    def start_scripted(self, host: Host, *words: object) -> subprocess.Popen[bytes]:
        """Start a worker that does scripted jobs; the words are those of `scripted_worker`."""
        return self._started(host, "support.scripted_worker", *words)

    def _started(self, host: Host, module: str, *words: object) -> subprocess.Popen[bytes]:
        log = self.folder / f"{host.name}.log"
        worker = self.lab.start(host, sys.executable, "-m", module, *words, log=log, environment=self.environment)
        self.workers[host.name] = worker
        return worker

    def stop_workers(self) -> None:
        """Tell all workers to drain, and wait until they have."""
        for worker in self.workers.values():
            worker.terminate()
        for worker in self.workers.values():
            worker.wait(_PATIENCE_S)

    def run(self, host: Host, *words: object, results: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of quadbench on a host, in the results folder of its worker or another, and return what came of it."""
        command = host.command(sys.executable, "-m", "quadbench", *words, "--results", results or self.results(host))
        settings = {**os.environ, **self.environment}
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

    def wait_for_workers(self, count: int) -> None:
        self.wait_until(lambda: self.number("SELECT count(*) FROM workers") >= count)

    def hurry(self) -> None:
        """End the pauses after failed attempts, which are made for things that take their time to mend."""
        self.query("UPDATE jobs SET not_before = NULL WHERE not_before IS NOT NULL")

    def wait_until(self, is_so: Callable[[], bool], *, is_hurried: bool = False, patience_s: float = _PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not is_so():
            assert time.monotonic() < deadline, "\n".join(self.log(host)[-3000:] for host in self.lab.hosts if self._log(host))
            if is_hurried:
                self.hurry()
            time.sleep(0.1)

    def _log(self, host: Host) -> bool:
        return (self.folder / f"{host.name}.log").exists()


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
    built = FarmLab(lab=lab, server=server, database=database, store=place, folder=folder, environment=environment)
    try:
        yield built
    finally:
        for host in lab.hosts:
            host.mend()
            host.thaw()
        lab.stop()
