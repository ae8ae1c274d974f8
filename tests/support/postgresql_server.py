"""PostgreSQL for tests: Debian's programs -> a server with its own data folder, on a socket, that ends with the tests.

It can be on a host of a lab too, at whose address it listens then, and be stopped and started again.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from quadbench.results.engine import open_engine
from support.lab import Host

_USER, _GROUP = "nobody", "nogroup"  # PostgreSQL refuses root
# What is committed is with the kernel, so it outlives the server, not the machine; databases go before a vacuum pays.
_QUICK = ("fsync=off", "full_page_writes=off", "autovacuum=off", "max_connections=200")
_PATIENCE_S = 60.0


class PostgresqlServer:
    """A server that runs. Each test takes a database of its own."""

    def __init__(self, folder: Path, host: Host | None = None) -> None:
        self.folder, self._host = folder, host
        self._numbers = count()
        self._template: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def new_database_with_tables(self) -> str:
        """Make a database whose tables are empty, and return its URL: a copy of one that is opened once."""
        if not self._template:
            open_engine(url := self.new_database()).dispose()
            self._template = str(sa.make_url(url).database)
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        return self.url(name)

    def url(self, name: str) -> str:
        """Return a database's URL as it is reached through the socket, from whichever host."""
        return f"postgresql://quadbench@/{name}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Run a statement on the server, outside any transaction."""
        import psycopg

        with closing(psycopg.connect(self.url("postgres"), autocommit=True)) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        listen = self._host.address if self._host else ""
        settings = (*_QUICK, f"listen_addresses={listen}", f"unix_socket_directories={self.folder}")
        words = [word for setting in settings for word in ("-c", setting)]
        command = _as_other(_programs() / "postgres", "-D", self.folder / "data", *words)
        if self._host:
            command = self._host.command(*command)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        _wait_for(self, self._process)

    def stop(self) -> None:
        """Stop it at once, as a machine that fails does; what was stored is there when it starts again."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_PATIENCE_S)
            self._process = None


@contextmanager
def running_postgresql(host: Host | None = None) -> Iterator[PostgresqlServer]:
    """Start a server, and stop it at the end; skip the test where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'quadbench[farm]'")
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="quadbench-postgresql-"))
    server = PostgresqlServer(folder, host)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _USER, _GROUP)
        words = ["--auth=trust", "--username=quadbench", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(_as_other(programs / "initdb", "-D", folder / "data", *words), check=True, capture_output=True, cwd="/")
        if host:
            with (folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {host.network} trust\n")
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs, which on Debian is not on PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or not (folders[-1] / "postgres").exists():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return folders[-1]


def _as_other(*command: object) -> list[str]:
    """Return a command that does not run as root, and that the kernel ends with the tests."""
    other = [f"--reuid={_USER}", f"--regid={_GROUP}", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *other, "--pdeathsig=KILL", "--", *map(str, command)]


def _wait_for(server: PostgresqlServer, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return server.execute("SELECT 1")
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL does not start: {(server.folder / 'log').read_text()}") from None
            time.sleep(0.05)
