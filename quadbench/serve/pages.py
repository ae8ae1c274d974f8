"""The HTML pages of the web interface, and the parts of pages that a script asks for again and again."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from quadbench.devices.lab.inventory import READY
from quadbench.errors import QuadbenchError, TooLargeError, UnknownNameError
from quadbench.nightly.history_formats import case_table
from quadbench.report.formatting import plural
from quadbench.report.page import page_environment
from quadbench.serve.auth import REPORT_POLICY
from quadbench.serve.farm_state import FREE, FarmDevice, FarmNow, activity_text, night_outcome
from quadbench.serve.queries import A_PAGE, MAX_PAGES, AnswerCache, ResultsQueries, picture_bytes

_MAX_DIGITS = 6  # of a number in a URL
_NOW, _FARM, _RUN = "now_part", "farm_part", "run_part"
_HERE = Path(__file__).parent
_FATES = {  # CSS class for each state of a job or host
    "done": "ok",
    "failed": "failed",
    "cancelled": "failed",
    "running": "busy",
    "ready": "ok",
    "silent": "failed",
}
_UNREAD = "cannot be read; see the log of quadbench serve"
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ErrorPage:
    """An error response: its status, a heading, and a sentence with the reason."""

    status: int
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _ShownPart:
    """A page's self-updating part as HTML. If a query failed, `is_whole` is false and the HTML contains an error message."""

    html: Markup
    is_whole: bool


class Pages:
    """The request handlers of all web pages. A failure in one part of a page does not affect the other parts."""

    def __init__(self, queries: ResultsQueries) -> None:
        self._queries = queries
        self._part = AnswerCache(self._rendered_part, age_s=1, most=20)
        self._said = ""

    @property
    def routes(self) -> list[Route]:
        """Return the routes of all web pages, live events, style and script files."""
        paths: dict[str, Callable[[Request], Response]] = {
            "/": lambda _: self._live_page("now", "/"),
            "/farm": lambda _: self._live_page("farm", "/farm"),
            "/runs": self.runs,
            "/runs/{run_id}": self.run,
            "/runs/{run_id}/report": self.run_report,
            "/runs/{run_id}/pictures": self.pictures,
            "/runs/{run_id}/pictures/{number}": self.picture,
            "/studies/{study_id}": self.study,
            "/nights": self.nights,
            "/nights/{night_id}": self.night,
            "/nights/{night_id}/report": self.night_report,
            "/history": self.history,
            "/history/{case}": self.case,
            "/live/now": lambda _: self._live_part(_NOW, ""),
            "/live/farm": lambda _: self._live_part(_FARM, ""),
            "/live/runs/{run_id}": lambda request: self._live_part(_RUN, request.path_params["run_id"]),
            "/style.css": lambda _: _cached_response(style(), "text/css"),
            "/live.js": lambda _: _cached_response(packaged_file("live.js"), "text/javascript"),
            "/icon.svg": lambda _: _cached_response(packaged_file("icon.svg"), "image/svg+xml"),
        }
        return [Route(path, endpoint) for path, endpoint in paths.items()]

    def runs(self, request: Request) -> Response:
        number = _page_number(request)
        runs = self._queries.runs(number - 1)
        is_full = len(runs.runs) == A_PAGE
        return page("runs", here="/runs", runs=runs, at_work=self._queries.at_work(), page=number, is_full=is_full)

    def run(self, request: Request) -> Response:
        run_id, problems, queries = request.path_params["run_id"], list[str](), self._queries
        part = self._part((_RUN, run_id))
        line = self._try_query(lambda: queries.head(run_id), "the run", problems)
        if line is None and part is None and not problems:
            raise UnknownNameError("run", run_id)
        is_here = queries.is_here(run_id)
        view = self._try_query(lambda: queries.view(run_id), "the figures", problems) if line and is_here and not part else None
        title = next((work.what for work in queries.work() if work.run_id == run_id), (line and line.recipe) or "Run")
        content = {"run_id": run_id, "title": title, "line": line, "is_here": is_here, "view": view, "problems": problems}
        content["fetching"] = queries.layout.command("farm", "fetch", run_id)
        html = part.html if part else ""
        return page("run", live=bool(part), here="/runs", part=html, **content)

    def run_report(self, request: Request) -> Response:
        run_id = request.path_params["run_id"]
        return _report(self._queries.written_report(run_id) or self._queries.report(run_id))

    def study(self, request: Request) -> Response:
        return _report(self._queries.study_report(request.path_params["study_id"]))

    def pictures(self, request: Request) -> Response:
        run_id = request.path_params["run_id"]
        return page("run_pictures", here="/runs", run_id=run_id, tasks=self._queries.view(run_id).pictures)

    def picture(self, request: Request) -> Response:
        view, number = self._queries.view(request.path_params["run_id"]), _number("picture", request.path_params["number"])
        return Response(picture_bytes(view, number, self._queries.layout), media_type="image/png")

    def nights(self, request: Request) -> Response:
        number = _page_number(request)
        nights = self._queries.nights(number - 1)
        return page("nights", here="/nights", nights=nights, page=number, is_full=len(nights) == A_PAGE)

    def night(self, request: Request) -> Response:
        return page("night_page", here="/nights", view=self._queries.night(request.path_params["night_id"]))

    def night_report(self, request: Request) -> Response:
        return _report(self._queries.night_report(request.path_params["night_id"]))

    def history(self, request: Request) -> Response:
        number = _page_number(request)
        cases = self._queries.cases(number - 1)
        links = [f"/history/{quote(line.case, safe='')}" for line in cases]
        is_full, table = len(links) == A_PAGE, case_table(cases)
        return page("history", here="/history", table=table, links=links, page=number, is_full=is_full)

    def case(self, request: Request) -> Response:
        case = request.path_params["case"]
        return page("case", here="/history", case=case, view=self._queries.case(case))

    def _live_page(self, name: str, here: str) -> Response:
        """Return a page that updates part of itself. The HTTP status is 503 if any of the data is unreadable, else 200."""
        part = self._part((f"{name}_part", ""))
        return page(name, 200 if part and part.is_whole else 503, live=True, here=here, part=part.html if part else "")

    def _live_part(self, name: str, run_id: str) -> Response:
        """Return a page's self-updating part alone. The answer is empty (204) if the run is over."""
        part = self._part((name, run_id))
        return Response(status_code=204) if part is None else HTMLResponse(part.html)

    def error_page(self, error: Exception) -> ErrorPage:
        """Return HTTP status, heading and text for an exception. The text may quote a name from the URL, but no full path."""
        if isinstance(error, UnknownNameError):
            text = error.message.replace("; known: none", "; there is none yet")
            return ErrorPage(status=404, title="Not found", text=text)
        if isinstance(error, TooLargeError):
            return ErrorPage(status=413, title="Too large to show", text=error.message)
        if self._queries.is_empty:
            return ErrorPage(status=404, title="No results yet", text="there are no results yet; start with quadbench run")
        self._log_once(error)
        return ErrorPage(status=503, title="Not available", text=f"the data {_UNREAD}")

    def _rendered_part(self, key: tuple[str, str]) -> _ShownPart | None:
        """Render a page's self-updating part. `key` is (template name, run id). For a run not in progress, return None."""
        template, run_id = key
        if template == _NOW:
            return _part(template, **self._now())
        if template == _FARM:
            problems: list[str] = []
            whole = self._try_query(self._queries.farm, "the farm", problems)
            return _part(template, farm=whole, sentence=_farm_sentence(whole) if whole else "", problems=problems)
        at_work = [work for work in self._queries.work() if work.run_id == run_id]
        farm = self._try_query(self._queries.farm, "the farm", [])
        of_farm = [run for run in farm.runs if run.run_id == run_id] if farm else []
        jobs = [one for one in farm.jobs if one.job.run_id == run_id] if farm and of_farm else []
        return _part(template, at_work=at_work, of_farm=of_farm, jobs=jobs, problems=()) if at_work or of_farm else None

    def _now(self) -> dict[str, Any]:
        problems: list[str] = []
        queries = self._queries
        work = queries.work()
        farm = self._try_query(queries.farm, "the farm", problems)
        runs = self._try_query(lambda: queries.runs(0), "the runs", problems)
        nights = self._try_query(lambda: queries.nights(0), "the nights", problems)
        night = nights[0] if nights else None
        night_sentence = (
            self._try_query(lambda: queries.night(night.night_id).sentence, "the last night", problems) if night else ""
        )
        return {
            "now_work": work,
            "farm": farm,
            "farm_runs": farm.runs if farm else (),
            "runs": runs,
            "nights": nights,
            "night": night,
            "night_sentence": night_sentence or "",
            "busy": len(work) + (len(farm.runs) if farm else 0),
            "broken": [device for device in farm.devices if device.is_broken] if farm else [],
            "at_work": queries.at_work(),
            "problems": problems,
        }

    def _try_query(self, ask: Callable[[], T], what: str, problems: list[str]) -> T | None:
        """Return `ask()`. On a QuadbenchError except UnknownNameError, log it, name `what` in `problems` and return None."""
        try:
            return ask()
        except UnknownNameError:
            raise
        except QuadbenchError as error:
            self._log_once(error)
            problems.append(f"{what.capitalize()} {_UNREAD}.")
            return None

    def _log_once(self, error: Exception) -> None:
        """Log an error once while it repeats: the page asks for its parts every two seconds, and each request would log it."""
        if str(error) != self._said:
            self._said = str(error)
            log.warning("%s", error)


