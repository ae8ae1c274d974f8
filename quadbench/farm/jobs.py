"""The farm's job queue in the database. At most one worker owns a job at any time.

All times are the database server's. Every change is one transaction with the job's row locked.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from quadbench.errors import AttemptOverError, UnknownNameError, UserError
from quadbench.farm.claims import claim_within
from quadbench.farm.job import (
    MOST_PAYLOAD_BYTES,
    NOTHING_LEFT,
    Account,
    Job,
    JobState,
    NewJob,
    cancelled,
    expired,
    extended,
    failed,
    finished,
    given_back,
    is_held,
)
from quadbench.farm.job_rows import (
    cancel_behind,
    damage,
    end_attempt,
    fail_damaged,
    job_query,
    locked_job,
    read_jobs,
    row_of,
    store_changes,
)
from quadbench.farm.leases import lease_time_s
from quadbench.farm.scheduler import Seat
from quadbench.results.engine import begin_read, begin_write, database_now
from quadbench.results.schema import JobNeedRow, JobRow

MOST_IN_BATCH = 100_000  # jobs
_WAITING, _RUNNING = JobState.WAITING.value, JobState.RUNNING.value


class JobQueue:
    """The job queue in a database. Methods raise StorageError if it cannot be accessed, ArtifactError if it is damaged."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def submit(self, run_id: str, jobs: Sequence[NewJob], owner: str, version: str) -> list[int]:
        """Add a run's jobs in one transaction. Return their ids in the same order. Only workers of quadbench `version` run them.

        Raises:
            UserError: a job is invalid, or the run has jobs already.
        """
        _check_batch(jobs)
        with begin_write(self._engine) as connection:
            if connection.scalar(sa.select(JobRow.id).where(JobRow.run_id == run_id).limit(1)):
                raise UserError(f"run '{run_id}' has been submitted already", hint=f"see: quadbench farm jobs {run_id}")
            now = database_now(connection)
            rows = [_row(f"job {n} of run '{run_id}'", new, run_id, owner, version, now) for n, new in enumerate(jobs)]
            insert = sa.insert(JobRow).returning(JobRow.id, sort_by_parameter_order=True)
            ids = list(connection.scalars(insert, rows))
            needs = [{"job": ids[number], "needed": ids[place]} for number, new in enumerate(jobs) for place in set(new.after)]
            if needs:
                connection.execute(sa.insert(JobNeedRow), needs)
            return ids

    def claim(self, worker: str, version: str, seats: Sequence[Seat], lease_s: float | None = None) -> list[Job]:
        """Start waiting jobs on `seats`, the free devices of a worker and, if free, its host. Return the jobs that were started.

        Raises:
            ArtifactError: the database has another schema version.
        """
        self.expire()
        with begin_write(self._engine) as connection:
            return claim_within(connection, worker, version, seats, lease_time_s(lease_s))

    def renew(self, attempt: Job, lease_s: float | None = None) -> Job:
        """Record a heartbeat for an attempt. Return the job's current state, which tells the worker whether to stop the job.

        Raises:
            AttemptOverError: the attempt is over.
        """
        with begin_write(self._engine) as connection:
            job, now = _held(connection, attempt)
            renewed = extended(job, now, lease_time_s(lease_s))
            store_changes(connection, [renewed])
            return renewed

    def check(self, connection: sa.Connection, attempt: Job) -> None:
        """Raise AttemptOverError if a job's attempt is over. Otherwise lock the job's row until the end of the transaction.

        Raises:
            AttemptOverError: the attempt is over.
        """
        _held(connection, attempt)

    def finish(self, attempt: Job, account: Account = NOTHING_LEFT) -> None:
        """Mark a job as done, with its result and log. Jobs that depend on it may start now.

        Raises:
            AttemptOverError: the attempt is over.
        """
        with begin_write(self._engine) as connection:
            self.finish_within(connection, attempt, account)

    def finish_within(self, connection: sa.Connection, attempt: Job, account: Account = NOTHING_LEFT) -> None:
        """Mark a job as done, with its result and log, in the caller's transaction. Jobs that depend on the job may start now.

        Raises:
            AttemptOverError: the attempt is over.
        """
        job, now = _held(connection, attempt)
        end_attempt(connection, finished(job, now), now, account)

    def fail(self, attempt: Job, reason: str, *, is_transient: bool, account: Account = NOTHING_LEFT) -> Job:
        """End a failed attempt. Return the job: cancelled if requested, waiting if a retry is allowed, otherwise failed.

        Raises:
            AttemptOverError: the attempt is over.
        """
        with begin_write(self._engine) as connection:
            job, now = _held(connection, attempt)
            ended = failed(job, reason, now, is_transient=is_transient)
            end_attempt(connection, ended, now, account)
            return ended

    def give_back(self, attempt: Job, reason: str, account: Account = NOTHING_LEFT) -> Job:
        """End an attempt whose worker stops. Return the job: cancelled if requested, otherwise waiting to be started again.

        Raises:
            AttemptOverError: the attempt is over.
        """
        with begin_write(self._engine) as connection:
            job, now = _held(connection, attempt)
            ended = given_back(job, reason, now)
            end_attempt(connection, ended, now, account)
            return ended

    def cancel(self, job_id: int, reason: str) -> Job:
        """Cancel a waiting job and all jobs that depend on it, or ask the worker of a running job to stop. Return the job.

        Raises:
            UnknownNameError: there is no such job.
        """
        with begin_write(self._engine) as connection:
            read = read_jobs(connection, job_query(job_id).with_for_update())
            fail_damaged(connection, read.faults, database_now(connection))
            for job in read.jobs:
                return _cancel(connection, job, reason, database_now(connection))
        for fault in read.faults.values():
            raise damage(connection, f"{fault}; the job has failed now")
        raise UnknownNameError("job", str(job_id))

    def cancel_run(self, run_id: str, reason: str) -> list[Job]:
        """Cancel a run's waiting jobs, and ask the workers of its running jobs to stop. Return all these jobs in their new state.

        Raises:
            UnknownNameError: there is no such run.
        """
        with begin_write(self._engine) as connection:
            open_jobs = JobRow.run_id == run_id, JobRow.state.in_((_WAITING, _RUNNING))
            read = read_jobs(connection, sa.select(JobRow).where(*open_jobs).order_by(JobRow.id).with_for_update())
            if not read.jobs and not connection.scalar(sa.select(JobRow.id).where(JobRow.run_id == run_id).limit(1)):
                raise UnknownNameError("run in the queue", run_id)
            now = database_now(connection)
            fail_damaged(connection, read.faults, now)
            return [_cancel(connection, job, reason, now) for job in read.jobs]

    def expire(self) -> list[Job]:
        """End all attempts whose workers have sent no heartbeat for too long, and return their jobs."""
        jobs: list[Job] = []
        while self._has_lost() and (ended := self._expire_one()) is not None:
            jobs += ended
        return jobs

    def _has_lost(self) -> bool:
        """Return True if any running attempt's lease has expired. Only read: in SQLite, write transactions block others."""
        with begin_read(self._engine) as connection:
            return connection.scalar(_lost(database_now(connection), JobRow.id)) is not None

    def _expire_one(self) -> Sequence[Job] | None:
        """End one attempt whose lease has expired, skipping jobs whose rows are locked. Return a list with the attempt's job, an
        empty list if the job's row is damaged, or None if there was no attempt to end.
        """
        with begin_write(self._engine) as connection:
            now = database_now(connection)
            read = read_jobs(connection, _lost(now, JobRow).with_for_update(skip_locked=True))
            fail_damaged(connection, read.faults, now)
            ended = [expired(job, now) for job in read.jobs]
            for job in ended:
                end_attempt(connection, job, now)
            return ended if read.jobs or read.faults else None


