"""PostgreSQL: a URL -> an engine whose readers see one moment, and what the server says in words. Needs the extra `farm`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from quadbench.errors import ArtifactError, StorageError, extra_needed

# A cable that was pulled is noticed within 20 s by both ends, well within a lease, not after the two hours of TCP: a server that
# believes in its client keeps what the client has locked from all others. So it does with a frozen one. A URL may set others.
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
_MIGRATION_LOCK = 0x7175_6164  # "quad": the number under which processes of quadbench wait for each other
_UNREACHED_HINT = "start it, or see that $QUADBENCH_DATABASE is right; without it, records are kept in the results folder"
_SERVER_FAULTS = (
    "08",
    "25",
    "28",
    "3D",
    "40",
    "42501",
    "53",
    "55P03",
    "57",
    "58",
)  # connection, read-only, login, names, deadlock, rights, room, locks, shutdown


def server_engine(url: sa.URL, *, is_read_only: bool = False) -> sa.Engine:
    """Return the engine of a database at a server, which is reached with the first connection.

    A reader sees one moment of it, however much is written meanwhile.

    Raises:
        MissingDependencyError: the extra `farm` is not installed.
    """
    with extra_needed("farm"):
        from psycopg.types.string import TextLoader
    options = {"options": " ".join(filter(None, (_SERVER_SETTINGS, _READ_ONLY if is_read_only else "")))}
    settled = url.set(drivername="postgresql+psycopg").update_query_dict(_SETTINGS | options | dict(url.query))
    engine = sa.create_engine(settled, pool_pre_ping=True)

    @sa.event.listens_for(engine, "connect")
    def leave_json_as_text(connection: Any, _: Any) -> None:
        connection.adapters.register_loader("json", TextLoader)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("is_writer", False):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine


def database_name(url: sa.URL) -> str:
    """Return the URL as messages name it: without the password and whatever else only the driver reads."""
    place = {key: value for key, value in url.query.items() if key in ("host", "port")}
    return url.set(drivername="postgresql", query=place).render_as_string(hide_password=True)


def wait_for_migration(connection: sa.Connection) -> None:
    """Wait until no other process migrates the database; then none does until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")


@contextmanager
def told_by_postgresql(name: str) -> Iterator[None]:
    """Turn what the server or the driver says into an error that names the database.

    Raises:
        StorageError: the server is not reached, refuses, or has no room left.
        ArtifactError: the database has other tables than quadbench's, or does not take a value.
    """
    try:
        yield
    except sa.exc.DatabaseError as error:
        reason = " ".join(str(error.orig).split()).rstrip(".")
        state = getattr(error.orig, "sqlstate", None)
        if type(error.orig).__name__ == "ConnectionTimeout":
            hint = f"{_UNREACHED_HINT}; a URL that ends with ?connect_timeout=30 waits longer"
            raise StorageError(f"{name} does not answer within its connect_timeout", hint=hint) from error
        if state is None and isinstance(error, sa.exc.OperationalError):
            raise StorageError(f"{name} is not reached: {reason}", hint=_UNREACHED_HINT) from error
        if state and state.startswith(_SERVER_FAULTS):
            raise StorageError(f"{name} cannot be read or written: {reason}", hint=_UNREACHED_HINT) from error
        if state and state.startswith("42"):
            raise ArtifactError(f"{name} is damaged: {reason}", hint="restore it, or give another database") from error
        raise ArtifactError(f"{name} does not take this: {reason}") from error
