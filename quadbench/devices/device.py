"""Device: the protocol of every family of devices, and the bounded output of their commands."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from quadbench.artifacts import DeviceFacts
from quadbench.artifacts.names import one_line
from quadbench.errors import CommandError, CommandTimeoutError, DeviceError, OutputLimitError, UserError
from quadbench.target.abi import Abi
from quadbench.target.profile import DeviceProfile

ANDROID_ROOT = "/data/local/tmp/quadbench"
STDERR_TAIL_CHARS = 4000
PULL_LIMIT_BYTES = 64 * 2**20

Progress = Callable[[int], None]  # called with the bytes of the file that have been sent so far

LINE_LIMIT_BYTES = 64 * 1024  # of one line of a stream: an event of the harness takes hundreds
TEXT_LIMIT_BYTES = 16 * 2**20  # of a command's whole output: the longest, a list of a device's objects, takes thousands
TAIL_BYTES = 64 * 1024  # that are kept of stderr


@dataclass(frozen=True, kw_only=True)
class ShellResult:
    """The end of a command and its output, of stderr the last part of it.

    `exit_code` is the command's own; 127 means that it does not exist there.
    """

    exit_code: int
    stdout: str
    stderr: str


class Device(Protocol):
    """A device that is connected. Its methods may be called from several threads; `close` ends what is still running on it.

    Where the connection is lost, a device behind adb is waited for, and what was cut off is done again: files are copied anew and
    commands of `shell` are run anew, so they must be such as may be run twice. It is lost where it does not come back in time.

    `root` is the absolute path of quadbench's folder there, `abi` that of the programs that it runs. `shares_host_cpu` says that
    its figures are this machine's.
    """

    facts: DeviceFacts
    profile: DeviceProfile
    serial: str
    family: str
    root: str
    abi: Abi
    shares_host_cpu: bool

    def properties(self) -> dict[str, str]:
        """Return the properties that Android's `getprop` lists; none on a device that has no `getprop`."""
        ...

    def push(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        """Copy files, each to a path there, making its folders; an existing one is replaced.

        `progress` is told the bytes of all of them that were sent. Of those before one that fails all are there.

        Raises:
            DeviceFullError: there is no space left.
            DeviceLostError: the device went away and did not come back in time.
            DeviceError: the file cannot be written there.
        """
        ...

    def pull(self, remote: str, local: Path, *, limit_bytes: int = PULL_LIMIT_BYTES) -> None:
        """Copy a regular file here, of at most `limit_bytes`; after a failure nothing is left of it.

        Raises:
            DeviceLostError: the device went away and did not come back in time, or it rebooted since the last `stream`.
            OutputLimitError: the file is larger.
            DeviceError: the file cannot be read there, or is no regular one.
        """
        ...

    def shell(self, argv: Sequence[str], timeout_s: float) -> ShellResult:
        """Run a command to its end.

        Raises:
            CommandTimeoutError: it took too long and was killed.
            OutputLimitError: it wrote more than is read, and was killed.
            DeviceLostError: the device went away and did not come back in time, or it rebooted since the last `stream`.
            UserError: the command is empty, or cannot stand on a command line.
        """
        ...

    def stream(
        self, argv: Sequence[str], timeout_s: float, folder: str, environment: Mapping[str, str] | None = None
    ) -> Generator[str, None, None]:
        """Run a command in a folder there and give its lines of stdout as they come, without line ends.

        The variables of `environment` are set for it beside the device's own. The folder is made where it is missing. Where the
        connection is lost, the command goes on, and no line is lost or doubled; what it says is kept in the folder meanwhile.

        Closing the generator, a timeout, Ctrl-C and `Device.close` kill the command and its children; use
        `contextlib.closing` where the loop may be left early.

        Raises:
            CommandError: it ended with an exit code other than 0.
            CommandTimeoutError: it took too long and was killed.
            OutputLimitError: it wrote a line that is longer than any that is read, and was killed.
            DeviceLostError: the device went away and did not come back in time, or it rebooted.
            UserError: the command is empty, or cannot stand on a command line.
        """
        ...

    def is_ready(self) -> bool:
        """Ask once, without waiting for it, whether a device that was lost is there again and has booted.

        Raises:
            DeviceLostError: it will never be back, or was closed.
        """
        ...

    def free_bytes(self, path: str) -> int:
        """Return the free space of the file system on which `path`, an existing folder, lies.

        Raises:
            DeviceError: there is no such folder.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def check_command(argv: Sequence[str]) -> None:
    """Refuse words that cannot be a command."""
    if not argv or not argv[0]:
        raise UserError("an empty command cannot be run", hint="expected a program and its arguments")
    if any("\0" in word for word in argv):
        raise UserError(f"'{argv[0]}': an argument contains a NUL byte, which no command line can carry")


def command_failed(argv: Sequence[str], device: str, status: int, stderr: str) -> CommandError:
    """Return the error for a command that ended with a status other than 0."""
    tail = stderr.strip()[-STDERR_TAIL_CHARS:]
    last_lines = one_line("\n".join(tail.splitlines()[-3:])) or "nothing on stderr"
    killed = f" (killed by signal {status - 128})" if 128 < status < 160 else ""
    return CommandError(
        f"'{argv[0]}' ended with exit code {status}{killed} on {device}: {last_lines}", status=status, stderr_tail=tail
    )


def no_regular_file(remote: str, device: str) -> DeviceError:
    """Return the error for a path at which there is a folder, a link, a pipe or the like."""
    return DeviceError(f"'{remote}' on {device} is no regular file")


def file_too_large(remote: str, device: str, limit_bytes: int) -> OutputLimitError:
    """Return the error for a file that is larger than what is copied."""
    return OutputLimitError(f"'{remote}' on {device} has more than the {limit_bytes} bytes that are copied of such a file")


def command_timed_out(argv: Sequence[str], device: str, timeout_s: float) -> CommandTimeoutError:
    """Return the error for a command that took longer than it was given."""
    return CommandTimeoutError(f"'{argv[0]}' was still running on {device} after {timeout_s:g} s and was killed")


def read_whole(output: Generator[bytes, None, int], program: str, device: str, stderr: "Tail") -> ShellResult:
    """Read a command's stdout to its end. `output` yields it and returns the exit code; it is closed in any case."""
    stdout = Whole(f"the output of '{program}' on {device}")
    with contextlib.closing(output):
        while True:
            try:
                stdout.take(next(output))
            except StopIteration as end:
                return ShellResult(exit_code=end.value, stdout=stdout.text, stderr=stderr.text)


def read_lines(
    output: Generator[bytes, None, int], argv: Sequence[str], device: str, stderr: "Tail"
) -> Generator[str, None, None]:
    """Yield a command's stdout line by line, from `output` as in `read_whole`; CommandError where it fails."""
    lines = Lines(f"the output of '{argv[0]}' on {device}")
    with contextlib.closing(output):
        while True:
            try:
                piece = next(output)
            except StopIteration as end:
                status = end.value
                break
            yield from lines.take(piece)
    if rest := lines.rest():
        yield rest
    if status:
        raise command_failed(argv, device, status, stderr.text)


class Lines:
    """The lines of a stream, put together from pieces without looking at a byte twice. `source` names it in messages."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._number = 1  # of the line that is being put together
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def take(self, piece: bytes) -> Iterator[str]:
        """Yield the lines that end in this piece, without their ends; refuse one that is too long."""
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

    def rest(self) -> str:
        """Return what has come of a line that has not ended."""
        return as_text(b"".join(self._pieces))

    def _check(self, size_bytes: int) -> None:
        if size_bytes > LINE_LIMIT_BYTES:
            line = f"line {self._number} of {self._source}"
            raise OutputLimitError(f"{line} has more than {LINE_LIMIT_BYTES} bytes, the most that is read")


class Whole:
    """The whole output of a command. `source` names it in messages."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._content = bytearray()

    def take(self, piece: bytes) -> None:
        """Add a piece; refuse one with which the output is too long."""
        self._content += piece
        if len(self._content) > TEXT_LIMIT_BYTES:
            raise OutputLimitError(f"{self._source} has more than {TEXT_LIMIT_BYTES} bytes, the most that is read")

    @property
    def text(self) -> str:
        """Return what has come so far."""
        return as_text(self._content)


class Tail:
    """The end of an output; what came before it is not kept."""

    def __init__(self) -> None:
        self._content = bytearray()

    def take(self, piece: bytes) -> None:
        """Add a piece."""
        self._content += piece[-TAIL_BYTES:]
        del self._content[:-TAIL_BYTES]

    @property
    def text(self) -> str:
        """Return the end of what has come so far."""
        return as_text(self._content)


def as_text(data: bytes | bytearray) -> str:
    """Return what a program wrote as text; bytes that are no UTF-8 become question marks."""
    return data.decode(errors="replace")
