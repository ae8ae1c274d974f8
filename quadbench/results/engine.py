"""Engine: where records are kept -> the database's engine, with its schema up to date, and its ways of reading and writing.

Records are kept in a SQLite file or in PostgreSQL. What differs between the two stands in `dialects`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from quadbench.errors import ArtifactError, UserError, shown
from quadbench.results import dialects, schema
from quadbench.results.layout import Layout
from quadbench.spec import variable
from quadbench.spec.variables import masked, refuse_like_url

DATABASE_VARIABLE = "QUADBENCH_DATABASE"

Source = str | Path  # a SQLite file's path, or a URL `sqlite:///...` or `postgresql://...`


def database_of(layout: Layout) -> Source:
    """Return where the records of a results folder are kept: the URL in $QUADBENCH_DATABASE, else a SQLite file in the folder.

    Raises:
        UserError: the variable holds what is no text.
    """
    return variable(DATABASE_VARIABLE) or layout.database


def is_elsewhere(layout: Layout) -> bool:
    """Say whether a results folder's records are kept in another database than its own file, however that is named."""
    parsed = _parsed(database_of(layout))
    return not isinstance(parsed, Path) or parsed.resolve() != layout.database.resolve()


def missing_folder(source: Source) -> Path | None:
    """Return the folder that a database's file would lie in, where that is not there; None otherwise."""
    path = _parsed(source)
    return path.parent if isinstance(path, Path) and not path.parent.is_dir() else None


def open_engine(source: Source) -> sa.Engine:
    """Open the database to be written, making it or bringing its schema up to date first.

    Processes that open it at once migrate it one after the other. A SQLite file is checked whole, so that no launch is run whose
    record it could not take.

    Raises:
        UserError: another database's URL, or none at all.
        StorageError: its folder is full or cannot be written, or its server is not reached.
        ArtifactError: not a database, damaged, or of a newer quadbench.
        MissingDependencyError: PostgreSQL without the extra `farm`.
    """
    match _parsed(source):
        case Path() as path:
            dialects.prepare_file(path)
            _migrate(dialects.file_engine(path, foreign_keys=False))  # see migrations/env.py
            engine = dialects.file_engine(path)
            with reading(engine) as connection:
                fault = dialects.content_fault(connection)
            if fault:
                engine.dispose()
                raise ArtifactError(f"{path} is damaged: {fault}", hint=dialects.DAMAGED_HINT)
        case sa.URL() as url:
            engine = dialects.server_engine(url)
            _migrate(engine)
    return engine


def open_for_reading(source: Source) -> sa.Engine:
    """Open a database so that nothing is written, which also works where nothing can be.

    One with an older schema is brought up to date first, as `open_engine` does it.

    Raises:
        StorageError: the schema is an older one, and the database cannot be written; or its server is not reached.
        UserError, ArtifactError, MissingDependencyError: as `open_engine`.
    """
    engine = _reading_engine(_parsed(source))
    name = name_of(engine)
    try:
        with reading(engine) as connection:
            if schema.revision(connection, name) is None:
                raise ArtifactError(f"{name} holds no records, not even their tables", hint="the next run makes them")
            if schema.is_current(connection, name):
                return engine
    except BaseException:
        engine.dispose()
        raise
    engine.dispose()
    return open_engine(source)


@contextmanager
def opened(layout: Layout, opening: Callable[[Source], sa.Engine] = open_engine) -> Iterator[sa.Engine]:
    """Open the database of a results folder by `open_engine` or `open_for_reading`, and close it at the end."""
    engine = opening(database_of(layout))
    try:
        yield engine
    finally:
        engine.dispose()


def is_made(source: Source) -> bool:
    """Say whether a database is there, as far as that can be told without asking a server."""
    return not isinstance(source, Path) or source.exists()


def schema_of(source: Source) -> str | None:
    """Return the schema of a database as it is, which stays so; None where there is none yet.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: as `open_for_reading`.
    """
    parsed = _parsed(source)
    if isinstance(parsed, Path) and not parsed.exists():
        return None
    engine = _reading_engine(parsed)
    try:
        with reading(engine) as connection:
            return schema.revision(connection, name_of(engine))
    finally:
        engine.dispose()


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a write transaction: in SQLite no other process can be inside one at the same time.

    Raises:
        StorageError: there is no space left, the database cannot be written, or another process holds it.
        ArtifactError: the database is damaged.
    """
    with _told(engine), engine.connect().execution_options(is_writer=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection that is only read from, and sees one moment of the database.

    Raises:
        StorageError: the database cannot be read.
        ArtifactError: it is damaged, or holds values that nothing of quadbench has written.
    """
    with _told(engine), engine.connect() as connection:
        try:
            yield connection
        except UnicodeEncodeError:
            raise
        except (ValueError, TypeError, AttributeError) as error:  # the ways in which columns and enumerations refuse a value
            reason = f"{name_of(engine)} is damaged: a value cannot be read: {error}"
            raise ArtifactError(reason, hint=dialects.DAMAGED_HINT if _is_file(engine) else None) from error


