"""Events: one line that the harness writes -> an event of its protocol, every field of the type that it has there."""

import posixpath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from quadbench.artifacts.names import is_plain, one_line
from quadbench.spec import first_problem

_SHOWN_CHARACTERS = 80
_WORD_CHARACTERS = 200
_PATH_CHARACTERS = 4096
_MOST_LABELS = 8


def _plain(text: str) -> str:
    if not is_plain(text):
        raise ValueError("it has characters that cannot be shown")
    return text


def _whole_path(text: str) -> str:
    """Return a path without `.`, `..` and doubled slashes, as a loader may have come to it."""
    path = posixpath.normpath("/" + text.lstrip("/"))
    if path == "/":
        raise ValueError("it names no file")
    return path


Word = Annotated[str, Field(max_length=_WORD_CHARACTERS), AfterValidator(_plain)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Event(BaseModel):
    # Strict: a number is a finite number, not a text that looks like one, nor true.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Header(_Event):
    """The first line: which harness runs which plan on what.

    `peak_reset` says whether the kernel lets peaks of memory begin anew; where it does not, all reach back to the start.
    """

    event: Literal["header"]
    schema_version: Annotated[int, Field(ge=1, le=1)]
    harness_version: Word
    build_type: Word
    commit: Word
    runtime_version: Word
    plan_sha256: Digest
    variant: Word
    cpu: Word
    started_at: Word
    peak_reset: bool


class SampleEvent(_Event):
    """One measured value."""

    event: Literal["sample"]
    metric: Word
    value: float
    task: Word | None = None
    component: Word | None = None
    iteration: Count | None = None
    step: Count | None = None
    item: Word | None = None
    is_warmup: bool | None = None
    labels: Annotated[dict[Word, Word], Field(max_length=_MOST_LABELS)] | None = None


class ImageEvent(_Event):
    """An image that the harness wrote on the device."""

    event: Literal["image"]
    task: Word
    item: Word
    path: Annotated[str, Field(max_length=_PATH_CHARACTERS), AfterValidator(_plain)]
    sha256: Digest


class LibraryEvent(_Event):
    """A library that the loader has mapped into the harness. `build_id` is None where it has none."""

    event: Literal["library"]
    path: Annotated[str, Field(max_length=_PATH_CHARACTERS, pattern="^/"), AfterValidator(_plain), AfterValidator(_whole_path)]
    build_id: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){1,32}$")] | None


class ErrorEvent(_Event):
    """A failure, in the harness's words, which may be of any length and hold any characters."""

    event: Literal["error"]
    message: str
    where: str | None = None


class Footer(_Event):
    """The last line: how the launch ended and how many samples it gave."""

    event: Literal["footer"]
    status: Literal["OK", "FAILED"]
    samples: Count
    wall_ns: Count


Event = Header | SampleEvent | ImageEvent | LibraryEvent | ErrorEvent | Footer
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_event(line: str) -> Event:
    """Read one line.

    Raises:
        ValueError: it is no event; the message says why and shows its beginning.
    """
    try:
        return _EVENT.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"is no event ({one_line(first_problem(error), _WORD_CHARACTERS)}): {shortened(line)}") from error


def shortened(line: str) -> str:
    """Return the beginning of a line, for messages."""
    return repr(line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}...")
