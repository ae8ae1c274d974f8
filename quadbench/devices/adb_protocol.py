"""adb's protocol: servers, connections to them and to devices, and the packets of its shell."""

import contextlib
import math
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Self

from quadbench.devices.android_reports import parse_attached
from quadbench.errors import DeviceError, DeviceLostError, UserError, shown
from quadbench.spec import variable
from quadbench.spec.files import fits_file_system
from quadbench.spec.variables import host_of, port_of, port_variable

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 30.0
_GONE = ("not found", "device offline", "closed", "device still ", "device unauthorized", "no devices")

_HEADER_BYTES = 5
PACKET_LIMIT_BYTES = 2**20  # adb.h: MAX_PAYLOAD, the most that travels at once
_CLOSE_STDIN = bytes([4]) + (0).to_bytes(4, "little")

DEFAULT_PORT = 5037
START_TIMEOUT_S = 30.0
_SOCKET, _PORT = "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_PORT"
_HOSTS = ("ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_HOST")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give the path of a unix socket through its folder's descriptor: the whole path may be too long for a socket's address."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@dataclass(frozen=True, kw_only=True)
class UnixEndpoint:
    """A server on a unix socket."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def connect(self) -> socket.socket:
        with short_path(self.path) as path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(CONNECT_TIMEOUT_S)
                connection.connect(path)
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
        """Send all of it."""
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise self.lost(str(error)) from error

    def read(self, size: int, deadline: float | None = None) -> bytes:
        """Read exactly `size` bytes, however slowly they come, up to a deadline, a time of `time.monotonic`.

        Where none is given, all of them have to come within the socket's timeout.
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
        """Ask for a service."""
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
        """Return the version of its protocol, such as 41."""
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

    def has_ready(self, serial: str) -> bool:
        """Say whether a device is attached and works."""
        attached = parse_attached(self.ask("host:devices-l"))
        return any(device.serial == serial and device.is_ready for device in attached)

    def open(self, serial: str, service: str, peer: str) -> Connection:
        """Open a service of a device, as `sync:`. The caller closes the connection and sets its timeouts."""
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


def shell_service(argv: Sequence[str]) -> str:
    """Return the service that runs a command without a terminal. The first line of stdout is the id of its process and group."""
    return f"shell,v2,raw:echo $$; exec {shlex.join(argv)}"


def close_stdin(connection: Connection) -> None:
    """Let commands that read stdin see its end."""
    connection.send(_CLOSE_STDIN)


def packets(connection: Connection, deadline: float, silence_s: float = math.inf) -> Iterator[Packet]:
    """Yield the packets up to and with the exit code."""
    while True:
        header = _read(connection, _HEADER_BYTES, deadline, silence_s)
        kind, size_bytes = header[0], int.from_bytes(header[1:], "little")
        if kind not in set(Stream) or size_bytes > PACKET_LIMIT_BYTES or (kind == Stream.EXIT and size_bytes != 1):
            raise DeviceError(f"{connection.peer} sent {header!r}, which begins no packet of adb's shell protocol")
        yield Packet(stream=Stream(kind), data=_read(connection, size_bytes, deadline, silence_s))
        if kind == Stream.EXIT:
            return


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


def user_server() -> AdbServer:
    """Return the server that attached phones are reached through. A running one, of whatever version, is used as it is."""
    server = AdbServer(endpoint=server_endpoint())
    try:
        server.version()
    except NoServerError as error:
        _start(server.endpoint, error)
        server.version()
    return server


def server_endpoint() -> Endpoint:
    """Return the address at which the server listens, by the variables that adb and adbutils know."""
    port = port_variable(_PORT) or DEFAULT_PORT
    if socket_address := variable(_SOCKET):
        return _endpoint_of(socket_address)
    host = next(filter(None, map(_host, _HOSTS)), _LOOPBACK[0])
    return TcpEndpoint(host=host, port=port)


def _endpoint_of(address: str) -> Endpoint:
    kind, _, rest = address.partition(":")
    if kind == "localfilesystem" and rest and fits_file_system(Path(rest)):
        return UnixEndpoint(path=Path(rest))
    if kind == "tcp" and rest:
        host, _, port = rest.rpartition(":")
        return TcpEndpoint(host=host_of(_SOCKET, host) if host else _LOOPBACK[0], port=port_of(_SOCKET, port))
    raise UserError(f"${_SOCKET} is {shown(address)}; expected tcp:HOST:PORT or localfilesystem:PATH")


def _host(name: str) -> str | None:
    text = variable(name)
    return host_of(name, text) if text else None


def _start(endpoint: Endpoint, reason: NoServerError) -> None:
    """Start the user's own adb, if the port is free: `adb start-server` would replace a server of another version."""
    if not isinstance(endpoint, TcpEndpoint) or endpoint.host not in _LOOPBACK:
        raise DeviceError(f"{reason.message}", hint="start it there: adb -a nodaemon server")
    if not _is_free(endpoint):
        raise DeviceError(f"{reason.message}; the port is taken by something else", hint=f"set {_PORT} to a free port")
    program = shutil.which("adb")
    if program is None:
        import adbutils  # which reads the variables of a server while it is imported

        program = str(adbutils.adb_path())
    command = [program, "-P", str(endpoint.port), "start-server"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_TIMEOUT_S, start_new_session=True)
    except subprocess.CalledProcessError as error:
        last = " / ".join(error.stderr.splitlines()[-3:])
        raise DeviceError(f"'{' '.join(command)}' ended with exit code {error.returncode}: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"'{' '.join(command)}' did not end within {START_TIMEOUT_S:g} s") from error


def _is_free(endpoint: TcpEndpoint) -> bool:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.host, endpoint.port))
        except OSError:
            return False
    return True
