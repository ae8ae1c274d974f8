"""Run shell commands on a device over adb. If the connection breaks, reconnect while detached commands keep running."""

import contextlib
import logging
import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from quadbench.artifacts.safe_text import one_line
from quadbench.devices.adb_protocol import STDERR, STDOUT, AdbServer, close_stdin, lost_error, packets, shell_service
from quadbench.devices.android_reports import BOOTED_PROPERTY
from quadbench.devices.device import TAIL_BYTES, OutputTail, ShellResult, as_text, read_whole
from quadbench.errors import DeviceError, DeviceLostError

if TYPE_CHECKING:
    from quadbench.devices.adb_transport import Connection

KILL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 30.0  # for the start of a command on the device, not for its run
_FIRST_LINE_BYTES = 1000  # a process id or an error message
_PROCESS = re.compile(rb"\d{1,10}")  # Linux process ids have at most seven digits

log = logging.getLogger(__name__)

RECONNECT_S = 120.0  # time for a device to come back; a restart takes about one minute
TRIES = 5  # of one action that loses the device each time, though it answers in between
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_RETRY_S = 1.0

_Result = TypeVar("_Result")

SILENCE_S = 30.0  # without a heartbeat, which comes every POLL_S
POLL_S = 0.5  # polling interval for the output; reading each line at once would wake a core every time
FILE_LIMIT_BYTES = 2**30  # for each file that the command writes, so that a broken harness cannot fill a phone
AWAY_S = RECONNECT_S  # time without a connection that is not counted as the command's; the limit on the device includes it
SPARE_S = 60.0  # time for this machine to kill an overdue command before the device kills it itself
_END_TIMEOUT_S = 30.0
_START_POLL_S, _START_TRIES = 0.02, 400  # within START_TIMEOUT_S even if a slow phone needs twice as long
_NO_PROCESS = "none"
_ULIMIT_BLOCK_BYTES = 512
_SHOWN_LINES = 3
_GONE_HINT = (
    "run again, and check free memory and storage; a restart of adbd also ends all commands, and some phones restart it when"
    " their USB mode changes"
)

# $1: folder, $2: name of this start, $3: time limit in s, $4: file size limit in blocks; then the command. If the connection
# breaks before the start is confirmed, the script runs again under the same name. The process that creates the file `claimed-`
# first runs the command, and only that process touches the command's output. A name is valid for one boot.
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
  if [ $tries -eq 0 ]; then echo "the command did not start; check free space and the program setsid" >&2; exit 125; fi
  sleep {_START_POLL_S}
