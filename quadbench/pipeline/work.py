"""Work of a run: what it measures, with which retries and in what time; and what is left of a run that was cut short."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from quadbench.artifacts import Bundle, DeviceFacts, RunRecord, Stored
from quadbench.devices import Address, Device
from quadbench.errors import ArtifactError, DeviceError, UserError
from quadbench.measure.launch_schedule import Budget
from quadbench.recipe import Terms
from quadbench.results.digests import content_digest
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, load_run_file
from quadbench.rollout import equipment, recovery

_BEGIN_ANEW = "begin a new run of the recipe; what was measured stays stored"


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """The conduct of a run: how often a device that was lost is waited for, and how long; and how long the run may take.

    With `keep_going`, devices that cannot be reached or taken are left out; else nothing is begun without them.
    """

    retries: int = recovery.RETRIES
    wait_s: float = recovery.WAIT_S
    budget_s: float | None = None
    keep_going: bool = False

    @property
    def budget(self) -> Budget | None:
        """Return the time of a run that begins now; None is as long as it takes."""
        return None if self.budget_s is None else Budget(ends_at=time.monotonic() + self.budget_s)

    def since(self, began: float) -> "Conduct":
        """Return the conduct of one of several runs in the time of all, which began at this moment of the monotonic clock."""
        return self if self.budget_s is None else replace(self, budget_s=self.budget_s - (time.monotonic() - began))


USUAL = Conduct()


@dataclass(frozen=True, kw_only=True)
class RecordHooks:
    """Hooks of a farm into work that is measured for it.

    `keep_files` is told of each record before it is stored, and may keep the files of its launch elsewhere. `guard` refuses,
    within its transaction, a record that is no longer the work's to store. `is_part`: another results folder keeps the run.
    """

    keep_files: Callable[[RunRecord], object] = field(default=lambda _: None)
    guard: Callable[[sa.Connection], object] = field(default=lambda _: None)
    is_part: bool = False


@dataclass(frozen=True, kw_only=True)
class Work(RecordHooks):
    """The work of a run: its recipe's name and measurement settings, and the equipment it uses.

    `run_id` and `devices` are those of a run that is resumed, which need have no record yet; None begins a new run.
    """

    name: str
    terms: Terms
    run_id: str | None = None
    devices: tuple[DeviceFacts, ...] = ()
    gear: equipment.Gear = equipment.NO_GEAR


def bundles_of(begun: RunFile, addresses: Sequence[Address], layout: Layout) -> dict[str, Stored[Bundle]]:
    """Return the bundles of a run that goes on, on the addresses that were given again, by the names of their folders."""
    if not begun.planned:
        raise UserError(f"run {begun.run_id} is a side of a comparison, which cannot go on", hint="compare anew")
    _require_unfinished(begun, layout)
    unknown = [address for address in addresses if address.text not in begun.addresses]
    if unknown:
        known = ", ".join(begun.addresses)
        raise UserError(
            f"run {begun.run_id} has no device '{unknown[0]}'", hint=f"its devices are {known}, or leave --devices out"
        )
    return {name: _bundle(begun, name, layout) for name in (begun.bundle, *begun.others.values())}


def _require_unfinished(begun: RunFile, layout: Layout) -> None:
    """Refuse a run that has ended, unless launches that it measured are stored no more."""
    if not begun.is_ended:
        return
    with open_records(database_of(layout)) as records:
        stored = records.counts(begun.run_id)
    if not stored:
        raise ArtifactError(f"run {begun.run_id} had come to its end, and its records are gone", hint=_BEGIN_ANEW)
    if not begun.lacking(stored):
        hint = layout.command("report", begun.run_id)
        raise UserError(f"run {begun.run_id} has come to its end: nothing of it is missing", hint=hint)


def _bundle(begun: RunFile, name: str, layout: Layout) -> Stored[Bundle]:
    folder = layout.bundles / name
    if not folder.exists():
        raise ArtifactError(f"run {begun.run_id} cannot go on: its bundle '{folder}' is gone", hint=_BEGIN_ANEW)
    bundle = read_manifest(folder, Bundle)
    if content_digest(bundle.artifact) != begun.contents.get(name):
        reason = f"its bundle '{folder}' has other files than when the run began"
        raise ArtifactError(f"run {begun.run_id} cannot go on: {reason}", hint=_BEGIN_ANEW)
    return bundle


def resumable_bundle(run_id: str, layout: Layout) -> Bundle:
    """Return the bundle of a run that can go on; of several, which have the same tasks, the first.

    Raises:
        UserError: it has ended.
        ArtifactError: a bundle is gone or was changed, or the run's records are gone.
    """
    begun = load_run_file(layout, run_id)
    return bundles_of(begun, (), layout)[begun.bundle].artifact


def require_same_devices(devices: Sequence[Device], known: Iterable[DeviceFacts]) -> None:
    """Refuse a device at whose address a run had another one."""
    serials = {facts.address: facts.serial for facts in known}
    for device in devices:
        address = device.facts.address
        if (serial := serials.get(address, device.serial)) != device.serial:
            raise DeviceError(
                f"'{address}' is another phone now: its serial is {device.serial}, that of the run's is {serial}",
                hint="attach the run's, or go on without it: name its other devices with --devices",
            )


def require_same_bundle(bundles: Mapping[str, Stored[Bundle]], stored: Sequence[RunRecord]) -> None:
    """Refuse a bundle that is not the one of which a device of a run has records."""
    for record in stored:
        bundle = bundles.get(record.device.profile)
        if bundle and bundle.artifact.digest != record.bundle_digest:
            had, has = record.bundle_digest[:12], bundle.artifact.digest[:12]
            raise ArtifactError(f"run {record.run_id} measured bundle {had} on '{record.device.address}', not {has}")


def on_device(records: Sequence[RunRecord], address: str) -> list[RunRecord]:
    """Return the records of one device."""
    return [record for record in records if record.device.address == address]
