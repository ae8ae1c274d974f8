"""Utilities for this machine: its CPU, programs and files, file locks, memory, and child processes that end with quadbench.

macOS is a desk for attached phones and AI Hub. What needs Linux calls `require_linux`.
"""

import contextlib
import ctypes
import fcntl
import getpass
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from quadbench.errors import DeviceError, DeviceInUseError, MissingDependencyError, UserError, quote

IS_LINUX = sys.platform == "linux"
OWNER_VARIABLE = "QUADBENCH_OWNER"  # set in attempts at farm jobs
_MOST_OWNER = 300  # characters, as of a job's texts
_SET_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG
_APT_GET = Path("/usr/bin/apt-get")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_COMMAND_TIMEOUT_S = 10.0
_MOST_OF_HOLDER = 300  # characters that are read of a lock file
_SYSTEM_FOLDERS = "/usr/sbin:/sbin"  # not on every user's PATH
_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(name: str) -> Path:
    """Return the folder `name`: in the package if quadbench was installed from a wheel, else beside it, in a checkout."""
    installed = _PACKAGE / "shipped" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def checkout_commit() -> str | None:
    """Return the git commit of the checkout that quadbench runs from, with `-dirty` for changed files. Return None outside one.

    An installed quadbench may lie in somebody else's checkout, whose commit says nothing about it.
    """
    if not (_PACKAGE.parent / ".git").exists():
        return None
    command = ["git", "-C", str(_PACKAGE.parent), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return (result.returncode == 0 and result.stdout.strip()) or None


def require_linux(what: str) -> None:
    """Raise MissingDependencyError on macOS. `what` is what needs Linux, in the plural, such as `virtual devices`."""
    if not IS_LINUX:
        hint = "attached phones, AI Hub, builds and reports work on this machine"
        raise MissingDependencyError(f"{what} need Linux; this machine runs {os.uname().sysname}", hint=hint)


def usable_cores() -> set[int]:
    """Return the numbers of the CPU cores that this process may use; on macOS, which has no such limit, of all."""
    return os.sched_getaffinity(0) if IS_LINUX else set(range(os.cpu_count() or 1))


def host_cpu() -> str:
    """Return the CPU model and the number of usable cores, as `Intel(R) Xeon(R) Processor, 2 cores`."""
    cores = len(usable_cores())
    return f"{cpu_model()}, {cores} core{'s' if cores != 1 else ''}"


def cpu_model() -> str:
    """Return the CPU model name that the system tells, or the architecture, such as `aarch64`, if it tells none."""
    if not IS_LINUX:
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or os.uname().machine
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    return model[1].strip() if model else os.uname().machine


def user_and_host() -> str:
    """Return the current user and host, as `ana@lab-1`. In an attempt at a farm job, return the job's owner.

    Raises:
        UserError: $QUADBENCH_OWNER, which attempts have, cannot be an owner.
    """
    if owner := os.environ.get(OWNER_VARIABLE):
        if len(owner) > _MOST_OWNER or not owner.isprintable():
            problem = f"expected at most {_MOST_OWNER} printable characters"
            raise UserError(f"${OWNER_VARIABLE} is {quote(owner)}; {problem}", hint="unset it")
        return owner
    return f"{current_user()}@{host_name()}"


def current_user() -> str:
    """Return the current user's name, or their number if they have no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def host_name() -> str:
    """Return this machine's host name. A farm identifies its hosts by this name."""
    return os.uname().nodename


def process_identity() -> str:
    """Return a string that identifies this process across hosts and reboots: boot id, PID namespace, PID and start time.

    On macOS, where only the boot is told apart from others, `none` stands for the namespace.
    """
    return " ".join((*_pid_namespace(), str(os.getpid()), _start_of(os.getpid())))


def has_ended(mark: str) -> bool:
    """Return True if the process with identity `mark` has ended. Return False if it is from another host, boot or container."""
    match mark.split(" "):
        case [boot, namespace, pid, start] if (boot, namespace) == _pid_namespace() and pid.isdecimal():
            return _start_of(int(pid)) != start
    return False


def _pid_namespace() -> tuple[str, str]:
    """Return a pair of this machine's boot id and this process's PID namespace. PIDs are comparable only between equal pairs."""
    if not IS_LINUX:
        return _output("sysctl", "-n", "kern.bootsessionuuid") or host_name(), "none"
    return _BOOT_ID.read_text().strip(), str(Path("/proc/self/ns/pid").readlink())


def _start_of(pid: int) -> str:
    """Return a process's start time, in kernel ticks since boot on Linux, or an empty string if the process has ended."""
    if not IS_LINUX:
        return _output("ps", "-o", "lstart=", "-p", str(pid)).replace(" ", "-")
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name before may hold any character
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # proc(5): fields 3, the state, and 22, starttime


def _output(*command: str) -> str:
    """Return what a program of the system prints, without the space around it; an empty string if it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def find_programs(packages: dict[str, str], *, needed_for: str) -> dict[str, Path]:
    """Return a dict from program name to path, with symlinks resolved. `packages` maps program names to Debian packages.

    Raises:
        MissingDependencyError: programs are not installed. The message names them, and the hint their packages.
    """
    places = {program: find_program(program) for program in packages}
    missing = sorted(program for program, place in places.items() if place is None)
    if missing:
        raise MissingDependencyError(
            f"{needed_for} needs {', '.join(missing)}, not found on PATH",
            hint=install_hint(sorted({packages[program] for program in missing})),
        )
    return {program: place.resolve() for program, place in places.items() if place is not None}


def install_hint(packages: Iterable[str]) -> str:
    """Return the hint how to install Debian packages. Without apt-get, name what they are called there."""
    names = " ".join(packages)
    return f"apt-get install {names}" if _APT_GET.exists() else f"install what Debian calls {names}"


def find_program(name: str) -> Path | None:
    """Return a program's path, or None. Search PATH, then /usr/sbin and /sbin, where programs such as adbd are."""
    place = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_FOLDERS}")
    return Path(place) if place else None


