"""Checks: what shall be tried on a device, each by its name -> answers; whatever goes wrong in one costs no other."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from quadbench.doctor.document import CheckStatus, DeviceCheck
from quadbench.errors import MissingDependencyError, QuadbenchError
from quadbench.observer import Observer

log = logging.getLogger(__name__)


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
        answer = self._answer()
        log.info("check: %s: %s: %s", self.name, answer.status, answer.said)
        return DeviceCheck(
            name=self.name,
            status=answer.status,
            said=answer.said,
            hint=answer.hint,
            versions=answer.versions,
            seconds=round(time.monotonic() - began, 1),
        )

    def _answer(self) -> Answer:
        try:
            return self.act()
        except MissingDependencyError as error:
            return Answer(status=CheckStatus.NOT_TRIED, said=error.message, hint=error.hint)
        except QuadbenchError as error:
            return Answer(status=CheckStatus.FAILED, said=error.message, hint=error.hint)
        except Exception as error:
            # One check must not cost the others, whatever a device has thought of.
            log.info("unexpected error in a check", exc_info=True)
            said = f"unexpected error, a bug of quadbench (-v shows where): {type(error).__name__}: {error}"
            return Answer(status=CheckStatus.FAILED, said=said)


def failed(said: str, hint: str | None = None) -> Answer:
    """Return the answer where something does not work."""
    return Answer(status=CheckStatus.FAILED, said=said, hint=hint)


def not_told(said: str, hint: str | None = None) -> Answer:
    """Return the answer where a device keeps something to itself."""
    return Answer(status=CheckStatus.NOT_TOLD, said=said, hint=hint)


def not_tried(said: str, hint: str | None = None) -> Answer:
    """Return the answer where something was left out."""
    return Answer(status=CheckStatus.NOT_TRIED, said=said, hint=hint)
