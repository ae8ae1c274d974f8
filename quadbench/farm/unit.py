"""Unit: where quadbench lies on a host -> the systemd unit that keeps a worker there. Pure."""

import re
from collections.abc import Sequence
from pathlib import Path

from quadbench.errors import UserError, shown

ENVIRONMENT_FILE = Path("/etc/quadbench/worker.env")
DRAIN_S = 3600  # more than most jobs take; who is cut off loses one attempt
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")

_UNIT = """\
[Unit]
Description=quadbench worker
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={program} farm worker --results /var/lib/quadbench/results
EnvironmentFile={environment_file}
Environment=HOME=/var/lib/quadbench
WorkingDirectory=/var/lib/quadbench
StateDirectory=quadbench
StateDirectoryMode=0700
User={user}
SupplementaryGroups=plugdev
UMask=0077
Restart=always
RestartSec=10
RestartPreventExitStatus=2 7
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec={drain_s}
LimitNOFILE=65536
OOMPolicy=continue

NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=
AmbientCapabilities=

[Install]
WantedBy=multi-user.target
"""


def systemd_unit(program: Path, user: str, drain_s: int = DRAIN_S) -> str:
    """Return the text of the unit, for a user of its own whose files are below /var/lib/quadbench.

    SIGTERM reaches the worker alone, which takes no other job then and ends when its jobs have. What still runs after `drain_s`
    is killed, and tried again. A worker that was called wrongly, or lacks a package, is not started again.

    Raises:
        UserError: no user has such a name, or the program's path is not printable.
    """
    command = unit_command([str(program)])
    return _UNIT.format(program=command, user=user_name(user), drain_s=drain_s, environment_file=ENVIRONMENT_FILE)


def user_name(user: str) -> str:
    """Return the name of a user; raises UserError where no user has such a name."""
    if not _USER.fullmatch(user):
        raise UserError(f"{shown(user)} is no user's name; expected one as quadbench")
    return user


def unit_command(words: Sequence[str]) -> str:
    """Return a command as systemd takes it: words quoted, `%` no sign of a specifier, nor `$` of a variable behind the program.

    Raises:
        UserError: as `one_line`.
    """
    program, *arguments = (one_line(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for word in words)
    return " ".join(f'"{word}"' for word in (program, *(word.replace("$", "$$") for word in arguments)))


def one_line(text: str) -> str:
    """Return a text that stays on its line; raises UserError where it has a line end, or anything else that is not printable."""
    if not text.isprintable():
        raise UserError(f"{shown(text)} cannot stand in a unit or a crontab; expected printable characters")
    return text
