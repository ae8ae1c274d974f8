"""Describe this host to the pool: its attached phones, given devices and capabilities, as ads of its slots.

The startd of the host starts this program (`quadbench farm host`), and reads the ads from its output.
"""

import logging
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from quadbench.artifacts.safe_text import one_line
from quadbench.compile.availability import availability, package_availability
from quadbench.devices import list_devices
from quadbench.devices.addresses import Address, LocalAddress, VirtualAddress, virtual_serial
from quadbench.devices.lab.farm_file import expected_phones
from quadbench.devices.lab.health import Health
from quadbench.devices.lab.inventory import READY, Inventory, Sighting
from quadbench.devices.lab.leases import Claims, Leases, lease_name
from quadbench.devices.lab.overview import FarmPhone, merged, sighting_of
from quadbench.dispatch.demands import BUILD, compile_capability
from quadbench.errors import QuadbenchError, StorageError, UserError
from quadbench.farm.job_status import last_jobs
from quadbench.farm.slots import LONGEST_REST_S, USED_BY, Bay, Bays, capability_need, needs_served
from quadbench.farm.store.opening import store_name
from quadbench.host import host_name
from quadbench.target.profile import LOCAL_NAME, known_targets, load_profile, load_profiles

_LOOK_S = 10.0  # interval of the ads
_AWAY = "the farm's database does not answer"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HostBays:
    """The bays of this host: devices given by name, its attached phones, and its place for builds, if it can build or compile."""

    given: Sequence[Bay]
    capabilities: Sequence[str]
    engine: sa.Engine

    def now(self) -> list[Bay]:
        """Return the host's bays as they are now, and record its phones in the inventory.

        While the database does not answer, or farm.yaml is wrong, none of the bays is ready: its phones may be in quarantine.
        """
        here: list[Sighting] = []
        inventory = Inventory(self.engine)
        try:
            here = [sighting_of(row, host_name()) for row in list_devices() if row.is_phone]
            if here:
                inventory.note_seen(here)
            known = inventory.phones([one.device for one in here])
            bays = self._bays(merged(here, known, {}, expected_phones(), host_name()))
            names = [bay.name for bay in bays]
            standing, last = Leases(self.engine).standing(names), last_jobs(self.engine, names)
        except QuadbenchError as error:
            log.warning("no slot of this host is ready: %s", error)
            why_not = _AWAY if isinstance(error, StorageError) else one_line(error.message)
            return [replace(bay, why_not=why_not) for bay in self._bays(merged(here, (), {}, (), host_name()))]
        return [_as_used(bay, standing.get(bay.name, Claims()), last) for bay in bays]

    def _bays(self, phones: Iterable[FarmPhone]) -> list[Bay]:
        room = Bay(name=f"room@{host_name()}", address="", serves=frozenset(map(capability_need, self.capabilities)))
        rooms = [room] if self.capabilities else []
        return [*self.given, *rooms, *(_bay_of(phone) for phone in phones if phone.is_here)]

    @property
    def database(self) -> str:
        """Return the unique name of the farm's database, or an empty text while it does not answer."""
        try:
            return Leases(self.engine).database_name()
        except QuadbenchError:
            return ""


def describe_host(host: HostBays, slots: int, version: str) -> None:
    """Print the ads of this host's slots every ten seconds, until the startd ends this process."""
    bays = Bays(slots)
    while True:
        sys.stdout.write(bays.ads(host.now(), version, host.database, store_name()))
        sys.stdout.flush()
        time.sleep(_LOOK_S)


def capabilities() -> tuple[str, ...]:
    """Return this host's capabilities: `build` if it has PyTorch, `compile KEY` for each target KEY whose compiler is ready."""
    builds = (BUILD,) if package_availability("torch", hint="").is_ready else ()
    known = known_targets(load_profiles(), platform.machine())
    return (*builds, *(compile_capability(target.key) for target in known if availability(target.target).is_ready))


def given_bay(address: Address) -> Bay:
    """Return the Bay of a device that a host is given by its address: `local` (this machine) or `virtual:NAME`.

    Raises:
        UserError: the address is not such a device.
        UnknownNameError, SpecError: the device profile does not exist, or is wrong.
    """
    labels = {"name": address.text, "host": host_name()}
    match address:
        case LocalAddress():
            labels |= {"serial": LOCAL_NAME, "profile": LOCAL_NAME}
            name = lease_name("local", LOCAL_NAME)
        case VirtualAddress(profile=profile_name):
            profile = load_profile(profile_name)
            serial = virtual_serial(profile)
            labels |= {"serial": serial, "profile": profile.name, "chip": profile.soc.model}
            name = lease_name("virtual", serial)
        case _:
            hint = "attached phones are taken by themselves"
            raise UserError(f"a host cannot be given '{address}'; expected {LOCAL_NAME} or virtual:NAME", hint=hint)
    return Bay(name=name, address=address.text, serves=needs_served(name, labels), labels=labels)


def _bay_of(phone: FarmPhone) -> Bay:
    why_not = "" if phone.seen.state == READY else f"adb says: {phone.seen.state}"
    if phone.condition.health is Health.QUARANTINED:
        why_not = f"in quarantine: {phone.condition.reason}"
    name, labels = phone.seen.device, phone.labels
    return Bay(name=name, address=phone.seen.address, serves=needs_served(name, labels), labels=labels, why_not=why_not)


def _as_used(bay: Bay, claims: Claims, last: Mapping[str, tuple[str, float]]) -> Bay:
    """Return a bay with what the database says of its device: reservation, lease of a job outside of the farm, last files."""
    loaded, rested_s = last.get(bay.name, ("", LONGEST_REST_S))
    why_not, reserved_by = bay.why_not, claims.reservation.owner if claims.reservation else None
    if claims.job and rested_s > 0 and not why_not:  # no job of the farm runs there
        why_not = f"{USED_BY}{claims.job.owner}"
    return replace(bay, why_not=why_not, reserved_by=reserved_by, loaded=loaded, rested_s=min(rested_s, LONGEST_REST_S))
