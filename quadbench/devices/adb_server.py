"""adb server: the environment -> the user's own adb server, started by `adb start-server` only where none runs."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import adbutils

from quadbench.devices.adb_protocol import AdbServer, Endpoint, NoServerError, TcpEndpoint, UnixEndpoint
from quadbench.errors import DeviceError, UserError

DEFAULT_PORT = 5037
START_TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def user_server() -> AdbServer:
    """Return the server that attached phones are reached through. A running one, of whatever version, is used as it is.

    Raises:
        DeviceError: no server runs, and none can be started.
        UserError: a variable of the environment does not name a server.
    """
    server = AdbServer(endpoint=endpoint_from(dict(os.environ)))
    try:
        server.version()
    except NoServerError as error:
        _start(server.endpoint, error)
        server.version()
    return server


def endpoint_from(environment: dict[str, str]) -> Endpoint:
    """Return the address at which the server listens, by the variables that adb and adbutils know."""
    if socket_address := environment.get("ADB_SERVER_SOCKET"):
        return _endpoint_of(socket_address)
    host = environment.get("ANDROID_ADB_SERVER_ADDRESS") or environment.get("ANDROID_ADB_SERVER_HOST") or "127.0.0.1"
    return TcpEndpoint(
        host=host, port=_port(environment.get("ANDROID_ADB_SERVER_PORT") or str(DEFAULT_PORT), "ANDROID_ADB_SERVER_PORT")
    )


def _endpoint_of(address: str) -> Endpoint:
    kind, _, rest = address.partition(":")
    if kind == "localfilesystem" and rest:
        return UnixEndpoint(path=Path(rest))
    if kind == "tcp" and rest:
        host, _, port = rest.rpartition(":")
        return TcpEndpoint(host=host or "127.0.0.1", port=_port(port, "ADB_SERVER_SOCKET"))
    raise UserError(f"ADB_SERVER_SOCKET is '{address}', expected tcp:HOST:PORT or localfilesystem:PATH")


def _port(text: str, variable: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UserError(f"{variable}: '{text}' is no port, expected a number from 1 to 65535")
    return int(text)


def _start(endpoint: Endpoint, reason: NoServerError) -> None:
    """Start the user's own adb, if the port is free: `adb start-server` would replace a server of another version."""
    if not isinstance(endpoint, TcpEndpoint) or endpoint.host not in _LOOPBACK:
        raise DeviceError(f"{reason.message}", hint="start it there: adb -a nodaemon server")
    if not _is_free(endpoint):
        raise DeviceError(
            f"{reason.message}; the port is taken by something else", hint="set ANDROID_ADB_SERVER_PORT to a free port"
        )
    program = shutil.which("adb") or str(adbutils.adb_path())
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
