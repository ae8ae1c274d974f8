"""Assign waiting farm jobs to a worker's host and free devices, in one short database transaction.

The transaction reads a bounded number of rows, and skips rows that another worker has locked. (SQLite allows only one writer.)
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from quadbench.errors import ArtifactError
from quadbench.farm.job import Job, JobState, claimed
from quadbench.farm.job_rows import fail_damaged, read_jobs, store_changes, time_of
from quadbench.farm.scheduler import MOST_IN_LINE, JobLine, Seat, Usage, assigned
from quadbench.results import schema
from quadbench.results.engine import database_now, name_of
from quadbench.results.schema import AttemptRow, JobRow

_MOST_NEEDS = 400  # limit for one worker; SQLite allows 500 parts of a union
_MOST_LINES = 256
_MOST_ATTEMPTS = 256  # limit on the recent attempts that count as device time
_LATELY = timedelta(hours=1)
_READY = (JobRow.state == JobState.WAITING.value, JobRow.open_needs == 0)


def claim_within(connection: sa.Connection, worker: str, version: str, seats: Sequence[Seat], lease_s: float) -> list[Job]:
    """Choose waiting jobs for a worker's free devices and host, and start an attempt at each job. Return the started jobs.

    Raises:
        ArtifactError: the database has another schema version.
    """
    _require_schema(connection)
    now = database_now(connection)
    lines = [_line(connection, version, *line, now) for line in _lines(connection, version, seats)]
    given = assigned(seats, lines, _usage(connection, now), now)
    jobs = [claimed(job, worker, seat.name, now, lease_s) for job, seat in given]
    store_changes(connection, jobs)
    if jobs:
        connection.execute(sa.insert(AttemptRow), [_attempt(job) for job in jobs])
    return jobs


def waits_for_version(connection: sa.Connection, version: str) -> str | None:
    """Return a quadbench version other than `version` that some waiting job needs, or None if no waiting job does."""
    ready = sa.select(JobRow.version).where(*_READY)
    newest = connection.scalar(ready.where(JobRow.version > version).order_by(JobRow.version.desc()).limit(1))
    return newest or connection.scalar(ready.where(JobRow.version < version).order_by(JobRow.version).limit(1))


def _require_schema(connection: sa.Connection) -> None:
    name = name_of(connection.engine)
    if not schema.is_current(connection, name):
        raise ArtifactError(f"{name} has the schema of an older quadbench", hint="start the worker again")


def _lines(connection: sa.Connection, version: str, seats: Sequence[Seat]) -> list[tuple[str, str, datetime | None]]:
    """Return a list of (requirement, owner, latest job start or None), a tuple for each job queue that `seats` can serve.

    A recursive query jumps from owner to owner in the index, however many jobs are between them.
    """
    served = sorted({need for seat in seats for need in seat.serves})
    needs = random.sample(served, _MOST_NEEDS) if len(served) > _MOST_NEEDS else served
    if not needs:
        return []
    words = sa.union_all(*(sa.select(sa.literal(need).label("needs")) for need in needs)).subquery()

    def first_owner(*after: sa.ColumnElement[bool]) -> sa.ScalarSelect[str]:
        of_version = (*_READY, JobRow.version == version, *after)
        return sa.select(JobRow.owner).where(*of_version).order_by(JobRow.owner).limit(1).scalar_subquery()

    lines = sa.select(words.c.needs, first_owner(JobRow.needs == words.c.needs).label("owner")).cte("lines", recursive=True)
    following = first_owner(JobRow.needs == lines.c.needs, JobRow.owner > lines.c.owner)
    lines = lines.union_all(sa.select(lines.c.needs, following).where(lines.c.owner.is_not(None)))
    begun = sa.select(_as_stored(JobRow.started_at)).where(JobRow.needs == lines.c.needs, JobRow.owner == lines.c.owner)
    last = begun.where(JobRow.started_at.is_not(None)).order_by(JobRow.started_at.desc()).limit(1).scalar_subquery()
    rows = connection.execute(sa.select(lines.c.needs, lines.c.owner, last).where(lines.c.owner.is_not(None))).all()
    chosen = random.sample(rows, _MOST_LINES) if len(rows) > _MOST_LINES else rows
    return [(need, owner, time_of(begun_at)) for need, owner, begun_at in chosen]


def _line(connection: sa.Connection, version: str, needs: str, owner: str, served_at: datetime | None, now: datetime) -> JobLine:
    """Lock and return an owner's first waiting jobs of the requirement `needs` as a JobLine. Mark damaged jobs as failed."""
    of_line = (*_READY, JobRow.version == version, JobRow.needs == needs, JobRow.owner == owner)
    may_begin = sa.or_(JobRow.not_before.is_(None), JobRow.not_before <= now)
    first = sa.select(JobRow).where(*of_line, may_begin).order_by(JobRow.counts_from, JobRow.id).limit(MOST_IN_LINE)
    read = read_jobs(connection, first.with_for_update(skip_locked=True))
    fail_damaged(connection, read.faults, now)
    return JobLine(owner=owner, needs=needs, jobs=read.jobs, served_at=served_at)


def _usage(connection: sa.Connection, now: datetime) -> Mapping[str, Usage]:
    """Return a dict from job owner to Usage: count of running jobs, and seconds used by attempts that ended in the last hour."""
    counting = (
        sa.select(JobRow.owner, sa.func.count().label("jobs"))
        .where(JobRow.state == JobState.RUNNING.value)
        .group_by(JobRow.owner)
    )
    running = {row.owner: row.jobs for row in connection.execute(counting)}
    times = _as_stored(AttemptRow.started_at), _as_stored(AttemptRow.ended_at)
    latest = sa.select(AttemptRow.owner, *times).where(AttemptRow.ended_at > now - _LATELY)
    device_s = _summed(connection.execute(latest.order_by(AttemptRow.ended_at.desc()).limit(_MOST_ATTEMPTS)))
    owners = {*running, *device_s}
    return {owner: Usage(running=running.get(owner, 0), device_s=device_s.get(owner, 0.0)) for owner in owners}


def _summed(attempts: Iterable[Any]) -> dict[str, float]:
    """Sum the durations of job attempts, given as rows (owner, start, end). Return a dict from owner to seconds."""
    device_s: dict[str, float] = {}
    for owner, *times in attempts:
        started_at, ended_at = map(time_of, times)
        if started_at and ended_at:
            device_s[owner] = device_s.get(owner, 0.0) + max(0.0, (ended_at - started_at).total_seconds())
    return device_s


def _as_stored(column: Any) -> sa.ColumnElement[Any]:
    return sa.type_coerce(column, sa.types.NULLTYPE)


def _attempt(job: Job) -> dict[str, object]:
    columns = {"owner": job.owner, "worker": job.worker, "seat": job.seat, "started_at": job.started_at}
    return {"job": job.id, "number": job.attempt, **columns}
