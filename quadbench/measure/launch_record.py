"""Build a launch's record: status, failure reason, caveats, versions and settings, from its events and exit status."""

import platform
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from quadbench.artifacts import Bundle, Caveat, CompiledBundle, ErrorClass, LaunchPlan, RunRecord, Sample, Status, Variant
from quadbench.artifacts.names import one_line
from quadbench.artifacts.run_record import LIBRARY_PREFIX
from quadbench.devices import Device
from quadbench.errors import CommandError, CommandTimeoutError, DeviceError, DeviceLostError, OutputLimitError
from quadbench.harness.event_log import Heard
from quadbench.harness.events import Expected
from quadbench.harness.installation import REFUSED_EXIT_CODE, Installation
from quadbench.host import signal_name
from quadbench.recipe import Runtime
from quadbench.recipe.settings import Gate
from quadbench.results.layout import Layout
from quadbench.statistics.summary import ENOUGH_SAMPLES, settled_from
from quadbench.target.abi import host_abi

_CANNOT_START = {126, 127}  # exit codes of a shell that cannot start the harness

# A non-error line of ONNX Runtime's log: time and severity come first, as in `[W:onnxruntime:quadbench, file.cc:1 f]`.
_REMARK = re.compile(r"\[[VIW]:onnxruntime:|\[Telemetry\]")
# An error line of LiteRT's log. It says more than the status number that LiteRT returns.
_LITERT_ERROR = re.compile(r"ERROR: (?:\[\S+\] )?(.+)")
_STDERR_LINES = 3
_STDERR_CHARACTERS = 200  # of each of them

_WARMING = 2  # slow images at the start of a block; a single one may be chance
_RELEASE_BUILDS = {"release", "relwithdebinfo", "minsizerel"}

_NO_PHONES = {"virtual": Caveat.VIRTUAL_DEVICE, "local": Caveat.THIS_MACHINE}  # by family
_LONGER = "Hint: raise measure.timeout_s of the recipe"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why a launch failed, and the class of its cause, such as DEVICE or HARNESS."""

    error_class: ErrorClass
    reason: str


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """The settings that all launches of one run share. Before each launch, `confirm` raises if the device's lease is not ours."""

    run_id: str
    layout: Layout
    runtime: Runtime
    timeout_s: float
    gate: Gate = field(default_factory=Gate)
    confirm: Callable[[Device], None] | None = None


@dataclass(frozen=True, kw_only=True)
class LaunchWork:
    """The inputs of one launch. `harness` and `images` are paths on the device; `folder` is the launch's local folder."""

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
    """The results of a launch so far. They are filled step by step, so that an interrupt keeps everything before it."""

    began_s: float  # by `time.monotonic`, because a host's clock may be changed during a launch
    heard: Heard
    state: dict[str, str] = field(default_factory=dict)
    caveats_of_state: tuple[Caveat, ...] = ()
    samples: list[Sample] = field(default_factory=list)  # those that the harness does not send
    images: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None  # why the gate refused the launch
    disturbance: str | None = None  # why the launch is discarded and its block repeated
    failure: Failure | None = None
    lost: DeviceLostError | None = None  # set if the device was lost and may come back

    def fail(self, error_class: ErrorClass, reason: str) -> None:
        """Record a failure. Later failures are ignored, since the first one is taken for their cause."""
        self.failure = self.failure or Failure(error_class=error_class, reason=reason)

    def note_lost(self, error: DeviceError | None) -> None:
        """Record that the device was lost during the launch, if the error is transient."""
        if isinstance(error, DeviceLostError) and error.transient:
            self.lost = error


def record_of(work: LaunchWork, findings: Findings, *, aborted: bool = False) -> RunRecord:
    """Return the record of a launch that has ended; with `aborted`, of one that was interrupted."""
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


def failure_of(heard: Heard, ended: DeviceError | None, plan_sha256: str, wall_s: float) -> Failure | None:
    """Return why a launch failed, or None. `ended` is the error that ended its output, None after exit code 0."""
    if ended is not None:
        return _ended_badly(heard, ended)
    reason = heard.unsound(plan_sha256, wall_s)
    if reason is None and (heard.errors or heard.footer is None or heard.footer.status != "OK"):
        reason = f"harness failed: {_errors(heard)}"
    return Failure(error_class=ErrorClass.HARNESS, reason=reason) if reason else None


def tool_versions(bundle: Bundle, compiled: CompiledBundle) -> dict[str, str]:
    """Return the versions of the tools that made a compiled bundle, with keys such as `quad.torch`."""
    return {
        "quadbench": version("quadbench"),
        **{f"quad.{tool}": text for tool, text in bundle.tool_versions.items()},
        **{f"compile.{tool}": text for tool, text in compiled.tool_versions.items()},
    }


def versions_of(installation: Installation, heard: Heard) -> dict[str, str]:
    """Return the versions of everything that may change a measured figure: tools, kit, harness, runtime and loaded libraries."""
    versions = tool_versions(installation.bundle.artifact, installation.compiled.artifact)
    versions |= installation.kit.versions if installation.kit else {}
    if heard.header is not None:
        versions |= {
            "harness": heard.header.harness_version,
            "harness.commit": heard.header.commit,
            "harness.build_type": heard.header.build_type,
            "runtime": heard.header.runtime_version,
        }
    for library in heard.libraries.values():
        name = f"{LIBRARY_PREFIX}{heard.expected.libraries.name_of(library)}"
        if name in versions:  # another library has the same name
            name = f"{LIBRARY_PREFIX}{library.path}"
        versions[name] = f"{library.path}, build id {library.build_id or 'none'}"
    return versions


