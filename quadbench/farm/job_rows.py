"""Convert between farm jobs and rows of the database.

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

from quadbench.errors import quote
from quadbench.farm.job import MOST_PAYLOAD_BYTES, Job
from quadbench.results.schema import JobNeedRow, JobRow, utc_text
from quadbench.spec import first_problem

_JOB = TypeAdapter(Job)
_TABLE = cast(sa.Table, JobRow.__table__)
_TIMES = ("submitted_at", "started_at", "ended_at")
_PLAIN = tuple(name for name in (field.name for field in fields(Job)) if name not in ("payload", "after", "is_stopping", *_TIMES))
_CHANGING = ("attempt", "most_attempts", "state", "is_stopping", "seat", "reason", "started_at", "ended_at")
_STORED = (  # raw column values, and the payload cut at its limit
    *(sa.type_coerce(_TABLE.c[name], sa.types.NULLTYPE).label(name) for name in (*_PLAIN, "is_stopping", *_TIMES)),
    sa.func.substr(_TABLE.c.payload, 1, MOST_PAYLOAD_BYTES + 1).label("payload"),
)
_BOOLS = {0: False, 1: True}  # SQLite stores booleans as integers
_MOST_ID = 2**63 - 1
_BATCH = 500  # ids in one statement


@dataclass(frozen=True, kw_only=True)
class ReadJobs:
    """The result of a query for jobs: the valid jobs, and `faults`, a dict from the id of a damaged row to an error message."""

    jobs: Sequence[Job]
    faults: Mapping[int, str]


def read_jobs(connection: sa.Connection, query: sa.Select[Any]) -> ReadJobs:
    """Run a query for job rows. Return ReadJobs: the jobs in query order, and a dict from damaged row id to message."""
    rows = connection.execute(query.with_only_columns(*_STORED)).mappings().all()
    after = _needed(connection, [row["id"] for row in rows])
    jobs, faults = [], {}
    for row in rows:
        try:
            jobs.append(_job(row, after.get(row["id"], [])))
        except (ValueError, TypeError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            name = f"job {row['id']} of run {quote(str(row['run_id']))}"
            faults[int(row["id"])] = f"{name} holds what quadbench does not write: {problem}"
    return ReadJobs(jobs=jobs, faults=faults)


def job_query(job_id: int) -> sa.Select[Any]:
    """Return an SQL query for the row of job `job_id`. An id outside the database's integer range selects no row."""
    return sa.select(JobRow).where(JobRow.id == max(0, min(job_id, _MOST_ID)))


def row_of(job: Job) -> dict[str, object]:
    """Convert a job to a dict from database column to value. The dict has all columns of the table of jobs except the id.
    Raise ValueError or TypeError if the payload is not JSON.
    """
    plain = {name: getattr(job, name) for name in (*_PLAIN, "is_stopping", *_TIMES) if name != "id"}
    payload = json.dumps(dict(job.payload), allow_nan=False, sort_keys=True)
    return plain | {"kind": job.kind.value, "state": job.state.value, "payload": payload}


def store_changes(connection: sa.Connection, jobs: Sequence[Job]) -> None:
    """Write changed jobs to their rows in the database. The caller has locked the rows."""
    rows = [{"key": job.id, **{name: getattr(job, name) for name in _CHANGING}, "state": job.state.value} for job in jobs]
    if rows:
        connection.execute(sa.update(_TABLE).where(_TABLE.c.id == sa.bindparam("key")), rows)


def _needed(connection: sa.Connection, ids: Sequence[int]) -> dict[int, list[int]]:
    """Return a dict from job id to the sorted ids of the jobs on which it depends. A job without dependencies is absent."""
    after: dict[int, list[int]] = {}
    for begin in range(0, len(ids), _BATCH):
        query = sa.select(JobNeedRow.job, JobNeedRow.needed).where(JobNeedRow.job.in_(ids[begin : begin + _BATCH]))
        for job, needed in connection.execute(query.order_by(JobNeedRow.job, JobNeedRow.needed)):
            after.setdefault(job, []).append(needed)
    return after


def _job(row: sa.RowMapping, after: Iterable[int]) -> Job:
    """Convert a row of the jobs table to a Job. `after` holds the ids of the jobs that must finish before it starts.
    Raise ValueError or TypeError if a column has an invalid value.
    """
    content = {
        **{name: row[name] for name in _PLAIN},
        **{name: utc_text(row[name]) for name in _TIMES},
        "is_stopping": _BOOLS.get(row["is_stopping"], row["is_stopping"]),
        "payload": json_of("payload", row["payload"], MOST_PAYLOAD_BYTES),
        "after": list(after),
    }
    # A blob, which JSON lacks, becomes a list, which fails validation as text or number.
    return _JOB.validate_json(json.dumps(content, default=lambda _: []), strict=True)


def json_of(name: str, text: Any, most_bytes: int) -> Any:
    """Parse a JSON text, or NULL, from the database. Raise ValueError, which begins with `name`, if it is none or too long."""
    if text is None:
        return None
    try:
        if not isinstance(text, str) or len(text) > most_bytes:
            raise ValueError(f"expected JSON of at most {most_bytes} bytes")
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def time_of(value: Any) -> datetime | None:
    """Convert a time from the database to a datetime in UTC. Return None if the value is not a valid time."""
    try:
        return datetime.fromisoformat(utc_text(value))
    except (ValueError, TypeError):
        return None
