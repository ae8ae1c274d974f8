"""The farm's jobs in the database: what was ordered, each attempt, and what came of it. HTCondor decides when and where they run.

All times are the database server's. Every change is one transaction with the job's row locked.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa

from quadbench.errors import ArtifactError, AttemptOverError, UnknownNameError, UserError
from quadbench.farm.job import MOST_PAYLOAD_BYTES, OPEN, Job, JobKind, JobState, NewJob
from quadbench.results.engine import begin_read, begin_write, database_now, upsert
from quadbench.results.schema import AttemptRow, FenceRow, JobNeedRow, JobRow

_SETTLED_AFTER = timedelta(minutes=5)  # an answer of the pool is older than its jobs by less
_LOST_HINT = "a host that stood still or was cut off loses its jobs; they are tried again"
Send = Callable[[Sequence[Job]], object]
_TABLE = cast(sa.Table, JobRow.__table__)
_PLAIN = tuple(field.name for field in fields(Job) if field.name not in ("kind", "state", "payload", "after"))
_CHANGING = ("attempt", "most_attempts", "is_stopping", "seat", "reason", "started_at", "ended_at")
_MOST_ID = 2**63 - 1
_BATCH = 500  # ids in one statement
_NO_SUCCESSOR = "the pool's queue has neither the job nor its run any more"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start of a job by HTCondor. `number` is higher for each later start of the same job; `seat` is the device or host.

    `run` is the id of the job's run, and `host` the machine's name.
    """

    job: int
    run: str
    number: int
    seat: str
    host: str


