"""Sources: what a recipe names -> files and folders, and the digest of all that a bundle follows from."""

import importlib.metadata
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from quadbench import zoo
from quadbench.manifest import digest_of, folder_digests, sha256_of
from quadbench.quad.inputs import read_inputs
from quadbench.recipe import (
    Adapter,
    BuiltinAdapter,
    BuiltinFoundation,
    DiffusersAdapter,
    Foundation,
    KohyaAdapter,
    Measure,
    PeftAdapter,
    Recipe,
    Task,
    recipe_digest,
)

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript", "onnxruntime", "numpy")


class AdapterFormat(StrEnum):
    """How an adapter lies on disk, by the name that recipes have for it."""

    PEFT = "peft"  # a folder
    DIFFUSERS = "diffusers"  # a file
    KOHYA = "kohya"  # a file


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """Where an adapter lies, and how."""

    format: AdapterFormat
    path: Path


def foundation_folder(spec: Foundation) -> Path:
    return zoo.foundation_folder(spec.name) if isinstance(spec, BuiltinFoundation) else Path(spec.path)


def adapter_source(spec: Adapter) -> AdapterSource:
    match spec:
        case BuiltinAdapter():
            return AdapterSource(format=AdapterFormat.PEFT, path=zoo.adapter_folder(spec.name))
        case PeftAdapter() | DiffusersAdapter() | KohyaAdapter():
            return AdapterSource(format=AdapterFormat(spec.source), path=Path(spec.path))
        case _:
            assert_never(spec)


def adapter_digests(path: Path) -> dict[str, str]:
    """Name -> sha256 of the adapter's file, or of every file in its folder; where it lies does not matter."""
    return {path.name: sha256_of(path)} if path.is_file() else folder_digests(path)


def tool_versions() -> dict[str, str]:
    """Versions of quadbench and of the packages that shape a bundle."""
    return {name: importlib.metadata.version(name) for name in ("quadbench", *_PACKAGES)}


def bundle_digest(recipe: Recipe) -> str:
    """Of the recipe but for how it is measured, of weights, adapters, inputs and packages, and of this stage's own code."""
    return digest_of(
        {
            "recipe": recipe_digest(recipe.model_copy(update={"measure": Measure()})),
            "foundation": folder_digests(foundation_folder(recipe.foundation)),
            "adapters": {name: adapter_digests(adapter_source(spec).path) for name, spec in recipe.adapters.items()},
            "inputs": {task.name: _input_digests(task) for task in recipe.tasks},
            "packages": tool_versions(),
            "code": folder_digests(Path(__file__).parent, "*.py"),
        }
    )


def _input_digests(task: Task) -> list[list[str]]:
    return [
        [entry.name, entry.prompt, entry.negative_prompt, *(sha256_of(p) for p in (entry.image, entry.mask, entry.truth) if p)]
        for entry in read_inputs(task)
    ]
