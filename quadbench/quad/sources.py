"""Sources: a recipe's names -> files and folders, and the digest of all that its bundle follows from."""

import importlib.metadata
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from quadbench import zoo
from quadbench.quad.tasks.inputs import read_inputs
from quadbench.recipe import (
    Adapter,
    BuiltinAdapter,
    BuiltinFoundation,
    CheckpointFoundation,
    DiffusersAdapter,
    DiffusersFoundation,
    Foundation,
    KohyaAdapter,
    Measure,
    PeftAdapter,
    RandomAdapter,
    RandomFoundation,
    Recipe,
    Task,
    recipe_digest,
)
from quadbench.results.code import code_digests
from quadbench.results.digests import digest_of, folder_digests, sha256_of

GEOMETRIES = Path(__file__).parent / "model" / "geometries"
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript", "onnxruntime", "numpy")


class AdapterFormat(StrEnum):
    """A format of adapters on disk, by its name in recipes."""

    PEFT = "peft"  # a folder
    DIFFUSERS = "diffusers"  # a file
    KOHYA = "kohya"  # a file


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """The place of an adapter on disk, and its format."""

    format: AdapterFormat
    path: Path


def adapter_source(spec: Adapter) -> AdapterSource | None:
    """Return where the adapter lies; None for a random one, which lies nowhere."""
    match spec:
        case BuiltinAdapter():
            return AdapterSource(format=AdapterFormat.PEFT, path=zoo.adapter_folder(spec.name))
        case PeftAdapter() | DiffusersAdapter() | KohyaAdapter():
            return AdapterSource(format=AdapterFormat(spec.source), path=Path(spec.path))
        case RandomAdapter():
            return None
        case _:
            assert_never(spec)


def adapter_digests(path: Path) -> dict[str, str]:
    """Return the sha256 of the adapter's file, or of every file in its folder, by name; where it lies does not matter."""
    return {path.name: sha256_of(path)} if path.is_file() else folder_digests(path)


def tool_versions() -> dict[str, str]:
    """Return the versions of quadbench and of the packages that shape a bundle."""
    return {name: importlib.metadata.version(name) for name in ("quadbench", *_PACKAGES)}


def bundle_digest(recipe: Recipe) -> str:
    """Return the digest of the recipe but for how it is measured and shown, of weights, adapters, inputs, packages and code."""
    adapters = {name: adapter_source(spec) for name, spec in recipe.adapters.items()}
    return digest_of(
        {
            "recipe": recipe_digest(recipe.model_copy(update={"measure": Measure(), "published": None})),
            "foundation": _foundation_digests(recipe.foundation),
            "adapters": {name: adapter_digests(source.path) if source else {} for name, source in adapters.items()},
            "inputs": {task.name: _input_digests(task) for task in recipe.tasks},
            "packages": tool_versions(),
            "code": code_digests("quadbench.quad.build"),
        }
    )


def has_random_weights(recipe: Recipe) -> bool:
    """Say whether the recipe's pictures show nothing, because the model or an adapter was never trained."""
    return isinstance(recipe.foundation, RandomFoundation) or any(isinstance(a, RandomAdapter) for a in recipe.adapters.values())


def _foundation_digests(spec: Foundation) -> dict[str, str]:
    match spec:
        case BuiltinFoundation(name=name):
            return folder_digests(zoo.foundation_folder(name))
        case DiffusersFoundation(path=path):
            return folder_digests(path)
        case CheckpointFoundation(path=path):
            return {path.name: sha256_of(path)} | folder_digests(GEOMETRIES)
        case RandomFoundation():
            return folder_digests(GEOMETRIES)
        case _:
            assert_never(spec)


def _input_digests(task: Task) -> list[list[str]]:
    return [
        [entry.name, entry.prompt, entry.negative_prompt, *(sha256_of(p) for p in (entry.image, entry.mask, entry.truth) if p)]
        for entry in read_inputs(task)
    ]
