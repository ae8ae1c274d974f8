"""All error classes that quadbench raises, with their exit codes.

QuadbenchError                      exit code  meaning
├── UserError                       2          wrong input; nothing was changed
│   ├── SpecError                   2          a YAML file has problems; the error lists all of them
│   ├── UnknownNameError            2          a name that is not among the known ones
│   ├── TooLargeError               2          a file or answer is too large to be shown in the web interface
│   ├── NoTimeError                 2          the run's time budget ended before its first launch
│   └── AdapterError                2          an adapter that cannot be used
├── ArtifactError                   3          a bundle, manifest or cached product is damaged or does not fit
│   ├── NotStoredError              3          the store lacks the content: it was never sent, or was removed
│   └── StorageError                3          the results folder or a store is full, unusable or absent
├── BuildError                      4          quantizing or compiling failed
│   └── ServiceError                4          a remote compile or measurement service refuses or does not answer
│       └── JobFailedError          4          a job at a service or a farm failed or was cancelled
├── DeviceError                     5          a device is absent, lost, full or refuses
│   ├── DeviceNotFoundError         5          no attached device has this address
│   ├── DeviceLostError             5          the connection broke; transient, unless we closed it
│   ├── DeviceFullError             5          too little free space on the device
│   ├── DeviceInUseError            5          another process on this machine has the device
│   ├── LeaseError                  5          another job holds the device's lease, or ours has ended
│   │   └── AttemptOverError        5          this attempt at a farm job has ended; another may have begun
│   ├── OutputLimitError            5          a device's command output or file exceeds the read limit
│   ├── CommandError                5          a command on the device ended with a status other than 0
│   └── CommandTimeoutError         5          a command on the device took too long and was killed
├── HarnessError                    6          the program on the device failed, was killed or gave a wrong result
├── MissingDependencyError          7          a program or package that this command needs is not installed
└── ConditionError                 8          a condition of `--fail-if` holds, or a figure that it needs is missing

RunInterrupted is Ctrl-C after a run has begun; the run can be resumed. FarmWaitInterrupted is Ctrl-C during a wait for a farm.

Other exit codes: 1 is an unexpected error, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from pathlib import Path

_SHOWN_PROBLEMS = 50  # for each file
_SHOWN_CHARACTERS = 60  # shown of a text from outside
_MIN_PART = 4  # shortest part of a known name, such as the end of an id, that is taken for it


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the known name that is most like a given one, in a list, which is empty if none is similar. Swapped letters count
    as the most likely slip."""
    return sorted(get_close_matches(name, list(known), n=10), key=lambda one: sorted(one) != sorted(name))[:1]


def quote(text: str) -> str:
    """Return untrusted text for a message: in quotes, with control characters escaped, and cut to 60 characters."""
    return repr(shortened_text(text))


def shortened_text(text: str) -> str:
    """Return untrusted text, cut to at most 60 characters."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


class QuadbenchError(Exception):
    """Base class of all errors. `hint` says what to do next; `transient` says whether trying again may help."""

    exit_code = 1
    transient = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. Hint: {self.hint}" if self.hint else self.message


class UserError(QuadbenchError):
    """Raised for wrong input; nothing was changed."""

    exit_code = 2


class SpecError(UserError):
    """Raised for a YAML file with problems. The message has a line `file:line: key: reason` for each problem."""

    def __init__(self, problems: Iterable[str], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        left_out = len(self.problems) - _SHOWN_PROBLEMS
        more = [f"and {left_out} more problems"] if left_out > 0 else []
        super().__init__("\n".join((*self.problems[:_SHOWN_PROBLEMS], *more)), hint=hint)


class UnknownNameError(UserError):
    """Raised for an unknown name. The message lists the known names, if given, and suggests the most similar one.

    If there are more than `most`, it lists only the last ones: with run ids, the latest. `labels` maps a name to its kind.
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
        texts = {one: f"{one} ({labels[one]})" if labels else one for one in sorted(known or ())}
        listed = list(texts.values())[-most:] if most else list(texts.values())
        of_many = f"the latest {len(listed)} of {len(texts)}: " if len(listed) < len(texts) else ""
        parts = [one for one in texts if name in one] if len(name) >= _MIN_PART else []
        near = nearest(name[:_SHOWN_CHARACTERS], texts) or parts[-1:]
        meant = [f"did you mean '{one}'{texts[one].removeprefix(one)}?" for one in near]
        asked, names = quote(name)[1:-1], of_many + (", ".join(listed) or "none")
        super().__init__(
            f"unknown {kind} '{asked}'" if known is None else f"unknown {kind} '{asked}'; known: {names}",
            hint=" ".join(filter(None, (*meant, hint))) or None,
        )


