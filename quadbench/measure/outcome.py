"""Outcome: the events of a launch and how its process ended -> failure and caveats. Pure."""

import signal
from collections import Counter
from dataclasses import dataclass

from quadbench.artifacts import Bundle, Caveat, CompiledBundle, DeviceFacts, ErrorClass
from quadbench.errors import CommandError, CommandTimeoutError, DeviceError
from quadbench.harness.events import Heard
from quadbench.harness.plan import REFUSED_EXIT_CODE
from quadbench.statistics import ENOUGH_SAMPLES

_CANNOT_START = {126, 127}  # exit codes of a shell that cannot start the harness

_RELEASE_BUILDS = {"release", "relwithdebinfo", "minsizerel"}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why a launch is not OK, and the party at fault."""

    error_class: ErrorClass
    reason: str


def failure_of(heard: Heard, ended: DeviceError | None, plan_sha256: str) -> Failure | None:
    """Judge a launch. `ended` is the error with which its output ended; None is exit code 0."""
    if ended is not None:
        return _ended_badly(heard, ended)
    reason = _unsound(heard, plan_sha256)
    return Failure(error_class=ErrorClass.HARNESS, reason=reason) if reason else None


def caveats_of(
    bundle: Bundle, compiled: CompiledBundle, device: DeviceFacts, heard: Heard, of_launch: tuple[Caveat, ...]
) -> tuple[Caveat, ...]:
    """Return every doubt about the figures of a launch, in the enumeration's order."""
    doubts = {*bundle.caveats, *compiled.caveats, *of_launch}
    if device.family != "adb":
        doubts.add(Caveat.VIRTUAL_DEVICE)
    if heard.header is not None and heard.header.build_type.lower() not in _RELEASE_BUILDS:
        doubts.add(Caveat.DEBUG_BUILD)
    if _has_few_samples(heard):
        doubts.add(Caveat.FEW_SAMPLES)
    return tuple(caveat for caveat in Caveat if caveat in doubts)


def _ended_badly(heard: Heard, ended: DeviceError) -> Failure:
    match ended:
        case CommandTimeoutError():
            return Failure(error_class=ErrorClass.HARNESS, reason=f"harness timed out: {ended}{_after(heard)}")
        case CommandError(status=status) if status in _CANNOT_START:
            return Failure(error_class=ErrorClass.INFRASTRUCTURE, reason=f"harness cannot be started: {ended}")
        case CommandError(status=status):
            is_plan = status == REFUSED_EXIT_CODE
            error_class = ErrorClass.INFRASTRUCTURE if is_plan else ErrorClass.HARNESS
            return Failure(error_class=error_class, reason=f"{_said_or_died(heard, ended)}{_after(heard)}")
        case _:
            return Failure(error_class=ErrorClass.DEVICE, reason=f"{ended}{_after(heard)}")


def _said_or_died(heard: Heard, ended: CommandError) -> str:
    if heard.errors:
        return f"harness failed with exit code {ended.status}: {_errors(heard)}"
    if 128 < ended.status < 160:
        return f"harness was killed by signal {ended.status - 128} ({_signal_name(ended.status - 128)}){_stderr(ended)}"
    return f"harness was killed or crashed (exit code {ended.status}){_stderr(ended)}"


def _unsound(heard: Heard, plan_sha256: str) -> str | None:
    """Say what is wrong with the output of a harness that ended with exit code 0; None where nothing is."""
    if heard.problem:
        return heard.problem
    if heard.header is None or heard.footer is None:
        missing = "header" if heard.header is None else "footer"
        return f"harness wrote no {missing}, though its exit code is 0{_after(heard)}"
    if heard.header.plan_sha256 != plan_sha256:
        return f"harness ran another plan: sha256 {heard.header.plan_sha256}, expected {plan_sha256}"
    if heard.footer.status != "OK" or heard.errors:
        return f"harness failed: {_errors(heard)}"
    if heard.footer.samples != len(heard.samples):
        return f"harness wrote {heard.footer.samples} samples, {len(heard.samples)} arrived"
    return None


def _errors(heard: Heard) -> str:
    return (
        "; ".join(f"{error.where}: {error.message}" if error.where else error.message for error in heard.errors)
        or "no reason given"
    )


def _after(heard: Heard) -> str:
    """Say at which point of its output a launch ended early."""
    if heard.problem:
        return f"; {heard.problem}"
    return "" if heard.footer else f"; no footer after {heard.lines} lines, {len(heard.samples)} samples are kept"


def _stderr(ended: CommandError) -> str:
    last = " / ".join(ended.stderr_tail.strip().splitlines()[-3:])
    return f": {last}" if last else ""


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else "unknown"


def _has_few_samples(heard: Heard) -> bool:
    """Say whether a task has too few images for the median that is quoted of them."""
    counts = Counter(s.task for s in heard.samples if s.metric == "end_to_end_ns" and not s.is_warmup)
    return any(count < ENOUGH_SAMPLES[50] for count in counts.values())
