"""Access: who asks, under which name of this host -> whether they are let in. Pure."""

import hmac
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass, field

from quadbench.errors import UserError

COOKIE = "quadbench"
LEAST_TOKEN = 16  # characters: too many to be guessed
_MOST_TOKEN = 500
_PORT = re.compile(r":[0-9]{1,5}\Z")


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
