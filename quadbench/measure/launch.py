"""Launch: one fresh harness process on a device -> RunRecord, whatever becomes of it."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from quadbench.artifacts import ErrorClass, LaunchPlan, RunRecord, Sample
from quadbench.artifacts.run_record import tasks_of
from quadbench.errors import DeviceError, DeviceLostError, StorageError
from quadbench.harness.expected import expected_of
from quadbench.harness.heard import Heard
from quadbench.harness.installation import Installation
from quadbench.harness.painted import EVENTS
from quadbench.harness.plan import harness_plan
from quadbench.measure.fetch import fetch_image, painted_files
from quadbench.measure.findings import Findings, LaunchSettings, LaunchWork, record_of
from quadbench.measure.gate import caveats_of_state, disturbances, max_busy_percent, wait_at_gate
from quadbench.measure.images import WrongImageError, expected_images, image_fault, image_samples
from quadbench.measure.kernels import kernel_samples
from quadbench.measure.outcome import failure_of
from quadbench.measure.remote import remote_folder, remove_left, runs_folder
from quadbench.measure.rom import rom_samples
from quadbench.measure.state import flatten, read_state
from quadbench.measure.stop import Stop

Painted = Callable[[str, int], None]  # the task, and the number of its image in the launch
_SYNC_INTERVAL_S = 1.0  # what a power cut may take of the events; a sync for each line would disturb what this machine measures
_SCREEN_HINT = "keep it on: adb shell svc power stayon true, then wake it up"

log = logging.getLogger(__name__)


class LaunchAborted(KeyboardInterrupt):
    """Ctrl-C during a launch, whose harness has been killed. `record` is ABORTED and holds the samples that came before."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__(record.reason)
        self.record = record


class LaunchNotBegun(KeyboardInterrupt):
    """Ctrl-C while a launch waited at the gate; there is nothing to store of it."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A launch that has ended, and the error with which its device was lost meanwhile; None where it was not."""

    record: RunRecord
    lost: DeviceLostError | None = None


def measure_launch(installation: Installation, launch: LaunchPlan, settings: LaunchSettings) -> RunRecord:
    """Run the harness once, as `run_launch` does."""
    return run_launch(installation, launch, settings, Stop()).record


def run_launch(
    installation: Installation,
    launch: LaunchPlan,
    settings: LaunchSettings,
    stop: Stop,
    *,
    may_discard: bool = False,
    painted: Painted = lambda _task, _images: None,
) -> Ended:
    """Run the harness once and keep what it says. Whatever goes wrong in it comes back as a FAILED or SKIPPED record.

    A launch that may be discarded is, where the device is too hot or slowed down when it ends; else it has the caveat. Where
    another thread takes Ctrl-C, it cuts off with `stop`, then closes the device. `painted` is told of each image. Writes
    plan.json, events.jsonl (line by line) and images/<task>/<item>.png into the launch's folder. The caller stores the record.

    Raises:
        LaunchAborted: Ctrl-C; the caller stores its record and lets it pass on.
        LaunchNotBegun: the end was asked for while the gate was closed.
        ArtifactError, UnknownNameError: installation and launch do not fit; nothing was started.
        ValueError: the run id cannot name a folder.
    """
    images = f"{runs_folder(installation.device)}/{settings.run_id}/images"
    folder = settings.layout.launch(settings.run_id, installation.address, launch.variant, launch.launch)
    plan = harness_plan(installation, launch, runtime=settings.runtime, images=images)
    steps = {task.name: task.steps for task in tasks_of(installation.bundle.artifact, launch)}
    provider = installation.execution_provider
    work = LaunchWork(
        on=installation,
        launch=launch,
        settings=settings,
        plan=json.dumps(plan, indent=1).encode(),
        harness=installation.path_of_digest(installation.program, "the harness"),
        expected=expected_of(plan, steps, settings.timeout_s, installation.libraries),
        images=images,
        folder=folder,
        is_emulated=provider is not None and provider.is_emulator and launch.variant.is_quantized,
        may_discard=may_discard,
    )
    return _measured(work, stop, painted)


def _measured(work: LaunchWork, stop: Stop, painted: Painted) -> Ended:
    name = f"{work.device.facts.address}: launch {work.launch.launch} of {work.launch.variant}"
    log.info("%s: starts", name)
    began = time.monotonic()
    findings = Findings(began_s=began, heard=Heard(expected=work.expected))
    try:
        _measure(work, findings, stop, painted)
        if findings.failure and stop.is_cut_off:
            raise KeyboardInterrupt
    except LaunchNotBegun:
        raise
    except KeyboardInterrupt as interrupt:
        findings.failure = None
        raise LaunchAborted(record_of(work, findings, aborted=True)) from interrupt
    record = record_of(work, findings)
    log.info(
        "%s: %s after %.1f s%s", name, record.status, time.monotonic() - began, f", {record.reason}" if record.reason else ""
    )
    return Ended(record=record, lost=findings.lost)


