"""adb detached: a command that outlives a lost connection -> what it says on a device, each byte once, and its exit code.

It runs in a session of its own and writes into files, which are read as they grow. Where the connection is lost, they are read
on from the same byte once the device answers again.
"""

import contextlib
import logging
import math
import re
import time
import uuid
from collections.abc import Generator, Mapping, Sequence

from quadbench.artifacts.names import one_line
from quadbench.devices.adb_commands import START_TIMEOUT_S, AdbCommands
from quadbench.devices.adb_reconnect import BOOT_ID, RECONNECT_S, TRIES, Reconnect
from quadbench.devices.device import ShellResult
from quadbench.devices.output import TAIL_BYTES, Tail
from quadbench.errors import DeviceError, DeviceLostError

SILENCE_S = 30.0  # without a sign of life, of which there is one each POLL_S
POLL_S = 0.5  # a line that the harness writes need not be here sooner; reading each at once would wake a core for it
FILE_LIMIT_BYTES = 2**30  # of a file that the command writes: a harness gone wild must not fill a phone
AWAY_S = RECONNECT_S  # of the time without a connection that do not count as a command's own; the device allows for them
SPARE_S = 60.0  # in which this machine ends a command that takes too long, before the device does it alone
_END_TIMEOUT_S = 30.0
_START_POLL_S, _START_TRIES = 0.02, 400  # well within START_TIMEOUT_S, also where each takes a slow phone as long again
_NO_PROCESS = "none"
_ULIMIT_BLOCK_BYTES = 512
_SHOWN_LINES = 3
_GONE_HINT = (
    "Android ends all that was started over adb when it restarts adbd, as some phones do when their USB mode changes; it may have"
    " run out of memory or storage, too"
)

# $1 is the folder, $2 a name for this start, $3 the longest that it may take, $4 the blocks of a file; then comes the command.
# Where the connection broke before anybody heard of the start, it is run again under the same name: whoever makes the file
# `claimed-` first is the one process that runs the command, and only that one touches what it writes. A name holds for one boot.
_START = f"""\
mkdir -p "$1" && cd "$1" || exit 125
boot=$(cat {BOOT_ID})
start=$2-$boot limit_s=$3 blocks=$4 tries={_START_TRIES}
shift 4
if [ ! -e "claimed-$start" ]; then
  setsid sh -c '
(set -C; : >"claimed-$1") || exit
rm -f exit_code
exec >stdout 2>stderr
echo $$ >started.part && mv started.part "started-$1"
ulimit -f "$3"
(sleep "$2"; kill -KILL -$$) &
shift 3
"$@"
echo $? >exit_code.part && mv exit_code.part exit_code
kill -KILL -$$
' sh "$start" "$limit_s" "$blocks" "$@" </dev/null >/dev/null 2>&1 &
fi
until [ -e "started-$start" ]; do
  tries=$((tries - 1))
  if [ $tries -eq 0 ]; then echo "nothing was started; is there space, and setsid?" >&2; exit 125; fi
  sleep {_START_POLL_S}
done
echo "$(cat "started-$start") $boot"
"""

