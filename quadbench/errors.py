"""Errors: everything that quadbench raises on purpose.

QuadbenchError                      exit code  meaning
├── UserError                       2          wrong input; nothing was changed
│   ├── SpecError                   2          a YAML file is wrong: every problem of it at once
│   ├── UnknownNameError            2          a name that is not among the known ones
│   ├── TooLargeError               2          it is larger than what is shown of its kind
│   ├── NoTimeError                 2          a run in whose time no launch could be begun
│   └── AdapterError                2          an adapter that cannot be used
├── ArtifactError                   3          a bundle, manifest or cached product is damaged or does not fit
│   ├── NotStoredError              3          a store does not have it: it was not sent, or is removed
│   └── StorageError                3          the results folder or a store is full, cannot be used, or is none
├── BuildError                      4          quantizing or compiling failed
│   └── ServiceError                4          a service that compiles or measures for us refuses or does not answer
│       └── JobFailedError          4          a job that a service or a farm has taken failed there or was cancelled
├── DeviceError                     5          a device is absent, lost, full or refuses
│   ├── DeviceNotFoundError         5
│   ├── DeviceLostError             5          transient, unless it was closed or ended
│   ├── DeviceFullError             5
│   ├── DeviceInUseError            5          another process on this machine has the device
│   ├── LeaseError                  5          somebody else has the device, or has had it meanwhile
│   │   └── AttemptOverError        5          an attempt at a job of the farm is over, and another may have begun
│   ├── OutputLimitError            5          a command on the device, or a file there, gives more than is read
│   ├── CommandError                5          a command on the device ended with a status other than 0
│   └── CommandTimeoutError         5          a command on the device took too long and was killed
├── HarnessError                    6          the program on the device failed, was killed or gave a wrong result
├── MissingDependencyError          7          a program or package that this command needs is not installed
└── ConditionError                 8          a condition of `--fail-if` holds, or a figure that it needs is missing

RunInterrupted is Ctrl-C after a run has begun, which can go on; FarmGoesOn is Ctrl-C while others do the run.

1 is an unexpected error; 130 is Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches

_SHOWN_PROBLEMS = 50  # of one file
_SHOWN_CHARACTERS = 60  # of a text from outside
_LEAST_PART = 4  # characters of a name by which it may be meant, as those that end an id


def shown(text: str) -> str:
    """Return a text from outside as messages name it: quoted, without control characters, and not too long to read."""
    return repr(short(text))


def short(text: str) -> str:
    """Return a text from outside, cut where it is too long to read."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


class QuadbenchError(Exception):
    """Base of the tree. `hint` says what to do next; `transient` says whether trying again may help."""

    exit_code = 1
    transient = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. Hint: {self.hint}" if self.hint else self.message


class UserError(QuadbenchError):
    """The error of wrong input; nothing was changed."""

    exit_code = 2


