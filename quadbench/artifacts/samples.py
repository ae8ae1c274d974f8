"""Samples: a launch's values, column by column -> what each is of and which figures read it; launches alike share that. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import compress
from operator import attrgetter
from typing import overload

OF_MEMORY = frozenset({"rss_bytes", "pss_bytes"})
"""Metrics that are read by the clock, whose number therefore follows from no plan."""
_ABOUT_SWITCHES = {"switch_ns", "first_unet_ns", "end_to_end_ns"}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleKind:
    """The thing that a value is of; `labels` are the event's other words."""

    metric: str
    task: str | None = None
    component: str | None = None
    iteration: int | None = None
    step: int | None = None
    item: str | None = None
    is_warmup: bool = False
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample(SampleKind):
    """One measured value. Nanoseconds, bytes and decibels as the metric's name says."""

    value: float


@dataclass(frozen=True, eq=False)
class Kinds:
    """The kinds of values, in the order measured. A figure reads values by their places in it."""

    each: tuple[SampleKind, ...]

    @cached_property
    def by_metric(self) -> Mapping[str, tuple[int, ...]]:
        """The places of each metric."""
        groups = defaultdict[str, list[int]](list)
        for place, kind in enumerate(self.each):
            groups[kind.metric].append(place)
        return {metric: tuple(group) for metric, group in groups.items()}

    @cached_property
    def about_switches(self) -> tuple[int, ...]:
        """The places of switches, first U-Net runs and images, by which one tells which of them followed which."""
        return tuple(place for place, kind in enumerate(self.each) if kind.metric in _ABOUT_SWITCHES)


class Samples(Sequence[Sample]):
    """A launch's samples. Those that the plan asks for, `kinds` and `values`, stand apart from readings of memory.

    How often memory is read follows from no plan, so that launches of one plan are alike but for that.
    """

    __slots__ = ("_is_reading", "_reading_kinds", "_readings", "kinds", "values")

    def __init__(
        self, kinds: Sequence[SampleKind], values: Sequence[float], known: dict[tuple[SampleKind, ...], Kinds] | None = None
    ) -> None:
        """Keep values with their kinds, as many. `known` has the kinds of other launches, and takes these."""
        self._is_reading = bytes(map(OF_MEMORY.__contains__, map(_METRIC, kinds)))
        is_planned = self._is_reading.translate(_TURNED)
        self.kinds = _known(tuple(compress(kinds, is_planned)), known)
        self.values = tuple(compress(values, is_planned))
        self._reading_kinds = _known(tuple(compress(kinds, self._is_reading)), known)
        self._readings = tuple(compress(values, self._is_reading))

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Samples":
        """Return samples column by column."""
        return samples if isinstance(samples, Samples) else cls(samples, [sample.value for sample in samples])

    @property
    def parts(self) -> tuple[tuple[Kinds, tuple[float, ...]], ...]:
        """Return what the plan asks for and the readings of memory, which together are all samples."""
        return (self.kinds, self.values), (self._reading_kinds, self._readings)

    def __iter__(self) -> Iterator[Sample]:
        planned, readings = (zip(kinds.each, values, strict=True) for kinds, values in self.parts)
        for is_reading in self._is_reading:
            kind, value = next(readings if is_reading else planned)
            yield Sample(value=value, **{name: getattr(kind, name) for name in KIND_FIELDS})

    def __len__(self) -> int:
        return len(self._is_reading)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | Sequence[Sample]:
        return tuple(self)[place]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


KIND_FIELDS = tuple(field.name for field in fields(SampleKind))
_METRIC = attrgetter("metric")
_TURNED = bytes.maketrans(b"\0\1", b"\1\0")


def _known(kinds: tuple[SampleKind, ...], known: dict[tuple[SampleKind, ...], Kinds] | None) -> Kinds:
    return Kinds(kinds) if known is None else known.setdefault(kinds, Kinds(kinds))
