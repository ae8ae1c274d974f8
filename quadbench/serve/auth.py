"""Who may see the live page, by a token and the host's name, and the middleware that holds every request to it."""

import hmac
import ipaddress
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quadbench.errors import UserError

COOKIE = "quadbench"
LEAST_TOKEN = 16  # characters: too many to be guessed
_MOST_TOKEN = 500
_PORT = re.compile(r":[0-9]{1,5}\Z")
SIGN_IN = "/sign-in"
_OPEN = (SIGN_IN, "/style.css", "/icon.svg")  # to who has no token
_MOST_FORM_BYTES = 4096
MOST_HEAD_BYTES = 16_384  # which the server holds only against a head that comes bit by bit
PIECE_BYTES = 65_536  # of an answer that are handed over at once
_ENDLESS = "/live/"
_FOR_PROGRAMS = ("/api/", _ENDLESS)
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Reports bring their style and pictures with them; nothing in one is run, and nothing is fetched for it.
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
class Access:
    """Who is let in: whoever has the token, where there is one, and asks for this host by an address or one of its `names`."""

    token: str | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()

    def knows_host(self, host: str) -> bool:
        """Say whether a page was asked for under a name of this host.

        A page of somebody's who has his name lead here would ask under that name; nobody can do so with an address.
        """
        name = _PORT.sub("", host.lower()).removeprefix("[").removesuffix("]").removesuffix(".")
        return name == "localhost" or name in self.names or is_address(name)

    def lets_in(self, authorization: str, cookie: str) -> bool:
        """Say whether a request has the token, or the cookie of who has signed in with it."""
        if self.token is None:
            return True
        kind, _, given = authorization.partition(" ")
        return (kind.lower() == "bearer" and self.is_token(given.strip())) or _are_same(cookie, self.cookie)

    def is_token(self, given: str) -> bool:
        """Say whether a text is the token, in a time that tells nothing of where it differs."""
        return self.token is not None and _are_same(given, self.token)

    @property
    def cookie(self) -> str:
        """Return what who has signed in is known by, from which nobody learns the token."""
        return hmac.new((self.token or "").encode(), b"quadbench serve", "sha256").hexdigest()


def access_of(token: str | None, address: str, names: Collection[str]) -> Access:
    """Return the access to a page at an address, of which others than this host are refused without a token.

    Raises:
        UserError: the address is not of this host alone and there is no token, or the token is none.
    """
    if token is None and not is_loopback(address):
        raise UserError(
            f"whoever reaches '{address}' would see the page; expected a token for another address than 127.0.0.1",
            hint="give one in $QUADBENCH_SERVE_TOKEN or with --token-file, as of: openssl rand -hex 32",
        )
    if token is not None and not (LEAST_TOKEN <= len(token) <= _MOST_TOKEN and token.isascii() and token.isprintable()):
        raise UserError(
            f"the token has {len(token)} characters; expected {LEAST_TOKEN} to {_MOST_TOKEN} printable ones of ASCII",
            hint="openssl rand -hex 32 makes one",
        )
    return Access(token=token, names=frozenset(name.lower().removesuffix(".") for name in (address, *names)))


def is_loopback(address: str) -> bool:
    """Say whether only this host reaches an address to listen at."""
    return address == "localhost" or (is_address(address) and ipaddress.ip_address(address).is_loopback)


def is_address(text: str) -> bool:
    """Say whether a text is an address of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _are_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


class Door:
    """The application. An answer may have a header of its own in place of one that all have."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
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
            for piece in _pieces(message):
                await send(piece)

        refusal = self._refusal(HTTPConnection(scope))
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        """Return the answer to a request that goes no further."""
        method, path = request.scope["method"], request.scope["path"]
        head_bytes = len(request.scope["raw_path"]) + len(request.scope["query_string"])
        if head_bytes + sum(map(len, chain.from_iterable(request.scope["headers"]))) > MOST_HEAD_BYTES:
            return PlainTextResponse(f"a head of more than {MOST_HEAD_BYTES} bytes is not read", 400)
        if not self._access.knows_host(request.headers.get("host", "")):
            return PlainTextResponse("this is no name of this host; see --name of quadbench serve", 421)
        if method not in ("GET", "HEAD") and not (method == "POST" and path == SIGN_IN):
            return PlainTextResponse("everything here is only read", 405, {"allow": "GET, HEAD"})
        most_bytes = _MOST_FORM_BYTES if method == "POST" else 0
        length = int(request.headers.get("content-length", "0"))  # the server has seen that it is a number
        if length > most_bytes:
            return PlainTextResponse(f"a body of {length} bytes is not read; at most {most_bytes} are", 413)
        if "transfer-encoding" in request.headers:
            return PlainTextResponse("a body of unknown length is not read", 411 if most_bytes else 413)
        if method == "HEAD" and path.startswith(_ENDLESS):
            return PlainTextResponse("events have no end, and their head tells nothing", 405, {"allow": "GET"})
        if path in _OPEN or self._access.lets_in(request.headers.get("authorization", ""), request.cookies.get(COOKIE, "")):
            return None
        if path.startswith(_FOR_PROGRAMS):
            return JSONResponse({"error": "a token is needed"}, 401, {"www-authenticate": "Bearer"})
        return RedirectResponse(f"{SIGN_IN}?to={quote(asked(request))}", 303)


def _pieces(message: Message) -> Iterator[Message]:
    """Return what an answer's message is sent as: the next piece waits until what is before it was taken."""
    body = message.get("body", b"")
    yield {**message, "body": body[:PIECE_BYTES], "more_body": True} if len(body) > PIECE_BYTES else message
    for start in range(PIECE_BYTES, len(body), PIECE_BYTES):
        is_last = start + PIECE_BYTES >= len(body)
        yield {**message, "body": body[start : start + PIECE_BYTES], "more_body": not is_last or message.get("more_body", False)}


def asked(request: HTTPConnection) -> str:
    """Return the path that is asked for, with what stands behind it."""
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
