"""adb commands: a command line -> what it says on a device behind an adb server, and its exit code; it ends when it is left."""

import contextlib
import logging
import math
import re
import threading
import time
from collections.abc import Generator, Sequence

from quadbench.artifacts.names import one_line
from quadbench.devices.adb_protocol import AdbServer, Connection
from quadbench.devices.adb_shell import Stream, close_stdin, packets, shell_service
from quadbench.devices.device import ShellResult
from quadbench.devices.output import Tail, Whole, as_text
from quadbench.errors import DeviceError, DeviceLostError

KILL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 30.0  # until the device has started a command; what the command then takes is its own
_FIRST_LINE_BYTES = 1000  # the id of a process, or what is wrong
_PROCESS = re.compile(rb"\d{1,10}")  # Linux's ids have at most seven digits

log = logging.getLogger(__name__)


class AdbCommands:
    """The commands on one device, which its server knows by the serial `transport` and messages call `name`."""

    def __init__(self, server: AdbServer, transport: str, name: str) -> None:
        self.name = name
        self._server = server
        self._transport = transport
        self._running: set[int] = set()  # process groups that have not ended
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def open(self, service: str) -> Connection:
        """Open a service of the device.

        Raises:
            DeviceLostError: the device is gone, or `close` was called.
        """
        self._check_open()
        return self._server.open(self._transport, service, self.name)

    def shell(self, argv: Sequence[str], timeout_s: float) -> ShellResult:
        """Run a command to its end.

        Raises:
            TimeoutError: it took too long and was killed.
            OutputLimitError: it wrote more than is read, and was killed.
            DeviceLostError: the device went away.
        """
        stdout, stderr = Whole(f"the output of '{argv[0]}' on {self.name}"), Tail()
        with contextlib.closing(self.run(argv, timeout_s, stderr)) as output:
            while True:
                try:
                    stdout.take(next(output))
                except StopIteration as end:
                    return ShellResult(exit_code=end.value, stdout=stdout.text, stderr=stderr.text)

    def run(
        self, argv: Sequence[str], timeout_s: float, stderr: Tail, *, silence_s: float = math.inf
    ) -> Generator[bytes, None, int]:
        """Yield pieces of stdout as they come, and return the exit code. Where it is left before, the command is killed.

        Raises:
            TimeoutError: it took longer than `timeout_s`.
            DeviceLostError: the device went away, or sent nothing for `silence_s`.
        """
        group: int | None = None
        is_over = False  # or out of reach
        try:
            with self.open(shell_service(argv)) as connection:
                close_stdin(connection)
                group, first = self._started(connection, argv[0])
                yield first
                for packet in packets(connection, time.monotonic() + timeout_s, silence_s):
                    if packet.stream is Stream.STDOUT:
                        yield packet.data
                    elif packet.stream is Stream.STDERR:
                        stderr.take(packet.data)
                    else:
                        is_over = True
                        self._check_open()  # it may have been killed by `close`
                        return packet.data[0]
            raise AssertionError("packets end with an exit code")
        except DeviceLostError:
            is_over = True
            raise
        finally:
            if group is not None:
                self.forget(group, kill=not is_over)

    def remember(self, group: int) -> None:
        """Have `close` kill a process group."""
        with self._lock:
            self._running.add(group)

    def forget(self, group: int, *, kill: bool) -> None:
        """Take back `remember`, and kill the process group where it may not have ended."""
        with self._lock:
            is_known = group in self._running  # not where close has killed it
            self._running.discard(group)
        if kill and is_known:
            self.kill(group)

    def kill(self, group: int) -> None:
        """Kill a process group, if the device can be reached."""
        try:
            service = shell_service(["sh", "-c", f"kill -KILL -{group}"])
            with self._server.open(self._transport, service, self.name) as connection:
                for _ in packets(connection, time.monotonic() + KILL_TIMEOUT_S):
                    pass
        except (DeviceError, TimeoutError) as error:
            reason = error.message if isinstance(error, DeviceError) else f"no answer within {KILL_TIMEOUT_S:g} s"
            log.warning("%s: process %d could not be killed; the next run kills it: %s", self.name, group, reason)

    def end(self) -> str | None:
        """Return why the device will never be back; None where it may."""
        return self._server.end()

    def reconnect(self) -> None:
        """Have the server look again for a device that it reaches through a network.

        Raises:
            DeviceLostError: there is no server.
        """
        if ":" in self._transport:
            try:
                self._server.ask(f"host:connect:{self._transport}")
            except DeviceError as error:
                raise DeviceLostError(f"{self.name} was lost: {error.message}", hint=error.hint) from error

    def wait(self, seconds: float) -> bool:
        """Wait, and say whether `close` was called meanwhile."""
        return self._closed.wait(seconds)

    def close(self) -> None:
        """Kill what still runs. Nothing can be run afterwards."""
        self._closed.set()
        with self._lock:
            for group in self._running:
                self.kill(group)
            self._running.clear()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise DeviceLostError(f"{self.name} was closed, and what ran there ended", transient=False)

    def _started(self, connection: Connection, program: str) -> tuple[int, bytes]:
        """Return the command's process group, and the bytes of its stdout that came with it."""
        head = b""
        try:
            for packet in packets(connection, time.monotonic() + START_TIMEOUT_S):
                head += packet.data
                number, newline, rest = head.partition(b"\n")
                if newline and _PROCESS.fullmatch(number):
                    self.remember(int(number))
                    return int(number), rest
                if newline or len(head) > _FIRST_LINE_BYTES:
                    break
        except TimeoutError as error:
            raise connection.lost(f"it did not start '{program}' within {START_TIMEOUT_S:g} s") from error
        raise DeviceError(f"{self.name} did not start '{program}': {one_line(as_text(head[:_FIRST_LINE_BYTES]))}")
