"""Schedule of a nightly run as a systemd service with a timer, or as a crontab line."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from quadbench.errors import UserError, quote
from quadbench.farm.pool_setup import user_name

ENVIRONMENT_FILE = Path("/etc/quadbench/night.env")  # a webhook address is a secret, so it is not in the command
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")

_SERVICE = """\
[Unit]
Description=quadbench night {name}
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart={command}
EnvironmentFile=-{environment_file}
WorkingDirectory={folder}
User={user}
# 2 regression, 3 inconclusive, 4 missing, 5 environment: rulings, not failures of the unit.
SuccessExitStatus=2 3 4 5 6
TimeoutStartSec=infinity
KillSignal=SIGTERM
TimeoutStopSec=600
NoNewPrivileges=yes
"""
_TIMER = """\
[Unit]
Description=quadbench night {name}, every day at {hour}:{minute}

[Timer]
OnCalendar=*-*-* {hour}:{minute}:00
Persistent=true

[Install]
WantedBy=timers.target
"""


def time_of_day(text: str) -> tuple[str, str]:
    """Parse a time of day such as `02:00`; return its hour and minute, each as two digits."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise UserError(f"{quote(text)} is not a time of day; expected one such as 02:00")
    return f"{int(match[1]):02d}", match[2]


def systemd_files(name: str, command: Sequence[str], folder: Path, user: str, at: str) -> dict[str, str]:
    """Return the texts of a systemd service and its timer, keyed by file name.

    The service reads environment variables from ENVIRONMENT_FILE if the file exists. A host that was off at that time runs the
    night once it is on. A restarted night is resumed.

    Raises:
        UserError: the time or user name is invalid, or a word or the folder contains a line end.
    """
    hour, minute = time_of_day(at)
    folder_text = one_line(str(folder)).replace("%", "%%")
    unit = f"quadbench-night-{name}"
    return {
        f"{unit}.service": _SERVICE.format(
            name=name, command=unit_command(command), folder=folder_text, user=user_name(user), environment_file=ENVIRONMENT_FILE
        ),
        f"{unit}.timer": _TIMER.format(name=name, hour=hour, minute=minute),
    }


def cron_line(command: Sequence[str], folder: Path, at: str) -> str:
    """Return the crontab line that runs a command daily.

    Raises:
        UserError: the time is invalid, or a word or the folder contains a line end.
    """
    hour, minute = time_of_day(at)
    words = shlex.join(map(one_line, command))
    line = f"cd {shlex.quote(one_line(str(folder)))} && {words}"
    return f"{int(minute)} {int(hour)} * * * " + line.replace("%", "\\%") + "\n"  # cron reads `%` as a line end


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
