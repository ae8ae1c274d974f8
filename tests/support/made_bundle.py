"""A bundle of one-layer graphs under the digest of a recipe, so that a run takes it for the recipe's own and builds nothing."""

from pathlib import Path

import onnx

from quadbench.artifacts import AdapterFile, BaseDigests, Bundle, Component, Graph, TaskAssets, TaskKind, TensorSpec, Variant
from quadbench.quad.cache import bundle_folder
from quadbench.quad.sources import bundle_digest
from quadbench.recipe import Recipe, recipe_digest
from quadbench.results.manifest import file_ref, publish
from support.lora_graph import LORA, LORA_SCALE, quantized_model


def write_made_bundle(recipe: Recipe, bundles: Path) -> Bundle:
    """Its tasks have no inputs: it can be compiled, not run."""
    digest = bundle_digest(recipe)
    return publish(bundle_folder(digest, bundles), lambda folder: _bundle(recipe, digest, folder))


def _bundle(recipe: Recipe, digest: str, folder: Path) -> Bundle:
    (folder / "profile.json").write_text("{}")
    profile = file_ref(folder, folder / "profile.json")
    shared = [_graph(folder, Variant.SHARED, component) for component in Component]
    per_graph = [_graph(folder, Variant.PER_GRAPH, Component.UNET, task.name) for task in recipe.tasks]
    return Bundle(
        digest=digest,
        recipe_name=recipe.name,
        recipe_digest=recipe_digest(recipe),
        precision="w8a16",
        tool_versions={},
        graphs=(*shared, *per_graph),
        adapters=tuple(_adapter(folder, name) for name in recipe.adapters),
        tasks=tuple(
            TaskAssets(
                name=task.name,
                kind=TaskKind(task.kind),
                adapter=task.adapter,
                scheme=task.sampler.scheme,
                steps=task.sampler.steps,
                guidance=task.guidance,
                table=profile,
                tensors=profile,
                items=(),
            )
            for task in recipe.tasks
        ),
        profile=profile,
        base=BaseDigests(graph="0" * 64, profile="0" * 64),
    )


def _graph(folder: Path, variant: Variant, component: Component, task: str | None = None) -> Graph:
    path = folder / variant / (task or "") / f"{component}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = quantized_model()
    model.doc_string = str(path.relative_to(folder))  # each graph has a digest of its own
    onnx.save(model, path)
    return Graph(
        variant=variant,
        component=component,
        task=task,
        file=file_ref(folder, path),
        inputs=(
            TensorSpec(name="x", shape=(4, 4), dtype="float32"),
            TensorSpec(name=LORA, shape=(4, 4), dtype="int16", scale=LORA_SCALE),
        ),
        outputs=(TensorSpec(name="y", shape=(4, 4), dtype="float32"),),
    )


def _adapter(folder: Path, name: str) -> AdapterFile:
    path = folder / "adapters" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name.encode())
    return AdapterFile(name=name, variant=Variant.SHARED, file=file_ref(folder, path), rank=4, sites=1)
