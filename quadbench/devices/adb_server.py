"""adb server: the environment -> the user's own adb server, started by `adb start-server` only where none runs."""

import shutil
import socket
import subprocess
from pathlib import Path

from quadbench.devices.adb_protocol import AdbServer, Endpoint, NoServerError, TcpEndpoint, UnixEndpoint
from quadbench.errors import DeviceError, UserError, shown
from quadbench.spec import fits_file_system, host_of, port_of, port_variable, variable

DEFAULT_PORT = 5037
START_TIMEOUT_S = 30.0
_SOCKET, _PORT = "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_PORT"
_HOSTS = ("ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_HOST")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def user_server() -> AdbServer:
    """Return the server that attached phones are reached through. A running one, of whatever version, is used as it is.

    Raises:
        DeviceError: no server runs, and none can be started.
        UserError: a variable of the environment does not name a server.
    """
    server = AdbServer(endpoint=server_endpoint())
    try:
        server.version()
    except NoServerError as error:
        _start(server.endpoint, error)
        server.version()
    return server


def server_endpoint() -> Endpoint:
    """Return the address at which the server listens, by the variables that adb and adbutils know.

    Raises:
        UserError: a variable does not name a server.
    """
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
    program = shutil.which("adb") or _bundled_adb()
    command = [program, "-P", str(endpoint.port), "start-server"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_TIMEOUT_S, start_new_session=True)
    except subprocess.CalledProcessError as error:
        last = " / ".join(error.stderr.splitlines()[-3:])
        raise DeviceError(f"'{' '.join(command)}' ended with exit code {error.returncode}: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"'{' '.join(command)}' did not end within {START_TIMEOUT_S:g} s") from error


def _bundled_adb() -> str:
    """Return the adb that comes with adbutils, which reads the variables of a server while it is imported."""
    import adbutils

    return str(adbutils.adb_path())


def _is_free(endpoint: TcpEndpoint) -> bool:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.host, endpoint.port))
        except OSError:
            return False
    return True
