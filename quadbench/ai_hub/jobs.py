"""Jobs: files and submissions -> ids of models and jobs at the service, each of them once, and jobs waited for."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quadbench.ai_hub.client import Hub, JobStatus
from quadbench.ai_hub.ledger import Ledger
from quadbench.errors import JobFailedError, ServiceError
from quadbench.results.digests import digest_of, sha256_of

log = logging.getLogger(__name__)
Notify = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """The models and jobs at the service. Those of this process or an earlier one stand in the ledger and are not sent again."""

    hub: Hub
    ledger: Ledger
    timeout_s: float
    notify: Notify = field(default=lambda _step: None)

    def uploaded(self, path: Path, name: str) -> str:
        """Return the id of a model with the file's contents; the file is uploaded where the service has none."""
        digest = sha256_of(path)
        known = self.ledger.find("models", digest)
        if known and self.hub.has_model(known):
            log.info("AI Hub has '%s' already: model %s", name, known)
            return known
        self.notify(f"upload {name}")
        model = self.hub.upload(path, name)
        self.ledger.keep("models", digest, model)
        return model

    def submitted(self, submit: Callable[[], str], **parts: object) -> str:
        """Return the id of the job that `parts` determine; `submit` makes it where there is none or where it failed."""
        digest = digest_of(parts)
        known = self.ledger.find("jobs", digest)
        status = self.hub.status(known) if known else None
        if known and status and (status.is_ok or not status.is_finished):
            log.info("AI Hub has the job already: %s, %s", known, status.state)
            return known
        job = submit()
        self.ledger.keep("jobs", digest, job)
        return job

    def done(self, **parts: object) -> None:
        """Forget the job that `parts` determine, so that the same is submitted anew: what it made has been taken over."""
        self.ledger.forget("jobs", digest_of(parts))

    def wait(self, jobs: Mapping[str, str]) -> None:
        """Wait until all jobs, ids by name, are done.

        Raises:
            JobFailedError: a job failed.
            ServiceError: the time is up. Ids stay in the ledger, and another run waits on.
        """
        for name, status in self.ended(jobs).items():
            if not status.is_ok:
                raise failure(name, status)

    def ended(self, jobs: Mapping[str, str]) -> dict[str, JobStatus]:
        """Wait until all jobs, ids by name, have ended, well or not, and return their status.

        Raises:
            ServiceError: the time is up, or the service no longer knows a job.
        """
        deadline = time.monotonic() + self.timeout_s
        latest: dict[str, JobStatus] = {}
        pending = dict(jobs)
        for wait_s in self.hub.pace.poll_waits_s():
            latest |= {name: self._status(name, job) for name, job in pending.items()}
            pending = {name: job for name, job in pending.items() if not latest[name].is_finished}
            if not pending:
                break
            name = next(iter(pending))
            self.notify(f"{name}: {latest[name].state} ({len(jobs) - len(pending)} of {len(jobs)} jobs done)")
            if time.monotonic() + wait_s > deadline:
                raise self._timed_out([latest[name] for name in pending])
            time.sleep(wait_s)
        return latest

    def _status(self, name: str, job: str) -> JobStatus:
        status = self.hub.status(job)
        if status is None:
            raise ServiceError(f"AI Hub no longer knows job {job} of '{name}'", hint="run again: it is submitted anew")
        return status

    def _timed_out(self, pending: list[JobStatus]) -> ServiceError:
        jobs = ", ".join(f"{status.job} ({status.state}, {status.url})" for status in pending)
        return ServiceError(
            f"AI Hub is not done after {self.timeout_s:g} s: {jobs}",
            transient=True,
            hint="the jobs go on there and their ids are kept: run again to wait on, or raise the target's timeout_s",
        )


def failure(name: str, status: JobStatus) -> JobFailedError:
    """Return the error that a failed job comes to."""
    return JobFailedError(
        f"AI Hub job {status.job} of '{name}' failed: {status.message or 'no reason given'} ({status.url})",
        hint="the job's page has its log; a new run submits it again",
    )
