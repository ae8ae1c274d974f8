"""Rules for who may use a device: jobs lease it, and people reserve it. Nothing here uses the database.

Each job on a device gets a greater fencing token than the job before. A holder with an older token or an expired claim has lost
the device: it may have been frozen while another job took over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim on a device until a time: a job's lease or a person's reservation. `owner` is user@host, such as `ana@lab-1`.

    `process` identifies the process of a job; a person's reservation has none.
    """

    owner: str
    purpose: str
    until: datetime
    process: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claims:
    """A device's claims: a job's lease (or None) and a person's reservation (or None). `token` is the newest fencing token."""

    token: int = 0
    job: Claim | None = None
    reservation: Claim | None = None


def in_force(claim: Claim | None, now: datetime) -> Claim | None:
    """Return the claim (a job's lease or a person's reservation) if it has not expired, else None."""
    return claim if claim is not None and now < claim.until else None


def against_job(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Find what bars `owner`'s job from a device. Return any job's valid lease, else another owner's reservation, else None."""
    reservation = in_force(claims.reservation, now)
    return in_force(claims.job, now) or (reservation if reservation and reservation.owner != owner else None)


def against_reservation(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Find what bars `owner` from reserving a device. Return a job lease or else a reservation of another owner, or None."""
    standing = (in_force(claims.job, now), in_force(claims.reservation, now))
    return next((claim for claim in standing if claim and claim.owner != owner), None)


def with_job(claims: Claims, job: Claim) -> Claims:
    """Return a device's claims with `job` as the new job lease. The fencing token increases by 1."""
    return replace(claims, token=claims.token + 1, job=job)


def renewed(claims: Claims, until: datetime) -> Claims:
    """Return a device's claims with the job's lease extended until `until`. Claims without a job are returned unchanged."""
    return replace(claims, job=claims.job and replace(claims.job, until=until))


def is_held(claims: Claims, token: int, now: datetime) -> bool:
    """Return True if `token` equals the fencing token in a device's claims, and the job's lease in the claims has not expired."""
    return claims.token == token and in_force(claims.job, now) is not None


def without_dead_job(claims: Claims, is_dead: Callable[[str], bool]) -> Claims:
    """Return a device's claims. Remove the job's lease if `is_dead` returns True for the identifier of the job's process."""
    process = claims.job and claims.job.process
    return replace(claims, job=None) if process and is_dead(process) else claims


def without_job(claims: Claims, token: int) -> Claims:
    """Remove the job's lease from a device's claims if the fencing token equals `token`. Return the resulting claims."""
    return replace(claims, job=None) if claims.token == token else claims


def with_reservation(claims: Claims, reservation: Claim | None) -> Claims:
    """Return a device's claims with the reservation replaced, or removed if `reservation` is None. A job's lease stays."""
    return replace(claims, reservation=reservation)


def current(claims: Claims, now: datetime) -> Claims:
    """Return a device's claims, with any expired lease or reservation removed."""
    return replace(claims, job=in_force(claims.job, now), reservation=in_force(claims.reservation, now))


def freed(claims: Claims) -> Claims:
    """Return claims without lease or reservation. The fencing token increases by 1, so that a running job loses the device."""
    return Claims(token=claims.token + 1)
