"""Set up this host's part of an HTCondor pool: its configuration, signing key, tokens and systemd unit.

Every host of a lab has one file, written for its roles. The head matches jobs with slots and has the queue. A host has devices,
or builds. A desk only submits. Without a head's name, everything is on this machine and listens to nobody else.
"""

import os
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from quadbench.errors import UserError, quote
from quadbench.farm.condor import DOMAIN, HOST_IDENTITY, Condor
from quadbench.farm.slots import START
from quadbench.farm.store.opening import STORE_VARIABLE
from quadbench.host import current_user, host_name, python_module, require_linux
from quadbench.results.engine import DATABASE_VARIABLE

MASTER = "/usr/sbin/condor_master"  # not on the PATH of Debian's ordinary users
ENVIRONMENT_FILE = Path("/etc/quadbench/farm.env")  # of the systemd unit, as are the next two
CONFIGURATION = Path("/var/lib/quadbench/.quadbench/pool/condor_config")
DRAIN_S = 3600  # more than most jobs take; a killed job loses one attempt
LOOPBACK = "127.0.0.1"
PORT = 9618  # HTCondor's
SLOTS = 16
_LONGEST_SOCKET_FOLDER = 80  # of the 108 bytes of a Unix socket's path
_FOLDERS = ("log", "spool", "execute", "lock", "run", "sockets", "keys", "tokens.d", "host-tokens.d")
_DAEMONS = {"head": ("COLLECTOR", "NEGOTIATOR", "SCHEDD"), "host": ("STARTD",)}
_PROGRAM = "describe-slots"
_HEAD = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PERSON = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_MEANT = re.compile(r"[\s\"'\\$,]")  # characters with a meaning in HTCondor's configuration


class PoolRole(StrEnum):
    """A task of a machine in a pool: assign jobs (head), run them (host), or only submit them (desk)."""

    HEAD = "head"
    HOST = "host"
    DESK = "desk"


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Settings of this machine's part of a pool. `words` are options of `quadbench farm host`, such as `--devices local`."""

    roles: tuple[PoolRole, ...]
    head: str = LOOPBACK
    port: int = PORT
    slots: int = SLOTS
    results: Path
    words: tuple[str, ...] = ()


def roles_of(words: Collection[str], head: str | None) -> tuple[PoolRole, ...]:
    """Return the roles of this machine by their names. Without names, it is a host, or the whole pool if there is no head.
    Raise UserError if the machine is not the whole pool, and no head is named.
    """
    whole = {PoolRole.HEAD.value, PoolRole.HOST.value}
    names = set(words) or ({PoolRole.HOST.value} if head else whole)
    if not head and names != whole:
        hint = "name the head as others reach it, on the head too: quadbench farm init --head HOST --role ROLE"
        raise UserError("a pool of several machines needs --head", hint=hint)
    return tuple(role for role in PoolRole if role.value in names)


def write_pool(folder: Path, settings: PoolSettings) -> Condor:
    """Write the configuration of this host's part of a pool into `folder`, which gets HTCondor's folders and, at the head, a key.

    An existing key and existing tokens are kept, so that the settings can be changed by another call.

    Raises:
        UserError: this user is root, or a setting cannot stand in a configuration.
    """
    require_fit_machine()
    text, user, key = _configuration(folder, settings), current_user(), folder / "keys" / "POOL"
    if PoolRole.HEAD in settings.roles or key.exists():
        check_person(user)
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, mode=0o700, exist_ok=True)
    if PoolRole.HEAD in settings.roles and not key.exists():
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(64))
    pool = Condor(configuration=folder / "condor_config")
    pool.configuration.write_text(text)
    if PoolRole.HOST in settings.roles:
        words = "farm", "host", "--slots", str(settings.slots), *settings.words, "--results", str(settings.results)
        command = shlex.join(python_module("quadbench", *words))  # Python that HTCondor itself starts would not find its venv
        program = folder / _PROGRAM
        program.write_text(f"#!/bin/sh\nexec {command} 2>>{shlex.quote(str(folder / 'log' / 'HostLog'))}\n")
        program.chmod(0o700)
    if key.exists():
        for place, name in (("host-tokens.d/head", HOST_IDENTITY), (f"tokens.d/{user}", user)):
            if not (file := folder / place).exists():
                token = make_token(pool, name)
                file.touch(0o600)
                file.write_text(token)
    return pool


def make_token(pool: Condor, name: str, days: int | None = None) -> str:
    """Return a token for a person, or for the daemons of a host, called `condor`. It is valid for ever, or for `days` days.

    Raises:
        UserError: the name is not valid, or the pool's signing key is not here.
        MissingDependencyError: HTCondor is not installed.
    """
    if name != HOST_IDENTITY:
        check_person(name)
    if not (pool.configuration.parent / "keys" / "POOL").exists():
        raise UserError("this is not the head of the pool: its signing key is not here", hint="make tokens at the head")
    lifetime = ("-lifetime", str(days * 86_400)) if days else ()
    return pool.run("condor_token_create", "-identity", f"{name}@{DOMAIN}", *lifetime)


