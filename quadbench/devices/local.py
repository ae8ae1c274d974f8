"""Local: this machine -> a device without adb; commands are child processes, files are copied into a folder."""

import contextlib
import errno
import os
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Self

from quadbench.artifacts import DeviceFacts
from quadbench.devices.device import Progress, ShellResult, check_command, command_failed, command_timed_out
from quadbench.errors import DeviceError, DeviceFullError
from quadbench.host import device_lock, host_cpu, kill_group, start_bound
from quadbench.results.layout import Layout
from quadbench.target.profile import LOCAL_NAME as ADDRESS
from quadbench.target.profile import DeviceProfile, local_profile

CHUNK_BYTES = 1024 * 1024


def open_local(layout: Layout) -> "LocalDevice":
    """Return this machine as a device with its root in the results folder.

    Raises:
        DeviceError: another command uses it.
    """
    root = layout.device(ADDRESS).resolve()
    resources = contextlib.ExitStack()
    resources.enter_context(device_lock(root, ADDRESS))
    return LocalDevice(root, resources)


class LocalDevice:
    """This machine as a device. Remote paths are paths of its file system."""

    family = "local"
    serial = ADDRESS
    shares_host_cpu = True

    def __init__(self, root: Path, resources: contextlib.ExitStack) -> None:
        self.root = str(root)
        self.profile = local_profile()
        self.facts = _facts(self.profile)
        self._resources = resources
        self._running: set[int] = set()  # process groups that have not ended
        self._lock = threading.Lock()

    def properties(self) -> dict[str, str]:
        return {}

    def push(self, local: Path, remote: str, progress: Progress | None = None) -> None:
        partial = Path(f"{remote}.part")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            _copy(local, partial, progress)
            partial.replace(remote)
        except OSError as error:
            raise _unwritable(remote, error) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def pull(self, remote: str, local: Path) -> None:
        partial = local.with_name(f".{local.name}.part")
        try:
            shutil.copyfile(remote, partial)
            partial.replace(local)
        except OSError as error:
            raise DeviceError(f"cannot read '{remote}' on device 'local': {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def shell(self, argv: Sequence[str], timeout_s: float) -> ShellResult:
        stdout = bytearray()
        with tempfile.TemporaryFile() as stderr, contextlib.closing(self._run(argv, timeout_s, stderr)) as output:
            while True:
                try:
                    stdout += next(output)
                except StopIteration as end:
                    return ShellResult(exit_code=end.value, stdout=_text(bytes(stdout)), stderr=_read(stderr))

    def stream(self, argv: Sequence[str], timeout_s: float) -> Generator[str, None, None]:
        rest = b""
        with tempfile.TemporaryFile() as stderr, contextlib.closing(self._run(argv, timeout_s, stderr)) as output:
            while True:
                try:
                    *lines, rest = (rest + next(output)).split(b"\n")
                except StopIteration as end:
                    status = end.value
                    break
                for line in lines:
                    yield _text(line)
            if rest:
                yield _text(rest)
            if status:
                raise command_failed(argv, "device 'local'", status, _read(stderr))

    def free_bytes(self, path: str) -> int:
        try:
            state = os.statvfs(path)
        except OSError as error:
            raise DeviceError(f"cannot read the free space of '{path}' on device 'local': {error.strerror}") from error
        return state.f_bavail * state.f_frsize

    def close(self) -> None:
        with self._resources, self._lock:
            for group in self._running:
                kill_group(group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, argv: Sequence[str], timeout_s: float, stderr: IO[bytes]) -> Generator[bytes, None, int]:
        """Yield pieces of stdout as they come, and return the exit code. However it is left, the command does not stay behind."""
        check_command(argv)
        deadline = time.monotonic() + timeout_s
        process = start_bound(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, cwd=self.root)
        ended = False
        with self._lock:
            self._running.add(process.pid)
        try:
            assert process.stdout is not None
            yield from _pieces(process.stdout, deadline)
            status = process.wait(max(0.0, deadline - time.monotonic()))
            ended = True
            return status if status >= 0 else 128 - status
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise command_timed_out(argv, "device 'local'", timeout_s) from error
        finally:
            if not ended:
                kill_group(process.pid)
                process.wait()
            if process.stdout:
                process.stdout.close()
            with self._lock:
                self._running.discard(process.pid)


def _facts(profile: DeviceProfile) -> DeviceFacts:
    return DeviceFacts(
        address=ADDRESS,
        family="local",
        serial=ADDRESS,
        profile=profile.name,
        title=profile.title,
        soc_model=profile.soc.model,
        cpu=host_cpu(),
        android_release=None,
        fingerprint=None,
    )


def _copy(source: Path, target: Path, progress: Progress | None) -> None:
    copied_bytes = 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            writer.write(chunk)
            copied_bytes += len(chunk)
            if progress:
                progress(copied_bytes)


def _unwritable(remote: str, error: OSError) -> DeviceError:
    kind = DeviceFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else DeviceError
    return kind(f"cannot write '{remote}' on device 'local': {error.strerror or error}")


def _pieces(pipe: IO[bytes], deadline: float) -> Generator[bytes, None, None]:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            if not (piece := os.read(pipe.fileno(), 65536)):
                return
            yield piece


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return _text(file.read())


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
