"""The plan of a run, its options (retries of lost devices, time budget), and checks before an interrupted run is resumed."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from quadbench.artifacts import Bundle, DeviceFacts, RunRecord, StoredBundle, run_record
from quadbench.devices import Address, Device
from quadbench.errors import ArtifactError, DeviceError, UserError
from quadbench.measure.launch_schedule import Budget
from quadbench.recipe import RunSettings
from quadbench.results.digests import content_digest
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, load_run_file
from quadbench.rollout import equipment

_BEGIN_ANEW = "start a new run of the recipe; existing records stay stored"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run: retries of a lost device, seconds to wait for its return, and time budget in seconds.

    With `keep_going`, unreachable or leased devices are left out; otherwise the run does not start without them.
    """

    retries: int = run_record.RETRIES
    wait_s: float = run_record.WAIT_S
    budget_s: float | None = None
    keep_going: bool = False

    @property
    def budget(self) -> Budget | None:
        """Return the run's `Budget`, which ends `budget_s` seconds from now, or None if the run has no time limit."""
        return None if self.budget_s is None else Budget(ends_at=time.monotonic() + self.budget_s)

    def since(self, began: float) -> "RunOptions":
        """Return these options with the time budget reduced by the seconds since the monotonic time `began`."""
        return self if self.budget_s is None else replace(self, budget_s=self.budget_s - (time.monotonic() - began))


DEFAULT_RUN = RunOptions()


@dataclass(frozen=True, kw_only=True)
class RecordHooks:
    """Functions that a farm job hands to its run: one copies a launch's files, one raises if the job has lost its lease.

    `keep_files` is called with each record before it is stored, and may copy its launch's files elsewhere. `guard` runs in the
    record's transaction and raises if we may no longer store it. `is_part`: this is one job's part of a run of the farm.
    """

    keep_files: Callable[[RunRecord], object] = field(default=lambda _: None)
    guard: Callable[[sa.Connection], object] = field(default=lambda _: None)
    is_part: bool = False


@dataclass(frozen=True, kw_only=True)
class RunPlan(RecordHooks):
    """A run plan: recipe name, measurement settings, and `overrides` that replace default harness, libraries or graphs.

    `run_id` and `devices` belong to a resumed run, which may have no record yet. `run_id=None` begins a new run.
    """

    name: str
    terms: RunSettings
    run_id: str | None = None
    devices: tuple[DeviceFacts, ...] = ()
    overrides: equipment.Overrides = equipment.NO_OVERRIDES


def bundles_of(run_file: RunFile, addresses: Sequence[Address], layout: Layout) -> dict[str, StoredBundle]:
    """Return an interrupted run's bundles, keyed by folder name. Raise if the run cannot be resumed on devices at `addresses`."""
    if not run_file.planned:
        raise UserError(f"run {run_file.run_id} belongs to a comparison and cannot be resumed", hint="compare again")
    _require_unfinished(run_file, layout)
    unknown = [address for address in addresses if address.text not in run_file.addresses]
    if unknown:
        known = ", ".join(run_file.addresses)
        raise UserError(
            f"run {run_file.run_id} has no device '{unknown[0]}'", hint=f"name some of {known}, or leave --devices out"
        )
    return {name: _bundle(run_file, name, layout) for name in (run_file.bundle, *run_file.others.values())}


def _require_unfinished(run_file: RunFile, layout: Layout) -> None:
    """Raise if a run has nothing to resume: it has ended, and each planned launch has its record in the database."""
    if not run_file.is_ended:
        return
    with open_records(database_of(layout)) as records:
        stored = records.counts(run_file.run_id)
    if not stored:
        raise ArtifactError(f"run {run_file.run_id} has ended, but its records are gone", hint=_BEGIN_ANEW)
    if not run_file.missing_launches(stored):
        hint = layout.command("report", run_file.run_id)
        raise UserError(f"run {run_file.run_id} has ended, and no launch is missing", hint=hint)


def _bundle(run_file: RunFile, name: str, layout: Layout) -> StoredBundle:
    folder = layout.bundles / name
    if not folder.exists():
        raise ArtifactError(f"run {run_file.run_id} cannot be resumed: its bundle '{folder}' is gone", hint=_BEGIN_ANEW)
    bundle = read_manifest(folder, Bundle)
    if content_digest(bundle.artifact) != run_file.contents.get(name):
        reason = f"files of its bundle '{folder}' have changed since the run began"
        raise ArtifactError(f"run {run_file.run_id} cannot be resumed: {reason}", hint=_BEGIN_ANEW)
    return bundle


def resumable_bundle(run_id: str, layout: Layout) -> Bundle:
    """Return the `Bundle` that is named first in an interrupted run's run.json. The run's other bundles have the same tasks.

    Raises:
        UserError: the run has ended.
        ArtifactError: a bundle is gone or was changed, or the run's records are gone.
    """
    run_file = load_run_file(layout, run_id)
    return bundles_of(run_file, (), layout)[run_file.bundle].artifact


def require_same_devices(devices: Sequence[Device], known: Iterable[DeviceFacts]) -> None:
    """Raise if an address of a resumed run now leads to a device whose serial number differs from before."""
    serials = {facts.address: facts.serial for facts in known}
    for device in devices:
        address = device.facts.address
        if (serial := serials.get(address, device.serial)) != device.serial:
            raise DeviceError(
                f"'{address}' is now another phone: its serial is {device.serial}, but the run used {serial}",
                hint="attach the run's phone, or name only the run's other devices with --devices",
            )


def require_same_bundle(bundles: Mapping[str, StoredBundle], stored: Sequence[RunRecord]) -> None:
    """Raise if a launch record's bundle digest differs from the bundle that `bundles` has under the record's device profile."""
    for record in stored:
        bundle = bundles.get(record.device.profile)
        if bundle and bundle.artifact.digest != record.bundle_digest:
            had, has = record.bundle_digest[:12], bundle.artifact.digest[:12]
            raise ArtifactError(f"run {record.run_id} measured bundle {had} on '{record.device.address}', not {has}")


def on_device(records: Sequence[RunRecord], address: str) -> list[RunRecord]:
    """Return only those launch records that were measured on the device with this address."""
    return [record for record in records if record.device.address == address]
