"""Sources: what a recipe names -> folders, and the digest of all that a bundle follows from."""

import importlib.metadata
from pathlib import Path

from quadbench import zoo
from quadbench.manifest import digest_of, folder_digests, sha256_of
from quadbench.quad.inputs import read_inputs
from quadbench.recipe import (
    Adapter,
    BuiltinAdapter,
    BuiltinFoundation,
    Foundation,
    Measure,
    Recipe,
    Task,
    TextToImageTask,
    recipe_digest,
)

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript", "onnxruntime", "numpy")


def foundation_folder(spec: Foundation) -> Path:
    return zoo.foundation_folder(spec.name) if isinstance(spec, BuiltinFoundation) else Path(spec.path)


def adapter_folder(spec: Adapter) -> Path:
    return zoo.adapter_folder(spec.name) if isinstance(spec, BuiltinAdapter) else Path(spec.path)


def tool_versions() -> dict[str, str]:
    """Versions of quadbench and of the packages that shape a bundle."""
    return {name: importlib.metadata.version(name) for name in ("quadbench", *_PACKAGES)}


def bundle_digest(recipe: Recipe) -> str:
    """Of the recipe but for how it is measured, of weights, adapters, inputs and packages, and of this stage's own code."""
    return digest_of(
        {
            "recipe": recipe_digest(recipe.model_copy(update={"measure": Measure()})),
            "foundation": folder_digests(foundation_folder(recipe.foundation)),
            "adapters": {name: folder_digests(adapter_folder(spec)) for name, spec in recipe.adapters.items()},
            "inputs": {task.name: _input_digests(task) for task in recipe.tasks},
            "packages": tool_versions(),
            "code": folder_digests(Path(__file__).parent, "*.py"),
        }
    )


def _input_digests(task: Task) -> list[list[str]]:
    if isinstance(task, TextToImageTask):
        return []
    return [
        [entry.name, entry.prompt, entry.negative_prompt, *(sha256_of(p) for p in (entry.image, entry.mask, entry.truth) if p)]
        for entry in read_inputs(task.inputs)
    ]
