"""The live page's web application (FastAPI) with pages, sign-in and JSON API, and the uvicorn server for the application."""

import logging
import socket
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Annotated
from urllib.parse import parse_qs

import uvicorn
from fastapi import APIRouter, FastAPI, Path, Query
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from quadbench.errors import QuadbenchError, UnknownNameError, UserError
from quadbench.farm.condor import Condor, this_pool
from quadbench.nightly.history_formats import CaseDocument, CaseList
from quadbench.report.night_formats import NightDocument, night_json
from quadbench.report.run_line import RunList
from quadbench.report.view import RunSummary, run_summary
from quadbench.results.documents import adapter_of
from quadbench.results.layout import Layout
from quadbench.serve.api_documents import ActiveWork, FarmNow, NightList, farm_metrics
from quadbench.serve.auth import COOKIE, MAX_HEAD_BYTES, SIGN_IN, AccessRules, AuthMiddleware, request_target
from quadbench.serve.pages import Pages
from quadbench.serve.queries import MAX_PAGES, ResultsQueries
from quadbench.serve.rendering import page

MAX_CONNECTIONS = 300  # connections at once; a request beyond them is answered with 503
_MAX_NEW = 100  # connections that wait to be accepted
_PATIENCE_S = 1  # seconds for open requests when the server ends

log = logging.getLogger(__name__)


def live_page(layout: Layout, access: AccessRules, *, is_secure: bool = False, pool: Callable[[], Condor] = this_pool) -> ASGIApp:
    """Return the live page's ASGI application for a results folder. With `is_secure`, browsers send the cookie only over TLS.

    `pool` returns the HTCondor pool that the farm's page shows, or raises UserError if there is none.
    """
    queries = ResultsQueries(layout, pool)
    pages = Pages(queries)
    app = FastAPI(
        title="quadbench",
        version="1",
        summary="Results of quadbench, and the state of the farm. The API is read-only.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(api_routes(queries))
    metrics = Route("/metrics", lambda _: Response(farm_metrics(queries.farm), media_type=CONTENT_TYPE_LATEST))
    app.router.routes.extend([metrics, *pages.routes, *_sign_in_routes(access, is_secure=is_secure)])

    def problem(request: Request, error: Exception) -> Response:
        is_program = request.url.path.startswith("/api/")
        body = pages.error_page(error)
        return JSONResponse({"error": body.text}, body.status) if is_program else page("problem", body.status, problem=body)

    def unknown(request: Request, _: Exception) -> Response:
        return problem(request, UnknownNameError("page", request_target(request)))

    def unexpected(request: Request, error: Exception) -> Response:
        log.error("the request for '%s' failed", request.url.path, exc_info=error)
        return JSONResponse({"error": "unexpected error; see the server's log"}, 500)

    app.add_exception_handler(QuadbenchError, problem)
    app.add_exception_handler(404, unknown)
    app.add_exception_handler(RequestValidationError, unknown)
    app.add_exception_handler(500, unexpected)
    return AuthMiddleware(app, access)


def _sign_in_routes(access: AccessRules, *, is_secure: bool) -> list[Route]:
    def form(request: Request) -> Response:
        return page("sign_in", to=_place(request.query_params.get("to", "/")), is_wrong=False)

    async def sign_in(request: Request) -> Response:
        try:
            body = await request.body()  # short, as the middleware limits its length
        except ClientDisconnect:
            return Response(status_code=400)
        fields = parse_qs(body.decode("ascii", "replace"))
        to = _place(fields.get("to", ["/"])[0])
        if not access.is_token(fields.get("token", [""])[0]):
            return page("sign_in", 403, to=to, is_wrong=True)
        answer = RedirectResponse(to, 303)
        answer.set_cookie(COOKIE, access.cookie, httponly=True, samesite="strict", secure=is_secure)
        return answer

    return [Route(SIGN_IN, form, methods=["GET"]), Route(SIGN_IN, sign_in, methods=["POST"])]


def _place(text: str) -> str:
    """Return `text`, the link to open after sign-in, if it is a path on this server. For any other text, return `/`."""
    is_path = text.isprintable() and text.isascii() and text.startswith("/") and not text.startswith(("//", "/\\"))
    return text if is_path else "/"


Page = Annotated[int, Query(ge=1, le=MAX_PAGES, description="The number of the page. Page 1 has the latest entries.")]
Name = Annotated[str, Path(max_length=200)]


def api_routes(queries: ResultsQueries) -> APIRouter:
    """Return the routes of the JSON API. Times are in nanoseconds, sizes in bytes; null stands for NaN and infinities."""
    router = APIRouter(prefix="/api", responses={401: {"description": "token required"}, 404: {"description": "unknown name"}})

    @router.get("/work", response_model=ActiveWork, summary="The commands that are running now")
    def work() -> Response:
        return _json(ActiveWork, queries.work())

    @router.get("/farm", response_model=FarmNow, summary="The current devices, hosts and jobs")
    def farm() -> Response:
        return _json(FarmNow, queries.farm())

    @router.get("/runs", response_model=RunList, summary="Stored runs, latest first, without figures")
    def runs(page: Page = 1) -> Response:
        return _json(RunList, queries.runs(page - 1))

    @router.get("/runs/{run_id}", response_model=RunSummary, summary="A run with its result and figures")
    def run(run_id: Name) -> Response:
        return _json(RunSummary, run_summary(queries.view(run_id), f"/runs/{run_id}/report"))

    @router.get("/nights", response_model=NightList, summary="Nights, latest first")
    def nights(page: Page = 1) -> Response:
        return _json(NightList, queries.nights(page - 1))

    @router.get("/nights/{night_id}", response_model=NightDocument, summary="A night with its rulings")
    def night(night_id: Name) -> Response:
        return Response(night_json(queries.night(night_id)), media_type="application/json")

    @router.get("/history", response_model=CaseList, summary="Nightly cases on each device, with their latest state")
    def cases(page: Page = 1) -> Response:
        return _json(CaseList, queries.cases(page - 1))

    @router.get("/history/{case}", response_model=CaseDocument, summary="The changes of a case, and since when")
    def case(case: Name) -> Response:
        return _json(CaseDocument, queries.case(case).document)

    return router


def _json(kind: type[object], value: object) -> Response:
    return Response(adapter_of(kind).dump_json(value), media_type="application/json")


def listen(address: str, port: int) -> socket.socket:
    """Return a TCP socket that listens at an IP address or host name. Port 0 chooses any free port.

    Raises:
        UserError: this host does not have the address, or the port is taken or forbidden to this user.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot listen at {address}, port {port}: {reason}", hint="change --host or --port") from error


def server_of(app: ASGIApp, certfile: FilePath | None = None, keyfile: FilePath | None = None) -> uvicorn.Server:
    """Return a uvicorn server, not yet started, for an ASGI app. A certificate file enables TLS. Requests are not logged.

    Raises:
        UserError: the certificate or key cannot be read, or the key does not match.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
        log_config=None,
        log_level="critical",  # the application logs its own errors; uvicorn would log viewers cut off at its end
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=_MAX_NEW,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=_PATIENCE_S,
        lifespan="off",
        ws="none",
    )
    try:
        config.load()
    except OSError as error:  # an ssl.SSLError is one
        raise UserError(f"the TLS files cannot be used: {error}", hint="give PEM files with --certfile and --keyfile") from error
    return uvicorn.Server(config)
