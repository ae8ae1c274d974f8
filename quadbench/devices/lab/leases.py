"""Device leases and reservations in the database. Each lease has a fencing token greater than those of earlier leases.

All times are the database server's. Every change is one transaction with the device's row locked.

The rules for who may use a device need no database. Each job on a device gets a greater token than the job before. A holder with
an older token or an expired claim has lost the device: it may have been frozen while another job took over.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from quadbench.devices.addresses import Address, LocalAddress, VirtualAddress, virtual_serial
from quadbench.errors import LeaseError, UserError
from quadbench.host import has_ended, host_name, process_identity
from quadbench.results.engine import begin_read, begin_write, database_now, upsert
from quadbench.results.schema import IdentityRow, LeaseRow
from quadbench.spec.variables import number_variable
from quadbench.target.profile import LOCAL_NAME, load_profile

LEASE_VARIABLE = "QUADBENCH_LEASE_S"
_LEASE_S = 120.0  # so that a database may be unreachable for a minute
_WHO_HINT = "wait, or see: quadbench who"


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


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A job's lease of a device. Each new lease of the device has a greater fencing token, `token`."""

    device: str
    token: int
    owner: str


class Leases:
    """The device leases in a database. Methods raise StorageError if it cannot be accessed, ArtifactError if it is damaged."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def database_name(self) -> str:
        """Return the database's unique name. Lease files on devices contain it, to tell databases apart."""
        with begin_read(self._engine) as connection:
            return str(connection.scalars(sa.select(IdentityRow.name)).one())

    def take(self, device: str, owner: str, purpose: str, lease_s: float | None = None) -> Lease:
        """Lease a device to a job for `lease_s` seconds (if None: $QUADBENCH_LEASE_S, else 120). Return the new lease.

        Raises:
            LeaseError: another job holds it, or another person has reserved it.
        """

        def decide(claims: Claims, now: datetime) -> Claims:
            if standing := against_job(claims, owner, now):
                raise _refusal(device, standing)
            until = now + timedelta(seconds=lease_time_s(lease_s))
            return with_job(claims, Claim(owner=owner, purpose=purpose, until=until, process=process_identity()))

        return Lease(device=device, token=self._change(device, decide).token, owner=owner)

    def renew(self, lease: Lease, lease_s: float | None = None) -> None:
        """Extend a job's lease of a device until `lease_s` seconds from now (if None: $QUADBENCH_LEASE_S, else 120).

        Raises:
            LeaseError: the lease is over.
        """

        def decide(claims: Claims, now: datetime) -> Claims:
            _require_held(claims, lease, now)
            return renewed(claims, now + timedelta(seconds=lease_time_s(lease_s)))

        self._change(lease.device, decide)

    def end(self, lease: Lease) -> None:
        """Release a device that a job has leased. If the lease has ended already, do nothing."""
        self._change(lease.device, lambda claims, _: without_job(claims, lease.token))

    def check(self, connection: sa.Connection, lease: Lease) -> None:
        """Raise LeaseError if a lease has ended. Keep the device's database row locked until the transaction ends."""
        _require_held(_locked(connection, lease.device), lease, database_now(connection))

    def reserve(self, device: str, owner: str, purpose: str, for_s: float) -> Claim:
        """Reserve a device for `owner` for `for_s` seconds. Replace `owner`'s earlier reservation, if any. Return the new one.

        Raises:
            LeaseError: another owner's job or reservation has it.
        """

        def decide(claims: Claims, now: datetime) -> Claims:
            if standing := against_reservation(claims, owner, now):
                raise _refusal(device, standing)
            return with_reservation(claims, Claim(owner=owner, purpose=purpose, until=now + timedelta(seconds=for_s)))

        reservation = self._change(device, decide).reservation
        assert reservation is not None
        return reservation

    def release(self, device: str, owner: str, *, force: bool = False) -> None:
        """End `owner`'s reservation of a device. If `force` is True, end anyone's reservation and any job's lease of the device.

        Raises:
            LeaseError: another person has reserved it.
            UserError: the device is not reserved.
        """

        def decide(claims: Claims, now: datetime) -> Claims:
            if force:
                return freed(claims)
            reservation = in_force(claims.reservation, now)
            if reservation is None:
                raise UserError(f"device '{device}' is not reserved", hint="see: quadbench who")
            if reservation.owner != owner:
                raise _refusal(device, reservation, hint="ask them, or take it away: --force")
            return with_reservation(claims, None)

        self._change(device, decide)

    def standing(self, devices: Collection[str] | None = None) -> dict[str, Claims]:
        """Return a dict from device name to the device's unexpired lease and reservation, of `devices` or, if None, of all.

        Devices with neither are absent.
        """
        query = sa.select(*LeaseRow.__table__.columns).order_by(LeaseRow.device)
        with begin_read(self._engine) as connection:
            now = database_now(connection)
            rows = connection.execute(query if devices is None else query.where(LeaseRow.device.in_(devices))).mappings()
            every = {str(row["device"]): current(without_dead_job(_claims(row), has_ended), now) for row in rows}
        return {device: claims for device, claims in every.items() if claims.job or claims.reservation}

    def _change(self, device: str, decide: Callable[[Claims, datetime], Claims]) -> Claims:
        with begin_write(self._engine) as connection:
            blank = {"device": device, **_columns(Claims())}
            connection.execute(upsert(connection, LeaseRow).values(blank).on_conflict_do_nothing())
            claims = decide(without_dead_job(_locked(connection, device), has_ended), database_now(connection))
            connection.execute(sa.update(LeaseRow).where(LeaseRow.device == device).values(_columns(claims)))
            return claims


