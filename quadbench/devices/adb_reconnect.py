"""adb reconnect: a device that was lost -> the same device, once it answers again; what was cut off is done again then."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from quadbench.devices.adb_commands import START_TIMEOUT_S, AdbCommands
from quadbench.devices.properties import BOOTED_PROPERTY
from quadbench.errors import DeviceLostError

RECONNECT_S = 120.0  # in which a device is back: a phone that restarts takes about one minute
TRIES = 5  # of one thing that is lost again each time, though the device answers in between
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_RETRY_S = 1.0

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class Reconnect:
    """The ways to a device that was lost. `boot` is what it had booted as when a harness was last started there."""

    def __init__(self, commands: AdbCommands) -> None:
        self.boot: str | None = None
        self._commands = commands
        self._is_given_up = False  # it was waited for in vain, and nothing has worked since

    def again(self, action: Callable[[], _Result], *, over_reboots: bool = False) -> _Result:
        """Do something that may be done twice, and where the device is lost meanwhile, once more when it is back.

        Raises:
            DeviceLostError: it did not come back in time, is lost again and again, or rebooted where it must not have.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                result = action()
            except DeviceLostError as lost:
                if not tries_left:
                    raise DeviceLostError(f"{lost.message}, {TRIES} times", hint=lost.hint) from lost
                if not self.wait(lost) and not over_reboots:
                    raise self.rebooted("meanwhile") from lost
            else:
                self._is_given_up = False
                return result
        raise AssertionError("the last try returns or raises")

    def is_ready(self) -> bool:
        """Ask once whether the device answers and has booted; where it does, it is waited for again when it is lost again.

        Raises:
            DeviceLostError: it will never be back, or was closed.
        """
        self._check_may_be_back(DeviceLostError(f"{self._commands.name} was lost"))
        try:
            self._commands.reconnect()
            has_booted = self._commands.shell(["getprop", BOOTED_PROPERTY], START_TIMEOUT_S).stdout.strip() == "1"
        except (DeviceLostError, TimeoutError) as error:
            if isinstance(error, DeviceLostError) and not error.transient:
                raise
            log.debug("%s does not answer yet: %s", self._commands.name, error)
            return False
        self._is_given_up &= not has_booted
        return has_booted

    def wait(self, lost: DeviceLostError) -> bool:
        """Wait until the device answers again, and say whether it is still the boot in which a harness was started.

        After one wait in vain, or that was interrupted, nothing is waited for until something has worked again.

        Raises:
            DeviceLostError: it did not come back in time, will never be back, or was closed.
        """
        if self._is_given_up or self._commands.wait(0):
            raise lost
        self._check_may_be_back(lost)
        log.warning("%s; it is waited for at most %g s", lost.message, RECONNECT_S)
        since = time.monotonic()
        try:
            boot = self._boot_within(since + RECONNECT_S, lost)
        except BaseException:
            self._is_given_up = True
            raise
        is_same = self.boot in (None, boot)
        end = "what ran there goes on" if is_same else "it has rebooted"
        log.warning("%s is back after %.1f s: %s", self._commands.name, time.monotonic() - since, end)
        if not is_same:
            self.boot = boot
        return is_same

    def rebooted(self, when: str) -> DeviceLostError:
        """Return the error for a device that has booted anew."""
        return DeviceLostError(f"{self._commands.name} rebooted {when}", hint="see that it is charged and cool, then run again")

    def _check_may_be_back(self, lost: DeviceLostError) -> None:
        if reason := self._commands.end():
            message = f"{self._commands.name} was lost: {reason}"
            raise DeviceLostError(message, transient=False, hint="run again; it starts anew") from lost

    def _boot_within(self, deadline: float, lost: DeviceLostError) -> str:
        while not self._commands.wait(_RETRY_S):
            self._check_may_be_back(lost)
            try:
                self._commands.reconnect()
                return self._commands.shell(["cat", BOOT_ID], START_TIMEOUT_S).stdout.rstrip("\n")
            except (DeviceLostError, TimeoutError) as error:
                log.debug("%s does not answer yet: %s", self._commands.name, error)
            if time.monotonic() > deadline:
                message = f"{lost.message}; it was not back within {RECONNECT_S:g} s"
                raise DeviceLostError(message, hint=lost.hint) from lost
        raise lost
