"""A run under way: take its devices, install, measure, store every record as it comes, and write the run's file and report."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa

from quadbench.artifacts import Bundle, Deployment, ErrorClass, LaunchPlan, Retry, RunRecord, RunResult, Stored
from quadbench.artifacts.run_record import file_refs
from quadbench.compile.availability import require
from quadbench.devices import Device
from quadbench.devices.addresses import Address
from quadbench.devices.connections import HostedPhone, connect, hosted_phones
from quadbench.errors import ArtifactError, DeviceError, HarnessError, NoTimeError, QuadbenchError, RunInterrupted
from quadbench.farm.held import Held, held, require_any
from quadbench.farm.inventory import Inventory
from quadbench.harness.installation import Installation
from quadbench.measure.hosted import measure_hosted
from quadbench.measure.launch import Stop
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import Budget, launches_of_bundle, missing_blocks, planned_turns
from quadbench.measure.parallel_launches import Queue, Rest, measure_launches
from quadbench.observer import Observer
from quadbench.pipeline.progress_observer import seen_by_others
from quadbench.pipeline.work import Conduct, RecordHooks, Work, on_device, require_same_bundle, require_same_devices
from quadbench.recipe import Measure, Runtime
from quadbench.report.html import write_report
from quadbench.results.bundles import in_results
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.results.records import Records, open_records
from quadbench.results.stored_runs import RunFile, change_run, joined, keep_record, load_run, new_id, new_run_file
from quadbench.rollout import Rollout, compile_for, roll_out
from quadbench.rollout.equipment import require_cores, require_equipment
from quadbench.rollout.recovery import Recovery
from quadbench.target.abi import PHONE_MACHINE
from quadbench.target.targets import target_key

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one run. `failures` has the devices that were left out, with the reason."""

    result: RunResult
    report: Path
    failures: dict[str, QuadbenchError]

    @property
    def is_ok(self) -> bool:
        """Say whether every device took part and every launch is OK, or was discarded and repeated."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """Return 0, or the exit code of the first failure: of a device that was left out, else of a launch."""
        if self.failures:
            return next(iter(self.failures.values())).exit_code
        first = next((record for record in self.result.records if not record.status.is_fine), None)
        if first is None:
            return 0
        return DeviceError.exit_code if first.error_class is ErrorClass.DEVICE else HarnessError.exit_code


def execute(work: Work, addresses: Sequence[Address], conduct: Conduct, *, layout: Layout, observer: Observer) -> Outcome:
    """Measure on each device what its run does not have yet, and report the run.

    Raises:
        QuadbenchError, RunInterrupted: as `measure`.
    """
    run_id, failures = measure(work, addresses, conduct, layout=layout, observer=observer)
    return reported(run_id, failures, layout)


def reported(run_id: str, failures: dict[str, QuadbenchError], layout: Layout) -> Outcome:
    """Read a run that was measured, and write its report."""
    result = load_run(layout, run_id)
    return Outcome(result=result, report=write_report(result, layout), failures=failures)


def measure(
    work: Work, addresses: Sequence[Address], conduct: Conduct, *, layout: Layout, observer: Observer
) -> tuple[str, dict[str, QuadbenchError]]:
    """Measure on each device what its run does not have yet. Return the run's id, and by address why devices were left out.

    Raises:
        QuadbenchError: nothing could be built, a device cannot be taken or is not the run's, or every device failed.
        RunInterrupted: Ctrl-C after the run has begun; what was measured is stored.
    """
    run_id, budget = work.run_id or new_id(), conduct.budget
    phones = _hosted(addresses)
    with (
        lab_of(addresses, f"run of {work.name}", conduct, phones=phones, layout=layout) as lab,
        seen_by_others(observer, layout, work.name, run_id) as seen,
    ):
        devices, records = lab.devices, lab.records
        require_any([*devices, *phones], lab.left_out)
        require_equipment(devices, layout, work.gear)
        require_cores(work.terms.runtime.cores, devices)
        stored = records.of_run_if_any(work.run_id) if work.run_id else ()
        require_same_devices(devices, (*work.devices, *(record.device for record in stored)))
        profiles = [one.profile.name for one in devices] + [phone.profile.name for phone in phones]
        bundles = work.bundles_of(profiles, seen)
        bundles = {profile: in_results(bundle, layout) for profile, bundle in bundles.items()}
        require_same_bundle(bundles, stored)
        session = RunSession(
            layout=layout,
            observer=seen,
            leases=lab.leases,
            records=records,
            conduct=conduct,
            hooks=work,
            work=work,
            run_id=run_id,
            bundles=bundles,
            stored=stored,
            budget=budget,
        )
        failures = session.measure_all(devices, phones, lab.left_out or {})
        if not records.has_run(run_id):
            hint = f"give it more, or go on: {layout.command('run', '--resume', run_id)}"
            raise NoTimeError("the time of the run was over before its first launch", hint=hint)
        return run_id, failures


def require_devices(
    addresses: Sequence[Address], purpose: str, conduct: Conduct, *, cores: Sequence[int] = (), layout: Layout
) -> None:
    """Refuse devices that `measure` would refuse, before anything is built for them; `cores` are those that runs are pinned to.

    Raises:
        QuadbenchError: an address is wrong, or a device is absent, somebody else's, in quarantine, or lacks what it runs with.
    """
    phones = _hosted(addresses)
    with lab_of(addresses, purpose, conduct, phones=phones, to_examine=True, layout=layout) as lab:
        require_any([*lab.devices, *phones], lab.left_out)
        if lab.left_out is None:
            Inventory(lab.records.engine).require_usable(lab.devices)
        require_equipment(lab.devices, layout)
        require_cores(cores, lab.devices)


def _hosted(addresses: Sequence[Address]) -> list[HostedPhone]:
    """Return the phones at AI Hub that can be compiled for here."""
    phones = hosted_phones(addresses)
    for phone in phones:
        require(phone.target, phone.address)
    return phones


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The devices that work has leases of, and the database. `left_out` says by address why others are not among them.

    It is None where work does not begin without all of its devices.
    """

    devices: list[Device]
    leases: Held
    records: Records
    left_out: dict[str, QuadbenchError] | None


