"""Held: connected devices -> their leases for one job, renewed by a heartbeat until the job ends."""

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

_BEATS = 4  # in the time of a lease, so that one that fails costs nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The leases of a job's devices, by address, and what went wrong by a device's own fault."""

    leases: Leases
    database: str
    by_address: Mapping[str, Lease]
    faults: dict[str, str] = field(default_factory=dict)

    def confirm(self, device: Device) -> None:
        """Refuse a device that is no longer the job's, before anything is started on it.

        Raises:
            LeaseError: its lease is over.
            DeviceError: the device does not answer.
            StorageError, ArtifactError: the database does not answer.
        """
        lease = self.by_address[device.facts.address]
        self.leases.renew(lease)
        write_token(device, self.database, lease)

    def guard(self, address: str) -> Callable[[sa.Connection], None] | None:
        """Return what refuses records of a device that is no longer the job's; None for a device that is nobody's."""
        lease = self.by_address.get(address)
        return partial(self.leases.check, lease=lease) if lease else None

    def note_left_out(self, device: Device, error: QuadbenchError) -> None:
        """Note that the job goes on without a device, which may be the device's own fault."""
        if isinstance(error, DeviceError):
            self.faults.setdefault(device.facts.address, error.message)

    def note_lost(self, device: Device, reason: str) -> None:
        """Note that a device was lost and waited for, which is a fault also where the job goes on with it."""
        self.faults.setdefault(device.facts.address, reason)

    def note_record(self, record: RunRecord) -> None:
        """Note what became of a launch, which may have failed by the device's own fault."""
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
    """Take leases of all devices, keep them, and give them back at the end. A device whose lease is lost is closed.

    A phone in quarantine is refused, and how each phone has done the job decides on its health, unless they are there to be
    examined. Into a dictionary `left_out` goes, with the reason, a device that cannot be taken; it may be that none is left.

    Raises:
        DeviceError: somebody else has one of them (LeaseError), it does not answer, or is in quarantine; none is taken then.
    """
    inventory, leases, owner = Inventory(engine), Leases(engine), user_and_host()
    database, by_address = leases.database_name(), dict[str, Lease]()

    def take(device: Device) -> None:
        if not to_examine:
            inventory.require_usable([device])
        lease = leases.take(lease_name(device.family, device.serial), owner, purpose, lease_s)
        stack.callback(_end, leases, lease)
        by_address[device.facts.address] = lease

    def mark(device: Device) -> None:  # a phone may take its time to answer
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
    """Do something with each device, and return those with which it went well; without `left_out`, each must.

    Raises:
        DeviceError: of the first device with which it did not, unless they are left out.
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
    """Refuse to go on where every device was left out.

    Raises:
        QuadbenchError: why the first one was.
    """
    if left_out and not devices:
        raise next(iter(left_out.values()))


@contextmanager
def leased(devices: Sequence[Device], layout: Layout, purpose: str, *, to_examine: bool = False) -> Iterator[Held]:
    """Take leases as `held` does, for a job that needs the database for nothing else.

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
    """Note at the end how each phone has done; where the job itself was cut short, only the faults say something of a phone."""
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
    """Give back the devices that a job does without: others may have them now."""
    for device, lease in [one for one in work if one[0] not in taken]:
        work.remove((device, lease))
        _end(leases, lease)


def _end(leases: Leases, lease: Lease) -> None:
    with _warned(f"the lease of '{lease.device}' ends by itself"):
        leases.end(lease)


@contextmanager
def _warned(consequence: str) -> Iterator[None]:
    """Let what the database refuses at the end of a job cost nothing but a warning."""
    try:
        yield
    except QuadbenchError as error:
        log.warning("%s: %s", consequence, error.message)


@contextmanager
def _heartbeat(leases: Leases, work: list[tuple[Device, Lease]], lease_s: float | None) -> Iterator[None]:
    """Renew leases until the block ends, or they are taken from the list; what a lost device still runs is ended, so that it
    disturbs nobody.
    """
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
