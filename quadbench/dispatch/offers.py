"""List a farm worker's capabilities (build, compile) and devices: attached phones, virtual devices and the worker's machine."""

import logging
import platform
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress

import sqlalchemy as sa

from quadbench.compile.availability import availability, package_availability
from quadbench.devices import list_devices
from quadbench.devices.addresses import Address, LocalAddress, VirtualAddress, virtual_serial
from quadbench.dispatch.plan import BUILD, compile_capability
from quadbench.errors import QuadbenchError, UserError
from quadbench.farm.farm_file import expected_phones
from quadbench.farm.health import Health
from quadbench.farm.inventory import READY
from quadbench.farm.leases import Leases, lease_name
from quadbench.farm.overview import overview
from quadbench.farm.workers import WorkerDevice
from quadbench.host import host_name, user_and_host
from quadbench.results.layout import Layout
from quadbench.target.profile import LOCAL_NAME, known_targets, load_profile, load_profiles

_LOOK_S = 10.0  # interval of the device refresh

log = logging.getLogger(__name__)


def capabilities() -> tuple[str, ...]:
    """Return this host's capabilities: `build` if it has PyTorch, `compile KEY` for each target KEY whose compiler is ready."""
    builds = (BUILD,) if package_availability("torch", hint="").is_ready else ()
    known = known_targets(load_profiles(), platform.machine())
    return (*builds, *(compile_capability(target.key) for target in known if availability(target.target).is_ready))


def given_device(address: Address) -> WorkerDevice:
    """Return the WorkerDevice that a worker offers for an address: `local` (this machine) or `virtual:NAME` (virtual device).

    Raises:
        UserError: the address is not such a device.
        UnknownNameError, SpecError: the device profile does not exist, or is wrong.
    """
    labels, owner = {"name": address.text, "host": host_name()}, user_and_host()
    match address:
        case LocalAddress():
            labels |= {"serial": LOCAL_NAME, "profile": LOCAL_NAME}
            return WorkerDevice(name=lease_name("local", LOCAL_NAME), address=address.text, labels=labels, owner=owner)
        case VirtualAddress(profile=name):
            profile = load_profile(name)
            serial = virtual_serial(profile)
            labels |= {"serial": serial, "profile": profile.name, "chip": profile.soc.model}
            return WorkerDevice(name=lease_name("virtual", serial), address=address.text, labels=labels, owner=owner)
    raise UserError(
        f"a worker cannot be given '{address}'; expected {LOCAL_NAME} or virtual:NAME",
        hint="attached phones are taken by themselves",
    )


class Offers:
    """The devices that this host offers for jobs. A background thread keeps the list of attached phones current."""

    def __init__(self, given: Iterable[WorkerDevice], engine: sa.Engine, layout: Layout) -> None:
        self._given, self._engine, self._layout = tuple(given), engine, layout
        self._attached: tuple[WorkerDevice, ...] = ()
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, name="quadbench-devices", daemon=True)

    def __enter__(self) -> "Offers":
        self._attached = attached(self._layout)
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()

    @property
    def present(self) -> tuple[WorkerDevice, ...]:
        """Return all ready devices of this host, whether a job uses them or not."""
        return (*self._given, *self._attached)

    def free(self) -> Sequence[WorkerDevice]:
        """Return this host's ready devices that no job uses. Leave out devices reserved by someone other than the worker's user.

        Raises:
            StorageError, ArtifactError: the database cannot be read.
        """
        standing, owner = Leases(self._engine).standing(), user_and_host()

        def is_free(name: str) -> bool:
            claims = standing.get(name)
            return claims is None or (claims.job is None and (claims.reservation is None or claims.reservation.owner == owner))

        return [device for device in self.present if is_free(device.name)]

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with suppress(QuadbenchError):  # `overview` has logged a warning
                self._attached = attached(self._layout)


def attached(layout: Layout) -> tuple[WorkerDevice, ...]:
    """Return the phones attached to this host that are ready and not in quarantine."""
    phones, owner = overview(list_devices(), expected_phones(), layout), user_and_host()
    return tuple(
        WorkerDevice(name=phone.seen.device, address=phone.seen.address, labels=phone.labels, owner=owner)
        for phone in phones
        if phone.is_here and phone.seen.state == READY and phone.condition.health is not Health.QUARANTINED
    )
