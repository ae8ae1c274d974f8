"""Lease: what is claimed of a device, and a wish -> what is claimed then, or the claim that stands against it. Pure.

Every job on a device gets a greater token than the one before. Whoever has an older one, or one whose time is over, holds
nothing: it may have been frozen, and another may have the device by now.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim on a device until a moment. `owner` is who makes it, as `ana@lab-1`; `purpose` says what for.

    `process` is the mark of the process that holds it; a person's claim has none.
    """

    owner: str
    purpose: str
    until: datetime
    process: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claims:
    """All that is claimed of a device: by a job, and by a person who has reserved it. `token` is that of the last job."""

    token: int = 0
    job: Claim | None = None
    reservation: Claim | None = None


def in_force(claim: Claim | None, now: datetime) -> Claim | None:
    """Return the claim if its time is not over."""
    return claim if claim is not None and now < claim.until else None


def against_job(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Return what stands against a job of this owner: another job, or a reservation of somebody else."""
    reservation = in_force(claims.reservation, now)
    return in_force(claims.job, now) or (reservation if reservation and reservation.owner != owner else None)


def against_reservation(claims: Claims, owner: str, now: datetime) -> Claim | None:
    """Return what stands against a reservation by this owner: a job or a reservation of somebody else."""
    standing = (in_force(claims.job, now), in_force(claims.reservation, now))
    return next((claim for claim in standing if claim and claim.owner != owner), None)


def with_job(claims: Claims, job: Claim) -> Claims:
    """Give the device to a job, whose token is a new one."""
    return replace(claims, token=claims.token + 1, job=job)


def renewed(claims: Claims, until: datetime) -> Claims:
    """Let the job keep the device until later."""
    return replace(claims, job=claims.job and replace(claims.job, until=until))


def is_held(claims: Claims, token: int, now: datetime) -> bool:
    """Say whether the job with this token still has the device."""
    return claims.token == token and in_force(claims.job, now) is not None


def without_dead_job(claims: Claims, is_dead: Callable[[str], bool]) -> Claims:
    """Take the device from a job whose process is known to be dead, which comes back no more; one that is frozen is not."""
    process = claims.job and claims.job.process
    return replace(claims, job=None) if process and is_dead(process) else claims


def without_job(claims: Claims, token: int) -> Claims:
    """Take the device from the job with this token; another's job stays."""
    return replace(claims, job=None) if claims.token == token else claims


def with_reservation(claims: Claims, reservation: Claim | None) -> Claims:
    """Give the device to a person, or to nobody; a job that runs goes on."""
    return replace(claims, reservation=reservation)


def current(claims: Claims, now: datetime) -> Claims:
    """Return what is in force, without what is over."""
    return replace(claims, job=in_force(claims.job, now), reservation=in_force(claims.reservation, now))


def freed(claims: Claims) -> Claims:
    """Take the device from everybody. A job that is still at it holds nothing any more."""
    return Claims(token=claims.token + 1)
