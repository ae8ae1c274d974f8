"""Nights: nights of regression tests <-> database. What is ruled is only ever added to; a damaged row costs no other."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from quadbench.artifacts.names import can_name_file, check_file_name
from quadbench.artifacts.night import Acknowledgement, Measurement, Night, Ruling
from quadbench.errors import ArtifactError, UnknownNameError, shown
from quadbench.results.engine import insertion, now_of, reading, writing
from quadbench.results.schema import AcknowledgementRow, MeasurementRow, NightRow, PointRow, RulingRow, Table, utc_text
from quadbench.spec import first_problem

_KNOWN_SHOWN = 20  # nights, in a message
_JSON = ("planned", "environment", "runs", "caveats")
_POINT = ("task", "key", "value", "yardstick", "ratio", "low", "high")
_TIMES = ("measured_at", "told_at", "began_at", "ended_at", "made_at", "since", "until")
_RATIOS = {"ratio", "low", "high"}
_NUMBERS, _MOST = {"value", "yardstick", "expected", *_RATIOS}, 1e17  # as large as anything is that is measured
NounT = TypeVar("NounT")
RowT = TypeVar("RowT")

log = logging.getLogger(__name__)


class Nights:
    """The nights in a database. Every method raises StorageError and ArtifactError as `writing` and `reading` do."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def begin(self, night_id: str, name: str, version: str, planned: Sequence[tuple[str, str]]) -> Night:
        """Return the night, which begins now if it did not yet; one that ended goes on. Its plan is the one given last.

        Raises:
            ValueError: the id cannot be the name of a file.
        """
        with writing(self._engine) as connection:
            row = {"id": check_file_name(night_id), "name": name, "version": version, "planned": [list(pair) for pair in planned]}
            insert = insertion(connection, NightRow).values({**row, "began_at": now_of(connection)})
            changes = {"planned": row["planned"], "version": version, "ended_at": None}
            connection.execute(insert.on_conflict_do_update(index_elements=[NightRow.id], set_=changes))
        return self.night(night_id)

    def adopt(self, night: Night) -> bool:
        """Store a night of another database, with what of it is not here yet; return whether anything was new.

        A ruling that another has superseded here stays superseded.
        """
        with writing(self._engine) as connection:
            row = {name: getattr(night, name) for name in ("name", "began_at", "ended_at", "version")}
            row |= {"id": check_file_name(night.night_id), "planned": [list(pair) for pair in night.planned]}
            insert = insertion(connection, NightRow).values(row).on_conflict_do_nothing().returning(NightRow.id)
            is_new = connection.scalar(insert) is not None
            if night.ended_at:
                goes_on = (NightRow.id == night.night_id) & NightRow.ended_at.is_(None)
                ends = sa.update(NightRow).where(goes_on).values(ended_at=night.ended_at).returning(NightRow.id)
                is_new |= connection.scalar(ends) is not None
        kept = [self.keep(measurement) for measurement in night.measurements]
        here = set(self._rulings(RulingRow.night == night.night_id, with_superseded=True))
        rulings = [ruling for ruling in night.rulings if ruling not in here]
        self.rule(rulings)
        return is_new or any(kept) or bool(rulings)

    def end(self, night_id: str) -> None:
        """Note that a night is over."""
        with writing(self._engine) as connection:
            connection.execute(sa.update(NightRow).where(NightRow.id == night_id).values(ended_at=now_of(connection)))

    def keep(self, measurement: Measurement) -> bool:
        """Store a measurement, whole or not at all. False if the night has one of the case on the device already, which stays."""
        with writing(self._engine) as connection:
            insert = insertion(connection, MeasurementRow).values(_measurement_row(measurement)).on_conflict_do_nothing()
            key = connection.scalar(insert.returning(MeasurementRow.id))
            if key is None:
                return False
            rows = [{"measurement": key, **asdict(point)} for point in measurement.points]
            if rows:
                connection.execute(sa.insert(PointRow), rows)
            return True

    def damaged(self, night_id: str) -> set[tuple[str, str]]:
        """Return the cases with the addresses of devices of which a night has a measurement that cannot be read."""
        query = sa.select(MeasurementRow.case_name, MeasurementRow.address).where(MeasurementRow.night == night_id)
        with reading(self._engine) as connection:
            there = {(row.case_name, row.address) for row in connection.execute(query)}
        return there - {(one.case, one.address) for one in self._measurements(MeasurementRow.night == night_id)}

    def rule(self, rulings: Iterable[Ruling]) -> None:
        """Add rulings, all or none; each supersedes an earlier one about the same figure of the same night."""
        with writing(self._engine) as connection:
            if rows := [_ruling_row(ruling) for ruling in rulings]:
                connection.execute(sa.insert(RulingRow), rows)

    def night(self, night_id: str) -> Night:
        """Return a night, whole.

        Raises:
            UnknownNameError: there is none; the message lists the latest.
        """
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(*_columns(NightRow)).where(NightRow.id == night_id)).mappings().one_or_none()
        if row is None:
            raise UnknownNameError("night", night_id, self.night_ids()[:_KNOWN_SHOWN])
        content = {("night_id" if name == "id" else name): value for name, value in row.items()}
        night = _noun(Night, content)
        measurements = self._measurements(MeasurementRow.night == night_id)
        return replace(night, measurements=tuple(measurements), rulings=self.rulings(night_id))

    def night_ids(self, name: str | None = None) -> list[str]:
        """Return the ids of all nights, or of those of one file's name, latest first."""
        query = sa.select(NightRow.id).order_by(NightRow.began_at.desc(), NightRow.id.desc())
        with reading(self._engine) as connection:
            ids = connection.scalars(query if name is None else query.where(NightRow.name == name))
            return [night_id for night_id in ids if can_name_file(night_id)]

    def referred(self) -> set[str]:
        """Return what nights need to be kept: the digests of bundles and kits that they ran, and the ids of their runs.

        Raises:
            ArtifactError: a row is damaged, and what it needs cannot be told.
        """
        names = ("bundle", "kit", "yardstick", "night", "case_name", "runs")
        with reading(self._engine) as connection:
            rows = connection.execute(sa.select(*_columns(MeasurementRow, *names))).all()
        digests = {digest for row in rows for digest in row[:3] if digest}
        return digests.union(*(_runs_of(row.night, row.case_name, row.runs) for row in rows))

    def cases(self) -> list[tuple[str, str]]:
        """Return every case that was measured with every device that it was measured on."""
        query = sa.select(MeasurementRow.case_name, MeasurementRow.device).distinct()
        with reading(self._engine) as connection:
            pairs = [(row.case_name, row.device) for row in connection.execute(query)]
        return sorted(pair for pair in pairs if all(map(_is_text, pair)))

    def series(
        self,
        case: str,
        device: str | None = None,
        *,
        latest: int | None = None,
        key: str | None = None,
        until: Night | None = None,
    ) -> list[Measurement]:
        """Return the measurements of a case by time, on one device or on all: the `latest` of them, with figures of one `key`.

        `until` leaves those of a night and those before it.
        """
        wanted = sa.select(MeasurementRow.id).where(MeasurementRow.case_name == case)
        if device is not None:
            wanted = wanted.where(MeasurementRow.device == device)
        if until is not None:
            wanted = wanted.where((MeasurementRow.night == until.night_id) | (MeasurementRow.measured_at < until.began_at))
        wanted = wanted.order_by(MeasurementRow.measured_at.desc(), MeasurementRow.id.desc()).limit(latest)
        return list(self._measurements(MeasurementRow.id.in_(wanted), key))

    def rulings(self, night_id: str) -> tuple[Ruling, ...]:
        """Return the rulings of a night that stand, those of a case and device together."""
        return tuple(self._rulings(RulingRow.night == night_id))

    def rulings_of(self, case: str, device: str | None = None) -> tuple[Ruling, ...]:
        """Return the rulings of all nights about a case that stand, on one device or on all, in the order of time."""
        of_case = RulingRow.case_name == case
        return tuple(self._rulings(of_case if device is None else sa.and_(of_case, RulingRow.device == device)))

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Add an acknowledgement."""
        row = {("case_name" if name == "case" else name): value for name, value in asdict(acknowledgement).items()}
        del row["since"]  # which its night tells
        with writing(self._engine) as connection:
            connection.execute(sa.insert(AcknowledgementRow).values(row))

    def acknowledgements(self, case: str | None = None) -> tuple[Acknowledgement, ...]:
        """Return what people acknowledged, of one case or of all, also what is over, in the order of time."""
        query = sa.select(*_columns(AcknowledgementRow)).order_by(AcknowledgementRow.id)
        query = query if case is None else query.where(AcknowledgementRow.case_name == case)
        with reading(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
            since = _first_measured(connection)
        contents = [{("case" if name == "case_name" else name): value for name, value in row.items()} for row in rows]
        contents = [row | {"since": since.get((row["case"], row["night"]), row["made_at"])} for row in contents]
        return tuple(_undamaged(lambda content: _noun(Acknowledgement, content), contents))

    def _measurements(self, condition: sa.ColumnElement[bool], key: str | None = None) -> Iterator[Measurement]:
        nights = sa.select(*_columns(MeasurementRow)).where(condition).order_by(MeasurementRow.measured_at, MeasurementRow.id)
        ids = sa.select(MeasurementRow.id).where(condition)
        columns = [one for one in _columns(PointRow) if one.name in ("measurement", *_POINT)]
        of_nights = sa.select(*columns).where(PointRow.measurement.in_(ids)).order_by(PointRow.task, PointRow.key)
        of_nights = of_nights if key is None else of_nights.where(PointRow.key == key)
        points: dict[int, list[dict[str, Any]]] = defaultdict(list)
        with reading(self._engine) as connection:
            rows = connection.execute(nights).mappings().all()
            for point in connection.execute(of_nights).mappings():
                points[point["measurement"]].append({name: point[name] for name in _POINT})
        return _undamaged(lambda row: _measurement(row, points[row["id"]]), rows)

    def _rulings(self, condition: sa.ColumnElement[bool], *, with_superseded: bool = False) -> Iterator[Ruling]:
        query = sa.select(*_columns(RulingRow)).where(condition).order_by(RulingRow.id)
        with reading(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
        if with_superseded:
            return _undamaged(lambda row: _ruling(dict(row)), rows)
        latest = {(row["night"], row["case_name"], row["device"], row["task"], row["key"]): row for row in rows}
        return _undamaged(lambda row: _ruling(dict(row)), latest.values())


def _first_measured(connection: sa.Connection) -> dict[tuple[str, str], datetime]:
    """Return when the nights that words are about first measured each case, by case and night; what is damaged is left out."""
    columns = (MeasurementRow.case_name, MeasurementRow.night, sa.type_coerce(MeasurementRow.measured_at, sa.types.NULLTYPE))
    query = sa.select(*columns).where(MeasurementRow.night.in_(sa.select(AcknowledgementRow.night)))
    first: dict[tuple[str, str], datetime] = {}
    for case, night, measured_at in connection.execute(query):
        with suppress(ValueError, TypeError):
            at = datetime.fromisoformat(utc_text(measured_at)).astimezone(UTC)
            first[case, night] = min(at, first.get((case, night), at))
    return first


def _undamaged(noun: Callable[[RowT], NounT], rows: Iterable[RowT]) -> Iterator[NounT]:
    """Yield what rows hold. One that is damaged is named in the log and left out, so that it costs no other."""
    for row in rows:
        try:
            yield noun(row)
        except ArtifactError as error:
            log.warning("%s; it is left out", error)


def _columns(table: type[Table], *names: str) -> list[sa.ColumnElement[Any]]:
    """Return columns of a table, all or those named, as they are stored: what they hold is checked row by row."""
    columns = [table.__table__.columns[name] for name in names] or table.__table__.columns
    return [sa.type_coerce(one, sa.types.NULLTYPE).label(one.name) for one in columns]


def _runs_of(night: object, case: object, runs: object) -> list[str]:
    try:
        return TypeAdapter(list[str]).validate_json(runs, strict=True)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        which = _which(Measurement, {"night": night, "case": case})
        raise ArtifactError(f"{which} whose runs cannot be read: {shown(str(runs))}") from error


def _measurement_row(measurement: Measurement) -> dict[str, object]:
    row = {name: value for name, value in asdict(measurement).items() if name not in ("subject", "points", "case")}
    lists = {"runs": list(measurement.runs), "caveats": [caveat.value for caveat in measurement.caveats]}
    return {**row, **asdict(measurement.subject), **lists, "case_name": measurement.case}


def _measurement(row: sa.RowMapping, points: Sequence[dict[str, Any]]) -> Measurement:
    content = {name: value for name, value in row.items() if name != "id"}
    content["case"] = content.pop("case_name")
    content["subject"] = {name: content.pop(name) for name in ("bundle", "kit")}
    for point in points:
        where = f"{_which(Measurement, content)}, figure {shown(str(point['key']))}"
        _check_text(point, where)
        _check_numbers(point, where)
    return _noun(Measurement, content | {"points": points})


def _ruling_row(ruling: Ruling) -> dict[str, object]:
    row = {name: value for name, value in asdict(ruling).items() if name not in ("last_good", "case")}
    before = ruling.last_good
    last_good = {"last_good_bundle": before and before.bundle, "last_good_kit": before and before.kit}
    return {**row, **last_good, "case_name": ruling.case, "kind": ruling.kind.value}


def _ruling(row: dict[str, Any]) -> Ruling:
    bundle, kit = row.pop("last_good_bundle"), row.pop("last_good_kit")
    content = {name: value for name, value in row.items() if name not in ("id", "case_name")} | {"case": row["case_name"]}
    _check_numbers(content, f"{_which(Ruling, content)}, figure {shown(str(content['key']))}")
    return _noun(Ruling, content | {"last_good": {"bundle": bundle, "kit": kit} if bundle else None})


def _check_numbers(content: dict[str, Any], where: str) -> None:
    """Refuse figures that nothing measures: no numbers, or beyond all reason."""
    for name in _NUMBERS & content.keys():
        value = content[name]
        least = 0.0 if name in _RATIOS else -_MOST
        if value is not None and not (isinstance(value, int | float) and least < value <= _MOST):
            raise ArtifactError(f"{where}: its {name} is {shown(str(value))}, which nothing measures")


def _check_text(content: dict[str, Any], where: str) -> None:
    """Refuse texts that are none: SQLite takes any bytes for one."""
    for name, value in content.items():
        if isinstance(value, str) and not _is_text(value):
            raise ArtifactError(f"{where}: its {name} is {shown(value)}, which is no text in UTF-8")


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Night, Measurement, Ruling, Acknowledgement)}


def _noun(kind: type[NounT], content: dict[str, Any]) -> NounT:
    """Return what a row holds, which is checked: another may have written it."""
    _check_text(content, _which(kind, content))
    try:
        parsed = {name: from_json(content[name], allow_inf_nan=False) for name in _JSON if name in content}
        parsed |= {name: utc_text(content[name]) for name in _TIMES if name in content}
        noun: NounT = _ADAPTERS[kind].validate_python(content | parsed)
    except ValidationError as error:
        raise ArtifactError(f"{_which(kind, content)} that cannot be: {first_problem(error)}") from error
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{_which(kind, content)} that cannot be read: {error}") from error
    return noun


def _which(kind: type[Any], content: dict[str, Any]) -> str:
    """Name a row by what it should hold and what of that can be told."""
    told = {name: content.get(name) for name in ("night", "night_id", "case", "device")}
    words = ", ".join(f"{name} {shown(str(value))}" for name, value in told.items() if value is not None)
    return f"the database holds a {kind.__name__.lower()} of {words or 'nothing'}"
