"""Hosted: a compiled bundle and a device at AI Hub -> a RunRecord for each variant, of its graphs run there one by one.

The service runs single graphs with random inputs: times and memory of each, but no images, switches or end-to-end times.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from quadbench.ai_hub import HostedDevice, Jobs, Ledger, failure, graph_name, open_hub, profile_options
from quadbench.artifacts import (
    HOSTED_FAMILY,
    Bundle,
    Caveat,
    CompiledBundle,
    DeviceFacts,
    ErrorClass,
    Graph,
    RunRecord,
    Sample,
    Status,
    Stored,
    Variant,
)
from quadbench.artifacts.names import one_line
from quadbench.artifacts.run_record import adapters_of, components_of, unets_of, with_own_graph
from quadbench.devices import HostedPhone
from quadbench.errors import UnknownNameError
from quadbench.measure.hosted_profile import GraphProfile, cpu_layers, fewest_runs, samples_of
from quadbench.statistics import ENOUGH_SAMPLES
from quadbench.target.targets import AiHubTarget


def measure_hosted(
    bundle: Bundle,
    compiled: Stored[CompiledBundle],
    phone: HostedPhone,
    *,
    run_id: str,
    iterations: int,
    ledger: Path,
    notify: Callable[[str], None],
) -> tuple[RunRecord, ...]:
    """Run every graph on the phone once, `iterations` times in a row. A job that failed makes its variant's record FAILED.

    Jobs that an earlier run submitted and did not see the end of are waited for instead of submitted again.

    Raises:
        ServiceError: the service refuses or does not answer, or the jobs are not done in time.
        MissingDependencyError, UnknownNameError: client, configuration or device are not there.
    """
    started_at = datetime.now(UTC)
    hub, target = open_hub(), phone.target
    devices = hub.devices()
    if target.device not in devices:
        raise UnknownNameError("AI Hub device", target.device, devices)
    jobs = Jobs(hub=hub, ledger=Ledger(path=ledger, url=hub.url), timeout_s=target.timeout_s, notify=notify)
    work = _HostedRun(
        bundle=bundle,
        compiled=compiled.artifact,
        device=_facts(phone, devices[target.device]),
        run_id=run_id,
        started_at=started_at,
        profiles=_profiles(jobs, compiled, target, iterations),
    )
    variants = {graph.variant for graph in compiled.artifact.graphs}
    return tuple(work.record(variant) for variant in Variant if variant in variants)


def _profiles(jobs: Jobs, compiled: Stored[CompiledBundle], target: AiHubTarget, iterations: int) -> dict[str, GraphProfile]:
    """Return what the service measured, by the graphs' names."""
    graphs = {_name(graph): graph for graph in compiled.artifact.graphs}
    options = {name: profile_options(graph, target, iterations=iterations) for name, graph in graphs.items()}
    parts = {
        name: {"profile": graph.file.sha256, "device": target.device, "options": options[name]} for name, graph in graphs.items()
    }

    def submit(name: str) -> str:
        file = graphs[name].file
        return jobs.hub.submit_profile(jobs.uploaded(compiled.path(file), file.path), target.device, options[name], name)

    submitted = {name: jobs.submitted(partial(submit, name), **parts[name]) for name in graphs}
    profiles = {
        name: GraphProfile(graph=graphs[name], status=status, profile=jobs.hub.profile(status.job) if status.is_ok else {})
        for name, status in jobs.ended(submitted).items()
    }
    for part in parts.values():
        jobs.done(**part)
    return profiles


@dataclass(frozen=True, kw_only=True)
class _HostedRun:
    """One run of a bundle's graphs on one device, from which its records are made."""

    bundle: Bundle
    compiled: CompiledBundle
    device: DeviceFacts
    run_id: str
    started_at: datetime
    profiles: Mapping[str, GraphProfile]

    def record(self, variant: Variant) -> RunRecord:
        graphs = self._graphs(variant)
        profiles = {_name(graph): self.profiles[_name(graph)] for graph, _ in graphs}
        failed = [failure(name, one.status).message for name, one in profiles.items() if not one.status.is_ok]
        samples = [sample for graph, labels in graphs for sample in samples_of(self.profiles[_name(graph)], labels)]
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
            versions=_versions(self.bundle, self.compiled),
            state=dict(_state(profiles)),
            samples=(*samples, *self._rom_samples(variant, graphs)),
        )

    def _graphs(self, variant: Variant) -> list[tuple[Graph, dict[str, str]]]:
        """Return the graphs that a variant runs, with the labels of their samples; the variants share text encoder and VAE."""
        own = with_own_graph(self.bundle)
        tasks = [task for task in self.bundle.tasks if task.name in own or not variant.has_unet_per_task]
        return [
            *((graph, {}) for graph in components_of(self.bundle, self.compiled, variant).values()),
            *((graph, {"unet": name}) for name, graph in unets_of(self.bundle, self.compiled, variant, tasks).items()),
        ]

    def _rom_samples(self, variant: Variant, graphs: list[tuple[Graph, dict[str, str]]]) -> Iterator[Sample]:
        """Yield the sizes of the files that a device of this kind would hold."""
        for graph, labels in graphs:
            yield Sample(
                metric="rom_bytes",
                value=float(graph.file.size_bytes),
                component=graph.component,
                labels={"kind": "base", **labels},
            )
        for name, adapter in adapters_of(self.bundle, variant, self.bundle.tasks).items():
            size_bytes = float(adapter.file.size_bytes)
            yield Sample(metric="rom_bytes", value=size_bytes, labels={"kind": "adapter", "adapter": name})

    def _caveats(self, profiles: Iterable[GraphProfile], samples: list[Sample]) -> tuple[Caveat, ...]:
        doubts = {*self.bundle.caveats, *self.compiled.caveats}
        if any(cpu_layers(one) for one in profiles):
            doubts.add(Caveat.CPU_FALLBACK)
        if fewest_runs(samples) < ENOUGH_SAMPLES[50]:
            doubts.add(Caveat.FEW_SAMPLES)
        return tuple(caveat for caveat in Caveat if caveat in doubts)


def _state(profiles: Mapping[str, GraphProfile]) -> Iterator[tuple[str, str]]:
    for name, one in profiles.items():
        yield f"job.{name}", f"{one.status.job} {one.status.url}"
        if layers := cpu_layers(one):
            yield f"cpu_layers.{name}", ", ".join(layers)


def _name(graph: Graph) -> str:
    return f"{graph.variant}/{graph_name(graph)}"


def _versions(bundle: Bundle, compiled: CompiledBundle) -> dict[str, str]:
    return {
        "quadbench": version("quadbench"),
        **{f"quad.{tool}": text for tool, text in bundle.tool_versions.items()},
        **{f"compile.{tool}": text for tool, text in compiled.tool_versions.items()},
    }


def _facts(phone: HostedPhone, device: HostedDevice) -> DeviceFacts:
    profile = phone.profile
    return DeviceFacts(
        address=phone.address,
        family=HOSTED_FAMILY,
        serial=device.name,
        profile=profile.name,
        title=profile.title,
        soc_model=profile.soc.model,
        cpu=profile.soc.title,
        android_release=device.android_release or None,
        fingerprint=None,
    )
