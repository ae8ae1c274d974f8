"""adb detached: a command that outlives a lost connection -> what it says on a device, each byte once, and its exit code.

It runs in a session of its own and writes into files, which are read as they grow. Where the connection is lost, they are read
on from the same byte once the device answers again.
"""

import contextlib
import logging
import math
import re
import time
from collections.abc import Generator, Mapping, Sequence

from quadbench.artifacts.device_text import one_line
from quadbench.devices.adb_commands import START_TIMEOUT_S, AdbCommands
from quadbench.devices.output import TAIL_BYTES, Tail
from quadbench.errors import DeviceError, DeviceLostError

RECONNECT_S = 120.0  # in which a device is back: a phone that restarts takes about one minute
SILENCE_S = 30.0  # without a sign of life, of which there is one each POLL_S
POLL_S = 0.5  # a line that the harness writes need not be here sooner; reading each at once would wake a core for it
FILE_LIMIT_BYTES = 2**30  # of a file that the command writes: a harness gone wild must not fill a phone
_RETRY_S = 1.0
_SPARE_S = 60.0  # in which this machine ends a command that takes too long, before the device does it alone
_END_TIMEOUT_S = 30.0
_BOOT = "/proc/sys/kernel/random/boot_id"
_ULIMIT_BLOCK_BYTES = 512
_SHOWN_LINES = 3
_GONE_HINT = (
    "Android ends all that was started over adb when it restarts adbd, as some phones do when their USB mode changes; it may have"
    " run out of memory or storage, too"
)

# $1 is the folder, $2 the longest that it may take, $3 the blocks of a file; what follows is the command.
_START = f"""\
mkdir -p "$1" && cd "$1" && rm -f exit_code || exit 125
limit_s=$2 blocks=$3
shift 3
setsid sh -c '
ulimit -f "$2"
(sleep "$1"; kill -KILL -$$) &
shift 2
"$@"
echo $? >exit_code.part && mv exit_code.part exit_code
kill -KILL -$$
' sh "$limit_s" "$blocks" "$@" </dev/null >stdout 2>stderr &
echo "$! $(cat {_BOOT})"
"""

# $1 is the folder, $2 the first byte from 1, $3 the command's process. The empty line is a sign of life.
_READ = f"""\
cd "$1" && exec 3<stdout || exit 125
tail -c "+$2" <&3
until [ $is_over ]; do
  echo >&2
  sleep {POLL_S}
  if [ -e exit_code ] || [ ! -d "/proc/$3" ]; then is_over=1; fi
  cat <&3
done
"""

_END = f'cd "$1" && tail -c {TAIL_BYTES} stderr >&2; cat exit_code 2>/dev/null; exit 0'

log = logging.getLogger(__name__)


def run_detached(
    commands: AdbCommands, argv: Sequence[str], timeout_s: float, folder: str, stderr: Tail, environment: Mapping[str, str]
) -> Generator[bytes, None, int]:
    """Run a command in a folder of the device, yield pieces of its stdout, and return its exit code.

    However it is left, the command and its children are killed; where the device cannot be reached then, it ends itself soon
    after `timeout_s`.

    Raises:
        TimeoutError: it took longer than `timeout_s`, not counting the time without a connection.
        DeviceLostError: the device went away and did not come back in time, or restarted.
        DeviceError: the command cannot be started.
    """
    command = _Detached(commands, argv, timeout_s, folder, environment)
    is_over = False
    try:
        yield from command.output()
        status, said = command.end()
        stderr.take(said.encode())
        is_over = True
        return status
    finally:
        commands.forget(command.group, kill=not is_over)


