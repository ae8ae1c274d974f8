"""Check a pool from this machine: programs, configuration, tokens, daemons, slots, versions. Each problem comes with a cure."""

import base64
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import from_json

from quadbench.artifacts.safe_text import one_line
from quadbench.errors import QuadbenchError, UserError, extra_hint
from quadbench.farm.condor import DOMAIN, HOST_IDENTITY, NEW_TOKEN, PACKAGE, Condor, this_pool
from quadbench.farm.slots import Slot, capability_need, is_silent, read_slots
from quadbench.host import find_program

_TOOLS = ("condor_master", "condor_submit", "condor_q", "condor_status", "condor_token_create", "condor_dagman")
_RENEW = f"make another one: {NEW_TOKEN}"
_MOST_TOKENS, _MOST_TOKEN_BYTES, _MOST_NAME = 50, 65_536, 100


@dataclass(frozen=True, kw_only=True)
class PoolFinding:
    """One thing that was checked. `problem` is empty if it is in order; `cure` says what to do about a problem."""

    what: str
    state: str = ""
    problem: str = ""
    cure: str = ""


def check_pool(version: str) -> Iterator[PoolFinding]:
    """Check this machine's part of the pool, then the whole pool, and yield the findings. `version` is quadbench's here."""
    missing = [tool for tool in _TOOLS if find_program(tool) is None]
    if missing:
        yield PoolFinding(what="HTCondor", problem=f"{', '.join(missing)} not found", cure=f"apt-get install {PACKAGE}")
        return
    yield PoolFinding(what="HTCondor", state="installed")
    try:
        pool = this_pool()
    except QuadbenchError as error:
        yield PoolFinding(what="configuration", problem=error.message, cure=error.hint or "")
        return
    yield PoolFinding(what="configuration", state=str(pool.configuration))
    yield from _tokens(pool)
    ask: list[tuple[str, Callable[[], str], str]] = [
        ("collector", lambda: f"{len(pool.slots('Name'))} slots", "start the daemons of the head: condor_master"),
        ("schedd", lambda: str(pool.schedd().get("Name")), "start the daemons of the head: condor_master"),
        ("queue", lambda: f"{len(pool.queue('ClusterId'))} jobs", "at the head, see its SchedLog"),
        ("permission to submit", lambda: _permission(pool), "at the head, see its SchedLog"),
    ]
    for what, act, cure in ask:
        try:
            yield PoolFinding(what=what, state=act())
        except QuadbenchError as error:
            is_refused = isinstance(error, UserError)
            yield PoolFinding(what=what, problem=error.message, cure=f"get a token: {NEW_TOKEN}" if is_refused else cure)
            return
    yield from _slots(read_slots(pool), version)


def _tokens(pool: Condor) -> Iterator[PoolFinding]:
    """Yield a finding for each token in this user's folder, and one if there is none."""
    try:
        folder = pool.tokens()
        tokens = _read_tokens(folder)
    except QuadbenchError as error:
        yield PoolFinding(what="tokens", problem=error.message, cure=error.hint or "")
        return
    except OSError as error:
        yield PoolFinding(what="tokens", problem=f"'{folder}' cannot be read: {error.strerror}", cure="quadbench farm init")
        return
    if not tokens:
        yield PoolFinding(what="tokens", problem=f"none in '{folder}'", cure=f"get one: {NEW_TOKEN}")
    for one in tokens:
        yield PoolFinding(what=f"token {one.file}", state=one.owner, problem=one.problem, cure=one.cure)


def _permission(pool: Condor) -> str:
    """Return the name by which the schedd knows this user, if the user may submit jobs.

    Raises:
        QuadbenchError: the schedd refuses this user, or does not answer.
    """
    lines = pool.run("condor_ping", "-type", "SCHEDD", "-name", str(pool.schedd().get("Name")), "-verbose", "WRITE").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "Remote Mapping" in line), "yes")


def _slots(slots: list[Slot], version: str) -> Iterator[PoolFinding]:
    """Yield findings on the pool's devices, its hosts' versions, and its places for builds."""
    if not slots:
        yield PoolFinding(
            what="devices", problem="no host describes its slots", cure="on a host with phones: quadbench farm init"
        )
        return
    for slot in slots:
        if not slot.is_present:
            see = "log/HostLog beside condor_config" if is_silent(slot) else "quadbench devices"
            yield PoolFinding(what=f"slot of {slot.bay.name}", problem=slot.bay.why_not, cure=f"on {slot.host}, see {see}")
    for host, problem in sorted({(slot.host, slot.problem) for slot in slots if slot.problem}):
        cure = f"on {host}: quadbench farm init --slots NUMBER, and restart its pool"
        yield PoolFinding(what=f"slots of {host}", problem=problem, cure=cure)
    ready = [slot for slot in slots if slot.is_present]
    others = sorted({f"{slot.host} ({slot.version})" for slot in ready if slot.version != version})
    if others:
        problem = f"here is quadbench {version}, and elsewhere: {', '.join(others)}"
        yield PoolFinding(what="versions", problem=problem, cure="install the same version everywhere")
    if ready:
        yield PoolFinding(what="devices", state=f"{sum(bool(slot.bay.address) for slot in ready)} ready")
    if not any(slot.serves(capability_need("build"), version) for slot in ready):
        problem = "no host builds bundles, so only bundles that are in the store can be measured"
        yield PoolFinding(what="builds", problem=problem, cure=f"on one host: {extra_hint('quad')}, and restart its pool")


@dataclass(frozen=True, kw_only=True)
class _Token:
    """A file with a token of `owner`. `problem` is empty if the pool may accept it."""

    file: str
    owner: str = ""
    problem: str = ""
    cure: str = _RENEW


def _read_tokens(folder: Path) -> list[_Token]:
    """Read the tokens in a folder, at most 50, in order of their names. Raise OSError if it cannot be read."""
    return [_token(file) for file in sorted(folder.iterdir())[:_MOST_TOKENS]]


def _token(file: Path) -> _Token:
    name = one_line(file.name, _MOST_NAME)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return _Token(file=name, problem="it is no file", cure=f"remove '{file}'")
        if status.st_uid != os.geteuid():
            return _Token(file=name, problem="it belongs to another user, so HTCondor does not read it")
        if status.st_mode & 0o077:
            return _Token(file=name, problem="other users can read it, so HTCondor does not", cure=f"chmod 600 '{file}'")
        with file.open("rb") as opened:
            part = opened.read(_MOST_TOKEN_BYTES).split(b".")[1]
        claims = from_json(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)), allow_inf_nan=False)
        owner, issuer = (one_line(str(claims[key]), _MOST_NAME) for key in ("sub", "iss"))
        ends_at = float(claims.get("exp", "inf"))
    except OSError as error:
        return _Token(file=name, problem=f"it cannot be read: {error.strerror}")
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError):
        return _Token(file=name, problem="it is no token")
    person, problem = owner.partition("@")[0], ""
    if issuer != DOMAIN:
        problem = f"it is of another pool, '{issuer}'"
    elif ends_at < time.time():
        problem = f"the token of {owner} expired {(time.time() - ends_at) / 3600:.0f} h ago"
    elif person == "root":
        problem = "it is of root, whose jobs HTCondor refuses"
    elif person == HOST_IDENTITY:
        problem = "it is a host's, and no person's"
    return _Token(file=name, owner=owner, problem=problem, cure=_RENEW if problem else "")
