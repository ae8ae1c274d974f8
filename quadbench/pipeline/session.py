"""The session of a run or comparison in progress: devices, leases, the results database and the number of stored records."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeVar

import sqlalchemy as sa

from quadbench.artifacts import Retry, RunRecord
from quadbench.compile.availability import require
from quadbench.devices import Address, Device
from quadbench.devices.addresses import HostedAddress
from quadbench.devices.connections import HostedPhone, connect, hosted_phone
from quadbench.devices.lab.held import Held, held, require_any
from quadbench.devices.lab.inventory import Inventory
from quadbench.errors import ArtifactError, QuadbenchError, RunInterrupted
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import Budget
from quadbench.observer import Observer
from quadbench.pipeline.progress_observer import publish_progress
from quadbench.pipeline.run_options import RecordHooks, RunOptions, RunPlan, require_same_devices
from quadbench.recipe import Measure, Runtime
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.records import RecordStore, open_records
from quadbench.results.stored_runs import RunFile, change_run, new_id, store_record
from quadbench.rollout.equipment import NO_OVERRIDES, Overrides, require_cores, require_equipment
from quadbench.rollout.recovery import Recovery

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
