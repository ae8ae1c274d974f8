"""The session of a run or comparison in progress: devices, leases, the results database and the number of stored records."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeVar

import sqlalchemy as sa

from quadbench.artifacts import Bundle, DeviceFacts, Retry, RunRecord, StoredBundle, run_record
from quadbench.compile.availability import require
from quadbench.devices import Address, Device
from quadbench.devices.addresses import HostedAddress
from quadbench.devices.connections import HostedPhone, connect, hosted_phone
from quadbench.devices.lab.held import Held, held, require_any
from quadbench.devices.lab.inventory import Inventory
from quadbench.errors import ArtifactError, DeviceError, QuadbenchError, RunInterrupted, UserError
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import Budget
from quadbench.observer import Observer
from quadbench.pipeline.progress_observer import publish_progress
from quadbench.recipe import Measure, RunSettings, Runtime
from quadbench.results.digests import content_digest
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.results.records import RecordStore, open_records
from quadbench.results.stored_runs import RunFile, change_run, load_run_file, new_id, store_record
from quadbench.rollout import equipment
from quadbench.rollout.equipment import NO_OVERRIDES, Overrides, require_cores, require_equipment
from quadbench.rollout.recovery import Recovery

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


WorkT = TypeVar("WorkT", bound=RecordHooks)


@dataclass(frozen=True, kw_only=True)
class LeasedDevices:
    """The devices that a run or comparison has leased, its AI Hub phones (which need no lease), and the results database.

    `left_out` maps the address of each unavailable device to its error. It is None if the work needs all of its devices.
    """

    layout: Layout
    options: RunOptions
    devices: list[Device]
    phones: list[HostedPhone]
    leases: Held
    records: RecordStore
    left_out: dict[str, QuadbenchError] | None

    @property
    def profiles(self) -> list[str]:
        """Return a list with the profile name of each leased device, followed by the profile name of each AI Hub phone."""
        return [device.profile.name for device in self.devices] + [phone.profile.name for phone in self.phones]

    def require_equipped(self, cores: Sequence[int], overrides: Overrides = NO_OVERRIDES) -> None:
        """Raise if no device is available, or a device lacks harness, libraries, compiler or (if local) a CPU core in `cores`."""
        require_any([*self.devices, *self.phones], self.left_out)
        require_equipment(self.devices, self.layout, overrides)
        require_cores(cores, self.devices)


@contextmanager
def lease_devices(
    addresses: Sequence[Address], purpose: str, options: RunOptions, *, to_examine: bool = False, layout: Layout
) -> Iterator[LeasedDevices]:
    """Connect to devices and lease them, open the results database and yield `LeasedDevices`. Release all when the block ends.

    Raises:
        QuadbenchError: a device's profile is wrong, or the device is absent, leased by another job or in quarantine.
    """
    left_out: dict[str, QuadbenchError] | None = {} if options.keep_going else None
    phones = [hosted_phone(address) for address in addresses if isinstance(address, HostedAddress)]
    for phone in phones:
        require(phone.target, phone.address)
    own = [address for address in addresses if not isinstance(address, HostedAddress)]
    connected: AbstractContextManager[list[Device]] = nullcontext([])
    if own or not phones:  # without addresses, `connect` raises the error
        connected = connect(own, layout=layout, left_out=left_out)
    with (
        connected as reached,
        open_records(database_of(layout)) as records,
        held(reached, records.engine, purpose, to_examine=to_examine, left_out=left_out) as leases,
    ):
        yield LeasedDevices(
            layout=layout,
            options=options,
            devices=[device for device in reached if device.facts.address in leases.by_address],
            phones=phones,
            leases=leases,
            records=records,
            left_out=left_out,
        )


def require_devices(
    addresses: Sequence[Address], purpose: str, options: RunOptions, *, cores: Sequence[int] = (), layout: Layout
) -> None:
    """Check devices before a build. Raise QuadbenchError if a device is absent, leased by another job, in quarantine, or lacks
    harness, libraries or compiler. Raise UserError if a device uses this host's CPU and the host lacks a core in `cores`.

    If `options.keep_going` is set, an absent or leased device raises only if no device is left.
    """
    with lease_devices(addresses, purpose, options, to_examine=True, layout=layout) as leased:
        if leased.left_out is None:
            Inventory(leased.records.engine).require_usable(leased.devices)
        leased.require_equipped(cores)


@dataclass(frozen=True, kw_only=True)
class Session(Generic[WorkT]):
    """A run or comparison in progress: leased devices, observer, retries after lost connections, number of records by device."""

    work: WorkT
    leased: LeasedDevices
    observer: Observer
    retries: list[Retry] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)  # number of stored launches by device address

    @property
    def layout(self) -> Layout:
        """Return the `Layout`, the object that gives the paths of all files in the results folder."""
        return self.leased.layout

    @cached_property
    def recovery(self) -> Recovery:
        """Return the policy for lost devices: most retries, seconds to wait, and functions to check leases and record retries."""
        return Recovery(
            retries=self.leased.options.retries,
            wait_s=self.leased.options.wait_s,
            confirm=self.leased.leases.confirm,
            note=self.note_retry,
            observer=self.observer,
        )

    def launch_settings(self, run_id: str, runtime: Runtime, measure: Measure) -> LaunchSettings:
        """Return the settings that all launches of run `run_id` share, such as timeout and lease check."""
        return LaunchSettings(
            run_id=run_id,
            layout=self.layout,
            runtime=runtime,
            timeout_s=measure.timeout_s,
            gate=measure.gate,
            confirm=self.leased.leases.confirm,
        )

    def note_retry(self, device: Device, retry: Retry) -> None:
        """Count a device's lost connection against its health, and append the retry to `retries`, which the report lists."""
        self.leased.leases.note_lost(device, retry.reason)
        self.retries.append(retry)

    def store(self, record: RunRecord) -> None:
        """Store a launch's record in the database, update the device's health, and report the record to the observer.

        Raises:
            LeaseError: the device's lease, or the farm's attempt at the job, is no longer ours.
            StorageError: the record cannot be stored.
        """
        lease_guard = self.leased.leases.guard(record.device.address)

        def guard(connection: sa.Connection) -> None:
            self.work.guard(connection)
            if lease_guard:
                lease_guard(connection)

        self.work.keep_files(record)
        store_record(self.leased.records, record, self.layout, guard)
        self.kept[record.device.address] += 1
        self.leased.leases.note_record(record)
        self.observer.record_stored(record)


