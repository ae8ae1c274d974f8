"""The inventory of phones: a database table of all phones that any host has seen, with their health."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.devices.lab.health import Health, PhoneCondition, after_failure, after_good_job
from quadbench.devices.lab.leases import lease_name
from quadbench.errors import DeviceError, UnknownNameError
from quadbench.host import host_name
from quadbench.results.engine import begin_read, begin_write, database_now, upsert
from quadbench.results.schema import PhoneRow

PHONE_FAMILY = "adb"
READY = "device"  # adb's state of a ready phone
_CONDITION = ("health", "reason", "failures", "good_jobs")
_SEEN = ("address", "serial", "state", "model", "profile", "chip", "android_release", "abi", "host")


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A phone's facts as a host last saw them. `device` is its name in leases, `address` its --devices value on `host`."""

    device: str
    address: str
    serial: str
    state: str
    model: str
    profile: str | None
    chip: str | None
    android_release: str | None
    abi: str | None
    host: str


@dataclass(frozen=True, kw_only=True)
class InventoryPhone:
    """A phone in the inventory: what a host last learned (`seen`), when (`last_seen`), and the phone's health (`condition`)."""

    seen: Sighting
    last_seen: datetime
    condition: PhoneCondition


class Inventory:
    """The phone inventory in a database. Methods raise StorageError if it cannot be accessed, ArtifactError if it is damaged."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def note_seen(self, sightings: Sequence[Sighting]) -> None:
        """Store that phones were seen now. For a known phone that adb reports as not ready, update only state, host and time."""
        with begin_write(self._engine) as connection:
            for sighting in sightings:
                _note(connection, sighting, _SEEN if sighting.state == READY else ("state", "host"))

    def phones(self, devices: Collection[str] | None = None) -> list[InventoryPhone]:
        """Return an InventoryPhone for each phone in the inventory, or those of `devices`, sorted by their names in leases."""
        query = sa.select(*PhoneRow.__table__.columns).order_by(PhoneRow.device)
        with begin_read(self._engine) as connection:
            rows = connection.execute(query if devices is None else query.where(PhoneRow.device.in_(devices))).mappings()
            return [
                InventoryPhone(
                    seen=Sighting(device=row["device"], **{name: row[name] for name in _SEEN}),
                    last_seen=row["last_seen"],
                    condition=_condition(row),
                )
                for row in rows
            ]

    def change(self, device: str, decide: Callable[[PhoneCondition], PhoneCondition]) -> PhoneCondition:
        """Replace a phone's PhoneCondition in the database by `decide(old condition)`. Return the new PhoneCondition.

        Raises:
            UnknownNameError: it was never seen.
        """
        with begin_write(self._engine) as connection:
            query = sa.select(*PhoneRow.__table__.columns).where(PhoneRow.device == device).with_for_update()
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                raise UnknownNameError("phone", device, connection.scalars(sa.select(PhoneRow.device)))
            condition = decide(_condition(row))
            connection.execute(sa.update(PhoneRow).where(PhoneRow.device == device).values(_columns(condition)))
            return condition

    def forget(self, device: str) -> None:
        """Remove a phone and its health. If the phone is attached again, it counts as new and healthy.

        Raises:
            UnknownNameError: it was never seen.
        """
        with begin_write(self._engine) as connection:
            if not connection.execute(sa.delete(PhoneRow).where(PhoneRow.device == device)).rowcount:
                raise UnknownNameError("phone", device, connection.scalars(sa.select(PhoneRow.device)))

    def require_usable(self, devices: Sequence[Device]) -> None:
        """Raise DeviceError if any of the devices is a phone in quarantine.

        Raises:
            DeviceError: names the first such device, with the reason.
        """
        names = {device.facts.address: lease_name(device.family, device.serial) for device in devices}
        conditions = {phone.seen.device: phone.condition for phone in self.phones(names.values())}
        for device in devices:
            condition = conditions.get(names[device.facts.address], PhoneCondition())
            if condition.health is Health.QUARANTINED:
                address = device.facts.address
                raise DeviceError(
                    f"device '{address}' is in quarantine: {condition.reason}",
                    hint=f"see what is wrong (quadbench doctor --device {address}), then: quadbench devices release {address}",
                )

    def note_job(self, device: Device, failure: str | None) -> None:
        """Update the health of `device` after a job if it is a phone. `failure` is the error text, or None after a good job."""
        if device.family != PHONE_FAMILY:
            return
        name = lease_name(device.family, device.serial)
        with begin_write(self._engine) as connection:
            _note(
                connection, _sighting(name, device), ("state", "host")
            )  # what else it is, `quadbench devices` asks the phone itself
        reason = None if failure is None else one_line(failure)
        self.change(name, after_good_job if reason is None else lambda condition: after_failure(condition, reason))


def _note(connection: sa.Connection, sighting: Sighting, updated: Sequence[str]) -> None:
    """Insert a phone into the inventory. If the phone is there already, update `last_seen` and the columns named in `updated`."""
    seen = {name: getattr(sighting, name) for name in _SEEN} | {"last_seen": database_now(connection)}
    insert = upsert(connection, PhoneRow).values({"device": sighting.device, **seen, **_columns(PhoneCondition())})
    changes = {name: seen[name] for name in (*updated, "last_seen")}
    connection.execute(insert.on_conflict_do_update(index_elements=[PhoneRow.device], set_=changes))


def _sighting(name: str, device: Device) -> Sighting:
    facts = device.facts
    return Sighting(
        device=name,
        address=f"{facts.profile}@{facts.serial}",
        serial=facts.serial,
        state=READY,
        model=facts.title,
        profile=facts.profile,
        chip=facts.soc_model,
        android_release=facts.android_release,
        abi=device.abi.value,
        host=host_name(),
    )


def _condition(row: sa.RowMapping) -> PhoneCondition:
    return PhoneCondition(health=Health(row["health"]), **{name: row[name] for name in _CONDITION if name != "health"})


def _columns(condition: PhoneCondition) -> dict[str, object]:
    return {name: getattr(condition, name) for name in _CONDITION} | {"health": condition.health.value}
