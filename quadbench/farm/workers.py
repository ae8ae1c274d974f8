"""The database table of worker processes, with their capabilities, their devices and the times of their last heartbeats."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import TypeAdapter

from quadbench.errors import ArtifactError
from quadbench.farm.claims import waits_for_version
from quadbench.farm.job_rows import time_of
from quadbench.farm.leases import lease_time_s
from quadbench.results import schema
from quadbench.results.engine import begin_read, begin_write, database_now, name_of, upsert
from quadbench.results.schema import WorkerRow

_FORGOTTEN = timedelta(days=7)  # without a heartbeat
_MOST_WORKERS = 10_000  # limit on the rows that are read
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, kw_only=True)
class WorkerDevice:
    """A device that a worker offers for jobs: its name in leases, its address on the worker's host, and its labels.

    `owner` is the user and host that the worker's jobs run as, such as `ana@lab-1`. A device reserved by somebody else takes none
    of these jobs. `owner` is empty for workers of older versions, which do not send it.
    """

    name: str
    address: str
    labels: dict[str, str]
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class NewWorker:
    """A worker's description of itself: its name, host, quadbench version, capabilities and devices."""

    name: str
    host: str
    version: str
    capabilities: tuple[str, ...]
    devices: tuple[WorkerDevice, ...]


@dataclass(frozen=True, kw_only=True)
class KnownWorker:
    """A worker as recorded in the database. `is_here` means that its last heartbeat is recent, so that it counts as running."""

    worker: NewWorker
    started_at: datetime
    last_seen: datetime
    is_draining: bool
    is_here: bool


class Workers:
    """The table of workers in a database. Methods raise StorageError if it cannot be accessed, ArtifactError if it is damaged."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def note(self, worker: NewWorker) -> bool:
        """Record a worker's heartbeat. Return True if it should drain, that is finish its jobs, take no others, and exit.

        Workers without a heartbeat for a week are deleted.

        Raises:
            ArtifactError: the database has another schema version, so its jobs are not for this worker.
        """
        with begin_write(self._engine) as connection:
            name = name_of(connection.engine)
            if not schema.is_current(connection, name):
                raise ArtifactError(f"{name} has the schema of an older quadbench", hint="start the worker again")
            now = database_now(connection)
            connection.execute(sa.delete(WorkerRow).where(WorkerRow.last_seen < now - _FORGOTTEN))
            seen = {
                "host": worker.host,
                "version": worker.version,
                "capabilities": json.dumps(worker.capabilities),
                "devices": json.dumps([asdict(device) for device in worker.devices]),
                "last_seen": now,
            }
            insert = upsert(connection, WorkerRow).values(name=worker.name, started_at=now, is_draining=False, **seen)
            connection.execute(insert.on_conflict_do_update(index_elements=[WorkerRow.name], set_=seen))
            return bool(connection.scalar(sa.select(WorkerRow.is_draining).where(WorkerRow.name == worker.name)))

    def drain(self, name: str) -> bool:
        """Ask a worker to finish its jobs and exit. Return False if there is no such worker."""
        with begin_write(self._engine) as connection:
            asked = sa.update(WorkerRow).where(WorkerRow.name == name).values(is_draining=True)
            return connection.execute(asked).rowcount > 0

    def leave(self, name: str) -> None:
        """Delete the row of a worker that is about to exit."""
        with begin_write(self._engine) as connection:
            connection.execute(sa.delete(WorkerRow).where(WorkerRow.name == name))

    def why_idle(self, worker: NewWorker) -> str | None:
        """Return a message if waiting jobs need another quadbench version than this worker's, else None."""
        with begin_read(self._engine) as connection:
            other = waits_for_version(connection, worker.version)
        return other and f"jobs wait for quadbench {other}, and worker '{worker.name}' is quadbench {worker.version}"

    def known(self) -> list[KnownWorker]:
        """Return all workers in the database, ordered by name. Rows with invalid values are skipped."""
        with begin_read(self._engine) as connection:
            now = database_now(connection)
            stored = [sa.type_coerce(column, sa.types.NULLTYPE).label(column.key) for column in WorkerRow.__table__.columns]
            rows = connection.execute(sa.select(*stored).order_by(WorkerRow.name).limit(_MOST_WORKERS)).mappings().all()
        return [worker for row in rows if (worker := _known(row, now))]


def _known(row: sa.RowMapping, now: datetime) -> KnownWorker | None:
    started_at, last_seen = time_of(row["started_at"]), time_of(row["last_seen"])
    if not started_at or not last_seen or not all(isinstance(row[name], str) for name in ("name", "host", "version")):
        return None
    return KnownWorker(
        worker=NewWorker(
            name=row["name"],
            host=row["host"],
            version=row["version"],
            capabilities=_read(row["capabilities"], _NAMES),
            devices=_read(row["devices"], _DEVICES),
        ),
        started_at=started_at,
        last_seen=last_seen,
        is_draining=bool(row["is_draining"]),
        is_here=abs(now - last_seen) < timedelta(seconds=lease_time_s()),
    )


def _read(text: Any, kind: TypeAdapter[tuple[ItemT, ...]]) -> tuple[ItemT, ...]:
    """Parse a JSON array with `kind`, a pydantic TypeAdapter, into a tuple of str or WorkerDevice. Return () for invalid text."""
    try:
        return kind.validate_json(text, strict=False)
    except (ValueError, TypeError):
        return ()


_NAMES = TypeAdapter(tuple[str, ...])
_DEVICES = TypeAdapter(tuple[WorkerDevice, ...])
