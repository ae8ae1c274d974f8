"""The interface of all kinds of devices, and size limits for the output of device commands."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from quadbench.artifacts import DeviceFacts
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import CommandError, CommandTimeoutError, DeviceError, OutputLimitError, UserError
from quadbench.target.abi import Abi
from quadbench.target.profile import DeviceProfile

ANDROID_ROOT = "/data/local/tmp/quadbench"
STDERR_TAIL_CHARS = 4000
PULL_LIMIT_BYTES = 64 * 2**20

Progress = Callable[[int], None]  # called with the total bytes sent so far

LINE_LIMIT_BYTES = 64 * 1024  # limit for one line of a stream; an event of the harness takes hundreds
TEXT_LIMIT_BYTES = 16 * 2**20  # limit for a command's whole output; the longest, a list of all objects, takes thousands
TAIL_BYTES = 64 * 1024  # limit for stderr; its end is kept


@dataclass(frozen=True, kw_only=True)
class ShellResult:
    """A finished command's exit code, stdout, and the end of its stderr.

    Exit code 127 means that the command does not exist on the device.
    """

    exit_code: int
    stdout: str
    stderr: str


class Device(Protocol):
    """A connected device. Its methods may be called from several threads; `close` kills all commands still running on it.

    If the connection to an adb device breaks, a method waits for the device and repeats its work: it copies files again and runs
    `shell` commands again, so these must be idempotent. If the device does not come back in time, DeviceLostError is raised.

    `root` is the absolute path of quadbench's folder on the device; `abi` is the ABI of the programs that run there.
    `shares_host_cpu` means that figures measured on the device are those of this machine's CPU.
    """

    facts: DeviceFacts
    profile: DeviceProfile
    serial: str
    family: str
    root: str
    abi: Abi
    shares_host_cpu: bool

    def properties(self) -> dict[str, str]:
        """Return the properties that `getprop` lists, as a dict from key to value. Return an empty dict without `getprop`."""
        ...

    def push(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        """Copy files to the device. `files` maps device paths to local paths. Create missing folders and replace existing files.

        `progress` is called with the total bytes sent so far. Files before a failed one are complete on the device.

        Raises:
            DeviceFullError: there is no space left.
            DeviceLostError: the device was lost and did not come back in time.
            DeviceError: a file cannot be written there.
        """
        ...

    def pull(self, remote: str, local: Path, *, limit_bytes: int = PULL_LIMIT_BYTES) -> None:
        """Copy a regular file of at most `limit_bytes` from the device. A failure leaves no partial local file behind.

        Raises:
            DeviceLostError: the device was lost and did not come back in time, or it rebooted since the last `stream`.
            OutputLimitError: the file is larger.
            DeviceError: the file cannot be read, or is not a regular file.
        """
        ...

    def shell(self, argv: Sequence[str], timeout_s: float) -> ShellResult:
        """Run a command on the device, wait until it ends, and return its exit code and output.

        Raises:
            CommandTimeoutError: it took too long and was killed.
            OutputLimitError: its output exceeded the limit, and it was killed.
            DeviceLostError: the device was lost and did not come back in time, or it rebooted since the last `stream`.
            UserError: the command is empty, or contains a NUL byte.
        """
        ...

    def stream(
        self, argv: Sequence[str], timeout_s: float, folder: str, environment: Mapping[str, str] | None = None
    ) -> Generator[str, None, None]:
        """Run a command in a folder on the device and yield its stdout lines, without line ends, as they arrive.

        `environment` is added to the device's environment variables. The folder is created if missing. If the connection breaks,
        the command continues; its output is kept in the folder, so no line is lost or repeated.

        Closing the generator, a timeout, Ctrl-C and `Device.close` kill the command and its children. Use `contextlib.closing` if
        the loop may end early.

        Raises:
            CommandError: it ended with an exit code other than 0.
            CommandTimeoutError: it took too long and was killed.
            OutputLimitError: it wrote a line beyond the length limit, and was killed.
            DeviceLostError: the device was lost and did not come back in time, or it rebooted.
            UserError: the command is empty, or contains a NUL byte.
        """
        ...

    def is_ready(self) -> bool:
        """Return True if a lost device answers again and has booted, else False. Check once, without waiting.

        Raises:
            DeviceLostError: it will never come back, or was closed.
        """
        ...

    def free_bytes(self, path: str) -> int:
        """Return the number of free bytes on the device's file system that contains the existing folder `path`.

        Raises:
            DeviceError: there is no such folder.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def check_command(argv: Sequence[str]) -> None:
    """Raise UserError if the command is empty or contains a NUL byte."""
    if not argv or not argv[0]:
        raise UserError("an empty command cannot be run", hint="expected a program and its arguments")
    if any("\0" in word for word in argv):
        raise UserError(f"'{argv[0]}': an argument contains a NUL byte, which no command line can carry")


