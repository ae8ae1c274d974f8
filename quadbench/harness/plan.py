"""Plan: an installation and what a launch runs -> the JSON that the harness reads, as docs/harness.md describes it. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from quadbench.artifacts import AdapterFile, FileRef, Graph, LaunchPlan, TaskAssets, TaskItem, Variant
from quadbench.artifacts.bundle import MIB
from quadbench.artifacts.run_record import BASE_UNET, adapters_of, components_of, mixes_of, tasks_of, unets_of
from quadbench.harness.installation import Installation
from quadbench.recipe import Runtime

PLAN_SCHEMA_VERSION = 2
REFUSED_EXIT_CODE = 2  # with which the harness ends where the plan, or a file that it names, is wrong


def harness_plan(installation: Installation, launch: LaunchPlan, *, runtime: Runtime, images: str | None) -> dict[str, Any]:
    """Return the plan for the tasks that the launch runs. `images` is a folder on the device; None writes no images.

    Raises:
        UnknownNameError: the launch names a task that the bundle lacks.
        ArtifactError: a graph, an adapter or a deployed file is missing.
    """
    bundle, compiled, variant = installation.bundle.artifact, installation.compiled.artifact, launch.variant
    tasks = tasks_of(bundle, launch)
    adapters = adapters_of(bundle, variant, tasks)
    unets = unets_of(bundle, compiled, variant, tasks)
    components = {part.value: graph for part, graph in components_of(bundle, compiled, variant).items()}
    return {
        "schema_version": PLAN_SCHEMA_VERSION,
        "root": installation.deployment.root,
        "variant": variant.value,
        "runtime": _runtime(installation, variant, runtime),
        "components": _files(installation, components),
        "unets": _files(installation, unets),
        "adapters": _files(installation, adapters),
        "mixes": mixes_of(tasks, adapters) if adapters else {},
        **_merge(installation, unets.get(BASE_UNET)),
        "base": None if variant.has_unet_per_task else asdict(bundle.base),
        "tasks": {task.name: _task(installation, task, variant) for task in tasks},
        "sequence": [{"task": b.task, "warmup": b.warmup, "iterations": b.iterations} for b in launch.sequence],
        "images": images,
    }


def _runtime(installation: Installation, variant: Variant, runtime: Runtime) -> dict[str, Any]:
    """Return what loads the graphs; LiteRT, or an execution provider other than the CPU's, takes the quantized ones alone."""
    provider = installation.execution_provider if variant.is_quantized else None
    litert, dispatch = (installation.litert, installation.dispatch) if variant.is_quantized else (None, None)
    return {
        **({"engine": "litert"} if litert else {}),
        "library": installation.path_of_library(litert or installation.runtime),
        **({"dispatch": installation.path_of_library(dispatch)} if dispatch else {}),
        "intra_op_threads": runtime.threads,
        "cores": list(runtime.cores),
        "thread_pool": runtime.thread_pool,
        "arena": runtime.arena,
        "preload": runtime.preload,
        "adapter_cache_bytes": runtime.adapter_cache_mb * MIB,
        "memory_budget_bytes": runtime.memory_budget_mb * MIB if runtime.memory_budget_mb else None,
        **({"execution_provider": provider.planned(runtime.threads)} if provider else {}),
    }


def _merge(installation: Installation, unet: Graph | None) -> dict[str, Any]:
    """Return what adds adapters to the weights of a U-Net that takes them so."""
    if unet is None or unet.merge is None or unet.data is None:
        return {}
    return {"merge": {"graph": _file(installation, unet.merge), "weights": _file(installation, unet.data)}}


def _files(installation: Installation, parts: Mapping[str, Graph | AdapterFile]) -> dict[str, dict[str, str]]:
    return {name: _file(installation, part.file) for name, part in parts.items()}


def _file(installation: Installation, file: FileRef) -> dict[str, str]:
    return {"path": installation.path_of(file), "sha256": file.sha256}


def _task(installation: Installation, task: TaskAssets, variant: Variant) -> dict[str, Any]:
    return {
        "kind": task.kind.value,
        "unet": task.name if variant.has_unet_per_task else BASE_UNET,
        "adapter": None if variant.has_unet_per_task else task.adapter,
        "guidance": task.guidance,
        "table": installation.path_of(task.table),
        "tensors": installation.path_of(task.tensors),
        "items": [_item(installation, item) for item in task.items],
    }


def _item(installation: Installation, item: TaskItem) -> dict[str, Any]:
    def path_of(file: FileRef | None) -> str | None:
        return installation.path_of(file) if file else None

    return {
        "name": item.name,
        "image": path_of(item.image),
        "mask": path_of(item.mask),
        "blend": path_of(item.blend),
        "input_ids": list(item.input_ids),
        "negative_input_ids": list(item.negative_input_ids),
    }
