"""Server: an address -> a socket that listens there; an application -> the server that answers with it."""

import socket
import ssl
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from quadbench.errors import UserError
from quadbench.serve.connection import MOST_CONNECTIONS, STALL_S, PageConnection

_MOST_NEW = 100  # connections that wait to be taken
_KERNEL_BYTES = 131_072
_PATIENCE_S = 1  # with requests, when the server ends


class _Server(uvicorn.Server):
    """A server that drops whoever lets it wait, and hangs up on its viewers before it ends: streams then end without a word."""

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # every second
            for connection in self._connections:
                connection.drop_if_overdue()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self._connections:
            connection.drop()
        await super().shutdown(sockets)

    @property
    def _connections(self) -> list[PageConnection]:
        return [one for one in self.server_state.connections if isinstance(one, PageConnection)]


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 is any that is free.

    Raises:
        UserError: the address is not of this host, or the port is taken or not this user's to have.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        at = socket.create_server((address, port), family=family)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"nothing can be served at {address}, port {port}: {reason}", hint="see --host and --port") from error
    # What each connection has of them: how much the kernel keeps of what is not taken, and for how long.
    at.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
    at.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))
    return at


def server_of(app: ASGIApp, certfile: Path | None = None, keyfile: Path | None = None) -> uvicorn.Server:
    """Return the server of an application, through TLS where it has a certificate. Requests, also bad ones, are not logged.

    Raises:
        UserError: certificate and key cannot be read, or do not fit.
    """
    # The connections speak TLS themselves: the server counts one only after its greeting, for which it waits a minute.
    connection: Any = partial(PageConnection, tls=_tls(certfile, keyfile) if certfile else None)
    config = uvicorn.Config(
        app,
        http=connection,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        backlog=_MOST_NEW,
        timeout_graceful_shutdown=_PATIENCE_S,
        lifespan="off",
        ws="none",
    )
    return _Server(config)


def _tls(certfile: Path, keyfile: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:  # an ssl.SSLError is one
        raise UserError(f"TLS cannot be used with these files: {error}", hint="give PEM files: --certfile, --keyfile") from error
    return context
