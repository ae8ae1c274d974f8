"""adb: a device that is attached to an adb server, the user's or quadbench's own."""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Self

from quadbench.artifacts import DeviceFacts
from quadbench.devices.adb_protocol import AdbServer, Connection
from quadbench.devices.adb_shell import Stream, close_stdin, packets, shell_service
from quadbench.devices.adb_sync import receive_file, send_file
from quadbench.devices.device import (
    ANDROID_ROOT,
    PULL_LIMIT_BYTES,
    Progress,
    ShellResult,
    check_command,
    command_failed,
    command_timed_out,
)
from quadbench.devices.output import Lines, Tail, Whole, as_text
from quadbench.devices.properties import parse_getprop
from quadbench.errors import DeviceError
from quadbench.target.profile import DeviceProfile

KILL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 30.0  # until the device has started a command; what the command then takes is its own
PROPERTIES_TIMEOUT_S = 20.0
FREE_BYTES_TIMEOUT_S = 20.0
_FIRST_LINE_BYTES = 1000  # the id of a process, or what is wrong

log = logging.getLogger(__name__)


class AdbDevice:
    """A device behind an adb server, which knows it by the serial `transport`. `resources` are closed with it."""

    root = ANDROID_ROOT

    def __init__(
        self, server: AdbServer, transport: str, facts: DeviceFacts, profile: DeviceProfile, resources: contextlib.ExitStack
    ) -> None:
        self.facts = facts
        self.profile = profile
        self._server = server
        self._transport = transport
        self._resources = resources
        self._running: set[int] = set()  # process groups of streams that have not ended
        self._lock = threading.Lock()

    @property
    def serial(self) -> str:
        return self.facts.serial

    @property
    def family(self) -> str:
        return self.facts.family

    @property
    def shares_host_cpu(self) -> bool:
        return self.family != "adb"

    def properties(self) -> dict[str, str]:
        return read_properties(self._server, self._transport, self._name)

    def push(self, local: Path, remote: str, progress: Progress | None = None) -> None:
        with self._open("sync:") as connection:
            send_file(connection, local, remote, self._name, progress)

    def pull(self, remote: str, local: Path, *, limit_bytes: int = PULL_LIMIT_BYTES) -> None:
        with self._open("sync:") as connection:
            receive_file(connection, remote, local, self._name, limit_bytes)

    def shell(self, argv: Sequence[str], timeout_s: float) -> ShellResult:
        stdout, stderr = Whole(f"the output of '{argv[0] if argv else ''}' on {self._name}"), Tail()
        with contextlib.closing(self._run(argv, timeout_s, stderr)) as output:
            while True:
                try:
                    stdout.take(next(output))
                except StopIteration as end:
                    return ShellResult(exit_code=end.value, stdout=stdout.text, stderr=stderr.text)

    def stream(self, argv: Sequence[str], timeout_s: float) -> Generator[str, None, None]:
        lines, stderr = Lines(f"the output of '{argv[0] if argv else ''}' on {self._name}"), Tail()
        with contextlib.closing(self._run(argv, timeout_s, stderr)) as output:
            while True:
                try:
                    piece = next(output)
                except StopIteration as end:
                    status = end.value
                    break
                yield from lines.take(piece)
        if rest := lines.rest():
            yield rest
        if status:
            raise command_failed(argv, self._name, status, stderr.text)

    def free_bytes(self, path: str) -> int:
        result = self.shell(["stat", "-f", "-c", "%a %S", path], FREE_BYTES_TIMEOUT_S)
        numbers = re.fullmatch(r"(\d{1,18}) (\d{1,18})\s*", result.stdout)
        if result.exit_code or not numbers:
            raise DeviceError(f"cannot read the free space of '{path}' on {self._name}: {result.stdout} {result.stderr}".rstrip())
        return int(numbers[1]) * int(numbers[2])

    def close(self) -> None:
        with self._resources, self._lock:
            for group in self._running:
                self._kill(group)
            self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _name(self) -> str:
        return f"device '{self.facts.address}'"

    def _open(self, service: str) -> Connection:
        return self._server.open(self._transport, service, self._name)

    def _run(self, argv: Sequence[str], timeout_s: float, stderr: Tail) -> Generator[bytes, None, int]:
        """Yield pieces of stdout as they come, and return the exit code. However it is left, the command does not stay behind."""
        check_command(argv)
        group: int | None = None
        ended = False
        try:
            with self._open(shell_service(argv)) as connection:
                close_stdin(connection)
                group, first = self._started(connection, argv[0])
                yield first
                for packet in packets(connection, time.monotonic() + timeout_s):
                    if packet.stream is Stream.STDOUT:
                        yield packet.data
                    elif packet.stream is Stream.STDERR:
                        stderr.take(packet.data)
                    else:
                        ended = True
                        return packet.data[0]
            raise AssertionError("packets end with an exit code")
        except TimeoutError as error:
            raise command_timed_out(argv, self._name, timeout_s) from error
        finally:
            if group is not None:
                self._ended(group, kill=not ended)

    def _started(self, connection: Connection, program: str) -> tuple[int, bytes]:
        """Return the command's process group, and the bytes of its stdout that came with it."""
        head = b""
        try:
            for packet in packets(connection, time.monotonic() + START_TIMEOUT_S):
                head += packet.data
                number, newline, rest = head.partition(b"\n")
                if newline and number.isdigit():
                    with self._lock:
                        self._running.add(int(number))
                    return int(number), rest
                if newline or len(head) > _FIRST_LINE_BYTES:
                    break
        except TimeoutError as error:
            raise connection.lost(f"it did not start '{program}' within {START_TIMEOUT_S:g} s") from error
        raise DeviceError(f"{self._name} did not start '{program}': {as_text(head[:_FIRST_LINE_BYTES])}")

    def _ended(self, group: int, *, kill: bool) -> None:
        with self._lock:
            is_known = group in self._running  # not where close has killed it
            self._running.discard(group)
        if kill and is_known:
            self._kill(group)

    def _kill(self, group: int) -> None:
        """Kill a process group; where the device is gone there is nothing left to kill."""
        try:
            with self._open(shell_service(["sh", "-c", f"kill -KILL -{group}"])) as connection:
                for _ in packets(connection, time.monotonic() + KILL_TIMEOUT_S):
                    pass
        except (DeviceError, TimeoutError) as error:
            log.warning("%s: process %d could not be killed: %s", self._name, group, error)


def read_properties(server: AdbServer, transport: str, name: str) -> dict[str, str]:
    """Return the properties of a device behind the server; `name` is what messages call it."""
    stdout = Whole(f"the output of getprop on {name}")
    try:
        with server.open(transport, "shell,v2,raw:getprop", name) as connection:
            for packet in packets(connection, time.monotonic() + PROPERTIES_TIMEOUT_S):
                if packet.stream is Stream.STDOUT:
                    stdout.take(packet.data)
    except TimeoutError as error:
        raise DeviceError(f"{name} does not answer getprop within {PROPERTIES_TIMEOUT_S:g} s", hint="reconnect it") from error
    return parse_getprop(stdout.text)
