"""This user's tokens of a pool: of whom each is, what is wrong with it, and why the pool accepts none."""

import base64
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import from_json

from quadbench.artifacts.safe_text import one_line

DOMAIN = "quadbench"  # the part after @ in the names of tokens
HOST_IDENTITY = "condor"  # the name by which the daemons of a pool know each other
NEW_TOKEN = "quadbench farm token NAME, at the head"
_RENEW = f"make another one: {NEW_TOKEN}"
_MOST_TOKENS, _MOST_TOKEN_BYTES, _MOST_NAME = 50, 65_536, 100
_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Token:
    """A file with a token of `owner`, made at `made_at` (Unix time). `problem` is empty if the pool may accept it."""

    file: str
    owner: str = ""
    made_at: float = 0.0
    problem: str = ""
    cure: str = _RENEW


def read_tokens(folder: Path) -> list[Token]:
    """Read the tokens in a folder, at most 50, in order of their names. Raise OSError if it cannot be read."""
    return [_token(file) for file in sorted(folder.iterdir())[:_MOST_TOKENS]]


def why_refused(folder: Path, key: Path) -> str:
    """Return why the pool accepts none of the tokens in `folder`. `key` is where the pool's signing key is at the head.

    What a token says of itself does not tell a key from another. But the head accepts no token that is older than its key.
    """
    try:
        tokens = read_tokens(folder)
        key_at = int(key.stat().st_mtime) if key.exists() else 0
    except OSError as error:
        return f"'{folder}' cannot be read: {error.strerror}"
    other = "another key has signed it, that of another pool" + ("" if key_at else ", or an earlier one of this pool")
    why = {one.file: one.problem or ("it is older than the pool's key" if one.made_at < key_at else other) for one in tokens}
    return "; ".join(f"token {name}: {why[name]}" for name in list(why)[:_MOST_NAMED]) or f"there is none in '{folder}'"


def _token(file: Path) -> Token:
    name = one_line(file.name, _MOST_NAME)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return Token(file=name, problem="it is no file", cure=f"remove '{file}'")
        if status.st_uid != os.geteuid():
            return Token(file=name, problem="it belongs to another user, so HTCondor does not read it")
        if status.st_mode & 0o077:
            return Token(file=name, problem="other users can read it, so HTCondor does not", cure=f"chmod 600 '{file}'")
        with file.open("rb") as opened:
            part = opened.read(_MOST_TOKEN_BYTES).split(b".")[1]
        claims = from_json(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)), allow_inf_nan=False)
        owner, issuer = (one_line(str(claims[key]), _MOST_NAME) for key in ("sub", "iss"))
        made_at, ends_at = float(claims.get("iat", 0)), float(claims.get("exp", "inf"))
    except OSError as error:
        return Token(file=name, problem=f"it cannot be read: {error.strerror}")
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError):
        return Token(file=name, problem="it is no token")
    person, problem = owner.partition("@")[0], ""
    if issuer != DOMAIN:
        problem = f"it is of another pool, '{issuer}'"
    elif ends_at < time.time():
        problem = f"the token of {owner} expired {(time.time() - ends_at) / 3600:.0f} h ago"
    elif person == "root":
        problem = "it is of root, whose jobs HTCondor refuses"
    elif person == HOST_IDENTITY:
        problem = "it is a host's, and no person's"
    return Token(file=name, owner=owner, made_at=made_at, problem=problem, cure=_RENEW if problem else "")
