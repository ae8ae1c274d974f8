"""Parts: artifacts -> the files that they name, and the graphs, adapters and tasks that a launch of a variant needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

from quadbench.artifacts.bundle import (
    LORA_PREFIX,
    AdapterFile,
    Bundle,
    CompiledBundle,
    Component,
    FileRef,
    Graph,
    TaskAssets,
    TaskKind,
    Variant,
)
from quadbench.artifacts.run import LaunchPlan
from quadbench.errors import ArtifactError, UnknownNameError

BASE_UNET = "base"  # the name of the U-Net that all tasks share


def file_refs(value: object) -> Iterator[FileRef]:
    """Yield every file that an artifact names, in order, with repetitions."""
    if isinstance(value, FileRef):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from file_refs(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from file_refs(item)


def harness_files(bundle: Bundle, *, runs_float: bool) -> Iterator[FileRef]:
    """Yield the files of a bundle that launches open beside compiled graphs: adapters, tables and inputs; float graphs if asked.

    References and truths are for this machine alone, and without references no float graph runs.
    """
    runs_float = runs_float and has_references(bundle)
    floats = [graph for graph in bundle.graphs if runs_float and not graph.variant.is_quantized]
    adapters = [adapter for adapter in bundle.adapters if runs_float or adapter.variant.is_quantized]
    tasks = [(t.table, t.tensors, *((item.image, item.mask, item.blend) for item in t.items)) for t in bundle.tasks]
    yield from file_refs((*floats, *adapters, *tasks))


def has_references(bundle: Bundle) -> bool:
    """Say whether there are images to compare the float graph's with; a bundle with random weights has none."""
    return any(item.reference for task in bundle.tasks for item in task.items)


def with_own_graph(bundle: Bundle) -> tuple[str, ...]:
    """Return the tasks that have a U-Net of their own, in the bundle's order; that of an admitted adapter has none."""
    own = {graph.task for graph in bundle.graphs if graph.variant is Variant.PER_GRAPH}
    return tuple(task.name for task in bundle.tasks if task.name in own)


def without_own_graph(bundle: Bundle) -> tuple[str, ...]:
    """Return the tasks that lack a U-Net of their own where others have one: those of admitted adapters."""
    own = with_own_graph(bundle)
    return tuple(task.name for task in bundle.tasks if own and task.name not in own)


def item_counts(bundle: Bundle) -> dict[str, int]:
    """Return how many evaluation inputs each task has."""
    return {task.name: len(task.items) for task in bundle.tasks}


def tasks_of(bundle: Bundle, launch: LaunchPlan) -> tuple[TaskAssets, ...]:
    """Return the tasks that the launch runs, in the bundle's order.

    Raises:
        UnknownNameError: the launch names a task that the bundle lacks.
    """
    wanted = {block.task for block in launch.sequence}
    for name in sorted(wanted - {task.name for task in bundle.tasks}):
        raise UnknownNameError("task", name, (task.name for task in bundle.tasks))
    return tuple(task for task in bundle.tasks if task.name in wanted)


def components_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> dict[Component, Graph]:
    """Return text encoder and VAE, whose encoder is left out where no task takes an image; the quantized variants share theirs.

    Raises:
        ArtifactError: a graph is missing.
    """
    takes_images = any(task.kind is not TaskKind.TEXT_TO_IMAGE for task in bundle.tasks)
    encoder = (Component.VAE_ENCODER,) if takes_images else ()
    parts = (Component.TEXT_ENCODER, *encoder, Component.VAE_DECODER)
    source = Variant.FLOAT if variant is Variant.FLOAT else Variant.SHARED
    return {part: _graph(_graphs(bundle, compiled, variant), source, part) for part in parts}


def unets_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, Graph]:
    """Return the U-Nets by their names in the plan: `base`, or one for each task.

    Raises:
        ArtifactError: a graph is missing.
    """
    graphs = _graphs(bundle, compiled, variant)
    if variant.has_unet_per_task:
        return {task.name: _graph(graphs, variant.graphs, Component.UNET, task.name) for task in tasks}
    return {BASE_UNET: _graph(graphs, variant, Component.UNET)}


def adapters_of(bundle: Bundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, AdapterFile]:
    """Return the adapters that the tasks run, by name, in the variant's dtype; none where they are merged.

    Raises:
        ArtifactError: the bundle has no file of an adapter in that dtype.
    """
    if variant.has_unet_per_task:
        return {}
    known = {adapter.name: adapter for adapter in bundle.adapters if adapter.variant is variant.adapters}
    wanted = sorted({name for task in tasks for name in task.weights})
    for name in wanted:
        if name not in known:
            raise ArtifactError(f"bundle {bundle.digest} has no {variant} file of adapter '{name}'", hint="build it again")
    return {name: known[name] for name in wanted}


def factors_of(task: TaskAssets, files: Mapping[str, AdapterFile]) -> dict[str, float]:
    """Return by adapter the factor on its file's `up`, -1 to 1, with which it has the weight that the task gives it."""
    return {name: weight / files[name].weight for name, weight in task.weights.items()}


def mixes_of(tasks: Sequence[TaskAssets], files: Mapping[str, AdapterFile]) -> dict[str, dict[str, float]]:
    """Return, by its name, what tasks run that is not one adapter's file as it is: adapters with the factors on their `up`."""
    factors = {task.adapter: factors_of(task, files) for task in tasks if task.adapter is not None}
    return {name: mix for name, mix in factors.items() if mix != {name: 1.0}}


def _graphs(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> tuple[Graph, ...]:
    return bundle.graphs if variant is Variant.FLOAT else compiled.graphs


def _graph(graphs: Sequence[Graph], variant: Variant, component: Component, task: str | None = None) -> Graph:
    for graph in graphs:
        if (graph.variant, graph.component, graph.task) == (variant, component, task):
            return graph
    known = ", ".join(sorted(f"{graph.variant}/{graph.task or '-'}/{graph.component}" for graph in graphs)) or "none"
    raise ArtifactError(
        f"no graph {variant}/{task or '-'}/{component} is there; found: {known}", hint="build or compile it again"
    )


def lora_dtype(bundle: Bundle) -> str:
    """Return the type of the shared U-Net's LoRA inputs, as `int16`; `none` of a bundle without any."""
    graphs = [g for g in bundle.graphs if (g.variant, g.component) == (Variant.SHARED, Component.UNET)]
    dtypes = dict.fromkeys(spec.dtype for graph in graphs for spec in graph.inputs if spec.name.startswith(LORA_PREFIX))
    return ", ".join(dtypes) or "none"
