"""Rules for a device's health: how jobs, quarantine and probation change it. Nothing here uses the database.

Several failed jobs in a row put a device into quarantine, where it gets no runs. Releasing it puts it on probation: the next
failure puts it back, and several good jobs in a row end the probation.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

FAILURES_IN_A_ROW = 3  # counted in jobs, as a loose cable fails all launches of one job
GOOD_JOBS = 3  # good jobs in a row that end a probation


class Health(StrEnum):
    """The health states of a device: healthy, on probation or quarantined."""

    HEALTHY = "healthy"
    PROBATION = "probation"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, kw_only=True)
class PhoneCondition:
    """The health of a device. `reason` says what went wrong; `failures` and `good_jobs` count failed or good jobs in a row."""

    health: Health = Health.HEALTHY
    reason: str | None = None
    failures: int = 0
    good_jobs: int = 0


def after_good_job(condition: PhoneCondition) -> PhoneCondition:
    """Return a device's condition after a successful job. A quarantine stays, because only a person can end it."""
    match condition.health:
        case Health.QUARANTINED:
            return condition
        case Health.PROBATION if condition.good_jobs + 1 < GOOD_JOBS:
            return replace(condition, good_jobs=condition.good_jobs + 1)
        case Health.PROBATION | Health.HEALTHY:
            return PhoneCondition()


def after_failure(condition: PhoneCondition, reason: str) -> PhoneCondition:
    """Return a device's condition after a failed job: quarantine if it was on probation or has now failed 3 jobs in a row."""
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
    """Return the condition of a device put into quarantine for `reason`. The device gets no runs until a person releases it."""
    return PhoneCondition(health=Health.QUARANTINED, reason=reason)


def released(condition: PhoneCondition) -> PhoneCondition:
    """Return a device's condition after a release from quarantine: it is on probation. Other conditions stay unchanged."""
    if condition.health is not Health.QUARANTINED:
        return condition
    return PhoneCondition(health=Health.PROBATION, reason=condition.reason)
