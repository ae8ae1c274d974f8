"""Held: connected devices -> their leases for one job, renewed by a heartbeat until the job ends."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from quadbench.devices import Device
from quadbench.errors import LeaseError, QuadbenchError
from quadbench.farm.inventory import Inventory
from quadbench.farm.leases import LEASE_S, Lease, Leases, lease_name
from quadbench.farm.token_file import remove_token, write_token
from quadbench.host import user_and_host
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout

_BEATS = 4  # in the time of a lease, so that one that fails costs nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The leases of a job's devices, by address."""

    leases: Leases
    database: str
    by_address: Mapping[str, Lease]

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


@contextmanager
def held(
    devices: Sequence[Device], engine: sa.Engine, purpose: str, *, lease_s: float = LEASE_S, to_examine: bool = False
) -> Iterator[Held]:
    """Take leases of all devices, keep them, and give them back at the end. A device whose lease is lost is closed.

    A phone in quarantine is refused, unless it is there to be examined.

    Raises:
        LeaseError: somebody else has one of them; none is taken then.
        DeviceError: a device does not answer, or is in quarantine.
    """
    if not to_examine:
        Inventory(engine).require_usable(devices)
    leases, owner = Leases(engine), user_and_host()
    database = leases.database_name()
    by_address: dict[str, Lease] = {}
    with ExitStack() as stack:
        for device in devices:
            lease = leases.take(lease_name(device.family, device.serial), owner, purpose, lease_s)
            stack.callback(_end, leases, lease)
            write_token(device, database, lease)
            stack.callback(remove_token, device, database, lease)
            by_address[device.facts.address] = lease
        stack.enter_context(_heartbeat(leases, [(device, by_address[device.facts.address]) for device in devices], lease_s))
        yield Held(leases=leases, database=database, by_address=by_address)


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


def _end(leases: Leases, lease: Lease) -> None:
    try:
        leases.end(lease)
    except QuadbenchError as error:
        log.warning("the lease of '%s' ends by itself: %s", lease.device, error.message)


@contextmanager
def _heartbeat(leases: Leases, work: Sequence[tuple[Device, Lease]], lease_s: float) -> Iterator[None]:
    """Renew leases until the block ends; what a lost device still runs is ended, so that it disturbs nobody."""
    ended = threading.Event()

    def beat() -> None:
        kept = list(work)
        while kept and not ended.wait(lease_s / _BEATS):
            for device, lease in list(kept):
                try:
                    leases.renew(lease, lease_s)
                except LeaseError as error:
                    log.warning("%s: %s", device.facts.address, error.message)
                    kept.remove((device, lease))
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
