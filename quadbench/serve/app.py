"""The live page's web application: pages, sign-in and metrics; and the uvicorn server for it."""

import logging
import socket
from collections.abc import Callable
from urllib.parse import parse_qs

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from quadbench.errors import QuadbenchError, UnknownNameError, UserError
from quadbench.farm.condor import Condor, this_pool
from quadbench.results.layout import Layout
from quadbench.serve.auth import COOKIE, SIGN_IN, AccessRules, AuthMiddleware, request_target
from quadbench.serve.farm_state import farm_metrics
from quadbench.serve.pages import Pages, page
from quadbench.serve.queries import ResultsQueries

_PATIENCE_S = 1  # seconds for open requests when the server ends

log = logging.getLogger(__name__)


def live_page(layout: Layout, access: AccessRules, pool: Callable[[], Condor] = this_pool) -> ASGIApp:
    """Return the live page's ASGI application for a results folder.

    `pool` returns the HTCondor pool that the farm's page shows, or raises UserError if there is none.
    """
    queries = ResultsQueries(layout, pool)
    pages = Pages(queries)

    def problem(_: Request, error: Exception) -> Response:
        body = pages.error_page(error)
        return page("problem", body.status, problem=body)

    def unknown(request: Request, _: Exception) -> Response:
        return problem(request, UnknownNameError("page", request_target(request)))

    def unexpected(request: Request, error: Exception) -> Response:
        log.error("the request for '%s' failed", request.url.path, exc_info=error)
        return PlainTextResponse("unexpected error; see the server's log", 500)

    metrics = Route("/metrics", lambda _: Response(farm_metrics(queries.farm), media_type=CONTENT_TYPE_LATEST))
    handlers = {QuadbenchError: problem, 404: unknown, 500: unexpected}
    app = Starlette(routes=[metrics, *pages.routes, *_sign_in_routes(access)], exception_handlers=handlers)
    app.router.redirect_slashes = False
    return AuthMiddleware(app, access)


def _sign_in_routes(access: AccessRules) -> list[Route]:
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
        is_secure = request.url.scheme == "https"  # as a proxy on this host says
        answer.set_cookie(COOKIE, access.cookie, httponly=True, samesite="strict", secure=is_secure)
        return answer

    return [Route(SIGN_IN, form, methods=["GET"]), Route(SIGN_IN, sign_in, methods=["POST"])]


def _place(text: str) -> str:
    """Return `text`, the link to open after sign-in, if it is a path on this server. For any other text, return `/`."""
    is_path = text.isprintable() and text.isascii() and text.startswith("/") and not text.startswith(("//", "/\\"))
    return text if is_path else "/"


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


def server_of(app: ASGIApp) -> uvicorn.Server:
    """Return a uvicorn server, not yet started, for an ASGI app. Requests are not logged: they may contain a token."""
    config = uvicorn.Config(
        app,
        http="h11",
        log_config=None,
        log_level="critical",  # the application logs its own errors; uvicorn would log viewers cut off at its end
        access_log=False,
        server_header=False,
        limit_concurrency=300,
        timeout_graceful_shutdown=_PATIENCE_S,
        lifespan="off",
        ws="none",
    )
    return uvicorn.Server(config)
