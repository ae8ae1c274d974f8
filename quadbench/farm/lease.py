"""Rules for claims on a device by jobs and reservations by people. No I/O.

Each job on a device gets a greater fencing token than the job before. A holder with an older token or an expired claim has lost
the device: it may have been frozen while another job took over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim on a device until a time. `owner` is a user and host, such as `ana@lab-1`; `purpose` is for people.

    `process` identifies the process of a job; a person's reservation has none.
    """

    owner: str
    purpose: str
    until: datetime
    process: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claims:
    """All claims on a device: a job's and a person's reservation. `token` is the last job's fencing token."""

    token: int = 0
    job: Claim | None = None
    reservation: Claim | None = None


def in_force(claim: Claim | None, now: datetime) -> Claim | None:
    """Return the claim if it has not expired, else None."""
    return claim if claim is not None and now < claim.until else None


def against_job(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Return the claim that blocks a job of this owner: another job, or another person's reservation."""
    reservation = in_force(claims.reservation, now)
    return in_force(claims.job, now) or (reservation if reservation and reservation.owner != owner else None)


def against_reservation(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Return the claim that blocks a reservation by this owner: another owner's job or reservation."""
    standing = (in_force(claims.job, now), in_force(claims.reservation, now))
    return next((claim for claim in standing if claim and claim.owner != owner), None)


def with_job(claims: Claims, job: Claim) -> Claims:
    """Give the device to a job, with a new fencing token."""
    return replace(claims, token=claims.token + 1, job=job)


def renewed(claims: Claims, until: datetime) -> Claims:
    """Extend the job's claim."""
    return replace(claims, job=claims.job and replace(claims.job, until=until))


def is_held(claims: Claims, token: int, now: datetime) -> bool:
    """Return True if the job with this token still has the device."""
    return claims.token == token and in_force(claims.job, now) is not None


def without_dead_job(claims: Claims, is_dead: Callable[[str], bool]) -> Claims:
    """Remove the claim of a job whose process is known to have ended; a frozen process keeps its claim."""
    process = claims.job and claims.job.process
    return replace(claims, job=None) if process and is_dead(process) else claims


def without_job(claims: Claims, token: int) -> Claims:
    """Remove the claim of the job with this token; another job's claim stays."""
    return replace(claims, job=None) if claims.token == token else claims


def with_reservation(claims: Claims, reservation: Claim | None) -> Claims:
    """Set or remove the reservation; a running job continues."""
    return replace(claims, reservation=reservation)


def current(claims: Claims, now: datetime) -> Claims:
    """Return the claims without expired ones."""
    return replace(claims, job=in_force(claims.job, now), reservation=in_force(claims.reservation, now))


def freed(claims: Claims) -> Claims:
    """Remove all claims. A job still on the device loses it, because the token increases."""
    return Claims(token=claims.token + 1)
