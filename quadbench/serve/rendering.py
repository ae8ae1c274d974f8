"""Rendering of web pages from templates with escaped text."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from starlette.responses import HTMLResponse

from quadbench.devices.lab.inventory import READY
from quadbench.report.page import page_environment
from quadbench.serve.farm_state import FREE, FarmDevice, activity_text, night_outcome

_HERE = Path(__file__).parent
_FATES = {  # CSS class for each state of a job or host
    "done": "ok",
    "failed": "failed",
    "cancelled": "failed",
    "running": "busy",
    "ready": "ok",
    "silent": "failed",
}


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
        "doing": activity_text,
        "outcome": lambda night: night_outcome(night.rulings),
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
