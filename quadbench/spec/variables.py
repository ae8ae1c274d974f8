"""Environment variables: reading and checking those that quadbench uses. An invalid value raises UserError."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from quadbench.errors import UserError, quote
from quadbench.spec.files import MAX_PATH_BYTES, fits_file_system

_MAX_LENGTH = MAX_PATH_BYTES  # the longest value of a variable; paths are the longest
_MAX_PORT = 65_535
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:/{0,3}", re.ASCII)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[^:/]*)(:\d{0,5})?(/|$)", re.ASCII)


def variable(name: str) -> str | None:
    """Return the value of an environment variable; None if it is unset or empty."""
    return _checked(name, os.environ.get(name, "")) or None


def secret_variable(name: str) -> str | None:
    """Return a secret environment variable's value; None if unset or empty. Skip checks, as errors would quote the secret."""
    return os.environ.get(name) or None


def set_variable(name: str, text: str) -> None:
    """Set an environment variable for this process and its child processes."""
    os.environ[name] = text


@contextmanager
def without_variable(name: str) -> Iterator[None]:
    """Unset an environment variable during a `with` block, then restore it. Libraries in the block cannot read the value."""
    text = os.environ.pop(name, None)
    try:
        yield
    finally:
        if text is not None:
            os.environ[name] = text


def path_variable(name: str) -> Path | None:
    """Return the path in an environment variable; None if the variable is unset or empty. The path need not exist."""
    text = variable(name)
    return _path(name, text) if text else None


def paths_variable(name: str) -> list[Path]:
    """Split a colon-separated environment variable, such as PATH, into a list of paths. Return [] if it is unset or empty."""
    return [_path(name, _checked(name, text)) for text in os.environ.get(name, "").split(os.pathsep) if text]


def port_variable(name: str) -> int | None:
    """Return the port number in an environment variable; None if it is unset or empty."""
    text = variable(name)
    return port_of(name, text) if text else None


def port_of(name: str, text: str) -> int:
    """Convert text to a port number from 1 to 65535. If the text is invalid, raise a UserError that names the variable `name`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_PORT)) and 0 < int(text) <= _MAX_PORT):
        raise UserError(f"${name}: {quote(text)} is not a port; expected a number from 1 to {_MAX_PORT}")
    return int(text)


def number_variable(name: str, *, usual: float, least: float, most: float) -> float:
    """Return the number in an environment variable (`usual` if unset or empty). Raise UserError if outside `least` to `most`."""
    text = variable(name)
    try:
        number = float(text) if text else usual
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise UserError(f"${name} is {quote(text or '')}; expected a number from {least:g} to {most:g}", hint="unset it")
    return number


def host_of(name: str, text: str) -> str:
    """Return a host name or IP address without IPv6 brackets, as sockets expect. Raise a UserError if the host is invalid."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise UserError(f"${name}: {quote(text)} is not a host; expected a host name or an IP address") from error
    return host


def web_variable(name: str) -> str | None:
    """Return the http(s) URL in an environment variable; None if unset or empty. Raise UserError for other text or a query."""
    text = variable(name)
    try:
        address = urlsplit(text or "")
        is_right = address.scheme in ("http", "https") and address.hostname and address.port != 0
        is_right = is_right and not ("@" in address.path or any(mark in (text or "") for mark in " ?#"))
    except ValueError:  # unclosed brackets or an invalid port
        is_right, address = False, urlsplit("")
    if text and not (is_right and text.isascii()):
        hint = "in a login, write %40 for @ and %2F for /"
        raise UserError(f"${name} is {quote(mask_url(text))}, not a URL; expected https://HOST:PORT/PATH, no query", hint=hint)
    if text:
        host_of(name, address.hostname or "")
    return text


def mask_url(url: str) -> str:
    """Return a URL with login, query and fragment replaced by `***`. Text that is not a URL is masked by the same rules.

    Masking goes by position, not by searching for the password: everything before the last `@`, everything after a `?` or `#`,
    and everything after a colon that is not followed by a port.
    """
    scheme = _SCHEME.match(url)
    start, rest = (scheme[0], url[scheme.end() :]) if scheme else ("", url)
    login, at, place = rest.rpartition("@")
    if any(mark in login for mark in "?#") or (scheme and not at and not start.endswith("/")):
        return f"{start}***"
    end = re.search(r"[?#]", place)
    place, query = (place[: end.start()], f"{end[0]}***") if end else (place, "")
    if not _HOST_AND_PORT.match(place):
        place = f"{place.partition(':')[0]}:***"
    return f"{start}{'***@' if at else ''}{place}{query}"


def mask_urls_in(text: str) -> str:
    """Mask every word like `A:B@C` in a program's output, as the word may be a URL with a login. Return the masked output."""
    return re.sub(r"[^\s'\"]*:[^\s]*@[^\s'\"]*", lambda word: mask_url(word[0]), text)


def refuse_like_url(text: str, what: str, expected: str) -> None:
    """Raise a UserError, with passwords masked, if a path looks like a mistyped URL. `what` names the path in the error."""
    if re.match(r"(//)?[^/]+:", text):
        hint = "write a relative path with a colon as ./PATH"
        raise UserError(f"{what} '{mask_url(text)}' is neither a path nor a URL; expected {expected}", hint=hint)


def _checked(name: str, text: str) -> str:
    if len(text) > _MAX_LENGTH:
        shown = quote(mask_url(text))
        raise UserError(f"${name} has {len(text)} characters, {shown}; expected at most {_MAX_LENGTH}", hint="unset it")
    if not text.isprintable():
        raise UserError(f"${name} is {quote(mask_url(text))}; expected printable characters in UTF-8", hint="unset it")
    return text


def _path(name: str, text: str) -> Path:
    path = Path(text)
    if not fits_file_system(path):
        raise UserError(f"${name} is {quote(text)}, {len(text)} characters; expected a path that a file system accepts")
    return path
