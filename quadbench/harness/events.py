"""Events: the lines that the harness writes -> samples, images and how it ended."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from quadbench.artifacts import Sample

_SHOWN_CHARS = 80


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Header(_Event):
    """The first line: which harness runs which plan on what."""

    event: Literal["header"]
    schema_version: Literal[1]
    harness_version: str
    build_type: str
    commit: str
    runtime_version: str
    plan_sha256: str
    variant: str
    cpu: str
    started_at: str


class SampleEvent(_Event):
    """One measured value."""

    event: Literal["sample"]
    metric: str
    value: FiniteFloat
    task: str | None = None
    component: str | None = None
    iteration: int | None = None
    step: int | None = None
    item: str | None = None
    is_warmup: bool | None = None
    labels: dict[str, str] | None = None


class ImageEvent(_Event):
    """An image that the harness wrote on the device."""

    event: Literal["image"]
    task: str
    item: str
    path: str
    sha256: str


class ErrorEvent(_Event):
    """A failure, in the harness's words."""

    event: Literal["error"]
    message: str
    where: str | None = None


class Footer(_Event):
    """The last line: how the launch ended and how many samples it gave."""

    event: Literal["footer"]
    status: Literal["OK", "FAILED"]
    samples: int
    wall_ns: int


Event = Annotated[Header | SampleEvent | ImageEvent | ErrorEvent | Footer, Field(discriminator="event")]
_EVENT: TypeAdapter[Header | SampleEvent | ImageEvent | ErrorEvent | Footer] = TypeAdapter(Event)


@dataclass(kw_only=True)
class Heard:
    """The events of one launch so far. `problem` names the first line that is no event; the good ones around it are kept."""

    header: Header | None = None
    samples: list[Sample] = field(default_factory=list)
    images: list[ImageEvent] = field(default_factory=list)
    errors: list[ErrorEvent] = field(default_factory=list)
    footer: Footer | None = None
    lines: int = 0
    problem: str | None = None

    def take(self, line: str) -> None:
        """Read the next line."""
        self.lines += 1
        try:
            event = _EVENT.validate_json(line)
        except ValidationError as error:
            self._object(f"is no event ({_first(error)}): {_shortened(line)}")
            return
        if self.footer is not None:
            self._object(f"comes after the footer: {_shortened(line)}")
        elif (self.header is None) != isinstance(event, Header) and not self._may_lack_header(event):
            self._object(f"is a {event.event}; expected the header first, and once")
        self._keep(event)

    def _may_lack_header(self, event: Header | SampleEvent | ImageEvent | ErrorEvent | Footer) -> bool:
        """Say whether an event may come first: the harness answers a plan that it refuses with an error and a footer alone."""
        return isinstance(event, ErrorEvent) or (isinstance(event, Footer) and bool(self.errors))

    def _object(self, complaint: str) -> None:
        if self.problem is None:
            self.problem = f"line {self.lines} of the harness's output {complaint}"

    def _keep(self, event: Header | SampleEvent | ImageEvent | ErrorEvent | Footer) -> None:
        match event:
            case Header():
                self.header = self.header or event
            case SampleEvent():
                self.samples.append(_sample(event))
            case ImageEvent():
                self.images.append(event)
            case ErrorEvent():
                self.errors.append(event)
            case Footer():
                self.footer = self.footer or event


def _sample(event: SampleEvent) -> Sample:
    return Sample(
        metric=event.metric,
        value=event.value,
        task=event.task,
        component=event.component,
        iteration=event.iteration,
        step=event.step,
        item=event.item,
        is_warmup=bool(event.is_warmup),
        labels=event.labels or {},
    )


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _shortened(line: str) -> str:
    return repr(line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}...")
