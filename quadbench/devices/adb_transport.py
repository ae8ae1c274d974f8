"""An adb client based on adbutils. Unlike adbutils, it sends all bytes, streams shell v2 output, and limits read times and sizes.

Nothing here depends on quadbench's devices or errors. Each class fixes a class of adbutils and could be contributed upstream.
"""

import contextlib
import re
import select
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from quadbench.spec.variables import without_variable

with without_variable("ANDROID_ADB_SERVER_PORT"):  # adbutils reads it at import and fails if it is not a number
    from adbutils import AdbClient, AdbConnection, FileInfo, Sync
    from adbutils.errors import AdbConnectionError, AdbError, AdbTimeout

__all__ = ["AdbConnectionError", "AdbError", "AdbTimeout", "Client", "Connection", "NotAdbError", "Packet"]

SILENCE_S = 600.0  # adbutils' default
PACKET_LIMIT_BYTES = 2**20  # adb.h: MAX_PAYLOAD, the most that travels at once
CHUNK_BYTES = 64 * 1024  # SYNC.TXT: the most that a DATA message may carry
BATCH_MESSAGES = 4  # sent at once; measured on 2 busy cores: 1.7 times as fast as one by one, 16 were slower

_HEADER_BYTES = 8  # size of a sync message's header
_PACKET_HEADER_BYTES = 5
_OUT, _ERR, _EXIT = 1, 2, 3


class NotAdbError(AdbError):
    """Raised for an answer that violates adb's protocol."""


class Packet(NamedTuple):
    """A packet of adb's shell v2 protocol. `kind` 1 is a piece of stdout, 2 a piece of stderr, 3 the exit code as one byte."""

    kind: int
    data: bytes


class Connection(AdbConnection):
    """A connection to an adb server or device over an open socket. `peer` is the name of the other end in messages.

    A read returns all requested bytes or raises AdbTimeout or AdbConnectionError.
    """

    def __init__(self, raw: socket.socket, peer: str) -> None:
        self.peer = peer
        self._raw = raw
        self._silence_s = raw.gettimeout() or SILENCE_S
        self._deadline: float | None = None
        self.most_bytes = PACKET_LIMIT_BYTES  # limit on the size that a peer may announce
        super().__init__("", 0)

    def _safe_connect(self) -> socket.socket:
        return self._raw

    def close(self) -> None:
        self._raw.close()  # adbutils' close would wait for 10 ms first

    def limit(self, silence_s: float, deadline: float | None = None) -> None:
        """Make later reads raise AdbTimeout after `silence_s` seconds without data, or at `deadline`, a `time.monotonic` time.

        Without a deadline, each read and each send has `silence_s` for all of its bytes.
        """
        self._silence_s, self._deadline = silence_s, deadline

    def send(self, data: bytes | memoryview) -> int:
        """Send all bytes and return their number. Raise AdbTimeout if the other end accepts no data within the time limit."""
        try:
            self._raw.settimeout(min(self._silence_s, SILENCE_S))
            self._raw.sendall(data)
        except TimeoutError as error:
            raise AdbTimeout(f"the other end accepted no data for {self._silence_s:g} s") from error
        except OSError as error:
            raise AdbConnectionError(str(error)) from error
        return len(data)

    def send_command(self, cmd: str) -> None:
        data = cmd.encode()
        if len(data) > 0xFFFF:
            raise AdbError(f"the command has {len(data)} bytes, adb accepts at most 65535")
        self.send(f"{len(data):04x}".encode() + data)

    def check_okay(self) -> None:
        status = self.read(4)
        if status == b"FAIL":
            raise AdbError(self.read_string_block())
        if status != b"OKAY":
            raise NotAdbError(f"{status!r} instead of OKAY")

    def read_string_block(self) -> str:
        digits = self.read(4)
        if not re.fullmatch(rb"[0-9A-Fa-f]{4}", digits):
            raise NotAdbError(f"{digits!r} instead of a length of four hexadecimal digits")
        return str(self.read_string(int(digits, 16)))

    def has_answer(self) -> bool:
        """Return True if a read would not block: bytes have arrived, or the peer has closed the connection."""
        poll = select.poll()
        poll.register(self._raw, select.POLLIN)
        return bool(poll.poll(0))

    def packets(self) -> Iterator[Packet]:
        """Yield the packets of a `shell,v2` command as they arrive; the last is the exit code."""
        kind = 0
        while kind != _EXIT:
            header = self.read(_PACKET_HEADER_BYTES)
            kind, size_bytes = header[0], int.from_bytes(header[1:], "little")
            if kind not in (_OUT, _ERR, _EXIT) or (kind == _EXIT and size_bytes != 1):
                raise NotAdbError(f"{header!r}, which is not the start of a packet in adb's shell protocol")
            yield Packet(kind, self.read(size_bytes))

    def files(self) -> "FileSync":
        """Return a FileSync that pushes and pulls a device's files. The connection must be open to the adb service `sync:`."""
        return FileSync(self)

    def _read_fully(self, n: int) -> bytes:
        if n > self.most_bytes:
            raise NotAdbError(f"a length of {n} bytes, expected at most {self.most_bytes}")
        deadline = time.monotonic() + self._silence_s if self._deadline is None else self._deadline
        data = bytearray()
        while len(data) < n:
            if (remaining_s := deadline - time.monotonic()) <= 0:
                raise AdbTimeout("the time limit was reached")
            try:
                self._raw.settimeout(min(self._silence_s, remaining_s))
                chunk = self._raw.recv(n - len(data))
            except TimeoutError as error:
                raise AdbTimeout("no data arrived") from error
            except OSError as error:
                raise AdbConnectionError(str(error)) from error
            if not chunk:
                raise AdbConnectionError("the connection was closed")
            data += chunk
        return bytes(data)