def _part(template: str, **content: Any) -> _ShownPart:
    return _ShownPart(html=Markup(render_template(template, **content)), is_whole=not content["problems"])


def _farm_sentence(farm: FarmNow) -> str:
    broken = sum(device.is_broken for device in farm.devices)
    busy = sum(device.job is not None for device in farm.devices)
    waits = f", the oldest for {farm.oldest_waits_s / 60:.0f} min" if farm.oldest_waits_s is not None else ""
    queue = f"{plural(farm.states.get('waiting', 0), 'job')} waiting{waits}, {farm.states.get('running', 0)} running"
    return f"{plural(len(farm.devices), 'device')}, {busy} busy, {broken} with problems; {queue}."


def _page_number(request: Request) -> int:
    """Return the number in a URL's `?page=`; 1 if missing. Raise UnknownNameError unless it is an integer from 1 to 4000."""
    text = request.query_params.get("page", "1")
    number = _number("page", text)
    if not 1 <= number <= MAX_PAGES:
        raise UnknownNameError("page", text)
    return number


def _number(kind: str, text: str) -> int:
    """Return a number in a URL as an int. Raise UnknownNameError unless the text is a decimal number of at most 6 digits."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise UnknownNameError(kind, text)
    return int(text)


def _report(html: bytes) -> Response:
    return HTMLResponse(html, headers={"content-security-policy": REPORT_POLICY})


def _cached_response(text: str, media_type: str) -> Response:
    return Response(text, media_type=media_type, headers={"cache-control": "max-age=600"})


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
