"""Records: RunRecord <-> database.

Tables `records` (one row a launch) and `samples` (one row a value), view `kpis` (one row a figure of a run), for SQL of your own:

    SELECT device, task, variant, p50 / 1e6 AS ms FROM kpis WHERE run_id = '...' AND metric = 'end_to_end_ns';
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from quadbench.artifacts import Caveat, DeviceFacts, ErrorClass, RunRecord, Sample, Status, Variant
from quadbench.errors import ArtifactError, UnknownNameError, UserError

_LOCK_TIMEOUT_S = 30.0
_KNOWN_RUNS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One `quadbench run` at a glance. `devices` are addresses; `statuses` counts its launches by how they ended."""

    run_id: str
    started_at: datetime
    ended_at: datetime
    recipe_name: str
    devices: tuple[str, ...]
    variants: tuple[Variant, ...]
    statuses: dict[Status, int]


def open_records(url_or_path: str | Path) -> "Records":
    """Open the database, making it or bringing its schema up to date first. Closed by `with` or `close()`.

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
    return Records(_engine(url))


class Records:
    """The open database. Usable from several threads; every method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def store(self, record: RunRecord) -> bool:
        """Store the record with its samples, whole or not at all. False if it was there already: storing twice is storing once.

        Raises:
            ArtifactError: a sample that is not finite, or another record under the same id.
        """
        _refuse_infinite(record)
        with self._writing() as connection:
            if self._stored_already(connection, record):
                return False
            key = connection.scalar(sa.insert(_Record).values(**_row(record)).returning(_Record.id))
            rows = [{"record": key, **_sample_row(sample)} for sample in record.samples]
            if rows:
                connection.execute(sa.insert(_Sample), rows)
            return True

    def runs(self, limit: int = 20) -> list[RunSummary]:
        """The latest runs, latest first."""
        latest = (
            sa.select(_Record.run_id)
            .group_by(_Record.run_id)
            .order_by(sa.func.min(_Record.started_at).desc(), _Record.run_id.desc())
            .limit(limit)
        )
        columns = (
            _Record.run_id,
            _Record.started_at,
            _Record.ended_at,
            _Record.recipe_name,
            _Record.device_address,
            _Record.variant,
            _Record.status,
        )
        query = sa.select(*columns).where(_Record.run_id.in_(latest)).order_by(_Record.run_id, _Record.started_at)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        summaries = [_summary(list(group)) for _, group in groupby(rows, key=lambda row: row.run_id)]
        return sorted(summaries, key=lambda summary: (summary.started_at, summary.run_id), reverse=True)

    def latest_run_id(self) -> str | None:
        """The run that began last, or None in an empty database."""
        return next((run.run_id for run in self.runs(limit=1)), None)

    def of_run(self, run_id: str) -> tuple[RunRecord, ...]:
        """The run's records in the order in which they began, exactly as they were stored.

        Raises:
            UnknownNameError: no such run; the message lists the latest.
        """
        with self._engine.connect() as connection:
            records = _load(connection, _Record.run_id == run_id)
        if not records:
            raise UnknownNameError("run", run_id, (run.run_id for run in self.runs(limit=_KNOWN_RUNS_SHOWN)))
        return records

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            yield connection

    def _stored_already(self, connection: sa.Connection, record: RunRecord) -> bool:
        stored = _load(connection, _Record.record_id == record.record_id)
        if stored and stored[0] != record:
            raise ArtifactError(
                f"record '{record.record_id}' of run '{stored[0].run_id}' is stored already, with other contents",
                hint="records never change; give the new one an id of its own",
            )
        return bool(stored)