@dataclass(frozen=True, kw_only=True)
class RunSession(Session[RunPlan]):
    """A run in progress. `stored` has a resumed run's earlier launch records. A `budget` of None means unlimited time."""

    run_id: str
    stored: Sequence[RunRecord]
    budget: Budget | None

    def note_retry(self, device: Device, retry: Retry) -> None:
        """Count a device's lost connection against its health. Append the retry to `retries` and to run.json (if it exists)."""
        super().note_retry(device, retry)

        def with_retry(run: RunFile | None) -> RunFile:
            if run is None:
                raise ArtifactError(f"the run file of the run on '{retry.address}' is gone")
            return replace(run, retries=(*run.retries, retry))

        if self.layout.run_file(self.run_id).exists():
            change_run(self.layout, self.run_id, with_retry)


@contextmanager
def run_session(
    work: RunPlan, addresses: Sequence[Address], options: RunOptions, *, layout: Layout, observer: Observer
) -> Iterator[RunSession]:
    """Lease a run's devices, check their equipment and yield a `RunSession`. Release the devices when the `with` block ends.

    Raises:
        QuadbenchError: a device cannot be leased, lacks what it runs with, or is another one than before.
        RunInterrupted: Ctrl-C after the run has begun; what was measured is stored.
    """
    run_id, budget = work.run_id or new_id(), options.budget
    with (
        lease_devices(addresses, f"run of {work.name}", options, layout=layout) as leased,
        publish_progress(observer, layout, work.name, run_id) as seen,
    ):
        leased.require_equipped(work.terms.runtime.cores, work.overrides)
        stored = leased.records.run_records_if_any(work.run_id) if work.run_id else ()
        require_same_devices(leased.devices, (*work.devices, *(record.device for record in stored)))
        try:
            yield RunSession(work=work, leased=leased, observer=seen, run_id=run_id, stored=stored, budget=budget)
        except KeyboardInterrupt as interrupt:
            if not layout.run_file(run_id).exists():
                raise
            raise RunInterrupted(run_id) from interrupt