class _Detached:
    """A command that was started, and how much of its output has been read."""

    def __init__(
        self, commands: AdbCommands, argv: Sequence[str], timeout_s: float, folder: str, environment: Mapping[str, str]
    ) -> None:
        self._commands = commands
        self._program = argv[0]
        self._folder = folder
        self._timeout_s = timeout_s
        self._began = time.monotonic()
        self._away_s = 0.0
        self._read_bytes = 0
        variables = ["env", *(f"{name}={value}" for name, value in environment.items())] if environment else []
        self.group, self._boot = self._start([*variables, *argv])

    def output(self) -> Generator[bytes, None, None]:
        """Yield stdout up to the command's end, over as many connections as it takes."""
        while True:
            try:
                yield from self._over_one_connection()
                return
            except DeviceLostError as lost:
                self._wait_for_device(lost)

    def end(self) -> tuple[int, str]:
        """Return the exit code and the end of stderr of a command that has ended."""
        while True:
            try:
                result = self._commands.shell(["sh", "-c", _END, "sh", self._folder], _END_TIMEOUT_S)
                break
            except DeviceLostError as lost:
                self._wait_for_device(lost)
        if re.fullmatch(r"\d{1,3}\n", result.stdout):
            return int(result.stdout), result.stderr
        if time.monotonic() > self._began + self._timeout_s:
            raise TimeoutError
        said = one_line("\n".join(result.stderr.splitlines()[-_SHOWN_LINES:])) or "nothing on stderr"
        message = f"'{self._program}' is gone from {self._commands.name} without an exit code: {said}"
        raise DeviceLostError(message, hint=_GONE_HINT)

    def _start(self, argv: Sequence[str]) -> tuple[int, str]:
        limits = [f"{math.ceil(self._timeout_s + _SPARE_S)}", f"{FILE_LIMIT_BYTES // _ULIMIT_BLOCK_BYTES}"]
        try:
            result = self._commands.shell(["sh", "-c", _START, "sh", self._folder, *limits, *argv], START_TIMEOUT_S)
        except TimeoutError as error:
            message = f"{self._commands.name} was lost: it did not start '{self._program}' within {START_TIMEOUT_S:g} s"
            raise DeviceLostError(message, hint="reconnect it, then run again") from error
        words = re.fullmatch(r"(\d{1,10}) (.*)\n", result.stdout)
        if result.exit_code or not words:
            said = one_line(f"{result.stdout}\n{result.stderr}")
            raise DeviceError(f"'{self._program}' cannot be started in '{self._folder}' on {self._commands.name}: {said}")
        group = int(words[1])
        self._commands.remember(group)
        return group, words[2]

    def _over_one_connection(self) -> Generator[bytes, None, None]:
        argv = ["sh", "-c", _READ, "sh", self._folder, f"{self._read_bytes + 1}", f"{self.group}"]
        remaining_s = self._began + self._timeout_s + self._away_s - time.monotonic()
        stderr = Tail()
        with contextlib.closing(self._commands.run(argv, remaining_s, stderr, silence_s=SILENCE_S)) as pieces:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    status = end.value
                    break
                self._read_bytes += len(piece)
                yield piece
        if status:
            said = one_line(stderr.text)
            output = f"the output of '{self._program}' on {self._commands.name}"
            raise DeviceError(f"{output} cannot be read, exit code {status}: {said}")

    def _wait_for_device(self, lost: DeviceLostError) -> None:
        """Wait until the device answers again, as the same that it was."""
        log.warning("%s; what runs there goes on, and it is waited for at most %g s", lost.message, RECONNECT_S)
        since = time.monotonic()
        while (boot := self._boot_now()) is None:
            if time.monotonic() - since > RECONNECT_S:
                message = f"{lost.message}; it was not back within {RECONNECT_S:g} s"
                raise DeviceLostError(message, hint=lost.hint) from lost
            if self._commands.wait(_RETRY_S):
                raise lost
        self._away_s += time.monotonic() - since
        if boot != self._boot:
            self._commands.forget(self.group, kill=False)  # its number may be another's now
            after_s = since - self._began
            message = f"{self._commands.name} rebooted after {after_s:.0f} s of '{self._program}'"
            raise DeviceLostError(message, hint="see that it is charged and cool, then run again") from lost
        log.info("%s is back after %.1f s", self._commands.name, time.monotonic() - since)

    def _boot_now(self) -> str | None:
        try:
            self._commands.reconnect()
            return self._commands.shell(["cat", _BOOT], START_TIMEOUT_S).stdout.rstrip("\n")
        except (DeviceLostError, TimeoutError) as error:
            log.debug("%s does not answer yet: %s", self._commands.name, error)
            return None
