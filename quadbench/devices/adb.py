"""adb: a device that is attached to an adb server, the user's or quadbench's own."""

import contextlib
import re
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Self

from quadbench.artifacts import DeviceFacts
from quadbench.devices.adb_commands import AdbCommands
from quadbench.devices.adb_detached import run_detached
from quadbench.devices.adb_protocol import AdbServer
from quadbench.devices.adb_reconnect import Reconnect
from quadbench.devices.adb_shell import Stream, packets
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
from quadbench.devices.output import Lines, Tail, Whole
from quadbench.devices.properties import parse_getprop
from quadbench.errors import DeviceError
from quadbench.target.abi import Abi
from quadbench.target.profile import DeviceProfile

PROPERTIES_TIMEOUT_S = 20.0
FREE_BYTES_TIMEOUT_S = 20.0


class AdbDevice:
    """A device behind an adb server, which knows it by the serial `transport`. `resources` are closed with it."""

    root = ANDROID_ROOT

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
        self.facts = facts
        self.profile = profile
        self.abi = abi
        self._server = server
        self._transport = transport
        self._resources = resources
        self._commands = AdbCommands(server, transport, self._name)
        self._reconnect = Reconnect(self._commands)

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
        def send() -> None:
            with self._commands.open("sync:") as connection:
                send_file(connection, local, remote, self._name, progress)

        self._reconnect.again(send, over_reboots=True)

    def pull(self, remote: str, local: Path, *, limit_bytes: int = PULL_LIMIT_BYTES) -> None:
        def receive() -> None:
            with self._commands.open("sync:") as connection:
                receive_file(connection, remote, local, self._name, limit_bytes)

        self._reconnect.again(receive)

    def shell(self, argv: Sequence[str], timeout_s: float) -> ShellResult:
        check_command(argv)
        try:
            return self._reconnect.again(lambda: self._commands.shell(argv, timeout_s))
        except TimeoutError as error:
            raise command_timed_out(argv, self._name, timeout_s) from error

    def stream(
        self, argv: Sequence[str], timeout_s: float, folder: str, environment: Mapping[str, str] | None = None
    ) -> Generator[str, None, None]:
        check_command(argv)
        lines, stderr = Lines(f"the output of '{argv[0]}' on {self._name}"), Tail()
        variables = environment or {}
        detached = run_detached(self._commands, self._reconnect, argv, timeout_s, folder, stderr, variables)
        with contextlib.closing(detached) as output:
            while True:
                try:
                    piece = next(output)
                except StopIteration as end:
                    status = end.value
                    break
                except TimeoutError as error:
                    raise command_timed_out(argv, self._name, timeout_s) from error
                yield from lines.take(piece)
        if rest := lines.rest():
            yield rest
        if status:
            raise command_failed(argv, self._name, status, stderr.text)

    def is_ready(self) -> bool:
        return self._reconnect.is_ready()

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

    @property
    def _name(self) -> str:
        return f"device '{self.facts.address}'"


def read_properties(server: AdbServer, transport: str, name: str, timeout_s: float | None = None) -> dict[str, str]:
    """Return the properties of a device behind the server, read within PROPERTIES_TIMEOUT_S or less; `name` is for messages."""
    timeout_s = PROPERTIES_TIMEOUT_S if timeout_s is None else min(timeout_s, PROPERTIES_TIMEOUT_S)
    stdout = Whole(f"the output of getprop on {name}")
    try:
        with server.open(transport, "shell,v2,raw:getprop", name) as connection:
            for packet in packets(connection, time.monotonic() + timeout_s):
                if packet.stream is Stream.STDOUT:
                    stdout.take(packet.data)
    except TimeoutError as error:
        raise DeviceError(f"{name} does not answer getprop within {max(0, timeout_s):g} s", hint="reconnect it") from error
    return parse_getprop(stdout.text)
