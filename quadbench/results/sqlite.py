"""SQLite: a file -> an engine that begins transactions as they are meant, and what is wrong with the file in words."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import sqlalchemy as sa

from quadbench.errors import ArtifactError, StorageError
from quadbench.results.storage import require_writable, storing
from quadbench.spec import require_unopened

DAMAGED_HINT = (
    "copy it, then rescue what can be read: sqlite3 OLD .recover | sqlite3 NEW; or move it away, and a new one is begun"
)
_LOCK_TIMEOUT_S = 30.0
# SQLite takes any bytes for a text. Those that are none come as halves of characters, which no check of a row lets pass.
_AS_STORED = partial(str, encoding="utf-8", errors="surrogateescape")
ReadT = TypeVar("ReadT")

log = logging.getLogger(__name__)


def prepare_file(path: Path) -> None:
    """Make the folder of a file that is to be written, and refuse what is no regular file.

    Raises:
        StorageError: its folder is full or cannot be written.
        ArtifactError: there is something else.
    """
    require_writable(path.parent)
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        require_database_file(path)


def require_database_file(path: Path) -> None:
    """Refuse what is no regular file; SQLite would wait for a pipe. Its locks on a file that is open here stay."""
    require_unopened(
        path,
        "results database",
        fault=ArtifactError,
        hint="see that the path is right; the next run, or quadbench farm init, begins a new one where nothing lies",
    )


def file_engine(path: Path, *, foreign_keys: bool = True) -> sa.Engine:
    """Return the engine of a file that is written to, which is made with the first connection."""
    engine = _engine(sa.URL.create("sqlite", database=str(path)), foreign_keys=foreign_keys)

    @sa.event.listens_for(engine, "connect")
    def keep_log(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")

    return engine


def reading_engine(path: Path) -> sa.Engine:
    """Return the engine of a file that nothing is written to.

    SQLite lays a write-ahead log and its index beside a file even to read it. Where no log is there, or an empty one, the file is
    taken as one that does not change: nor does it, until a log has been filled and is written back, which takes launches.
    """
    log = path.with_name(f"{path.name}-wal")
    is_fixed = not log.exists() or log.stat().st_size == 0
    query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if is_fixed else {})
    return _engine(sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query))


def path_of(engine: sa.Engine) -> Path:
    """Return the path of the engine's file."""
    database = str(engine.url.database)
    return Path(unquote(database.removeprefix("file:"))) if database.startswith("file:") else Path(database)


def content_fault(connection: sa.Connection) -> str | None:
    """Say what is wrong with the file where it is checked whole; None where nothing is."""
    fault = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    return None if fault == "ok" else " ".join(fault.split())


def orphans(connection: sa.Connection) -> int:
    """Return the number of rows without their parent."""
    return len(connection.exec_driver_sql("PRAGMA foreign_key_check").all())


@contextmanager
def told_by_sqlite(path: Path) -> Iterator[None]:
    """Turn what SQLite says into an error that names the file.

    Raises:
        StorageError: there is no space left, the file cannot be written, or another process holds it.
        ArtifactError: it is damaged, or cannot be opened.
    """
    try:
        yield
    except UnicodeDecodeError as error:  # in the name of a table or column, or in what SQLite says of it
        raise ArtifactError(f"{path} is damaged: a name in it is no text ({error.reason})", hint=DAMAGED_HINT) from error
    except sa.exc.DatabaseError as error:
        reason = str(error.orig)
        match getattr(error.orig, "sqlite_errorname", "").split("_")[:2]:
            case ["SQLITE", "FULL" | "READONLY" | "CANTOPEN" | "IOERR"]:
                raise StorageError(
                    f"{path} cannot be read or written: {reason}",
                    hint="make room there, or keep results elsewhere with --results",
                ) from error
            case ["SQLITE", "BUSY" | "LOCKED"]:
                raise StorageError(
                    f"{path} cannot be read or written: {reason}",
                    hint="another process holds it: wait until it has done its work",
                ) from error
            case ["SQLITE", "CORRUPT" | "ERROR" | "SCHEMA"]:
                raise ArtifactError(f"{path} is damaged: {reason}", hint=DAMAGED_HINT) from error
        raise ArtifactError(
            f"{path} cannot be opened as a results database: {reason}",
            hint="see that the path is right; if it is, move it away to begin a new one",
        ) from error


def with_plain_texts(connection: sa.Connection, read: Callable[[], ReadT]) -> ReadT:
    """Read what is expected to be text in half the time; where something is none, read again as it is read otherwise."""
    driver: Any = connection.connection.driver_connection
    driver.text_factory = str
    try:
        return read()
    except sa.exc.OperationalError as error:
        log.warning("%s is read once more, with care: %s", path_of(connection.engine), error.orig)
    finally:
        driver.text_factory = _AS_STORED
    return read()


def _engine(url: sa.URL, *, foreign_keys: bool = True) -> sa.Engine:
    """Begin transactions here and not in sqlite3, whose deferred ones fail at once where a reader turns into a writer."""
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_S, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.text_factory = _AS_STORED
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_writer = connection.get_execution_options().get("is_writer", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine
