"""The attempt server of a host: a process with all imports loaded, from which each attempt at a farm job is forked.

`python -m quadbench.dispatch.attempt_server NAME [MODULE:FUNCTION]` serves this user's programs (`attempt_client`) until it is
killed, and its attempts are killed with it. The function gets an order's path and returns an exit code.
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, NoReturn

from quadbench.dispatch.attempt_client import FORWARDED, LENGTH, STATUS, peer_user, server_address
from quadbench.host import end_with_parent, kill_group

_RUNNER = "quadbench.dispatch.attempt:make_attempt"
_REQUEST_S, _MOST_REQUEST_BYTES = 5.0, 2**22
_BACKLOG = 256  # connections that wait to be accepted

Runner = Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """An attempt at a farm job in the forked process `pid`. The descriptor `ended` becomes readable when the process ends."""

    pid: int
    ended: int
    client: socket.socket

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # its group begins to exist a moment after the process
        kill_group(self.pid)


class AttemptServer:
    """Forks a process per request. The process calls `runner` with a job file's path, and exits with the returned exit code."""

    def __init__(self, listener: socket.socket, runner: Runner) -> None:
        self._listener, self._runner = listener, runner
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._attempts: dict[int, _Attempt] = {}

    def serve(self) -> NoReturn:
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # a signal that comes as soon as an attempt is forked waits for it
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # the client has gone
            return
        try:
            client.settimeout(_REQUEST_S)
            request, streams = _received(client)
        except (OSError, ValueError, RecursionError):  # a client that was killed, or is none of ours
            client.close()
            return
        client.settimeout(None)
        try:
            pid = os.fork()
        except OSError:  # the host has no room for another process
            pid = -1
        if pid == 0:
            self._become(request, streams, client)
        for descriptor in streams:
            os.close(descriptor)
        if pid < 0:
            client.close()
            return
        attempt = _Attempt(pid=pid, ended=os.pidfd_open(pid), client=client)
        self._attempts[pid] = attempt
        self._selector.register(attempt.ended, selectors.EVENT_READ, lambda: self._end(attempt))
        self._selector.register(client, selectors.EVENT_READ, lambda: self._hear(attempt))

    def _hear(self, attempt: _Attempt) -> None:
        """Read signal numbers from an attempt's client and signal the attempt. Kill the attempt if the client has ended."""
        if attempt.pid not in self._attempts:
            return
        try:
            numbers = attempt.client.recv(16)
        except OSError:
            numbers = b""
        for number in numbers:
            if number in FORWARDED:
                os.kill(attempt.pid, number)
        if not numbers:
            self._selector.unregister(attempt.client)
            attempt.kill()

    def _end(self, attempt: _Attempt) -> None:
        kill_group(attempt.pid)  # while the id of the ended process, which is the group's, cannot be another's
        _, status = os.waitpid(attempt.pid, 0)
        del self._attempts[attempt.pid]
        with suppress(OSError):
            attempt.client.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
        self._selector.unregister(attempt.ended)
        with suppress(KeyError):  # its client had ended
            self._selector.unregister(attempt.client)
        os.close(attempt.ended)
        attempt.client.close()

    def _become(self, request: dict[str, Any], streams: list[int], client: socket.socket) -> NoReturn:
        """Run an attempt in this forked process, with the client's streams, folder and environment. Exit when it ends."""
        code = 1
        try:
            os.setsid()
            end_with_parent()
            self._selector.close()
            for mine in (self._listener, client, *(other.client for other in self._attempts.values())):
                mine.close()
            for stream, descriptor in enumerate(streams):
                os.dup2(descriptor, stream)
            for descriptor in (*streams, *(other.ended for other in self._attempts.values())):
                os.close(descriptor)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            sys.argv = ["quadbench", "farm", "attempt", request["order"]]
            gc.unfreeze()
            code = self._runner(request["order"])
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


def _received(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read a client's request. Return a pair: the JSON request as a dict, and a list of three file descriptors.
    The descriptors are the client's standard input, output and error. Raise ValueError if the client is another user's or
    the request is incomplete, and OSError if the client is gone or silent.
    """
    if peer_user(client) != os.getuid():
        raise ValueError("another user's program")
    head, streams, _, _ = socket.recv_fds(client, LENGTH.size, 3)
    try:
        (length,) = LENGTH.unpack(head) if len(head) == LENGTH.size else (0,)
        if len(streams) != 3 or not 0 < length <= _MOST_REQUEST_BYTES:
            raise ValueError("no request")
        text = b""
        while len(text) < length:  # MSG_WAITALL does not wait on a socket with a time limit
            if not (part := client.recv(length - len(text))):
                raise ValueError("half a request")
            text += part
        return json.loads(text), streams
    except (OSError, ValueError, RecursionError):
        for descriptor in streams:
            os.close(descriptor)
        raise


def main(name: str, runner: str = _RUNNER) -> NoReturn:
    """Run the attempt server: import all modules that attempts need, then accept requests for attempts."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(server_address(name))
    listener.listen(_BACKLOG)  # programs may come from now on, and wait
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    attempt: Runner = resolve_name(runner)
    preload()
    gc.collect()
    gc.freeze()  # so that a collection in an attempt copies no pages of what is loaded
    AttemptServer(listener, attempt).serve()


def preload() -> None:
    """Load SQLAlchemy mappers, schema revisions and PostgreSQL driver in the server, so that forked attempts start sooner."""
    from sqlalchemy.orm import configure_mappers

    from quadbench.results import schema

    configure_mappers()
    schema.known_revisions()
    with suppress(ImportError):
        import psycopg  # noqa: F401


if __name__ == "__main__":
    main(*sys.argv[1:])
