"""Measurement at Qualcomm AI Hub: profile a bundle's graphs one by one on a phone that AI Hub hosts."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quadbench.ai_hub.client import JobStatus, open_client
from quadbench.ai_hub.hub_jobs import HubJobs, Ledger, graph_name, job_failure, profile_options
from quadbench.artifacts import Bundle, Caveat, CompiledBundle, DeviceFacts, ErrorClass, Graph, Sample, StoredCompiled, Variant
from quadbench.artifacts.run_record import HOSTED_FAMILY, RunRecord, Status, adapters_of, own_graph_tasks
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.connections import HostedPhone
from quadbench.errors import ServiceError, UnknownNameError
from quadbench.measure.derived_samples import labelled_graphs
from quadbench.measure.launch_record import tool_versions
from quadbench.statistics.summary import ENOUGH_SAMPLES
from quadbench.target.targets import AiHubTarget

_NS_PER_US = 1000


def measure_hosted(
    bundle: Bundle,
    compiled: StoredCompiled,
    phone: HostedPhone,
    *,
    run_id: str,
    iterations: int,
    ledger: Path,
    notify: Callable[[str], None],
) -> tuple[RunRecord, ...]:
    """Profile each graph `iterations` times on an AI Hub phone. Return a record per variant, FAILED if any graph's job fails.

    If an earlier run left jobs unfinished, wait for these instead of submitting them again.

    Raises:
        ServiceError: the service refuses or does not answer, or the jobs are not done in time.
        MissingDependencyError, UnknownNameError: client, configuration or device do not exist.
    """
    started_at = datetime.now(UTC)
    hub, target = open_client(), phone.target
    devices = hub.devices()
    if target.device not in devices:
        raise UnknownNameError("AI Hub device", target.device, devices)
    jobs = HubJobs(hub=hub, ledger=Ledger(path=ledger, url=hub.url), timeout_s=target.timeout_s, notify=notify)
    profile = phone.profile
    facts = DeviceFacts(
        address=phone.address,
        family=HOSTED_FAMILY,
        serial=target.device,
        profile=profile.name,
        title=profile.title,
        soc_model=profile.soc.model,
        cpu=profile.soc.title,
        android_release=devices[target.device] or None,
        fingerprint=None,
    )
    work = _HostedRun(
        bundle=bundle,
        compiled=compiled.artifact,
        device=facts,
        run_id=run_id,
        started_at=started_at,
        profiles=_profiles(jobs, compiled, target, iterations),
    )
    variants = {graph.variant for graph in compiled.artifact.graphs}
    return tuple(work.record(variant) for variant in Variant if variant in variants)


@dataclass(frozen=True, kw_only=True)
class GraphProfile:
    """The AI Hub profile job of one graph. `profile` is the service's JSON summary; it is empty if the job failed."""

    graph: Graph
    status: JobStatus
    profile: dict[str, Any]


class _ServiceModel(BaseModel):
    # Strict: numbers have to be finite JSON numbers, not numeric strings or booleans.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Summary(_ServiceModel):
    estimated_inference_time: float | None = None
    all_inference_times: Sequence[float] | None = None
    first_load_time: float | None = None
    all_first_load_times: Sequence[float] | None = None
    warm_load_time: float | None = None
    all_warm_load_times: Sequence[float] | None = None
    inference_memory_peak_range: Sequence[float] | None = Field(default=None, min_length=2, max_length=2)


class _Layer(_ServiceModel):
    name: str
    compute_unit: str


class _HubProfile(_ServiceModel):
    execution_summary: _Summary
    execution_detail: Sequence[_Layer] | None = None


def samples_of(profiled: GraphProfile, labels: Mapping[str, str]) -> Iterator[Sample]:
    """Yield the samples of a graph's AI Hub profile. Convert µs to ns. If a memory peak has two bounds, take the upper one."""
    if not profiled.status.is_ok:
        return
    summary = _parse_profile(profiled).execution_summary

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
    """Return the names of a profiled graph's layers that ran on the CPU instead of the NPU."""
    if not profiled.status.is_ok:
        return []
    return [one_line(layer.name) for layer in _parse_profile(profiled).execution_detail or () if layer.compute_unit == "CPU"]


def fewest_runs(samples: Iterable[Sample]) -> int:
    """Count the `inference_ns` samples of each graph and return the smallest count, or 0 without `inference_ns` samples."""
    runs = Counter((sample.component, *sample.labels.items()) for sample in samples if sample.metric == "inference_ns")
    return min(runs.values(), default=0)