class FarmJobs:
    """The farm's jobs in a database. Methods raise StorageError if it cannot be accessed, ArtifactError if it is damaged.

    Methods that take an attempt, which is a running job, raise AttemptOverError if it is over: a later one may have begun.
    `lines` are the last lines of its log. Methods that take the id of a job or run raise UnknownNameError if there is none.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def submit(self, run_id: str, jobs: Sequence[NewJob], owner: str, version: str, send: Send, pool: str = "") -> list[Job]:
        """Store a run's jobs, then call `send` with them, which submits them to the pool. If `send` raises, remove them again.

        `pool` is the pool's identity. The database is not locked meanwhile. If this process dies then, `settle` ends the jobs.

        Raises:
            UserError: a job is invalid, or the run has jobs already.
        """
        with begin_write(self._engine) as connection:
            if connection.scalar(sa.select(JobRow.id).where(JobRow.run_id == run_id).limit(1)):
                raise UserError(f"run '{run_id}' has been submitted already", hint=f"see: quadbench farm jobs {run_id}")
            now = database_now(connection)
            named = [(f"job {number} of run '{run_id}'", new) for number, new in enumerate(jobs)]
            rows = [_row(name, new, run_id, owner, version, now) | {"pool": pool} for name, new in named]
            insert = sa.insert(JobRow).returning(JobRow.id, sort_by_parameter_order=True)
            ids = list(connection.scalars(insert, rows))
            needs = [{"job": ids[number], "needed": ids[place]} for number, new in enumerate(jobs) for place in set(new.after)]
            if needs:
                connection.execute(sa.insert(JobNeedRow), needs)
            stored = read_jobs(connection, sa.select(JobRow).where(JobRow.run_id == run_id).order_by(JobRow.id))
        try:
            send(stored)
        except BaseException:
            with suppress(ArtifactError), begin_write(self._engine) as connection:
                connection.execute(sa.delete(JobRow).where(JobRow.run_id == run_id))
            raise
        return stored

    def begin(self, start: Start) -> Job:
        """Record a start of a job. From now on, earlier starts are refused. Return the job, which runs, or has ended before.

        An earlier attempt that has not ended is counted as lost. If it was the last one that the job may have, the job fails.

        Raises:
            UnknownNameError: there is no such job.
            AttemptOverError: this start or a later one has been recorded before.
        """
        with begin_write(self._engine) as connection:
            job, now = _locked(connection, start.job), database_now(connection)
            if job is None or job.run_id != start.run:  # the run was submitted with another database
                raise UnknownNameError("job", f"{start.job} of run {start.run}")
            _record_start(connection, job, start.number)
            if job.state is JobState.RUNNING:
                job = _without_attempt(job, now)
                _end_attempt(connection, job, now)
            if job.state is JobState.WAITING and job.attempt >= job.most_attempts:
                job = job.failed(f"none of its {job.most_attempts} attempts is left", now, is_transient=True)
                _end_attempt(connection, job, now)
            if job.state is JobState.WAITING:
                job = job.begun(start.seat, now)
                _store_changes(connection, [job])
                attempt = {"job": job.id, "number": job.attempt, "host": start.host, "seat": start.seat, "started_at": now}
                connection.execute(sa.insert(AttemptRow), [attempt])
            return job

    def finish(self, attempt: Job, answer: object = None, lines: str = "") -> Job:
        """Mark a job as done. `answer` is its result as JSON data, or None. Return the job."""
        return self._end(attempt, Job.finished, lines, answer)

    def fail(self, attempt: Job, reason: str, *, is_transient: bool, lines: str = "") -> Job:
        """End a failed attempt. Return the job: cancelled if requested, waiting if a retry is allowed, otherwise failed."""
        return self._end(attempt, lambda job, now: job.failed(reason, now, is_transient=is_transient), lines)

    def give_back(self, attempt: Job, reason: str, lines: str = "") -> Job:
        """End an attempt that was told to stop. Return the job: cancelled if requested, otherwise waiting to be started again."""
        return self._end(attempt, lambda job, now: job.given_back(reason, now), lines)

    def cancel(self, job_id: int, reason: str) -> Job:
        """Cancel a waiting job and all jobs that depend on it, or mark a running job as asked to stop. Return the job."""
        with begin_write(self._engine) as connection:
            job, now = _locked(connection, job_id), database_now(connection)
            if job is not None:
                return _cancel(connection, job, reason, now)
        raise UnknownNameError("job", str(job_id))

    def cancel_run(self, run_id: str, reason: str) -> list[Job]:
        """Cancel a run's waiting jobs, and mark its running jobs as asked to stop. Return all these jobs in their new state."""
        with begin_write(self._engine) as connection:
            open_jobs = JobRow.run_id == run_id, JobRow.state.in_(OPEN)
            jobs = read_jobs(connection, sa.select(JobRow).where(*open_jobs).order_by(JobRow.id).with_for_update())
            if not jobs and not connection.scalar(sa.select(JobRow.id).where(JobRow.run_id == run_id).limit(1)):
                raise UnknownNameError("run of the farm", run_id)
            now = database_now(connection)
            return [_cancel(connection, job, reason, now) for job in jobs]

    def settle(self, queued_runs: Mapping[str, Collection[int]], pool: str = "") -> list[Job]:
        """Bring a pool's jobs up to date with its queue, which was read less than five minutes ago. Return the changed jobs.

        `queued_runs` maps the runs in the queue to the ids of their jobs that no slot runs. If such a job is running here, its
        attempt was lost, and the job waits for another one. Open jobs of other runs end: nothing will start them.
        """
        with begin_read(self._engine) as connection:
            before = database_now(connection) - _SETTLED_AFTER
            old = JobRow.state.in_(OPEN), JobRow.submitted_at < before, JobRow.pool == pool
            runs = set(connection.scalars(sa.select(JobRow.run_id).where(*old).distinct())) - queued_runs.keys()
            running = connection.execute(sa.select(JobRow.run_id, JobRow.id).where(*_begun_before(before)))
            cut_off = {job_id for run_id, job_id in running if job_id in queued_runs.get(run_id, ())}
        if not runs and not cut_off:
            return []
        with begin_write(self._engine) as connection:
            is_gone = sa.and_(JobRow.run_id.in_(runs), JobRow.state.in_(OPEN))
            is_cut_off = sa.and_(JobRow.id.in_(cut_off), *_begun_before(before))
            query = sa.select(JobRow).where(is_gone | is_cut_off).order_by(JobRow.id)
            jobs, now = read_jobs(connection, query.with_for_update()), database_now(connection)
            changed = [job.lost(_NO_SUCCESSOR, now) if job.run_id in runs else _without_attempt(job, now) for job in jobs]
            for job in changed:
                _end_attempt(connection, job, now)
            return changed

    def _end(self, attempt: Job, decide: Callable[[Job, datetime], Job], lines: str, answer: object = None) -> Job:
        with begin_write(self._engine) as connection:
            job, now = locked_attempt(connection, attempt), database_now(connection)
            ended = decide(job, now)
            _end_attempt(connection, ended, now, lines, answer)
            return ended


def locked_attempt(connection: sa.Connection, attempt: Job) -> Job:
    """Return the job of an attempt, with its row locked until the transaction ends. Raise AttemptOverError if it is over."""
    job = _locked(connection, attempt.id)
    if job is not None and job.state is JobState.RUNNING and job.attempt == attempt.attempt:
        return job
    why = "the job is gone"
    if job is not None:
        why = f"'{job.seat}' has the job" if job.state is JobState.RUNNING else f"the job is {job.state}"
    what = f"attempt {attempt.attempt} at job {attempt.id}"
    raise AttemptOverError(f"{what} is over: {why}; nothing of it is stored", hint=_LOST_HINT)


def _record_start(connection: sa.Connection, job: Job, number: int) -> None:
    """Store the number of a job's start. Raise AttemptOverError if it is not higher than that of an earlier start."""
    name = f"{job.run_id}/{job.id}"
    insert = upsert(connection, FenceRow).values(job=name, token=number)
    raised = insert.on_conflict_do_update(index_elements=[FenceRow.job], set_={"token": number}, where=FenceRow.token < number)
    if connection.scalars(raised.returning(FenceRow.token)).one_or_none() is None:
        why = "a later one has begun"
        raise AttemptOverError(f"this attempt at job {name} is over: {why}; nothing of it is stored", hint=_LOST_HINT)


