"""Hosted profile: what AI Hub says of a graph that it has run -> samples, and the layers that the CPU ran. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quadbench.ai_hub import JobStatus
from quadbench.artifacts import Graph, Sample
from quadbench.artifacts.names import one_line
from quadbench.errors import ServiceError

_NS_PER_US = 1000


@dataclass(frozen=True, kw_only=True)
class GraphProfile:
    """One graph's job, and the service's summary of it: empty where the job failed."""

    graph: Graph
    status: JobStatus
    profile: dict[str, Any]


class _Told(BaseModel):
    # Strict: a number is a finite number, not a text that looks like one, nor true.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Summary(_Told):
    estimated_inference_time: float | None = None
    all_inference_times: Sequence[float] | None = None
    first_load_time: float | None = None
    all_first_load_times: Sequence[float] | None = None
    warm_load_time: float | None = None
    all_warm_load_times: Sequence[float] | None = None
    inference_memory_peak_range: Sequence[float] | None = Field(default=None, min_length=2, max_length=2)


class _Layer(_Told):
    name: str
    compute_unit: str


class _HubProfile(_Told):
    execution_summary: _Summary
    execution_detail: Sequence[_Layer] | None = None


def samples_of(profiled: GraphProfile, labels: Mapping[str, str]) -> Iterator[Sample]:
    """A profile in nanoseconds and bytes; the service gives microseconds and bytes. Memory is the upper end of its range.

    Raises:
        ServiceError: the profile has another form than the service's.
    """
    if not profiled.status.is_ok:
        return
    summary = _told(profiled).execution_summary

    def sample(metric: str, value: float, iteration: int | None = None) -> Sample:
        component = profiled.graph.component
        return Sample(metric=metric, value=float(value), component=component, iteration=iteration, labels=dict(labels))

    runs_us = summary.all_inference_times or _one(summary.estimated_inference_time)
    if not runs_us:
        raise _other_form(profiled, "it has neither all_inference_times nor estimated_inference_time")
    for iteration, time_us in enumerate(runs_us):
        yield sample("inference_ns", time_us * _NS_PER_US, iteration)
    for time_us in summary.all_first_load_times or _one(summary.first_load_time):
        yield sample("first_load_ns", time_us * _NS_PER_US)
    for time_us in summary.all_warm_load_times or _one(summary.warm_load_time):
        yield sample("session_load_ns", time_us * _NS_PER_US)
    if memory := summary.inference_memory_peak_range:
        yield sample("inference_peak_bytes", memory[1])


def cpu_layers(profiled: GraphProfile) -> list[str]:
    """The layers that the CPU ran, by name.

    Raises:
        ServiceError: the profile has another form than the service's.
    """
    if not profiled.status.is_ok:
        return []
    return [one_line(layer.name) for layer in _told(profiled).execution_detail or () if layer.compute_unit == "CPU"]


def fewest_runs(samples: Iterable[Sample]) -> int:
    """Return how often that graph was run that was run the least; 0 where none was."""
    runs = Counter((sample.component, *sample.labels.items()) for sample in samples if sample.metric == "inference_ns")
    return min(runs.values(), default=0)


def _told(profiled: GraphProfile) -> _HubProfile:
    try:
        return _HubProfile.model_validate(profiled.profile)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise _other_form(profiled, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _other_form(profiled: GraphProfile, reason: str) -> ServiceError:
    return ServiceError(
        f"the profile of AI Hub's job '{profiled.status.job}' has another form than this quadbench reads: {one_line(reason)}",
        hint="see the job's page at AI Hub, and whether there is a newer quadbench",
    )


def _one(value: float | None) -> list[float]:
    return [value] if value else []