def _parse_profile(profiled: GraphProfile) -> _HubProfile:
    try:
        return _HubProfile.model_validate(profiled.profile)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise _other_form(profiled, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _other_form(profiled: GraphProfile, reason: str) -> ServiceError:
    return ServiceError(
        f"the profile of AI Hub's job '{profiled.status.job}' has a format that this quadbench cannot read: {one_line(reason)}",
        hint="check the job's page at AI Hub, and look for a newer quadbench",
    )


def _one(value: float | None) -> list[float]:
    return [value] if value else []


def _profiles(jobs: HubJobs, compiled: StoredCompiled, target: AiHubTarget, iterations: int) -> dict[str, GraphProfile]:
    """Submit an AI Hub profile job for each graph and wait for all jobs. Return a dict from graph name to profile."""
    graphs = {_name(graph): graph for graph in compiled.artifact.graphs}
    options = {name: profile_options(graph, target, iterations=iterations) for name, graph in graphs.items()}
    parts = {
        name: {"profile": graph.file.sha256, "device": target.device, "options": options[name]} for name, graph in graphs.items()
    }

    def submit(name: str) -> str:
        file = graphs[name].file
        return jobs.hub.submit_profile(jobs.upload_once(compiled.path(file), file.path), target.device, options[name], name)

    submitted = {name: jobs.submit_once(partial(submit, name), **parts[name]) for name in graphs}
    profiles = {
        name: GraphProfile(graph=graphs[name], status=status, profile=jobs.hub.profile(status.job) if status.is_ok else {})
        for name, status in jobs.wait_for_end(submitted).items()
    }
    for part in parts.values():
        jobs.forget(**part)
    return profiles


@dataclass(frozen=True, kw_only=True)
class _HostedRun:
    """The finished profile jobs of a bundle's graphs on one AI Hub phone. The run's launch records are made from these jobs."""

    bundle: Bundle
    compiled: CompiledBundle
    device: DeviceFacts
    run_id: str
    started_at: datetime
    profiles: Mapping[str, GraphProfile]

    def record(self, variant: Variant) -> RunRecord:
        own = own_graph_tasks(self.bundle)
        tasks = [task for task in self.bundle.tasks if task.name in own or not variant.has_unet_per_task]
        graphs = labelled_graphs(self.bundle, self.compiled, variant, tasks)
        profiles = {_name(graph): self.profiles[_name(graph)] for graph, _ in graphs}
        failed = [job_failure(name, one.status).message for name, one in profiles.items() if not one.status.is_ok]
        samples = [sample for graph, labels in graphs for sample in samples_of(self.profiles[_name(graph)], labels)]
        state = {f"job.{name}": f"{one.status.job} {one.status.url}" for name, one in profiles.items()}
        state |= {f"cpu_layers.{name}": ", ".join(layers) for name, one in profiles.items() if (layers := cpu_layers(one))}
        sizes = [
            Sample(
                metric="rom_bytes",
                value=float(graph.file.size_bytes),
                component=graph.component,
                labels={"kind": "base", **labels},
            )
            for graph, labels in graphs
        ]
        for name, adapter in adapters_of(self.bundle, variant, self.bundle.tasks).items():
            size_bytes, labels = float(adapter.file.size_bytes), {"kind": "adapter", "adapter": name}
            sizes.append(Sample(metric="rom_bytes", value=size_bytes, labels=labels))
        return RunRecord(
            record_id=uuid.uuid4().hex,
            run_id=self.run_id,
            started_at=self.started_at,
            ended_at=datetime.now(UTC),
            recipe_name=self.bundle.recipe_name,
            recipe_digest=self.bundle.recipe_digest,
            bundle_digest=self.bundle.digest,
            compiled_digest=self.compiled.digest,
            target=self.compiled.target,
            device=self.device,
            variant=variant,
            launch=0,
            status=Status.FAILED if failed else Status.OK,
            error_class=ErrorClass.INFRASTRUCTURE if failed else None,
            reason=one_line("; ".join(failed)) or None,
            caveats=self._caveats(profiles.values(), samples),
            versions=tool_versions(self.bundle, self.compiled),
            state=state,
            samples=(*samples, *sizes),  # sizes are those of the files that such a device would hold
        )

    def _caveats(self, profiles: Iterable[GraphProfile], samples: list[Sample]) -> tuple[Caveat, ...]:
        doubts = {*self.bundle.caveats, *self.compiled.caveats}
        if any(cpu_layers(one) for one in profiles):
            doubts.add(Caveat.CPU_FALLBACK)
        if fewest_runs(samples) < ENOUGH_SAMPLES[50]:
            doubts.add(Caveat.FEW_SAMPLES)
        return tuple(caveat for caveat in Caveat if caveat in doubts)


def _name(graph: Graph) -> str:
    return f"{graph.variant}/{graph_name(graph)}"
