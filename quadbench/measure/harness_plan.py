"""Harness plan: the artifacts and a LaunchPlan -> the JSON that one launch of the harness reads; pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from quadbench.artifacts import (
    AdapterFile,
    Bundle,
    CompiledBundle,
    Component,
    Deployment,
    FileRef,
    Graph,
    TaskAssets,
    TaskItem,
    Variant,
)
from quadbench.errors import ArtifactError, UnknownNameError
from quadbench.measure.execution_provider import ExecutionProvider
from quadbench.plan import LaunchPlan

PLAN_SCHEMA_VERSION = 1
BASE_UNET = "base"


def harness_plan(
    bundle: Bundle,
    compiled: CompiledBundle,
    deployment: Deployment,
    launch: LaunchPlan,
    *,
    runtime_sha256: str,
    threads: int,
    images: str | None,
    execution_provider: ExecutionProvider | None = None,
) -> dict[str, Any]:
    """The plan as docs/design.md describes it, for the tasks that the launch runs. `images` is a folder on the device,
    `execution_provider` the one that quantized graphs run on, if it is not the CPU's.

    Raises:
        UnknownNameError: the launch names a task that the bundle lacks.
        ArtifactError: a graph, an adapter or a deployed file is missing.
    """
    tasks = tasks_of(bundle, launch)
    components = components_of(bundle, compiled, launch.variant)
    return {
        "schema_version": PLAN_SCHEMA_VERSION,
        "root": deployment.root,
        "variant": launch.variant.value,
        "runtime": {
            "library": deployed_path(deployment, runtime_sha256, "the runtime library"),
            "intra_op_threads": threads,
            **_provider(execution_provider, launch.variant, threads),
        },
        "components": {name.value: _planned(deployment, graph.file) for name, graph in components.items()},
        "unets": {
            name: _planned(deployment, graph.file) for name, graph in unets_of(bundle, compiled, launch.variant, tasks).items()
        },
        "adapters": {
            name: _planned(deployment, adapter.file) for name, adapter in adapters_of(bundle, launch.variant, tasks).items()
        },
        "base": None if launch.variant is Variant.PER_GRAPH else asdict(bundle.base),
        "tasks": {task.name: _task(deployment, task, launch.variant) for task in tasks},
        "sequence": [{"task": b.task, "warmup": b.warmup, "iterations": b.iterations} for b in launch.sequence],
        "images": images,
    }


def _provider(provider: ExecutionProvider | None, variant: Variant, threads: int) -> dict[str, Any]:
    return {"execution_provider": provider.planned(threads)} if provider and variant.is_quantized else {}


def tasks_of(bundle: Bundle, launch: LaunchPlan) -> tuple[TaskAssets, ...]:
    """The tasks that the launch runs, in the bundle's order."""
    wanted = {block.task for block in launch.sequence}
    for name in sorted(wanted - {task.name for task in bundle.tasks}):
        raise UnknownNameError("task", name, (task.name for task in bundle.tasks))
    return tuple(task for task in bundle.tasks if task.name in wanted)


def components_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> dict[Component, Graph]:
    """Text encoder and VAE: the quantized variants share theirs."""
    parts = (Component.TEXT_ENCODER, Component.VAE_ENCODER, Component.VAE_DECODER)
    source = Variant.FLOAT if variant is Variant.FLOAT else Variant.SHARED
    return {part: _graph(_graphs(bundle, compiled, variant), source, part) for part in parts}


def unets_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, Graph]:
    """U-Nets by their names in the plan: `base`, or one for each task."""
    graphs = _graphs(bundle, compiled, variant)
    if variant is Variant.PER_GRAPH:
        return {task.name: _graph(graphs, variant, Component.UNET, task.name) for task in tasks}
    return {BASE_UNET: _graph(graphs, variant, Component.UNET)}


def adapters_of(bundle: Bundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, AdapterFile]:
    """The adapters of the tasks by name, in the variant's dtype; none where they are merged."""
    if variant is Variant.PER_GRAPH:
        return {}
    known = {adapter.name: adapter for adapter in bundle.adapters if adapter.variant is variant}
    wanted = sorted({task.adapter for task in tasks if task.adapter is not None})
    for name in wanted:
        if name not in known:
            raise ArtifactError(f"bundle {bundle.digest} has no {variant} file of adapter '{name}'", hint="build it again")
    return {name: known[name] for name in wanted}


def deployed_path(deployment: Deployment, sha256: str, what: str) -> str:
    """Where a file lies on the device. Raises: ArtifactError where it was not deployed."""
    if sha256 not in deployment.objects:
        count = len(deployment.objects)
        raise ArtifactError(f"{what} (sha256 {sha256}) is not among the {count} deployed files", hint="push the bundle again")
    return deployment.objects[sha256]


def _graphs(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> tuple[Graph, ...]:
    return bundle.graphs if variant is Variant.FLOAT else compiled.graphs


def _graph(graphs: Sequence[Graph], variant: Variant, component: Component, task: str | None = None) -> Graph:
    for graph in graphs:
        if (graph.variant, graph.component, graph.task) == (variant, component, task):
            return graph
    found = ", ".join(sorted(f"{graph.variant}/{graph.task or '-'}/{graph.component}" for graph in graphs)) or "none"
    raise ArtifactError(
        f"no graph {variant}/{task or '-'}/{component} is there; found: {found}", hint="build or compile it again"
    )


def _task(deployment: Deployment, task: TaskAssets, variant: Variant) -> dict[str, Any]:
    is_merged = variant is Variant.PER_GRAPH
    return {
        "kind": task.kind.value,
        "unet": task.name if is_merged else BASE_UNET,
        "adapter": None if is_merged else task.adapter,
        "guidance": task.guidance,
        "table": _file(deployment, task.table),
        "tensors": _file(deployment, task.tensors),
        "items": [_item(deployment, item) for item in task.items],
    }


def _item(deployment: Deployment, item: TaskItem) -> dict[str, Any]:
    return {
        "name": item.name,
        "image": _file(deployment, item.image) if item.image else None,
        "mask": _file(deployment, item.mask) if item.mask else None,
        "input_ids": list(item.input_ids),
        "negative_input_ids": list(item.negative_input_ids),
    }


def _planned(deployment: Deployment, file: FileRef) -> dict[str, str]:
    return {"path": _file(deployment, file), "sha256": file.sha256}


def _file(deployment: Deployment, file: FileRef) -> str:
    return deployed_path(deployment, file.sha256, f"'{file.path}'")
