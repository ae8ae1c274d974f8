"""Run device checks, and collect the results in one document with serial numbers and home folder paths masked."""

import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from quadbench.artifacts.safe_text import one_line
from quadbench.errors import MissingDependencyError, QuadbenchError
from quadbench.observer import Observer
from quadbench.results.layout import plain_name
from quadbench.spec import Spec

_COMMON_PARTS = 2  # a home such as /root names no user, and device paths may begin with it

log = logging.getLogger(__name__)


class CheckStatus(StrEnum):
    """The status of a device check: passed, failed, value not reported by the device, or not tried."""

    OK = "ok"
    FAILED = "failed"
    NOT_TOLD = "not told"  # the device does not report it
    NOT_TRIED = "not tried"


class DeviceCheck(Spec):
    """The result of one check on a device."""

    name: str
    """The check's name, a few words that never change."""
    status: CheckStatus
    """The result: ok, failed, not told (the device does not report the value), or not tried."""
    said: str
    """The finding, or the reason why the check failed or was not tried."""
    hint: str | None = None
    """What to do about the problem. The default is null: nothing."""
    versions: dict[str, str] = Field(default={})
    """Versions of the device's system, or of the launch's tools and libraries; for a loaded library its path and build id. The
    default is none."""
    seconds: float = Field(default=0.0, ge=0)
    """The check took this many seconds. The default is 0."""


class ExaminedDevice(Spec):
    """Facts about a checked device: device profile, chip, ABI and Android build, but no serial number or other personal data."""

    family: str
    """The kind of device: attached (adb), virtual, or this machine (local)."""
    title: str
    """The title of the matching device profile."""
    profile: str
    """The name of the matching device profile."""
    abi: str
    """The ABI of programs that run on the device."""
    cpu: str
    """The name of the device's chip."""
    android_release: str | None
    """The release of Android; null if not reported."""
    fingerprint: str | None
    """The system's build fingerprint; null if not reported."""


class BringUp(Spec):
    """The document with the results of all checks of one device. Users can attach the document to a bug report."""

    schema_version: Literal[1] = 1
    """The version of this document format is 1. The default is 1."""
    quadbench: str
    """The version of quadbench that wrote this document."""
    started_at: str
    """The start time of the first check, in UTC."""
    address: str
    """The device's address, without serial numbers."""
    device: ExaminedDevice | None
    """Facts about the device; null if it could not be connected."""
    checks: tuple[DeviceCheck, ...]
    """The checks in the order in which they ran."""

    @property
    def is_ok(self) -> bool:
        """Return True if no check failed."""
        return all(check.status is not CheckStatus.FAILED for check in self.checks)

    def impersonal(self, serials: Iterable[str]) -> Self:
        """Return a copy of the check results. Replace each of `serials` by SERIAL, and the user's home folder by `~`."""
        home = Path.home()
        homes = {str(home)} if len(home.parts) > _COMMON_PARTS else set()
        named = {name for serial in serials if serial for name in (serial, plain_name(serial))}  # `plain` form: as in file paths

        def clean(text: str) -> str:
            for before, secrets, stand_in in ((r"\w/.-", homes, "~"), (r"\w.-", named, "SERIAL")):
                for secret in secrets:
                    text = re.sub(rf"(?<![{before}]){re.escape(secret)}(?![\w.-])", stand_in, text)
            return one_line(text)

        def cleaned(check: DeviceCheck) -> DeviceCheck:
            versions = {clean(name): clean(version) for name, version in check.versions.items()}
            hint = check.hint and clean(check.hint)
            return check.model_copy(update={"said": clean(check.said), "hint": hint, "versions": versions})

        return self.model_copy(update={"address": clean(self.address), "checks": tuple(map(cleaned, self.checks))})


@dataclass(frozen=True, kw_only=True)
class Result:
    """A device check's outcome: status, finding (`said`), remedy (`hint`) or None, and a dict of software versions by name."""

    status: CheckStatus = CheckStatus.OK
    said: str
    hint: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PlannedCheck:
    """A device check to run: its name, and the function `act`, which takes nothing and returns a Result."""

    name: str
    act: Callable[[], Result]

    def run(self, observer: Observer) -> DeviceCheck:
        """Run `act` and return its Result as a DeviceCheck. A MissingDependencyError gives NOT_TRIED, any other error FAILED."""
        observer.stage_step("check", self.name)
        began = time.monotonic()
        try:
            answer = self.act()
        except MissingDependencyError as error:
            answer = Result(status=CheckStatus.NOT_TRIED, said=error.message, hint=error.hint)
        except QuadbenchError as error:
            answer = Result(status=CheckStatus.FAILED, said=error.message, hint=error.hint)
        except Exception as error:  # an unexpected error in one check must not end the others
            log.info("unexpected error in a check", exc_info=True)
            said = f"unexpected error, a bug in quadbench (-v shows the traceback): {type(error).__name__}: {error}"
            answer = Result(status=CheckStatus.FAILED, said=said)
        log.info("check: %s: %s: %s", self.name, answer.status, answer.said)
        return DeviceCheck(name=self.name, seconds=round(time.monotonic() - began, 1), **vars(answer))


def failed(said: str, hint: str | None = None) -> Result:
    """Return the result of a device check that failed: `said` is the reason, `hint` the remedy."""
    return Result(status=CheckStatus.FAILED, said=said, hint=hint)


def unknown(said: str, hint: str | None = None) -> Result:
    """Return the Result for a value that the device does not report. `said` names the value, `hint` the effect on runs."""
    return Result(status=CheckStatus.NOT_TOLD, said=said, hint=hint)


def skipped(said: str, hint: str | None = None) -> Result:
    """Return the result of a device check that was not run: `said` is the reason, `hint` the remedy."""
    return Result(status=CheckStatus.NOT_TRIED, said=said, hint=hint)
