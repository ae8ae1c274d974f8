"""adb protocol: a request to an adb server, or to a device behind it -> an open connection. No server is started or stopped.

Written against Android's packages/modules/adb: OVERVIEW.TXT, SERVICES.TXT, SYNC.TXT and shell_protocol.h.
"""

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from quadbench.errors import DeviceError, DeviceLostError

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 30.0
_GONE = ("not found", "device offline", "closed", "device still ", "device unauthorized", "no devices")


class NoServerError(DeviceError):
    """The error of an address at which no adb server listens."""


@dataclass(frozen=True, kw_only=True)
class TcpEndpoint:
    """A server on a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=CONNECT_TIMEOUT_S)


@dataclass(frozen=True, kw_only=True)
class UnixEndpoint:
    """A server on a unix socket, reached through its folder's descriptor: its path may be too long for a socket's address."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def connect(self) -> socket.socket:
        with _descriptor(self.path.parent) as folder:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(CONNECT_TIMEOUT_S)
                connection.connect(f"/proc/self/fd/{folder}/{self.path.name}")
            except BaseException:
                connection.close()
                raise
            return connection


Endpoint = TcpEndpoint | UnixEndpoint


class Connection:
    """A socket to the server whose failures are quadbench's errors. `peer` names who is at the other end."""

    def __init__(self, raw: socket.socket, peer: str) -> None:
        self.socket = raw
        self.peer = peer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            TimeoutError: the other end takes nothing for as long as the socket's timeout.
            DeviceLostError: the connection broke.
        """
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise self.lost(str(error)) from error

    def read(self, size: int, deadline: float | None = None) -> bytes:
        """Read exactly `size` bytes, however slowly they come, up to a deadline, a time of `time.monotonic`.

        Where none is given, all of them have to come within the socket's timeout.

        Raises:
            TimeoutError: nothing came for as long as the socket's timeout, or the deadline has passed.
            DeviceLostError: the connection ended before.
        """
        silence_s = self.socket.gettimeout() or math.inf
        deadline = time.monotonic() + silence_s if deadline is None else deadline
        buffer = bytearray()
        try:
            while len(buffer) < size:
                if (remaining_s := deadline - time.monotonic()) <= 0:
                    raise TimeoutError
                self._limit(min(silence_s, remaining_s))
                if not (chunk := self.socket.recv(size - len(buffer))):
                    raise self.lost("the connection was closed")
                buffer += chunk
        except TimeoutError:
            raise
        except OSError as error:
            raise self.lost(str(error)) from error
        finally:
            self._limit(silence_s)
        return bytes(buffer)

    def _limit(self, timeout_s: float) -> None:
        """Set the socket's timeout."""
        self.socket.settimeout(timeout_s if math.isfinite(timeout_s) else None)

    def request(self, service: str) -> None:
        """Ask for a service.

        Raises:
            DeviceLostError: the device is gone.
            DeviceError: the server refuses, or does not speak adb's protocol.
        """
        data = service.encode()
        if len(data) > 0xFFFF:
            raise DeviceError(f"the command for {self.peer} has {len(data)} bytes, adb takes at most 65535")
        self.send(f"{len(data):04x}".encode() + data)
        status = self.read(4)
        if status == b"FAIL":
            message = self.read_text()
            raise (
                self.lost(message) if any(word in message for word in _GONE) else DeviceError(f"{self.peer} refuses: {message}")
            )
        if status != b"OKAY":
            raise DeviceError(f"{self.peer} answered {status!r} instead of OKAY", hint="is it really an adb server?")

    def read_text(self) -> str:
        """Read a string, which stands after its length in four hexadecimal digits."""
        size = self.read(4)
        try:
            return self.read(int(size, 16)).decode(errors="replace")
        except ValueError as error:
            raise DeviceError(f"{self.peer} answered {size!r} instead of a length", hint="is it really an adb server?") from error

    def lost(self, reason: str) -> DeviceLostError:
        """Return the error for a connection that ended in the middle of something."""
        return DeviceLostError(
            f"{self.peer} was lost: {reason}", hint="check the cable and that the screen asks nothing, then run again"
        )


@dataclass(frozen=True, kw_only=True)
class AdbServer:
    """A running adb server: it answers requests, and opens services of the devices attached to it.

    `end` says why it will never answer again, or its only device will not; None while it may, as others' servers may for ever.
    """

    endpoint: Endpoint
    end: Callable[[], str | None] = field(default=lambda: None, compare=False)

    def version(self) -> int:
        """Return the version of its protocol, such as 41.

        Raises:
            NoServerError: nothing listens there.
            DeviceError: what listens there does not answer as an adb server.
        """
        answer = self.ask("host:version")
        try:
            return int(answer, 16)
        except ValueError as error:
            raise DeviceError(
                f"the adb server at {self.endpoint} answered {answer!r} instead of a version", hint="is it really an adb server?"
            ) from error

    def ask(self, service: str) -> str:
        """Return the answer to a request that has one, as `host:devices-l`."""
        with self._connect(f"the adb server at {self.endpoint}") as connection:
            try:
                connection.request(service)
                return connection.read_text()
            except TimeoutError as error:
                raise DeviceError(
                    f"the adb server at {self.endpoint} does not answer '{service}'", hint="try: adb devices"
                ) from error

    def open(self, serial: str, service: str, peer: str) -> Connection:
        """Open a service of a device, as `sync:`. The caller closes the connection and sets its timeouts.

        Raises:
            DeviceLostError: the server or the device is gone, or does not answer.
            DeviceError: the server refuses.
        """
        try:
            connection = self._connect(peer)
        except NoServerError as error:
            raise DeviceLostError(f"{peer} was lost: {error.message}", hint="start adb again, then run again") from error
        try:
            connection.request(f"host:transport:{serial}")
            connection.request(service)
        except TimeoutError as error:
            connection.socket.close()
            raise connection.lost(f"it does not answer within {REQUEST_TIMEOUT_S:g} s") from error
        except BaseException:
            connection.socket.close()
            raise
        return connection

    def _connect(self, peer: str) -> Connection:
        try:
            raw = self.endpoint.connect()
        except OSError as error:
            raise NoServerError(f"no adb server answers at {self.endpoint}: {error}") from error
        raw.settimeout(REQUEST_TIMEOUT_S)
        return Connection(raw, peer)


@contextlib.contextmanager
def _descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
