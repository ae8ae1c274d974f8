"""Kernels: an installation and a launch -> how many nodes of the launch's graphs compute in integers and how many in float."""

from quadbench.artifacts import Component, Graph, LaunchPlan, Sample
from quadbench.artifacts.bundle import KERNEL_NODES
from quadbench.artifacts.run_record import components_of, tasks_of, unets_of
from quadbench.harness.installation import Installation


def kernel_samples(installation: Installation, launch: LaunchPlan) -> tuple[Sample, ...]:
    """Return `kernel_nodes` of every graph that the launch loads, by kind, where the compiler has counted them."""
    bundle, compiled, variant = installation.bundle.artifact, installation.compiled.artifact, launch.variant
    unets = unets_of(bundle, compiled, variant, tasks_of(bundle, launch))
    components = components_of(bundle, compiled, variant)
    graphs = [
        *((graph, part, {}) for part, graph in components.items()),
        *((g, Component.UNET, {"unet": n}) for n, g in unets.items()),
    ]
    return tuple(sample for graph, part, labels in graphs for sample in _of_graph(installation, graph, part, labels))


def _of_graph(installation: Installation, graph: Graph, part: Component, labels: dict[str, str]) -> list[Sample]:
    counts = installation.compiled.artifact.kernels.get(graph.file.path)
    if counts is None or not graph.variant.is_quantized:
        return []
    return [
        Sample(metric=KERNEL_NODES, value=float(number), component=part, labels={**labels, "kind": kind})
        for kind, number in counts.by_kind.items()
    ]
