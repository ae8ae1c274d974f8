"""Leftovers: a mark in the environment of all that runs for a device -> no process of it outlives the command or quadbench.

A process group holds what a program starts, but not what leaves it by `setsid`; the environment goes along. When quadbench is
killed, a watcher that waits for its end, this file run as a program, kills what has the mark.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path

VARIABLE = "QUADBENCH_PROCESS"
_PATIENCE_S = 5.0
_POLL_S = 0.01


class Mark:
    """The mark of one device while this process has it. Marks of its commands begin with it, and it with the device's folder."""

    def __init__(self, folder: Path) -> None:
        self.device = f"{folder.resolve()}#"
        self.value = f"{self.device}{os.getpid()}-{uuid.uuid4().hex[:8]}#"
        self._numbers = count()

    def of_command(self) -> str:
        """Return a mark for one more command."""
        return f"{self.value}{next(self._numbers)}#"


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[Mark]:
    """Give the mark for what is started on the device with this folder, whose lock is held, and end all of it afterwards.

    What an earlier process left there, although a watcher should have ended it, is ended first.
    """
    mark = Mark(folder)
    kill_marked(mark.device)
    # -I -S: as little as possible is loaded, in a few hundredths of a second.
    command = [sys.executable, "-I", "-S", __file__, mark.value]
    watcher = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert watcher.stdin is not None
    try:
        yield mark
    finally:
        kill_marked(mark.value)
        watcher.stdin.close()
        watcher.wait()


def environment_of(mark: str) -> dict[str, str]:
    """Return this process's environment with a mark in it, for a child."""
    return {**os.environ, VARIABLE: mark}


def kill_marked(mark: str) -> None:
    """Kill every process whose mark begins with this one, and those that they start meanwhile."""
    deadline = time.monotonic() + _PATIENCE_S
    while (processes := carriers(mark)) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_S)


def carriers(mark: str) -> list[int]:
    """Return every process whose mark begins with this one."""
    wanted = f"\0{VARIABLE}={mark}".encode()
    return [
        int(entry)
        for entry in os.listdir("/proc")  # noqa: PTH208
        if entry.isdecimal() and wanted in b"\0" + _environment(entry)
    ]


def _environment(process: str) -> bytes:
    """Return the environment that a process was started with: nothing for one of another user, and for a dead one."""
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while True:
            with open(f"/proc/{process}/environ", "rb") as file:  # noqa: PTH123
                environment = file.read()
            if environment or _has_none(process) or time.monotonic() > deadline:
                return environment
            time.sleep(_POLL_S)
    except OSError:
        return b""


def _has_none(process: str) -> bool:
    """Say whether the process was started without an environment. While the kernel replaces its program, it seems so too."""
    os.readlink(f"/proc/{process}/exe")  # noqa: PTH115  # a thread of the kernel, which has no program, raises OSError
    with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123
        start, end = file.read().rpartition(b")")[2].split()[47:49]  # proc(5): fields 50 and 51, addresses in memory
    return start == end != b"0"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdin.buffer.read()  # ends with the process at the other end, however that ends
    kill_marked(sys.argv[1])
