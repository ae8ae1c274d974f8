"""Access to a device through an adb server: shell commands and file transfers."""

import contextlib
import re
import stat
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from quadbench.artifacts import DeviceFacts
from quadbench.devices import device
from quadbench.devices.adb_commands import AdbCommands, DetachedCommand
from quadbench.devices.adb_protocol import STDOUT, AdbServer, errors_of, lost_error, packets
from quadbench.devices.android_reports import parse_getprop
from quadbench.errors import DeviceError, DeviceLostError
from quadbench.target.abi import Abi
from quadbench.target.profile import DeviceProfile

if TYPE_CHECKING:
    from quadbench.devices.adb_transport import Connection

PROPERTIES_TIMEOUT_S = 20.0
FREE_BYTES_TIMEOUT_S = 20.0

STALL_TIMEOUT_S = 60.0  # without any byte; a phone that flushes its flash pauses for seconds, not for a minute
SLOWEST_BYTES_PER_S = 16 * 1024  # for a pulled file; USB 1.1 and weak Wi-Fi are tens of times faster


class AdbDevice:
    """A device reached through an adb server. `transport` is the adb serial. `close` releases `resources`, such as a lock."""

    root = device.ANDROID_ROOT

    def __init__(
        self,
        server: AdbServer,
        transport: str,
        *,
        facts: DeviceFacts,
        profile: DeviceProfile,
        abi: Abi,
        resources: contextlib.ExitStack,
    ) -> None:
        self.facts, self.serial, self.family = facts, facts.serial, facts.family
        self.shares_host_cpu = facts.family != "adb"
        self.profile = profile
        self.abi = abi
        self._server = server
        self._transport = transport
        self._resources = resources
        self._name = f"device '{facts.address}'"
        self._commands = AdbCommands(server, transport, self._name)

    def properties(self) -> dict[str, str]:
        return read_properties(self._server, self._transport, self._name)

    def push(self, files: Mapping[str, Path], progress: device.Progress | None = None) -> None:
        missing, sizes = dict(files), {remote: local.stat().st_size for remote, local in files.items()}
        confirmed_bytes = 0

        def send() -> None:
            nonlocal confirmed_bytes
            before_bytes = confirmed_bytes

            def report(sent_bytes: int) -> None:
                self._commands.check_open()  # as Ctrl-C closes the device while another thread sends
                if progress:
                    progress(before_bytes + sent_bytes)

            def refusal() -> str:
                return f"cannot write '{next(iter(missing))}' on {self._name}"

            with self._commands.open("sync:") as connection:
                lost_reason = f"no progress for {STALL_TIMEOUT_S:g} s while files were sent"
                connection.limit(STALL_TIMEOUT_S)
                with errors_of(self._name, lost_reason=lost_reason, refusal=refusal):
                    for remote in connection.files().push_files(dict(missing), progress=report):
                        self._commands.check_open()
                        del missing[remote]
                        confirmed_bytes += sizes[remote]

        while missing:
            before = len(missing)
            try:
                self._commands.retry_once(send, over_reboots=True)
            except DeviceLostError:
                if len(missing) == before:  # its tries are for each file that arrives, not for all of them
                    raise

    def pull(self, remote: str, local: Path, *, limit_bytes: int = device.PULL_LIMIT_BYTES) -> None:
        def receive() -> None:
            with self._commands.open("sync:") as connection:
                receive_file(connection, remote, local, self._name, limit_bytes)

        self._commands.retry_once(receive)

    def shell(self, argv: Sequence[str], timeout_s: float) -> device.ShellResult:
        device.check_command(argv)
        try:
            return self._commands.retry_once(lambda: self._commands.shell(argv, timeout_s))
        except TimeoutError as error:
            raise device.command_timeout_error(argv, self._name, timeout_s) from error

    def stream(
        self, argv: Sequence[str], timeout_s: float, folder: str, environment: Mapping[str, str] | None = None
    ) -> Generator[str, None, None]:
        device.check_command(argv)
        stderr = device.OutputTail()
        command = DetachedCommand(self._commands, argv, timeout_s, folder, environment or {})
        try:
            yield from device.read_lines(command.run(stderr), argv, self._name, stderr)
        except TimeoutError as error:
            raise device.command_timeout_error(argv, self._name, timeout_s) from error

    def is_ready(self) -> bool:
        return self._commands.is_ready()

    def free_bytes(self, path: str) -> int:
        result = self.shell(["stat", "-f", "-c", "%a %S", path], FREE_BYTES_TIMEOUT_S)
        numbers = re.fullmatch(r"(\d{1,18}) (\d{1,18})\s*", result.stdout)
        if result.exit_code or not numbers:
            raise DeviceError(f"cannot read the free space of '{path}' on {self._name}: {result.stdout} {result.stderr}".rstrip())
        return int(numbers[1]) * int(numbers[2])

    def close(self) -> None:
        with self._resources:
            self._commands.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_properties(server: AdbServer, transport: str, name: str, timeout_s: float | None = None) -> dict[str, str]:
    """Return a device's `getprop` properties as a dict. Wait at most 20 s. `name` is the device's name in error messages."""
    timeout_s = PROPERTIES_TIMEOUT_S if timeout_s is None else min(timeout_s, PROPERTIES_TIMEOUT_S)
    return parse_getprop(read_output(server, transport, "getprop", name, timeout_s))


def read_output(server: AdbServer, transport: str, command: str, name: str, timeout_s: float = PROPERTIES_TIMEOUT_S) -> str:
    """Return what a fixed shell command prints on a device, without its stderr. `name` is the device's name in error messages."""
    stdout = device.WholeOutput(f"the output of {command} on {name}")
    try:
        with server.open(transport, f"shell,v2,raw:{command}", name) as connection:
            for packet in packets(connection, time.monotonic() + timeout_s):
                if packet.kind == STDOUT:
                    stdout.feed(packet.data)
    except TimeoutError as error:
        raise DeviceError(f"{name} does not answer {command} within {max(0, timeout_s):g} s", hint="reconnect it") from error
    return stdout.text


def receive_file(connection: "Connection", remote: str, local: Path, name: str, limit_bytes: int) -> None:
    """Pull a device's regular file over a new connection to adb's service `sync:`. On failure, delete the partial local file."""
    lost_reason = f"no progress for {STALL_TIMEOUT_S:g} s while '{remote}' was read"
    connection.limit(STALL_TIMEOUT_S)
    partial = local.with_name(f".{local.name}.part")
    try:
        with errors_of(name, lost_reason=lost_reason, refusal=lambda: f"cannot read '{remote}' on {name}"):
            mode = connection.files().stat(remote).mode
            if mode and not stat.S_ISREG(mode):  # mode 0: missing, and reading it gives the reason
                raise device.not_a_file_error(remote, name)
            received_bytes, began = 0, time.monotonic()
            with partial.open("wb") as file:
                for chunk in connection.files().iter_content(remote):
                    if not chunk:
                        raise DeviceError(f"cannot read '{remote}' on {name}: the device sent a DATA message of 0 bytes")
                    file.write(chunk)
                    received_bytes += len(chunk)
                    if received_bytes > limit_bytes:
                        raise device.file_size_error(remote, name, limit_bytes)
                    if time.monotonic() - began > STALL_TIMEOUT_S + received_bytes / SLOWEST_BYTES_PER_S:
                        raise lost_error(name, f"it sends '{remote}' at less than {SLOWEST_BYTES_PER_S} bytes a second")
        partial.replace(local)
    finally:
        partial.unlink(missing_ok=True)
