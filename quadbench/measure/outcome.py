"""Outcome: the events of a launch and how its process ended -> failure and caveats. Pure."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import groupby

from quadbench.artifacts import Bundle, Caveat, DeviceFacts, ErrorClass
from quadbench.artifacts.names import one_line
from quadbench.errors import CommandError, CommandTimeoutError, DeviceError, OutputLimitError
from quadbench.harness.events import ErrorEvent
from quadbench.harness.heard import Heard
from quadbench.harness.plan import REFUSED_EXIT_CODE
from quadbench.host import signal_name
from quadbench.statistics import ENOUGH_SAMPLES, settled_from

_CANNOT_START = {126, 127}  # exit codes of a shell that cannot start the harness

# A line of ONNX Runtime's log that is no error: it begins with time and severity, as `[W:onnxruntime:quadbench, file.cc:1 f]`.
_REMARK = re.compile(r"\[[VIW]:onnxruntime:|\[Telemetry\]")
# A line of LiteRT's log that is an error. What LiteRT returns is a number, which says less.
_LITERT_ERROR = re.compile(r"ERROR: (?:\[\S+\] )?(.+)")
_STDERR_LINES = 3
_STDERR_CHARACTERS = 200  # of each of them

_WARMING = 2  # images that are slow at a block's beginning: one alone may be chance
_RELEASE_BUILDS = {"release", "relwithdebinfo", "minsizerel"}

_NO_PHONES = {"virtual": Caveat.VIRTUAL_DEVICE, "local": Caveat.THIS_MACHINE}  # by family
_LONGER = "Hint: raise measure.timeout_s of the recipe"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why a launch is not OK, and the party at fault."""

    error_class: ErrorClass
    reason: str


def failure_of(heard: Heard, ended: DeviceError | None, plan_sha256: str, wall_s: float) -> Failure | None:
    """Judge a launch that took `wall_s`. `ended` is the error with which its output ended; None is exit code 0."""
    if ended is not None:
        return _ended_badly(heard, ended)
    reason = heard.unsound(plan_sha256, wall_s) or (f"harness failed: {_errors(heard)}" if _has_failed(heard) else None)
    return Failure(error_class=ErrorClass.HARNESS, reason=reason) if reason else None


def caveats_of(bundle: Bundle, device: DeviceFacts, heard: Heard, of_launch: tuple[Caveat, ...]) -> tuple[Caveat, ...]:
    """Return every doubt about the figures of a launch, in the enumeration's order."""
    doubts = {*bundle.caveats, *of_launch}
    if device.family in _NO_PHONES:
        doubts.add(_NO_PHONES[device.family])
    if heard.header is not None and heard.header.build_type.lower() not in _RELEASE_BUILDS:
        doubts.add(Caveat.DEBUG_BUILD)
    if heard.header is not None and not heard.header.peak_reset:
        doubts.add(Caveat.PEAK_SINCE_START)
    if _has_few_samples(heard):
        doubts.add(Caveat.FEW_SAMPLES)
    if _still_warms(heard):
        doubts.add(Caveat.STILL_WARMING)
    return tuple(caveat for caveat in Caveat if caveat in doubts)


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


def _has_failed(heard: Heard) -> bool:
    return bool(heard.errors) or heard.footer is None or heard.footer.status != "OK"


def _errors(heard: Heard) -> str:
    return "; ".join(one_line(_placed(error)) for error in heard.errors) or "no reason given"


def _placed(error: ErrorEvent) -> str:
    """Return a message with its place before it, which some messages have themselves."""
    is_told = not error.where or error.message.startswith(error.where)
    return error.message if is_told else f"{error.where}: {error.message}"


def _stderr(ended: CommandError) -> str:
    """Return the last lines of stderr, but for what the runtime's log says of its own well-being: that ends no program."""
    said = (one_line(line, _STDERR_CHARACTERS) for line in ended.stderr_tail.splitlines())
    lines = [line for line in said if line and not _REMARK.search(line)]
    return f": {' / '.join(lines[-_STDERR_LINES:])}" if lines else ""


def _litert_errors(ended: CommandError) -> str:
    """Return the first errors of LiteRT's log, each once."""
    errors = (_LITERT_ERROR.fullmatch(one_line(line, _STDERR_CHARACTERS)) for line in ended.stderr_tail.splitlines())
    told = list(dict.fromkeys(error[1] for error in errors if error))
    return f": {' / '.join(told[:_STDERR_LINES])}" if told else ""


def _still_warms(heard: Heard) -> bool:
    """Say whether a block of images began slower than it went on, after its warm-up."""
    images = (sample for sample in heard.samples if sample.metric == "end_to_end_ns" and not sample.is_warmup)
    blocks = ([sample.value for sample in block] for _, block in groupby(images, key=lambda sample: sample.task))
    return any(settled_from(block) >= _WARMING for block in blocks)


def _has_few_samples(heard: Heard) -> bool:
    """Say whether a task has too few images for the median that is quoted of them."""
    counts = Counter(s.task for s in heard.samples if s.metric == "end_to_end_ns" and not s.is_warmup)
    return any(count < ENOUGH_SAMPLES[50] for count in counts.values())
