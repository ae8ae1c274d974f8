"""Run one launch: a fresh harness process in its own folder on the device. Return a record even if the launch fails."""

import hashlib
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import MIB, ErrorClass, LaunchPlan, RunRecord
from quadbench.artifacts.run_record import tasks_of
from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.errors import DeviceError, DeviceFullError, DeviceLostError, StorageError
from quadbench.harness.event_log import EVENTS, EventLog
from quadbench.harness.events import expected_events
from quadbench.harness.installation import Installation, harness_plan
from quadbench.measure.derived_samples import fetch_images, kernel_samples, rom_samples
from quadbench.measure.gate import caveats_of_state, disturbances, max_busy_percent, read_state, state_texts, wait_at_gate
from quadbench.measure.launch_record import LaunchResult, LaunchSettings, LaunchWork, build_record, find_failure
from quadbench.results.layout import Layout

_ADVICE = "Ctrl-C: the current launch on each device is finished and stored; press Ctrl-C again to stop it at once"

log = logging.getLogger(__name__)

ImageCallback = Callable[[str, int], None]  # the task, and the number of its images in the launch so far
_SYNC_INTERVAL_S = 1.0  # a power cut loses at most these events; a sync for each line would disturb the measurement
_SCREEN_HINT = "keep it on with adb shell svc power stayon true, then wake the phone up"

_TIMEOUT_S = 30.0
_LIST = 'if [ -d "$1" ]; then ls "$1"; fi'
# A process whose working directory is such a folder is an orphaned harness.
_REMOVE = """\
cd "$1" 2>/dev/null || exit 0
shift
for process in /proc/[0-9]*; do
  for name; do
    if [ "$process/cwd" -ef "$name" ]; then kill -KILL "${process##*/}"; fi
  done
done
rm -rf "$@"
"""
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
SPACE_BYTES = 8 * MIB  # free space required before a launch, for its events and images
_MAX_AT_ONCE = 200  # names in one command, whose limit is 64 KB


