"""Database connections: open a SQLite file or PostgreSQL database, create its tables, and read or write in transactions.

Differences between the two kinds of database are in `sql_dialects`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from quadbench.errors import ArtifactError, UserError, quote
from quadbench.results import schema, sql_dialects
from quadbench.results.layout import Layout
from quadbench.spec import variable
from quadbench.spec.variables import mask_url, refuse_like_url

DATABASE_VARIABLE = "QUADBENCH_DATABASE"

Source = str | Path  # a SQLite file's path, or a URL `sqlite:///...` or `postgresql://...`


def database_of(layout: Layout) -> Source:
    """Return the database of a results folder: the URL in $QUADBENCH_DATABASE, else a SQLite file in the folder.

    Raises:
        UserError: the variable's value is not valid text.
    """
    return variable(DATABASE_VARIABLE) or layout.database


def is_external(layout: Layout) -> bool:
    """Return whether $QUADBENCH_DATABASE names a database other than the SQLite file in this results folder."""
    parsed = _parsed(database_of(layout))
    return not isinstance(parsed, Path) or parsed.resolve() != layout.database.resolve()


def open_engine(source: Source) -> sa.Engine:
    """Return a SQLAlchemy engine for writing to a database. First create the tables if missing.

    Processes that open it at once create them one by one. A SQLite file is checked completely, so that no launch is run whose
    record it could not store.

    Raises:
        UserError: the URL is invalid, or of another kind of database.
        StorageError: the folder is full or cannot be written, or the server is not reached.
        ArtifactError: the file is not a database, is damaged, or has another schema version.
        MissingDependencyError: PostgreSQL needs the extra `farm`.
    """
    match _parsed(source):
        case Path() as path:
            sql_dialects.prepare_file(path)
            engine = sql_dialects.file_engine(path)
            _create_tables(engine)
            with begin_read(engine) as connection:
                fault = sql_dialects.content_fault(connection)
            if fault:
                engine.dispose()
                raise ArtifactError(f"{path} is damaged: {fault}", hint=sql_dialects.DAMAGED_HINT)
        case sa.URL() as url:
            engine = sql_dialects.server_engine(url)
            _create_tables(engine)
    return engine


def open_for_reading(source: Source) -> sa.Engine:
    """Return a SQLAlchemy engine for reading a database. Read-only storage suffices.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: as for `open_engine`.
    """
    engine = _reading_engine(_parsed(source))
    name = name_of(engine)
    try:
        with begin_read(engine) as connection:
            if schema.has_tables(connection, name):
                return engine
        raise ArtifactError(f"{name} has no records and no tables yet", hint="start a run; it creates the tables")
    except BaseException:
        engine.dispose()
        raise


@contextmanager
def open_db(layout: Layout, opening: Callable[[Source], sa.Engine] = open_engine) -> Iterator[sa.Engine]:
    """Yield the SQLAlchemy engine that `opening(path or URL)` returns for a results folder. Close the engine after the block."""
    engine = opening(database_of(layout))
    try:
        yield engine
    finally:
        engine.dispose()


def database_exists(source: Source) -> bool:
    """Return whether a database's SQLite file exists. A PostgreSQL database, given by its URL, is not checked: return True."""
    return not isinstance(source, Path) or source.exists()


def has_tables(source: Source) -> bool:
    """Return whether a database has quadbench's tables. Return False for a SQLite file that does not exist yet.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: as for `open_for_reading`.
    """
    parsed = _parsed(source)
    if isinstance(parsed, Path) and not parsed.exists():
        return False
    engine = _reading_engine(parsed)
    try:
        with begin_read(engine) as connection:
            return schema.has_tables(connection, name_of(engine))
    finally:
        engine.dispose()


