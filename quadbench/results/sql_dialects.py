"""Differences of SQLite and PostgreSQL: SQLAlchemy engines for each, and conversion of their errors into quadbench's own."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa

from quadbench.errors import ArtifactError, StorageError, requires_extra
from quadbench.results.disk import require_writable, storage_errors
from quadbench.spec.files import require_regular_file

DAMAGED_HINT = "copy the file, then recover its data: sqlite3 OLD .recover | sqlite3 NEW; or move it away to start a new database"
_LOCK_TIMEOUT_S = 30.0
# Both ends notice a lost connection within 20 s, well within a lease, not after TCP's two hours. Otherwise a server would keep
# the locks of a lost client, or of a frozen one. A URL may set other values.
_SETTINGS = {
    "connect_timeout": "10",  # seconds
    "tcp_user_timeout": "20000",  # milliseconds
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
_SERVER_SETTINGS = (
    "-c lock_timeout=30s -c idle_in_transaction_session_timeout=20s -c tcp_user_timeout=20s"
    " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)
_READ_ONLY = "-c default_transaction_read_only=on"
_CREATION_LOCK = 0x7175_6164  # "quad": the advisory lock of who creates the tables
_UNREACHED_HINT = "start the server, or correct $QUADBENCH_DATABASE; unset it to store records in the results folder"
# SQLSTATE codes: connection, read-only, login, names, deadlock, rights, disk space, locks, shutdown.
_SERVER_FAULTS = ("08", "25", "28", "3D", "40", "42501", "53", "55P03", "57", "58")

log = logging.getLogger(__name__)


def prepare_file(path: Path) -> None:
    """Create the folder for a SQLite file, and raise an error if the file's path exists but is not a regular file."""
    require_writable(path.parent)
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        require_database_file(path)


def require_database_file(path: Path) -> None:
    """Raise ArtifactError unless a SQLite database's path is an existing regular file. SQLite would hang on a named pipe."""
    require_regular_file(
        path,
        "results database",
        fault=ArtifactError,
        hint="check the path; if nothing is there, the next run or quadbench farm init creates a database",
    )


def file_engine(path: Path) -> sa.Engine:
    """Return a SQLAlchemy engine for writing a SQLite file. The first connection creates the file."""
    engine = _engine(sa.URL.create("sqlite", database=str(path)))

    @sa.event.listens_for(engine, "connect")
    def keep_log(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")

    return engine


def reading_engine(path: Path) -> sa.Engine:
    """Return a SQLAlchemy engine for only reading a SQLite file.

    SQLite creates a write-ahead log and its index beside a file even to read it. Without a log, or with an empty one, the file
    is opened as immutable. It stays unchanged until a new log is full and written back, which takes several launches.
    """
    log = path.with_name(f"{path.name}-wal")
    is_fixed = not log.exists() or log.stat().st_size == 0
    query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if is_fixed else {})
    return _engine(sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query))


def path_of(engine: sa.Engine) -> Path:
    database = str(engine.url.database)
    return Path(unquote(database.removeprefix("file:"))) if database.startswith("file:") else Path(database)


def content_fault(connection: sa.Connection) -> str | None:
    """Check the whole SQLite file and return a description of its damage; None if it is sound."""
    fault = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    return None if fault == "ok" else " ".join(fault.split())


@contextmanager
def sqlite_errors(name: str) -> Iterator[None]:
    """In a `with` block, convert SQLite errors to StorageError or ArtifactError. The new message names the database file."""
    try:
        yield
    except UnicodeDecodeError as error:  # invalid text in a table's or column's name, or in SQLite's message
        raise ArtifactError(f"{name} is damaged: a name in it is not valid text ({error.reason})", hint=DAMAGED_HINT) from error
    except sa.exc.DatabaseError as error:
        reason = str(error.orig)
        match getattr(error.orig, "sqlite_errorname", "").split("_")[:2]:
            case ["SQLITE", "FULL" | "READONLY" | "CANTOPEN" | "IOERR"]:
                hint = "check space and permissions there, or choose another folder with --results"
                raise StorageError(f"{name} cannot be read or written: {reason}", hint=hint) from error
            case ["SQLITE", "BUSY" | "LOCKED"]:
                hint = "wait until the other process that uses the database has finished"
                raise StorageError(f"{name} cannot be read or written: {reason}", hint=hint) from error
            case ["SQLITE", "CORRUPT" | "ERROR" | "SCHEMA"] | [""]:  # the empty name stands for bytes that are no text
                raise ArtifactError(f"{name} is damaged: {reason}", hint=DAMAGED_HINT) from error
        raise ArtifactError(
            f"{name} cannot be opened as a results database: {reason}",
            hint="check the path; if it is right, move the file away to start a new database",
        ) from error


def _engine(url: sa.URL) -> sa.Engine:
    """Return a SQLite engine that starts each transaction with BEGIN. Python's sqlite3 alone sends BEGIN only before a write."""
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_S, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_writer = connection.get_execution_options().get("is_writer", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine


def server_engine(url: sa.URL, *, is_read_only: bool = False) -> sa.Engine:
    """Return a SQLAlchemy engine for a PostgreSQL database. Opening a connection contacts the server; this call does not.

    A reader sees a single snapshot of the database, however much is written meanwhile.
    """
    with requires_extra("farm"):
        import psycopg  # noqa: F401  (only its presence matters)
    options = {"options": " ".join(filter(None, (_SERVER_SETTINGS, _READ_ONLY if is_read_only else "")))}
    settled = url.set(drivername="postgresql+psycopg").update_query_dict(_SETTINGS | options | dict(url.query))
    engine = sa.create_engine(settled, pool_pre_ping=True)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("is_writer", False):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine


def database_name(url: sa.URL) -> str:
    """Return a PostgreSQL URL to show in messages. Mask the password, and drop query options except host and port."""
    place = {key: value for key, value in url.query.items() if key in ("host", "port")}
    return url.set(drivername="postgresql", query=place).render_as_string(hide_password=True)


def wait_for_creation(connection: sa.Connection) -> None:
    """Take PostgreSQL's lock for creating tables, when no other process has it, and keep it until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})")


@contextmanager
def postgresql_errors(name: str) -> Iterator[None]:
    """In a `with` block, convert PostgreSQL errors to StorageError or ArtifactError. The new message names the database."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        reason = " ".join(str(error.orig).split()).rstrip(".")
        state = getattr(error.orig, "sqlstate", None)
        if type(error.orig).__name__ == "ConnectionTimeout":
            hint = f"{_UNREACHED_HINT}; to wait longer, add ?connect_timeout=30 to the URL"
            raise StorageError(f"{name} did not answer within its connect_timeout", hint=hint) from error
        if state is None and isinstance(error, sa.exc.OperationalError):
            raise StorageError(f"{name} cannot be reached: {reason}", hint=_UNREACHED_HINT) from error
        if state and state.startswith(_SERVER_FAULTS):
            raise StorageError(f"{name} cannot be read or written: {reason}", hint=_UNREACHED_HINT) from error
        if state and state.startswith("42"):
            raise ArtifactError(f"{name} is damaged: {reason}", hint="restore it, or use another database") from error
        raise ArtifactError(f"{name} does not accept the data: {reason}") from error