class StopFlag:
    """A stop flag that threads share. After `request`, no launch starts. After `cut_off`, moreover, failures count as ABORTED."""

    def __init__(self) -> None:
        self._asked, self._cut_off = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._waits: list[Callable[[], object]] = []

    @property
    def is_requested(self) -> bool:
        return self._asked.is_set()

    @property
    def is_cut_off(self) -> bool:
        return self._cut_off.is_set()

    def request(self) -> None:
        """Request a stop: no launch starts any more, `wait` returns at once, and callbacks given to `calling_on_request` run."""
        self._asked.set()
        with self._lock:
            for end in self._waits:
                end()

    def cut_off(self) -> None:
        """Call before killing harnesses: request a stop, and record launches that fail from now on as ABORTED, not FAILED."""
        self._cut_off.set()
        self.request()

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds`, or less if a stop is requested. Return True if a stop was requested, else False."""
        return self._asked.wait(seconds)

    @contextmanager
    def calling_on_request(self, end: Callable[[], object]) -> Iterator[None]:
        """Call `end()` on a stop request before or during the `with` block. `end` must interrupt blocking calls in the block."""
        with self._lock:
            self._waits.append(end)
        try:
            if self.is_requested:
                end()
            yield
        finally:
            with self._lock:
                self._waits.remove(end)


@contextmanager
def stop_on_ctrl_c(stop: StopFlag) -> Iterator[None]:
    """On Ctrl-C in a `with` block, call `stop.request()`. Raise KeyboardInterrupt after the block, or at once on a second one."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield  # only the main thread may set signals, and a foreign handler stays
        return

    pressed: list[bool] = []

    def ask() -> None:
        log.warning(_ADVICE)
        stop.request()

    def first(_number: int, _frame: object) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, usual)
        threading.Thread(target=ask).start()  # the interrupted code may hold a lock that `ask` needs

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        raise KeyboardInterrupt


class LaunchAborted(KeyboardInterrupt):
    """Raised when Ctrl-C ends a launch and kills its harness. `record` has the status ABORTED and all samples received."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__(record.reason)
        self.record = record


class LaunchNotStarted(KeyboardInterrupt):
    """Raised for Ctrl-C while a launch waits until the device is ready. There is no record to store."""


@dataclass(frozen=True, kw_only=True)
class LaunchEnd:
    """A finished launch and its record. If the device was lost during the launch, `lost` is the error, else None."""

    record: RunRecord
    lost: DeviceLostError | None = None


def measure_launch(installation: Installation, launch: LaunchPlan, settings: LaunchSettings) -> RunRecord:
    """Run one launch and return its record. Unlike `run_launch`, it takes no stop flag, so only Ctrl-C interrupts it."""
    return run_launch(installation, launch, settings, StopFlag()).record


def run_launch(
    installation: Installation,
    launch: LaunchPlan,
    settings: LaunchSettings,
    stop: StopFlag,
    *,
    may_discard: bool = False,
    on_image: ImageCallback = lambda _task, _images: None,
) -> LaunchEnd:
    """Run one launch and return a LaunchEnd. The record's status is FAILED after a failure, SKIPPED if the device stays unready.

    With `may_discard`, a launch that ends with the device too hot or slowed down is DISCARDED; otherwise it gets a caveat. If
    another thread handles Ctrl-C, that thread calls `stop.cut_off`, then closes the device. `on_image` is called for each image.
    Writes plan.json, events.jsonl (line by line) and images/<task>/<item>.png into the launch's folder. The caller stores the
    record.
    """
    images = f"{runs_folder(installation.device)}/{settings.run_id}/images"
    folder = settings.layout.launch(settings.run_id, installation.address, launch.variant, launch.launch)
    plan = harness_plan(installation, launch, runtime=settings.runtime, images=images)
    steps = {task.name: task.steps for task in tasks_of(installation.bundle.artifact, launch)}
    provider = installation.execution_provider
    work = LaunchWork(
        installation=installation,
        launch=launch,
        settings=settings,
        plan=json.dumps(plan, indent=1).encode(),
        harness=installation.path_of_digest(installation.program, "the harness"),
        expected=expected_events(plan, steps, settings.timeout_s, installation.libraries),
        images=images,
        folder=folder,
        is_emulated=provider is not None and provider.is_emulator and launch.variant.is_quantized,
        may_discard=may_discard,
    )
    return _measure_safely(work, stop, on_image)


def _measure_safely(work: LaunchWork, stop: StopFlag, on_image: ImageCallback) -> LaunchEnd:
    name = f"{work.device.facts.address}: launch {work.launch.launch} of {work.launch.variant}"
    log.info("%s: starts", name)
    began = time.monotonic()
    result = LaunchResult(began_s=began, event_log=EventLog(expected=work.expected))
    try:
        _measure(work, result, stop, on_image)
        if result.failure and stop.is_cut_off:
            raise KeyboardInterrupt
    except LaunchNotStarted:
        raise
    except KeyboardInterrupt as interrupt:
        result.failure = None
        raise LaunchAborted(build_record(work, result, aborted=True)) from interrupt
    record = build_record(work, result)
    log.info(
        "%s: %s after %.1f s%s", name, record.status, time.monotonic() - began, f", {record.reason}" if record.reason else ""
    )
    return LaunchEnd(record=record, lost=result.lost)


def _measure(work: LaunchWork, result: LaunchResult, stop: StopFlag, on_image: ImageCallback) -> None:
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        if work.settings.confirm:
            work.settings.confirm(work.device)
        remove_leftovers(work.device, work.settings.layout)
        if not _passes_gate(work, result, stop):
            return
        result.samples += (*rom_samples(work.installation, work.launch), *kernel_samples(work.installation, work.launch))
        plan = work.folder / "plan.json"
        plan.write_bytes(work.plan)
        with remote_folder(work.device, work.settings.run_id, plan) as remote:
            _run_harness(work, result, remote, on_image)
            if result.failure is None or result.failure.error_class is not ErrorClass.DEVICE:
                fetch_images(work, result)
        _read_state_after(work, result)
    except DeviceError as error:
        result.note_lost(error)
        result.fail(ErrorClass.DEVICE, str(error))
    except (StorageError, OSError) as error:
        result.fail(ErrorClass.INFRASTRUCTURE, f"this machine cannot write the results: {error}")
    except Exception as error:
        # An unexpected error in one launch must not end the others.
        log.info("%s: unexpected error in a launch", work.device.facts.address, exc_info=True)
        reason = f"unexpected error, a bug in quadbench (-v shows where): {type(error).__name__}: {error}"
        result.fail(ErrorClass.INFRASTRUCTURE, reason)


def _passes_gate(work: LaunchWork, result: LaunchResult, stop: StopFlag) -> bool:
    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise LaunchNotStarted

    limits, shares_host_cpu = work.settings.gate, work.device.shares_host_cpu
    waited = f"waited {limits.wait_s:g} s"
    if work.settings.has_waited:
        waited, limits = f"not waited, as the launch before {waited} in vain", limits.model_copy(update={"wait_s": 0.0})
    is_watched = max_busy_percent(limits, shares_host_cpu=shares_host_cpu) is not None
    state, judged = wait_at_gate(
        lambda: read_state(work.device, is_watched=is_watched), limits, shares_host_cpu=shares_host_cpu, sleep=sleep
    )
    result.state |= state_texts(state, "before")
    result.state_caveats = judged.caveats
    if state.screen == "off":
        log.warning("%s: the screen is off, which slows many phones down; %s", work.device.facts.address, _SCREEN_HINT)
    if not judged.is_open:
        result.refusal = f"INVALID: {'; '.join(judged.objections)}; {waited}"
    return judged.is_open


def _read_state_after(work: LaunchWork, result: LaunchResult) -> None:
    try:
        state = read_state(work.device)
    except DeviceError as error:
        log.warning("%s: state after the launch is unavailable: %s", work.device.facts.address, error.message)
        result.state |= state_texts(None, "after")
        return
    result.state |= state_texts(state, "after")
    limits = work.settings.gate
    result.state_caveats += caveats_of_state(state, limits, shares_host_cpu=False)  # the load is the launch's own now
    if work.may_discard and (disturbed := "; ".join(disturbances(state, limits))):
        result.disturbance = f"discarded, and its block is repeated: {disturbed} when it ended"


def _run_harness(work: LaunchWork, result: LaunchResult, remote: str, on_image: ImageCallback) -> None:
    ended: DeviceError | None = None
    event_log = result.event_log
    began = time.monotonic()
    try:
        environment = work.installation.kit.environment if work.installation.kit else {}
        lines = work.device.stream([work.harness, f"{remote}/plan.json"], work.settings.timeout_s, remote, environment)
        with closing(lines), (work.folder / EVENTS).open("w", encoding="utf-8") as file:
            synced = began
            for line in lines:
                if event_log.feed(line) and event_log.task:
                    on_image(event_log.task, event_log.on_image)
                if event_log.is_over:
                    break
                file.write(f"{line}\n")
                file.flush()
                if time.monotonic() - synced >= _SYNC_INTERVAL_S:
                    os.fsync(file.fileno())
                    synced = time.monotonic()
    except DeviceError as error:
        ended = error
    wall_s = time.monotonic() - began
    result.note_lost(ended)
    result.failure = find_failure(event_log, ended, hashlib.sha256(work.plan).hexdigest(), wall_s)


def runs_folder(device: Device) -> str:
    return f"{device.root}/runs"


def remove_leftovers(device: Device, layout: Layout) -> None:
    """Remove run folders that earlier launches left on the device, and kill harnesses that still run in them.

    The caller holds the device's lock. Only runs of this results folder count; those of other results folders are left alone.
    """
    there = device.shell(["sh", "-c", _LIST, "sh", runs_folder(device)], _TIMEOUT_S).stdout.splitlines()
    ours = [name for name in there if _RUN_ID.fullmatch(name) and layout.run(name).is_dir()]
    for start in range(0, len(ours), _MAX_AT_ONCE):
        names = ours[start : start + _MAX_AT_ONCE]
        log.info("%s: removing the folders of earlier launches: %s", device.facts.address, ", ".join(names))
        _remove(device, names)


@contextmanager
def remote_folder(device: Device, run_id: str, plan: Path) -> Iterator[str]:
    """Create a launch's folder with plan.json on the device and yield the folder's path. Remove the folder after the block."""
    folder, address = f"{runs_folder(device)}/{run_id}", device.facts.address
    try:
        device.push({f"{folder}/plan.json": plan})
        if (free := device.free_bytes(folder)) < SPACE_BYTES:
            raise DeviceFullError(
                f"'{folder}' on {address} has {free / MIB:.1f} MB left, a launch needs {SPACE_BYTES / MIB:g} MB for its images"
                " and events",
                hint=f"make room there; files below {device.root} may be deleted, they are sent again when needed",
            )
        yield folder
    finally:
        try:
            _remove(device, [run_id])
        except DeviceError as error:
            reason = one_line(error.message)
            log.warning("%s: '%s' could not be removed; the next run removes it: %s", address, folder, reason)


def _remove(device: Device, names: Sequence[str]) -> None:
    device.shell(["sh", "-c", _REMOVE, "sh", runs_folder(device), *names], _TIMEOUT_S)
