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
from quadbench.artifacts.run_record import LIBRARY_PREFIX
from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.errors import CommandError, CommandTimeoutError, DeviceError, DeviceLostError, OutputLimitError
from quadbench.harness.event_log import EventLog
from quadbench.harness.events import ExpectedEvents
from quadbench.harness.installation import REFUSED_EXIT_CODE, Installation
from quadbench.host import signal_name
from quadbench.recipe import Runtime
from quadbench.recipe.settings import Gate
from quadbench.results.layout import Layout
from quadbench.statistics.summary import ENOUGH_SAMPLES, settling_index
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
_LONGER = "Hint: raise measure.timeout_s in the recipe"
# Messages of the harness that only say what happened -> what to do.
_HINTS = {
    "the plugin library has no device for ": "the plugin sees no NPU; docs/troubleshooting.md#the-plugin-sees-no-npu says why"
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why a launch failed, and the class of the cause, such as DEVICE or HARNESS."""

    error_class: ErrorClass
    reason: str


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """Settings that a run's launches share. `confirm` is called before each launch and raises if the device's lease is over.

    `has_waited` means that the launch before waited for the device in vain, so that this one looks once and does not wait.
    """

    run_id: str
    layout: Layout
    runtime: Runtime
    timeout_s: float
    gate: Gate = field(default_factory=Gate)
    confirm: Callable[[Device], None] | None = None
    has_waited: bool = False


@dataclass(frozen=True, kw_only=True)
class LaunchWork:
    """The inputs of one launch. `harness` and `images` are paths on the device; `folder` on this machine gets the results."""

    installation: Installation
    launch: LaunchPlan
    settings: LaunchSettings
    plan: bytes
    harness: str
    expected: ExpectedEvents
    images: str
    folder: Path
    is_emulated: bool
    may_discard: bool

    @property
    def device(self) -> Device:
        return self.installation.device

    @property
    def bundle(self) -> Bundle:
        return self.installation.bundle.artifact

    @property
    def compiled(self) -> CompiledBundle:
        return self.installation.compiled.artifact


@dataclass(kw_only=True)
class LaunchResult:
    """The results of a launch so far. Every result is added as soon as it arrives, so that an interrupt loses none."""

    began_s: float  # by `time.monotonic`, because a host's clock may be changed during a launch
    event_log: EventLog
    state: dict[str, str] = field(default_factory=dict)
    state_caveats: tuple[Caveat, ...] = ()
    samples: list[Sample] = field(default_factory=list)  # those that the harness does not send
    images: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None  # why the gate refused the launch
    disturbance: str | None = None  # why the launch is discarded and its block repeated
    failure: Failure | None = None
    lost: DeviceLostError | None = None  # set if the device was lost and may come back

    def fail(self, error_class: ErrorClass, reason: str) -> None:
        """Record why the launch failed. Only the first failure is kept, because it usually causes the later ones."""
        self.failure = self.failure or Failure(error_class=error_class, reason=reason)

    def note_lost(self, error: DeviceError | None) -> None:
        """Set `self.lost` to `error` if it means that the device was lost but may come back. Ignore None and all other errors."""
        if isinstance(error, DeviceLostError) and error.transient:
            self.lost = error


def build_record(work: LaunchWork, result: LaunchResult, *, aborted: bool = False) -> RunRecord:
    """Build the record of a launch that has ended. With `aborted`, the launch was interrupted by Ctrl-C."""
    status, error_class, reason = _status(result, aborted=aborted)
    ended_at = datetime.now(UTC)
    return RunRecord(
        record_id=uuid.uuid4().hex,
        run_id=work.settings.run_id,
        started_at=ended_at - timedelta(seconds=time.monotonic() - result.began_s),
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
        caveats=_caveats(work, result),
        versions=versions_of(work.installation, result.event_log),
        settings=settings_of(work.installation, work.launch.variant, work.settings.runtime),
        state=result.state,
        samples=(*result.event_log.samples, *result.samples),
        images=result.images,
    )


def find_failure(event_log: EventLog, ended: DeviceError | None, plan_sha256: str, wall_s: float) -> Failure | None:
    """Return why a launch failed as a Failure, or None. `ended` is the error that ended the harness, or None for exit code 0."""
    if ended is not None:
        return _end_failure(event_log, ended)
    reason = event_log.output_fault(plan_sha256, wall_s)
    if reason is None and (event_log.errors or event_log.footer is None or event_log.footer.status != "OK"):
        reason = f"harness failed: {_errors(event_log)}"
    return Failure(error_class=ErrorClass.HARNESS, reason=reason) if reason else None


def tool_versions(bundle: Bundle, compiled: CompiledBundle) -> dict[str, str]:
    """Return a dict from tool to version for a bundle. Names of export tools begin with `quad.`, of compile tools `compile.`."""
    return {
        "quadbench": version("quadbench"),
        **{f"quad.{tool}": text for tool, text in bundle.tool_versions.items()},
        **{f"compile.{tool}": text for tool, text in compiled.tool_versions.items()},
    }


def versions_of(installation: Installation, event_log: EventLog) -> dict[str, str]:
    """Return a dict from name to version of all software that can affect a launch's values, such as tools and libraries."""
    versions = tool_versions(installation.bundle.artifact, installation.compiled.artifact)
    versions |= installation.kit.versions if installation.kit else {}
    if event_log.header is not None:
        versions |= {
            "harness": event_log.header.harness_version,
            "harness.commit": event_log.header.commit,
            "harness.build_type": event_log.header.build_type,
            "runtime": event_log.header.runtime_version,
        }
    for library in event_log.libraries.values():
        name = f"{LIBRARY_PREFIX}{event_log.expected.libraries.name_of(library)}"
        if name in versions:  # another library has the same name
            name = f"{LIBRARY_PREFIX}{library.path}"
        versions[name] = f"{library.path}, build id {library.build_id or 'none'}"
    return versions


def settings_of(installation: Installation, variant: Variant, runtime: Runtime) -> dict[str, str]:
    """Return a dict from a launch's runtime options to their values. The value `any` means that an option is not set."""
    values, provider = runtime.model_dump(), installation.execution_provider
    used = provider.settings if provider and variant.is_quantized else {"provider": "CPUExecutionProvider"}
    if installation.litert and variant.is_quantized:
        used = {"engine": "litert"}
    texts = {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in values.items()}
    return used | {f"runtime.{key}": "any" if value in (None, "") else str(value) for key, value in texts.items()}


def _caveats(work: LaunchWork, result: LaunchResult) -> tuple[Caveat, ...]:
    """Return the caveats on a launch's values, such as EMULATED_NPU or DEBUG_BUILD, in the order of the enum Caveat."""
    event_log, device = result.event_log, work.device
    doubts = {*work.bundle.caveats, *result.state_caveats}
    if work.launch.variant.is_quantized:
        doubts.update(work.compiled.caveats)
    if device.family in _NO_PHONES:
        doubts.add(_NO_PHONES[device.family])
    if work.is_emulated:
        doubts.add(Caveat.EMULATED_NPU)
    if device.shares_host_cpu and device.abi is not host_abi(platform.machine()):
        doubts.add(Caveat.EMULATED_CPU)
    if event_log.header is not None and event_log.header.build_type.lower() not in _RELEASE_BUILDS:
        doubts.add(Caveat.DEBUG_BUILD)
    if event_log.header is not None and not event_log.header.peak_reset:
        doubts.add(Caveat.PEAK_SINCE_START)
    images = [sample for sample in event_log.samples if sample.metric == "end_to_end_ns" and not sample.is_warmup]
    if any(count < ENOUGH_SAMPLES[50] for count in Counter(image.task for image in images).values()):
        doubts.add(Caveat.FEW_SAMPLES)
    blocks = ([image.value for image in block] for _, block in groupby(images, key=lambda image: image.task))
    if any(settling_index(block) >= _WARMING for block in blocks):
        doubts.add(Caveat.STILL_WARMING)
    return tuple(caveat for caveat in Caveat if caveat in doubts)


def _status(result: LaunchResult, *, aborted: bool) -> tuple[Status, ErrorClass | None, str | None]:
    if aborted:
        return Status.ABORTED, ErrorClass.USER, f"interrupted after {len(result.event_log.samples)} samples"
    if result.failure is not None:
        return Status.FAILED, result.failure.error_class, result.failure.reason
    if result.refusal is not None:
        return Status.SKIPPED, ErrorClass.DEVICE, result.refusal
    if result.disturbance is not None:
        return Status.DISCARDED, ErrorClass.DEVICE, result.disturbance
    return Status.OK, None, None


def _end_failure(event_log: EventLog, ended: DeviceError) -> Failure:
    match ended:
        case CommandTimeoutError():
            return Failure(error_class=ErrorClass.HARNESS, reason=f"harness timed out: {ended}{event_log.early_end()}. {_LONGER}")
        case OutputLimitError():
            return Failure(error_class=ErrorClass.HARNESS, reason=f"{ended}{event_log.early_end()}")
        case CommandError(status=status) if status in _CANNOT_START:
            return Failure(error_class=ErrorClass.INFRASTRUCTURE, reason=f"harness cannot be started: {ended}")
        case CommandError(status=status):
            is_plan = status == REFUSED_EXIT_CODE
            error_class = ErrorClass.INFRASTRUCTURE if is_plan else ErrorClass.HARNESS
            reasons = "; ".join(filter(None, (_crash_reason(event_log, ended), event_log.wrong_library())))
            return Failure(error_class=error_class, reason=f"{reasons}{event_log.early_end()}{_hints(event_log)}")
        case _:
            hint = f". Hint: {ended.hint}" if ended.hint else ""
            return Failure(error_class=ErrorClass.DEVICE, reason=f"{ended.message}{event_log.early_end()}{hint}")


def _crash_reason(event_log: EventLog, ended: CommandError) -> str:
    if event_log.errors:
        return f"harness failed with exit code {ended.status}: {_errors(event_log)}{_litert_errors(ended)}"
    if 128 < ended.status < 160:
        return f"harness was killed by signal {ended.status - 128} ({signal_name(ended.status - 128)}){_stderr(ended)}"
    return f"harness was killed or crashed (exit code {ended.status}){_stderr(ended)}"


def _errors(event_log: EventLog) -> str:
    """Join a harness's error messages to one text, or return "no reason given". A known source location precedes its message."""
    messages = []
    for error in event_log.errors:
        has_place = not error.where or error.message.startswith(error.where)
        messages.append(one_line(error.message if has_place else f"{error.where}: {error.message}"))
    return "; ".join(messages) or "no reason given"


def _hints(event_log: EventLog) -> str:
    """Return the hints on a harness's error messages as text that follows the reason, or an empty string."""
    messages = [error.message for error in event_log.errors]
    return "".join(f". Hint: {hint}" for words, hint in _HINTS.items() if any(words in message for message in messages))


def _stderr(ended: CommandError) -> str:
    """Return the last lines of a crashed harness's stderr as one text, or an empty string. Informational lines are left out."""
    stderr_lines = (one_line(line, _STDERR_CHARACTERS) for line in ended.stderr_tail.splitlines())
    lines = [line for line in stderr_lines if line and not _REMARK.search(line)]
    return f": {' / '.join(lines[-_STDERR_LINES:])}" if lines else ""


def _litert_errors(ended: CommandError) -> str:
    """Return up to 3 distinct LiteRT error messages from a crashed harness's stderr as one text, or "" if none."""
    errors = (_LITERT_ERROR.fullmatch(one_line(line, _STDERR_CHARACTERS)) for line in ended.stderr_tail.splitlines())
    messages = list(dict.fromkeys(error[1] for error in errors if error))
    return f": {' / '.join(messages[:_STDERR_LINES])}" if messages else ""