def check_person(name: str) -> None:
    """Raise UserError if a person's token cannot have this name: it has other characters, is root, or is that of the daemons."""
    if name.casefold() in ("root", HOST_IDENTITY):
        what = "takes no jobs of root" if name.casefold() == "root" else f"calls its own daemons {HOST_IDENTITY}"
        raise UserError(f"{quote(name)} cannot be a person's name in a pool, which {what}", hint="choose another name")
    if not _PERSON.fullmatch(name):
        raise UserError(f"{quote(name)} cannot be a person's name in a pool; expected up to 64 letters, digits, '.', '-', '_'")


def require_fit_machine() -> None:
    """Check that this machine and user can have a pool. HTCondor's tools would wait a minute for a host's own address.

    Raises:
        MissingDependencyError: this machine does not run Linux.
        UserError: this user is root, whose jobs HTCondor refuses, or this host's own name has no address.
    """
    require_linux("hosts of a farm")
    if os.geteuid() == 0:
        hint = "as an ordinary user: sudo -u quadbench -H quadbench farm init; see docs/farm.md"
        raise UserError("a pool cannot belong to root, because HTCondor runs no jobs of root", hint=hint)
    try:
        socket.getaddrinfo(host_name(), None)
    except OSError as error:
        hint = f"add a line to /etc/hosts: ADDRESS {host_name()}"
        raise UserError(f"this host's name '{host_name()}' has no address, which HTCondor needs", hint=hint) from error


def remaining_steps(pool: Condor, settings: PoolSettings) -> list[str]:
    """Return what is left to do on this and other hosts, as lines with the commands to type."""
    folder, steps = pool.configuration.parent, list[str]()
    is_lab = settings.head != LOOPBACK
    if is_lab and PoolRole.HEAD not in settings.roles:
        if PoolRole.HOST in settings.roles and not any((folder / "host-tokens.d").iterdir()):
            steps.append("at the head, make this host's token: quadbench farm token --host")
            steps.append(f"here, store it: install -m 600 /dev/stdin {folder}/host-tokens.d/head")
        if not any((folder / "tokens.d").iterdir()):
            steps.append("at the head, make your token: quadbench farm token NAME")
            steps.append(f"here, store it: install -m 600 /dev/stdin {folder}/tokens.d/NAME")
    if is_lab and PoolRole.HEAD in settings.roles:
        steps.append(f"let the pool's hosts reach port {settings.port} (tcp) of this one, and this one theirs")
        init = f"quadbench farm init --head {settings.head}" + (f" --port {settings.port}" if settings.port != PORT else "")
        steps.append(f"on each host with phones: {init}")
        steps.append(f"on each desk: {init} --role desk")
    if settings.roles != (PoolRole.DESK,):
        needed = f"${DATABASE_VARIABLE} and ${STORE_VARIABLE}"
        steps.append(f"where {needed} are exported, start or restart the daemons: CONDOR_CONFIG={pool.configuration} {MASTER} -f")
        steps.append("or at each boot, by systemd: quadbench farm unit")
    return [*steps, "see what is wrong or missing: quadbench farm check"]


def systemd_unit(user: str) -> str:
    """Return the text of a systemd unit that runs HTCondor's daemons as the Unix user `user`, whose home is /var/lib/quadbench.

    SIGTERM goes to the master only: its host takes no new jobs, and exits when its jobs have ended. After DRAIN_S seconds,
    systemd kills the remaining jobs, and HTCondor starts them elsewhere. Raise UserError if the user's name is invalid.
    """
    return filled(
        "pool.service.j2",
        program=MASTER,
        configuration=CONFIGURATION,
        environment_file=ENVIRONMENT_FILE,
        user=user_name(user),
        drain_s=DRAIN_S,
    )


def user_name(user: str) -> str:
    """Return the name of a Unix user if it is valid; raise UserError if not."""
    if not _USER.fullmatch(user):
        raise UserError(f"{quote(user)} is no user's name; expected one as quadbench")
    return user


def _configuration(folder: Path, settings: PoolSettings) -> str:
    sockets = str(folder / "sockets")
    if not _HEAD.fullmatch(settings.head):
        raise UserError(f"{quote(settings.head)} is not the name of a host; expected one as lab-1 or 192.168.1.5")
    for text in (str(folder), sys.executable, str(settings.results)):
        if not text.isprintable() or _MEANT.search(text):
            problem = "expected printable characters, and no space, quote, backslash, comma or dollar sign"
            raise UserError(f"the path {quote(text)} cannot stand in HTCondor's configuration; {problem}")
    return filled(
        "condor_config.j2",
        folder=folder,
        settings=settings,
        sockets=sockets if len(sockets) <= _LONGEST_SOCKET_FOLDER else "auto",
        daemons=["MASTER", *(daemon for role in settings.roles for daemon in _DAEMONS.get(role, ()))],
        domain=DOMAIN,
        start=START,
        python=sys.executable,
        program=_PROGRAM,
    )


def filled(template: str, **values: object) -> str:
    """Return the text of a template of this package, filled with values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True).get_template(template).render(values)
