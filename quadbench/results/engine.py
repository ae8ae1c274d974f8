"""Engine: where records are kept -> the database's engine, with its schema up to date, and its way of writing.

All that differs between databases stands here. SQLite is the one that there is.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from quadbench.errors import ArtifactError, StorageError, UserError
from quadbench.results.storage import require_writable, storing
from quadbench.spec import require_file

_LOCK_TIMEOUT_S = 30.0
_DAMAGED_HINT = (
    "copy it, then rescue what can be read: sqlite3 OLD .recover | sqlite3 NEW; or move it away, and a new one is begun"
)


def open_engine(url_or_path: str | Path) -> sa.Engine:
    """Open the database to be written, making it or bringing its schema up to date first.

    Takes the path of a SQLite file or a URL `sqlite:///...`. Processes that open it at once migrate it one after the other. The
    file is checked whole, so that no launch is run whose record it could not take.

    Raises:
        UserError: another database's URL, or none at all.
        StorageError: its folder is full or cannot be written.
        ArtifactError: not a database, damaged, or of a newer quadbench.
    """
    url = _sqlite_url(url_or_path)
    path = Path(str(url.database))
    require_writable(path.parent)
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        _require_database(path)
    with _told(path):
        _migrate(url, path)
    engine = _sqlite_engine(url)
    with reading(engine) as connection:
        fault = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if fault != "ok":
        engine.dispose()
        raise ArtifactError(f"{path} is damaged: {' '.join(fault.split())}", hint=_DAMAGED_HINT)
    return engine


def open_for_reading(path: Path) -> sa.Engine:
    """Open a SQLite file so that nothing is written, which also works where nothing can be.

    A file with the schema of an older quadbench is brought up to date first, as `open_engine` does it.

    Raises:
        StorageError: the schema is an older one, and the folder cannot be written.
        ArtifactError: not a database, damaged, or of a newer quadbench.
    """
    _require_database(path)
    engine = _sqlite_engine(_read_only_url(path), is_read_only=True)
    try:
        with reading(engine) as connection:
            current, script = _revision(connection, path), _migrations()
        if current is None:
            raise ArtifactError(f"{path} holds no records, not even their tables", hint="the next run makes them")
        _refuse_newer(path, current, [revision.revision for revision in script.walk_revisions()])
    except BaseException:
        engine.dispose()
        raise
    if current == script.get_current_head():
        return engine
    engine.dispose()
    return open_engine(path)


def _require_database(path: Path) -> None:
    """Refuse what is no regular file; SQLite would wait for a pipe."""
    require_file(path, "results database", fault=ArtifactError, hint="move it away, and a new one is begun")


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a write transaction, which no other process can be inside at the same time.

    Raises:
        StorageError: there is no space left, or the file cannot be written.
        ArtifactError: the database is damaged, or another process holds it.
    """
    with _told(path_of(engine)), engine.connect().execution_options(is_writer=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection that is only read from.

    Raises:
        ArtifactError: the database is damaged, or holds values that nothing of quadbench has written.
    """
    path = path_of(engine)
    with _told(path), engine.connect() as connection:
        try:
            yield connection
        except (ValueError, TypeError, AttributeError) as error:  # the ways in which columns and enumerations refuse a value
            raise ArtifactError(f"{path} is damaged: a value cannot be read: {error}", hint=_DAMAGED_HINT) from error


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what SQLite says into an error that names the file."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        reason = str(error.orig)
        match getattr(error.orig, "sqlite_errorname", "").split("_")[:2]:
            case ["SQLITE", "FULL" | "READONLY" | "CANTOPEN" | "IOERR"]:
                raise StorageError(
                    f"{path} cannot be read or written: {reason}",
                    hint="make room there, or keep results elsewhere with --results",
                ) from error
            case ["SQLITE", "CORRUPT" | "ERROR" | "SCHEMA"]:
                raise ArtifactError(f"{path} is damaged: {reason}", hint=_DAMAGED_HINT) from error
        raise ArtifactError(
            f"{path} cannot be opened as a results database: {reason}",
            hint="move it away to begin a new one, or wait for the process that holds it",
        ) from error


def path_of(engine: sa.Engine) -> Path:
    """Return the path of the SQLite file."""
    database = str(engine.url.database)
    return Path(unquote(database.removeprefix("file:"))) if database.startswith("file:") else Path(database)


def _read_only_url(path: Path) -> sa.URL:
    """Return the URL of a file that nothing is written to.

    SQLite lays a write-ahead log and its index beside a file even to read it. Where no log is there, or an empty one, the file is
    taken as one that does not change: nor does it, until a log has been filled and is written back, which takes launches.
    """
    log = path.with_name(f"{path.name}-wal")
    is_fixed = not log.exists() or log.stat().st_size == 0
    query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if is_fixed else {})
    return sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def _sqlite_url(url_or_path: str | Path) -> sa.URL:
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        return sa.URL.create("sqlite", database=str(url_or_path))
    url = sa.make_url(url_or_path)
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        raise UserError(
            f"records cannot be kept in '{url.render_as_string()}'; expected a SQLite file",
            hint="give a path, as results/quadbench.sqlite",
        )
    return url


def _sqlite_engine(url: sa.URL, *, foreign_keys: bool = True, is_read_only: bool = False) -> sa.Engine:
    """Begin transactions here and not in sqlite3, whose deferred ones fail at once where a reader turns into a writer."""
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_S, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        if not is_read_only:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_writer = connection.get_execution_options().get("is_writer", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine


def _migrate(url: sa.URL, path: Path) -> None:
    """Bring the schema up to date inside one write transaction, which is also the lock against other processes."""
    script, config = _migrations(), _config()
    engine = _sqlite_engine(url, foreign_keys=False)
    try:
        with writing(engine) as connection:
            current = _revision(connection, path)
            if current == script.get_current_head():
                return
            _refuse_newer(path, current, [revision.revision for revision in script.walk_revisions()])
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if broken:
                raise ArtifactError(f"{path}: {len(broken)} rows would lose their parent in the migration; nothing was changed")
    finally:
        engine.dispose()


def _revision(connection: sa.Connection, path: Path) -> str | None:
    """Return the schema that the database says it has."""
    try:
        return MigrationContext.configure(connection).get_current_revision()
    except CommandError as error:
        raise ArtifactError(f"{path} is damaged: its schema cannot be told: {error}", hint=_DAMAGED_HINT) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "quadbench.results:migrations")
    return config


def _migrations() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _refuse_newer(path: Path, current: str | None, known: list[str]) -> None:
    if current is not None and current not in known:
        raise ArtifactError(
            f"{path} has schema '{current}', which this quadbench does not know; known: {', '.join(sorted(known))}",
            hint="it was written by a newer quadbench; upgrade, or use another results folder",
        )
