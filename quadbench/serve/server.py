"""Server: an address -> a socket that listens there; an application -> the server that answers with it."""

import asyncio
import socket
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from quadbench.errors import UserError

_MOST_CONNECTIONS = 300
_PATIENCE_S = 1  # with requests, when the server ends
SILENCE_S = 5.0  # within which a connection sends the whole head of a request


class _Connection(H11Protocol):
    """A connection that is dropped if it is silent, or slow with what it asks: others would find no place."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def _await_request(self) -> None:
        self.loop.call_later(SILENCE_S, self._drop_unless_asked, self.cycle)

    def _drop_unless_asked(self, before: RequestResponseCycle | None) -> None:
        if self.cycle is before:  # each request has a cycle of its own
            self.transport.abort()


class _Server(uvicorn.Server):
    """A server that hangs up on its viewers before it ends: streams then end by themselves, without a word."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 is any that is free.

    Raises:
        UserError: the address is not of this host, or the port is taken or not this user's to have.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"nothing can be served at {address}, port {port}: {reason}", hint="see --host and --port") from error


def server_of(app: ASGIApp, certfile: Path | None = None, keyfile: Path | None = None) -> uvicorn.Server:
    """Return the server of an application, through TLS where it has a certificate. Requests are not logged.

    Raises:
        UserError: certificate and key cannot be read, or do not fit.
    """
    config = uvicorn.Config(
        app,
        http=_Connection,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_PATIENCE_S,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
        lifespan="off",
        ws="none",
    )
    try:
        config.load()
    except OSError as error:  # an ssl.SSLError is one
        raise UserError(f"TLS cannot be used with these files: {error}", hint="give PEM files: --certfile, --keyfile") from error
    return _Server(config)
