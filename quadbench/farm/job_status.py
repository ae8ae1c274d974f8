"""Queries that only read the farm's job queue: statistics, a run's jobs, a job's attempts, damaged or stuck jobs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from quadbench.errors import UnknownNameError
from quadbench.farm.job import JobState
from quadbench.farm.job_rows import ReadJobs, job_query, read_jobs, time_of
from quadbench.results.engine import begin_read, database_now
from quadbench.results.schema import AttemptRow, JobNeedRow, JobRow

MOST_LISTED = 1000  # limit for a list of jobs
_MOST_RUNS = 50  # limit for a list of open runs
_MOST_LINES_CHARACTERS = 200_000  # limit for an attempt's log
_MOST_CHECKED = 100_000  # limit on the dependencies that are searched for cycles
_OPEN = (JobState.WAITING.value, JobState.RUNNING.value)


@dataclass(frozen=True, kw_only=True)
class QueueStatus:
    """Job queue statistics: jobs by state, unfinished jobs by owner and state, longest wait in seconds, and error messages."""

    states: Mapping[str, int]
    owners: Mapping[str, Mapping[str, int]]
    oldest_waits_s: float | None
    faults: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PastAttempt:
    """An attempt at a job, perhaps still running: its worker, its times, why it ended, and its last log lines."""

    number: int
    worker: str
    seat: str
    started_at: datetime | None
    ended_at: datetime | None
    reason: str | None
    lines: str


def queue_status(engine: sa.Engine) -> QueueStatus:
    """Return statistics of the job queue. `faults` lists messages on damaged rows, unknown states and jobs that never start.

    Raises:
        StorageError, ArtifactError: as `begin_read`.
    """
    with begin_read(engine) as connection:
        counting = sa.select(JobRow.state, sa.func.count().label("jobs")).group_by(JobRow.state)
        states = {str(row.state): row.jobs for row in connection.execute(counting)}
        owners: dict[str, dict[str, int]] = {}
        by_owner = sa.select(JobRow.owner, JobRow.state, sa.func.count().label("jobs")).where(JobRow.state.in_(_OPEN))
        for row in connection.execute(by_owner.group_by(JobRow.owner, JobRow.state).order_by(JobRow.owner, JobRow.state)):
            owners.setdefault(str(row.owner), {})[str(row.state)] = row.jobs
        waiting = sa.select(sa.type_coerce(sa.func.min(JobRow.submitted_at), sa.types.NULLTYPE))
        oldest = time_of(connection.scalar(waiting.where(JobRow.state == JobState.WAITING.value)))
        return QueueStatus(
            states=states,
            owners=owners,
            oldest_waits_s=(database_now(connection) - oldest).total_seconds() if oldest else None,
            faults=[*_strange_states(states), *_stuck(connection), *_open_faults(connection)],
        )


def listed_jobs(engine: sa.Engine, run_id: str | None = None) -> ReadJobs:
    """Return a run's first 1000 jobs in order of id. If `run_id` is None, return the last 1000 jobs of all runs, latest first.

    Raises:
        UnknownNameError: there is no such run.
        StorageError, ArtifactError: as `begin_read`.
    """
    query = sa.select(JobRow).order_by(JobRow.id.desc()).limit(MOST_LISTED)
    if run_id is not None:
        query = sa.select(JobRow).where(JobRow.run_id == run_id).order_by(JobRow.id).limit(MOST_LISTED)
    with begin_read(engine) as connection:
        read = read_jobs(connection, query)
        if run_id is not None and not read.jobs and not read.faults:
            latest = sa.select(JobRow.run_id).order_by(JobRow.id.desc()).limit(MOST_LISTED)
            raise UnknownNameError("run in the queue", run_id, sorted({str(name) for name in connection.scalars(latest)})[:20])
    return read


def open_runs(engine: sa.Engine) -> dict[str, dict[str, int]]:
    """Count the jobs of up to 50 runs with waiting or running jobs. Return {run id: {state: number of jobs}}, latest run first.

    Raises:
        StorageError, ArtifactError: as `begin_read`.
    """
    latest = sa.select(JobRow.run_id).where(JobRow.state.in_(_OPEN)).group_by(JobRow.run_id)
    latest = latest.order_by(sa.func.max(JobRow.id).desc()).limit(_MOST_RUNS)
    with begin_read(engine) as connection:
        runs: dict[str, dict[str, int]] = {str(name): {} for name in connection.scalars(latest)}
        counting = sa.select(JobRow.run_id, JobRow.state, sa.func.count()).where(JobRow.run_id.in_(runs))
        for run_id, state, count in connection.execute(counting.group_by(JobRow.run_id, JobRow.state)):
            runs[str(run_id)][str(state)] = count
    return runs


def job_with_attempts(engine: sa.Engine, job_id: int) -> tuple[ReadJobs, list[PastAttempt]]:
    """Return a job (as ReadJobs) and its attempts, oldest first. If the job is damaged, ReadJobs has a message instead of it.

    Raises:
        UnknownNameError: there is no such job.
        StorageError, ArtifactError: as `begin_read`.
    """
    names = [column.key for column in AttemptRow.__table__.columns if column.key not in ("answer", "lines")]
    stored = [sa.type_coerce(AttemptRow.__table__.columns[name], sa.types.NULLTYPE).label(name) for name in names]
    stored.append(sa.func.substr(AttemptRow.lines, 1, _MOST_LINES_CHARACTERS).label("lines"))
    with begin_read(engine) as connection:
        read = read_jobs(connection, job_query(job_id))
        if not read.jobs and not read.faults:
            raise UnknownNameError("job", str(job_id))
        query = sa.select(*stored).where(AttemptRow.job == job_id).order_by(AttemptRow.number).limit(MOST_LISTED)
        return read, [_past(row) for row in connection.execute(query).mappings()]


def asked_to_stop(engine: sa.Engine, worker: str) -> frozenset[int]:
    """Return the ids of a worker's running jobs that somebody has cancelled.

    Raises:
        StorageError, ArtifactError: as `begin_read`.
    """
    query = sa.select(JobRow.id).where(
        JobRow.state == JobState.RUNNING.value, JobRow.worker == worker, JobRow.is_stopping.is_(True)
    )
    with begin_read(engine) as connection:
        return frozenset(connection.scalars(query))


def in_circles(needs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the sorted ids of waiting jobs that can never start. They are in a dependency cycle, or depend on one.

    `needs` has a pair of a waiting job and one of its open dependencies for each such dependency.
    """
    pairs = list(needs)
    behind: dict[int, list[int]] = {}
    open_needs: dict[int, int] = {}
    for job, needed in pairs:
        behind.setdefault(needed, []).append(job)
        open_needs[job] = open_needs.get(job, 0) + 1
    free = [needed for needed in behind if needed not in open_needs]
    while free:
        for job in behind.get(free.pop(), []):
            open_needs[job] -= 1
            if not open_needs[job]:
                free.append(job)
    return sorted(job for job, count in open_needs.items() if count)


