"""Execution of a run: take its devices, measure what it lacks, and write its report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import ErrorClass, RunResult
from quadbench.compile.availability import require
from quadbench.devices import HostedPhone, hosted_phones
from quadbench.errors import DeviceError, HarnessError, NoTimeError, QuadbenchError
from quadbench.farm.held import require_any
from quadbench.farm.inventory import Inventory
from quadbench.observer import Observer
from quadbench.pipeline.progress_observer import seen_by_others
from quadbench.pipeline.session import RunSession, lab_of
from quadbench.pipeline.work import Conduct, Work, require_same_bundle, require_same_devices
from quadbench.report import write_report
from quadbench.results.bundles import in_results
from quadbench.results.layout import Layout
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
    return reported(run_id, failures, layout)


def reported(run_id: str, failures: dict[str, QuadbenchError], layout: Layout) -> Outcome:
    """Read a run that was measured, and write its report."""
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
    addresses: Sequence[str], purpose: str, conduct: Conduct, *, cores: Sequence[int] = (), layout: Layout
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


def _hosted(addresses: Sequence[str]) -> list[HostedPhone]:
    """Return the phones at AI Hub that can be compiled for here."""
    phones = hosted_phones(addresses)
    for phone in phones:
        require(phone.target, phone.address)
    return phones
