"""Bundles: ONNX models -> graphs of a bundle as files, and bundles of them that can be compiled but have nothing to run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quadbench.artifacts import LORA_PREFIX, Bundle, Component, FileRef, Graph, StoredBundle, TaskAssets, TensorSpec, Variant
from quadbench.artifacts.bundle import AdapterFile, BaseDigests, TaskKind
from quadbench.quad.cache import digests_of
from quadbench.recipe import Recipe, Task, mix_name, recipe_digest
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref, publish

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def bundle_of(profile: FileRef, graphs: Sequence[Graph] = (), **changes: Any) -> Bundle:
    """Describe graphs as a bundle; `changes` are the other fields that a test cares for, the rest is filled in."""
    bundle = Bundle(
        digest="d0" * 32,
        recipe_name="small",
        recipe_digest="r",
        precision="w8a16",
        tool_versions={},
        graphs=tuple(graphs),
        adapters=(),
        tasks=(),
        profile=profile,
        base=BaseDigests(graph="1" * 64, profile="2" * 64),
    )
    return replace(bundle, **changes)


def write_bundle(folder: Path, model: "ModelProto") -> StoredBundle:
    """Publish a bundle with the model as its shared U-Net, and a copy as its float one."""

    def fill(temporary: Path) -> Bundle:
        graphs = [write_graph(temporary, model, variant=variant) for variant in (Variant.SHARED, Variant.FLOAT)]
        return bundle_of(_write_profile(temporary), graphs)

    return publish(folder, fill)


def write_recipe_bundle(recipe: Recipe, layout: Layout) -> StoredBundle:
    """Publish a bundle of one-layer graphs as the recipe's own, so that a run takes it and builds nothing.

    Its tasks have no inputs: it can be compiled, not run.
    """
    digest = digests_of(recipe).bundle
    return publish(layout.bundle(digest), lambda folder: _fill_for_recipe(folder, recipe, digest))


def write_graph(
    folder: Path,
    model: "ModelProto",
    *,
    variant: Variant = Variant.SHARED,
    component: Component = Component.UNET,
    task: str | None = None,
) -> Graph:
    """Write a copy of the model where a bundle has such a graph, and describe it. Each path gives a digest of its own."""
    import onnx

    path = folder / variant / (task or "") / f"{component}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.doc_string = path.relative_to(folder).as_posix()
    onnx.save(copy, path)
    return Graph(
        variant=variant,
        component=component,
        task=task,
        file=file_ref(folder, path),
        inputs=tuple(_spec(tensor, model) for tensor in model.graph.input),
        outputs=tuple(_spec(tensor, model) for tensor in model.graph.output),
    )


def _write_profile(folder: Path) -> FileRef:
    (folder / "profile.json").write_text("{}")
    return file_ref(folder, folder / "profile.json")


def _fill_for_recipe(folder: Path, recipe: Recipe, digest: str) -> Bundle:
    from support.lora_graph import quantized_model

    model, profile = quantized_model(), _write_profile(folder)
    shared = [write_graph(folder, model, component=component) for component in Component]
    per_graph = [write_graph(folder, model, variant=Variant.PER_GRAPH, task=task.name) for task in recipe.tasks]
    return bundle_of(
        profile,
        [*shared, *per_graph],
        digest=digest,
        recipe_name=recipe.name,
        recipe_digest=recipe_digest(recipe),
        adapters=tuple(_write_adapter(folder, name) for name in recipe.adapters),
        tasks=tuple(_task(task, profile) for task in recipe.tasks),
    )


def _task(task: Task, file: FileRef) -> TaskAssets:
    return TaskAssets(
        name=task.name,
        kind=TaskKind(task.kind),
        adapter=mix_name(task.adapter) or None,
        scheme=task.sampler.scheme,
        steps=task.sampler.steps,
        guidance=task.guidance,
        table=file,
        tensors=file,
        items=(),
    )


def _write_adapter(folder: Path, name: str) -> AdapterFile:
    path = folder / "adapters" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name.encode())
    return AdapterFile(name=name, variant=Variant.SHARED, file=file_ref(folder, path), rank=4, sites=1)


def _spec(tensor: "ValueInfoProto", model: "ModelProto") -> TensorSpec:
    import onnx

    tensor_type = tensor.type.tensor_type
    return TensorSpec(
        name=tensor.name,
        shape=tuple(size.dim_value for size in tensor_type.shape.dim),
        dtype=str(onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)),
        scale=_lora_scale(tensor.name, model) if tensor.name.startswith(LORA_PREFIX) else None,
    )


def _lora_scale(name: str, model: "ModelProto") -> float | None:
    """Return the constant by which the graph dequantizes a LoRA input; None where there is none, or one for each channel."""
    import onnx

    scales = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == name}
    values = [onnx.numpy_helper.to_array(value) for value in model.graph.initializer if value.name in scales]
    return float(values[0]) if [value.size for value in values] == [1] else None