def _strange_states(states: Mapping[str, int]) -> list[str]:
    known = {state.value for state in JobState}
    return [f"{count} jobs have state '{state}', which nobody looks at" for state, count in states.items() if state not in known]


def _stuck(connection: sa.Connection) -> list[str]:
    """Return messages on jobs that never start: a dependency cycle blocks them, or they wait although all dependencies ended."""
    job, needed = aliased(JobRow), aliased(JobRow)
    is_open = job.state == JobState.WAITING.value, needed.state.in_(_OPEN)
    pairs = sa.select(JobNeedRow.job, JobNeedRow.needed).join(job, job.id == JobNeedRow.job)
    open_pairs = pairs.join(needed, needed.id == JobNeedRow.needed).where(*is_open).limit(_MOST_CHECKED)
    needs = [(row.job, row.needed) for row in connection.execute(open_pairs)]
    circle, idle = in_circles(needs), []
    if len(needs) < _MOST_CHECKED:  # otherwise some dependencies were not read
        behind = sa.select(JobRow.id).where(JobRow.state == JobState.WAITING.value, JobRow.open_needs != 0)
        idle = sorted(set(connection.scalars(behind.limit(_MOST_CHECKED))) - {job_id for job_id, _ in needs})
    why = ((circle, "need each other and never begin: cancel one"), (idle, "wait for none that is open: cancel them"))
    return [f"jobs {_listed(ids)} {fault}" for ids, fault in why if ids]


def _open_faults(connection: sa.Connection) -> list[str]:
    """Check the 1000 oldest waiting or running jobs. Return one error message for each job whose database row is damaged."""
    query = sa.select(JobRow).where(JobRow.state.in_(_OPEN)).order_by(JobRow.id).limit(MOST_LISTED)
    return list(read_jobs(connection, query).faults.values())


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:10])) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")


def _past(row: Any) -> PastAttempt:
    return PastAttempt(
        number=row["number"],
        worker=str(row["worker"]),
        seat=str(row["seat"]),
        started_at=time_of(row["started_at"]),
        ended_at=time_of(row["ended_at"]),
        reason=None if row["reason"] is None else str(row["reason"]),
        lines=row["lines"] if isinstance(row["lines"], str) else "",
    )
