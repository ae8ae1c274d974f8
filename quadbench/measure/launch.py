"""Launch: one fresh harness process on a device -> RunRecord, whatever becomes of it."""

import hashlib
import json
import logging
import os
import platform
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from quadbench.artifacts import Bundle, Caveat, CompiledBundle, ErrorClass, LaunchPlan, RunRecord, Sample, Status
from quadbench.artifacts.device_text import one_line
from quadbench.artifacts.parts import tasks_of
from quadbench.devices import Device
from quadbench.errors import DeviceError, StorageError
from quadbench.harness.expected import Expected, expected_of
from quadbench.harness.heard import Heard
from quadbench.harness.installation import Installation
from quadbench.harness.painted import EVENTS
from quadbench.harness.plan import harness_plan
from quadbench.measure.conditions import settings_of, versions_of
from quadbench.measure.fetch import fetch_image, painted_files
from quadbench.measure.gate import caveats_of_state, disturbances, max_busy_percent, wait_at_gate
from quadbench.measure.images import WrongImageError, expected_images, image_fault, image_samples
from quadbench.measure.kernels import kernel_samples
from quadbench.measure.outcome import Failure, caveats_of, failure_of
from quadbench.measure.remote import remote_folder, remove_left, runs_folder
from quadbench.measure.rom import rom_samples
from quadbench.measure.state import flatten, read_state
from quadbench.recipe import Gate, Runtime
from quadbench.results.layout import Layout
from quadbench.target.abi import host_abi

_SYNC_INTERVAL_S = 1.0  # what a power cut may take of the events; a sync for each line would disturb what this machine measures
_SCREEN_HINT = "keep it on: adb shell svc power stayon true, then wake it up"

log = logging.getLogger(__name__)


class LaunchAborted(KeyboardInterrupt):
    """Ctrl-C during a launch, whose harness has been killed. `record` is ABORTED and holds the samples that came before."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__(record.reason)
        self.record = record


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """The settings that all launches of one run share. `confirm` refuses a device that is not the run's, before each launch."""

    run_id: str
    layout: Layout
    runtime: Runtime
    timeout_s: float
    gate: Gate = field(default_factory=Gate)
    confirm: Callable[[Device], None] | None = None


