"""Server of the live page: TLS, and connections that are dropped when they are silent, slow or too many."""

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from quadbench.errors import UserError

MOST_CONNECTIONS = 300
SILENCE_S = 5.0  # within which a connection sends a whole request, and before it speaks TLS
STALL_S = 20.0  # within which whoever is answered takes what waits for him, which is 128 KB at most
UNACKNOWLEDGED_S = STALL_S  # after which the kernel gives up what it still holds for a reader
_NO_LINGER = struct.pack("ii", 1, 0)
_READ_BYTES = 4096  # at once, so that a head is refused by its length, however much of it comes together
_UNSENT_BYTES = 65_536  # that wait in TLS; as many wait below it


class PageConnection(H11Protocol):
    """A connection that is dropped if it is silent or does not read. Where there are too many, who is waited for longest goes."""

    def __init__(self, *, tls: ssl.SSLContext | None, **of_server: Any) -> None:
        super().__init__(**of_server)
        self._tls = tls
        self._socket: asyncio.Transport | None = None  # below TLS
        self._greeting: asyncio.Task[None] | None = None
        self._early = b""  # what comes with the last word of the greeting
        self._moved_at, self._was_given = self.loop.time(), self._given_s

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        self.connections.add(self)
        self._make_room()
        if self._tls is None:
            super().connection_made(transport)
        else:
            self._greeting = self.loop.create_task(self._greet(transport, self._tls))

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        if self.transport:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport:
            self._early += data
            return
        for start in range(0, len(data), _READ_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + _READ_BYTES])

    def on_response_complete(self) -> None:
        self._moved_at = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._moved_at = self.loop.time()
        super().resume_writing()

    def drop_if_overdue(self) -> None:
        """Drop the connection if the other end has taken too long with what it has to do; to be asked every second."""
        now, given = self.loop.time(), self._given_s
        if given is None or given != self._was_given:
            self._moved_at, self._was_given = now, given
        elif now - self._moved_at > given:
            self.drop()

    def drop(self) -> None:
        """End the connection at once; what was not sent, or waits in the kernel, is lost."""
        self.connections.discard(self)
        if self._socket:
            with suppress(OSError):  # it is closed, as TLS tells only a moment later
                self._socket.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._socket.abort()

    @property
    def _given_s(self) -> float | None:
        """Return for how long the other end may let itself be waited for; None where it is this one that has something to do."""
        if self._socket and self._socket.get_write_buffer_size():
            return STALL_S
        is_whole = self.cycle and not self.cycle.response_complete and self.conn.their_state is not h11.SEND_BODY
        return None if is_whole else SILENCE_S

    def _make_room(self) -> None:
        """Drop others for which nothing is done, as long as there are too many: one that is silent keeps nobody out."""
        others = [one for one in self.connections if isinstance(one, PageConnection) and one is not self and one._given_s]
        for other in sorted(others, key=lambda one: one._moved_at)[: max(0, len(self.connections) - MOST_CONNECTIONS + 1)]:
            other.drop()

    async def _greet(self, below: asyncio.Transport, tls: ssl.SSLContext) -> None:
        """Agree on TLS, then be a connection like others."""
        try:
            transport = await self.loop.start_tls(
                below, self, tls, server_side=True, ssl_handshake_timeout=SILENCE_S, ssl_shutdown_timeout=SILENCE_S
            )
        except OSError:  # an ssl.SSLError is one, and that it took too long another
            transport = None
        if transport is None:
            self.connections.discard(self)
            return
        transport.set_write_buffer_limits(_UNSENT_BYTES)
        super().connection_made(transport)
        self.data_received(self._early)


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
    at.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED_S * 1000))
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
