"""Samples: values measured in a launch, in columns. Each sample has a description (metric, task, step) and a plausible range."""

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from itertools import compress
from operator import attrgetter
from typing import overload

MAX_NS = 10.0**17  # three years
MAX_BYTES = 2.0**50
_MAX_COUNTED = {"_ns": MAX_NS, "_bytes": MAX_BYTES}
_MIN_COUNTED = 1.0  # the least value above 0: clocks count whole nanoseconds, files and memory whole bytes
MAX_VALUE = 10.0**17  # of any metric
_PROCESS_METRICS = {"peak_rss_bytes", "load_peak_rss_bytes", "rss_bytes", "pss_bytes"}  # never 0: a process has memory
_MAY_BE_ZERO = {"residual_ns", "memory_sampling_ns"}  # components may explain all of an image's time; memory may go unread

MEMORY_METRICS = frozenset({"rss_bytes", "pss_bytes"})
"""Memory metrics, sampled at time intervals, so the launch plan does not determine how many there are."""
_ABOUT_SWITCHES = {"switch_ns", "first_unet_ns", "end_to_end_ns"}

_METRIC = attrgetter("metric")
_TURNED = bytes.maketrans(b"\0\1", b"\1\0")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleKind:
    """The description of a sample: metric, task, component (such as `unet`), step, evaluation input. `labels` adds details."""

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
    """One measured value with its description. The metric's name ends in the unit (`_ns`, `_bytes`, `_db`); counts have none."""

    value: float


@dataclass(frozen=True, eq=False)
class SampleKinds:
    """The descriptions of a launch's samples, in order of measurement. `each[i]` describes the launch's value number i."""

    each: tuple[SampleKind, ...]

    @cached_property
    def by_metric(self) -> Mapping[str, tuple[int, ...]]:
        """A dict from metric name to the tuple of indices `i` for which `each[i]` describes a sample of the metric."""
        groups = defaultdict[str, list[int]](list)
        for place, kind in enumerate(self.each):
            groups[kind.metric].append(place)
        return {metric: tuple(group) for metric, group in groups.items()}

    @cached_property
    def about_switches(self) -> tuple[int, ...]:
        """The indices `i` for which `each[i]` has the metric `switch_ns`, `first_unet_ns` or `end_to_end_ns`, as a tuple."""
        return tuple(place for place, kind in enumerate(self.each) if kind.metric in _ABOUT_SWITCHES)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryReadings:
    """A launch's memory readings. `is_reading` has a byte for each of the launch's samples, in order: 1 for a memory reading."""

    is_reading: bytes
    kinds: SampleKinds
    values: tuple[float, ...]


class Samples(Sequence[Sample]):
    """The samples of a launch, with descriptions and numbers in separate sequences. Memory readings have sequences of their own.

    Memory is sampled at time intervals. Without those readings, launches of the same plan have equal kinds and can share them.
    `values` is an array of doubles.
    """

    __slots__ = ("_memory", "kinds", "values")

    def __init__(
        self, kinds: Sequence[SampleKind], values: Sequence[float], known: dict[tuple[SampleKind, ...], SampleKinds] | None = None
    ) -> None:
        """Store sample descriptions (`kinds`) and values. Launches with equal descriptions share a copy in the cache `known`."""
        is_reading = bytes(map(MEMORY_METRICS.__contains__, map(_METRIC, kinds)))
        is_planned = is_reading.translate(_TURNED)
        self.kinds = _interned(tuple(compress(kinds, is_planned)), known)
        self.values = array("d", compress(values, is_planned))
        self._memory: MemoryReadings | Callable[[], MemoryReadings] = MemoryReadings(
            is_reading=is_reading,
            kinds=_interned(tuple(compress(kinds, is_reading)), known),
            values=tuple(compress(values, is_reading)),
        )

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> "Samples":
        """Convert a list or tuple of samples to a Samples object. A Samples object is returned unchanged."""
        return samples if isinstance(samples, Samples) else cls(samples, [sample.value for sample in samples])

    @classmethod
    def restored(cls, kinds: SampleKinds, values: "array[float]", memory: Callable[[], MemoryReadings]) -> "Samples":
        """Return samples whose memory readings are what `memory()` returns. It is called when they are first needed."""
        samples = cls.__new__(cls)
        samples.kinds, samples.values, samples._memory = kinds, values, memory
        return samples

    @property
    def memory(self) -> MemoryReadings:
        """Return the memory readings, and which of the samples they are."""
        if not isinstance(self._memory, MemoryReadings):
            self._memory = self._memory()
        return self._memory

    @property
    def parts(self) -> tuple[tuple[SampleKinds, Sequence[float]], ...]:
        """Return the samples as two pairs (descriptions, values): all samples but memory readings, and the memory readings."""
        return (self.kinds, self.values), (self.memory.kinds, self.memory.values)

    def __iter__(self) -> Iterator[Sample]:
        planned, readings = (zip(kinds.each, values, strict=True) for kinds, values in self.parts)
        for is_reading in self.memory.is_reading:
            kind, value = next(readings if is_reading else planned)
            yield Sample(value=value, **{name: getattr(kind, name) for name in KIND_FIELDS})

    def __len__(self) -> int:
        return len(self.memory.is_reading)

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


def _interned(kinds: tuple[SampleKind, ...], known: dict[tuple[SampleKind, ...], SampleKinds] | None) -> SampleKinds:
    return SampleKinds(kinds) if known is None else known.setdefault(kinds, SampleKinds(kinds))


def value_fault(metric: str, value: float) -> str | None:
    """Return why a measured value is implausible, such as `is 0, expected at least 1`; None if it is plausible.

    Times (`..._ns`) are at least 1. Sizes (`..._bytes`) are 0 or at least 1, those of a running process at least 1. Every value
    is finite and below a limit.
    """
    if not math.isfinite(value):
        return f"is {value}, expected a finite number"
    low, high, may_be_zero = value_limits(metric)
    if value < low and not (may_be_zero and value == 0):
        return f"is {value:g}, expected {'0 or ' if may_be_zero else ''}at least {low:g}"
    return f"is {value:g}, expected at most {high:g}" if value > high else None


@lru_cache(maxsize=1000)  # a run has its dozens of metrics in millions of samples
def value_limits(metric: str) -> tuple[float, float, bool]:
    """Return a metric's plausible range as (lowest, highest, may_be_zero). If `may_be_zero`, 0 is plausible in any case."""
    may_be_zero = (metric.endswith("_bytes") and metric not in _PROCESS_METRICS) or metric in _MAY_BE_ZERO
    counted = (most for ending, most in _MAX_COUNTED.items() if metric.endswith(ending))
    return next(((_MIN_COUNTED, most, may_be_zero) for most in counted), (-MAX_VALUE, MAX_VALUE, may_be_zero))
