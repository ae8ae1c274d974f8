"""Layouts: a model or an adapter on disk -> the files of it that are read, if it can be what it is said to be. No torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, assert_never

from quadbench import zoo
from quadbench.artifacts.device_text import one_line
from quadbench.errors import AdapterError, UserError
from quadbench.quad.sources import (
    DIFFUSERS_TENSORS,
    GEOMETRIES,
    MOST_ADAPTER_BYTES,
    PEFT_CONFIG,
    PEFT_TENSORS,
    AdapterFormat,
    AdapterSource,
    require_weights,
    saved_adapter,
)
from quadbench.quad.tensor_header import tensor_names
from quadbench.recipe import BuiltinFoundation, CheckpointFoundation, DiffusersFoundation, Foundation, RandomFoundation
from quadbench.results.digests import file_digests
from quadbench.spec import is_file, read_json, require_file

DIFFUSERS_INDEX, DIFFUSERS_PARTS = "model_index.json", ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SAFETENSORS, PICKLES = ".safetensors", (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_READ = ("*.json", "*.txt", f"*{SAFETENSORS}")  # of a part, by diffusers and transformers

CHECKPOINT_GEOMETRY = "sd15"  # of a model in one file, which holds no configuration; other geometries were cut from it


class Sizes(NamedTuple):
    """The sides of what a model takes: square pictures of `image` pixels, whose latents have `latent`."""

    image: int
    latent: int


def sizes_of(latent_size: int, vae_config: Mapping[str, Any]) -> Sizes:
    """Return the sizes of a model, whose VAE halves a picture between each two of its blocks."""
    return Sizes(image=latent_size * 2 ** (len(vae_config["block_out_channels"]) - 1), latent=latent_size)


def named_sizes(foundation: Foundation) -> Sizes | None:
    """Return the sizes of a foundation model that a recipe names; None where its configurations do not say them."""
    match foundation:
        case BuiltinFoundation(name=name):
            unet, vae = (zoo.foundation_folder(name) / part for part in ("unet", "vae"))
        case DiffusersFoundation(path=path):
            unet, vae = path / "unet", path / "vae"
        case CheckpointFoundation():
            unet, vae = (part_folder(CHECKPOINT_GEOMETRY, part) for part in ("unet", "vae"))
        case RandomFoundation(geometry=geometry):
            unet, vae = (part_folder(geometry, part) for part in ("unet", "vae"))
        case _:
            assert_never(foundation)
    try:
        configs = [read_json(part / "config.json", fault=UserError) for part in (unet, vae)]
        sizes = sizes_of(configs[0]["sample_size"], configs[1])
    except (UserError, LookupError, TypeError):
        return None
    return sizes if isinstance(sizes.latent, int) and 0 < sizes.latent <= sizes.image else None


def part_folder(geometry: str, part: str) -> Path:
    """Return the folder with the configuration of a geometry's `unet`, `vae`, `text_encoder` or `scheduler`."""
    own = GEOMETRIES / geometry / part
    return own if own.is_dir() else GEOMETRIES / CHECKPOINT_GEOMETRY / part


def adapter_digests(path: Path) -> dict[str, str]:
    """Return the sha256 of each file of an adapter that is read, by name; where it lies does not matter."""
    return file_digests(adapter_files(path))


def adapter_files(path: Path) -> dict[str, Path]:
    """Return the files of an adapter, by name: PEFT's folder holds two, also where its tensors were named."""
    path = saved_adapter(path)
    is_folder = _is_folder(path)
    if is_folder or path.name == PEFT_TENSORS:
        folder = path if is_folder else path.parent
        return {name: folder / name for name in (PEFT_CONFIG, PEFT_TENSORS)}
    return {path.name: path}


