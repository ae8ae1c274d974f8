"""Merge attached phones, inventory, claims and farm.yaml into one list of phones; find one of these phones by its name."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from quadbench.devices.addresses import needs_server, parse_address
from quadbench.devices.connections import DeviceRow
from quadbench.devices.lab.farm_file import ExpectedPhone
from quadbench.devices.lab.health import Health, PhoneCondition
from quadbench.devices.lab.inventory import PHONE_FAMILY, READY, Inventory, InventoryPhone, Sighting
from quadbench.devices.lab.leases import Claim, Claims, Leases, lease_name, leased_name
from quadbench.errors import ArtifactError, UnknownNameError, UserError
from quadbench.host import host_name
from quadbench.results.engine import database_of, open_engine, open_for_reading
from quadbench.results.layout import Layout

GONE, MISSING = "gone", "missing"  # states of phones that were seen before, and that farm.yaml expects

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FarmPhone:
    """A phone with its last known facts, health, claims and labels. `is_here` means attached to this host."""

    name: str
    seen: Sighting
    is_here: bool
    is_expected: bool
    last_seen: datetime | None = None
    condition: PhoneCondition = field(default_factory=PhoneCondition)
    claims: Claims = field(default_factory=Claims)
    own_labels: Mapping[str, str] = field(default_factory=dict)

    def is_free_for(self, owner: str) -> bool:
        """Return True if the phone is on this host, ready, unleased, not quarantined, and reserved by nobody but `owner`."""
        reservation = self.claims.reservation
        is_taken = self.claims.job is not None or (reservation is not None and reservation.owner != owner)
        return self.is_here and self.seen.state == READY and self.condition.health is not Health.QUARANTINED and not is_taken

    @property
    def is_missing(self) -> bool:
        """Return True if farm.yaml lists the phone but the phone is not ready on any host."""
        return self.is_expected and self.seen.state != READY

    @property
    def claim(self) -> Claim | None:
        """Return the claim on the phone: the lease of the job that uses it, else a person's reservation, else None."""
        return self.claims.job or self.claims.reservation

    @property
    def labels(self) -> dict[str, str]:
        """Return a dict from label key (`chip`, `host` or farm.yaml's own) to value. --devices selects phones by these labels."""
        seen = self.seen
        known = {
            "name": self.name,
            "serial": seen.serial,
            "profile": seen.profile,
            "model": seen.model,
            "chip": seen.chip,
            "android": seen.android_release,
            "abi": seen.abi,
            "host": seen.host,
        }
        return {key: value for key, value in known.items() if value} | dict(self.own_labels)


def overview(rows: Sequence[DeviceRow], expected: Sequence[ExpectedPhone], layout: Layout) -> list[FarmPhone]:
    """Return all phones attached to this host, in the inventory, or in farm.yaml. Record the attached phones in the inventory.

    If the database cannot be reached, log a warning and leave health and claims at their defaults.
    """
    here = [sighting_of(row, host_name()) for row in rows if row.is_phone]
    try:
        known, claims = _shared(here, layout)
    except ArtifactError as error:
        log.warning("what is shared is not known: %s", error)
        known, claims = [], {}
    return merged(here, known, claims, expected, host_name())


def merged(
    here: Sequence[Sighting],
    known: Sequence[InventoryPhone],
    claims: Mapping[str, Claims],
    expected: Sequence[ExpectedPhone],
    host: str,
) -> list[FarmPhone]:
    """Merge the phones attached here, the inventory, the claims and farm.yaml into one list, with one entry per phone."""
    attached = {sighting.device: sighting for sighting in here}
    inventory = {phone.seen.device: phone for phone in known}
    named = {phone.serial: phone for phone in expected}
    phones = []
    for device in sorted({*attached, *inventory}):
        stored = inventory.get(device)
        seen = _now(attached.get(device), stored.seen if stored else None, host)
        entry = named.pop(seen.serial, None)
        phones.append(
            FarmPhone(
                name=entry.name if entry else seen.address,
                seen=seen,
                is_here=device in attached,
                is_expected=entry is not None,
                last_seen=stored.last_seen if stored else None,
                condition=stored.condition if stored else PhoneCondition(),
                claims=claims.get(device, Claims()),
                own_labels=entry.labels if entry else {},
            )
        )
    return phones + [_missing(entry) for entry in named.values()]


