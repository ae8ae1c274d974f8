"""adb sync: a path on a device and a path here -> the file, copied from one to the other.

The protocol is that of SYNC.TXT in Android's packages/modules/adb, version 1, which every adbd speaks.
"""

import select
import stat
import struct
import time
from pathlib import Path

from quadbench.devices.adb_protocol import Connection
from quadbench.devices.device import Progress, file_too_large, no_regular_file
from quadbench.errors import DeviceError, DeviceFullError

CHUNK_BYTES = 64 * 1024  # SYNC.TXT: the most that a DATA message may carry
BATCH_BYTES = 4 * CHUNK_BYTES  # messages sent at once; measured on 2 busy cores: 1.7 times as fast as one by one, 16 were slower
STALL_TIMEOUT_S = 60.0  # without one byte moving; a phone that writes its flash out pauses for seconds, not for a minute
SLOWEST_BYTES_PER_S = 16 * 1024  # of a file that is received; USB 1.1 and weak Wi-Fi carry tens of times as much
_PERMISSION_HINT = (
    "what lies there belongs to another user of the device, probably root: adb root, remove it, adb unroot; on a phone that an"
    " employer manages its policy may forbid it"
)
_FILE_MODE = stat.S_IFREG | 0o644


def send_file(connection: Connection, local: Path, remote: str, device: str, progress: Progress | None) -> None:
    """Send a file over a fresh `sync:` connection. adbd makes the folders, and removes what it has written when it fails.

    Raises:
        DeviceFullError: there is no space left.
        DeviceError: the file cannot be written there.
        DeviceLostError: the connection broke or stalled.
    """
    connection.socket.settimeout(STALL_TIMEOUT_S)
    try:
        _send(connection, local, remote, progress)
        _check_sent(connection, remote, device)
    except TimeoutError as error:
        raise connection.lost(f"no progress for {STALL_TIMEOUT_S:g} s while '{remote}' was sent") from error


def receive_file(connection: Connection, remote: str, local: Path, device: str, limit_bytes: int) -> None:
    """Receive a regular file over a fresh `sync:` connection; a partial file is removed.

    Raises:
        OutputLimitError: it has more than `limit_bytes`.
        DeviceError: the file cannot be read there, or is no regular one.
        DeviceLostError: the connection broke or stalled, or is slower than SLOWEST_BYTES_PER_S.
    """
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
            if _has_answer(connection):  # an early answer is a failure: the rest need not be sent
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


def _has_answer(connection: Connection) -> bool:
    return bool(select.select([connection.socket], [], [], 0)[0])
