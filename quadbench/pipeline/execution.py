"""Execution: what a run measures, and device addresses -> its records, stored as they come, its file and its report."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import Bundle, ErrorClass, RunResult, Stored
from quadbench.compile.availability import require
from quadbench.devices import Device, HostedPhone, connect, hosted_phones
from quadbench.errors import DeviceError, HarnessError, NoTimeError, QuadbenchError
from quadbench.farm.held import Held, held, require_any
from quadbench.farm.inventory import Inventory
from quadbench.observer import Observer
from quadbench.pipeline.progress_observer import seen_by_others
from quadbench.pipeline.run_options import Conduct, Work, require_same_bundle, require_same_devices
from quadbench.pipeline.session import RunUnderWay
from quadbench.report import write_report
from quadbench.results.bundles import in_results
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.records import Records, open_records
from quadbench.results.stored_runs import load_run, new_id
from quadbench.rollout.equipment import require_cores, require_equipment


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


def execute(work: Work, addresses: Sequence[str], conduct: Conduct, *, layout: Layout, observer: Observer) -> Outcome:
    """Measure on each device what its run does not have yet, and report the run.

    Raises:
        QuadbenchError, RunInterrupted: as `measure`.
    """
    run_id, failures = measure(work, addresses, conduct, layout=layout, observer=observer)
    result = load_run(layout, run_id)
    return Outcome(result=result, report=write_report(result, layout), failures=failures)


def measure(
    work: Work, addresses: Sequence[str], conduct: Conduct, *, layout: Layout, observer: Observer
) -> tuple[str, dict[str, QuadbenchError]]:
    """Measure on each device what its run does not have yet. Return the run's id, and by address why devices were left out.

    Raises:
        QuadbenchError: nothing could be built, a device cannot be taken or is not the run's, or every device failed.
        RunInterrupted: Ctrl-C after the run has begun; what was measured is stored.
    """
    run_id, budget = work.run_id or new_id(), conduct.budget
    left_out: dict[str, QuadbenchError] | None = {} if conduct.keep_going else None
    phones = _hosted(addresses)
    with (
        _reached(addresses, phones, layout, left_out) as reached,
        open_records(database_of(layout)) as records,
        held(reached, records.engine, f"run of {work.name}", left_out=left_out) as leases,
        seen_by_others(observer, layout, work.name, run_id) as seen,
    ):
        devices = _taken(reached, leases, phones, left_out)
        require_equipment(devices, layout, work.gear)
        require_cores(work.terms.runtime.cores, devices)
        stored = records.of_run_if_any(work.run_id) if work.run_id else ()
        require_same_devices(devices, (*work.devices, *(record.device for record in stored)))
        bundles = _bundles(work, [*devices, *phones], layout, seen)
        require_same_bundle(bundles, stored)
        run = RunUnderWay(
            work=work,
            run_id=run_id,
            bundles=bundles,
            stored=stored,
            layout=layout,
            records=records,
            leases=leases,
            observer=seen,
            conduct=conduct,
            budget=budget,
        )
        failures = run.measure_all(devices, phones, left_out or {})
        _require_begun(records, run_id, layout)
        return run_id, failures


def require_devices(
    addresses: Sequence[str], purpose: str, conduct: Conduct, *, cores: Sequence[int] = (), layout: Layout
) -> None:
    """Refuse devices that `measure` would refuse, before anything is built for them; `cores` are those that runs are pinned to.

    Raises:
        QuadbenchError: an address is wrong, or a device is absent, somebody else's, in quarantine, or lacks what it runs with.
    """
    left_out: dict[str, QuadbenchError] | None = {} if conduct.keep_going else None
    phones = _hosted(addresses)
    with (
        _reached(addresses, phones, layout, left_out) as reached,
        open_records(database_of(layout)) as records,
        held(reached, records.engine, purpose, to_examine=True, left_out=left_out) as leases,
    ):
        devices = _taken(reached, leases, phones, left_out)
        if left_out is None:
            Inventory(records.engine).require_usable(devices)
        require_equipment(devices, layout)
        require_cores(cores, devices)


def _hosted(addresses: Sequence[str]) -> list[HostedPhone]:
    """Return the phones at AI Hub that can be compiled for here."""
    phones = hosted_phones(addresses)
    for phone in phones:
        require(phone.target, phone.address)
    return phones


def _taken(
    reached: Sequence[Device], leases: Held, phones: Sequence[HostedPhone], left_out: Mapping[str, QuadbenchError] | None
) -> list[Device]:
    """Return the devices that have leases, of which there may be none where there are phones at AI Hub."""
    devices = [device for device in reached if device.facts.address in leases.by_address]
    require_any([*devices, *phones], left_out)
    return devices


def _bundles(
    work: Work, devices: Sequence[Device | HostedPhone], layout: Layout, observer: Observer
) -> dict[str, Stored[Bundle]]:
    """Return by profile the bundle that its devices run, as it lies in the results folder."""
    bundles = work.bundles_of([device.profile.name for device in devices], observer)
    return {profile: in_results(bundle, layout) for profile, bundle in bundles.items()}


def _require_begun(records: Records, run_id: str, layout: Layout) -> None:
    if not records.has_run(run_id):
        hint = f"give it more, or go on: {layout.command('run', '--resume', run_id)}"
        raise NoTimeError("the time of the run was over before its first launch", hint=hint)


def _reached(
    addresses: Sequence[str], hosted: Sequence[HostedPhone], layout: Layout, left_out: dict[str, QuadbenchError] | None
) -> AbstractContextManager[list[Device]]:
    """Connect the devices that are not at AI Hub. Without any address it is for `connect` to say what is missing."""
    elsewhere = {phone.address for phone in hosted}
    reached = [address for address in addresses if address.strip() not in elsewhere]
    return connect(reached, layout=layout, left_out=left_out) if reached or not hosted else nullcontext([])
