"""Convert between jobs and rows of the queue's database tables, and update the rows when attempts end.

SQLite accepts any value in any column, and users have the database's password, so every row is validated when read.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from quadbench.errors import ArtifactError, quote
from quadbench.farm.job import MOST_PAYLOAD_BYTES, NOTHING_LEFT, Account, Job, JobState, cancelled
from quadbench.results.engine import name_of
from quadbench.results.schema import AttemptRow, JobNeedRow, JobRow, utc_text
from quadbench.spec import first_problem

_JOB = TypeAdapter(Job)
_TABLE = cast(sa.Table, JobRow.__table__)
_TIMES = ("submitted_at", "until", "not_before", "started_at", "ended_at")
_PLAIN = tuple(name for name in (field.name for field in fields(Job)) if name not in ("payload", "after", "is_stopping", *_TIMES))
_CHANGING_TIMES = ("until", "not_before", "started_at", "ended_at")
_CHANGING = ("attempt", "most_attempts", "state", "is_stopping", "worker", "seat", "reason", *_CHANGING_TIMES)
_STORED = (  # raw column values, and the payload cut at its limit
    *(sa.type_coerce(_TABLE.c[name], sa.types.NULLTYPE).label(name) for name in (*_PLAIN, "is_stopping", *_TIMES)),
    sa.func.substr(_TABLE.c.payload, 1, MOST_PAYLOAD_BYTES + 1).label("payload"),
)
_BOOLS = {0: False, 1: True}  # SQLite stores booleans as integers
_MOST_ID = 2**63 - 1
_BATCH = 500  # ids in one statement


@dataclass(frozen=True, kw_only=True)
class ReadJobs:
    """The jobs that a query found. `faults` maps the ids of damaged rows to what is wrong with them."""

    jobs: Sequence[Job]
    faults: Mapping[int, str]


def read_jobs(connection: sa.Connection, query: sa.Select[Any]) -> ReadJobs:
    """Run a database query for job rows; return the jobs in the query's order. The query may lock the rows."""
    rows = connection.execute(query.with_only_columns(*_STORED)).mappings().all()
    after = _needed(connection, [row["id"] for row in rows])
    jobs, faults = [], {}
    for row in rows:
        try:
            jobs.append(_job(row, after.get(row["id"], [])))
        except (ValueError, TypeError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            faults[int(row["id"])] = (
                f"job {row['id']} of run {quote(str(row['run_id']))} holds what quadbench does not write: {problem}"
            )
    return ReadJobs(jobs=jobs, faults=faults)


def job_query(job_id: int) -> sa.Select[Any]:
    """Return the query for the job with this id. For an id outside the database's range, the query finds nothing."""
    return sa.select(JobRow).where(JobRow.id == max(0, min(job_id, _MOST_ID)))


def locked_job(connection: sa.Connection, job_id: int) -> Job | None:
    """Return a job with its row locked until the transaction ends, or None if it does not exist.

    Raises:
        ArtifactError: its row is damaged.
    """
    read = read_jobs(connection, job_query(job_id).with_for_update())
    for fault in read.faults.values():
        raise damage(connection, fault)
    return next(iter(read.jobs), None)


def damage(connection: sa.Connection, fault: str) -> ArtifactError:
    """Return the error for a damaged row of the queue's database tables. `fault` describes the damage."""
    return ArtifactError(f"{name_of(connection.engine)} is damaged: {fault}", hint="quadbench farm cancel JOB fails such a job")


def row_of(job: Job) -> dict[str, object]:
    """Return a job as a row of the database table of jobs, without its id.

    Raises:
        ValueError, TypeError: the payload is not JSON.
    """
    plain = {name: getattr(job, name) for name in (*_PLAIN, "is_stopping", *_TIMES) if name != "id"}
    return plain | {
        "kind": job.kind.value,
        "state": job.state.value,
        "payload": json.dumps(dict(job.payload), allow_nan=False, sort_keys=True),
        "counts_from": job.counts_from,
        "open_needs": len(set(job.after)),
    }


def store_changes(connection: sa.Connection, jobs: Sequence[Job]) -> None:
    """Write changed jobs to their rows in the database. The caller has locked the rows."""
    rows = [{"key": job.id, **{name: row_of(job)[name] for name in _CHANGING}} for job in jobs]
    if rows:
        connection.execute(sa.update(_TABLE).where(_TABLE.c.id == sa.bindparam("key")), rows)


def end_attempt(connection: sa.Connection, job: Job, now: datetime, account: Account = NOTHING_LEFT) -> None:
    """Store an attempt's end, result and log. A done job lets dependent jobs start; a failed or cancelled job cancels them.

    Rows are locked by ascending id to avoid deadlocks.
    """
    store_changes(connection, [job])
    attempt = sa.update(AttemptRow).where(AttemptRow.job == job.id, AttemptRow.number == job.attempt)
    left = {
        "answer": None if account.answer is None else json.dumps(dict(account.answer), allow_nan=False),
        "lines": account.lines,
    }
    connection.execute(attempt.where(AttemptRow.ended_at.is_(None)).values(ended_at=now, reason=job.reason, **left))
    if job.state is JobState.DONE:
        _let_go_on(connection, job.id)
    elif job.state.is_end:
        cancel_behind(connection, job.id, f"{job.state.value}: {job.reason}", now)


def cancel_behind(connection: sa.Connection, job_id: int, fate: str, now: datetime) -> None:
    """Cancel all jobs that depend, directly or not, on one that can never finish. Lock rows in order of id, against deadlocks."""
    behind = sa.select(JobNeedRow.job).where(JobNeedRow.needed == job_id).cte("behind", recursive=True)
    behind = behind.union(sa.select(JobNeedRow.job).join(behind, JobNeedRow.needed == behind.c.job))
    query = sa.select(JobRow).where(JobRow.id.in_(sa.select(behind.c.job)), JobRow.state == JobState.WAITING.value)
    read = read_jobs(connection, query.order_by(JobRow.id).with_for_update())
    store_changes(connection, [cancelled(job, f"it needs job {job_id}, which is {fate}", now) for job in read.jobs])


def fail_damaged(connection: sa.Connection, faults: Mapping[int, str], now: datetime) -> None:
    """Mark damaged rows as failed jobs, so that they do not block others. The caller has locked the rows."""
    for job_id, fault in faults.items():
        ended = {"state": JobState.FAILED.value, "reason": fault, "ended_at": now}
        connection.execute(sa.update(_TABLE).where(JobRow.id == job_id).values(ended))
        cancel_behind(connection, job_id, "damaged", now)


def _let_go_on(connection: sa.Connection, job_id: int) -> None:
    """Reduce by one the number of open dependencies of each job that depends on this finished job."""
    waiting = JobRow.id.in_(sa.select(JobNeedRow.job).where(JobNeedRow.needed == job_id))
    connection.execute(sa.select(JobRow.id).where(waiting).order_by(JobRow.id).with_for_update())
    connection.execute(sa.update(_TABLE).where(waiting).values(open_needs=JobRow.open_needs - 1))


def _needed(connection: sa.Connection, ids: Sequence[int]) -> dict[int, list[int]]:
    """Return a dict from each of these job ids to the ids of the jobs on which it depends."""
    after: dict[int, list[int]] = {}
    for begin in range(0, len(ids), _BATCH):
        query = sa.select(JobNeedRow.job, JobNeedRow.needed).where(JobNeedRow.job.in_(ids[begin : begin + _BATCH]))
        for job, needed in connection.execute(query.order_by(JobNeedRow.job, JobNeedRow.needed)):
            after.setdefault(job, []).append(needed)
    return after


def _job(row: sa.RowMapping, after: Iterable[int]) -> Job:
    """Convert a row of the database table of jobs to a job. `after` are the ids of the jobs on which it depends.

    Raises:
        ValueError, TypeError: a column has an invalid value.
    """
    content = {
        **{name: row[name] for name in _PLAIN},
        **{name: utc_text(row[name]) for name in _TIMES},
        "is_stopping": _BOOLS.get(row["is_stopping"], row["is_stopping"]),
        "payload": _payload(row["payload"]),
        "after": list(after),
    }
    # A blob, which JSON lacks, becomes a list, which fails validation as text or number.
    return _JOB.validate_json(json.dumps(content, default=lambda _: []), strict=True)


def _payload(text: Any) -> Any:
    if not isinstance(text, str) or len(text) > MOST_PAYLOAD_BYTES:
        raise TypeError(f"payload: expected JSON of at most {MOST_PAYLOAD_BYTES} bytes")
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"payload: {error}") from error


def time_of(value: Any) -> datetime | None:
    """Parse a time from the database; return None if it is not a valid time."""
    try:
        return datetime.fromisoformat(utc_text(value))
    except (ValueError, TypeError):
        return None