@contextmanager
def begin_write(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a write transaction. Commit after the block, or roll back on an error. In SQLite, other writers wait.

    Raises:
        StorageError: the disk is full, the database cannot be written, or another process holds it.
        ArtifactError: the database is damaged.
    """
    with _database_errors(engine), engine.connect().execution_options(is_writer=True) as connection, connection.begin():
        yield connection


@contextmanager
def begin_read(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection for reading. All queries in the `with` block see the same snapshot of the database.

    Raises:
        StorageError: the database cannot be read.
        ArtifactError: the database is damaged, or holds values that quadbench never writes.
    """
    with _database_errors(engine), engine.connect() as connection:
        try:
            yield connection
        except UnicodeEncodeError:
            raise
        except (ValueError, TypeError, AttributeError) as error:  # raised by columns and enumerations for an invalid value
            raise damage(engine, error) from error


def damage(engine: sa.Engine, error: Exception) -> ArtifactError:
    """Return the error for a database that holds a value which cannot be read, because of `error`."""
    reason = f"{name_of(engine)} is damaged: a value cannot be read: {error}"
    return ArtifactError(reason, hint=sql_dialects.DAMAGED_HINT if _is_file(engine) else None)


def database_now(connection: sa.Connection) -> datetime:
    """Return the current UTC time by the database's clock. Device leases use this clock, since hosts' clocks may differ."""
    if _is_file(connection.engine):
        text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')").scalar_one()
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return now.astimezone(UTC)


def clock_offset(engine: sa.Engine) -> timedelta:
    """Return a timedelta: a PostgreSQL server's clock time minus this host's clock time. For SQLite, return zero."""
    if _is_file(engine):
        return timedelta(0)
    with begin_read(engine) as connection:
        before = datetime.now(UTC)
        there = database_now(connection)
        return there - (before + (datetime.now(UTC) - before) / 2)


def upsert(connection: sa.Connection, table: type[schema.Table]) -> Any:
    """Return SQLAlchemy's Insert for a table, in the connection's SQL dialect. The caller adds values and ON CONFLICT."""
    from sqlalchemy.dialects import postgresql, sqlite  # a command that only reads needs one of them

    return sqlite.insert(table) if _is_file(connection.engine) else postgresql.insert(table)


def name_of(engine: sa.Engine) -> str:
    """Return the name of a database for messages: a file path, or a URL without its password."""
    return str(sql_dialects.path_of(engine)) if _is_file(engine) else sql_dialects.database_name(engine.url)


def source_name(source: Source) -> str:
    """Return a database's path, or its URL without password, for messages. Raise UserError if it is neither path nor URL."""
    parsed = _parsed(source)
    return str(parsed) if isinstance(parsed, Path) else sql_dialects.database_name(parsed)


@contextmanager
def _database_errors(engine: sa.Engine) -> Iterator[None]:
    """Convert database errors in the `with` block to StorageError (no access), ArtifactError (damage) or UserError (bad text)."""
    try:
        told_by = sql_dialects.sqlite_errors if _is_file(engine) else sql_dialects.postgresql_errors
        with told_by(name_of(engine)):
            yield
    except UnicodeEncodeError as error:
        raise UserError(f"{quote(error.object)} is not valid text; expected UTF-8") from error


def _is_file(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _reading_engine(parsed: Path | sa.URL) -> sa.Engine:
    if isinstance(parsed, sa.URL):
        return sql_dialects.server_engine(parsed, is_read_only=True)
    sql_dialects.require_database_file(parsed)
    return sql_dialects.reading_engine(parsed)


def _parsed(source: Source) -> Path | sa.URL:
    if isinstance(source, Path):
        return source
    if "://" not in source and re.search(r"\b(password|passfile)\s*=", source):
        raise UserError("the database is a libpq connection string; expected a SQLite file or postgresql://HOST/NAME")
    if "://" not in source:
        refuse_like_url(source, "the database", "a SQLite file or postgresql://HOST/NAME")
        return Path(source)
    named = mask_url(source)
    try:
        url = sa.make_url(source)
        if url.get_backend_name() == "postgresql":
            url.get_dialect()().create_connect_args(url)  # it reads the query, as in ?host=/tmp&port=5432
    except (sa.exc.ArgumentError, ValueError):
        hint = "write it as postgresql://HOST/NAME"
        raise UserError(f"the database's URL '{named}' cannot be read", hint=hint) from None  # the cause may contain the password
    match url.get_backend_name():
        case "postgresql" if "@" in f"{url.host}{url.database}" or ":" in (url.database or ""):
            hint = "write %40 for @ and %2F for / in a login; put the login before the host"
            raise UserError(f"the database's URL '{named}' has an @ or a colon in its host or name; expected neither", hint=hint)
        case "postgresql":
            return url
        case "sqlite" if url.host or url.username or url.password:
            raise UserError(f"the database's URL '{named}' has a login or a host; expected sqlite:///PATH")
        case "sqlite" if url.database not in (None, "", ":memory:"):
            refuse_like_url(str(url.database), "the database", "a SQLite file or postgresql://HOST/NAME")
            return Path(str(url.database))
    raise UserError(
        f"records cannot be stored in '{named}'; expected a SQLite file or postgresql://HOST/NAME",
        hint="give a path, such as results/quadbench.sqlite",
    )


def _create_tables(engine: sa.Engine) -> None:
    """Create a database's tables in one transaction, unless it has them. Close the engine's connections after an error."""
    name = name_of(engine)
    try:
        with begin_read(engine) as connection:
            if schema.has_tables(connection, name):
                return  # the usual case, which takes no write lock
        with begin_write(engine) as connection:
            if not _is_file(engine):
                sql_dialects.wait_for_creation(connection)
            schema.create(connection, name)
    except BaseException:
        engine.dispose()
        raise
