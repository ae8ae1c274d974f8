"""adb servers: find or start a server, send requests to it, and read the packets of adb's shell protocol."""

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
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from quadbench.artifacts.safe_text import one_line
from quadbench.devices.android_reports import AttachedDevice, parse_device_list
from quadbench.errors import DeviceError, DeviceFullError, DeviceLostError, UserError, quote
from quadbench.spec import variable
from quadbench.spec.files import fits_file_system
from quadbench.spec.variables import host_of, port_of, port_variable

if TYPE_CHECKING:
    from quadbench.devices.adb_transport import Client, Connection, Packet

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 30.0
_GONE = ("not found", "device offline", "closed", "device still ", "device unauthorized", "no devices")

_HINT = "check that an adb server listens there"
_PERMISSION_HINT = (
    "the path probably belongs to the device's root user: run adb root, remove it, run adb unroot; the policy of a managed"
    " phone may forbid this"
)
STDOUT, STDERR = 1, 2  # kinds of packets; any other kind is the exit code
_CLOSE_STDIN = bytes([4]) + (0).to_bytes(4, "little")

DEFAULT_PORT = 5037
START_TIMEOUT_S = 30.0
_SOCKET, _PORT = "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_PORT"
_HOSTS = ("ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_HOST")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_Answer = TypeVar("_Answer")


class NoServerError(DeviceError):
    """Raised when no adb server listens at an address."""


@dataclass(frozen=True, kw_only=True)
class TcpEndpoint:
    """The TCP address of an adb server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=CONNECT_TIMEOUT_S)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """In a `with` block, yield a short path of a unix socket, /proc/self/fd/N/NAME. N is its folder's file descriptor."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@dataclass(frozen=True, kw_only=True)
class UnixEndpoint:
    """The address of an adb server that listens on a unix socket."""

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


@dataclass(frozen=True, kw_only=True)
class AdbServer:
    """A running adb server. It answers requests about the attached devices, and opens adb services on these devices.

    `end` returns why the server or its only device has ended for good, else None. For the user's own server it is always None.
    """

    endpoint: Endpoint
    end: Callable[[], str | None] = field(default=lambda: None, compare=False)

    def version(self) -> int:
        """Return the adb server's protocol version, such as 41."""
        return self.request(lambda client: int(client.server_version()))

    def attached(self) -> list[AttachedDevice]:
        """Return a list of AttachedDevice, whatever the devices' states. adbutils' own list cuts serials at a space."""
        return parse_device_list(self.request(lambda client: client.query("host:devices-l")))

    def connect(self, address: str) -> str:
        """Ask the adb server to connect to a network device, as `adb connect` does. Return the server's answer as text."""
        return self.request(lambda client: str(client.connect(address)))

    def disconnect(self, address: str) -> None:
        """Ask the adb server to disconnect a network device, as `adb disconnect` does. Discard the server's answer text."""
        self.request(lambda client: client.disconnect(address))

    def has_ready(self, serial: str) -> bool:
        """Return True if a device with this adb serial is attached and in the state `device`."""
        return any(device.serial == serial and device.is_ready for device in self.attached())

    def request(self, question: Callable[["Client"], _Answer]) -> _Answer:
        """Call the function `question` with a Client of the adb server; return its result. A silent server raises DeviceError."""
        name = f"the adb server at {self.endpoint}"
        try:
            with errors_of(name):
                return question(self._client(name))
        except TimeoutError as error:
            raise DeviceError(f"{name} does not answer", hint="try: adb devices") from error

    def open(self, serial: str, service: str, peer: str) -> "Connection":
        """Return a Connection to a device's adb service, such as `sync:`. The caller closes the Connection and sets timeouts."""
        try:
            with errors_of(peer, lost_reason=f"it does not answer within {REQUEST_TIMEOUT_S:g} s"):
                return self._client(peer).open(serial, service)
        except NoServerError as error:
            raise DeviceLostError(f"{peer} was lost: {error.message}", hint="restart the adb server, then run again") from error

    def _client(self, peer: str) -> "Client":
        from quadbench.devices.adb_transport import Client, Connection

        def connect() -> Connection:
            try:
                raw = self.endpoint.connect()
            except OSError as error:
                raise NoServerError(f"no adb server answers at {self.endpoint}: {error}") from error
            raw.settimeout(REQUEST_TIMEOUT_S)
            return Connection(raw, peer)

        return Client(connect)


def lost_error(peer: str, reason: str) -> DeviceLostError:
    """Return a DeviceLostError with the message `PEER was lost: REASON`. `peer` is the name of a device or adb server."""
    return DeviceLostError(f"{peer} was lost: {reason}", hint="check the cable, answer what the screen asks, then run again")