def _measure(work: LaunchWork, findings: Findings, stop: Stop, painted: Painted) -> None:
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        if work.settings.confirm:
            work.settings.confirm(work.device)
        remove_left(work.device, work.settings.layout)
        if not _passes_gate(work, findings, stop):
            return
        findings.samples += (*rom_samples(work.on, work.launch), *kernel_samples(work.on, work.launch))
        plan = work.folder / "plan.json"
        plan.write_bytes(work.plan)
        with remote_folder(work.device, work.settings.run_id, plan) as remote:
            _run_harness(work, findings, remote, painted)
            if findings.failure is None or findings.failure.error_class is not ErrorClass.DEVICE:
                _fetch_images(work, findings)
        _read_state_after(work, findings)
    except DeviceError as error:
        findings.note_lost(error)
        findings.fail(ErrorClass.DEVICE, str(error))
    except (StorageError, OSError) as error:
        findings.fail(ErrorClass.INFRASTRUCTURE, f"this machine cannot write the results: {error}")
    except Exception as error:
        # One launch must not cost the others, whatever a device has thought of.
        log.info("%s: unexpected error in a launch", work.device.facts.address, exc_info=True)
        reason = f"unexpected error, a bug of quadbench (-v shows where): {type(error).__name__}: {error}"
        findings.fail(ErrorClass.INFRASTRUCTURE, reason)


def _passes_gate(work: LaunchWork, findings: Findings, stop: Stop) -> bool:
    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise LaunchNotBegun

    limits, shares_host_cpu = work.settings.gate, work.device.shares_host_cpu
    is_watched = max_busy_percent(limits, shares_host_cpu=shares_host_cpu) is not None
    state, judged = wait_at_gate(
        lambda: read_state(work.device, is_watched=is_watched), limits, shares_host_cpu=shares_host_cpu, sleep=sleep
    )
    findings.state |= flatten(state, "before")
    findings.caveats_of_state = judged.caveats
    if state.screen == "off":
        log.warning("%s: its screen is off, and many phones slow down then; %s", work.device.facts.address, _SCREEN_HINT)
    if not judged.is_open:
        findings.refusal = f"INVALID: {'; '.join(judged.objections)}; waited {limits.wait_s:g} s"
    return judged.is_open


def _read_state_after(work: LaunchWork, findings: Findings) -> None:
    try:
        state = read_state(work.device)
    except DeviceError as error:
        log.warning("%s: state after the launch is unavailable: %s", work.device.facts.address, error.message)
        findings.state |= flatten(None, "after")
        return
    findings.state |= flatten(state, "after")
    limits = work.settings.gate
    findings.caveats_of_state += caveats_of_state(state, limits, shares_host_cpu=False)  # the load is now the launch's own
    if work.may_discard and (disturbed := "; ".join(disturbances(state, limits))):
        findings.disturbance = f"discarded, and its block is repeated: {disturbed} when it ended"


def _run_harness(work: LaunchWork, findings: Findings, remote: str, painted: Painted) -> None:
    ended: DeviceError | None = None
    heard = findings.heard
    began = time.monotonic()
    try:
        environment = work.on.kit.environment if work.on.kit else {}
        lines = work.device.stream([work.harness, f"{remote}/plan.json"], work.settings.timeout_s, remote, environment)
        with closing(lines), (work.folder / EVENTS).open("w", encoding="utf-8") as file:
            synced = began
            for line in lines:
                if heard.take(line) and heard.task:
                    painted(heard.task, heard.painted)
                if heard.is_over:
                    break
                file.write(f"{line}\n")
                file.flush()
                if time.monotonic() - synced >= _SYNC_INTERVAL_S:
                    os.fsync(file.fileno())
                    synced = time.monotonic()
    except DeviceError as error:
        ended = error
    wall_s = time.monotonic() - began
    findings.note_lost(ended)
    findings.failure = failure_of(heard, ended, hashlib.sha256(work.plan).hexdigest(), wall_s)


def _fetch_images(work: LaunchWork, findings: Findings) -> None:
    """Pull every image that was announced and compare it; judge the launch by them where nothing else is wrong."""
    announced, files = findings.heard.images, painted_files(work.device, work.images)
    samples: list[Sample] = []
    for task, item in expected_images(tasks_of(work.bundle, work.launch), work.launch):
        name = f"{task.name}/{item.name}"
        event = announced.get((task.name, item.name))
        if event is None:
            findings.fail(ErrorClass.HARNESS, f"harness painted no image {name}")
            continue
        local = work.folder / "images" / f"{name}.png"
        try:
            fetch_image(work.device, event, files, local)
            samples += image_samples(local, task, item, work.on.bundle)
            findings.images[name] = work.settings.layout.relative(local)
        except WrongImageError as error:
            findings.fail(error.error_class, str(error))
    findings.samples += samples
    if wrong := image_fault(work.launch.variant, samples):
        findings.fail(ErrorClass.HARNESS, wrong)