@contextmanager
def lab_of(
    addresses: Sequence[Address],
    purpose: str,
    conduct: Conduct,
    *,
    phones: Sequence[HostedPhone] = (),
    to_examine: bool = False,
    layout: Layout,
) -> Iterator[Lab]:
    """Connect devices, open the database and take the devices' leases, for as long as the block lasts.

    `phones` are those at AI Hub among the addresses, which are not connected.

    Raises:
        QuadbenchError: an address is wrong, or a device is absent, somebody else's or in quarantine.
    """
    left_out: dict[str, QuadbenchError] | None = {} if conduct.keep_going else None
    elsewhere = {phone.address for phone in phones}
    own = [address for address in addresses if address.text not in elsewhere]
    connected: AbstractContextManager[list[Device]] = nullcontext([])
    if own or not phones:  # without any address it is for `connect` to say what is missing
        connected = connect(own, layout=layout, left_out=left_out)
    with (
        connected as reached,
        open_records(database_of(layout)) as records,
        held(reached, records.engine, purpose, to_examine=to_examine, left_out=left_out) as leases,
    ):
        devices = [device for device in reached if device.facts.address in leases.by_address]
        yield Lab(devices=devices, leases=leases, records=records, left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run or a comparison under way: its devices and its database, who watches it, and what came of it so far."""

    layout: Layout
    observer: Observer
    leases: Held
    records: Records
    conduct: Conduct
    hooks: RecordHooks
    retries: list[Retry] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)  # launches by the address of their device

    @cached_property
    def recovery(self) -> Recovery:
        """Return its patience with devices that are lost."""
        return Recovery(
            retries=self.conduct.retries,
            wait_s=self.conduct.wait_s,
            confirm=self.leases.confirm,
            note=self.note_retry,
            observer=self.observer,
            stop=Stop(),
        )

    def launch_settings(self, run_id: str, runtime: Runtime, measure: Measure) -> LaunchSettings:
        """Return how the launches of a run are run."""
        return LaunchSettings(
            run_id=run_id,
            layout=self.layout,
            runtime=runtime,
            timeout_s=measure.timeout_s,
            gate=measure.gate,
            confirm=self.leases.confirm,
        )

    def note_retry(self, device: Device, retry: Retry) -> None:
        """Note that a device was lost and is back, for the report and the phone's health."""
        self.leases.note_lost(device, retry.reason)
        self.retries.append(retry)

    def keep(self, record: RunRecord) -> None:
        """Store a record of a launch, and tell who wants to know of it.

        Raises:
            LeaseError: its device, or the work itself, is somebody else's by now.
            StorageError: it cannot be stored.
        """
        lease_guard = self.leases.guard(record.device.address)

        def guard(connection: sa.Connection) -> None:
            self.hooks.guard(connection)
            if lease_guard:
                lease_guard(connection)

        self.hooks.keep_files(record)
        keep_record(self.records, record, self.layout, guard)
        self.kept[record.device.address] += 1
        self.leases.note_record(record)
        self.observer.record(record)


@dataclass(frozen=True, kw_only=True)
class RunSession(Session):
    """A run under way, its bundles built: by device profile the one that its devices run. `stored` was there before."""

    work: Work
    run_id: str
    bundles: Mapping[str, Stored[Bundle]]
    stored: Sequence[RunRecord]
    budget: Budget | None

    @cached_property
    def launches(self) -> Sequence[LaunchPlan]:
        """Return what each connected device runs."""
        content = next(iter(self.bundles.values())).artifact  # of inputs, references and tasks with graphs all have the same
        return launches_of_bundle(self.work.terms, content, seed=self.run_id)

    def measure_all(
        self, devices: Sequence[Device], phones: Sequence[HostedPhone], unreached: Mapping[str, QuadbenchError]
    ) -> dict[str, QuadbenchError]:
        """Push, measure, and note how far the run has come. Return by address why devices were left out, also the unreached."""
        try:
            rollout = self._rolled_out(devices, phones) if devices else Rollout()
            begun = self._begun(rollout.deployments, devices, phones)
            rests = self._measured(rollout) if devices else {}
            hosted = self._measured_hosted(phones)
        except KeyboardInterrupt as interrupt:
            if not self.layout.run_file(self.run_id).exists():
                raise
            raise RunInterrupted(self.run_id) from interrupt
        if not rollout.installations and len(hosted) == len(phones):
            raise next(iter({**rollout.failures, **hosted}.values()))
        given_up = {address: rest.given_up for address, rest in rests.items() if rest.given_up}
        removed = self._removed()
        failures = {**unreached, **rollout.failures, **given_up, **hosted, **removed}
        left_out = {address: str(error) for address, error in failures.items()}
        left_out |= {address: _no_time(rest.launches) for address, rest in rests.items() if rest.launches}
        is_open = bool(rests or removed) or any(error.transient for error in (*rollout.failures.values(), *hosted.values()))
        here = [*(device.facts.address for device in devices), *(phone.address for phone in phones)]
        self._note_end(begun, here, left_out, is_open=is_open)
        return failures

    def _removed(self) -> dict[str, QuadbenchError]:
        """Return by address what is wrong where launches that were stored are stored no more."""
        kept = self.kept + Counter(record.device.address for record in self.stored)
        gone = kept - Counter(self.records.counts(self.run_id))
        hint = f"measure them again: {self.layout.command('run', '--resume', self.run_id)}"
        return {
            address: ArtifactError(f"{count} of its launches were removed from the database while the run went on", hint=hint)
            for address, count in gone.items()
        }

    def _rolled_out(self, devices: Sequence[Device], phones: Sequence[HostedPhone]) -> Rollout:
        """Install everywhere. Where every device fails, the run goes on if it has phones at AI Hub."""
        failures: dict[str, QuadbenchError] = {}

        def note(device: Device, error: QuadbenchError) -> None:
            self.leases.note_left_out(device, error)
            failures[device.facts.address] = error

        try:
            return roll_out(
                [self.bundles[device.profile.name] for device in devices],
                devices,
                layout=self.layout,
                observer=self.observer,
                gear=self.work.gear,
                left_out=note,
                recovery=self.recovery,
            )
        except QuadbenchError:
            if not (failures and phones):
                raise
            return Rollout(failures=failures)

    def _begun(self, deployments: tuple[Deployment, ...], devices: Sequence[Device], phones: Sequence[HostedPhone]) -> RunFile:
        """Write the run's file, or add to it what is new of a run that goes on."""
        begun = new_run_file(
            self.run_id,
            self.bundles,
            self.work.terms,
            deployments=deployments,
            planned=Counter(launch.variant for launch in self.launches),
            devices=tuple(device.facts for device in devices),
            hosted=tuple(phone.address for phone in phones),
            is_part=self.work.is_part,
        )
        begun = replace(begun, retries=tuple(self.retries))
        return change_run(self.layout, self.run_id, lambda run: joined(run, begun) if run else begun)

    def note_retry(self, device: Device, retry: Retry) -> None:
        """Note it in the run's file too, once that is there; before that it is written with what the run begins with."""
        super().note_retry(device, retry)

        def with_retry(run: RunFile | None) -> RunFile:
            if run is None:
                raise ArtifactError(f"the file of the run on '{retry.address}' is gone")
            return replace(run, retries=(*run.retries, retry))

        if self.layout.run_file(self.run_id).exists():
            change_run(self.layout, self.run_id, with_retry)

    def _note_end(self, begun: RunFile, here: Sequence[str], left_out: Mapping[str, str], *, is_open: bool) -> None:
        """Note what was left out, and whether anything is left on the devices `here`, or on others of the run."""
        elsewhere = [address for address in begun.addresses if address not in here]
        stored = self.records.of_run_if_any(self.run_id) if elsewhere else ()

        def lacks_records(address: str) -> bool:
            there = on_device(stored, address)
            return not there if address in begun.hosted else bool(missing_blocks(self.launches, there))

        is_open |= any(map(lacks_records, elsewhere))

        def ended(run: RunFile | None) -> RunFile:
            before = {address: why for address, why in (run or begun).left_out.items() if address not in here}
            return replace(run or begun, is_ended=not is_open, left_out=before | dict(left_out))

        change_run(self.layout, self.run_id, ended)

    def _measured(self, rollout: Rollout) -> dict[str, Rest]:
        """Measure what is missing on the devices that are connected, and return by address what is left of it."""
        # The pictures that each launch is compared with, and what no device takes.
        for bundle in {installation.bundle.folder: installation.bundle for installation in rollout.installations}.values():
            check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
        queues = [self._queue(installation, rollout) for installation in rollout.installations]
        return measure_launches(queues, keep=self.keep, observer=self.observer, stop=self.recovery.stop)

    def _queue(self, installation: Installation, rollout: Rollout) -> Queue:
        measure, device = self.work.terms.measure, installation.device
        again = rollout.again[installation.address]
        turns = planned_turns(
            installation,
            self.launches,
            self.launch_settings(self.run_id, self.work.terms.runtime, measure),
            repeats=measure.gate.retries if measure.order == "abba" else 0,
            stored=on_device(self.stored, installation.address),
            budget=self.budget,
        )
        return Queue(device=device, turns=turns, regain=lambda lost: self.recovery.regained(device, lost, again))

    def _measured_hosted(self, phones: Sequence[HostedPhone]) -> dict[str, QuadbenchError]:
        """Compile for phones at AI Hub and run the graphs there. Return by address why some gave no records."""
        failures = {}
        for phone in phones:
            if on_device(self.stored, phone.address):
                continue  # its records come all at once
            try:
                for record in self._hosted_records(phone):
                    self.keep(record)
            except QuadbenchError as error:
                log.info("%s is left out: %s", phone.address, error)
                failures[phone.address] = error
        return failures

    def _hosted_records(self, phone: HostedPhone) -> Sequence[RunRecord]:
        key, htp_arch = target_key(phone.target, PHONE_MACHINE), phone.profile.soc.htp_arch
        bundle = self.bundles[phone.profile.name]
        product = compile_for(bundle, phone.target, key, htp_arch, layout=self.layout, observer=self.observer)
        check_contents(product, file_refs(product.artifact.graphs))  # no device checks what is uploaded
        return measure_hosted(
            bundle.artifact,
            product,
            phone,
            run_id=self.run_id,
            iterations=self.work.terms.measure.iterations,
            ledger=self.layout.ledger,
            notify=lambda step: self.observer.step("profile", f"{phone.address}: {step}"),
        )


def _no_time(launches: Sequence[LaunchPlan]) -> str:
    """Say which launches the run's time did not suffice for."""
    counts = Counter(launch.variant for launch in launches)
    return f"no time was left for {', '.join(f'{count} of {variant}' for variant, count in counts.items())}"
