"""Job: what is known of a job, and what happens to it -> what is known of it then. Pure.

An attempt is a job at one worker. Whatever changes a running job names its attempt, and one that is over changes nothing: its
worker may have been frozen, and another may have the job by now.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

from quadbench.artifacts.names import check_file_name, one_line
from quadbench.errors import shown

MOST_PRIORITY = 100  # and as much below 0
MOST_ATTEMPTS = 100
MOST_PAYLOAD_BYTES = 65_536
MOST_ANSWER_BYTES = 2**20
_MOST_TEXT = 300  # characters of a name
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0
_PRIORITY = timedelta(days=1)  # one step counts as much as a day of waiting, so that nothing waits for ever


class JobKind(StrEnum):
    """The kinds of work."""

    BUILD = "build"
    COMPILE = "compile"
    MEASURE = "measure"
    COMPARE = "compare"


class JobState(StrEnum):
    """The states of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Say whether nothing happens to the job any more."""
        return self not in (JobState.WAITING, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job that is about to be submitted with others. `after` has the places in the batch of those that must be done before.

    `needs` is a word of `need`. Jobs with the same `affinity` follow each other on a device without a change of what lies there.
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
    """The account of an attempt: its answer to whom it concerns, in JSON, and the last lines of its log."""

    answer: Mapping[str, Any] | None = None
    lines: str = ""


NOTHING_LEFT = Account()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of a run. `version` is the quadbench that it is for; `seat` the device, or the room on a host, of its last attempt.

    `after` are the jobs that must be done before it. The attempt is lost once `until` is over. `is_stopping` asks its worker to
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
        """Refuse what no transition makes.

        Raises:
            ValueError: names the field, what it holds and what was expected.
        """
        check_file_name(self.run_id)
        texts = {"version": self.version, "needs": self.needs, "owner": self.owner, "worker": self.worker, "seat": self.seat}
        for name, text in texts.items():
            if text is not None and not (0 < len(text) <= _MOST_TEXT and text.isprintable()):
                raise ValueError(f"{name}: {shown(text)}, expected 1 to {_MOST_TEXT} printable characters")
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
        """Return the moment from which the job counts as waiting beside others of its owner."""
        return self.submitted_at - self.priority * _PRIORITY


def claimed(job: Job, worker: str, seat: str, now: datetime, lease_s: float) -> Job:
    """Begin the job's next attempt."""
    until = now + timedelta(seconds=lease_s)
    begun = replace(job, state=JobState.RUNNING, attempt=job.attempt + 1, worker=worker, seat=seat, until=until, started_at=now)
    return replace(begun, not_before=None, reason=None)


def is_held(job: Job, attempt: int, now: datetime) -> bool:
    """Say whether this attempt still has the job."""
    return job.state is JobState.RUNNING and job.attempt == attempt and not is_lost(job, now)


def is_lost(job: Job, now: datetime) -> bool:
    """Say whether the job's worker gave no sign of life for too long."""
    return job.state is JobState.RUNNING and job.until is not None and job.until <= now


def extended(job: Job, now: datetime, lease_s: float) -> Job:
    """Let the attempt go on."""
    return replace(job, until=now + timedelta(seconds=lease_s))


def finished(job: Job, now: datetime) -> Job:
    """End the job well, even if it was asked to stop: what it had to do is done."""
    return _ended(job, JobState.DONE, None, now)


def failed(job: Job, reason: str, now: datetime, *, is_transient: bool) -> Job:
    """End the attempt; the job is tried again after a pause that doubles, where that may help and attempts are left."""
    if job.is_stopping:
        return _ended(job, JobState.CANCELLED, job.reason, now)
    if not is_transient or job.attempt >= job.most_attempts:
        return _ended(job, JobState.FAILED, reason, now)
    pause_s = min(_FIRST_PAUSE_S * math.ldexp(1.0, job.attempt - 1), _LONGEST_PAUSE_S)
    waiting = replace(job, state=JobState.WAITING, worker=None, seat=None, until=None, reason=one_line(reason))
    return replace(waiting, not_before=now + timedelta(seconds=pause_s))


def given_back(job: Job, reason: str, now: datetime) -> Job:
    """End an attempt whose worker was told to stop, which counts for no attempt; the job waits for another worker."""
    if job.is_stopping:
        return _ended(job, JobState.CANCELLED, job.reason, now)
    most_attempts = min(job.most_attempts + 1, MOST_ATTEMPTS)
    waiting = replace(job, state=JobState.WAITING, worker=None, seat=None, until=None, reason=one_line(reason))
    return replace(waiting, most_attempts=most_attempts)


def expired(job: Job, now: datetime) -> Job:
    """End an attempt whose worker was lost."""
    return failed(job, f"worker '{job.worker}' was lost", now, is_transient=True)


def cancelled(job: Job, reason: str, now: datetime) -> Job:
    """End a job that waits; ask the worker of one that runs to stop. One that has ended stays as it is."""
    match job.state:
        case JobState.WAITING:
            return _ended(job, JobState.CANCELLED, reason, now)
        case JobState.RUNNING:
            return replace(job, is_stopping=True, reason=one_line(reason))
    return job


def _ended(job: Job, state: JobState, reason: str | None, now: datetime) -> Job:
    return replace(job, state=state, until=None, not_before=None, ended_at=now, reason=reason and one_line(reason))
