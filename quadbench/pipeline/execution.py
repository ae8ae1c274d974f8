"""Execution: what a run measures, and device addresses -> its records, stored as they come, its file and its report."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from quadbench.artifacts import Bundle, Deployment, ErrorClass, LaunchPlan, RunRecord, RunResult, Status, Stored
from quadbench.artifacts.parts import file_refs, has_references, item_counts
from quadbench.compile.availability import require
from quadbench.devices import Device, HostedPhone, connect, hosted_phones
from quadbench.errors import DeviceError, HarnessError, QuadbenchError, RunInterrupted
from quadbench.farm.held import Held, held
from quadbench.harness.installation import Installation
from quadbench.measure import (
    LaunchSettings,
    Queue,
    Turns,
    launches_of,
    measure_hosted,
    measure_launches,
    missing_blocks,
    planned_turns,
)
from quadbench.observer import Observer
from quadbench.pipeline.resumption import on_device, require_same_bundle, require_same_devices
from quadbench.pipeline.work import Work
from quadbench.recipe import Terms
from quadbench.report import write_report
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.results.records import Records, open_records
from quadbench.results.run_changes import change_run, joined
from quadbench.results.runs import RunFile, keep_record, load_run, new_id, new_run_file
from quadbench.rollout import Rollout, compile_for, roll_out
from quadbench.rollout.equipment import require_cores, require_equipment
from quadbench.target.known import PHONE_MACHINE
from quadbench.target.targets import target_key

_FINE = {Status.OK, Status.DISCARDED}

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
        first = next((record for record in self.result.records if record.status not in _FINE), None)
        if first is None:
            return 0
        return DeviceError.exit_code if first.error_class is ErrorClass.DEVICE else HarnessError.exit_code


def execute(work: Work, addresses: Sequence[str], *, layout: Layout, observer: Observer) -> Outcome:
    """Measure on each device what its run does not have yet, and report the run.

    Raises:
        QuadbenchError: nothing could be built, a device cannot be taken or is not the run's, or every device failed.
        RunInterrupted: Ctrl-C after the run has begun; what was measured is stored.
    """
    phones = hosted_phones(addresses)
    for phone in phones:
        require(phone.target, phone.address)
    with (
        _reached(addresses, phones, layout) as devices,
        open_records(database_of(layout)) as records,
        held(devices, records.engine, f"run of {work.name}") as leases,
    ):
        require_equipment(devices, layout)
        require_cores(work.terms.runtime.cores, devices)
        stored = records.of_run_if_any(work.run_id) if work.run_id else ()
        require_same_devices(devices, (*work.devices, *(record.device for record in stored)))
        bundles = work.bundles_of([device.profile.name for device in devices] + [phone.profile.name for phone in phones])
        require_same_bundle(bundles, stored)
        run = _Run(
            terms=work.terms,
            run_id=work.run_id or new_id(),
            bundles=bundles,
            stored=stored,
            layout=layout,
            records=records,
            leases=leases,
            observer=observer,
        )
        failures = run.measure_all(devices, phones)
    result = load_run(layout, run.run_id)
    return Outcome(result=result, report=write_report(result, layout), failures=failures)


def _reached(addresses: Sequence[str], hosted: Sequence[HostedPhone], layout: Layout) -> AbstractContextManager[list[Device]]:
    """Connect the devices that are not at AI Hub. Without any address it is for `connect` to say what is missing."""
    elsewhere = {phone.address for phone in hosted}
    reached = [address for address in addresses if address.strip() not in elsewhere]
    return connect(reached, layout=layout) if reached or not hosted else nullcontext([])


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run under way, its bundles built: by device profile the one that its devices run. `stored` was there before."""

    terms: Terms
    run_id: str
    bundles: Mapping[str, Stored[Bundle]]
    stored: Sequence[RunRecord]
    layout: Layout
    records: Records
    leases: Held
    observer: Observer

    @property
    def launches(self) -> Sequence[LaunchPlan]:
        """Return what each connected device runs."""
        content = next(iter(self.bundles.values())).artifact  # of inputs and references all have the same
        return launches_of(self.terms, item_counts(content), has_references=has_references(content))

    def measure_all(self, devices: Sequence[Device], phones: Sequence[HostedPhone]) -> dict[str, QuadbenchError]:
        """Push, measure, and note how far the run has come. Return by address why some devices were left out.

        Raises:
            QuadbenchError: every device failed.
            RunInterrupted: Ctrl-C after the run has begun.
        """
        try:
            rollout = self._rolled_out(devices) if devices else Rollout(installations=(), failures={})
            begun = self._begun(rollout.deployments, devices, phones)
            if devices:
                self._measure(rollout)
            failures = rollout.failures | self._measure_hosted(phones)
        except KeyboardInterrupt as interrupt:
            if not self.layout.run_file(self.run_id).exists():
                raise
            raise RunInterrupted(self.run_id) from interrupt
        if not devices and len(failures) == len(phones):
            raise next(iter(failures.values()))
        if not self._is_missing_elsewhere(begun, [device.facts.address for device in devices]):
            change_run(self.layout, self.run_id, lambda run: replace(run or begun, is_ended=True))
        return failures

    def _rolled_out(self, devices: Sequence[Device]) -> Rollout:
        everywhere = [self.bundles[device.profile.name] for device in devices]
        return roll_out(everywhere, devices, layout=self.layout, observer=self.observer, left_out=self.leases.note_left_out)

    def _begun(self, deployments: tuple[Deployment, ...], devices: Sequence[Device], phones: Sequence[HostedPhone]) -> RunFile:
        """Write the run's file, or add to it what is new of a run that goes on."""
        begun = new_run_file(
            self.run_id,
            self.bundles,
            self.terms,
            deployments=deployments,
            planned=Counter(launch.variant for launch in self.launches),
            devices=tuple(device.facts for device in devices),
            hosted=tuple(phone.address for phone in phones),
        )
        return change_run(self.layout, self.run_id, lambda run: joined(run, begun) if run else begun)

    def _is_missing_elsewhere(self, begun: RunFile, here: Sequence[str]) -> bool:
        """Say whether devices of the run lack launches that are none of those `here`, which have done what they could."""
        elsewhere = [device for device in begun.devices if device.address not in here]
        stored = self.records.of_run_if_any(self.run_id) if elsewhere else ()
        return any(missing_blocks(self.launches, on_device(stored, device.address)) for device in elsewhere)

    def _measure(self, rollout: Rollout) -> None:
        """Measure what is missing on the devices that are connected."""
        # The pictures that each launch is compared with, and what no device takes.
        for bundle in {installation.bundle.folder: installation.bundle for installation in rollout.installations}.values():
            check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
        queues = [Queue(device=one.device, turns=self._turns(one)) for one in rollout.installations]
        measure_launches(queues, keep=self._keep, observer=self.observer)

    def _turns(self, installation: Installation) -> Turns:
        measure = self.terms.measure
        settings = LaunchSettings(
            run_id=self.run_id,
            layout=self.layout,
            runtime=self.terms.runtime,
            timeout_s=measure.timeout_s,
            gate=measure.gate,
            confirm=self.leases.confirm,
        )
        retries = measure.gate.retries if measure.order == "abba" else 0
        stored = on_device(self.stored, installation.address)
        return planned_turns(installation, self.launches, settings, retries=retries, stored=stored)

    def _measure_hosted(self, phones: Sequence[HostedPhone]) -> dict[str, QuadbenchError]:
        """Compile for phones at AI Hub and run the graphs there. Return by address why some gave no records."""
        failures = {}
        for phone in phones:
            if on_device(self.stored, phone.address):
                continue  # its records come all at once
            try:
                for record in self._hosted_records(phone):
                    self._keep(record)
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
            iterations=self.terms.measure.iterations,
            ledger=self.layout.ledger,
            notify=lambda step: self.observer.step("profile", f"{phone.address}: {step}"),
        )

    def _keep(self, record: RunRecord) -> None:
        keep_record(self.records, record, self.layout, self.leases.guard(record.device.address))
        self.leases.note_record(record)
        self.observer.record(record)
