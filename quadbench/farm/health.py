"""Health: a device's condition and what happened to it -> its condition then. Pure.

A device that fails jobs in a row is put into quarantine, where it takes no run. Whoever has looked at it releases it on
probation: the next failure puts it back, and some good jobs in a row end the probation. One whose figures cannot be trusted, by
what nights know of it, is put on probation too.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

FAILURES_IN_A_ROW = 3  # of jobs: a loose cable fails all launches of one job, and is one failure
GOOD_JOBS = 3  # in a row, which end a probation


class Health(StrEnum):
    """The trust in a device."""

    HEALTHY = "healthy"
    PROBATION = "probation"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, kw_only=True)
class PhoneCondition:
    """The health of a device, with the reason of its quarantine or its last failure, and the jobs in a row that led there."""

    health: Health = Health.HEALTHY
    reason: str | None = None
    failures: int = 0
    good_jobs: int = 0


def after_good_job(condition: PhoneCondition) -> PhoneCondition:
    """Return the condition of a device that has done a job. One in quarantine stays there until somebody has looked at it."""
    match condition.health:
        case Health.QUARANTINED:
            return condition
        case Health.PROBATION if condition.good_jobs + 1 < GOOD_JOBS:
            return replace(condition, good_jobs=condition.good_jobs + 1)
        case Health.PROBATION | Health.HEALTHY:
            return PhoneCondition()


def after_failure(condition: PhoneCondition, reason: str) -> PhoneCondition:
    """Return the condition of a device at whose fault a job has failed."""
    failures = condition.failures + 1
    match condition.health:
        case Health.QUARANTINED:
            return condition
        case Health.PROBATION:
            return quarantined(f"it failed on probation: {reason}")
        case Health.HEALTHY if failures < FAILURES_IN_A_ROW:
            return PhoneCondition(reason=reason, failures=failures)
        case Health.HEALTHY:
            return quarantined(f"{failures} jobs in a row failed, the last one: {reason}")


def quarantined(reason: str) -> PhoneCondition:
    """Return the condition of a device that takes no run until it is released."""
    return PhoneCondition(health=Health.QUARANTINED, reason=reason)


def put_on_probation(condition: PhoneCondition, reason: str) -> PhoneCondition:
    """Return the condition of a device whose figures are in doubt; one in quarantine stays there."""
    if condition.health is Health.QUARANTINED:
        return condition
    return PhoneCondition(health=Health.PROBATION, reason=reason)


def released(condition: PhoneCondition) -> PhoneCondition:
    """Return the condition of a device that somebody has looked at; one that was not in quarantine stays as it is."""
    if condition.health is not Health.QUARANTINED:
        return condition
    return PhoneCondition(health=Health.PROBATION, reason=condition.reason)