@contextlib.contextmanager
def errors_of(peer: str, *, lost_reason: str | None = None, refusal: Callable[[], str] | None = None) -> Iterator[None]:
    """In a `with` block, turn adbutils' errors into DeviceErrors. If the text `lost_reason` is given, a timeout raises
    DeviceLostError with `lost_reason` as the reason. If `lost_reason` is None, a timeout raises TimeoutError.

    A refusal such as `device offline` means a lost device, unless `refusal` is given: it describes a failed file request.
    """
    from quadbench.devices.adb_transport import AdbConnectionError, AdbError, AdbTimeout, NotAdbError

    try:
        yield
    except AdbTimeout as error:
        raise (lost_error(peer, lost_reason) if lost_reason else TimeoutError(str(error))) from error
    except AdbConnectionError as error:
        raise lost_error(peer, str(error)) from error
    except ValueError as error:
        if refusal:  # the caller's code may raise it too; adbutils raises it only for a malformed number
            raise
        raise DeviceError(f"{peer} sent an answer that is not a number: {error}", hint=_HINT) from error
    except NotAdbError as error:
        answered = f"answered {error}"
        message = f"{refusal()}: it {answered}" if refusal else f"{peer} {answered}"
        raise DeviceError(message, hint=_HINT) from error
    except AdbError as error:
        reason = one_line(str(error.args[0]))
        if refusal:
            kind = DeviceFullError if "No space left" in reason else DeviceError
            raise kind(f"{refusal()}: {reason}", hint=_PERMISSION_HINT if "Permission denied" in reason else None) from error
        raise (
            lost_error(peer, reason) if any(word in reason for word in _GONE) else DeviceError(f"{peer} refuses: {reason}")
        ) from error


def shell_service(argv: Sequence[str]) -> str:
    """Return the adb service string that runs a command without a terminal. The first line of stdout is the process group id."""
    return f"shell,v2,raw:echo $$; exec {shlex.join(argv)}"


def close_stdin(connection: "Connection") -> None:
    """Close a remote command's stdin, so that a command that reads stdin gets end-of-file."""
    with errors_of(connection.peer):
        connection.send(_CLOSE_STDIN)


def packets(connection: "Connection", deadline: float, silence_s: float = math.inf) -> Iterator["Packet"]:
    """Yield the packets of a running command as they arrive. The last packet contains the exit code."""
    connection.limit(silence_s, deadline)
    try:
        with errors_of(connection.peer):
            yield from connection.packets()
    except TimeoutError as error:
        if time.monotonic() < deadline:
            raise lost_error(connection.peer, f"it sent nothing for {silence_s:g} s") from error
        raise


def user_server() -> AdbServer:
    """Return the user's adb server for attached phones. Accept a running server of any version; start one only if none runs."""
    server = AdbServer(endpoint=server_endpoint())
    try:
        server.version()
    except NoServerError as error:
        _start(server.endpoint, error)
        server.version()
    return server


def server_endpoint() -> Endpoint:
    """Return the TCP or unix address of the user's adb server from adb's environment variables. The default is 127.0.0.1:5037."""
    port = port_variable(_PORT) or DEFAULT_PORT
    address = variable(_SOCKET)
    if not address:
        host = next(filter(None, map(_host, _HOSTS)), _LOOPBACK[0])
        return TcpEndpoint(host=host, port=port)
    kind, _, rest = address.partition(":")
    if kind == "localfilesystem" and rest and fits_file_system(Path(rest)):
        return UnixEndpoint(path=Path(rest))
    if kind == "tcp" and rest:
        host, _, digits = rest.rpartition(":")
        return TcpEndpoint(host=host_of(_SOCKET, host) if host else _LOOPBACK[0], port=port_of(_SOCKET, digits))
    raise UserError(f"${_SOCKET} is {quote(address)}; expected tcp:HOST:PORT or localfilesystem:PATH")


def _host(name: str) -> str | None:
    text = variable(name)
    return host_of(name, text) if text else None


def _start(endpoint: Endpoint, reason: NoServerError) -> None:
    """Run `adb start-server`. Raise DeviceError if the endpoint is not a loopback TCP port or the port is in use."""
    if not isinstance(endpoint, TcpEndpoint) or endpoint.host not in _LOOPBACK:
        raise DeviceError(f"{reason.message}", hint="start a server there: adb -a nodaemon server")
    if not _is_free(endpoint):
        raise DeviceError(f"{reason.message}; another program uses the port", hint=f"set {_PORT} to a free port")
    program = shutil.which("adb")
    if program is None:
        import adbutils  # the failed request has imported it already

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
