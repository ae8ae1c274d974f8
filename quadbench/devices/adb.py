"""adb devices: commands and file transfers on a device that is attached to an adb server."""

import contextlib
import re
import select
import stat
import struct
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Self

from quadbench.artifacts import DeviceFacts
from quadbench.devices.adb_commands import AdbCommands, Reconnect, run_detached
from quadbench.devices.adb_protocol import AdbServer, Connection, Stream, packets
from quadbench.devices.android_reports import parse_getprop
from quadbench.devices.device import (
    ANDROID_ROOT,
    PULL_LIMIT_BYTES,
    Progress,
    ShellResult,
    Tail,
    Whole,
    check_command,
    command_timed_out,
    file_too_large,
    no_regular_file,
    read_lines,
)
from quadbench.errors import DeviceError, DeviceFullError
from quadbench.target.abi import Abi
from quadbench.target.profile import DeviceProfile

PROPERTIES_TIMEOUT_S = 20.0
FREE_BYTES_TIMEOUT_S = 20.0

CHUNK_BYTES = 64 * 1024  # SYNC.TXT: the most that a DATA message may carry
BATCH_BYTES = 4 * CHUNK_BYTES  # messages sent at once; measured on 2 busy cores: 1.7 times as fast as one by one, 16 were slower
STALL_TIMEOUT_S = 60.0  # without one byte moving; a phone that writes its flash out pauses for seconds, not for a minute
SLOWEST_BYTES_PER_S = 16 * 1024  # of a file that is received; USB 1.1 and weak Wi-Fi carry tens of times as much
_PERMISSION_HINT = (
    "what lies there belongs to another user of the device, probably root: adb root, remove it, adb unroot; on a phone that an"
    " employer manages its policy may forbid it"
)
_FILE_MODE = stat.S_IFREG | 0o644


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
        self.facts, self.serial, self.family = facts, facts.serial, facts.family
        self.shares_host_cpu = facts.family != "adb"
        self.profile = profile
        self.abi = abi
        self._server = server
        self._transport = transport
        self._resources = resources
        self._name = f"device '{facts.address}'"
        self._commands = AdbCommands(server, transport, self._name)
        self._reconnect = Reconnect(self._commands)

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
        stderr = Tail()
        output = run_detached(self._commands, self._reconnect, argv, timeout_s, folder, stderr, environment or {})
        try:
            yield from read_lines(output, argv, self._name, stderr)
        except TimeoutError as error:
            raise command_timed_out(argv, self._name, timeout_s) from error

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


def send_file(connection: Connection, local: Path, remote: str, device: str, progress: Progress | None) -> None:
    """Send a file over a fresh `sync:` connection. adbd makes the folders, and removes what it has written when it fails."""
    connection.socket.settimeout(STALL_TIMEOUT_S)
    try:
        _send(connection, local, remote, progress)
        _check_sent(connection, remote, device)
    except TimeoutError as error:
        raise connection.lost(f"no progress for {STALL_TIMEOUT_S:g} s while '{remote}' was sent") from error


def receive_file(connection: Connection, remote: str, local: Path, device: str, limit_bytes: int) -> None:
    """Receive a regular file over a fresh `sync:` connection; a partial file is removed."""
    connection.socket.settimeout(STALL_TIMEOUT_S)
    partial = local.with_name(f".{local.name}.part")
    try:
        _check_kind(connection, remote, device)
        _receive(connection, remote, partial, device, limit_bytes)
        partial.replace(local)
    except TimeoutError as error:
        raise connection.lost(f"no progress for {STALL_TIMEOUT_S:g} s while '{remote}' was read") from error
    finally:
        partial.unlink(missing_ok=True)


def _send(connection: Connection, local: Path, remote: str, progress: Progress | None) -> None:
    connection.send(_message(b"SEND", f"{remote},{_FILE_MODE}".encode()))
    sent_bytes = 0
    with local.open("rb") as file:
        while batch := file.read(BATCH_BYTES):
            if select.select([connection.socket], [], [], 0)[0]:  # an early answer is a failure: the rest need not be sent
                return
            chunks = (batch[start : start + CHUNK_BYTES] for start in range(0, len(batch), CHUNK_BYTES))
            connection.send(b"".join(_message(b"DATA", chunk) for chunk in chunks))
            sent_bytes += len(batch)
            if progress:
                progress(sent_bytes)
    connection.send(b"DONE" + struct.pack("<I", int(time.time())))


def _check_sent(connection: Connection, remote: str, device: str) -> None:
    kind, size = _header(connection)
    if kind == b"OKAY":
        return
    is_reason = kind == b"FAIL" and size <= CHUNK_BYTES
    reason = connection.read(size).decode(errors="replace") if is_reason else f"it answered {kind!r}"
    error = DeviceFullError if "No space left" in reason else DeviceError
    hint = _PERMISSION_HINT if "Permission denied" in reason else None
    raise error(f"cannot write '{remote}' on {device}: {reason}", hint=hint)


def _check_kind(connection: Connection, remote: str, device: str) -> None:
    """Refuse what is there but is no regular file. Of what is missing, reading it says why."""
    connection.send(_message(b"STAT", remote.encode()))
    kind, mode = _header(connection)
    connection.read(8)  # size and time; the size may change, so what comes is counted
    if kind != b"STAT":
        raise DeviceError(f"cannot read '{remote}' on {device}: it answered {kind!r}")
    if mode and not stat.S_ISREG(mode):
        raise no_regular_file(remote, device)


def _receive(connection: Connection, remote: str, local: Path, device: str, limit_bytes: int) -> None:
    connection.send(_message(b"RECV", remote.encode()))
    received_bytes, began = 0, time.monotonic()
    with local.open("wb") as file:
        while True:
            kind, size_bytes = _header(connection)
            if kind == b"DONE":
                return
            if kind not in (b"DATA", b"FAIL") or not 0 < size_bytes <= CHUNK_BYTES:
                raise DeviceError(f"cannot read '{remote}' on {device}: it answered {kind!r} with {size_bytes} bytes")
            payload = connection.read(size_bytes)
            if kind == b"FAIL":
                raise DeviceError(f"cannot read '{remote}' on {device}: {payload.decode(errors='replace')}")
            received_bytes += size_bytes
            if received_bytes > limit_bytes:
                raise file_too_large(remote, device, limit_bytes)
            file.write(payload)
            if time.monotonic() - began > STALL_TIMEOUT_S + received_bytes / SLOWEST_BYTES_PER_S:
                raise connection.lost(f"it sends '{remote}' at less than {SLOWEST_BYTES_PER_S} bytes a second")


def _message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload


def _header(connection: Connection) -> tuple[bytes, int]:
    header = connection.read(8)
    return header[:4], int.from_bytes(header[4:], "little")
