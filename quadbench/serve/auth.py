"""Access to the live page by token and host name, and the ASGI middleware that checks every request."""

import hmac
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quadbench.errors import UserError

COOKIE = "quadbench"
MIN_TOKEN = 16  # characters; long enough that it cannot be guessed
_MAX_TOKEN = 500
_PORT = re.compile(r":[0-9]{1,5}\Z")
SIGN_IN = "/sign-in"
_OPEN = (SIGN_IN, "/style.css", "/icon.svg")  # paths open without a token
_MAX_FORM_BYTES = 4096
_FOR_PROGRAMS = ("/metrics", "/live/")
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Reports contain their styles and images. Nothing in them is run, and nothing is fetched for them.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none';"
    " sandbox"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True, kw_only=True)
class AccessRules:
    """The live page's access rules: the token that requests need (None: no token), and host names allowed in the Host header."""

    token: str | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()

    def knows_host(self, host: str) -> bool:
        """Return whether the Host header is an IP address or a name of this host, as a guard against DNS rebinding."""
        name = _PORT.sub("", host.lower()).removeprefix("[").removesuffix("]").removesuffix(".")
        return name == "localhost" or name in self.names or is_address(name)

    def lets_in(self, authorization: str, cookie: str) -> bool:
        """Return whether an Authorization header or cookie value grants access. Return True if the server has no token."""
        if self.token is None:
            return True
        kind, _, given = authorization.partition(" ")
        return (kind.lower() == "bearer" and self.is_token(given.strip())) or _are_same(cookie, self.cookie)

    def is_token(self, given: str) -> bool:
        """Return whether a text equals the access token, by constant-time comparison. Return False if no token is set."""
        return self.token is not None and _are_same(given, self.token)

    @property
    def cookie(self) -> str:
        """Return the cookie value of signed-in users: a hexadecimal HMAC, keyed with the token, that hides the token."""
        return hmac.new((self.token or "").encode(), b"quadbench serve", "sha256").hexdigest()


def access_of(token: str | None, address: str, names: Collection[str]) -> AccessRules:
    """Return AccessRules for a token and host names. Raise UserError if `token` is invalid, or None at a non-loopback address."""
    if token is None and not is_loopback(address):
        raise UserError(
            f"other hosts could see the page at '{address}'; expected a token for any address except 127.0.0.1",
            hint="set one in $QUADBENCH_SERVE_TOKEN; to create one: openssl rand -hex 32",
        )
    if token is not None and not (MIN_TOKEN <= len(token) <= _MAX_TOKEN and token.isascii() and token.isprintable()):
        raise UserError(
            f"the token has {len(token)} characters; expected {MIN_TOKEN} to {_MAX_TOKEN} printable ASCII characters",
            hint="create one: openssl rand -hex 32",
        )
    return AccessRules(token=token, names=frozenset(name.lower().removesuffix(".") for name in (address, *names)))


def is_loopback(address: str) -> bool:
    """Return whether only this host can reach a server that listens at an address."""
    return address == "localhost" or (is_address(address) and ipaddress.ip_address(address).is_loopback)


def is_address(text: str) -> bool:
    """Return whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _are_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


class AuthMiddleware:
    """The ASGI middleware that refuses requests with a wrong Host, method or token, or a large body. It adds security headers."""

    def __init__(self, app: ASGIApp, access: AccessRules) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(HTTPConnection(scope))
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # uvicorn omits the body
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        """Return the error or sign-in response for a refused request; None if the request is allowed."""
        method, path = request.scope["method"], request.scope["path"]
        if not self._access.knows_host(request.headers.get("host", "")):
            return PlainTextResponse("the Host header is not a name of this host; see --name of quadbench serve", 421)
        if method not in ("GET", "HEAD") and not (method == "POST" and path == SIGN_IN):
            return PlainTextResponse("only GET and HEAD are allowed", 405, {"allow": "GET, HEAD"})
        length = int(request.headers.get("content-length", "0"))  # uvicorn has checked that it is a number
        if length > _MAX_FORM_BYTES:
            return PlainTextResponse(f"the body has {length} bytes; at most {_MAX_FORM_BYTES} are allowed", 413)
        if "transfer-encoding" in request.headers:
            return PlainTextResponse("a body without Content-Length is not allowed", 411)
        if path in _OPEN or self._access.lets_in(request.headers.get("authorization", ""), request.cookies.get(COOKIE, "")):
            return None
        if path.startswith(_FOR_PROGRAMS):
            return PlainTextResponse("a token is required", 401, {"www-authenticate": "Bearer"})
        return RedirectResponse(f"{SIGN_IN}?to={quote(request_target(request))}", 303)


def request_target(request: HTTPConnection) -> str:
    """Return a request's path with its query string."""
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
