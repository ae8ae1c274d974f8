"""The steps of a run: deploy bundles, measure launches, store the results and write the report."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quadbench.artifacts import ErrorClass, LaunchPlan, RunRecord, RunResult, StoredBundle
from quadbench.artifacts.run_record import file_refs
from quadbench.devices import Device, HostedPhone
from quadbench.errors import ArtifactError, DeviceError, HarnessError, NoTimeError, QuadbenchError
from quadbench.harness.installation import Installation
from quadbench.measure.hosted import measure_hosted
from quadbench.measure.launch_schedule import launches_of_bundle, missing_blocks, schedule_launches
from quadbench.measure.parallel_launches import DeviceQueue, NotRun, measure_launches
from quadbench.pipeline.session import RunSession, on_device, require_same_bundle
from quadbench.report.html import write_report
from quadbench.results.bundles import ensure_local
from quadbench.results.manifest import check_contents
from quadbench.results.stored_runs import RunFile, change_run, join_run_files, load_run, new_run_file
from quadbench.rollout import Rollout, compile_for, roll_out

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeployedRun:
    """A run whose bundles are on the devices. `bundles` is keyed by device profile. Every device runs all `launches`.

    `run_file` is the content of the run's file when the run began.
    """

    bundles: Mapping[str, StoredBundle]
    launches: Sequence[LaunchPlan]
    rollout: Rollout
    run_file: RunFile


@dataclass(frozen=True, kw_only=True)
class MeasureResult:
    """A result of measuring. `remaining` maps device address to launches not run. `hosted` maps failed AI Hub phone to error."""

    remaining: Mapping[str, NotRun]
    hosted: Mapping[str, QuadbenchError]


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """The result of one run. `failures` has the errors of failed or unavailable devices by address."""

    result: RunResult
    report: Path
    failures: dict[str, QuadbenchError]

    @property
    def is_ok(self) -> bool:
        """Return True if every device took part, and each launch is either OK or was discarded and repeated."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """Return the exit code of the first failed or unavailable device's error, else of the first failed launch, else 0."""
        if self.failures:
            return next(iter(self.failures.values())).exit_code
        first = next((record for record in self.result.records if not record.status.is_fine), None)
        if first is None:
            return 0
        return DeviceError.exit_code if first.error_class is ErrorClass.DEVICE else HarnessError.exit_code


def deploy(bundles: Mapping[str, StoredBundle], session: RunSession) -> DeployedRun:
    """Compile the bundle of each device profile, push it to the devices, write or extend run.json and return a `DeployedRun`."""
    own = {profile: ensure_local(bundle, session.layout) for profile, bundle in bundles.items()}
    require_same_bundle(own, session.stored)
    work, leased = session.work, session.leased
    rollout = _rolled_out(own, session) if leased.devices else Rollout()
    content = next(iter(own.values())).artifact  # all bundles have the same inputs, references and tasks with graphs
    launches = launches_of_bundle(work.terms, content, seed=session.run_id)
    run_file = new_run_file(
        session.run_id,
        own,
        work.terms,
        deployments=rollout.deployments,
        planned=Counter(launch.variant for launch in launches),
        devices=tuple(device.facts for device in leased.devices),
        hosted=tuple(phone.address for phone in leased.phones),
        is_part=work.is_part,
    )
    run_file = replace(run_file, retries=tuple(session.retries))
    run_file = change_run(session.layout, session.run_id, lambda run: join_run_files(run, run_file) if run else run_file)
    return DeployedRun(bundles=own, launches=launches, rollout=rollout, run_file=run_file)


def measure(deployed: DeployedRun, session: RunSession) -> MeasureResult:
    """Measure the launches that each device still lacks. Store each record as soon as its launch ends. Return a MeasureResult."""
    rollout, phones = deployed.rollout, session.leased.phones
    remaining: dict[str, NotRun] = {}
    if rollout.installations:
        # Check the reference images, and the files that are never pushed.
        for bundle in {installation.bundle.folder: installation.bundle for installation in rollout.installations}.values():
            check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
        queues = [_queue(installation, deployed, session) for installation in rollout.installations]
        remaining = measure_launches(queues, store=session.store, observer=session.observer, stop=session.recovery.stop)
    hosted = dict(_measured_hosted(phones, deployed, session))
    if not rollout.installations and len(hosted) == len(phones):
        raise next(iter({**rollout.failures, **hosted}.values()))
    return MeasureResult(remaining=remaining, hosted=hosted)


def store(measured: MeasureResult, deployed: DeployedRun, session: RunSession) -> dict[str, QuadbenchError]:
    """Write to run.json whether the run has ended and why launches are missing. Return a dict from failed address to error."""
    failed, remaining, hosted, leased = deployed.rollout.failures, measured.remaining, measured.hosted, session.leased
    given_up = {address: rest.given_up for address, rest in remaining.items() if rest.given_up}
    removed = _removed(session)
    failures = {**(leased.left_out or {}), **failed, **given_up, **hosted, **removed}
    left_out = {address: str(error) for address, error in failures.items()}
    left_out |= {address: _no_time(rest.launches) for address, rest in remaining.items() if rest.launches}
    here = [*(device.facts.address for device in leased.devices), *(phone.address for phone in leased.phones)]
    is_open = bool(remaining or removed) or any(error.transient for error in (*failed.values(), *hosted.values()))
    is_open |= _lacks_elsewhere(here, deployed, session)
    run_file = deployed.run_file

    def ended(run: RunFile | None) -> RunFile:
        before = {address: why for address, why in (run or run_file).left_out.items() if address not in here}
        return replace(run or run_file, is_ended=not is_open, left_out=before | left_out)

    change_run(session.layout, session.run_id, ended)
    if not leased.records.has_run(session.run_id):
        hint = f"increase the budget, or resume the run: {session.layout.command('run', '--resume', session.run_id)}"
        raise NoTimeError("the time budget ended before the first launch of the run", hint=hint)
    return failures


