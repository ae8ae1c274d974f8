"""Heads: the database -> its latest runs and nights, a page of them at a time, each in a few counts.

Nothing of it reads samples or figures, so that a list costs the same however much was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from quadbench.artifacts import Status
from quadbench.results.engine import reading
from quadbench.results.schema import NightRow, RecordRow, RulingRow, UtcTime

_FINE = {status.value for status in Status if status.is_fine}


@dataclass(frozen=True, kw_only=True)
class RunHead:
    """A run: its launches by device and status."""

    run_id: str
    recipe: str
    began_at: datetime
    ended_at: datetime
    launches: Mapping[str, Mapping[str, int]]

    @property
    def count(self) -> int:
        """Return how many launches there are."""
        return sum(sum(states.values()) for states in self.launches.values())

    @property
    def wrong(self) -> int:
        """Return how many of them failed."""
        return sum(count for states in self.launches.values() for status, count in states.items() if status not in _FINE)


@dataclass(frozen=True, kw_only=True)
class NightHead:
    """A night: the rulings that stand, by kind."""

    night_id: str
    name: str
    began_at: datetime
    ended_at: datetime | None
    rulings: Mapping[str, int]


def run_heads(engine: sa.Engine, limit: int, skip: int = 0) -> list[RunHead]:
    """Return the latest runs but for the first ones, latest first.

    Raises:
        StorageError, ArtifactError: as `reading`.
    """
    began = sa.func.min(RecordRow.started_at)
    latest = sa.select(RecordRow.run_id).group_by(RecordRow.run_id).order_by(began.desc(), RecordRow.run_id.desc())
    with reading(engine) as connection:
        names = list(connection.scalars(latest.limit(limit).offset(skip)))
        known = _heads(connection, names)
    return [known[name] for name in names if name in known]


def run_head(engine: sa.Engine, run_id: str) -> RunHead | None:
    """Return a run; None where there is no launch of it.

    Raises:
        StorageError, ArtifactError: as `reading`.
    """
    with reading(engine) as connection:
        return _heads(connection, [run_id]).get(run_id)


def night_heads(engine: sa.Engine, limit: int, skip: int = 0) -> list[NightHead]:
    """Return the latest nights but for the first ones, latest first.

    Raises:
        StorageError, ArtifactError: as `reading`.
    """
    latest = sa.select(NightRow.id, NightRow.name, NightRow.began_at, NightRow.ended_at)
    latest = latest.order_by(NightRow.began_at.desc(), NightRow.id.desc()).limit(limit).offset(skip)
    with reading(engine) as connection:
        nights = connection.execute(latest).all()
        kinds = _kinds(connection, [night.id for night in nights])
    return [
        NightHead(
            night_id=night.id, name=str(night.name), began_at=night.began_at, ended_at=night.ended_at, rulings=kinds[night.id]
        )
        for night in nights
    ]


def _heads(connection: sa.Connection, names: Sequence[str]) -> dict[str, RunHead]:
    columns = (RecordRow.run_id, RecordRow.recipe_name, RecordRow.device_address, RecordRow.status)
    times = (sa.func.min(RecordRow.started_at, type_=UtcTime), sa.func.max(RecordRow.ended_at, type_=UtcTime))
    query = sa.select(*columns, sa.func.count(), *times).where(RecordRow.run_id.in_(names)).group_by(*columns).order_by(*columns)
    groups: dict[str, list[sa.Row[*tuple[Any, ...]]]] = {}
    for row in connection.execute(query):
        groups.setdefault(row.run_id, []).append(row)
    return {name: _head(name, rows) for name, rows in groups.items()}


def _head(run_id: str, rows: Sequence[sa.Row[*tuple[Any, ...]]]) -> RunHead:
    launches: dict[str, dict[str, int]] = {}
    for _, _, address, status, count, _, _ in rows:
        of_device = launches.setdefault(str(address), {})
        of_device[str(status)] = of_device.get(str(status), 0) + count
    return RunHead(
        run_id=run_id,
        recipe=str(rows[0].recipe_name),
        began_at=min(row[-2] for row in rows),
        ended_at=max(row[-1] for row in rows),
        launches=launches,
    )


def _kinds(connection: sa.Connection, nights: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return by night how many rulings of each kind stand: of those about the same figure, the one added last."""
    figure = (RulingRow.night, RulingRow.case_name, RulingRow.device, RulingRow.task, RulingRow.key)
    standing = sa.select(sa.func.max(RulingRow.id)).where(RulingRow.night.in_(nights)).group_by(*figure)
    query = sa.select(RulingRow.night, RulingRow.kind, sa.func.count()).where(RulingRow.id.in_(standing))
    kinds: dict[str, dict[str, int]] = {night: {} for night in nights}
    for night, kind, count in connection.execute(query.group_by(RulingRow.night, RulingRow.kind)):
        kinds[night][str(kind)] = count
    return kinds