class TooLargeError(UserError):
    """Raised when a file or answer is too large to show in the web interface. The message names the file without its folder."""


class NoTimeError(UserError):
    """Raised when the time budget of a run ends before the run's first launch."""


class AdapterError(UserError):
    """Raised for a LoRA adapter that cannot be used because of its format, its values or the layers it changes."""


class ArtifactError(QuadbenchError):
    """Raised for a bundle, manifest or cached build product that is damaged, or that is unsuitable for its intended use."""

    exit_code = 3


class NotStoredError(ArtifactError):
    """Raised when a store lacks an artifact, a launch or a file's content, for example because a cleanup removed it."""


class StorageError(ArtifactError):
    """Raised when a folder, file, database or store cannot be read or written, for example because the disk is full."""


class BuildError(QuadbenchError):
    """Raised when quantization or compilation fails."""

    exit_code = 4


class ServiceError(BuildError):
    """Raised when a compile or measurement service refuses or does not answer. `is_absent` means: no such model or job exists."""

    def __init__(self, message: str, *, transient: bool = False, is_absent: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient
        self.is_absent = is_absent


class JobFailedError(ServiceError):
    """Raised when a compile or measurement service has accepted a job and the job then fails."""


class DeviceError(QuadbenchError):
    """Raised when a device refuses a request."""

    exit_code = 5


class DeviceNotFoundError(DeviceError):
    """Raised when no attached device has the given address."""


class DeviceLostError(DeviceError):
    """Raised when the connection to a device breaks. If `transient` is false, the device will not come back."""

    def __init__(self, message: str, *, transient: bool = True, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient


class DeviceFullError(DeviceError):
    """Raised when a device has too little free space for the files to push."""


class DeviceInUseError(DeviceError):
    """Raised when another process on this machine uses the device; waiting may help."""


class LeaseError(DeviceError):
    """Raised when another job holds the device, or this job's lease is over. The job leaves the device and stores nothing."""


class AttemptOverError(LeaseError):
    """Raised when an attempt at a farm job is over, e.g. because its host stood still. The attempt ends and stores nothing."""


class OutputLimitError(DeviceError):
    """Raised when a command's output or a file on the device exceeds the read limit."""


class CommandError(DeviceError):
    """Raised when a device command ends with a nonzero exit code, `status`; `stderr_tail` is the end of its stderr."""

    def __init__(self, message: str, *, status: int, stderr_tail: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.stderr_tail = stderr_tail


class CommandTimeoutError(DeviceError):
    """Raised when a command on the device takes too long and is killed."""


class HarnessError(QuadbenchError):
    """Raised when the program on the device fails, is killed or gives a wrong result."""

    exit_code = 6


class MissingDependencyError(QuadbenchError):
    """Raised when a program or package that the command needs is not installed."""

    exit_code = 7


class ConditionError(QuadbenchError):
    """Raised when a condition of `--fail-if` holds for a run, or when a metric that the condition needs is missing."""

    exit_code = 8


class RunInterrupted(KeyboardInterrupt):
    """Raised for Ctrl-C after a run has begun. The run's measurements so far are stored; `run_id` is the run to resume."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class FarmWaitInterrupted(KeyboardInterrupt):
    """Raised for Ctrl-C while waiting for a farm. The farm finishes the job; the message says how to cancel or follow it."""


@contextmanager
def requires_package(purpose: str, *, hint: str) -> Iterator[None]:
    """Turn a ModuleNotFoundError in the `with` block into MissingDependencyError, unless the module belongs to quadbench."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            raise
        raise MissingDependencyError(f"{purpose} needs the package '{error.name}'", hint=hint) from error


def requires_extra(extra: str) -> AbstractContextManager[None]:
    """Return a context manager that turns ModuleNotFoundError into MissingDependencyError. `extra` is the pip extra needed."""
    return requires_package("this", hint=extra_hint(extra))


def extra_hint(extra: str) -> str:
    """Return the command that installs one of quadbench's extras, for pipx, uv or pip, whichever installed quadbench."""
    return package_hint(f"quadbench[{extra}]")


def package_hint(requirement: str) -> str:
    """Return the command that installs a pip requirement beside quadbench, for pipx, uv or pip, whichever installed quadbench."""
    if Path(sys.prefix, "pipx_metadata.json").is_file():
        return f"pipx inject quadbench {shlex.quote(requirement)}"
    if Path(sys.prefix, "uv-receipt.toml").is_file():
        return f"uv pip install --python {shlex.quote(sys.executable)} {shlex.quote(requirement)}"
    pip = shutil.which("pip")
    is_ours = pip is not None and Path(pip).parent == Path(sys.executable).parent
    return f"{'pip' if is_ours else f'{shlex.quote(sys.executable)} -m pip'} install {shlex.quote(requirement)}"
