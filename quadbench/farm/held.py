"""Lease devices for one job, and renew the leases regularly until the job ends."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from quadbench.artifacts import ErrorClass, RunRecord, Status
from quadbench.devices import Device
from quadbench.errors import DeviceError, LeaseError, QuadbenchError
from quadbench.farm.inventory import Inventory
from quadbench.farm.leases import Lease, Leases, lease_name, lease_time_s
from quadbench.farm.token_file import remove_token, write_token
from quadbench.host import user_and_host
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout

_BEATS = 4  # renewals in a lease's time, so that a single failure does no harm

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The devices that a job has leased, by address. Also faults of devices during the job, which lower their health."""

    leases: Leases
    database: str
    by_address: Mapping[str, Lease]
    faults: dict[str, str] = field(default_factory=dict)

    def confirm(self, device: Device) -> None:
        """Check that we still hold the device's lease, and renew the lease. Call this before anything is started on the device.

        Raises:
            LeaseError: its lease is over.
            DeviceError: the device does not answer.
            StorageError, ArtifactError: the database does not answer.
        """
        lease = self.by_address[device.facts.address]
        self.leases.renew(lease)
        write_token(device, self.database, lease)

    def guard(self, address: str) -> Callable[[sa.Connection], None] | None:
        """Return a function that raises in a transaction once a device's lease is over. Return None for unleased devices."""
        lease = self.by_address.get(address)
        return partial(self.leases.check, lease=lease) if lease else None

    def note_left_out(self, device: Device, error: QuadbenchError) -> None:
        """Record that the job continues without this device. A DeviceError counts against the device's health."""
        if isinstance(error, DeviceError):
            self.faults.setdefault(device.facts.address, error.message)

    def note_lost(self, device: Device, reason: str) -> None:
        """Record that the connection to a device was lost. This counts against its health even if the device came back."""
        self.faults.setdefault(device.facts.address, reason)

    def note_record(self, record: RunRecord) -> None:
        """Record a device fault if the launch of this record failed because of its device."""
        if record.status is Status.FAILED and record.error_class is ErrorClass.DEVICE:
            self.faults.setdefault(record.device.address, record.reason or "no reason")


@contextmanager
def held(
    devices: Sequence[Device],
    engine: sa.Engine,
    purpose: str,
    *,
    lease_s: float | None = None,
    to_examine: bool = False,
    left_out: dict[str, QuadbenchError] | None = None,
) -> Iterator[Held]:
    """Lease all devices until the block ends. If a lease is lost meanwhile, its device is closed.

    Phones in quarantine are refused, and the job's outcome updates each phone's health, unless `to_examine`. With `left_out`,
    unavailable devices are put there with their errors, and the result may be empty.

    Raises:
        DeviceError: a device is leased by another job (LeaseError), does not answer, or is in quarantine; none is leased then.
    """
    inventory, leases, owner = Inventory(engine), Leases(engine), user_and_host()
    database, by_address = leases.database_name(), dict[str, Lease]()

    def take(device: Device) -> None:
        if not to_examine:
            inventory.require_usable([device])
        lease = leases.take(lease_name(device.family, device.serial), owner, purpose, lease_s)
        stack.callback(_end, leases, lease)
        by_address[device.facts.address] = lease

    def mark(device: Device) -> None:  # writes to the phone, which may be slow
        write_token(device, database, by_address[device.facts.address])
        stack.callback(remove_token, device, database, by_address[device.facts.address])

    with ExitStack() as stack:
        work = [(device, by_address[device.facts.address]) for device in each_or_left_out(devices, take, left_out)]
        stack.enter_context(_heartbeat(leases, work, lease_s))
        taken = each_or_left_out([device for device, _ in work], mark, left_out)
        _give_others_back(leases, work, taken)
        job = Held(leases=leases, database=database, by_address={device.facts.address: lease for device, lease in work})
        with nullcontext() if to_examine else _health_noted(inventory, taken, job.faults):
            yield job


def each_or_left_out(
    devices: Sequence[Device], act: Callable[[Device], None], left_out: dict[str, QuadbenchError] | None
) -> list[Device]:
    """Call `act` for each device, and return those without an error. Put errors in `left_out`, or raise the first if it is None.

    Raises:
        DeviceError: the error of the first failing device, without `left_out`.
    """
    fine = []
    for device in devices:
        try:
            act(device)
            fine.append(device)
        except DeviceError as error:
            if left_out is None:
                raise
            left_out[device.facts.address] = error
    return fine


def require_any(devices: Sequence[object], left_out: Mapping[str, QuadbenchError] | None) -> None:
    """If no device is left to use, raise the first error in `left_out`, a dict from unavailable device to error.

    Raises:
        QuadbenchError: the error of the first device.
    """
    if left_out and not devices:
        raise next(iter(left_out.values()))


@contextmanager
def leased(devices: Sequence[Device], layout: Layout, purpose: str, *, to_examine: bool = False) -> Iterator[Held]:
    """Lease devices until the block ends. Unlike `held`, this opens and closes the results database itself.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: the database cannot be opened.
        DeviceError: as `held`.
    """
    engine = open_engine(database_of(layout))
    try:
        with held(devices, engine, purpose, to_examine=to_examine) as leases:
            yield leases
    finally:
        engine.dispose()


@contextmanager
def _health_noted(inventory: Inventory, devices: Sequence[Device], faults: Mapping[str, str]) -> Iterator[None]:
    """When a job ends, record success or a fault in each phone's health. An interrupted job does not count as success."""
    is_through = False
    try:
        yield
        is_through = True
    finally:
        for device in devices:
            fault = faults.get(device.facts.address)
            if fault or is_through:
                with _warned("how it has done is not noted"):
                    inventory.note_job(device, fault)


def _give_others_back(leases: Leases, work: list[tuple[Device, Lease]], taken: Sequence[Device]) -> None:
    """Release the leased devices that are not in `taken`, because the job does not use them."""
    for device, lease in [one for one in work if one[0] not in taken]:
        work.remove((device, lease))
        _end(leases, lease)


def _end(leases: Leases, lease: Lease) -> None:
    with _warned(f"the lease of '{lease.device}' ends by itself"):
        leases.end(lease)


@contextmanager
def _warned(consequence: str) -> Iterator[None]:
    """Log database errors at the end of a job as warnings. `consequence` says what is not stored because of them."""
    try:
        yield
    except QuadbenchError as error:
        log.warning("%s: %s", consequence, error.message)


@contextmanager
def _heartbeat(leases: Leases, work: list[tuple[Device, Lease]], lease_s: float | None) -> Iterator[None]:
    """Renew leases of devices until the block ends. If a lease is lost, close its device, so that no more commands run on it."""
    ended = threading.Event()

    def beat() -> None:
        lost = set[str]()
        while not ended.wait(lease_time_s(lease_s) / _BEATS):
            for device, lease in [one for one in work if one[1].device not in lost]:
                try:
                    leases.renew(lease, lease_s)
                except LeaseError as error:
                    lost.add(lease.device)
                    if (device, lease) in work:
                        log.warning("%s: %s", device.facts.address, error.message)
                        device.close()
                except QuadbenchError as error:
                    log.warning("%s: its lease was not renewed: %s", device.facts.address, error.message)

    thread = threading.Thread(target=beat, name="quadbench-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
