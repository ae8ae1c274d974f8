"""Rendering of web pages from templates with escaped text, and of server-sent events that update parts of the pages."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from jinja2 import Environment
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from quadbench.devices.lab.inventory import READY
from quadbench.report.page import page_environment
from quadbench.serve.api_documents import FREE, FarmDevice

_HERE = Path(__file__).parent
_FATES = {  # CSS class for each state of a job or host
    "done": "ok",
    "failed": "failed",
    "cancelled": "failed",
    "running": "busy",
    "ready": "ok",
    "silent": "failed",
}
MAX_VIEWERS = 100
_PERIOD_S = 2.0
_SIGN_OF_LIFE_S = 15.0  # interval of comments, as proxies and browsers drop silent connections
_MAX_S = 3600.0  # after that the browser reconnects
_OVER = "event: over\ndata:\n\n"
_LOST = "retry: 15000\n\n"  # the browser reconnects after these milliseconds
KeyT = TypeVar("KeyT", bound=Hashable)

log = logging.getLogger(__name__)


def render_template(template: str, **content: Any) -> str:
    """Return the text of a page, or of part of a page, rendered from a named Jinja template with variables `content`."""
    return _environment().get_template(f"{template}.html.j2").render(now=datetime.now(UTC), **content)


def page(template: str, status: int = 200, *, live: bool = False, here: str = "", **content: Any) -> HTMLResponse:
    """Return an HTTP response with a rendered page. `live` adds the script for updates; `here` is the URL marked in the menu."""
    return HTMLResponse(render_template(template, live=live, here=here, **content), status)


def style() -> str:
    """Return the CSS of all web pages: the CSS of reports, and additions for live pages."""
    return f"{_environment().globals['css']}\n{packaged_file('serve.css')}"


def packaged_file(name: str) -> str:
    """Return the text of a CSS, JavaScript or SVG file beside this module."""
    return (_HERE / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    filters: dict[str, Callable[..., Any]] = {
        "ago": lambda moment: ago((datetime.now(UTC) - moment).total_seconds()),
        "clock": lambda moment: f"{moment:%H:%M:%S} UTC",
        "fate": lambda state: _FATES.get(state, "cut-short"),
        "segment": lambda text: quote(text, safe=""),
        "share": lambda share: f"{share:.0%}".replace("%", " %"),
        "standing": device_status,
        "trust": device_status_class,
    }
    return page_environment(_HERE / "templates", **filters)


def ago(seconds: float) -> str:
    """Format an age, such as `5 min ago`. A time slightly in the future, from another host's clock, counts as just now."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def device_status(device: FarmDevice) -> str:
    """Return a phrase for a device's state, such as `busy`, `free`, `missing` or `in quarantine`."""
    if device.is_missing:
        return "missing"
    if device.is_unreached:
        return device.state
    if device.health not in (None, "healthy"):
        return {"quarantined": "in quarantine", "probation": "on probation"}.get(device.health or "", "unhealthy")
    if device.job:
        return "busy"
    if device.reservation:
        return "reserved"
    return FREE if device.state == READY else device.state


def device_status_class(device: FarmDevice) -> str:
    """Return the CSS class for a device's state: bad, doubt (needs attention), busy, good (free) or none (any other state)."""
    if device.is_missing or device.is_unreached or device.health == "quarantined":
        return "bad"
    if device.is_broken:
        return "doubt"
    return "busy" if device.job else "good" if device_status(device) == FREE else "none"


@dataclass
class _Part:
    """A live part of a web page: latest server-sent event, number of viewers, and an asyncio.Event set at each change."""

    event: str = ""
    viewers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def show(self, event: str) -> None:
        """Store a new event of a page part, and wake the viewers that wait for it. An event like the stored one is ignored."""
        if event != self.event:
            self.event, before = event, self.changed
            self.changed = asyncio.Event()
            before.set()


class LiveParts(Generic[KeyT]):
    """Live parts of web pages, each with a key, streamed as server-sent events. A viewed part is rendered every 2 seconds."""

    def __init__(self, part: Callable[[KeyT], str | None], most: int = MAX_VIEWERS) -> None:
        self._part, self._most = part, most
        self._viewers = 0
        self._parts: dict[KeyT, _Part] = {}
        self._tasks: dict[KeyT, asyncio.Task[None]] = {}

    def events(self, key: KeyT) -> Response:
        """Return a response that sends a page part whenever it changes, and ends when the part no longer exists."""
        return _Events(self, key)

    async def answer(self, key: KeyT, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream a page part to a new viewer over an ASGI connection. Send status 503 if the limit of viewers is reached."""
        if self._viewers >= self._most:
            full = PlainTextResponse("too many viewers; reload the page manually", 503, {"retry-after": "30"})
            await full(scope, receive, send)
            return
        self._viewers += 1
        try:
            sent = StreamingResponse(self._sent(key), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
            await sent(scope, receive, send)
        finally:
            self._viewers -= 1

    async def _sent(self, key: KeyT) -> AsyncIterator[str]:
        part = self._parts.setdefault(key, _Part())
        part.viewers += 1
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._watch(key, part))
        try:
            clock = asyncio.get_running_loop().time
            end, sent = clock() + _MAX_S, ""
            while clock() < end and sent not in (_OVER, _LOST):
                changed = part.changed
                if part.event != sent:
                    sent = part.event
                    yield sent
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), _SIGN_OF_LIFE_S)
                except TimeoutError:
                    yield ": \n\n"
        finally:
            part.viewers -= 1

    async def _watch(self, key: KeyT, part: _Part) -> None:
        """Render a page part every 2 s and pass changes to viewers, until no viewer is left, the part ends or rendering fails."""
        try:
            while part.viewers and part.event != _OVER:
                text = await run_in_threadpool(self._part, key)
                part.show(_OVER if text is None else "".join(f"data: {line}\n" for line in text.splitlines()) + "\n")
                await asyncio.sleep(_PERIOD_S)
        except Exception:
            log.exception("a live part of a page cannot be rendered")
            part.show(_LOST)
        finally:
            del self._tasks[key], self._parts[key]


class _Events(Response, Generic[KeyT]):
    """An HTTP response that streams a live page part. Viewers are counted without a lock, as only the event loop counts them."""

    def __init__(self, live: LiveParts[KeyT], key: KeyT) -> None:
        super().__init__()
        self._live, self._key = live, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._live.answer(self._key, scope, receive, send)
