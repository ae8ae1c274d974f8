"""Sources: a recipe's names -> files and folders, and the versions of the tools that read them."""

import importlib.metadata
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from quadbench import zoo
from quadbench.errors import UserError
from quadbench.recipe import (
    Adapter,
    BuiltinAdapter,
    DiffusersAdapter,
    KohyaAdapter,
    PeftAdapter,
    RandomAdapter,
    RandomFoundation,
    Recipe,
)
from quadbench.spec import is_file, require_file

MOST_WEIGHTS_BYTES = 2**34  # of a foundation model's file; Stable Diffusion 1.4 in float32 with both of its U-Nets has 7.7 GB
MOST_ADAPTER_BYTES = 2**32  # a full difference of Stable Diffusion 1 in float32 has 3.9 GB
PEFT_CONFIG, PEFT_TENSORS = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_TENSORS = "pytorch_lora_weights.safetensors"  # diffusers' LORA_WEIGHT_NAME_SAFE
GEOMETRIES = Path(__file__).parent / "model" / "geometries"
_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "peft",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "pillow",
    "safetensors",
)


def require_weights(path: Path) -> None:
    """Refuse a file of a foundation model that cannot be read, or is too large for one.

    Raises:
        UserError: says why.
    """
    hint = "give the .safetensors file"
    require_file(path, "foundation model", fault=UserError, hint=hint, most_bytes=MOST_WEIGHTS_BYTES)


class AdapterFormat(StrEnum):
    """A format of adapters on disk, by its name in recipes."""

    PEFT = "peft"  # a folder
    DIFFUSERS = "diffusers"  # a file, or the folder with it
    KOHYA = "kohya"  # a file


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """The place of an adapter on disk, and its format."""

    format: AdapterFormat
    path: Path
    unet_only: bool = False


def saved_adapter(path: Path) -> Path:
    """Return the file in a folder that diffusers' `save_lora_weights` wrote; any other path as it is."""
    file = path / DIFFUSERS_TENSORS
    return file if is_file(file) and not is_file(path / PEFT_CONFIG) else path


def adapter_source(spec: Adapter) -> AdapterSource | None:
    """Return where the adapter lies; None for a random one, which lies nowhere."""
    match spec:
        case BuiltinAdapter():
            return AdapterSource(format=AdapterFormat.PEFT, path=zoo.adapter_folder(spec.name))
        case PeftAdapter():
            return AdapterSource(format=AdapterFormat.PEFT, path=Path(spec.path))
        case DiffusersAdapter() | KohyaAdapter():
            path = saved_adapter(Path(spec.path))
            return AdapterSource(format=AdapterFormat(spec.source), path=path, unet_only=spec.unet_only)
        case RandomAdapter():
            return None
        case _:
            assert_never(spec)


def tool_versions() -> dict[str, str]:
    """Return the versions of quadbench and of the packages that shape a bundle."""
    return {name: importlib.metadata.version(name) for name in ("quadbench", *_PACKAGES)}


def has_random_weights(recipe: Recipe) -> bool:
    """Say whether the recipe's pictures show nothing, because the model or an adapter was never trained."""
    return isinstance(recipe.foundation, RandomFoundation) or any(isinstance(a, RandomAdapter) for a in recipe.adapters.values())
