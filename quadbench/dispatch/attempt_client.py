"""`quadbench farm attempt ORDER`: make one attempt at a farm job, in a process forked by a server with all imports loaded.

The imports of an attempt cost two seconds of CPU, and the server has made them already. This program needs the standard library
alone. It passes the server its order, folder, environment and standard streams, forwards signals, and ends as the attempt ends.
If it is killed, the server kills the attempt. So whoever started it, such as HTCondor, stops the attempt through it.
Without a server it makes the imports and the attempt itself.
"""

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

SERVER_VARIABLE = "QUADBENCH_ATTEMPT_SERVER"
SERVER_GONE = 75  # exit code EX_TEMPFAIL of sysexits.h: the attempt may be tried again
LENGTH, STATUS = struct.Struct("<I"), struct.Struct("<i")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def server_address(name: str) -> str:
    """Return the address of the abstract Unix socket (in Linux, a socket without a file) of this user's attempt server `name`."""
    return f"\0quadbench-attempts-{os.getuid()}-{name}"


def main(arguments: Sequence[str]) -> int:
    """Run the command `quadbench farm attempt ORDER`: execute the farm job that the file ORDER describes. Return an exit code."""
    if len(arguments) != 1 or not arguments[0] or arguments[0].startswith("-"):
        sys.stderr.write("usage: quadbench farm attempt ORDER\n")
        return 0 if arguments in (["-h"], ["--help"]) else 2
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # a standard stream was closed
        pass
    os.close(descriptor)
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        sys.stderr.write(f"error: the working folder is gone: {error.strerror}\n")
        return 3
    order = os.path.abspath(arguments[0])  # noqa: PTH100  # pathlib costs a third of this program's imports
    if connection := _connected():
        with connection:
            return _await(connection, order)
    from quadbench.dispatch.attempt import make_attempt

    return make_attempt(order)


def _connected() -> socket.socket | None:
    """Return a socket connected to the attempt server that QUADBENCH_ATTEMPT_SERVER names, or None if no such server answers."""
    if not (name := os.environ.get(SERVER_VARIABLE)):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(server_address(name))
        if peer_user(connection) == os.getuid():
            return connection
    except OSError:
        pass
    connection.close()
    sys.stderr.write(f"attempt server '{name}' is not reached: this attempt makes its imports itself\n")
    return None


def peer_user(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a Unix socket."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def _await(connection: socket.socket, order: str) -> int:
    def forward(number: int, _frame: object) -> None:
        with suppress(OSError):  # the attempt has ended, and its exit code is there to be read
            connection.sendall(bytes([number]))

    request = json.dumps({"order": order, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()  # noqa: PTH109
    try:
        socket.send_fds(connection, [LENGTH.pack(len(request))], [0, 1, 2])
        connection.sendall(request)
        for number in FORWARDED:
            signal.signal(number, forward)
        answer = connection.recv(STATUS.size, socket.MSG_WAITALL)
    except OSError:
        answer = b""
    if len(answer) != STATUS.size:
        sys.stderr.write("the attempt ended with its server\n")
        return SERVER_GONE
    code: int = STATUS.unpack(answer)[0]
    if code < 0:  # ended by a signal, and so does this program
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    return code
