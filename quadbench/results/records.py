"""Records: RunRecord <-> database.

Tables `records` (one row a launch) and `samples` (one row a value), view `kpis` (one row a figure of a run), for SQL of your own:

    SELECT device, task, variant, p50 / 1e6 AS ms FROM kpis WHERE run_id = '...' AND metric = 'end_to_end_ns';
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from quadbench.artifacts import DeviceFacts, RunRecord, Sample
from quadbench.artifacts.kernels import KERNEL_NODES
from quadbench.artifacts.names import check_file_name, check_relative_path
from quadbench.artifacts.plausible import value_fault
from quadbench.errors import ArtifactError, UnknownNameError, shown
from quadbench.results.engine import Source, insertion, name_of, open_engine, open_for_reading, reading, writing
from quadbench.results.tables import RecordRow, SampleRow, UtcTime, utc_text
from quadbench.spec import first_problem

_KNOWN_RUNS_SHOWN = 20
_MOST_NUMBER = 2**63  # of an iteration or step: what the database can hold

Guard = Callable[[sa.Connection], None]
_Makers = dict[tuple[Any, ...], Callable[..., Sample]]


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
_SAMPLE_FIELDS = tuple(Sample.__dataclass_fields__)
_SHARED_FIELDS = tuple(name for name in _SAMPLE_FIELDS if name != "value")  # which samples of many launches have alike
_JSON_COLUMNS = tuple(column.name for column in RecordRow.__table__.columns if isinstance(column.type, sa.JSON))
_BOOLS = {0: False, 1: True}  # as SQLite has them
_RECORD = TypeAdapter(RunRecord)
_PLAIN_FIELDS = tuple(name for name in RunRecord.__dataclass_fields__ if name not in ("device", "caveats", "samples"))


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
    return {**{name: getattr(sample, name) for name in _SAMPLE_FIELDS}, "labels": dict(sorted(sample.labels.items()))}


def _load(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> tuple[RunRecord, ...]:
    rows = connection.execute(
        _as_stored(RecordRow.__table__.columns).where(condition).order_by(RecordRow.started_at, RecordRow.id)
    )
    columns = [SampleRow.__table__.columns[name] for name in ("value", *_SHARED_FIELDS, "record")]
    query = (
        _as_stored(columns)
        .join(RecordRow, RecordRow.id == SampleRow.record)
        .where(condition)
        .order_by(SampleRow.record, SampleRow.id)
    )
    samples = {key: list(group) for key, group in groupby(connection.execute(query), key=itemgetter(-1))}  # -1 is the record
    name, known = name_of(connection.engine), _Makers()
    return tuple(_record(row, samples.pop(row["id"], []), known, name) for row in rows.mappings().all())


def _as_stored(columns: Iterable[sa.ColumnElement[Any]]) -> sa.Select[*tuple[Any, ...]]:
    """Select columns as the database has them: SQLite takes any value anywhere, and what is wrong is named record by record."""
    return sa.select(*(sa.type_coerce(column, sa.types.NULLTYPE).label(column.key) for column in columns))


def _record(row: sa.RowMapping, samples: Sequence[sa.Row[Any]], known: _Makers, database: str) -> RunRecord:
    """Return a row and its samples as a record: the one check of what the database holds.

    Of samples that differ by their value alone one is checked: `known` has how to make others, by what they share.

    Raises:
        ArtifactError: names the record with a value that is none of those that are stored, or names a file elsewhere.
    """
    try:
        alike = _alike(samples, known)
        content = _content(row, samples if alike is None else ())
        # What JSON does not have, a blob, becomes a list, which stands for no text and no number.
        record = _RECORD.validate_json(json.dumps(content, default=lambda _: []), strict=True)
        check_file_name(record.run_id)
        for image in record.images.values():
            check_relative_path(image)
        if record.launch < 0:
            raise ValueError(f"launch: {record.launch}, expected a number from 0")
    except (ValueError, TypeError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        name = f"record {shown(str(row['record_id']))} of run {shown(str(row['run_id']))}"
        raise ArtifactError(
            f"{database} is damaged: {name} holds what quadbench does not write: {problem}",
            hint="report another run by its id, or move the database away, and a new one is begun",
        ) from error
    if alike is None:
        known.update({sample[1:-1]: _maker(checked) for sample, checked in zip(samples, record.samples, strict=True)})
    return replace(
        record,
        samples=record.samples if alike is None else alike,
        started_at=record.started_at.astimezone(UTC),
        ended_at=record.ended_at.astimezone(UTC),
    )


def _alike(samples: Sequence[sa.Row[Any]], known: _Makers) -> tuple[Sample, ...] | None:
    """Return samples whose like were checked; None where any other is among them, or a value that is no number."""
    alike = []
    for sample in samples:
        make = known.get(sample[1:-1])
        if make is None or type(sample[0]) is not float:
            return None
        alike.append(make(value=sample[0]))
    return tuple(alike)


def _maker(sample: Sample) -> Callable[..., Sample]:
    return partial(Sample, **{name: getattr(sample, name) for name in _SHARED_FIELDS})


def _content(row: sa.RowMapping, samples: Sequence[sa.Row[Any]]) -> dict[str, Any]:
    """Return a row and its samples as the JSON of a record.

    Raises:
        ValueError, TypeError: a column for JSON holds something else.
    """
    return {
        **{name: row[name] for name in _PLAIN_FIELDS},
        **{name: _parsed(name, row[name]) for name in _JSON_COLUMNS},
        "started_at": utc_text(row["started_at"]),
        "ended_at": utc_text(row["ended_at"]),
        "device": {name: row[f"device_{name}"] for name in _DEVICE_FIELDS},
        "samples": [
            {
                **fields,
                "labels": _parsed("labels", fields["labels"]),
                "is_warmup": _BOOLS.get(fields["is_warmup"], fields["is_warmup"]),
            }
            for fields in (dict(zip(("value", *_SHARED_FIELDS), sample, strict=False)) for sample in samples)
        ],
    }


def _parsed(name: str, text: Any) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"{name}: {type(text).__name__}, expected a text")
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _label_lacking(sample: Sample) -> str | None:
    """Return the label without which nobody knows what the sample is about; None where it has it."""
    needed = "kind" if sample.metric == KERNEL_NODES else "adapter" if sample.labels.get("kind") == "adapter" else None
    return needed if needed not in sample.labels else None


def _is_number(number: int | None) -> bool:
    return number is None or 0 <= number < _MOST_NUMBER


def values_fault(record: RunRecord) -> str | None:
    """Say what is wrong with a record's samples; None where nothing is. Old records may hold what is refused today."""
    for sample in record.samples:
        fault = value_fault(sample.metric, sample.value)
        if fault is None and not (_is_number(sample.iteration) and _is_number(sample.step)):
            fault = f"has iteration {sample.iteration} and step {sample.step}, expected numbers from 0"
        if fault is None and (label := _label_lacking(sample)):
            fault = f"has no label '{label}'"
        if fault:
            return f"{sample.metric}{f' of task {sample.task}' if sample.task else ''} {fault}"
    return None
