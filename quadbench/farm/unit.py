"""Generate the text of the systemd unit that runs a worker on a host."""

import re
from collections.abc import Sequence
from pathlib import Path

from quadbench.errors import UserError, quote

ENVIRONMENT_FILE = Path("/etc/quadbench/worker.env")
DRAIN_S = 3600  # more than most jobs take; a killed job loses one attempt
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
    """Return the text of a systemd unit that runs a farm worker with `program`, the path of the quadbench program. The worker
    runs as the Unix user `user` and keeps its files in /var/lib/quadbench. SIGTERM goes to the worker only: it takes no new jobs
    and exits when its jobs have ended. After `drain_s` seconds, systemd kills the remaining jobs, and they are retried elsewhere.
    After a usage error or a missing package, the worker is not restarted.

    Raises:
        UserError: the user name is invalid, or the program's path is not printable.
    """
    command = unit_command([str(program)])
    return _UNIT.format(program=command, user=user_name(user), drain_s=drain_s, environment_file=ENVIRONMENT_FILE)


def user_name(user: str) -> str:
    """Return the name of a Unix user if it is valid; raise UserError if not."""
    if not _USER.fullmatch(user):
        raise UserError(f"{quote(user)} is no user's name; expected one as quadbench")
    return user


def unit_command(words: Sequence[str]) -> str:
    """Return a systemd command line: a program and its arguments, each quoted. `%` is escaped everywhere, `$` only in arguments.

    Raises:
        UserError: as `one_line`.
    """
    program, *arguments = (one_line(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for word in words)
    return " ".join(f'"{word}"' for word in (program, *(word.replace("$", "$$") for word in arguments)))


def one_line(text: str) -> str:
    """Return the text unchanged if it is printable and on one line; raise UserError if not."""
    if not text.isprintable():
        raise UserError(f"{quote(text)} cannot stand in a unit or a crontab; expected printable characters")
    return text
