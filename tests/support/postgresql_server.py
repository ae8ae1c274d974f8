"""PostgreSQL for tests: Debian's programs -> a server with its own data folder, on a socket, that ends with the tests."""

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

_USER, _GROUP = "nobody", "nogroup"  # PostgreSQL refuses root
_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200")
_PATIENCE_S = 60.0


class PostgresqlServer:
    """A server that runs. Each test takes a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://quadbench@/{name}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Run a statement on the server, outside any transaction."""
        import psycopg

        with closing(psycopg.connect(self.url("postgres"), autocommit=True)) as connection:
            connection.execute(statement)  # type: ignore[arg-type]


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """Start a server, and stop it at the end; skip the test where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'quadbench[farm]'")
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="quadbench-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _USER, _GROUP)
        words = ["--auth=trust", "--username=quadbench", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(_as_other(programs / "initdb", "-D", folder / "data", *words), check=True, capture_output=True, cwd="/")
        settings = [
            word for setting in (*_QUICK, "listen_addresses=", f"unix_socket_directories={folder}") for word in ("-c", setting)
        ]
        with (folder / "log").open("wb") as log:
            command = _as_other(programs / "postgres", "-D", folder / "data", *settings)
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        try:
            server = PostgresqlServer(folder)
            _wait_for(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            process.wait(_PATIENCE_S)
    finally:
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