def _begun_before(at: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return JobRow.state == JobState.RUNNING.value, JobRow.started_at < at


def _without_attempt(job: Job, now: datetime) -> Job:
    """Return a running job after the loss of its attempt. It waits for another one, unless that was the last one."""
    return job.failed(f"'{job.seat}' lost the attempt: it was killed, or its host died or was cut off", now, is_transient=True)


def _cancel(connection: sa.Connection, job: Job, reason: str, now: datetime) -> Job:
    after = job.cancelled(reason, now)
    _store_changes(connection, [after])
    if after.state is JobState.CANCELLED:
        _cancel_behind(connection, after.id, f"cancelled: {reason}", now)
    return after


def check_job(new: NewJob) -> None:
    """Check the fields of a new job without submitting the job. Raise UserError, which says why, if one is invalid."""
    _row(f"a job to {new.kind}", new, "any", "anybody", "any", datetime.now(UTC))


def _row(name: str, new: NewJob, run_id: str, owner: str, version: str, now: datetime) -> dict[str, object]:
    """Check a new job, called `name` in errors. Return its row as {column: value}, or raise UserError if the job is invalid."""
    try:
        row = _row_of(Job(**vars(new), id=0, run_id=run_id, owner=owner, version=version, submitted_at=now))
        if (size := len(str(row["payload"]))) > MOST_PAYLOAD_BYTES:
            raise ValueError(f"payload: {size} bytes, expected at most {MOST_PAYLOAD_BYTES}")
        return row
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} cannot be submitted: {error}") from error


def _locked(connection: sa.Connection, job_id: int) -> Job | None:
    """Lock a job's row until the transaction ends. Return the job, or None if there is none."""
    return next(iter(read_jobs(connection, job_query(job_id).with_for_update())), None)


def _end_attempt(connection: sa.Connection, job: Job, now: datetime, lines: str = "", answer: object = None) -> None:
    """Store an attempt's end, result and log. If the job has failed or was cancelled, cancel the jobs that depend on it."""
    _store_changes(connection, [job])
    attempt = sa.update(AttemptRow).where(AttemptRow.job == job.id, AttemptRow.number == job.attempt)
    result = None if answer is None else json.dumps(answer, allow_nan=False)
    left = {"ended_at": now, "reason": job.reason, "answer": result, "lines": lines}
    connection.execute(attempt.where(AttemptRow.ended_at.is_(None)).values(left))
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        _cancel_behind(connection, job.id, f"{job.state.value}: {job.reason}", now)


def _cancel_behind(connection: sa.Connection, job_id: int, fate: str, now: datetime) -> None:
    """Cancel waiting jobs that depend (even indirectly) on a job that cannot finish. Lock rows in id order to avoid deadlocks."""
    behind = sa.select(JobNeedRow.job).where(JobNeedRow.needed == job_id).cte("behind", recursive=True)
    behind = behind.union(sa.select(JobNeedRow.job).join(behind, JobNeedRow.needed == behind.c.job))
    query = sa.select(JobRow).where(JobRow.id.in_(sa.select(behind.c.job)), JobRow.state == JobState.WAITING.value)
    jobs = read_jobs(connection, query.order_by(JobRow.id).with_for_update())
    _store_changes(connection, [job.cancelled(f"it needs job {job_id}, which is {fate}", now) for job in jobs])


def read_jobs(connection: sa.Connection, query: sa.Select[Any]) -> list[Job]:
    """Run a query for rows of the table of jobs. Return the jobs in its order."""
    rows = connection.execute(query.with_only_columns(*_TABLE.c)).mappings().all()
    after = _needed(connection, [row["id"] for row in rows])
    return [
        Job(
            **{name: row[name] for name in _PLAIN},
            kind=JobKind(row["kind"]),
            state=JobState(row["state"]),
            payload=json.loads(row["payload"]),
            after=tuple(after.get(row["id"], ())),
        )
        for row in rows
    ]


def job_query(job_id: int) -> sa.Select[Any]:
    """Return an SQL query for the row of job `job_id`. An id outside the database's integer range selects no row."""
    return sa.select(JobRow).where(JobRow.id == max(0, min(job_id, _MOST_ID)))


def _row_of(job: Job) -> dict[str, object]:
    """Return a job's row as {column: value}, without its id. Raise ValueError or TypeError if the payload is not JSON."""
    plain = {name: getattr(job, name) for name in _PLAIN if name != "id"}
    payload = json.dumps(dict(job.payload), allow_nan=False, sort_keys=True)
    return plain | {"kind": job.kind.value, "state": job.state.value, "payload": payload}


def _store_changes(connection: sa.Connection, jobs: Sequence[Job]) -> None:
    """Write changed jobs to their rows. The caller has locked the rows."""
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
