"""Launch records in the database, and summaries of runs. A summary is made without reading the measured values.

Your own SQL can use tables `records` (a row per launch), `samples` (a row per value) and view `kpis` (a row per metric of a run):

    SELECT device, task, variant, p50 / 1e6 AS ms FROM kpis WHERE run_id = '...' AND metric = 'end_to_end_ns';
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from quadbench.artifacts import Caveat, DeviceFacts, ErrorClass, RunRecord, Sample, Status, Variant
from quadbench.artifacts.launch_values import KIND_FIELDS, SampleKinds, Samples, value_fault
from quadbench.artifacts.safe_text import check_relative_path
from quadbench.errors import ArtifactError, UnknownNameError
from quadbench.results import engine
from quadbench.results.packed_samples import pack, read_kinds, unpack
from quadbench.results.schema import KindsRow, PackedRow, RecordRow, SampleRow, UtcTime

_KNOWN_RUNS_SHOWN = 20
_TOLERATED = timedelta(seconds=3)  # tolerated difference between a host's clock and the database's

log = logging.getLogger(__name__)

Guard = Callable[[sa.Connection], object]


def open_records(source: engine.Source) -> "RecordStore":
    """Open a database of launch records for reading and writing; create it if needed. Close it by `with` or `close()`.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: as for `open_engine`.
    """
    return RecordStore(engine.open_engine(source))


def read_records(source: engine.Source) -> "RecordStore":
    """Open a database of launch records read-only and return a RecordStore. Close the store by `with` or `close()`."""
    return RecordStore(engine.open_for_reading(source))


class RecordStore:
    """An open database of launch records. Threads may share the object; every method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine  # for other tables of the database
        self._has_named_clock = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    def store(self, record: RunRecord, guard: Guard | None = None) -> bool:
        """Store a launch record with its samples and return True. Return False if an identical record is already stored.

        `guard` is called within the transaction; if it raises, nothing is stored.

        Raises:
            StorageError: the disk is full, or the database cannot be written.
            ArtifactError: a sample is implausible, another record has the id, or the database is damaged.
        """
        for kinds, values in record.columns.parts:
            for kind, value in zip(kinds.each, values, strict=True):
                if fault := value_fault(kind.metric, value):
                    what = f"{kind.metric}{f' of task {kind.task}' if kind.task else ''} {fault}"
                    raise ArtifactError(f"record '{record.record_id}' has a sample that cannot be stored: {what}")
        with engine.begin_write(self.engine) as connection:
            if guard is not None:
                guard(connection)
            row = engine.upsert(connection, RecordRow).values(**_row(record))
            row = row.on_conflict_do_nothing(index_elements=[RecordRow.record_id])
            key = connection.scalar(row.returning(RecordRow.id))
            if key is None:
                (stored,) = _load(connection, RecordRow.record_id == record.record_id)
                if stored != record:
                    raise ArtifactError(
                        f"record '{record.record_id}' of run '{stored.run_id}' is already stored with different contents",
                        hint="give the new record its own id; stored records never change",
                    )
                return False
            for table in (SampleRow, PackedRow):  # SQLite gives the id of a record that somebody deleted again
                connection.execute(sa.delete(table).where(table.record == key))
            rows = [{"record": key, **_sample_row(sample)} for sample in record.samples]
            if rows:
                connection.execute(sa.insert(SampleRow), rows)
            store_packed(connection, key, record.columns)
            return True

    def in_database_time(self, record: RunRecord) -> RunRecord:
        """Return a copy of a new launch record whose start and end time are converted to the database server's clock.
        If this host's clock differs from the server's by less than 3 s, return the record unchanged. The launch must have just
        ended, since the clocks' current difference is used. The first larger difference is logged.
        """
        offset = engine.clock_offset(self.engine)
        if abs(offset) < _TOLERATED:
            return record
        if not self._has_named_clock:
            self._has_named_clock = True
            seconds, name = offset.total_seconds(), engine.name_of(self.engine)
            log.warning("this host's clock is %+.0f s off the clock of %s; records use the database's time", -seconds, name)
        return replace(record, started_at=record.started_at + offset, ended_at=record.ended_at + offset)

    def counts(self, run_id: str) -> dict[str, int]:
        """Return a dict from device address to the number of launch records that are stored for run `run_id`."""
        query = sa.select(RecordRow.device_address, sa.func.count()).where(RecordRow.run_id == run_id)
        with engine.begin_read(self.engine) as connection:
            return {str(address): count for address, count in connection.execute(query.group_by(RecordRow.device_address))}

    def run_ids(self, limit: int | None = 20) -> list[str]:
        """Return the ids of the `limit` most recently started runs, newest first. If `limit` is None, return all run ids."""
        with engine.begin_read(self.engine) as connection:
            return list(connection.scalars(_latest_runs().limit(limit)))

    def ended_at(self) -> dict[str, datetime]:
        """Return a dict from each run id to the time at which the run's last launch ended."""
        query = sa.select(RecordRow.run_id, sa.func.max(RecordRow.ended_at, type_=UtcTime)).group_by(RecordRow.run_id)
        with engine.begin_read(self.engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def remove(self, run_id: str) -> int:
        """Remove a run's launch records and their samples in one transaction; return how many records were removed."""
        with engine.begin_write(self.engine) as connection:
            return connection.execute(sa.delete(RecordRow).where(RecordRow.run_id == run_id)).rowcount

    def has_run(self, run_id: str) -> bool:
        with engine.begin_read(self.engine) as connection:
            return connection.scalar(sa.select(RecordRow.id).where(RecordRow.run_id == run_id).limit(1)) is not None

    def run_records_if_any(self, run_id: str) -> tuple[RunRecord, ...]:
        """Return a tuple of a run's launch records in order of start, empty if there are none. If a block (group
        of launches) was repeated later, its records keep their stored status and are not marked as DISCARDED.

        Raises:
            ArtifactError: the database is damaged.
        """
        with engine.begin_read(self.engine) as connection:
            return _load(connection, RecordRow.run_id == run_id)

    def run_records(self, run_id: str) -> tuple[RunRecord, ...]:
        """Return the launch records of a run in order of their start; raise an error if there are none.

        Raises:
            UnknownNameError: there is no such run; the message lists the latest.
            ArtifactError: the database is damaged.
        """
        records = self.run_records_if_any(run_id)
        if not records:
            raise UnknownNameError("run", run_id, self.run_ids(), most=_KNOWN_RUNS_SHOWN)
        return records


_FINE = {status.value for status in Status if status.is_fine}


@dataclass(frozen=True, kw_only=True)
class RunHead:
    """A run's summary. `launches[address][status]` is the number of launches on device `address` that ended with `status`."""

    run_id: str
    recipe: str
    began_at: datetime
    ended_at: datetime
    launches: Mapping[str, Mapping[str, int]]

    @property
    def count(self) -> int:
        return sum(sum(states.values()) for states in self.launches.values())

    @property
    def wrong(self) -> int:
        return sum(count for states in self.launches.values() for status, count in states.items() if status not in _FINE)


def run_heads(database: sa.Engine, limit: int, skip: int = 0) -> list[RunHead]:
    """Return the summaries of at most `limit` runs, newest first; the newest `skip` runs are omitted.

    Raises:
        StorageError, ArtifactError: as for `begin_read`.
    """
    with engine.begin_read(database) as connection:
        names = list(connection.scalars(_latest_runs().limit(limit).offset(skip)))
        known = _heads(connection, names)
    return [known[name] for name in names if name in known]


def run_head(database: sa.Engine, run_id: str) -> RunHead | None:
    """Return the summary of one run; None if no launch of the run is stored.

    Raises:
        StorageError, ArtifactError: as for `begin_read`.
    """
    with engine.begin_read(database) as connection:
        return _heads(connection, [run_id]).get(run_id)


def _latest_runs() -> sa.Select[Any]:
    began = sa.func.min(RecordRow.started_at)
    return sa.select(RecordRow.run_id).group_by(RecordRow.run_id).order_by(began.desc(), RecordRow.run_id.desc())


def _heads(connection: sa.Connection, names: Sequence[str]) -> dict[str, RunHead]:
    columns = (RecordRow.run_id, RecordRow.recipe_name, RecordRow.device_address, RecordRow.status)
    times = (sa.func.min(RecordRow.started_at, type_=UtcTime), sa.func.max(RecordRow.ended_at, type_=UtcTime))
    query = sa.select(*columns, sa.func.count(), *times).where(RecordRow.run_id.in_(names)).group_by(*columns).order_by(*columns)
    heads: dict[str, RunHead] = {}
    for run_id, group in groupby(connection.execute(query), key=itemgetter(0)):
        rows, launches = list(group), dict[str, dict[str, int]]()
        for _, _, address, status, count, _, _ in rows:
            of_device = launches.setdefault(str(address), {})
            of_device[str(status)] = of_device.get(str(status), 0) + count
        heads[run_id] = RunHead(
            run_id=run_id,
            recipe=str(rows[0].recipe_name),
            began_at=min(row[-2] for row in rows),
            ended_at=max(row[-1] for row in rows),
            launches=launches,
        )
    return heads


_DEVICE_FIELDS = tuple(DeviceFacts.__dataclass_fields__)
_DEVICE_COLUMNS = tuple(f"device_{name}" for name in _DEVICE_FIELDS)
_JSON_FIELDS = ("caveats", "versions", "settings", "state", "images")
_OTHER_FIELDS = ("device", "samples", "variant", "status", "error_class", *_JSON_FIELDS)  # that a row stores in another form
_PLAIN_FIELDS = tuple(name for name in RunRecord.__dataclass_fields__ if name not in _OTHER_FIELDS)
_PLAIN, _DEVICE = slice(len(_PLAIN_FIELDS)), slice(len(_PLAIN_FIELDS), len(_PLAIN_FIELDS) + len(_DEVICE_COLUMNS))  # of a row


def _rank(column: str) -> int:
    first = (*_PLAIN_FIELDS, *_DEVICE_COLUMNS)
    return first.index(column) if column in first else len(first)


_RECORD_COLUMNS = [
    sa.cast(column, sa.Text).label(column.name) if column.name in _JSON_FIELDS else column
    for column in sorted(RecordRow.__table__.columns, key=lambda column: _rank(column.name))
]


def _row(record: RunRecord) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in (*_PLAIN_FIELDS, *_JSON_FIELDS, "variant", "status", "error_class")},
        **{f"device_{name}": value for name, value in asdict(record.device).items()},
        "caveats": [caveat.value for caveat in record.caveats],
    }


