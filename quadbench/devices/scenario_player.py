"""Plays a scenario on a running virtual device: at given times the device becomes hot or slow, is unplugged, or reboots."""

import contextlib
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from quadbench.artifacts import MIB
from quadbench.devices.adb_protocol import AdbServer, Endpoint, UnixEndpoint, short_path
from quadbench.devices.process_marks import find_marked
from quadbench.devices.recording import RecordedScenario, write_recorded_state
from quadbench.devices.scenario import Fault, LaunchMoment, Phase, PushMoment, Scenario, write_clocks, write_memory, write_reports
from quadbench.errors import DeviceError

_PIECE_BYTES = 65_536
_CLOSE_TIMEOUT_S = 5.0

_POLL_S = 0.05
_PATIENCE_S = 10.0
_HOT = Phase(thermal_status=3, skin_c=46.5)

log = logging.getLogger(__name__)


class SlowLink:
    """A unix socket that forwards all traffic to an adb server, at most `mb_per_s` MiB/s in each direction."""

    def __init__(self, behind: Endpoint, mb_per_s: float | None) -> None:
        self.sent_bytes = 0
        self._behind, self._mb_per_s = behind, mb_per_s
        self._lock = threading.Lock()
        self._free_at = {"sent": 0.0, "received": 0.0}  # time when each direction has sent its queued bytes

    @contextlib.contextmanager
    def listening(self, path: Path) -> Iterator[UnixEndpoint]:
        """Forward connections at a new socket `path` to the adb server until the `with` block ends. Yield the socket address."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            with short_path(path) as address:
                listener.bind(address)
            listener.listen()
            thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            thread.start()
            try:
                yield UnixEndpoint(path=path)
            finally:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                thread.join(_CLOSE_TIMEOUT_S)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        """Forward one accepted connection to the adb server and back until either end closes it."""
        with near, contextlib.suppress(OSError), self._behind.connect() as far:
            far.settimeout(None)
            back = threading.Thread(target=self._pump, args=(far, near, "received"), daemon=True)
            back.start()
            self._pump(near, far, "sent")
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        """Copy data from one socket to another until the source is closed. On an error, shut both to stop both directions."""
        try:
            while piece := source.recv(_PIECE_BYTES):
                self._wait(len(piece), direction)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _wait(self, size: int, direction: str) -> None:
        with self._lock:
            if direction == "sent":
                self.sent_bytes += size
            if self._mb_per_s is None:
                return
            now = time.monotonic()
            free_at = max(now, self._free_at[direction]) + size / (self._mb_per_s * MIB)
            self._free_at[direction] = free_at
        time.sleep(max(0.0, free_at - now))


class ScenarioPlayer:
    """Changes a virtual device over time as a scenario says. `folder` is its sandbox folder, and `transport` its adb serial."""

    def __init__(self, scenario: Scenario, folder: Path, mark: str, server: AdbServer, transport: str, link: SlowLink) -> None:
        self._scenario, self._folder, self._mark = scenario, folder, mark
        self._server, self._transport, self._link = server, transport, link
        self._began = time.monotonic()
        self._is_over = threading.Event()
        self._own = set(find_marked(mark)) - set(self._processes_named("adbd"))  # processes that survive a simulated reboot
        self._events = list(scenario.events)  # events still to happen
        self._harnesses: dict[int, float] = {}  # process id to the time when it was first seen

    @contextlib.contextmanager
    def playing(self) -> Iterator[None]:
        """Change the virtual device as the scenario says, until the `with` block ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join(_PATIENCE_S)
            for event in self._events:
                log.warning("scenario %s: '%s' did not happen: %s", self._scenario.name, event.event, self._missed_reason(event))

    def _run(self) -> None:
        phases = sorted(self._scenario.phases, key=lambda phase: phase.after_s)
        while (phases or self._events) and not self._is_over.wait(_POLL_S):
            if self._events:
                self._look_for_harnesses()
            if phases and time.monotonic() - self._began >= phases[0].after_s:
                phase = phases.pop(0)
                log.info("scenario %s: starting the phase of second %g", self._scenario.name, phase.after_s)
                write_reports(self._folder / "system", phase)
            for event in [event for event in self._events if self._is_due(event)]:
                self._events.remove(event)
                self._apply(event)

    def _is_due(self, event: Fault) -> bool:
        match event.when:
            case LaunchMoment(launch=launch, after_s=after_s):
                started = sorted(self._harnesses.values())[launch - 1 : launch]
                return bool(started) and time.monotonic() - started[0] >= after_s
            case PushMoment(after_mb=after_mb):
                return self._link.sent_bytes >= after_mb * MIB

    def _missed_reason(self, event: Fault) -> str:
        match event.when:
            case LaunchMoment(launch=launch, after_s=after_s):
                return f"launch {launch} was not reached, or ended within {after_s:g} s"
            case PushMoment(after_mb=after_mb):
                sent_mb = self._link.sent_bytes / MIB
                return f"only {sent_mb:.1f} of {after_mb:g} MiB were sent; files already on the device are not sent again"

    def _apply(self, event: Fault) -> None:
        log.info("scenario %s: %s", self._scenario.name, event.event)
        if event.event == "heat":
            write_reports(self._folder / "system", _HOT)
            if event.for_s is not None and not self._is_over.wait(event.for_s):
                write_reports(self._folder / "system", Phase())
            return
        unplugged = self._folder / "run" / "unplugged"
        unplugged.touch()
        if event.event == "reboot":
            self._kill(lambda: set(find_marked(self._mark)) - self._own)
            _write_boot_id(self._folder)
        else:
            self._kill(lambda: set(self._processes_named("adbd")))
        self._ask(self._server.disconnect)
        if event.for_s is None or self._is_over.wait(event.for_s):
            return
        unplugged.unlink()
        while not self._is_attached() and not self._is_over.wait(_POLL_S):
            self._ask(self._server.connect)
        log.info("scenario %s: the device is back", self._scenario.name)

    def _kill(self, processes: Callable[[], set[int]]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while (left := processes()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(_POLL_S / 5)

    def _ask(self, request: Callable[[str], object]) -> None:
        with contextlib.suppress(DeviceError):
            request(self._transport)

    def _is_attached(self) -> bool:
        with contextlib.suppress(DeviceError):
            return self._server.has_ready(self._transport)
        return False

    def _look_for_harnesses(self) -> None:
        """Add new benchmark processes (harnesses) to a dict from pid to time first seen. Ignore child processes of harnesses."""
        for process in set(find_marked(self._mark)) - self._own - self._harnesses.keys():
            words = _read(f"/proc/{process}/cmdline").split(b"\0")
            parent = re.search(rb"^PPid:\s+(\d+)$", _read(f"/proc/{process}/status"), re.MULTILINE)
            is_child = parent is not None and int(parent[1]) in self._harnesses
            if len(words) > 1 and words[1].endswith(b"/plan.json") and not is_child:
                self._harnesses[process] = time.monotonic()

    def _processes_named(self, name: str) -> list[int]:
        return [process for process in find_marked(self._mark) if _read(f"/proc/{process}/comm").strip() == name.encode()]


def prepare_scenario(scenario: Scenario, folder: Path) -> None:
    """Write a scenario's first dumpsys reports, clocks, memory and boot id to a sandbox folder that has a subfolder `system`."""
    _write_boot_id(folder)
    if isinstance(scenario, RecordedScenario):
        write_recorded_state(scenario.recording, folder)
    if scenario.phases:
        write_reports(folder / "system", min(scenario.phases, key=lambda phase: phase.after_s))
    if scenario.clocks:
        write_clocks(folder / "clocks", scenario.clocks)
    if scenario.free_mb is not None:
        write_memory(folder / "meminfo", scenario.free_mb)


def scenario_mounts(folder: Path) -> list[str]:
    """Return the bwrap arguments that mount the kernel files of a prepared sandbox folder into a virtual device's sandbox."""
    places = {
        "clocks": "/sys/devices/system/cpu/cpufreq",
        "meminfo": "/proc/meminfo",
        "boot_id": "/proc/sys/kernel/random/boot_id",
    }
    there = ((folder / name, place) for name, place in places.items() if (folder / name).exists())
    return [word for path, place in there for word in ("--ro-bind", str(path), place)]


@contextlib.contextmanager
def playing_scenario(scenario: Scenario, folder: Path, mark: str, server: AdbServer, transport: str) -> Iterator[AdbServer]:
    """Play a scenario on a virtual device in a `with` block. Yield an AdbServer that connects through a throttling proxy."""
    link = SlowLink(server.endpoint, scenario.link_mb_per_s)
    player = ScenarioPlayer(scenario, folder, mark, server, transport, link)
    with link.listening(folder / "run" / "link.sock") as endpoint, player.playing():
        yield replace(server, endpoint=endpoint)


def _write_boot_id(folder: Path) -> None:
    """Write a random boot id for a virtual device. Overwrite the file in place, as the sandbox would not see a new file."""
    (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