def _lost(now: datetime, what: Any) -> sa.Select[Any]:
    return sa.select(what).where(JobRow.state == _RUNNING, JobRow.until <= now).order_by(JobRow.until).limit(1)


def _held(connection: sa.Connection, attempt: Job) -> tuple[Job, datetime]:
    """Lock an attempt's job row. Return (job, the database's current time). If the attempt is over, raise AttemptOverError."""
    job, now = locked_job(connection, attempt.id), database_now(connection)
    if job is not None and is_held(job, attempt.attempt, now):
        return job, now
    raise AttemptOverError(
        f"attempt {attempt.attempt} at job {attempt.id} is over: {_since(job, attempt)}; nothing of it is stored",
        hint="a worker that stood still, or a database that was away, loses its jobs; they are tried again",
    )


def _since(job: Job | None, attempt: Job) -> str:
    if job is None:
        return "the job is gone"
    if job.state is JobState.RUNNING and job.attempt == attempt.attempt:
        return "its worker gave no sign of life for too long"
    return f"worker '{job.worker}' has the job" if job.state is JobState.RUNNING else f"the job is {job.state.value}"


def _cancel(connection: sa.Connection, job: Job, reason: str, now: datetime) -> Job:
    after = cancelled(job, reason, now)
    store_changes(connection, [after])
    if after.state is JobState.CANCELLED:
        cancel_behind(connection, after.id, f"cancelled: {reason}", now)
    return after


def _check_batch(jobs: Sequence[NewJob]) -> None:
    if not 0 < len(jobs) <= MOST_IN_BATCH:
        raise UserError(f"{len(jobs)} jobs cannot be submitted at once; expected 1 to {MOST_IN_BATCH}")
    for number, new in enumerate(jobs):
        if wrong := [place for place in new.after if not 0 <= place < number]:
            raise UserError(f"job {number} of a batch needs number {wrong[0]}; expected one before it, from 0")


def check_job(new: NewJob) -> None:
    """Check the fields of a new job without submitting the job. Raise UserError if one is invalid.

    Raises:
        UserError: says why.
    """
    _row(f"a job to {new.kind}", new, "any", "anybody", "any", datetime.now(UTC))


def _row(name: str, new: NewJob, run_id: str, owner: str, version: str, now: datetime) -> dict[str, object]:
    """Check a new job, called `name` in errors. Return its row as {column: value}, or raise UserError if the job is invalid."""
    try:
        job = Job(
            id=0,
            run_id=run_id,
            version=version,
            kind=new.kind,
            needs=new.needs,
            owner=owner,
            submitted_at=now,
            payload=new.payload,
            after=new.after,
            priority=new.priority,
            affinity=new.affinity,
            most_attempts=new.most_attempts,
        )
        row = row_of(job)
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} cannot be submitted: {error}") from error
    if (size := len(str(row["payload"]))) > MOST_PAYLOAD_BYTES:
        raise UserError(f"{name} has a payload of {size} bytes; expected at most {MOST_PAYLOAD_BYTES}")
    return row
