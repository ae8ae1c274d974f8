"""Findings: what came of one launch so far -> its RunRecord."""

import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from quadbench.artifacts import Bundle, Caveat, CompiledBundle, ErrorClass, LaunchPlan, RunRecord, Sample, Status
from quadbench.artifacts.names import one_line
from quadbench.devices import Device
from quadbench.errors import DeviceError, DeviceLostError
from quadbench.harness.expected import Expected
from quadbench.harness.heard import Heard
from quadbench.harness.installation import Installation
from quadbench.measure.conditions import settings_of, versions_of
from quadbench.measure.outcome import Failure, caveats_of
from quadbench.recipe import Gate, Runtime
from quadbench.results.layout import Layout
from quadbench.target.abi import host_abi


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """The settings that all launches of one run share. `confirm` refuses a device that is not the run's, before each launch."""

    run_id: str
    layout: Layout
    runtime: Runtime
    timeout_s: float
    gate: Gate = field(default_factory=Gate)
    confirm: Callable[[Device], None] | None = None


@dataclass(frozen=True, kw_only=True)
class LaunchWork:
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
class Findings:
    """The findings of a launch so far, filled as it goes, so that an interrupt at any point leaves what came before."""

    began_s: float  # by `time.monotonic`, as a host's clock may be set while a launch runs
    heard: Heard
    state: dict[str, str] = field(default_factory=dict)
    caveats_of_state: tuple[Caveat, ...] = ()
    samples: list[Sample] = field(default_factory=list)  # beyond the harness's own
    images: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None  # the gate's
    disturbance: str | None = None  # for which it is to be repeated
    failure: Failure | None = None
    lost: DeviceLostError | None = None  # where the device was, and may be back

    def fail(self, error_class: ErrorClass, reason: str) -> None:
        """Note a failure; the first one is the cause of those that follow."""
        self.failure = self.failure or Failure(error_class=error_class, reason=reason)

    def note_lost(self, error: DeviceError | None) -> None:
        """Note that the launch failed as its device was lost, where that may pass."""
        if isinstance(error, DeviceLostError) and error.transient:
            self.lost = error


def record_of(work: LaunchWork, findings: Findings, *, aborted: bool = False) -> RunRecord:
    """Return the launch as it ended; an aborted one was cut off."""
    status, error_class, reason = _status(findings, aborted=aborted)
    ended_at = datetime.now(UTC)
    return RunRecord(
        record_id=uuid.uuid4().hex,
        run_id=work.settings.run_id,
        started_at=ended_at - timedelta(seconds=time.monotonic() - findings.began_s),
        ended_at=ended_at,
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


def _caveats(work: LaunchWork, findings: Findings) -> tuple[Caveat, ...]:
    of_graphs = work.compiled.caveats if work.launch.variant.is_quantized else ()
    of_npu = (Caveat.EMULATED_NPU,) if work.is_emulated else ()
    of_cpu = (Caveat.EMULATED_CPU,) if _emulates_cpu(work) else ()
    of_launch = (*of_graphs, *findings.caveats_of_state, *of_npu, *of_cpu)
    return caveats_of(work.bundle, work.device.facts, findings.heard, of_launch)


def _emulates_cpu(work: LaunchWork) -> bool:
    return work.device.shares_host_cpu and work.device.abi is not host_abi(platform.machine())


def _status(findings: Findings, *, aborted: bool) -> tuple[Status, ErrorClass | None, str | None]:
    if aborted:
        return Status.ABORTED, ErrorClass.USER, f"interrupted after {len(findings.heard.samples)} samples"
    if findings.failure is not None:
        return Status.FAILED, findings.failure.error_class, findings.failure.reason
    if findings.refusal is not None:
        return Status.SKIPPED, ErrorClass.DEVICE, findings.refusal
    if findings.disturbance is not None:
        return Status.DISCARDED, ErrorClass.DEVICE, findings.disturbance
    return Status.OK, None, None