def _sample_row(sample: Sample) -> dict[str, Any]:
    # Labels are sorted, so that equal labels are equal text, which the view groups by.
    kind = {name: getattr(sample, name) for name in KIND_FIELDS}
    return {**kind, "labels": dict(sorted(sample.labels.items())), "value": sample.value}


def store_packed(connection: sa.Connection, key: int, samples: Samples) -> None:
    """Write the compact form of a launch's samples. `key` is the row id of its record."""
    one = pack(samples)
    kinds = engine.upsert(connection, KindsRow).on_conflict_do_nothing(index_elements=[KindsRow.digest])
    connection.execute(kinds.values(digest=one.digest, kinds=one.kinds))
    columns = {"record": key, "kinds": one.digest, "numbers": one.numbers, "readings": one.readings}
    connection.execute(sa.insert(PackedRow).values(columns))


def _load(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> tuple[RunRecord, ...]:
    query = sa.select(*_RECORD_COLUMNS, PackedRow.kinds, PackedRow.numbers, PackedRow.readings)
    query = query.join(PackedRow, PackedRow.record == RecordRow.id).where(condition)
    rows = connection.execute(query.order_by(RecordRow.started_at, RecordRow.id)).all()
    kinds, record = _kinds(connection, {row.kinds for row in rows}), _reader()
    damaged = partial(engine.damage, connection.engine)
    return tuple(record(row, unpack(kinds[row.kinds], row.numbers, row.readings, damaged)) for row in rows)


def _kinds(connection: sa.Connection, digests: Set[str]) -> dict[str, SampleKinds]:
    """Return a dict from digest to the sample kinds that launches have."""
    stored = connection.execute(sa.select(KindsRow.digest, KindsRow.kinds).where(KindsRow.digest.in_(digests)))
    kinds = {digest: read_kinds(text) for digest, text in stored}
    if digests - kinds.keys():
        raise ValueError("kinds of samples are missing")
    return kinds


def _reader() -> Callable[[Any, Sequence[Sample]], RunRecord]:
    """Return a function that makes a launch record of a row. Records share values that most launches of a run have in common."""
    device, images, caveats, texts = cache(_device), cache(_images), cache(_caveats), cache(json.loads)

    def record(row: Any, samples: Sequence[Sample]) -> RunRecord:
        return RunRecord(
            **dict(zip(_PLAIN_FIELDS, row[_PLAIN], strict=True)),
            device=device(*row[_DEVICE]),
            variant=Variant(row.variant),
            status=Status(row.status),
            error_class=None if row.error_class is None else ErrorClass(row.error_class),
            caveats=caveats(row.caveats),
            versions=texts(row.versions),
            settings=texts(row.settings),
            state=json.loads(row.state),
            images=images(row.images),
            samples=samples,
        )

    return record


def _device(*columns: Any) -> DeviceFacts:
    return DeviceFacts(**dict(zip(_DEVICE_FIELDS, columns, strict=True)))


def _caveats(text: str) -> tuple[Caveat, ...]:
    return tuple(map(Caveat, json.loads(text)))


def _images(text: str) -> dict[str, str]:
    images: dict[str, str] = json.loads(text)
    for path in images.values():
        check_relative_path(path)
    return images
