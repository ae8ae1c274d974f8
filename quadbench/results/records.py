"""Records: RunRecord <-> database.

Tables `records` (one row a launch) and `samples` (one row a value), view `kpis` (one row a figure of a run), for SQL of your own:

    SELECT device, task, variant, p50 / 1e6 AS ms FROM kpis WHERE run_id = '...' AND metric = 'end_to_end_ns';
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from types import TracebackType
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from quadbench.artifacts import DeviceFacts, Kinds, RunRecord, Sample, SampleKind, Samples
from quadbench.artifacts.launch_values import KIND_FIELDS
from quadbench.artifacts.names import check_file_name, check_relative_path
from quadbench.errors import ArtifactError, UnknownNameError, shown
from quadbench.results.engine import (
    Source,
    clock_offset,
    insertion,
    name_of,
    open_engine,
    open_for_reading,
    read_texts,
    reading,
    writing,
)
from quadbench.results.schema import RecordRow, SampleRow, UtcTime, utc_text
from quadbench.results.value_faults import values_fault
from quadbench.spec import first_problem

_KNOWN_RUNS_SHOWN = 20
_TOLERATED = timedelta(seconds=3)  # between the clocks of a host and of the database

log = logging.getLogger(__name__)

Guard = Callable[[sa.Connection], None]
ValidT = TypeVar("ValidT")


def open_records(source: Source) -> "Records":
    """Open the records to be added to, kept as `open_engine` says. Closed by `with` or `close()`.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: as `open_engine`.
    """
    return Records(open_engine(source))


def read_records(source: Source) -> "Records":
    """Open records to be read; nothing is written, and `store` is refused. Closed by `with` or `close()`.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: as `open_for_reading`; also where there is no such file.
    """
    return Records(open_for_reading(source))


class Records:
    """The open database. Usable from several threads; every method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._has_named_clock = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @property
    def engine(self) -> sa.Engine:
        """The database, for what else is kept there."""
        return self._engine

    def store(self, record: RunRecord, guard: Guard | None = None) -> bool:
        """Store the record with its samples, whole or not at all. False if it was there already: storing twice is storing once.

        `guard` is asked within the transaction; where it raises, nothing is stored.

        Raises:
            StorageError: there is no space left, or the database cannot be written.
            ArtifactError: a sample that nothing measures, another record under the same id, or the database is damaged.
        """
        if fault := values_fault(record):
            raise ArtifactError(f"record '{record.record_id}' holds a sample that cannot be stored: {fault}")
        with writing(self._engine) as connection:
            if guard is not None:
                guard(connection)
            key = connection.scalar(_new(connection, record))
            if key is None:
                _require_same(connection, record)
                return False
            rows = [{"record": key, **_sample_row(sample)} for sample in record.samples]
            if rows:
                connection.execute(sa.insert(SampleRow), rows)
            return True

    def in_database_time(self, record: RunRecord) -> RunRecord:
        """Return a record of a launch that ended just now by the database's clock, by which all hosts' runs are kept and listed.

        A host's clock that differs by more than a few seconds is named in the log, once.

        Raises:
            StorageError, ArtifactError: the database does not say its time.
        """
        offset = clock_offset(self._engine)
        if abs(offset) < _TOLERATED:
            return record
        if not self._has_named_clock:
            self._has_named_clock = True
            seconds, name = offset.total_seconds(), name_of(self._engine)
            log.warning("this host's clock is %+.0f s off that of %s; records have the database's time", -seconds, name)
        return replace(record, started_at=record.started_at + offset, ended_at=record.ended_at + offset)

    def counts(self, run_id: str) -> dict[str, int]:
        """Return the number of a run's records by the address of their device."""
        query = sa.select(RecordRow.device_address, sa.func.count()).where(RecordRow.run_id == run_id)
        with reading(self._engine) as connection:
            return {str(address): count for address, count in connection.execute(query.group_by(RecordRow.device_address))}

    def run_ids(self, limit: int | None = 20) -> list[str]:
        """Return the ids of the latest runs, latest first; None is all of them."""
        query = (
            sa.select(RecordRow.run_id)
            .group_by(RecordRow.run_id)
            .order_by(sa.func.min(RecordRow.started_at).desc(), RecordRow.run_id.desc())
            .limit(limit)
        )
        with reading(self._engine) as connection:
            names = list(connection.scalars(query))
            if not all(isinstance(name, str) for name in names):
                raise TypeError("a run has an id that is no text")
            return names

    def ended_at(self) -> dict[str, datetime]:
        """Return by run id when its last launch ended."""
        query = sa.select(RecordRow.run_id, sa.func.max(RecordRow.ended_at, type_=UtcTime).label("ended_at"))
        with reading(self._engine) as connection:
            query = query.group_by(RecordRow.run_id)
            return {row.run_id: row.ended_at for row in connection.execute(query)}

    def remove(self, run_id: str) -> int:
        """Remove a run's records with their samples, all or none, and return how many there were."""
        with writing(self._engine) as connection:
            return connection.execute(sa.delete(RecordRow).where(RecordRow.run_id == run_id)).rowcount

    def latest_run_id(self) -> str | None:
        """Return the id of the run that began last, or None in an empty database."""
        return next(iter(self.run_ids(limit=1)), None)

    def has_run(self, run_id: str) -> bool:
        """Say whether a run has any record."""
        with reading(self._engine) as connection:
            return connection.scalar(sa.select(RecordRow.id).where(RecordRow.run_id == run_id).limit(1)) is not None

    def of_run_if_any(self, run_id: str) -> tuple[RunRecord, ...]:
        """The records of a run that may have none yet, in the order in which they began, exactly as they were stored.

        Raises:
            ArtifactError: the database is damaged.
        """
        with reading(self._engine) as connection:
            return _load(connection, RecordRow.run_id == run_id)

    def of_run(self, run_id: str) -> tuple[RunRecord, ...]:
        """The same of a run that has records.

        Raises:
            UnknownNameError: no such run; the message lists the latest.
            ArtifactError: the database is damaged.
        """
        records = self.of_run_if_any(run_id)
        if not records:
            raise UnknownNameError("run", run_id, self.run_ids(), most=_KNOWN_RUNS_SHOWN)
        return records


