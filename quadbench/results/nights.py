"""Nightly regression runs in the database, with counts of their verdicts. A new verdict never overwrites an old one."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Acknowledgement, Measurement, Night, Point, Ruling, RulingKind, Subject
from quadbench.artifacts.safe_text import check_file_name
from quadbench.errors import UnknownNameError
from quadbench.results.documents import document_from
from quadbench.results.engine import begin_read, begin_write, database_now, upsert
from quadbench.results.schema import AcknowledgementRow, MeasurementRow, NightRow, PointRow, RulingRow, UtcTime

_KNOWN_SHOWN = 20  # nights named in a message
_POINT = ("task", "key", "value", "yardstick", "ratio", "low", "high")


class NightStore:
    """Nightly runs in a database. Methods raise StorageError if the database fails, ArtifactError if stored data is damaged."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def begin(self, night_id: str, name: str, version: str, planned: Sequence[tuple[str, str]]) -> Night:
        """Store that a nightly run begins or is resumed, with its planned test cases and devices. Return the nightly run.

        Raises:
            ValueError: the id is not a valid file name.
        """
        with begin_write(self._engine) as connection:
            row = {"id": check_file_name(night_id), "name": name, "version": version, "planned": [list(pair) for pair in planned]}
            insert = upsert(connection, NightRow).values({**row, "began_at": database_now(connection)})
            changes = {"planned": row["planned"], "version": version, "ended_at": None}
            connection.execute(insert.on_conflict_do_update(index_elements=[NightRow.id], set_=changes))
        return self.night(night_id)

    def end(self, night_id: str) -> None:
        with begin_write(self._engine) as connection:
            connection.execute(sa.update(NightRow).where(NightRow.id == night_id).values(ended_at=database_now(connection)))

    def store(self, measurement: Measurement) -> bool:
        """Store a measurement and return True. Return False if its test case, device and night already have a measurement."""
        with begin_write(self._engine) as connection:
            insert = upsert(connection, MeasurementRow).values(_measurement_row(measurement)).on_conflict_do_nothing()
            key = connection.scalar(insert.returning(MeasurementRow.id))
            if key is None:
                return False
            rows = [{"measurement": key, **asdict(point)} for point in measurement.points]
            if rows:
                connection.execute(sa.insert(PointRow), rows)
            return True

    def add(self, rulings: Iterable[Ruling]) -> None:
        """Store verdicts. Each supersedes earlier verdicts with the same night, test case, device, task and metric."""
        with begin_write(self._engine) as connection:
            if rows := [_ruling_row(ruling) for ruling in rulings]:
                connection.execute(sa.insert(RulingRow), rows)

    def night(self, night_id: str) -> Night:
        """Return a nightly run with its measurements and verdicts; raise UnknownNameError if no night has this id."""
        with begin_read(self._engine) as connection:
            row = connection.execute(sa.select(NightRow.__table__).where(NightRow.id == night_id)).one_or_none()
        if row is None:
            raise UnknownNameError("night", night_id, self.night_ids()[:_KNOWN_SHOWN])
        return document_from(
            Night,
            row,
            night_id=row.id,
            planned=tuple((case, words) for case, words in row.planned),
            measurements=tuple(self._measurements(MeasurementRow.night == night_id)),
            rulings=self.rulings(night_id),
        )

    def night_ids(self) -> list[str]:
        """Return the ids of all nightly regression runs by start time, latest first."""
        query = sa.select(NightRow.id).order_by(NightRow.began_at.desc(), NightRow.id.desc())
        with begin_read(self._engine) as connection:
            return list(connection.scalars(query))

    def referenced(self) -> set[str]:
        """Return the set of bundle digests, runtime kit digests and run ids that nightly runs use and cleanup must keep."""
        needed = sa.select(MeasurementRow.bundle, MeasurementRow.kit, MeasurementRow.yardstick, MeasurementRow.runs)
        with begin_read(self._engine) as connection:
            rows = connection.execute(needed).all()
        return {name for *digests, runs in rows for name in (*digests, *runs) if name}

    def cases(self) -> list[tuple[str, str]]:
        """Return a sorted list of the pairs (test case, device) for which nightly measurements are stored."""
        query = sa.select(MeasurementRow.case_name, MeasurementRow.device).distinct()
        with begin_read(self._engine) as connection:
            return sorted((row.case_name, row.device) for row in connection.execute(query))

    def series(
        self,
        case: str,
        device: str | None = None,
        *,
        latest: int | None = None,
        key: str | None = None,
        until: Night | None = None,
    ) -> list[Measurement]:
        """Return the nightly measurements of a test case in order of time. If no `device` is given, include all devices.

        `latest` keeps only that many of the newest, `key` only one metric of each. `until` is the last night to include.
        """
        query = sa.select(MeasurementRow.id).where(MeasurementRow.case_name == case)
        if device is not None:
            query = query.where(MeasurementRow.device == device)
        if until is not None:
            query = query.where((MeasurementRow.night == until.night_id) | (MeasurementRow.measured_at < until.began_at))
        query = query.order_by(MeasurementRow.measured_at.desc(), MeasurementRow.id.desc()).limit(latest)
        return self._measurements(MeasurementRow.id.in_(query), key)

    def rulings(self, night_id: str) -> tuple[Ruling, ...]:
        """Return the current verdicts of a night: the last one added for each test case, device, task and metric."""
        return _standing(self._rulings(RulingRow.night == night_id))

    def rulings_of(self, case: str, device: str | None = None) -> tuple[Ruling, ...]:
        """Return the current verdicts on a test case from all nights, oldest first. Without a `device`, include all devices."""
        of_case = RulingRow.case_name == case
        return _standing(self._rulings(of_case if device is None else sa.and_(of_case, RulingRow.device == device)))

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        row = {("case_name" if name == "case" else name): value for name, value in asdict(acknowledgement).items()}
        del row["since"]  # derived from its night
        with begin_write(self._engine) as connection:
            connection.execute(sa.insert(AcknowledgementRow).values(row))

    def acknowledgements(self, case: str | None = None) -> tuple[Acknowledgement, ...]:
        """Return the acceptances of metric changes by people, expired ones included. `case` is a test case, or None for all."""
        query = sa.select(AcknowledgementRow.__table__).order_by(AcknowledgementRow.id)
        query = query if case is None else query.where(AcknowledgementRow.case_name == case)
        with begin_read(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
            since = _first_measured(connection)
        return tuple(
            Acknowledgement(
                case=row["case_name"],
                since=since.get((row["case_name"], row["night"]), row["made_at"]),
                **{name: value for name, value in row.items() if name not in ("id", "case_name")},
            )
            for row in rows
        )

    def _measurements(self, condition: sa.ColumnElement[bool], key: str | None = None) -> list[Measurement]:
        measured = sa.select(MeasurementRow.__table__).where(condition).order_by(MeasurementRow.measured_at, MeasurementRow.id)
        ids = sa.select(MeasurementRow.id).where(condition)
        figures = sa.select(PointRow.__table__).where(PointRow.measurement.in_(ids)).order_by(PointRow.task, PointRow.key)
        figures = figures if key is None else figures.where(PointRow.key == key)
        points: dict[int, list[Point]] = defaultdict(list)
        with begin_read(self._engine) as connection:
            rows = connection.execute(measured).mappings().all()
            for point in connection.execute(figures).mappings():
                points[point["measurement"]].append(Point(**{name: point[name] for name in _POINT}))
            return [_measurement(row, points[row["id"]]) for row in rows]

    def _rulings(self, condition: sa.ColumnElement[bool]) -> list[Ruling]:
        """Return the stored verdicts that match an SQL condition, superseded or not, in order of insertion."""
        query = sa.select(RulingRow.__table__).where(condition).order_by(RulingRow.id)
        with begin_read(self._engine) as connection:
            return [_ruling(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True, kw_only=True)
class NightHead:
    """The summary of a nightly run. `rulings` is a dict from kind of verdict, such as CLEAN, to the number of verdicts.
    `standing` of the REGRESSION verdicts were first made in an earlier night.
    """

    night_id: str
    name: str
    began_at: datetime
    ended_at: datetime | None
    rulings: Mapping[str, int]
    standing: int


def night_heads(engine: sa.Engine, limit: int, skip: int = 0) -> list[NightHead]:
    """Return the summaries of at most `limit` nightly runs, newest first, after skipping the `skip` newest ones."""
    latest = sa.select(NightRow.id.label("night_id"), NightRow.name, NightRow.began_at, NightRow.ended_at)
    latest = latest.order_by(NightRow.began_at.desc(), NightRow.id.desc()).limit(limit).offset(skip)
    with begin_read(engine) as connection:
        nights = connection.execute(latest).all()
        kinds = _kinds(connection, [night.night_id for night in nights])
    return [
        document_from(NightHead, night, rulings=kinds[night.night_id][0], standing=kinds[night.night_id][1]) for night in nights
    ]


def _kinds(connection: sa.Connection, nights: Sequence[str]) -> dict[str, tuple[dict[str, int], int]]:
    """Return a dict from night id to a pair: a dict from kind of verdict to number of verdicts, and how many stand from an
    earlier night. Superseded verdicts are not counted.
    """
    figure = (RulingRow.night, RulingRow.case_name, RulingRow.device, RulingRow.task, RulingRow.key)
    latest = sa.select(sa.func.max(RulingRow.id)).where(RulingRow.night.in_(nights)).group_by(*figure)
    stands = sa.func.count(sa.case((RulingRow.since != RulingRow.night, 1)))
    query = sa.select(RulingRow.night, RulingRow.kind, sa.func.count(), stands).where(RulingRow.id.in_(latest))
    kinds: dict[str, tuple[dict[str, int], int]] = {night: ({}, 0) for night in nights}
    for night, kind, count, standing in connection.execute(query.group_by(RulingRow.night, RulingRow.kind)):
        kinds[night][0][str(kind)] = count
        if kind == RulingKind.REGRESSION:
            kinds[night] = (kinds[night][0], standing)
    return kinds


def _standing(rulings: Iterable[Ruling]) -> tuple[Ruling, ...]:
    """Return the current verdicts: for each night, test case, device, task and metric, the one that was added last."""
    return tuple({(one.night, one.case, one.device, one.task, one.key): one for one in rulings}.values())


def _first_measured(connection: sa.Connection) -> dict[tuple[str, str], datetime]:
    """Return a dict from (test case, night id) to the earliest measurement time. Omit nights without accepted metric changes."""
    query = (
        sa.select(MeasurementRow.case_name, MeasurementRow.night, sa.func.min(MeasurementRow.measured_at, type_=UtcTime))
        .where(MeasurementRow.night.in_(sa.select(AcknowledgementRow.night)))
        .group_by(MeasurementRow.case_name, MeasurementRow.night)
    )
    return {(case, night): first for case, night, first in connection.execute(query)}


def _measurement_row(measurement: Measurement) -> dict[str, object]:
    row = {name: value for name, value in asdict(measurement).items() if name not in ("subject", "points", "case")}
    lists = {"runs": list(measurement.runs), "caveats": [caveat.value for caveat in measurement.caveats]}
    return {**row, **asdict(measurement.subject), **lists, "case_name": measurement.case}


def _measurement(row: sa.RowMapping, points: Sequence[Point]) -> Measurement:
    other = ("id", "case_name", "bundle", "kit", "runs", "caveats")
    yardstick_run, run = row["runs"]
    return Measurement(
        case=row["case_name"],
        subject=Subject(bundle=row["bundle"], kit=row["kit"]),
        runs=(yardstick_run, run),
        caveats=tuple(map(Caveat, row["caveats"])),
        points=tuple(points),
        **{name: value for name, value in row.items() if name not in other},
    )


def _ruling_row(ruling: Ruling) -> dict[str, object]:
    row = {name: value for name, value in asdict(ruling).items() if name not in ("last_good", "case")}
    before = ruling.last_good
    last_good = {"last_good_bundle": before and before.bundle, "last_good_kit": before and before.kit}
    return {**row, **last_good, "case_name": ruling.case, "kind": ruling.kind.value}


def _ruling(row: sa.RowMapping) -> Ruling:
    other = ("id", "case_name", "kind", "last_good_bundle", "last_good_kit")
    bundle = row["last_good_bundle"]
    return Ruling(
        case=row["case_name"],
        kind=RulingKind(row["kind"]),
        last_good=Subject(bundle=bundle, kit=row["last_good_kit"]) if bundle else None,
        **{name: value for name, value in row.items() if name not in other},
    )
