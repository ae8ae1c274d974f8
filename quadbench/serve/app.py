"""App: a results folder and the access to it -> the application that a server runs: pages, events, API, and who may see them."""

import logging
from urllib.parse import parse_qs

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from quadbench.errors import QuadbenchError, UnknownNameError
from quadbench.results.layout import Layout
from quadbench.serve.access import COOKIE, Access
from quadbench.serve.api import api_routes
from quadbench.serve.door import SIGN_IN, Door, asked
from quadbench.serve.pages import Pages
from quadbench.serve.rendering import page
from quadbench.serve.watched import Watched

log = logging.getLogger(__name__)


def live_page(layout: Layout, access: Access, *, is_secure: bool = False) -> ASGIApp:
    """Return the application; `is_secure` says that it is reached through TLS."""
    watched = Watched(layout)
    pages = Pages(watched)
    app = FastAPI(
        title="quadbench",
        version="1",
        summary="What quadbench measures, and what the farm does. Everything is only read.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(api_routes(watched))
    app.router.routes.extend([*pages.routes, *_sign_in_routes(access, is_secure=is_secure)])

    def problem(request: Request, error: Exception) -> Response:
        is_program = request.url.path.startswith("/api/")
        told = pages.problem(error)
        return JSONResponse({"error": told.text}, told.status) if is_program else page("problem", told.status, problem=told)

    def unknown(request: Request, _: Exception) -> Response:
        return problem(request, UnknownNameError("page", asked(request)))

    def unexpected(request: Request, error: Exception) -> Response:
        log.error("'%s' cannot be answered", request.url.path, exc_info=error)
        return JSONResponse({"error": "unexpected; the server's log says what"}, 500)

    app.add_exception_handler(QuadbenchError, problem)
    app.add_exception_handler(404, unknown)
    app.add_exception_handler(RequestValidationError, unknown)
    app.add_exception_handler(500, unexpected)
    return Door(app, access)


def _sign_in_routes(access: Access, *, is_secure: bool) -> list[Route]:
    def form(request: Request) -> Response:
        return page("sign_in", to=_place(request.query_params.get("to", "/")), is_wrong=False)

    async def sign_in(request: Request) -> Response:
        try:
            body = await request.body()  # a short one: the door has seen to that
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
    """Return the path of a page here to which a link leads; of what leads elsewhere, the first page."""
    is_path = text.isprintable() and text.isascii() and text.startswith("/") and not text.startswith(("//", "/\\"))
    return text if is_path else "/"
