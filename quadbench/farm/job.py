"""The data of a farm job, and the rules by which its state changes. Nothing here uses the database or the pool.

HTCondor decides when and where a job runs. An attempt is one start of the job at one slot of the pool. Every change of a running
job names its attempt: HTCondor may have started a later one, because it believed that the host of this one was dead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from quadbench.artifacts.safe_text import check_file_name, one_line
from quadbench.errors import quote

MOST_ATTEMPTS = 100
MOST_PAYLOAD_BYTES = 65_536
_MOST_TEXT = 300  # limit for text fields, in characters


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
        return self.value not in OPEN


OPEN = (JobState.WAITING.value, JobState.RUNNING.value)  # states in which a job is open


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to submit as part of a list of jobs. `after` holds the list indices of the jobs that must finish before it starts.

    `needs` is a requirement of the module `slots`. Jobs with the same `affinity` use the same files on a device, so running them
    in a row saves transfers.
    """

    kind: JobKind
    needs: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[int, ...] = ()
    affinity: str = ""
    most_attempts: int = 3


@dataclass(frozen=True, kw_only=True)
class Job(NewJob):
    """A farm job. `version` is the quadbench version that it needs. `seat` names its device or host (None while it waits).

    `after` are the ids of the jobs that have to finish first. `attempt` counts the attempts so far. `is_stopping` means that
    somebody has cancelled the job while it was running.
    """

    id: int
    run_id: str
    version: str
    owner: str
    submitted_at: datetime
    attempt: int = 0
    state: JobState = JobState.WAITING
    is_stopping: bool = False
    seat: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError, which names field, value and limits, if a text or number of the job is outside its limits."""
        check_file_name(self.run_id)
        texts = {"version": self.version, "needs": self.needs, "owner": self.owner, "seat": self.seat}
        for name, text in texts.items():
            if text is not None and not (0 < len(text) <= _MOST_TEXT and text.isprintable()):
                raise ValueError(f"{name}: {quote(text)}, expected 1 to {_MOST_TEXT} printable characters")
        if len(self.affinity) > _MOST_TEXT:
            raise ValueError(f"affinity: {len(self.affinity)} characters, expected at most {_MOST_TEXT}")
        numbers = {
            "most_attempts": (self.most_attempts, 1, MOST_ATTEMPTS),
            "attempt": (self.attempt, 0, self.most_attempts),
        }
        for name, (number, least, most) in numbers.items():
            if not least <= number <= most:
                raise ValueError(f"{name}: {number}, expected {least} to {most}")
        if self.state is JobState.RUNNING and None in (self.seat, self.started_at):
            raise ValueError("state: running, expected a seat and the time of its start")

    def begun(self, seat: str, now: datetime) -> "Job":
        """Return a copy of the job for its next attempt, running on device or host `seat`."""
        return replace(self, state=JobState.RUNNING, attempt=self.attempt + 1, seat=seat, started_at=now, reason=None)

    def finished(self, now: datetime) -> "Job":
        """Return a copy of the job with state DONE, ended at time `now`. A request to stop it is ignored, as it has a result."""
        return self._ended(JobState.DONE, None, now)

    def failed(self, reason: str, now: datetime, *, is_transient: bool) -> "Job":
        """Return a copy of the job after a failed attempt: cancelled if requested, waiting if a retry is allowed, else failed."""
        if self.is_stopping:
            return self._ended(JobState.CANCELLED, self.reason, now)
        if not is_transient or self.attempt >= self.most_attempts:
            return self._ended(JobState.FAILED, reason, now)
        return replace(self, state=JobState.WAITING, seat=None, reason=one_line(reason))

    def given_back(self, reason: str, now: datetime) -> "Job":
        """Return a waiting copy of the job, whose host stops, or a cancelled one if requested. The attempt does not count."""
        if self.is_stopping:
            return self._ended(JobState.CANCELLED, self.reason, now)
        most_attempts = min(self.most_attempts + 1, MOST_ATTEMPTS)
        return replace(self, state=JobState.WAITING, seat=None, reason=one_line(reason), most_attempts=most_attempts)

    def cancelled(self, reason: str, now: datetime) -> "Job":
        """Return a copy of the job: cancelled if it was waiting, asked to stop if it was running. If it has ended, return it."""
        match self.state:
            case JobState.WAITING:
                return self._ended(JobState.CANCELLED, reason, now)
            case JobState.RUNNING:
                return replace(self, is_stopping=True, reason=one_line(reason))
        return self

    def lost(self, reason: str, now: datetime) -> "Job":
        """Return a copy of an open job that has left the pool: cancelled if requested or not running, otherwise failed."""
        if self.is_stopping or self.state is JobState.WAITING:
            return self._ended(JobState.CANCELLED, self.reason if self.is_stopping else reason, now)
        return self._ended(JobState.FAILED, reason, now)

    def _ended(self, state: JobState, reason: str | None, now: datetime) -> "Job":
        return replace(self, state=state, ended_at=now, reason=reason and one_line(reason))