done
echo "$(cat "started-$start") $boot"
"""

# $1: folder, $2: first byte to read (from 1), $3: the command's process. The empty line is a heartbeat. The last output is read
# after the process has ended.
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


class AdbCommands:
    """Runs shell commands on one device over adb, and reconnects when the device is lost.

    `transport` is the device's adb serial at its server, `name` its name in messages. `boot` is the device's boot id when a
    harness was last started there.
    """

    def __init__(self, server: AdbServer, transport: str, name: str) -> None:
        self.name = name
        self.boot: str | None = None
        self._is_given_up = False  # a wait for it failed, and nothing has succeeded since
        self._server = server
        self._transport = transport
        self._running: set[int] = set()  # process groups that have not ended
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def open(self, service: str) -> "Connection":
        """Open a connection to an adb service of the device, such as `sync:`, and return it."""
        self.check_open()
        return self._server.open(self._transport, service, self.name)

    def shell(self, argv: Sequence[str], timeout_s: float) -> ShellResult:
        """Run a command and wait until it ends. Return a ShellResult: its exit code, stdout and stderr."""
        stderr = OutputTail()
        return read_whole(self.run(argv, timeout_s, stderr), argv[0], self.name, stderr)

    def run(
        self, argv: Sequence[str], timeout_s: float, stderr: OutputTail, *, silence_s: float = math.inf
    ) -> Generator[bytes, None, int]:
        """Run a command and yield its stdout in pieces. The generator returns the exit code; closing it kills the command."""
        group: int | None = None
        is_over = False  # or unreachable
        try:
            with self.open(shell_service(argv)) as connection:
                close_stdin(connection)
                group, first = self._start_group(connection, argv[0])
                yield first
                for packet in packets(connection, time.monotonic() + timeout_s, silence_s):
                    if packet.kind == STDOUT:
                        yield packet.data
                    elif packet.kind == STDERR:
                        stderr.feed(packet.data)
                    else:
                        is_over = True
                        self.check_open()  # `close` may have killed it
                        return packet.data[0]
            raise AssertionError("packets end with an exit code")
        except DeviceLostError:
            is_over = True
            raise
        finally:
            if group is not None:
                self.forget(group, kill=not is_over)

    def kill_on_close(self, group: int) -> None:
        """Register the id of a process group on the device. `close` kills all registered groups."""
        with self._lock:
            self._running.add(group)

    def forget(self, group: int, *, kill: bool) -> None:
        """Unregister a process group, so that `close` does not kill the group. If `kill` is True, kill a registered group now."""
        with self._lock:
            is_known = group in self._running  # False if `close` has killed it
            self._running.discard(group)
        if kill and is_known:
            self.kill(group)

    def kill(self, group: int) -> None:
        """Kill a process group on the device. If the device cannot be reached, only log a warning."""
        try:
            service = shell_service(["sh", "-c", f"kill -KILL -{group}"])
            with self._server.open(self._transport, service, self.name) as connection:
                for _ in packets(connection, time.monotonic() + KILL_TIMEOUT_S):
                    pass
        except (DeviceError, TimeoutError) as error:
            reason = error.message if isinstance(error, DeviceError) else f"no answer within {KILL_TIMEOUT_S:g} s"
            log.warning("%s: process %d could not be killed; the next run kills it: %s", self.name, group, reason)

    def retry_once(self, action: Callable[[], _Result], *, over_reboots: bool = False) -> _Result:
        """Return `action()`; retry up to 4 times if the device is lost. A reboot raises DeviceLostError unless `over_reboots`."""
        for tries_left in reversed(range(TRIES)):
            try:
                result = action()
            except DeviceLostError as lost:
                if not tries_left:
                    raise DeviceLostError(f"{lost.message}, {TRIES} times", hint=lost.hint) from lost
                if not self.wait_for(lost) and not over_reboots:
                    raise self.reboot_error("meanwhile") from lost
            else:
                self._is_given_up = False
                return result
        raise AssertionError("the last try returns or raises")

    def is_ready(self) -> bool:
        """Return whether the device answers and has booted. If True, `wait_for` waits again although an earlier wait failed."""
        self._check_may_be_back(DeviceLostError(f"{self.name} was lost"))
        try:
            self._reconnect()
            has_booted = self.shell(["getprop", BOOTED_PROPERTY], START_TIMEOUT_S).stdout.strip() == "1"
        except (DeviceLostError, TimeoutError) as error:
            if isinstance(error, DeviceLostError) and not error.transient:
                raise
            log.debug("%s does not answer yet: %s", self.name, error)
            return False
        self._is_given_up &= not has_booted
        return has_booted

    def wait_for(self, lost: DeviceLostError) -> bool:
        """Wait until a lost device answers. If there is no answer within about 120 s, raise DeviceLostError. Return False if the
        device has rebooted (its boot id has changed), else True. If a wait failed or was interrupted, later calls raise at once,
        until some command succeeds again.
        """
        if self._is_given_up or self._closed.wait(0):
            raise lost
        self._check_may_be_back(lost)
        log.warning("%s; waiting for it for at most %g s", lost.message, RECONNECT_S)
        since = time.monotonic()
        try:
            boot = self._boot_within(since + RECONNECT_S, lost)
        except BaseException:
            self._is_given_up = True
            raise
        is_same = self.boot in (None, boot)
        end = "its commands continue" if is_same else "it has rebooted"
        log.warning("%s is back after %.1f s: %s", self.name, time.monotonic() - since, end)
        if not is_same:
            self.boot = boot
        return is_same

    def reboot_error(self, when: str) -> DeviceLostError:
        """Return a DeviceLostError with the message `NAME rebooted WHEN`. `when` is a phrase such as `after 20 s`."""
        return DeviceLostError(f"{self.name} rebooted {when}", hint="check its charge and temperature, then run again")

    def close(self) -> None:
        """Kill all running commands on the device. Later calls of `open`, `shell` and `run` raise DeviceLostError."""
        self._closed.set()
        with self._lock:
            for group in self._running:
                self.kill(group)
            self._running.clear()

    def check_open(self) -> None:
        """Raise DeviceLostError if `close` was called."""
        if self._closed.is_set():
            raise DeviceLostError(f"{self.name} was closed, and its commands were ended", transient=False)

    def _start_group(self, connection: "Connection", program: str) -> tuple[int, bytes]:
        """Read a new command's process group id from the first line of its stdout. Return the id and the bytes after the line."""
        head = b""
        try:
            for packet in packets(connection, time.monotonic() + START_TIMEOUT_S):
                head += packet.data
                number, newline, rest = head.partition(b"\n")
                if newline and _PROCESS.fullmatch(number):
                    self.kill_on_close(int(number))
                    return int(number), rest
                if newline or len(head) > _FIRST_LINE_BYTES:
                    break
        except TimeoutError as error:
            raise lost_error(connection.peer, f"it did not start '{program}' within {START_TIMEOUT_S:g} s") from error
        raise DeviceError(f"{self.name} did not start '{program}': {one_line(as_text(head[:_FIRST_LINE_BYTES]))}")

    def _reconnect(self) -> None:
        """Ask the adb server to connect again to a device on the network; do nothing for a device on USB."""
        if ":" in self._transport:
            try:
                self._server.connect(self._transport)
            except DeviceError as error:
                raise DeviceLostError(f"{self.name} was lost: {error.message}", hint=error.hint) from error

    def _check_may_be_back(self, lost: DeviceLostError) -> None:
        if reason := self._server.end():
            message = f"{self.name} was lost: {reason}"
            raise DeviceLostError(message, transient=False, hint="run again to restart it") from lost

    def _boot_within(self, deadline: float, lost: DeviceLostError) -> str:
        while not self._closed.wait(_RETRY_S):
            self._check_may_be_back(lost)
            try:
                self._reconnect()
                return self.shell(["cat", BOOT_ID], START_TIMEOUT_S).stdout.rstrip("\n")
            except (DeviceLostError, TimeoutError) as error:
                log.debug("%s does not answer yet: %s", self.name, error)
            if time.monotonic() > deadline:
                message = f"{lost.message}; it was not back within {RECONNECT_S:g} s"
                raise DeviceLostError(message, hint=lost.hint) from lost
        raise lost


