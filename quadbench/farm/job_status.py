"""Queries that only read the farm's jobs: statistics, a run's jobs, a job's attempts, results, the last jobs of devices.

All raise StorageError if the database cannot be read, and ArtifactError if it is damaged. Those that take the id of a run or job
raise UnknownNameError if there is none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from quadbench.errors import UnknownNameError, UserError
from quadbench.farm.job import OPEN, Job, JobState
from quadbench.farm.jobs import job_query, read_jobs
from quadbench.results.engine import begin_read, database_now, database_of, has_tables, open_db, source_name
from quadbench.results.layout import Layout
from quadbench.results.schema import AttemptRow, JobRow

MOST_LISTED = 1000  # limit for a list of jobs
_MOST_RUNS = 50  # limit for a list of open runs
_MOST_LINES_CHARACTERS = 200_000  # limit for an attempt's log


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """Job statistics: jobs by state, unfinished jobs by owner and state, and longest wait in seconds."""

    states: Mapping[str, int]
    owners: Mapping[str, Mapping[str, int]]
    oldest_waits_s: float | None


@dataclass(frozen=True, kw_only=True)
class PastAttempt:
    """An attempt at a job, perhaps still running: its host and device, its times, why it ended, and its last log lines."""

    number: int
    host: str
    seat: str
    started_at: datetime
    ended_at: datetime | None
    reason: str | None
    lines: str


@contextmanager
def open_farm_database(layout: Layout) -> Iterator[sa.Engine]:
    """Yield an engine of the farm's database, which has tables already. Raise UserError if it has none: it is no farm's."""
    source = database_of(layout)
    if not has_tables(source):
        raise UserError(f"{source_name(source)} is no farm, as it has no tables", hint="begin it first: quadbench farm init")
    with open_db(layout) as engine:
        yield engine


def job_counts(engine: sa.Engine) -> JobCounts:
    """Return statistics of the jobs."""
    with begin_read(engine) as connection:
        states, owners = dict[str, int](), dict[str, dict[str, int]]()
        counting = sa.select(JobRow.owner, JobRow.state, sa.func.count()).group_by(JobRow.owner, JobRow.state)
        for owner, state, count in connection.execute(counting.order_by(JobRow.owner, JobRow.state)):
            states[str(state)] = states.get(str(state), 0) + count
            if state in OPEN:
                owners.setdefault(str(owner), {})[str(state)] = count
        waiting = sa.select(sa.func.min(JobRow.submitted_at)).where(JobRow.state == JobState.WAITING.value)
        oldest = connection.scalar(waiting)
        oldest_s = (database_now(connection) - oldest).total_seconds() if oldest else None
    return JobCounts(states=states, owners=owners, oldest_waits_s=oldest_s)


def listed_jobs(engine: sa.Engine, run_id: str | None = None) -> list[Job]:
    """Return a run's first 1000 jobs in order of id. If `run_id` is None, return the last 1000 jobs of all runs, latest first."""
    query = sa.select(JobRow).limit(MOST_LISTED)
    query = query.order_by(JobRow.id.desc()) if run_id is None else query.where(JobRow.run_id == run_id).order_by(JobRow.id)
    with begin_read(engine) as connection:
        jobs = read_jobs(connection, query)
        if run_id is not None and not jobs:
            latest = sa.select(JobRow.run_id).order_by(JobRow.id.desc()).limit(MOST_LISTED)
            raise UnknownNameError("run of the farm", run_id, sorted({str(name) for name in connection.scalars(latest)})[:20])
    return jobs


def open_runs(engine: sa.Engine) -> dict[str, dict[str, int]]:
    """Count the jobs of the latest 50 runs with waiting or running jobs. Return {run id: {state: number}}, latest run first."""
    latest = sa.select(JobRow.run_id).where(JobRow.state.in_(OPEN)).group_by(JobRow.run_id)
    latest = latest.order_by(sa.func.max(JobRow.id).desc()).limit(_MOST_RUNS)
    with begin_read(engine) as connection:
        runs: dict[str, dict[str, int]] = {str(name): {} for name in connection.scalars(latest)}
        counting = sa.select(JobRow.run_id, JobRow.state, sa.func.count()).where(JobRow.run_id.in_(runs))
        for run_id, state, count in connection.execute(counting.group_by(JobRow.run_id, JobRow.state)):
            runs[str(run_id)][str(state)] = count
    return runs


def job_with_attempts(engine: sa.Engine, job_id: int) -> tuple[Job, list[PastAttempt]]:
    """Return a job and its attempts, oldest first."""
    stored = [column for column in AttemptRow.__table__.columns if column.key not in ("job", "answer", "lines")]
    stored.append(sa.func.substr(AttemptRow.lines, 1, _MOST_LINES_CHARACTERS).label("lines"))
    with begin_read(engine) as connection:
        job = next(iter(read_jobs(connection, job_query(job_id))), None)
        if job is None:
            raise UnknownNameError("job", str(job_id))
        query = sa.select(*stored).where(AttemptRow.job == job_id).order_by(AttemptRow.number).limit(MOST_LISTED)
        return job, [PastAttempt(**row) for row in connection.execute(query).mappings()]


def answers(engine: sa.Engine, jobs: Sequence[Job]) -> dict[int, Any]:
    """Return a dict from the id of each finished job to its parsed JSON result. The value is None if no result was stored."""
    done = {job.id: job for job in jobs if job.state is JobState.DONE}
    columns = AttemptRow.job, AttemptRow.number, AttemptRow.answer
    with begin_read(engine) as connection:
        rows = connection.execute(sa.select(*columns).where(AttemptRow.job.in_(done))).all()
    texts = {row.job: row.answer for row in rows if row.number == done[row.job].attempt}
    return {job: None if text is None else json.loads(text) for job, text in texts.items()}


def last_jobs(engine: sa.Engine, seats: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return a dict from device name to its last job's files (`affinity`) and the seconds since that job ended, 0 if it runs."""
    latest = sa.select(JobRow.seat, sa.func.max(JobRow.started_at).label("started_at")).where(JobRow.seat.in_(seats))
    last = latest.group_by(JobRow.seat).subquery()
    columns = JobRow.seat, JobRow.affinity, JobRow.ended_at
    query = sa.select(*columns).join(last, sa.and_(JobRow.seat == last.c.seat, JobRow.started_at == last.c.started_at))
    with begin_read(engine) as connection:
        now = database_now(connection)
        rows = connection.execute(query).all()
    ended = {row.seat: (row.affinity, row.ended_at) for row in rows}
    return {seat: (files, max(0.0, (now - at).total_seconds()) if at else 0.0) for seat, (files, at) in ended.items()}