def measure_launch(
    installation: Installation,
    launch: LaunchPlan,
    settings: LaunchSettings,
    interrupted: Event | None = None,
    *,
    may_discard: bool = False,
) -> RunRecord:
    """Run the harness once and keep what it says. Whatever goes wrong in it comes back as a FAILED or SKIPPED record.

    A launch that may be discarded is, where the device is too hot or slowed down when it ends; else it has the caveat. Where
    another thread takes Ctrl-C, it sets `interrupted`, then closes the device: what fails from then on is cut off.

    Writes plan.json, events.jsonl (line by line, as they come) and images/<task>/<item>.png into the launch's folder. The
    caller stores the record.

    Raises:
        LaunchAborted: Ctrl-C; the caller stores its record and lets it pass on.
        ArtifactError, UnknownNameError: installation and launch do not fit; nothing was started.
        ValueError: the run id cannot name a folder.
    """
    images = f"{runs_folder(installation.device)}/{settings.run_id}/images"
    folder = settings.layout.launch(settings.run_id, installation.address, launch.variant, launch.launch)
    plan = harness_plan(installation, launch, runtime=settings.runtime, images=images)
    steps = {task.name: task.steps for task in tasks_of(installation.bundle.artifact, launch)}
    provider = installation.execution_provider
    work = _Launch(
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
    return _measured(work, interrupted or Event())


@dataclass(frozen=True, kw_only=True)
class _Launch:
    """The inputs of one launch. `harness` and `images` are paths on the device, `folder` is the launch's folder here."""

    on: Installation
    launch: LaunchPlan
    settings: LaunchSettings
    plan: bytes
    harness: str
    expected: Expected
    images: str
    folder: Path
    is_emulated: bool
    may_discard: bool

    @property
    def device(self) -> Device:
        return self.on.device

    @property
    def bundle(self) -> Bundle:
        return self.on.bundle.artifact

    @property
    def compiled(self) -> CompiledBundle:
        return self.on.compiled.artifact


@dataclass(kw_only=True)
class _Findings:
    """The findings of a launch so far, filled as it goes, so that an interrupt at any point leaves what came before."""

    started_at: datetime
    heard: Heard
    state: dict[str, str] = field(default_factory=dict)
    caveats_of_state: tuple[Caveat, ...] = ()
    samples: list[Sample] = field(default_factory=list)  # beyond the harness's own
    images: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None  # the gate's
    disturbance: str | None = None  # for which it is to be repeated
    failure: Failure | None = None

    def fail(self, error_class: ErrorClass, reason: str) -> None:
        """Note a failure; the first one is the cause of those that follow."""
        self.failure = self.failure or Failure(error_class=error_class, reason=reason)


def _measured(work: _Launch, interrupted: Event) -> RunRecord:
    name = f"{work.device.facts.address}: launch {work.launch.launch} of {work.launch.variant}"
    log.info("%s: starts", name)
    began = time.monotonic()
    findings = _Findings(started_at=datetime.now(UTC), heard=Heard(expected=work.expected))
    try:
        _measure(work, findings)
        if findings.failure and interrupted.is_set():
            raise KeyboardInterrupt
    except KeyboardInterrupt as interrupt:
        findings.failure = None
        raise LaunchAborted(_record(work, findings, aborted=True)) from interrupt
    record = _record(work, findings)
    log.info(
        "%s: %s after %.1f s%s", name, record.status, time.monotonic() - began, f", {record.reason}" if record.reason else ""
    )
    return record


def _measure(work: _Launch, findings: _Findings) -> None:
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        if work.settings.confirm:
            work.settings.confirm(work.device)
        remove_left(work.device, work.settings.layout)
        if not _passes_gate(work, findings):
            return
        findings.samples += (*rom_samples(work.on, work.launch), *kernel_samples(work.on, work.launch))
        plan = work.folder / "plan.json"
        plan.write_bytes(work.plan)
        with remote_folder(work.device, work.settings.run_id, plan) as remote:
            _run_harness(work, findings, remote)
            if findings.failure is None or findings.failure.error_class is not ErrorClass.DEVICE:
                _fetch_images(work, findings)
        _read_state_after(work, findings)
    except DeviceError as error:
        findings.fail(ErrorClass.DEVICE, str(error))
    except (StorageError, OSError) as error:
        findings.fail(ErrorClass.INFRASTRUCTURE, f"this machine cannot write the results: {error}")
    except Exception as error:
        # One launch must not cost the others, whatever a device has thought of.
        log.info("%s: unexpected error in a launch", work.device.facts.address, exc_info=True)
        reason = f"unexpected error, a bug of quadbench (-v shows where): {type(error).__name__}: {error}"
        findings.fail(ErrorClass.INFRASTRUCTURE, reason)


def _passes_gate(work: _Launch, findings: _Findings) -> bool:
    limits, shares_host_cpu = work.settings.gate, work.device.shares_host_cpu
    is_watched = max_busy_percent(limits, shares_host_cpu=shares_host_cpu) is not None
    state, judged = wait_at_gate(lambda: read_state(work.device, is_watched=is_watched), limits, shares_host_cpu=shares_host_cpu)
    findings.state |= flatten(state, "before")
    findings.caveats_of_state = judged.caveats
    if state.screen == "off":
        log.warning("%s: its screen is off, and many phones slow down then; %s", work.device.facts.address, _SCREEN_HINT)
    if not judged.is_open:
        findings.refusal = f"INVALID: {'; '.join(judged.objections)}; waited {limits.wait_s:g} s"
    return judged.is_open


def _read_state_after(work: _Launch, findings: _Findings) -> None:
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


def _run_harness(work: _Launch, findings: _Findings, remote: str) -> None:
    ended: DeviceError | None = None
    began = time.monotonic()
    try:
        environment = work.on.kit.environment if work.on.kit else {}
        lines = work.device.stream([work.harness, f"{remote}/plan.json"], work.settings.timeout_s, remote, environment)
        with closing(lines), (work.folder / EVENTS).open("w", encoding="utf-8") as file:
            synced = began
            for line in lines:
                findings.heard.take(line)
                if findings.heard.is_over:
                    break
                file.write(f"{line}\n")
                file.flush()
                if time.monotonic() - synced >= _SYNC_INTERVAL_S:
                    os.fsync(file.fileno())
                    synced = time.monotonic()
    except DeviceError as error:
        ended = error
    wall_s = time.monotonic() - began
    findings.failure = failure_of(findings.heard, ended, hashlib.sha256(work.plan).hexdigest(), wall_s)


def _fetch_images(work: _Launch, findings: _Findings) -> None:
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


def _record(work: _Launch, findings: _Findings, *, aborted: bool = False) -> RunRecord:
    status, error_class, reason = _status(findings, aborted=aborted)
    return RunRecord(
        record_id=uuid.uuid4().hex,
        run_id=work.settings.run_id,
        started_at=findings.started_at,
        ended_at=datetime.now(UTC),
        recipe_name=work.bundle.recipe_name,
        recipe_digest=work.bundle.recipe_digest,
        bundle_digest=work.bundle.digest,
        compiled_digest=work.compiled.digest,
        target=work.compiled.target,
        device=work.device.facts,
        variant=work.launch.variant,
        launch=work.launch.launch,
        status=status,
        error_class=error_class,
        reason=None if reason is None else one_line(reason),
        caveats=_caveats(work, findings),
        versions=versions_of(work.on, findings.heard),
        settings=settings_of(work.on, work.launch.variant, work.settings.runtime),
        state=findings.state,
        samples=(*findings.heard.samples, *findings.samples),
        images=findings.images,
    )


def _caveats(work: _Launch, findings: _Findings) -> tuple[Caveat, ...]:
    of_graphs = work.compiled.caveats if work.launch.variant.is_quantized else ()
    of_npu = (Caveat.EMULATED_NPU,) if work.is_emulated else ()
    of_cpu = (Caveat.EMULATED_CPU,) if _emulates_cpu(work) else ()
    of_launch = (*of_graphs, *findings.caveats_of_state, *of_npu, *of_cpu)
    return caveats_of(work.bundle, work.device.facts, findings.heard, of_launch)


def _emulates_cpu(work: _Launch) -> bool:
    return work.device.shares_host_cpu and work.device.abi is not host_abi(platform.machine())


def _status(findings: _Findings, *, aborted: bool) -> tuple[Status, ErrorClass | None, str | None]:
    if aborted:
        return Status.ABORTED, ErrorClass.USER, f"interrupted after {len(findings.heard.samples)} samples"
    if findings.failure is not None:
        return Status.FAILED, findings.failure.error_class, findings.failure.reason
    if findings.refusal is not None:
        return Status.SKIPPED, ErrorClass.DEVICE, findings.refusal
    if findings.disturbance is not None:
        return Status.DISCARDED, ErrorClass.DEVICE, findings.disturbance
    return Status.OK, None, None