# $1 is the folder, $2 the first byte from 1, $3 the command's process. The empty line is a sign of life. What was written last
# is read once the process is gone.
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
    commands: AdbCommands,
    reconnect: Reconnect,
    argv: Sequence[str],
    timeout_s: float,
    folder: str,
    stderr: Tail,
    environment: Mapping[str, str],
) -> Generator[bytes, None, int]:
    """Run a command in a folder of the device, yield pieces of its stdout, and return its exit code.

    However it is left, the command and its children are killed; where the device cannot be reached then, it ends itself
    AWAY_S + SPARE_S after `timeout_s`. Whatever ended it, what it had written comes before the error.

    Raises:
        TimeoutError: it took longer than `timeout_s`, not counting the time without a connection, of which AWAY_S are forgiven.
        DeviceLostError: the device went away and did not come back in time, or restarted.
        DeviceError: the command cannot be started.
    """
    command = _Detached(commands, reconnect, argv, timeout_s, folder, environment)
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
        self,
        commands: AdbCommands,
        reconnect: Reconnect,
        argv: Sequence[str],
        timeout_s: float,
        folder: str,
        environment: Mapping[str, str],
    ) -> None:
        self._commands = commands
        self._reconnect = reconnect
        self._program = argv[0]
        self._folder = folder
        self._timeout_s = timeout_s
        self._began = time.monotonic()
        self._away_s = 0.0
        self._read_bytes = 0
        self._is_overdue = False
        self._tries_left: float = math.inf  # until it is over, as its time is limited
        self._reboot: DeviceLostError | None = None
        variables = ["env", *(f"{name}={value}" for name, value in environment.items())] if environment else []
        self.group = self._start([*variables, *argv])

    def output(self) -> Generator[bytes, None, None]:
        """Yield stdout up to the command's end, over as many connections as it takes."""
        try:
            yield from self._pieces()
        except (DeviceError, TimeoutError) as error:
            if not self._reboot:
                raise
            log.warning("what '%s' wrote last cannot be read: %s", self._program, error)
        if self._reboot:
            raise self._reboot

    def end(self) -> tuple[int, str]:
        """Return the exit code and the end of stderr of a command that has ended."""
        result = self._result()
        if re.fullmatch(r"\d{1,3}\n", result.stdout):
            return int(result.stdout), result.stderr
        if self._is_overdue:
            raise TimeoutError
        said = one_line("\n".join(result.stderr.splitlines()[-_SHOWN_LINES:])) or "nothing on stderr"
        message = f"'{self._program}' is gone from {self._commands.name} without an exit code: {said}"
        raise DeviceLostError(message, hint=_GONE_HINT)

    @property
    def _deadline(self) -> float:
        return self._began + self._timeout_s + min(self._away_s, AWAY_S)

    def _pieces(self) -> Generator[bytes, None, None]:
        while not self._is_overdue and not self._reboot:
            try:
                yield from self._over_one_connection(self._deadline - time.monotonic())
                return
            except TimeoutError:
                self._is_overdue = True
            except DeviceLostError as lost:
                self._wait_for_device(lost)
        self._tries_left = TRIES
        while True:
            try:
                if not self._reboot:
                    self._commands.kill(self.group)
                yield from self._over_one_connection(_END_TIMEOUT_S)
                return
            except DeviceLostError as lost:
                self._wait_for_device(lost)

    def _start(self, argv: Sequence[str]) -> int:
        """Start the command once, however often the connection breaks meanwhile, and return its process."""
        longest_s = math.ceil(self._timeout_s + AWAY_S + SPARE_S)
        limits = [f"{longest_s}", f"{FILE_LIMIT_BYTES // _ULIMIT_BLOCK_BYTES}"]
        script = ["sh", "-c", _START, "sh", self._folder, uuid.uuid4().hex, *limits, *argv]
        try:
            result = self._reconnect.again(lambda: self._commands.shell(script, START_TIMEOUT_S))
        except TimeoutError as error:
            message = f"{self._commands.name} was lost: it did not start '{self._program}' within {START_TIMEOUT_S:g} s"
            raise DeviceLostError(message, hint="reconnect it, then run again") from error
        words = re.fullmatch(r"(\d{1,10}) (.*)\n", result.stdout)
        if result.exit_code or not words:
            said = one_line(f"{result.stdout}\n{result.stderr}")
            raise DeviceError(f"'{self._program}' cannot be started in '{self._folder}' on {self._commands.name}: {said}")
        group = int(words[1])
        self._commands.remember(group)
        self._reconnect.boot = words[2]
        return group

    def _result(self) -> ShellResult:
        self._tries_left = TRIES
        while not self._reboot:
            try:
                return self._commands.shell(["sh", "-c", _END, "sh", self._folder], _END_TIMEOUT_S)
            except DeviceLostError as lost:
                self._wait_for_device(lost)
        raise self._reboot

    def _over_one_connection(self, remaining_s: float) -> Generator[bytes, None, None]:
        process = _NO_PROCESS if self._reboot else f"{self.group}"  # its number may be another's now
        argv = ["sh", "-c", _READ, "sh", self._folder, f"{self._read_bytes + 1}", process]
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
        """Wait until the device answers again, and note where it has rebooted."""
        self._tries_left -= 1
        if not self._tries_left:
            raise lost
        since = time.monotonic()
        is_same_boot = self._reconnect.wait(lost)
        self._away_s += time.monotonic() - since
        if not is_same_boot:
            self._commands.forget(self.group, kill=False)
            self._reboot = self._reconnect.rebooted(f"after {since - self._began:.0f} s")
