"""This machine as a device without adb. Commands are child processes, and pushed files are copied into a local folder."""

import contextlib
import errno
import os
import platform
import selectors
import stat
import subprocess
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from quadbench.artifacts import DeviceFacts
from quadbench.devices import device
from quadbench.devices.process_marks import ProcessMark, device_mark, kill_marked_processes, mark_environment
from quadbench.errors import DeviceError, DeviceFullError
from quadbench.host import device_lock, host_cpu, kill_group, require_linux, start_child
from quadbench.results.layout import Layout
from quadbench.target.abi import host_abi
from quadbench.target.profile import LOCAL_NAME, local_profile

CHUNK_BYTES = 1024 * 1024
_NAME = "device 'local'"
_POLL_S = 0.02


def open_local(layout: Layout) -> "LocalDevice":
    """Return this machine as an open LocalDevice. The device's files lie in a subfolder of the results folder."""
    require_linux("runs on the device 'local'")
    root = layout.device(LOCAL_NAME).resolve()
    resources = contextlib.ExitStack()
    resources.enter_context(device_lock(root, LOCAL_NAME))
    mark = resources.enter_context(device_mark(root))
    return LocalDevice(root, mark, resources)


class LocalDevice:
    """This machine as a device. A path on this device is the same path on this machine."""

    family = "local"
    serial = LOCAL_NAME
    shares_host_cpu = True

    def __init__(self, root: Path, mark: ProcessMark, resources: contextlib.ExitStack) -> None:
        self.root = str(root)
        self._mark = mark
        self.abi = host_abi(platform.machine())
        self.profile = local_profile()
        self.facts = DeviceFacts(
            address=LOCAL_NAME,
            family="local",
            serial=LOCAL_NAME,
            profile=self.profile.name,
            title=self.profile.title,
            soc_model=self.profile.soc.model,
            cpu=host_cpu(),
            android_release=None,
            fingerprint=None,
        )
        self._resources = resources
        self._running: set[int] = set()  # running process groups
        self._lock = threading.Lock()

    def properties(self) -> dict[str, str]:
        return {}

    def push(self, files: Mapping[str, Path], progress: device.Progress | None = None) -> None:
        copied_bytes = 0
        for remote, local in files.items():
            for chunk_bytes in self._copy(local, remote):
                copied_bytes += chunk_bytes
                if progress:
                    progress(copied_bytes)

    def _copy(self, local: Path, remote: str) -> Iterator[int]:
        partial = Path(f"{remote}.part")
        with local.open("rb") as reader:
            try:
                partial.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as writer:
                    while chunk := reader.read(CHUNK_BYTES):
                        writer.write(chunk)
                        yield len(chunk)
                partial.replace(remote)
            except OSError as error:
                kind = DeviceFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else DeviceError
                raise kind(f"cannot write '{remote}' on {_NAME}: {error.strerror or error}") from error
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)

    def pull(self, remote: str, local: Path, *, limit_bytes: int = device.PULL_LIMIT_BYTES) -> None:
        partial = local.with_name(f".{local.name}.part")
        try:
            _copy_regular(remote, partial, limit_bytes)
            partial.replace(local)
        except OSError as error:
            raise DeviceError(f"cannot read '{remote}' on {_NAME}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def shell(self, argv: Sequence[str], timeout_s: float) -> device.ShellResult:
        device.check_command(argv)
        stderr = device.OutputTail()
        return device.read_whole(self._run(argv, timeout_s, stderr, self.root, {}), argv[0], _NAME, stderr)

    def stream(
        self, argv: Sequence[str], timeout_s: float, folder: str, environment: Mapping[str, str] | None = None
    ) -> Generator[str, None, None]:
        device.check_command(argv)
        Path(folder).mkdir(parents=True, exist_ok=True)
        stderr = device.OutputTail()
        yield from device.read_lines(self._run(argv, timeout_s, stderr, folder, environment or {}), argv, _NAME, stderr)

    def is_ready(self) -> bool:
        return True

    def free_bytes(self, path: str) -> int:
        try:
            state = os.statvfs(path)
        except OSError as error:
            raise DeviceError(f"cannot read the free space of '{path}' on {_NAME}: {error.strerror}") from error
        return state.f_bavail * state.f_frsize

    def close(self) -> None:
        with self._resources, self._lock:
            for group in self._running:
                kill_group(group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(
        self, argv: Sequence[str], timeout_s: float, stderr: device.OutputTail, folder: str, environment: Mapping[str, str]
    ) -> Generator[bytes, None, int]:
        """Run a command and yield its stdout as byte strings. The generator returns the exit code, or 128 + N after signal N.

        The command and everything it started are killed however the generator ends.
        """
        deadline, mark = time.monotonic() + timeout_s, self._mark.for_command()
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = start_child(argv, cwd=folder, env={**mark_environment(mark), **environment}, **options)
        ended = False
        with self._lock:
            self._running.add(process.pid)
        try:
            yield from _pieces(process, deadline, stderr)
            ended = True
            status = process.returncode
            return status if status >= 0 else 128 - status
        except TimeoutError as error:
            raise device.command_timeout_error(argv, _NAME, timeout_s) from error
        finally:
            if not ended:
                kill_group(process.pid)
                process.wait()
            kill_marked_processes(mark)
            for pipe in filter(None, (process.stdout, process.stderr)):
                pipe.close()
            with self._lock:
                self._running.discard(process.pid)


def _copy_regular(remote: str, target: Path, limit_bytes: int) -> None:
    """Copy a regular file. Refuse links, device files and pipes, because reading them may never end."""
    try:
        descriptor = os.open(remote, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise device.not_a_file_error(remote, _NAME) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise device.not_a_file_error(remote, _NAME)
    with open(descriptor, "rb") as reader, target.open("wb") as writer:  # noqa: PTH123
        copied_bytes = 0
        while chunk := reader.read(CHUNK_BYTES):
            copied_bytes += len(chunk)
            if copied_bytes > limit_bytes:
                raise device.file_size_error(remote, _NAME, limit_bytes)
            writer.write(chunk)


def _pieces(process: "subprocess.Popen[bytes]", deadline: float, stderr: device.OutputTail) -> Generator[bytes, None, None]:
    """Yield a process's stdout as byte strings until stdout closes and the process ends. Feed stderr to the OutputTail `stderr`.

    A child that outlives the process may hold stderr open, so do not wait for the end of stderr.
    """
    with selectors.DefaultSelector() as selector:
        for pipe in filter(None, (process.stdout, process.stderr)):
            selector.register(pipe, selectors.EVENT_READ)
        is_open = True
        while is_open or process.poll() is None:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError
            if not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(remaining_s)
                continue
            for key, _ in selector.select(remaining_s if is_open else min(_POLL_S, remaining_s)):
                piece = os.read(key.fd, 65536)
                if not piece:
                    is_open = is_open and key.fileobj is not process.stdout
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    yield piece
                else:
                    stderr.feed(piece)
        for key, _ in selector.select(0):
            stderr.feed(os.read(key.fd, 65536))