def report(failures: dict[str, QuadbenchError], session: RunSession) -> RunOutcome:
    """Load a run's result, write the HTML report and return a `RunOutcome`. `failures` is a dict from device address to error."""
    result = load_run(session.layout, session.run_id)
    return RunOutcome(result=result, report=write_report(result, session.layout), failures=failures)


def _rolled_out(bundles: Mapping[str, StoredBundle], session: RunSession) -> Rollout:
    """Push bundles to devices. Return a Rollout. If all fail, return only errors if the run has AI Hub phones, else raise."""
    failures: dict[str, QuadbenchError] = {}
    devices = session.leased.devices

    def note(device: Device, error: QuadbenchError) -> None:
        session.leased.leases.note_left_out(device, error)
        failures[device.facts.address] = error

    try:
        return roll_out(
            [bundles[device.profile.name] for device in devices],
            devices,
            layout=session.layout,
            observer=session.observer,
            overrides=session.work.overrides,
            left_out=note,
            recovery=session.recovery,
        )
    except QuadbenchError:
        if not (failures and session.leased.phones):
            raise
        return Rollout(failures=failures)


def _queue(installation: Installation, deployed: DeployedRun, session: RunSession) -> DeviceQueue:
    terms, device, again = session.work.terms, installation.device, deployed.rollout.reinstall[installation.address]
    schedule = schedule_launches(
        installation,
        deployed.launches,
        session.launch_settings(session.run_id, terms.runtime, terms.measure),
        repeats=terms.measure.gate.retries if terms.measure.order == "abba" else 0,
        stored=on_device(session.stored, installation.address),
        budget=session.budget,
    )
    return DeviceQueue(device=device, schedule=schedule, recover=lambda lost: session.recovery.recover(device, lost, again))


def _measured_hosted(
    phones: Sequence[HostedPhone], deployed: DeployedRun, session: RunSession
) -> Iterator[tuple[str, QuadbenchError]]:
    """Measure a run's graphs on AI Hub phones and store the launch records. Yield (address, error) for each failed phone."""
    for phone in phones:
        if on_device(session.stored, phone.address):
            continue  # one job gives all of its records
        try:
            for record in _hosted_records(phone, deployed.bundles[phone.profile.name], session):
                session.store(record)
        except QuadbenchError as error:
            log.info("%s is left out: %s", phone.address, error)
            yield phone.address, error


def _hosted_records(phone: HostedPhone, bundle: StoredBundle, session: RunSession) -> Sequence[RunRecord]:
    htp_arch, layout, observer = phone.profile.soc.htp_arch, session.layout, session.observer
    product = compile_for(bundle, phone.target, phone.key, htp_arch, layout=layout, observer=observer)
    check_contents(product, file_refs(product.artifact.graphs))  # uploads are not checked by sha256 on arrival
    return measure_hosted(
        bundle.artifact,
        product,
        phone,
        run_id=session.run_id,
        iterations=session.work.terms.measure.iterations,
        ledger=layout.ledger,
        notify=lambda step: observer.stage_step("profile", f"{phone.address}: {step}"),
    )


def _removed(session: RunSession) -> dict[str, QuadbenchError]:
    """Return a dict from address to error for devices whose launch records were deleted from the database during the run."""
    kept = session.kept + Counter(record.device.address for record in session.stored)
    gone = kept - Counter(session.leased.records.counts(session.run_id))
    hint = f"measure them again: {session.layout.command('run', '--resume', session.run_id)}"
    return {
        address: ArtifactError(f"{count} of its launches were deleted from the database during the run", hint=hint)
        for address, count in gone.items()
    }


def _lacks_elsewhere(here: Sequence[str], deployed: DeployedRun, session: RunSession) -> bool:
    """Return True if a device of the run whose address is not in `here` lacks launch records, else False."""
    elsewhere = [address for address in deployed.run_file.addresses if address not in here]
    stored = session.leased.records.run_records_if_any(session.run_id) if elsewhere else ()

    def lacks_records(address: str) -> bool:
        there = on_device(stored, address)
        return not there if address in deployed.run_file.hosted else bool(missing_blocks(deployed.launches, there))

    return any(map(lacks_records, elsewhere))


def _no_time(launches: Sequence[LaunchPlan]) -> str:
    """Return a message that says, for each variant, how many of the given launches the time budget left out."""
    counts = Counter(launch.variant for launch in launches)
    return f"no time was left for {', '.join(f'{count} of {variant}' for variant, count in counts.items())}"
