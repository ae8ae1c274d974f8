"""Checks of a device: their results, as a document without personal data, and how one check runs without costing others."""

import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from quadbench.artifacts.names import one_line
from quadbench.errors import MissingDependencyError, QuadbenchError
from quadbench.observer import Observer
from quadbench.results.layout import plain
from quadbench.spec import Spec

_COMMON_PARTS = 2  # a home as /root or /data names nobody, and may be the beginning of a device's paths

log = logging.getLogger(__name__)


class CheckStatus(StrEnum):
    """The ways in which a check can end."""

    OK = "ok"
    FAILED = "failed"
    NOT_TOLD = "not told"  # the device does not say
    NOT_TRIED = "not tried"


class DeviceCheck(Spec):
    """One thing that was tried on a device."""

    name: str
    """This was tried, in a few words that are always the same."""
    status: CheckStatus
    """It ended so: ok, failed, not told by the device, or not tried."""
    said: str
    """What was found, or why it failed or was not tried."""
    hint: str | None = None
    """This can be done about it. The default is null: nothing has to be."""
    versions: dict[str, str] = Field(default={})
    """Parts of the device's system, or tools and libraries of its launch, have these versions; a library that was loaded has path
    and build id. The default is none."""
    seconds: float = Field(default=0.0, ge=0)
    """It took so many seconds. The default is 0."""


class ExaminedDevice(Spec):
    """The device, as far as it is the same for all of its kind."""

    family: str
    """It is attached (adb), virtual, or this machine (local)."""
    title: str
    """The device profile that recognises it has this title."""
    profile: str
    """The device profile that recognises it has this name."""
    abi: str
    """Programs are built for this ABI to run on it."""
    cpu: str
    """Its chip has this name."""
    android_release: str | None
    """It runs this release of Android; null where it does not say."""
    fingerprint: str | None
    """Its system has this build fingerprint; null where it does not say."""


class BringUp(Spec):
    """Everything that was found out about one device, to be read, and to be attached to a bug report."""

    schema_version: Literal[1] = 1
    """The format of this document has the number 1. The default is 1."""
    quadbench: str
    """This version of quadbench wrote it."""
    started_at: str
    """The first check began at this time, in UTC."""
    address: str
    """The device was addressed so; serial numbers are left out."""
    device: ExaminedDevice | None
    """The device is this one; null where it could not be connected."""
    checks: tuple[DeviceCheck, ...]
    """These things were tried, in this order."""

    @property
    def is_ok(self) -> bool:
        """Say whether nothing failed."""
        return all(check.status is not CheckStatus.FAILED for check in self.checks)

    def impersonal(self, serials: Iterable[str]) -> Self:
        """Return the document without serials of devices and the user's home folder in any of its texts."""
        home = Path.home()
        homes = {str(home)} if len(home.parts) > _COMMON_PARTS else set()
        named = {name for serial in serials if serial for name in (serial, plain(serial))}  # the latter in paths

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
class Answer:
    """The end of a check: what was found, or why it is not ok, what can be done about it, and the versions that it ran with."""

    status: CheckStatus = CheckStatus.OK
    said: str
    hint: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PlannedCheck:
    """A check that can be made. What it raises is a failure, and not tried is what lacks a program, a kit or a compiler."""

    name: str
    act: Callable[[], Answer]

    def made(self, observer: Observer) -> DeviceCheck:
        """Make the check."""
        observer.step("check", self.name)
        began = time.monotonic()
        try:
            answer = self.act()
        except MissingDependencyError as error:
            answer = Answer(status=CheckStatus.NOT_TRIED, said=error.message, hint=error.hint)
        except QuadbenchError as error:
            answer = Answer(status=CheckStatus.FAILED, said=error.message, hint=error.hint)
        except Exception as error:
            # One check must not cost the others, whatever a device has thought of.
            log.info("unexpected error in a check", exc_info=True)
            said = f"unexpected error, a bug of quadbench (-v shows where): {type(error).__name__}: {error}"
            answer = Answer(status=CheckStatus.FAILED, said=said)
        log.info("check: %s: %s: %s", self.name, answer.status, answer.said)
        return DeviceCheck(name=self.name, seconds=round(time.monotonic() - began, 1), **vars(answer))


def failed(said: str, hint: str | None = None) -> Answer:
    """Return the answer where something does not work."""
    return Answer(status=CheckStatus.FAILED, said=said, hint=hint)


def not_told(said: str, hint: str | None = None) -> Answer:
    """Return the answer where a device keeps something to itself."""
    return Answer(status=CheckStatus.NOT_TOLD, said=said, hint=hint)


def not_tried(said: str, hint: str | None = None) -> Answer:
    """Return the answer where something was left out."""
    return Answer(status=CheckStatus.NOT_TRIED, said=said, hint=hint)