@dataclass
class DetachedCommand:
    """A command that runs on the device in its own process session and folder. It keeps running if the adb connection breaks."""

    commands: AdbCommands
    argv: Sequence[str]
    timeout_s: float
    folder: str
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._away_s = 0.0
        self._read_bytes = 0
        self._is_overdue = False
        self._tries_left: float = math.inf  # unlimited while the command's own time limit applies
        self._reboot: DeviceLostError | None = None

    def run(self, stderr: OutputTail) -> Generator[bytes, None, int]:
        """Start the command, yield its stdout in pieces, and return its exit code.

        The command and its children are killed however the generator ends. If the device cannot be reached then, the command
        kills itself AWAY_S + SPARE_S after `timeout_s`. Output that was written before a failure comes before the error.
        """
        self._group = self._start()
        is_over = False
        try:
            yield from self._output()
            status, message = self._end()
            stderr.feed(message.encode())
            is_over = True
            return status
        finally:
            self.commands.forget(self._group, kill=not is_over)

    def _output(self) -> Generator[bytes, None, None]:
        """Yield the command's stdout until the command ends, reconnecting to the device as often as needed."""
        try:
            yield from self._pieces()
        except (DeviceError, TimeoutError) as error:
            if not self._reboot:
                raise
            log.warning("the last output of '%s' cannot be read: %s", self.argv[0], error)
        if self._reboot:
            raise self._reboot

    def _end(self) -> tuple[int, str]:
        """Return the exit code of the finished command, and the end of the command's stderr as text of at most 64 KiB."""
        result = self._result()
        if re.fullmatch(r"\d{1,3}\n", result.stdout):
            return int(result.stdout), result.stderr
        if self._is_overdue:
            raise TimeoutError
        error_text = one_line("\n".join(result.stderr.splitlines()[-_SHOWN_LINES:])) or "nothing on stderr"
        message = f"'{self.argv[0]}' is gone from {self.commands.name} without an exit code: {error_text}"
        raise DeviceLostError(message, hint=_GONE_HINT)

    def _pieces(self) -> Generator[bytes, None, None]:
        while not self._is_overdue and not self._reboot:
            try:
                deadline = self._began + self.timeout_s + min(self._away_s, AWAY_S)
                yield from self._over_one_connection(deadline - time.monotonic())
                return
            except TimeoutError:
                self._is_overdue = True
            except DeviceLostError as lost:
                self._wait_for_device(lost)
        self._tries_left = TRIES
        while True:
            try:
                if not self._reboot:
                    self.commands.kill(self._group)
                yield from self._over_one_connection(_END_TIMEOUT_S)
                return
            except DeviceLostError as lost:
                self._wait_for_device(lost)

    def _start(self) -> int:
        """Start the command exactly once, even if the connection breaks during the start. Return the process group id."""
        variables = ["env", *(f"{name}={value}" for name, value in self.environment.items())] if self.environment else []
        longest_s = math.ceil(self.timeout_s + AWAY_S + SPARE_S)
        limits = [f"{longest_s}", f"{FILE_LIMIT_BYTES // _ULIMIT_BLOCK_BYTES}"]
        script = ["sh", "-c", _START, "sh", self.folder, uuid.uuid4().hex, *limits, *variables, *self.argv]
        try:
            result = self.commands.retry_once(lambda: self.commands.shell(script, START_TIMEOUT_S))
        except TimeoutError as error:
            message = f"{self.commands.name} was lost: it did not start '{self.argv[0]}' within {START_TIMEOUT_S:g} s"
            raise DeviceLostError(message, hint="reconnect it, then run again") from error
        words = re.fullmatch(r"(\d{1,10}) (.*)\n", result.stdout)
        if result.exit_code or not words:
            output_text = one_line(f"{result.stdout}\n{result.stderr}")
            raise DeviceError(f"'{self.argv[0]}' cannot be started in '{self.folder}' on {self.commands.name}: {output_text}")
        group = int(words[1])
        self.commands.kill_on_close(group)
        self.commands.boot = words[2]
        return group

    def _result(self) -> ShellResult:
        self._tries_left = TRIES
        while not self._reboot:
            try:
                return self.commands.shell(["sh", "-c", _END, "sh", self.folder], _END_TIMEOUT_S)
            except DeviceLostError as lost:
                self._wait_for_device(lost)
        raise self._reboot

    def _over_one_connection(self, remaining_s: float) -> Generator[bytes, None, None]:
        process = _NO_PROCESS if self._reboot else f"{self._group}"  # after a reboot its number may belong to another process
        argv = ["sh", "-c", _READ, "sh", self.folder, f"{self._read_bytes + 1}", process]
        stderr = OutputTail()
        with contextlib.closing(self.commands.run(argv, remaining_s, stderr, silence_s=SILENCE_S)) as pieces:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    status = end.value
                    break
                self._read_bytes += len(piece)
                yield piece
        if status:
            message = one_line(stderr.text)
            output = f"the output of '{self.argv[0]}' on {self.commands.name}"
            raise DeviceError(f"{output} cannot be read, exit code {status}: {message}")

    def _wait_for_device(self, lost: DeviceLostError) -> None:
        """Wait for a lost device. Raise DeviceLostError after about 120 s. If it rebooted, set `_reboot` to a DeviceLostError."""
        self._tries_left -= 1
        if not self._tries_left:
            raise lost
        since = time.monotonic()
        is_same_boot = self.commands.wait_for(lost)
        self._away_s += time.monotonic() - since
        if not is_same_boot:
            self.commands.forget(self._group, kill=False)
            self._reboot = self.commands.reboot_error(f"after {since - self._began:.0f} s")
