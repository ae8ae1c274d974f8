"""adb shell: a connection -> a command's stdout, stderr and exit code, each apart, by version 2 of adb's shell protocol.

The packets are those of shell_protocol.h in Android's packages/modules/adb: a byte that says what it is, a length, the content.
"""

import math
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from quadbench.devices.adb_protocol import Connection
from quadbench.errors import DeviceError


class Stream(IntEnum):
    """The kind of a packet's content."""

    STDOUT = 1
    STDERR = 2
    EXIT = 3


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A piece of output, or the exit code as one byte."""

    stream: Stream
    data: bytes


_HEADER_BYTES = 5
PACKET_LIMIT_BYTES = 2**20  # adb.h: MAX_PAYLOAD, the most that travels at once
_CLOSE_STDIN = bytes([4]) + (0).to_bytes(4, "little")


def shell_service(argv: Sequence[str]) -> str:
    """Return the service that runs a command without a terminal. The first line of stdout is the id of its process and group."""
    return f"shell,v2,raw:echo $$; exec {shlex.join(argv)}"


def close_stdin(connection: Connection) -> None:
    """Let commands that read stdin see its end."""
    connection.send(_CLOSE_STDIN)


def packets(connection: Connection, deadline: float, silence_s: float = math.inf) -> Iterator[Packet]:
    """Yield the packets up to and with the exit code.

    Raises:
        TimeoutError: the deadline, a time of `time.monotonic`, has passed.
        DeviceLostError: the connection ended before the command, or nothing came for `silence_s`.
        DeviceError: what comes are no such packets.
    """
    while True:
        kind, size_bytes = _unpacked(_read(connection, _HEADER_BYTES, deadline, silence_s), connection)
        packet = Packet(stream=kind, data=_read(connection, size_bytes, deadline, silence_s))
        yield packet
        if packet.stream is Stream.EXIT:
            return


def _unpacked(header: bytes, connection: Connection) -> tuple[Stream, int]:
    kind, size_bytes = header[0], int.from_bytes(header[1:], "little")
    if kind not in set(Stream) or size_bytes > PACKET_LIMIT_BYTES or (kind == Stream.EXIT and size_bytes != 1):
        raise DeviceError(f"{connection.peer} sent {header!r}, which begins no packet of adb's shell protocol")
    return Stream(kind), size_bytes


def _read(connection: Connection, size_bytes: int, deadline: float, silence_s: float) -> bytes:
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    connection.socket.settimeout(min(remaining_s, silence_s))
    try:
        return connection.read(size_bytes, deadline)
    except TimeoutError as error:
        if time.monotonic() < deadline:
            raise connection.lost(f"nothing came from it for {silence_s:g} s") from error
        raise
