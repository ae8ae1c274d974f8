"""Whoever is silent, slow or asks too much of the live page is dropped or refused at once, and keeps nobody else out."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.live_lab import RUN, fill
from support.live_site import Site, served, serving

pytest.importorskip("fastapi")

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router

from quadbench.results.layout import Layout
from quadbench.serve.app import live_page
from quadbench.serve.auth import Access, Door
from quadbench.serve.pages import ReportFile
from quadbench.serve.rendering import Live
from quadbench.serve.server import MOST_CONNECTIONS

PATIENCE_S = 30
SOON_S = 0.5  # in place of the times within which something must come
HOST = b"host: 127.0.0.1\r\n"
MIB = 2**20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(Layout(tmp_path)) as site:
        yield site


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site that has little patience."""
    monkeypatch.setattr("quadbench.serve.server.SILENCE_S", SOON_S)
    monkeypatch.setattr("quadbench.serve.server.STALL_S", SOON_S)
    layout = Layout(tmp_path)
    fill(layout)
    with served(layout) as site:
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


def is_dropped(connection: socket.socket) -> bool:
    """Say whether the other end has hung up, without reading what it had sent before."""
    connection.setblocking(False)
    for _ in range(PATIENCE_S * 20):
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1:  # no longer ESTABLISHED
            return True
        time.sleep(0.05)
    return False


def kept(site: Site) -> list[str]:
    """Return the queues, sent to received in hexadecimal bytes, of connections at whose server's end something was not taken."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [queue for _, at, _, state, queue, *_ in lines if at.endswith(f":{site.port:04X}") and state != "0A"]  # 0A listens
    return [queue for queue in queues if int(queue.partition(":")[0], 16)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nhost: "], ids=["silent", "slow"])
def test_more_silent_connections_than_are_kept_keep_nobody_out(site: Site, said: bytes) -> None:
    with connections(site, MOST_CONNECTIONS + 50, said) as silent:
        assert site.ask("/").status == 200
        assert said_until_the_end(silent[0]) == b""  # the one that was silent longest gave its place


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\nhost: ", b"POST /sign-in HTTP/1.1\r\n" + HOST + b"content-length: 9\r\n\r\ntoken"],
    ids=["nothing", "a part of a head", "a part of a form"],
)
def test_a_connection_that_sends_no_whole_request_is_dropped(hasty: Site, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with connections(hasty, 1, said) as (connection,):
        assert said_until_the_end(connection) == b""
    assert caplog.text == ""


def test_a_connection_that_drips_is_dropped_all_the_same(hasty: Site) -> None:
    with connections(hasty, 1, b"GET / HTTP/1.1\r\n") as (connection,):
        connection.settimeout(0.1)
        for _ in range(PATIENCE_S * 10):
            connection.sendall(b"a: b\r\n")
            with contextlib.suppress(TimeoutError):
                assert said_until_the_end(connection) == b""
                return
    pytest.fail("it was not dropped")


def test_a_connection_that_never_greets_is_dropped_where_tls_is_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quadbench.serve.server.SILENCE_S", SOON_S)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    with serving(live_page(Layout(tmp_path / "r"), Access()), certificate, key) as site:
        with connections(site, 1) as (silent,):
            assert said_until_the_end(silent) == b""
        with connections(site, MOST_CONNECTIONS + 50) as silent, connections(site, 1) as (plain,):
            trust = ssl.create_default_context(cafile=certificate)
            with trust.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(b"GET /style.css HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n")
                assert said_until_the_end(secure).startswith(b"HTTP/1.1 200")
            assert said_until_the_end(silent[0]) == b""


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


def test_readers_that_read_nothing_cost_little_memory_and_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quadbench.serve.server.STALL_S", 3.0)
    layout = Layout(tmp_path)
    fill(layout)
    layout.report(RUN).parent.mkdir()
    layout.report(RUN).write_bytes(b" " * 40 * MIB)
    ask = f"GET /runs/{RUN}/report HTTP/1.1\r\n".encode() + HOST + b"\r\n"
    with served(layout) as site:
        site.ask("/")
        before = resident_bytes()
        with connections(site, 20, ask, receives=4096) as idle:
            time.sleep(2)
            assert resident_bytes() - before < 100 * MIB
            assert all(map(is_dropped, idle))
        assert len(site.ask(f"/runs/{RUN}/report").body) == 40 * MIB


def test_what_the_server_is_done_with_and_nobody_takes_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quadbench.serve.server.UNACKNOWLEDGED_S", SOON_S)
    ask = b"GET /style.css HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n"
    with served(Layout(tmp_path)) as site, connections(site, 1, ask, receives=1024):
        end = time.monotonic() + PATIENCE_S
        time.sleep(SOON_S)
        while time.monotonic() < end and kept(site):
            time.sleep(0.1)
        assert kept(site) == []


def test_a_reader_who_takes_his_time_has_the_whole_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quadbench.serve.server.STALL_S", 3.0)
    layout = Layout(tmp_path)
    fill(layout)
    layout.report(RUN).parent.mkdir()
    layout.report(RUN).write_bytes(b" " * MIB)
    ask = f"GET /runs/{RUN}/report HTTP/1.1\r\n".encode() + HOST + b"connection: close\r\n\r\n"
    began, length = time.monotonic(), 0
    with served(layout) as site, connections(site, 1, ask, receives=4096) as (connection,):
        while piece := connection.recv(4096):
            length += len(piece)
            time.sleep(len(piece) * 6 / MIB)
    assert length > MIB
    assert time.monotonic() - began > 2 * 3.0


def test_a_viewer_who_reads_no_event_is_dropped_and_gives_his_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quadbench.serve.server.STALL_S", SOON_S)
    live = Live[str](lambda _: "x" * 16 * MIB, most=1)

    async def events(_: Request) -> Response:
        return live.events("")

    app = Door(Router([Route("/live/x", events)]), Access())
    with serving(app) as site, connections(site, 1, b"GET /live/x HTTP/1.1\r\n" + HOST + b"\r\n", receives=4096) as (idle,):
        assert is_dropped(idle)
        with site.events("/live/x") as events_of_another:
            assert len(next(events_of_another)) > 16 * MIB


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
