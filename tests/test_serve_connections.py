"""Whoever asks too much of the live page is refused at once, and a reader who reads nothing costs little memory."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.live_lab import RUN
from support.live_site import Site, served

pytest.importorskip("fastapi")

from starlette.requests import ClientDisconnect

from quadbench.results.layout import Layout
from quadbench.serve.app import MAX_CONNECTIONS
from quadbench.serve.pages import ReportFile

PATIENCE_S = 30
HOST = b"host: 127.0.0.1\r\n"
MIB = 2**20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(Layout(tmp_path_factory.mktemp("empty"))) as site:
        yield site


@contextmanager
def connections(site: Site, count: int, said: bytes = b"", receives: int | None = None) -> Iterator[list[socket.socket]]:
    """Open connections that say something; `receives` is how many bytes each keeps of what nobody reads."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            if receives is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
            connection.settimeout(PATIENCE_S)
            connection.connect(("127.0.0.1", site.port))
            connection.sendall(said)
            opened.append(connection)
        yield opened


def said_until_the_end(connection: socket.socket) -> bytes:
    """Return what comes until the other end hangs up; a reset is an end, too."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(MIB):
            pieces.append(piece)
    return b"".join(pieces)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_more_connections_than_are_served_at_once_are_answered_with_503(site: Site) -> None:
    with connections(site, MAX_CONNECTIONS):
        assert site.ask("/").status == 503


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        (b"GET /", b"content-length: 99999999", b"413"),
        (b"HEAD /", b"content-length: 1", b"413"),
        (b"GET /live/now", b"transfer-encoding: chunked", b"413"),
        (b"PUT /runs", b"content-length: 99999999", b"405"),
        (b"POST /sign-in", b"content-length: 99999999", b"413"),
        (b"POST /sign-in", b"transfer-encoding: chunked", b"411"),
        (b"POST /sign-in", b"content-length: 99999999\r\nexpect: 100-continue", b"413"),
    ],
)
def test_a_body_is_refused_before_it_comes(site: Site, request_line: bytes, body: bytes, status: bytes) -> None:
    with connections(site, 1, request_line + b" HTTP/1.1\r\n" + HOST + body + b"\r\n\r\n") as (connection,):
        assert connection.recv(100).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("head", [b"a: " + b"b" * 60_000, b"a: b\r\n" * 10_000], ids=["long", "many"])
def test_a_head_of_tens_of_kilobytes_is_refused_even_if_it_comes_at_once(site: Site, head: bytes) -> None:
    with connections(site, 1, b"GET / HTTP/1.1\r\n" + HOST + head.removesuffix(b"\r\n") + b"\r\n\r\n") as (connection,):
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_what_is_no_request_leaves_nothing_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for said in (b"no request\r\n\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"):
        with connections(site, 1, said) as (connection,):
            assert connection.recv(9) == b"HTTP/1.1 "
    assert caplog.text == ""


def test_many_requests_behind_each_other_have_their_answers_in_turn(site: Site) -> None:
    count, one = 500, b"GET /icon.svg HTTP/1.1\r\n" + HOST
    with connections(site, 1, (one + b"\r\n") * (count - 1) + one + b"connection: close\r\n\r\n") as (connection,):
        assert said_until_the_end(connection).count(b"HTTP/1.1 200") == count


def test_readers_that_read_nothing_cost_little_memory(own_lab: Layout) -> None:
    own_lab.report(RUN).parent.mkdir()
    own_lab.report(RUN).write_bytes(b" " * 40 * MIB)
    ask = f"GET /runs/{RUN}/report HTTP/1.1\r\n".encode() + HOST + b"\r\n"
    with served(own_lab) as site:
        site.ask("/")
        before = resident_bytes()
        with connections(site, 20, ask, receives=4096):
            time.sleep(2)
            assert resident_bytes() - before < 100 * MIB
        assert len(site.ask(f"/runs/{RUN}/report").body) == 40 * MIB


def test_a_report_whose_reader_has_gone_before_its_first_piece_is_closed(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(b" " * MIB)
    report = (tmp_path / "report.html").open("rb")

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise OSError("gone")

    with pytest.raises(ClientDisconnect):
        asyncio.run(ReportFile(report, tmp_path)({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send))
    assert report.closed
