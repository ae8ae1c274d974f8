"""Rules for who may use a device: jobs lease it, and people reserve it. Nothing here uses the database.

Each job on a device gets a greater fencing token than the job before. A holder with an older token or an expired claim has lost
the device: it may have been frozen while another job took over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job's lease of a device or a person's reservation, until a time. `owner` is a user and host, such as `ana@lab-1`.

    `process` identifies the process of a job; a person's reservation has none.
    """

    owner: str
    purpose: str
    until: datetime
    process: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The claims on one device: a job's lease and a person's reservation, or None. `token` is its latest fencing token."""

    token: int = 0
    job: Claim | None = None
    reservation: Claim | None = None


def in_force(claim: Claim | None, now: datetime) -> Claim | None:
    """Return the claim (a job's lease or a person's reservation) if it has not expired, else None."""
    return claim if claim is not None and now < claim.until else None


def against_job(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Return the claim that keeps this owner's job from using a device: any job's lease, or another owner's reservation."""
    reservation = in_force(claims.reservation, now)
    return in_force(claims.job, now) or (reservation if reservation and reservation.owner != owner else None)


def against_reservation(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Return the claim that prevents this owner from reserving a device: another owner's job lease or reservation."""
    standing = (in_force(claims.job, now), in_force(claims.reservation, now))
    return next((claim for claim in standing if claim and claim.owner != owner), None)


def with_job(claims: Claims, job: Claim) -> Claims:
    """Return the claims after a job has leased the device, with a new fencing token."""
    return replace(claims, token=claims.token + 1, job=job)


def renewed(claims: Claims, until: datetime) -> Claims:
    """Return a device's claims with the job's lease extended to a later time."""
    return replace(claims, job=claims.job and replace(claims.job, until=until))


def is_held(claims: Claims, token: int, now: datetime) -> bool:
    """Return True if the job with this fencing token still holds the device."""
    return claims.token == token and in_force(claims.job, now) is not None


def without_dead_job(claims: Claims, is_dead: Callable[[str], bool]) -> Claims:
    """Return a device's claims, without the job if its process is known to have ended. A hanging process keeps its lease."""
    process = claims.job and claims.job.process
    return replace(claims, job=None) if process and is_dead(process) else claims


def without_job(claims: Claims, token: int) -> Claims:
    """Return the claims without the job that has this fencing token. Another job's lease stays."""
    return replace(claims, job=None) if claims.token == token else claims


def with_reservation(claims: Claims, reservation: Claim | None) -> Claims:
    """Set or remove a device's reservation for a person. A job already running on the device continues."""
    return replace(claims, reservation=reservation)


def current(claims: Claims, now: datetime) -> Claims:
    """Return a device's claims, with any expired lease or reservation removed."""
    return replace(claims, job=in_force(claims.job, now), reservation=in_force(claims.reservation, now))


def freed(claims: Claims) -> Claims:
    """Return empty claims for a device. A job that still runs there loses the device, because the fencing token increases."""
    return Claims(token=claims.token + 1)