def phone_named(word: str, phones: Sequence[FarmPhone]) -> FarmPhone:
    """Return the phone whose name, address or adb serial is `word`. If there is none, return the only phone whose profile is
    `word`. Raise UnknownNameError if no phone fits, UserError if several fit.
    """
    exact = [phone for phone in phones if word in (phone.name, phone.seen.address, phone.seen.serial, phone.seen.device)]
    fitting = exact or [phone for phone in phones if phone.seen.profile == word]
    if not fitting:
        raise UnknownNameError("phone", word, [phone.name for phone in phones])
    if len(fitting) > 1:
        names = ", ".join(phone.name for phone in fitting)
        raise UserError(f"several phones are '{word}': {names}", hint=f"say which, as {fitting[0].name}")
    return fitting[0]


def device_named(word: str, phones: Sequence[FarmPhone]) -> str:
    """Return a device's name in leases: an adb serial, or `SERIAL@HOST`. `word` is a phone's name, address, adb serial or
    profile, or the address of a virtual device or of this machine.

    Raises:
        UnknownNameError, UserError: as `phone_named`, or the device is never leased.
    """
    if needs_server(word):
        return phone_named(word, phones).seen.device
    if name := leased_name(parse_address(word)):
        return name
    raise UserError(f"'{word}' is at a service, where nobody needs to keep a device", hint="see: quadbench devices")


def sighting_of(row: DeviceRow, host: str) -> Sighting:
    """Return the inventory record (a Sighting) of a phone attached to `host`, from its row in `quadbench devices`."""
    return Sighting(
        device=lease_name(PHONE_FAMILY, row.serial),
        address=row.address,
        serial=row.serial,
        state=row.state,
        model=row.model,
        profile=row.profile,
        chip=row.chip,
        android_release=row.android_release,
        abi=row.abi,
        host=host,
    )


def _shared(here: Sequence[Sighting], layout: Layout) -> tuple[list[InventoryPhone], dict[str, Claims]]:
    """Record the attached phones `here` in the inventory. Return all its phones as a list, and a dict from device name to Claims
    (lease and reservation). If the database file does not exist, record nothing and return an empty list and dict.
    """
    source = database_of(layout)
    if isinstance(source, Path) and not source.exists():
        return [], {}
    engine = open_engine(source) if here else open_for_reading(source)
    try:
        inventory = Inventory(engine)
        if here:
            inventory.note_seen(here)
        return inventory.phones(), Leases(engine).standing()
    finally:
        engine.dispose()


def _now(attached: Sighting | None, stored: Sighting | None, host: str) -> Sighting:
    """Return the facts (a Sighting) of a ready or new attached phone. Else return the stored facts, with the state updated."""
    if attached and (stored is None or attached.state == READY):
        return attached
    assert stored is not None
    if attached:
        return replace(stored, state=attached.state, host=attached.host)
    return replace(stored, state=GONE) if stored.host == host else stored


def _missing(entry: ExpectedPhone) -> FarmPhone:
    """Return a FarmPhone in state `missing` for a phone that farm.yaml lists but no host has ever seen."""
    seen = Sighting(
        device=lease_name(PHONE_FAMILY, entry.serial),
        address=entry.serial,
        serial=entry.serial,
        state=MISSING,
        model="",
        profile=None,
        chip=None,
        android_release=None,
        abi=None,
        host="",
    )
    return FarmPhone(name=entry.name, seen=seen, is_here=False, is_expected=True, own_labels=entry.labels)
