"""The attempt server of a host: a process with all imports loaded, from which each attempt at a farm job is forked.

`python -m quadbench.dispatch.attempt_server NAME [MODULE:FUNCTION]` serves this user's programs (`attempt_client`).
The function gets an order's path and returns an exit code. For each program, the server forks a process that forks the attempt,
passes it the program's signals, and returns its exit code. If the server is killed, its attempts are killed with it.

Its standard input is a pipe. When the other end is closed, the server accepts no more programs, and ends with its last attempt.
HTCondor ends the program that started the server first when a host is shut down, and the current launches may still end.
"""

import gc
import json
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pkgutil import resolve_name
from typing import Any, NoReturn

from quadbench.dispatch.attempt_client import FORWARDED, LENGTH, STATUS, peer_user, server_address
from quadbench.host import end_with_parent, kill_group, python_module

_RUNNER = "quadbench.dispatch.attempt:make_attempt"
_REQUEST_S, _MOST_REQUEST_BYTES = 5, 2**22
_BACKLOG = 256  # connections that wait to be accepted

log = logging.getLogger(__name__)
Runner = Callable[[str], int]


def serve(listener: socket.socket, runner: Runner) -> None:
    """Serve programs. Return when standard input was closed at its other end and no attempt is left.

    `runner` is called with the path of a job's file in a process of its own, which exits with the returned exit code.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # a signal that comes as soon as an attempt is forked waits for it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that no process has to be waited for
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        with suppress(OSError):  # the program has gone, or the host has no room for another process
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    listener.close()
                    _supervise(client, runner)
    listener.close()
    with suppress(ChildProcessError):
        os.waitpid(-1, 0)  # returns when the last one has ended


def _supervise(client: socket.socket, runner: Runner) -> NoReturn:
    """Make the attempt that a program asks for, in another process. Pass the program's signals on to it, and its exit code back.
    Kill it if the program ends. Then exit.
    """
    with suppress(OSError, ValueError, RecursionError):  # a program that was killed, or is none of ours
        end_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        request, streams = _received(client)
        pid = os.fork()
        if pid == 0:
            client.close()
            _become(request, streams, runner)
        for descriptor in streams:
            os.close(descriptor)
        ended = os.pidfd_open(pid)
        while ended not in select.select([client.fileno(), ended], [], [])[0]:
            numbers = b""
            with suppress(OSError):  # nothing comes of a program that has ended
                numbers = client.recv(16)
            for number in numbers:
                if number in FORWARDED:
                    os.kill(pid, number)
            if not numbers:
                os.kill(pid, signal.SIGKILL)  # its group begins to exist a moment after the process
                break
        kill_group(pid)  # while the id of the ended process, which is the group's, cannot be another's
        _, status = os.waitpid(pid, 0)
        client.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(request: dict[str, Any], streams: Sequence[int], runner: Runner) -> NoReturn:
    """Run an attempt in this forked process, with the program's streams, folder and environment. Exit when it ends."""
    code = 1
    try:
        os.setsid()
        end_with_parent()
        for stream, descriptor in enumerate(streams):
            os.dup2(descriptor, stream)
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        sys.argv = ["quadbench", "farm", "attempt", request["order"]]
        gc.unfreeze()
        code = runner(request["order"])
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _received(client: socket.socket) -> tuple[dict[str, Any], Sequence[int]]:
    """Read a program's request. Return a pair: the JSON request as a dict, and the descriptors of the program's standard input,
    output and error. Raise ValueError if the program is another user's or the request is incomplete. End this process if the
    request does not arrive within five seconds.
    """
    if peer_user(client) != os.getuid():
        raise ValueError("another user's program")
    signal.alarm(_REQUEST_S)
    head, streams, _, _ = socket.recv_fds(client, LENGTH.size, 3)
    (length,) = LENGTH.unpack(head) if len(head) == LENGTH.size else (0,)
    if len(streams) != 3 or length > _MOST_REQUEST_BYTES:
        raise ValueError("no request")
    request = json.loads(client.recv(length, socket.MSG_WAITALL))
    signal.alarm(0)
    return request, streams


def main(name: str, runner: str = _RUNNER) -> None:
    """Run the attempt server: load the modules, database mappers and schema revisions that attempts need, then serve programs."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(server_address(name))
    listener.listen(_BACKLOG)  # programs may come from now on, and wait
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    attempt: Runner = resolve_name(runner)
    from sqlalchemy.orm import configure_mappers

    from quadbench.results import schema

    configure_mappers()
    schema.known_revisions()
    with suppress(ImportError):
        import psycopg  # noqa: F401
    gc.collect()
    gc.freeze()  # so that a collection in an attempt copies no pages of what is loaded
    serve(listener, attempt)


@contextmanager
def serving_attempts(runner: str = _RUNNER) -> Iterator[str]:
    """Run an attempt server until the `with` block ends. Yield its name, by which attempts on this host reach it.

    Attempts that run at the end of the block, or when this process is killed, may end.
    """
    name = secrets.token_hex(8)
    command = python_module("quadbench.dispatch.attempt_server", name, runner)
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        if not server.stdout.readline():
            log.warning("the attempt server did not start: each attempt makes its imports itself, which takes seconds")
        yield name
    finally:
        server.stdin.close()
        server.stdout.close()
        threading.Thread(target=server.wait, daemon=True).start()  # it ends with its last attempt


if __name__ == "__main__":
    main(*sys.argv[1:])
