"""Live site: a results folder -> its live page, served to this host as the command does it, and what it answers."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from quadbench.farm.condor import Condor, this_pool
from quadbench.results.layout import Layout
from quadbench.serve.app import listen, live_page, server_of
from quadbench.serve.auth import AccessRules

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What the server answers to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Site:
    """A live page that is served."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        """Send one request; a header's name has `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, named)
            with connection.getresponse() as answer:
                return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@contextmanager
def served(layout: Layout, access: AccessRules | None = None, pool: Callable[[], Condor] = this_pool) -> Iterator[Site]:
    """Serve a results folder, and the farm of a pool, for as long as the block runs."""
    with serving(live_page(layout, access or AccessRules(), pool=pool)) as site:
        yield site


@contextmanager
def serving(app: ASGIApp) -> Iterator[Site]:
    """Serve an application for as long as the block runs."""
    at = listen("127.0.0.1", 0)
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
    thread.start()
    try:
        yield Site(at.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        at.close()