_DEVICE_FIELDS = tuple(DeviceFacts.__dataclass_fields__)
_COLUMNS = tuple(column.name for column in RecordRow.__table__.columns)
_JSON_COLUMNS = tuple(column.name for column in RecordRow.__table__.columns if isinstance(column.type, sa.JSON))
_BOOLS = {0: False, 1: True}  # as SQLite has them
_PLAIN_FIELDS = tuple(name for name in RunRecord.__dataclass_fields__ if name not in ("device", "caveats", "samples"))


@dataclass(frozen=True, kw_only=True)
class _Own:
    """The part of a record that each launch has of its own: launches of one plan on one device share the rest."""

    record_id: str
    launch: int
    started_at: datetime
    ended_at: datetime
    state: dict[str, str]
    images: dict[str, str]


_OWN_COLUMNS = ("id", *_Own.__dataclass_fields__)
_shared_by_launches = itemgetter(*(place for place, name in enumerate(_COLUMNS) if name not in _OWN_COLUMNS))
_RECORD, _OWN = TypeAdapter(RunRecord), TypeAdapter(_Own)


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """All that was checked so far: kinds of samples by their rows, those of whole launches, a record for each of its like."""

    kinds: dict[tuple[Any, ...], SampleKind] = field(default_factory=dict)
    launches: dict[tuple[SampleKind, ...], Kinds] = field(default_factory=dict)
    records: dict[tuple[Any, ...], RunRecord] = field(default_factory=dict)


def _new(connection: sa.Connection, record: RunRecord) -> sa.Executable:
    """Return the statement that stores a record's row and gives its key: none where the record's id is taken."""
    row = insertion(connection, RecordRow).values(**_row(record))
    return row.on_conflict_do_nothing(index_elements=[RecordRow.record_id]).returning(RecordRow.id)


def _require_same(connection: sa.Connection, record: RunRecord) -> None:
    (stored,) = _load(connection, RecordRow.record_id == record.record_id)
    if stored != record:
        raise ArtifactError(
            f"record '{record.record_id}' of run '{stored.run_id}' is stored already, with other contents",
            hint="records never change; give the new one an id of its own",
        )


def _row(record: RunRecord) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in _PLAIN_FIELDS},
        **{f"device_{name}": value for name, value in asdict(record.device).items()},
        "caveats": [caveat.value for caveat in record.caveats],
    }


def _sample_row(sample: Sample) -> dict[str, Any]:
    # Sorted labels, so that equal ones are equal text, by which the view groups.
    kind = {name: getattr(sample, name) for name in KIND_FIELDS}
    return {**kind, "labels": dict(sorted(sample.labels.items())), "value": sample.value}