def settings_of(installation: Installation, variant: Variant, runtime: Runtime) -> dict[str, str]:
    """Return all runtime options of a launch as text; options left to the device are `any`."""
    values, provider = runtime.model_dump(), installation.execution_provider
    used = provider.settings if provider and variant.is_quantized else {"provider": "CPUExecutionProvider"}
    if installation.litert and variant.is_quantized:
        used = {"engine": "litert"}
    texts = {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in values.items()}
    return used | {f"runtime.{key}": "any" if value in (None, "") else str(value) for key, value in texts.items()}


def _caveats(work: LaunchWork, findings: Findings) -> tuple[Caveat, ...]:
    """Return the caveats of a launch, in the order of the enumeration."""
    heard, device = findings.heard, work.device
    doubts = {*work.bundle.caveats, *findings.caveats_of_state}
    if work.launch.variant.is_quantized:
        doubts.update(work.compiled.caveats)
    if device.family in _NO_PHONES:
        doubts.add(_NO_PHONES[device.family])
    if work.is_emulated:
        doubts.add(Caveat.EMULATED_NPU)
    if device.shares_host_cpu and device.abi is not host_abi(platform.machine()):
        doubts.add(Caveat.EMULATED_CPU)
    if heard.header is not None and heard.header.build_type.lower() not in _RELEASE_BUILDS:
        doubts.add(Caveat.DEBUG_BUILD)
    if heard.header is not None and not heard.header.peak_reset:
        doubts.add(Caveat.PEAK_SINCE_START)
    images = [sample for sample in heard.samples if sample.metric == "end_to_end_ns" and not sample.is_warmup]
    if any(count < ENOUGH_SAMPLES[50] for count in Counter(image.task for image in images).values()):
        doubts.add(Caveat.FEW_SAMPLES)
    blocks = ([image.value for image in block] for _, block in groupby(images, key=lambda image: image.task))
    if any(settled_from(block) >= _WARMING for block in blocks):
        doubts.add(Caveat.STILL_WARMING)
    return tuple(caveat for caveat in Caveat if caveat in doubts)


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


def _ended_badly(heard: Heard, ended: DeviceError) -> Failure:
    match ended:
        case CommandTimeoutError():
            return Failure(error_class=ErrorClass.HARNESS, reason=f"harness timed out: {ended}{heard.ended_early()}. {_LONGER}")
        case OutputLimitError():
            return Failure(error_class=ErrorClass.HARNESS, reason=f"{ended}{heard.ended_early()}")
        case CommandError(status=status) if status in _CANNOT_START:
            return Failure(error_class=ErrorClass.INFRASTRUCTURE, reason=f"harness cannot be started: {ended}")
        case CommandError(status=status):
            is_plan = status == REFUSED_EXIT_CODE
            error_class = ErrorClass.INFRASTRUCTURE if is_plan else ErrorClass.HARNESS
            said = "; ".join(filter(None, (_said_or_died(heard, ended), heard.wrong_library())))
            return Failure(error_class=error_class, reason=f"{said}{heard.ended_early()}")
        case _:
            hint = f". Hint: {ended.hint}" if ended.hint else ""
            return Failure(error_class=ErrorClass.DEVICE, reason=f"{ended.message}{heard.ended_early()}{hint}")


def _said_or_died(heard: Heard, ended: CommandError) -> str:
    if heard.errors:
        return f"harness failed with exit code {ended.status}: {_errors(heard)}{_litert_errors(ended)}"
    if 128 < ended.status < 160:
        return f"harness was killed by signal {ended.status - 128} ({signal_name(ended.status - 128)}){_stderr(ended)}"
    return f"harness was killed or crashed (exit code {ended.status}){_stderr(ended)}"


def _errors(heard: Heard) -> str:
    """Return the harness's error messages, each prefixed with its location unless the message contains it."""
    messages = []
    for error in heard.errors:
        has_place = not error.where or error.message.startswith(error.where)
        messages.append(one_line(error.message if has_place else f"{error.where}: {error.message}"))
    return "; ".join(messages) or "no reason given"


def _stderr(ended: CommandError) -> str:
    """Return the last lines of stderr, without the runtime's informational log lines, which explain no crash."""
    said = (one_line(line, _STDERR_CHARACTERS) for line in ended.stderr_tail.splitlines())
    lines = [line for line in said if line and not _REMARK.search(line)]
    return f": {' / '.join(lines[-_STDERR_LINES:])}" if lines else ""


def _litert_errors(ended: CommandError) -> str:
    """Return the first distinct error lines of LiteRT's log."""
    errors = (_LITERT_ERROR.fullmatch(one_line(line, _STDERR_CHARACTERS)) for line in ended.stderr_tail.splitlines())
    told = list(dict.fromkeys(error[1] for error in errors if error))
    return f": {' / '.join(told[:_STDERR_LINES])}" if told else ""