def foundation_files(folder: Path) -> dict[str, Path]:
    """Return the files of a diffusers folder that are read, by their paths in it.

    Raises:
        UserError: it is no folder in diffusers' layout.
    """
    if not _is_folder(folder):
        raise UserError(f"foundation model '{folder}' is no folder; expected one in diffusers' layout")
    missing = [part for part in DIFFUSERS_PARTS if not _is_folder(folder / part)]
    missing += [] if is_file(folder / DIFFUSERS_INDEX) else [DIFFUSERS_INDEX]
    if missing:
        raise UserError(
            f"foundation model '{folder}' lacks {', '.join(missing)}; expected a Stable Diffusion 1.x folder",
            hint="save it with diffusers: StableDiffusionPipeline.save_pretrained(folder, safe_serialization=True)",
        )
    parts = (path for part in DIFFUSERS_PARTS for pattern in _READ for path in (folder / part).glob(pattern) if is_file(path))
    return {path.relative_to(folder).as_posix(): path for path in (folder / DIFFUSERS_INDEX, *parts)}


def check_checkpoint(path: Path) -> None:
    """Refuse what cannot be a model in one file.

    Raises:
        UserError: it has another ending, cannot be read, or is no whole safetensors file.
    """
    if path.suffix != SAFETENSORS:
        raise UserError(
            f"foundation model '{path}' is no .safetensors file; pickles (.ckpt, .pt, .bin) are not opened, as they run code",
            hint="save it as safetensors, or give its diffusers folder with source: diffusers",
        )
    require_weights(path)
    try:
        tensor_names(path)
    except (OSError, ValueError) as error:
        raise UserError(f"foundation model '{path}' is no whole safetensors file: {_reason(error)}") from error


def check_adapter(name: str, source: AdapterSource) -> None:
    """Refuse what cannot be an adapter of its format.

    Raises:
        AdapterError: it is missing, is a file where a folder is expected or the other way round, or its tensors are no whole
            safetensors file.
    """
    path, is_folder = source.path, _is_folder(source.path)
    if not os.path.exists(path):  # noqa: PTH110  (it raises nothing)
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=_pickle_beside(path))
    if is_folder is not (source.format is AdapterFormat.PEFT):
        a_file = f"a {SAFETENSORS} file, or a folder with {DIFFUSERS_TENSORS}"
        expected = a_file if is_folder else f"a folder with {PEFT_CONFIG} and {PEFT_TENSORS}"
        raise AdapterError(f"adapter '{name}': '{path}' is {'a folder' if is_folder else 'no folder'}; expected {expected}")
    if is_folder:
        require_file(path / PEFT_CONFIG, f"adapter '{name}':", fault=AdapterError)
    check_tensor_file(name, path / PEFT_TENSORS if is_folder else path)


def check_adapter_tensors(name: str, path: Path) -> None:
    """Refuse an adapter whose file, or the one in its folder, holds no tensors, as `check_tensor_file` does."""
    path = saved_adapter(path)
    check_tensor_file(name, path / PEFT_TENSORS if _is_folder(path) else path)


def check_tensor_file(name: str, path: Path) -> None:
    """Refuse a file of an adapter's tensors that is none, before anything but its header is read.

    Raises:
        AdapterError: it is missing, a pickle, too large, or no whole safetensors file.
    """
    if path.suffix in PICKLES:
        raise AdapterError(
            f"adapter '{name}': '{path}' is a pickle, which is never opened: it can run any program",
            hint="save it as safetensors; load it where you trust it, then safetensors.torch.save_file",
        )
    if not os.path.exists(path):  # noqa: PTH110  (it raises nothing)
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=_pickle_beside(path))
    require_file(path, f"adapter '{name}':", fault=AdapterError, most_bytes=MOST_ADAPTER_BYTES)
    try:
        names = tensor_names(path)
    except (OSError, ValueError) as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not a whole safetensors file: {_reason(error)}") from error
    if not names:
        raise AdapterError(f"adapter '{name}': '{path}' holds no tensors")


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (it raises nothing, where Path.is_dir does if a folder above cannot be entered)


def _pickle_beside(path: Path) -> str | None:
    """Return a hint where the same adapter lies beside the path as a pickle; others' pickles say nothing."""
    pickles = [path.with_suffix(suffix).name for suffix in PICKLES if is_file(path.with_suffix(suffix))]
    return f"'{pickles[0]}' is a pickle, which is never opened; save with safe_serialization=True" if pickles else None


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or str(error))