def now_of(connection: sa.Connection) -> datetime:
    """Return the database's time, by which leases are counted: clocks of hosts may differ."""
    if _is_file(connection.engine):
        text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')").scalar_one()
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return now.astimezone(UTC)


def clock_offset(engine: sa.Engine) -> timedelta:
    """Return by how much the clock of a database's server is ahead of this host's; a file has this host's clock."""
    if _is_file(engine):
        return timedelta(0)
    with reading(engine) as connection:
        before = datetime.now(UTC)
        there = now_of(connection)
        return there - (before + (datetime.now(UTC) - before) / 2)


def insertion(connection: sa.Connection, table: type[schema.Table]) -> sqlite.Insert | postgresql.Insert:
    """Return an insertion that can say what becomes of a row that is there already, which each engine has of its own."""
    return sqlite.insert(table) if _is_file(connection.engine) else postgresql.insert(table)


def name_of(engine: sa.Engine) -> str:
    """Return the database as messages name it: a file's path, or a URL without its password."""
    return str(dialects.path_of(engine)) if _is_file(engine) else dialects.database_name(engine.url)


def source_name(source: Source) -> str:
    """Return a database as messages name it, as `name_of` does.

    Raises:
        UserError: the source is no database.
    """
    parsed = _parsed(source)
    return str(parsed) if isinstance(parsed, Path) else dialects.database_name(parsed)


def has_password(source: Source) -> bool:
    """Say whether a password stands in a database's URL; raises UserError where the source is no database."""
    parsed = _parsed(source)
    return isinstance(parsed, sa.URL) and (parsed.password is not None or "password" in parsed.query)


@contextmanager
def _told(engine: sa.Engine) -> Iterator[None]:
    """Turn what the database says into an error that names it, and what no database can be asked for into one that says so."""
    try:
        told_by = dialects.told_by_sqlite if _is_file(engine) else dialects.told_by_postgresql
        with told_by(name_of(engine)):
            yield
    except UnicodeEncodeError as error:
        raise UserError(f"{shown(error.object)} is no text; expected one in UTF-8") from error


def _is_file(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _reading_engine(parsed: Path | sa.URL) -> sa.Engine:
    if isinstance(parsed, sa.URL):
        return dialects.server_engine(parsed, is_read_only=True)
    dialects.require_database_file(parsed)
    return dialects.reading_engine(parsed)


def _parsed(source: Source) -> Path | sa.URL:
    if isinstance(source, Path):
        return source
    if "://" not in source and re.search(r"\b(password|passfile)\s*=", source):
        raise UserError("the database is given in libpq's words; expected a SQLite file or postgresql://HOST/NAME")
    if "://" not in source:
        refuse_like_url(source, "the database", "a SQLite file or postgresql://HOST/NAME")
        return Path(source)
    named = masked(source)
    try:
        url = sa.make_url(source)
        if url.get_backend_name() == "postgresql":
            url.get_dialect()().create_connect_args(url)  # it reads the query, as in ?host=/tmp&port=5432
    except (sa.exc.ArgumentError, ValueError):
        hint = "expected one as postgresql://HOST/NAME"
        raise UserError(f"the database's URL '{named}' cannot be read", hint=hint) from None  # its words may hold the password
    match url.get_backend_name():
        case "postgresql" if "@" in f"{url.host}{url.database}" or ":" in (url.database or ""):
            hint = "in a login write %40 for an @, %2F for a /; a login stands before a host"
            raise UserError(f"the database's URL '{named}' has an @ or a colon in its host or name; expected neither", hint=hint)
        case "postgresql":
            return url
        case "sqlite" if url.host or url.username or url.password:
            raise UserError(f"the database's URL '{named}' has a login or a host; expected sqlite:///PATH, of a file")
        case "sqlite" if url.database not in (None, "", ":memory:"):
            refuse_like_url(str(url.database), "the database", "a SQLite file or postgresql://HOST/NAME")
            return Path(str(url.database))
    raise UserError(
        f"records cannot be kept in '{named}'; expected a SQLite file or postgresql://HOST/NAME",
        hint="give a path, as results/quadbench.sqlite",
    )


def _migrate(engine: sa.Engine) -> None:
    """Bring the schema up to date inside one write transaction, in which no other process does so, and close the connection."""
    name = name_of(engine)
    try:
        with reading(engine) as connection:
            if schema.is_current(connection, name):
                return  # as nearly always: nobody has to wait for a write
        with writing(engine) as connection:
            if not _is_file(engine):
                dialects.wait_for_migration(connection)
            if schema.upgrade(connection, name) and _is_file(engine) and (lost := dialects.orphans(connection)):
                raise ArtifactError(f"{name}: {lost} rows would lose their parent in the migration; nothing was changed")
    finally:
        engine.dispose()
