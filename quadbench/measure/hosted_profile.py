"""Hosted profile: what AI Hub says of a graph that it has run -> samples, and the layers that the CPU ran. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quadbench.ai_hub import JobStatus
from quadbench.artifacts import Graph, Sample

_NS_PER_US = 1000
_LOADS = {"first_load_ns": "first_load", "session_load_ns": "warm_load"}


@dataclass(frozen=True, kw_only=True)
class GraphProfile:
    """One graph's job, and the service's summary of it: empty where the job failed."""

    graph: Graph
    status: JobStatus
    profile: dict[str, Any]


def samples_of(profiled: GraphProfile, labels: Mapping[str, str]) -> Iterator[Sample]:
    """A profile in nanoseconds and bytes; the service gives microseconds and bytes. Memory is the upper end of its range."""
    if not profiled.status.is_ok:
        return
    summary: dict[str, Any] = profiled.profile["execution_summary"]

    def sample(metric: str, value: float, iteration: int | None = None) -> Sample:
        component = profiled.graph.component
        return Sample(metric=metric, value=float(value), component=component, iteration=iteration, labels=dict(labels))

    runs_us = summary.get("all_inference_times") or [summary["estimated_inference_time"]]
    for iteration, time_us in enumerate(runs_us):
        yield sample("inference_ns", time_us * _NS_PER_US, iteration)
    for metric, key in _LOADS.items():
        for time_us in summary.get(f"all_{key}_times") or filter(None, [summary.get(f"{key}_time")]):
            yield sample(metric, time_us * _NS_PER_US)
    if memory := summary.get("inference_memory_peak_range"):
        yield sample("inference_peak_bytes", memory[1])


def cpu_layers(profiled: GraphProfile) -> list[str]:
    """The layers that the CPU ran, by name."""
    return [layer["name"] for layer in profiled.profile.get("execution_detail", ()) if layer["compute_unit"] == "CPU"]