def lease_time_s(asked: float | None = None) -> float:
    """Return the seconds without a heartbeat after which a lease ends: `asked` or, if None, $QUADBENCH_LEASE_S (default: 120).

    Raises:
        UserError: the variable is not a number of seconds from 2 to 3600.
    """
    return asked if asked is not None else number_variable(LEASE_VARIABLE, usual=_LEASE_S, least=2.0, most=3600.0)


def leased_name(address: Address) -> str | None:
    """Return the name that leases use for the address of a virtual device or of this machine. For other addresses, return None.

    Raises:
        UserError, SpecError: the profile of a virtual device cannot be read.
    """
    match address:
        case VirtualAddress(profile=profile):
            return lease_name("virtual", virtual_serial(load_profile(profile)))
        case LocalAddress():
            return lease_name("local", LOCAL_NAME)
    return None


def lease_name(family: str, serial: str) -> str:
    """Return the name that leases use for a device: the adb serial for a phone, `SERIAL@HOST` for any other device."""
    is_phone = family == "adb" and ":" not in serial and not serial.startswith("emulator-")
    return serial if is_phone else f"{serial}@{host_name()}"


def _locked(connection: sa.Connection, device: str) -> Claims:
    """Return the claims on a device, with its database row locked until the transaction ends."""
    query = sa.select(*LeaseRow.__table__.columns).where(LeaseRow.device == device).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return Claims() if row is None else _claims(row)


def _require_held(claims: Claims, lease: Lease, now: datetime) -> None:
    if is_held(claims, lease.token, now):
        return
    reason = "has expired: its holder gave no sign of life for too long"
    if claims.token != lease.token:
        standing = in_force(claims.job, now)
        reason = f"is over: {standing.owner if standing else 'somebody'} has taken the device since"
    raise LeaseError(
        f"the lease of device '{lease.device}' {reason}; nothing more is done there, and nothing of it is stored",
        hint="run again; a process that stood still, or a database that was away, loses its devices",
    )


def _refusal(device: str, standing: Claim, *, hint: str = _WHO_HINT) -> LeaseError:
    until = standing.until.strftime("%Y-%m-%d %H:%M:%S UTC")
    return LeaseError(f"device '{device}' is taken by {standing.owner} until {until}: {standing.purpose}", hint=hint)


def _claims(row: sa.RowMapping) -> Claims:
    job = _claim(row, "job")
    return Claims(token=row["token"], job=job and replace(job, process=row["job_process"]), reservation=_claim(row, "reserved"))


def _claim(row: sa.RowMapping, kind: str) -> Claim | None:
    owner, purpose, until = (row[f"{kind}_{part}"] for part in ("owner", "purpose", "until"))
    return None if owner is None else Claim(owner=owner, purpose=purpose, until=until)


def _columns(claims: Claims) -> dict[str, object]:
    columns: dict[str, object] = {"token": claims.token, "job_process": claims.job and claims.job.process}
    for kind, claim in (("job", claims.job), ("reserved", claims.reservation)):
        columns |= {f"{kind}_{part}": getattr(claim, part, None) for part in ("owner", "purpose", "until")}
    return columns