def command_error(argv: Sequence[str], device: str, status: int, stderr: str) -> CommandError:
    """Return a CommandError that says: the command ended with the nonzero exit code `status`. It quotes the end of `stderr`."""
    tail = stderr.strip()[-STDERR_TAIL_CHARS:]
    last_lines = one_line("\n".join(tail.splitlines()[-3:])) or "nothing on stderr"
    killed = f" (killed by signal {status - 128})" if 128 < status < 160 else ""
    return CommandError(
        f"'{argv[0]}' ended with exit code {status}{killed} on {device}: {last_lines}", status=status, stderr_tail=tail
    )


def not_a_file_error(remote: str, device: str) -> DeviceError:
    """Return a DeviceError that says: the path `remote` on the device is not a regular file. It may be a folder, link or pipe."""
    return DeviceError(f"'{remote}' on {device} is not a regular file")


def file_size_error(remote: str, device: str, limit_bytes: int) -> OutputLimitError:
    """Return an OutputLimitError that says: the file `remote` on the device is larger than `limit_bytes` and is not copied."""
    return OutputLimitError(f"'{remote}' on {device} has more than {limit_bytes} bytes, the most that is copied")


def command_timeout_error(argv: Sequence[str], device: str, timeout_s: float) -> CommandTimeoutError:
    """Return a CommandTimeoutError that says: the command was still running after `timeout_s` seconds and was killed."""
    return CommandTimeoutError(f"'{argv[0]}' was still running on {device} after {timeout_s:g} s and was killed")


def read_whole(output: Generator[bytes, None, int], program: str, device: str, stderr: "OutputTail") -> ShellResult:
    """Return a command's ShellResult. `output` is a generator that yields stdout as bytes and returns the exit code."""
    stdout = WholeOutput(f"the output of '{program}' on {device}")
    with contextlib.closing(output):
        while True:
            try:
                stdout.feed(next(output))
            except StopIteration as end:
                return ShellResult(exit_code=end.value, stdout=stdout.text, stderr=stderr.text)


def read_lines(
    output: Generator[bytes, None, int], argv: Sequence[str], device: str, stderr: "OutputTail"
) -> Generator[str, None, None]:
    """Yield a command's stdout lines. `output` yields bytes and returns the exit code. A nonzero code raises CommandError."""
    lines = LineBuffer(f"the output of '{argv[0]}' on {device}")
    with contextlib.closing(output):
        while True:
            try:
                piece = next(output)
            except StopIteration as end:
                status = end.value
                break
            yield from lines.feed(piece)
    if rest := lines.partial_line():
        yield rest
    if status:
        raise command_error(argv, device, status, stderr.text)


class LineBuffer:
    """Splits a byte stream that arrives in pieces into lines. `source` is the stream's name in error messages."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._number = 1  # number of the current line
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def feed(self, piece: bytes) -> Iterator[str]:
        """Add a piece of the stream. Yield the lines that it completes, without line ends; raise if a line is too long."""
        *ended, rest = piece.split(b"\n")
        if ended:
            ended[0] = b"".join((*self._pieces, ended[0]))
            self._pieces, self._size_bytes = [], 0
        for line in ended:
            self._check(len(line))
            yield as_text(line)
            self._number += 1
        self._size_bytes += len(rest)
        self._check(self._size_bytes)
        if rest:
            self._pieces.append(rest)

    def partial_line(self) -> str:
        """Return the text after the last line end, empty if the stream ended with a line end."""
        return as_text(b"".join(self._pieces))

    def _check(self, size_bytes: int) -> None:
        if size_bytes > LINE_LIMIT_BYTES:
            line = f"line {self._number} of {self._source}"
            raise OutputLimitError(f"{line} has more than {LINE_LIMIT_BYTES} bytes, the most that is read")


class WholeOutput:
    """Collects a command's whole output. Above TEXT_LIMIT_BYTES, OutputLimitError is raised and names the output `source`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._content = bytearray()

    def feed(self, piece: bytes) -> None:
        """Append a piece of output. Raise OutputLimitError if the output is now longer than TEXT_LIMIT_BYTES bytes."""
        self._content += piece
        if len(self._content) > TEXT_LIMIT_BYTES:
            raise OutputLimitError(f"{self._source} has more than {TEXT_LIMIT_BYTES} bytes, the most that is read")

    @property
    def text(self) -> str:
        """Return the output collected so far as text."""
        return as_text(self._content)


class OutputTail:
    """The last TAIL_BYTES bytes of a command's output. Earlier bytes are dropped."""

    def __init__(self) -> None:
        self._content = bytearray()

    def feed(self, piece: bytes) -> None:
        """Append a piece of output. Drop the oldest bytes if there are more than TAIL_BYTES."""
        self._content += piece[-TAIL_BYTES:]
        del self._content[:-TAIL_BYTES]

    @property
    def text(self) -> str:
        """Return the last TAIL_BYTES bytes of the command's output as text."""
        return as_text(self._content)


def as_text(data: bytes | bytearray) -> str:
    """Decode a program's output as UTF-8; invalid bytes become replacement characters."""
    return data.decode(errors="replace")
