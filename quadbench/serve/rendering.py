"""Rendering: a template and what fills it -> a page in the style of the reports, in which no text is markup."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from starlette.responses import HTMLResponse

from quadbench.report.page import page_environment
from quadbench.serve.documents import FarmDevice

_HERE = Path(__file__).parent
_FATES = {"done": "ok", "failed": "failed", "cancelled": "failed", "running": "busy"}  # of jobs, in the words of runs


def rendered(template: str, **content: Any) -> str:
    """Return a page, or a part of one, as text."""
    return _environment().get_template(f"{template}.html.j2").render(now=datetime.now(UTC), **content)


def page(template: str, status: int = 200, *, live: bool = False, here: str = "", **content: Any) -> HTMLResponse:
    """Return a page as an answer. `live` is one with a part that changes, `here` the page among those that all link to."""
    return HTMLResponse(rendered(template, live=live, here=here, **content), status)


def style() -> str:
    """Return the style of all pages: that of the reports, and what live pages have beside."""
    return f"{_environment().globals['css']}\n{(_HERE / 'serve.css').read_text('utf-8')}"


def script() -> str:
    """Return the script of pages with a part that changes."""
    return (_HERE / "live.js").read_text("utf-8")


def icon() -> str:
    """Return the icon of all pages, as SVG."""
    return (_HERE / "icon.svg").read_text("utf-8")


@cache
def _environment() -> Environment:
    filters: dict[str, Callable[..., Any]] = {
        "ago": lambda moment: ago((datetime.now(UTC) - moment).total_seconds()),
        "clock": lambda moment: f"{moment:%H:%M:%S} UTC",
        "fate": lambda state: _FATES.get(state, "cut-short"),
        "segment": lambda text: quote(text, safe=""),
        "share": lambda share: f"{share:.0%}".replace("%", " %"),
        "standing": standing,
        "trust": trust,
    }
    return page_environment(filters, _HERE / "templates")


def ago(seconds: float) -> str:
    """Return for how long something is past, in words; clocks of hosts may differ by a little."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def standing(device: FarmDevice) -> str:
    """Return how it stands with a device, in words."""
    if device.is_missing:
        return "missing"
    if device.is_unreached:
        return device.state
    if device.health not in (None, "healthy"):
        return {"quarantined": "in quarantine", "probation": "on probation"}.get(device.health or "", "not well")
    if device.job:
        return "busy"
    if device.reservation:
        return "reserved"
    return "free" if device.state in ("device", "served by a worker") else device.state


def trust(device: FarmDevice) -> str:
    """Return how a device is coloured."""
    if device.is_missing or device.is_unreached or device.health == "quarantined":
        return "bad"
    if device.is_broken:
        return "doubt"
    return "busy" if device.job else "good" if standing(device) == "free" else "none"
