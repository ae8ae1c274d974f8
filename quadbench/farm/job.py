"""The data of a farm job, and the rules by which its state changes. Nothing here uses the database.

An attempt is one execution of a job by one worker. Every change of a running job names its attempt. If the attempt is over, the
change is refused: the worker may have been frozen while another took the job.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

from quadbench.artifacts.safe_text import check_file_name, one_line
from quadbench.errors import quote

MOST_PRIORITY = 100  # the range is from -100 to 100
MOST_ATTEMPTS = 100
MOST_PAYLOAD_BYTES = 65_536
MOST_ANSWER_BYTES = 2**20
_MOST_TEXT = 300  # limit for text fields, in characters
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0
_PRIORITY = timedelta(days=1)  # one priority step equals a day of waiting, so that no job waits for ever


class JobKind(StrEnum):
    """The kinds of farm jobs: build a bundle, compile it, measure it on a device, or compare two builds on a device."""

    BUILD = "build"
    COMPILE = "compile"
    MEASURE = "measure"
    COMPARE = "compare"


class JobState(StrEnum):
    """The states of a farm job. Waiting and running jobs are open; the other states are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Return True if the state is final: done, failed or cancelled."""
        return self not in (JobState.WAITING, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to submit as part of a list of jobs. `after` holds the list indices of the jobs that must finish before it starts.

    `needs` is a requirement of the module `need`. Jobs with the same `affinity` use the same files on a device, so running them
    in a row saves transfers.
    """

    kind: JobKind
    needs: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[int, ...] = ()
    priority: int = 0
    affinity: str = ""
    most_attempts: int = 3


@dataclass(frozen=True, kw_only=True)
class Account:
    """The output that a job attempt stores. `answer` is the result as JSON data or None; `lines` is the end of the log."""

    answer: Mapping[str, Any] | None = None
    lines: str = ""


NOTHING_LEFT = Account()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A queued farm job. `version` is the quadbench version that it needs. `seat` names its device or host (None while waiting).

    `after` are the jobs that have to finish first. The attempt counts as lost after `until`. `is_stopping` asks its worker to
    stop.
    """

    id: int
    run_id: str
    version: str
    kind: JobKind
    needs: str
    owner: str
    submitted_at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[int, ...] = ()
    priority: int = 0
    affinity: str = ""
    most_attempts: int = 3
    attempt: int = 0
    state: JobState = JobState.WAITING
    is_stopping: bool = False
    worker: str | None = None
    seat: str | None = None
    until: datetime | None = None
    not_before: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Check that the texts and numbers of the job are within their limits.

        Raises:
            ValueError: names the field, its value and what was expected.
        """
        check_file_name(self.run_id)
        texts = {"version": self.version, "needs": self.needs, "owner": self.owner, "worker": self.worker, "seat": self.seat}
        for name, text in texts.items():
            if text is not None and not (0 < len(text) <= _MOST_TEXT and text.isprintable()):
                raise ValueError(f"{name}: {quote(text)}, expected 1 to {_MOST_TEXT} printable characters")
        if len(self.affinity) > _MOST_TEXT:
            raise ValueError(f"affinity: {len(self.affinity)} characters, expected at most {_MOST_TEXT}")
        numbers = {
            "priority": (self.priority, -MOST_PRIORITY, MOST_PRIORITY),
            "most_attempts": (self.most_attempts, 1, MOST_ATTEMPTS),
            "attempt": (self.attempt, 0, self.most_attempts),
        }
        for name, (number, least, most) in numbers.items():
            if not least <= number <= most:
                raise ValueError(f"{name}: {number}, expected {least} to {most}")
        if self.state is JobState.RUNNING and None in (self.worker, self.seat, self.until, self.started_at):
            raise ValueError("state: running, expected a worker, a seat, and times from when and until when")

    @cached_property
    def counts_from(self) -> datetime:
        """Return the time by which an owner's jobs are sorted: the submission time minus one day per priority level."""
        return self.submitted_at - self.priority * _PRIORITY


def claimed(job: Job, worker: str, seat: str, now: datetime, lease_s: float) -> Job:
    """Return a copy of a job for its next attempt, running on device or host `seat`. The lease lasts `lease_s` seconds."""
    until = now + timedelta(seconds=lease_s)
    begun = replace(job, state=JobState.RUNNING, attempt=job.attempt + 1, worker=worker, seat=seat, until=until, started_at=now)
    return replace(begun, not_before=None, reason=None)


def is_held(job: Job, attempt: int, now: datetime) -> bool:
    """Return True if `attempt` is the number of the job's running attempt and the attempt's deadline has not passed."""
    return job.state is JobState.RUNNING and job.attempt == attempt and not is_lost(job, now)


def is_lost(job: Job, now: datetime) -> bool:
    """Return True if the job is running and the deadline for its worker's next heartbeat has passed."""
    return job.state is JobState.RUNNING and job.until is not None and job.until <= now


def extended(job: Job, now: datetime, lease_s: float) -> Job:
    """Return a copy of a running job after a heartbeat: its attempt now counts as lost `lease_s` seconds after `now`."""
    return replace(job, until=now + timedelta(seconds=lease_s))


def finished(job: Job, now: datetime) -> Job:
    """Return a copy of a job with state DONE, ended at time `now`. Ignore a request to stop the job, as the job has a result."""
    return _ended(job, JobState.DONE, None, now)


def failed(job: Job, reason: str, now: datetime, *, is_transient: bool) -> Job:
    """Return a copy of a job whose attempt failed: cancelled if requested, waiting if a retry is allowed, otherwise failed."""
    if job.is_stopping:
        return _ended(job, JobState.CANCELLED, job.reason, now)
    if not is_transient or job.attempt >= job.most_attempts:
        return _ended(job, JobState.FAILED, reason, now)
    pause_s = min(_FIRST_PAUSE_S * math.ldexp(1.0, job.attempt - 1), _LONGEST_PAUSE_S)
    waiting = replace(job, state=JobState.WAITING, worker=None, seat=None, until=None, reason=one_line(reason))
    return replace(waiting, not_before=now + timedelta(seconds=pause_s))


def given_back(job: Job, reason: str, now: datetime) -> Job:
    """Return a waiting copy of a job whose worker stops, or a cancelled one if requested. The stopped attempt does not count."""
    if job.is_stopping:
        return _ended(job, JobState.CANCELLED, job.reason, now)
    most_attempts = min(job.most_attempts + 1, MOST_ATTEMPTS)
    waiting = replace(job, state=JobState.WAITING, worker=None, seat=None, until=None, reason=one_line(reason))
    return replace(waiting, most_attempts=most_attempts)


def expired(job: Job, now: datetime) -> Job:
    """Return a copy of a job whose worker was lost: CANCELLED if requested, WAITING if attempts are left, otherwise FAILED."""
    return failed(job, f"worker '{job.worker}' was lost", now, is_transient=True)


def cancelled(job: Job, reason: str, now: datetime) -> Job:
    """Return a copy of the job: cancelled if it was waiting, asked to stop if it was running. A finished job stays unchanged."""
    match job.state:
        case JobState.WAITING:
            return _ended(job, JobState.CANCELLED, reason, now)
        case JobState.RUNNING:
            return replace(job, is_stopping=True, reason=one_line(reason))
    return job


def _ended(job: Job, state: JobState, reason: str | None, now: datetime) -> Job:
    return replace(job, state=state, until=None, not_before=None, ended_at=now, reason=reason and one_line(reason))