@contextlib.contextmanager
def device_lock(folder: Path, address: str) -> Iterator[None]:
    """Lock a device for a `with` block; raise DeviceInUseError if another process holds the lock. A crash releases the lock.

    The folder becomes private to this user, because adbd creates files that everyone may write.

    Raises:
        DeviceInUseError: another process holds the lock.
        DeviceError: the folder belongs to another user.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        folder.chmod(0o700)
    except PermissionError as error:
        raise DeviceError(f"'{folder}' belongs to another user", hint="use another folder with --results") from error
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = quote(file.read(_MOST_OF_HOLDER).strip() or "unknown")[1:-1]
            hint = "wait until it has ended, or run with --wait"
            raise DeviceInUseError(f"device '{address}' is in use by process {owner}", hint=hint) from error
        program = Path(sys.argv[0]).name
        words = itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:3])  # up to an option: values may be secret
        command = " ".join(("quadbench" if program == "__main__.py" else program, *words))
        file.truncate(0)
        file.write(f"{os.getpid()}, {command}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        file.flush()
        yield


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock an existing folder for a `with` block, after waiting for other holders. If the process crashes, the lock is released.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Return True if any process, also on another host, holds the folder's lock. A missing folder counts as not locked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def file_lock(path: Path, holder: str, waiting: Callable[[str], object]) -> Iterator[None]:
    """Lock a file for a `with` block, and write `holder` into it. If the file is locked, call `waiting` with its text, then wait.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("a+", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            waiting(file.read(_MOST_OF_HOLDER).strip() or "another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield


def python_module(name: str, *words: str) -> list[str]:
    """Return the command, as a list, to run a Python module with this interpreter. `-P` hides modules in the working directory.

    Without `-P`, a file or folder there such as `onnx.py` or `litert/` would be imported in place of the package.
    """
    return [sys.executable, "-P", "-m", name, *words]


def start_child(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a child process and return its Popen. The child ignores the terminal's Ctrl-C, and is killed when its parent ends.

    The kernel sends its death signal when the thread that started the child ends. So one thread, which lives as long as the
    process, starts all children. macOS has no such signal: there, a child outlives a parent that was killed.

    Raises:
        MissingDependencyError: setpriv is not installed.
    """
    command = list(argv)
    if IS_LINUX:
        setpriv = find_programs({"setpriv": "util-linux"}, needed_for="starting a child process")["setpriv"]
        command = [str(setpriv), "--pdeathsig", "KILL", "--", *argv]
    return _starter().submit(lambda: subprocess.Popen[bytes](command, start_new_session=True, **options)).result()


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent process ends.

    Raises:
        OSError: the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def kill_group(group: int) -> None:
    """Kill all processes of a process group with SIGKILL. Do nothing if the group no longer exists."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def signal_name(number: int) -> str:
    """Return a signal's name, or `unknown` for real-time signals and invalid numbers."""
    return signal.Signals(number).name if number in set(signal.Signals) else "unknown"


@cache
def _starter() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="quadbench-starter")


@contextlib.contextmanager
def background(run: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Call `run` in a thread while a `with` block runs. Its argument is an event that is set when the block ends."""
    ended = threading.Event()
    thread = threading.Thread(target=run, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def peak_memory_bytes() -> int:
    """Return this process's peak resident memory in bytes so far (VmHWM on Linux).

    On Linux, `getrusage` would include the parent's peak, which survives exec.
    """
    if not IS_LINUX:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024  # the kernel counts in KiB


def release_memory() -> None:
    """Return freed memory to the system (malloc_trim). glibc keeps gigabytes after a large graph is freed."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
