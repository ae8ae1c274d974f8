"""Engine: where records are kept -> the database's engine, with its schema up to date, and its way of writing.

All that differs between databases stands here. SQLite is the one that there is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from quadbench.errors import ArtifactError, UserError

_LOCK_TIMEOUT_S = 30.0


def open_engine(url_or_path: str | Path) -> sa.Engine:
    """Open the database, making it or bringing its schema up to date first.

    Takes the path of a SQLite file or a URL `sqlite:///...`. Processes that open it at once migrate it one after the other.

    Raises:
        UserError: another database's URL, or none at all.
        ArtifactError: not a database, damaged, or of a newer quadbench.
    """
    url = _sqlite_url(url_or_path)
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _migrate(url, path)
    except sa.exc.DatabaseError as error:
        raise ArtifactError(
            f"{path} cannot be opened as a results database: {error.orig}",
            hint="move it away to begin a new one, or wait for the process that holds it",
        ) from error
    return _sqlite_engine(url)


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a write transaction, which no other process can be inside at the same time."""
    with engine.connect().execution_options(is_writer=True) as connection, connection.begin():
        yield connection


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


def _sqlite_engine(url: sa.URL, *, foreign_keys: bool = True) -> sa.Engine:
    """Begin transactions here and not in sqlite3, whose deferred ones fail at once where a reader turns into a writer."""
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_S, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_writer = connection.get_execution_options().get("is_writer", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine


def _migrate(url: sa.URL, path: Path) -> None:
    """Bring the schema up to date inside one write transaction, which is also the lock against other processes."""
    config = Config()
    config.set_main_option("script_location", "quadbench.results:migrations")
    script = ScriptDirectory.from_config(config)
    engine = _sqlite_engine(url, foreign_keys=False)
    try:
        with writing(engine) as connection:
            current = MigrationContext.configure(connection).get_current_revision()
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


def _refuse_newer(path: Path, current: str | None, known: list[str]) -> None:
    if current is not None and current not in known:
        raise ArtifactError(
            f"{path} has schema '{current}', which this quadbench does not know; known: {', '.join(sorted(known))}",
            hint="it was written by a newer quadbench; upgrade, or use another results folder",
        )