class Client(AdbClient):
    """An adb client. It calls `connect` for each new Connection, over TCP or a unix socket, and never starts an adb server."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        super().__init__("unused", 1)
        self._connect = connect

    def make_connection(self, timeout: float | None = None) -> Connection:
        connection = self._connect()
        if timeout:
            connection.limit(timeout)
        return connection

    def query(self, service: str) -> str:
        """Send a request to the adb server itself and return its answer as text."""
        with contextlib.closing(self.make_connection()) as connection:
            connection.send_command(service)
            connection.check_okay()
            return connection.read_string_block()

    def open(self, serial: str, service: str) -> Connection:
        """Return a connection to a device's adb service, such as `sync:`. The request works with every adb server version."""
        connection = self.make_connection()
        try:
            for command in (f"host:transport:{serial}", service):
                connection.send_command(command)
                connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection


class FileSync(Sync):
    """A client of adb's sync service over one connection: stat, push and pull of a device's files."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.most_bytes = CHUNK_BYTES

    @contextlib.contextmanager
    def _prepare_sync(self, path: str, cmd: str) -> Iterator[Connection]:
        name = path.encode()
        self._connection.send(cmd.encode() + struct.pack("<I", len(name)) + name)
        yield self._connection

    def stat(self, path: str) -> FileInfo:
        """Return a device path's FileInfo: mode, size in bytes, modification time. Do not follow links. Mode 0 means missing."""
        with self._prepare_sync(path, "STAT") as connection:
            kind, mode, size_bytes, changed = struct.unpack("<4sIII", connection.read(16))
        if kind != b"STAT":
            raise NotAdbError(f"{kind!r} instead of STAT")
        return FileInfo(mode, size_bytes, datetime.fromtimestamp(changed) if changed else None, path)

    def push_files(
        self, files: Mapping[str, Path], mode: int = 0o644, progress: Callable[[int], None] | None = None
    ) -> Iterator[str]:
        """Send local files to paths on the device. Yield each path, in order, when the device has confirmed its file.

        Like `adb push`, it sends the next file before the previous one is confirmed. adbd creates folders, and removes a partly
        written file after a failure. `progress` is called with the bytes sent so far, of all files together.
        """
        connection = self._connection
        awaited: deque[str] = deque()
        for batch in _batches(files, mode):
            while connection.has_answer():  # an early failure: the other files need not be sent
                self._confirm()
                if not awaited:
                    raise NotAdbError("OKAY before a file was complete")
                yield awaited.popleft()
            try:
                connection.send(batch.messages)
            except AdbConnectionError:
                for _ in range(len(awaited) + 1):  # a peer that closed may have said why
                    self._confirm()
                raise
            awaited += batch.ended
            if progress:
                progress(batch.sent_bytes)
        while awaited:
            self._confirm()
            yield awaited.popleft()

    def _confirm(self) -> None:
        status, size_bytes = self._connection.read(4), self._connection.read_uint32()
        if status == b"FAIL":
            raise AdbError(self._connection.read_string(size_bytes))
        if status != b"OKAY":
            raise NotAdbError(f"{status!r} instead of OKAY")


class _Batch(NamedTuple):
    """A batch of adb sync messages. It completes files at paths `ended`. `sent_bytes` counts file bytes from the first batch."""

    messages: memoryview
    ended: list[str]
    sent_bytes: int


def _batches(files: Mapping[str, Path], mode: int) -> Iterator[_Batch]:
    """Yield _Batches that push `files`, a dict from device path to local path. Each _Batch overwrites the previous _Batch."""
    buffer = memoryview(bytearray(BATCH_MESSAGES * (_HEADER_BYTES + CHUNK_BYTES)))
    end = sent_bytes = 0
    ended: list[str] = []
    for remote, local in files.items():
        request = f"{remote},{stat.S_IFREG | mode}".encode()
        with local.open("rb", buffering=0) as file:
            chunk_bytes = -1
            while chunk_bytes:
                if len(buffer) - end < 2 * _HEADER_BYTES + CHUNK_BYTES + len(request):
                    yield _Batch(buffer[:end], ended, sent_bytes)
                    end, ended = 0, []
                if chunk_bytes < 0:
                    end = _put(buffer, end, b"SEND", len(request))
                    buffer[end : end + len(request)] = request
                    end += len(request)
                content = end + _HEADER_BYTES
                if chunk_bytes := file.readinto(buffer[content : content + CHUNK_BYTES]) or 0:
                    end = _put(buffer, end, b"DATA", chunk_bytes) + chunk_bytes
                    sent_bytes += chunk_bytes
        end = _put(buffer, end, b"DONE", int(time.time()))
        ended.append(remote)
    yield _Batch(buffer[:end], ended, sent_bytes)


def _put(buffer: memoryview, start: int, kind: bytes, number: int) -> int:
    struct.pack_into("<4sI", buffer, start, kind, number)
    return start + _HEADER_BYTES