def _load(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> tuple[RunRecord, ...]:
    return read_texts(connection, lambda: _loaded(connection, condition))


def _loaded(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> tuple[RunRecord, ...]:
    query = _as_stored(RecordRow.__table__.columns).where(condition).order_by(RecordRow.started_at, RecordRow.id)
    rows = {row.id: row for row in connection.execute(query)}
    keys = sa.select(RecordRow.id).where(condition)
    counts = (
        sa.select(SampleRow.record, sa.func.count().label("samples")).where(SampleRow.record.in_(keys)).group_by(SampleRow.record)
    )
    count_of = {row.record: row.samples for row in connection.execute(counts)}
    columns = [SampleRow.__table__.columns[name] for name in ("value", *KIND_FIELDS)]
    query = _as_stored(columns).where(SampleRow.record.in_(keys)).order_by(SampleRow.record, SampleRow.id)
    name, checked, records = name_of(connection.engine), _Checked(), {}
    with connection.execute(query.execution_options(stream_results=True)) as samples:
        for key in sorted(rows):
            of_record = samples.fetchmany(count_of[key]) if key in count_of else ()
            records[key] = _record(rows[key], of_record, checked, name)
    return tuple(records[key] for key in rows)


def _as_stored(columns: Iterable[sa.ColumnElement[Any]]) -> sa.Select[*tuple[Any, ...]]:
    """Select columns as the database has them: SQLite takes any value anywhere, and what is wrong is named record by record."""
    return sa.select(*(sa.type_coerce(column, sa.types.NULLTYPE).label(column.key) for column in columns))


def _record(row: sa.Row[Any], samples: Sequence[sa.Row[Any]], checked: _Checked, database: str) -> RunRecord:
    """Return a row and its samples as a record: the one check of what the database holds.

    Raises:
        ArtifactError: names the record with a value that is none of those that are stored, or names a file elsewhere.
    """
    try:
        return _as_record(row, samples, checked)
    except (ValueError, TypeError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        name = f"record {shown(str(row.record_id))} of run {shown(str(row.run_id))}"
        raise ArtifactError(
            f"{database} is damaged: {name} holds what quadbench does not write: {problem}",
            hint="report another run by its id, or move the database away, and a new one is begun",
        ) from error


def _as_record(row: sa.Row[Any], samples: Sequence[sa.Row[Any]], checked: _Checked) -> RunRecord:
    """Return a row and its samples as a record. Of what is like that of an earlier one nothing is checked again.

    Raises:
        ValueError, TypeError: something is none of what is stored.
    """
    columns, like = _samples(samples, checked), checked.records.get(_shared_by_launches(row))
    if columns is None or like is None:
        record = _validated(_RECORD, _content(row, samples if columns is None else ()))
        check_file_name(record.run_id)
        if columns is None:
            checked.kinds.update({sample[1:]: _kind(one) for sample, one in zip(samples, record.samples, strict=True)})
            kinds, values = [checked.kinds[sample[1:]] for sample in samples], [sample.value for sample in record.samples]
            columns = Samples(kinds, values, checked.launches)
        checked.records[_shared_by_launches(row)] = replace(record, samples=())
        own = {name: getattr(record, name) for name in _Own.__dataclass_fields__}
    else:
        record, own = like, vars(_validated(_OWN, _own_content(row)))
    for image in own["images"].values():
        check_relative_path(image)
    if own["launch"] < 0:
        raise ValueError(f"launch: {own['launch']}, expected a number from 0")
    times = {name: own[name].astimezone(UTC) for name in ("started_at", "ended_at")}
    return replace(record, samples=columns, **(own | times))


def _validated(adapter: TypeAdapter[ValidT], content: Mapping[str, Any]) -> ValidT:
    # What JSON does not have, a blob, becomes a list, which stands for no text and no number.
    return adapter.validate_json(json.dumps(content, default=lambda _: []), strict=True)


def _samples(samples: Sequence[sa.Row[Any]], checked: _Checked) -> Samples | None:
    """Return samples whose kinds were checked; None where any other is among them, or a value that is no number."""
    if not samples:
        return Samples((), (), checked.launches)
    values, *columns = zip(*samples, strict=True)
    try:
        kinds = [checked.kinds[row] for row in zip(*columns, strict=True)]
    except KeyError:
        return None
    return Samples(kinds, values, checked.launches) if set(map(type, values)) == {float} else None


def _kind(sample: Sample) -> SampleKind:
    return SampleKind(**{name: getattr(sample, name) for name in KIND_FIELDS})


def _content(row: sa.Row[Any], samples: Sequence[sa.Row[Any]]) -> dict[str, Any]:
    """Return a row and its samples as the JSON of a record.

    Raises:
        ValueError, TypeError: a column for JSON holds something else.
    """
    fields = row._mapping
    return {
        **{name: fields[name] for name in _PLAIN_FIELDS},
        **{name: _parsed(name, fields[name]) for name in _JSON_COLUMNS},
        **_own_content(row),
        "device": {name: fields[f"device_{name}"] for name in _DEVICE_FIELDS},
        "samples": [
            {
                **fields,
                "labels": _parsed("labels", fields["labels"]),
                "is_warmup": _BOOLS.get(fields["is_warmup"], fields["is_warmup"]),
            }
            for fields in (sample._asdict() for sample in samples)
        ],
    }


def _own_content(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "record_id": row.record_id,
        "launch": row.launch,
        "started_at": utc_text(row.started_at),
        "ended_at": utc_text(row.ended_at),
        "state": _parsed("state", row.state),
        "images": _parsed("images", row.images),
    }


def _parsed(name: str, text: Any) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"{name}: {type(text).__name__}, expected a text")
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
