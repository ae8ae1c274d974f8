"""Kill a device's processes when their command ends, or when quadbench ends. The processes are marked by an environment variable.

Process groups are not enough: a child can leave its group by `setsid`, but it inherits the environment. If quadbench itself is
killed, a watcher process (this file, run as a program) kills the marked processes.
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


class ProcessMark:
    """The value of an environment variable that marks a device's processes. A command's mark begins with the device's mark."""

    def __init__(self, folder: Path) -> None:
        self.device = f"{folder.resolve()}#"
        self.value = f"{self.device}{os.getpid()}-{uuid.uuid4().hex[:8]}#"
        self._numbers = count()

    def for_command(self) -> str:
        """Return a QUADBENCH_PROCESS value for a new command: the device's value and a number. Processes are killed by prefix."""
        return f"{self.value}{next(self._numbers)}#"


@contextlib.contextmanager
def device_mark(folder: Path) -> Iterator[ProcessMark]:
    """Yield a ProcessMark for the processes of a device. When the `with` block ends, kill all processes that carry the mark.

    The caller must hold the lock of the device's folder. Leftovers of an earlier process are killed first.
    """
    mark = ProcessMark(folder)
    kill_marked_processes(mark.device)
    # -I -S: load as little as possible, to start in a few hundredths of a second.
    command = [sys.executable, "-I", "-S", __file__, mark.value]
    watcher = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert watcher.stdin is not None
    try:
        yield mark
    finally:
        kill_marked_processes(mark.value)
        watcher.stdin.close()
        watcher.wait()


def mark_environment(mark: str) -> dict[str, str]:
    """Return the environment for a child process: this process's variables as a dict, with QUADBENCH_PROCESS set to `mark`."""
    return {**os.environ, VARIABLE: mark}


def kill_marked_processes(mark: str) -> None:
    """Kill all processes whose variable QUADBENCH_PROCESS starts with `mark`. Repeat until none is left, for at most 5 s."""
    deadline = time.monotonic() + _PATIENCE_S
    while (processes := find_marked(mark)) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_S)


def find_marked(mark: str) -> list[int]:
    """Return a list of the pids of all processes whose environment variable QUADBENCH_PROCESS starts with `mark`."""
    wanted = f"\0{VARIABLE}={mark}".encode()
    return [
        int(entry)
        for entry in os.listdir("/proc")  # noqa: PTH208
        if entry.isdecimal() and wanted in b"\0" + _environment(entry)
    ]


def _environment(process: str) -> bytes:
    """Return the bytes of /proc/PID/environ, a process's environment at its start. Return b"" if the file cannot be read."""
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
    """Return True if a process has no environment variables. Return False if it has some, or if `exec` is loading its program."""
    os.readlink(f"/proc/{process}/exe")  # noqa: PTH115  # a thread of the kernel, which has no program, raises OSError
    with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123
        start, end = file.read().rpartition(b")")[2].split()[47:49]  # proc(5): fields 50 and 51, addresses in memory
    return start == end != b"0"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdin.buffer.read()  # returns when the parent process ends, even by a crash
    kill_marked_processes(sys.argv[1])