class _Utc(sa.TypeDecorator[datetime]):
    """Aware datetimes in UTC; SQLite keeps no time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no time zone; expected UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class _Base(DeclarativeBase):
    pass


class _Record(_Base):
    __tablename__ = "records"

    id: Mapped[int] = mapped_column(primary_key=True)
    record_id: Mapped[str] = mapped_column(unique=True)
    run_id: Mapped[str] = mapped_column(index=True)
    schema_version: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(_Utc, index=True)
    ended_at: Mapped[datetime] = mapped_column(_Utc)
    recipe_name: Mapped[str]
    recipe_digest: Mapped[str]
    bundle_digest: Mapped[str]
    compiled_digest: Mapped[str]
    target: Mapped[str]
    device_address: Mapped[str]
    device_family: Mapped[str]
    device_serial: Mapped[str]
    device_profile: Mapped[str]
    device_title: Mapped[str]
    device_soc_model: Mapped[str]
    device_cpu: Mapped[str]
    device_android_release: Mapped[str | None]
    device_fingerprint: Mapped[str | None]
    variant: Mapped[str]
    launch: Mapped[int]
    status: Mapped[str]
    error_class: Mapped[str | None]
    reason: Mapped[str | None] = mapped_column(sa.Text)
    caveats: Mapped[list[str]] = mapped_column(sa.JSON)
    versions: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    state: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    images: Mapped[dict[str, str]] = mapped_column(sa.JSON)


class _Sample(_Base):
    __tablename__ = "samples"

    id: Mapped[int] = mapped_column(primary_key=True)
    record: Mapped[int] = mapped_column(sa.ForeignKey("records.id", ondelete="CASCADE"), index=True)
    metric: Mapped[str]
    value: Mapped[float] = mapped_column(sa.Double)
    task: Mapped[str | None]
    component: Mapped[str | None]
    iteration: Mapped[int | None]
    step: Mapped[int | None]
    item: Mapped[str | None]
    is_warmup: Mapped[bool]
    labels: Mapped[dict[str, str]] = mapped_column(sa.JSON)


_DEVICE_FIELDS = tuple(DeviceFacts.__dataclass_fields__)
_SAMPLE_FIELDS = tuple(Sample.__dataclass_fields__)
_PLAIN_FIELDS = tuple(name for name in RunRecord.__dataclass_fields__ if name not in ("device", "caveats", "samples"))


def _row(record: RunRecord) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in _PLAIN_FIELDS},
        **{f"device_{name}": value for name, value in asdict(record.device).items()},
        "caveats": [caveat.value for caveat in record.caveats],
    }


def _sample_row(sample: Sample) -> dict[str, Any]:
    # Sorted labels, so that equal ones are equal text, by which the view groups.
    return {**{name: getattr(sample, name) for name in _SAMPLE_FIELDS}, "labels": dict(sorted(sample.labels.items()))}


def _load(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> tuple[RunRecord, ...]:
    rows = connection.execute(sa.select(*_Record.__table__.columns).where(condition).order_by(_Record.started_at, _Record.id))
    columns = [_Sample.record, *(getattr(_Sample, name) for name in _SAMPLE_FIELDS)]
    query = sa.select(*columns).join(_Record, _Record.id == _Sample.record).where(condition).order_by(_Sample.record, _Sample.id)
    samples = {key: _samples(group) for key, group in groupby(connection.execute(query), key=lambda row: row[0])}
    return tuple(_record(row, samples.get(row.id, ())) for row in rows.all())


def _samples(rows: Iterable[Any]) -> tuple[Sample, ...]:
    return tuple(Sample(**dict(zip(_SAMPLE_FIELDS, row[1:], strict=True))) for row in rows)


def _record(row: Any, samples: tuple[Sample, ...]) -> RunRecord:
    plain = {name: getattr(row, name) for name in _PLAIN_FIELDS}
    typed = {
        "variant": Variant(row.variant),
        "status": Status(row.status),
        "error_class": ErrorClass(row.error_class) if row.error_class else None,
        "caveats": tuple(Caveat(value) for value in row.caveats),
        "device": DeviceFacts(**{name: getattr(row, f"device_{name}") for name in _DEVICE_FIELDS}),
    }
    return RunRecord(**{**plain, **typed, "samples": samples})


def _summary(rows: list[Any]) -> RunSummary:
    statuses = [Status(row.status) for row in rows]
    return RunSummary(
        run_id=rows[0].run_id,
        started_at=rows[0].started_at,
        ended_at=max(row.ended_at for row in rows),
        recipe_name=rows[0].recipe_name,
        devices=tuple(sorted({row.device_address for row in rows})),
        variants=tuple(variant for variant in Variant if variant in {row.variant for row in rows}),
        statuses={status: statuses.count(status) for status in Status if status in statuses},
    )


def _refuse_infinite(record: RunRecord) -> None:
    wrong = next((sample for sample in record.samples if not isfinite(sample.value)), None)
    if wrong is not None:
        raise ArtifactError(
            f"record '{record.record_id}' holds {wrong.value} for {wrong.metric} of task {wrong.task}; expected a finite number"
        )


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


def _engine(url: sa.URL, *, foreign_keys: bool = True) -> sa.Engine:
    """Transactions are begun here and not by sqlite3, whose deferred ones fail at once where a reader turns into a writer."""
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
    config.set_main_option("script_location", "quadbench:migrations")
    script = ScriptDirectory.from_config(config)
    engine = _engine(url, foreign_keys=False)
    try:
        with engine.connect().execution_options(is_writer=True) as connection, connection.begin():
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