class SpecError(UserError):
    """The error of a YAML file with problems, each a line `file:line: key: reason`."""

    def __init__(self, problems: Iterable[str], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        left_out = len(self.problems) - _SHOWN_PROBLEMS
        more = [f"and {left_out} more problems"] if left_out > 0 else []
        super().__init__("\n".join((*self.problems[:_SHOWN_PROBLEMS], *more)), hint=hint)


class UnknownNameError(UserError):
    """An unknown name, as an error: the message lists those, where they are told, and proposes the nearest.

    Of more than `most` it lists the last, which are the latest where they are ids. `labels` say by name of which kind each is.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        most: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.name = name
        said = {one: f"{one} ({labels[one]})" if labels else one for one in sorted(known or ())}
        listed = list(said.values())[-most:] if most else list(said.values())
        of_many = f"the latest {len(listed)} of {len(said)}: " if len(listed) < len(said) else ""
        parts = [one for one in said if name in one] if len(name) >= _LEAST_PART else []
        near = get_close_matches(name[:_SHOWN_CHARACTERS], list(said), n=1) or parts[-1:]
        meant = [f"did you mean '{one}'{said[one].removeprefix(one)}?" for one in near]
        asked, names = shown(name)[1:-1], of_many + (", ".join(listed) or "none")
        super().__init__(
            f"unknown {kind} '{asked}'" if known is None else f"unknown {kind} '{asked}'; known: {names}",
            hint=" ".join(filter(None, (*meant, hint))) or None,
        )


class TooLargeError(UserError):
    """The error of what is larger than what is shown of its kind. The message names it without the place of its folder."""


class NoTimeError(UserError):
    """The error of a run that was given less time than it takes to begin its first launch."""


class AdapterError(UserError):
    """The error of an adapter that cannot be used: its format, its values or its sites."""


class ArtifactError(QuadbenchError):
    """The error of a bundle, manifest or cached product that is damaged or does not fit its use."""

    exit_code = 3


class NotStoredError(ArtifactError):
    """The error of an artifact, a launch's files or a content that a store does not have: it was not sent, or is removed."""


class StorageError(ArtifactError):
    """The error of a results folder or a store, or a file there, that cannot be used: it is full, closed, gone or none."""


class BuildError(QuadbenchError):
    """The error of a failed quantization or compilation."""

    exit_code = 4


class ServiceError(BuildError):
    """The error of a service for compiling or measuring that refuses or does not answer. `is_absent`: it knows no such id."""

    def __init__(self, message: str, *, transient: bool = False, is_absent: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient
        self.is_absent = is_absent


class JobFailedError(ServiceError):
    """The error of a job that a service has taken and that failed there."""


class DeviceError(QuadbenchError):
    """The error of a device that refuses what was asked of it."""

    exit_code = 5


class DeviceNotFoundError(DeviceError):
    """The error of an address to which no attached device answers."""


class DeviceLostError(DeviceError):
    """The error of a device that went away in the middle of something. One that is not `transient` will not be back."""

    def __init__(self, message: str, *, transient: bool = True, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient


class DeviceFullError(DeviceError):
    """The error of a device with too little free space for what would be pushed."""


class DeviceInUseError(DeviceError):
    """The error of a device that another process on this machine has; it may be waited for."""


class LeaseError(DeviceError):
    """The error of a device that somebody else has, or of a lease that is over: nothing is done on the device, nothing stored."""


class AttemptOverError(LeaseError):
    """The error of a worker whose attempt at a job is over: it does nothing more, and nothing of it is stored."""


class OutputLimitError(DeviceError):
    """The error of a command on the device, or of a file there, that gives more than is read."""


class CommandError(DeviceError):
    """The error of a command on the device that ended with `status`, not 0; `stderr_tail` is the end of its stderr."""

    def __init__(self, message: str, *, status: int, stderr_tail: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.stderr_tail = stderr_tail


class CommandTimeoutError(DeviceError):
    """The error of a command on the device that took too long and was killed."""


class HarnessError(QuadbenchError):
    """The error of the program on the device: it failed, was killed or gave a wrong result."""

    exit_code = 6


class MissingDependencyError(QuadbenchError):
    """The error of a program or package that this command needs and that is not installed."""

    exit_code = 7


class ConditionError(QuadbenchError):
    """The error of a run for which a condition of `--fail-if` holds, or cannot be told."""

    exit_code = 8


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C after a run has begun. What was measured is stored, and the run with this id can go on."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class FarmGoesOn(KeyboardInterrupt):
    """Ctrl-C while a farm was waited for, which does what it was told to all the same; the text says so and what can be done."""


@contextmanager
def package_needed(purpose: str, *, hint: str) -> Iterator[None]:
    """Wrap imports of what may not be installed. Any other fault of an import is one of the code and passes as it is.

    Raises:
        MissingDependencyError: names the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            raise
        raise MissingDependencyError(f"{purpose} needs the package '{error.name}'", hint=hint) from error


def extra_needed(extra: str) -> AbstractContextManager[None]:
    """Wrap imports of what one of quadbench's extras brings, as `quad` or `quality`.

    Raises:
        MissingDependencyError: names the package and how to install the extra.
    """
    return package_needed("this", hint=f"pip install 'quadbench[{extra}]'")
