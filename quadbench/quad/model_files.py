"""Model files: finding model and adapter files, detecting formats, checking files. This module does not import torch."""

import importlib.metadata
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, assert_never

from pydantic_core import from_json

from quadbench import zoo
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import AdapterError, MissingDependencyError, UserError, extra_hint
from quadbench.recipe import CheckpointFoundation, Recipe, tasks
from quadbench.results.digests import file_digests
from quadbench.spec import is_file, read_json
from quadbench.spec.files import open_regular, require_file

MAX_TENSORS = 10_000  # a Stable Diffusion 1.x file has 1,131, a LoHa of all sites some 2,000
_MAX_HEADER_BYTES = 32 * 2**20  # training scripts write lists of tags into the header
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
MAX_WEIGHTS_BYTES = 2**34  # the most for a model file; Stable Diffusion 1.4 in float32 with both U-Nets has 7.7 GB
MAX_ADAPTER_BYTES = 2**32  # a full difference of Stable Diffusion 1 in float32 has 3.9 GB
PEFT_CONFIG, PEFT_TENSORS = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_TENSORS = "pytorch_lora_weights.safetensors"  # diffusers' LORA_WEIGHT_NAME_SAFE
GEOMETRIES = Path(__file__).parent / "model" / "geometries"
_MODEL_PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "peft")
_FILE_PACKAGES = ("onnx", "onnxscript", "onnxruntime", "numpy", "pillow", "safetensors")
DIFFUSERS_INDEX = "model_index.json"
SAFETENSORS, PICKLES = ".safetensors", (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_READ = ("*.json", "*.txt", f"*{SAFETENSORS}")  # files of a part that diffusers and transformers read
CHECKPOINT_GEOMETRY = "sd15"  # for single-file models, which have no configuration; other geometries derive from it


class AdapterFormat(StrEnum):
    """A file format of LoRA adapters. The enum value is the format's name in recipes."""

    PEFT = "peft"  # a folder
    DIFFUSERS = "diffusers"  # a file, or the folder with it
    KOHYA = "kohya"  # a file


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """The path and format of an adapter on disk."""

    format: AdapterFormat
    path: Path
    unet_only: bool = False


class ModelSizes(NamedTuple):
    """The side lengths of a diffusion model's square images (in pixels) and square latents (in elements)."""

    image: int
    latent: int


def adapter_source(spec: tasks.Adapter) -> AdapterSource | None:
    """Return the path and format of a recipe's adapter; None for a random adapter, which has no file."""
    match spec:
        case tasks.BuiltinAdapter():
            return AdapterSource(format=AdapterFormat.PEFT, path=zoo.adapter_folder(spec.name))
        case tasks.PeftAdapter():
            return AdapterSource(format=AdapterFormat.PEFT, path=Path(spec.path))
        case tasks.DiffusersAdapter() | tasks.KohyaAdapter():
            path = adapter_file(Path(spec.path))
            return AdapterSource(format=AdapterFormat(spec.source), path=path, unet_only=spec.unet_only)
        case tasks.RandomAdapter():
            return None
        case _:
            assert_never(spec)


def adapter_file(path: Path) -> Path:
    """If `path` is a folder that diffusers' `save_lora_weights` wrote, return its tensor file; otherwise return `path`."""
    file = path / DIFFUSERS_TENSORS
    return file if is_file(file) and not is_file(path / PEFT_CONFIG) else path


def tool_versions() -> dict[str, str]:
    """Return a dict from package to version, for quadbench and the packages that a bundle depends on."""
    try:
        return {name: importlib.metadata.version(name) for name in ("quadbench", *_MODEL_PACKAGES, *_FILE_PACKAGES)}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDependencyError(f"building bundles needs the package '{error.name}'", hint=extra_hint("quad")) from error


def has_random_weights(recipe: Recipe) -> bool:
    """Return whether a recipe's model or adapters have random weights, so that images are meaningless."""
    return isinstance(recipe.foundation, tasks.RandomFoundation) or any(
        isinstance(a, tasks.RandomAdapter) for a in recipe.adapters.values()
    )


def foundation_folder(foundation: tasks.Foundation) -> Path | None:
    """Return the diffusers folder of a recipe's foundation model; None if the model has no such folder."""
    match foundation:
        case tasks.BuiltinFoundation(name=name):
            return zoo.foundation_folder(name)
        case tasks.DiffusersFoundation(path=path):
            return path
        case CheckpointFoundation() | tasks.RandomFoundation():
            return None
        case _:
            assert_never(foundation)


def known_sizes(foundation: tasks.Foundation) -> ModelSizes | None:
    """Return a foundation model's image and latent side lengths as ModelSizes; None if the configuration has no valid sizes."""
    folder = foundation_folder(foundation)
    geometry = foundation.geometry if isinstance(foundation, tasks.RandomFoundation) else CHECKPOINT_GEOMETRY
    parts = [folder / part if folder else part_folder(geometry, part) for part in ("unet", "vae")]
    try:
        configs = [read_json(part / "config.json", fault=UserError) for part in parts]
        sizes = sizes_of(configs[0]["sample_size"], configs[1])
    except (UserError, LookupError, TypeError):
        return None
    return sizes if isinstance(sizes.latent, int) and 0 < sizes.latent <= sizes.image else None


def sizes_of(latent_size: int, vae_config: Mapping[str, Any]) -> ModelSizes:
    """Return ModelSizes: latent side `latent_size`, image side `latent_size * 2 ** (N - 1)` pixels for a VAE of N blocks."""
    return ModelSizes(image=latent_size * 2 ** (len(vae_config["block_out_channels"]) - 1), latent=latent_size)


def part_folder(geometry: str, part: str) -> Path:
    """Return a geometry's configuration folder for model part `part`, like `unet`. Without such a folder, return SD 1.5's."""
    own = GEOMETRIES / geometry / part
    return own if own.is_dir() else GEOMETRIES / CHECKPOINT_GEOMETRY / part


def adapter_digests(path: Path) -> dict[str, str]:
    """Return a dict from file name (no folder) to SHA-256, for an adapter's files. Moving the files does not change it."""
    return file_digests(adapter_files(path))


def adapter_files(path: Path) -> dict[str, Path]:
    """Return a dict from file name to path of an adapter's files: two for PEFT (configuration, tensors), otherwise one."""
    path = adapter_file(path)
    is_folder = _is_folder(path)
    if is_folder or path.name == PEFT_TENSORS:
        folder = path if is_folder else path.parent
        return {name: folder / name for name in (PEFT_CONFIG, PEFT_TENSORS)}
    return {path.name: path}


def foundation_files(folder: Path, parts: Collection[str]) -> dict[str, Path]:
    """Return a dict from relative to full path of files that builds read, from the folders `parts` of a model's folder. Raise
    UserError if one is missing.
    """
    if not _is_folder(folder):
        raise UserError(f"foundation model '{folder}' is not a folder; expected a folder in diffusers' layout")
    missing = [part for part in parts if not _is_folder(folder / part)]
    missing += [] if is_file(folder / DIFFUSERS_INDEX) else [DIFFUSERS_INDEX]
    if missing:
        raise UserError(
            f"foundation model '{folder}' lacks {', '.join(missing)}; expected a folder in diffusers' layout with them",
            hint="save it with the model's pipeline of diffusers: save_pretrained(folder, safe_serialization=True)",
        )
    files = (path for part in parts for pattern in _READ for path in (folder / part).glob(pattern) if is_file(path))
    return {path.relative_to(folder).as_posix(): path for path in (folder / DIFFUSERS_INDEX, *files)}


def require_weights(path: Path) -> None:
    """Raise UserError unless a foundation model's weights file is readable and has at most MAX_WEIGHTS_BYTES bytes."""
    hint = "give the .safetensors file"
    require_file(path, "foundation model", fault=UserError, hint=hint, max_bytes=MAX_WEIGHTS_BYTES)


def tensor_places(path: Path) -> dict[str, tuple[int, int]]:
    """Return a dict from tensor name to (begin, end), byte offsets in a safetensors file. Raise ValueError for a bad file."""
    header, data_bytes, size_bytes = _header(path)
    header.pop(_METADATA, None)
    if len(header) > MAX_TENSORS:
        raise ValueError(f"the file has {len(header)} tensors; expected at most {MAX_TENSORS}")
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = max((end for _, end in places.values()), default=0)
    if end != data_bytes:
        raise ValueError(f"the header describes {end} bytes of tensors, but the file has {data_bytes}")
    start = size_bytes - data_bytes
    return {name: (start + begin, start + end) for name, (begin, end) in places.items()}


def tensor_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return (shapes by tensor name, metadata) of a safetensors file whose header was checked. Odd entries are left out."""
    header, _, _ = _header(path)
    metadata = header.pop(_METADATA, None)
    shapes = {name: tuple(shape) for name, entry in header.items() if (shape := _shape(entry)) is not None}
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return shapes, {key: value for key, value in texts if isinstance(value, str)}


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return (header, bytes of tensors, bytes of the file) of a safetensors file. Raise ValueError for a bad header."""
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES).ljust(_LENGTH_BYTES, b"\xff"))
        data_bytes = size_bytes - _LENGTH_BYTES - length
        if length > _MAX_HEADER_BYTES or data_bytes < 0:
            raise ValueError(f"the file has {size_bytes} bytes, but claims a header of {length}")
        header = from_json(file.read(length), allow_inf_nan=False)
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    return header, data_bytes, size_bytes


def _shape(entry: object) -> list[int] | None:
    match entry:
        case {"shape": list() as shape} if all(isinstance(side, int) for side in shape):
            return shape
        case _:
            return None


def _place(name: str, entry: object) -> tuple[int, int]:
    """Return a tensor's (begin, end) from its safetensors header entry, in bytes after the end of the header."""
    match entry:
        case {"data_offsets": [int(begin), int(end)]}:
            return begin, end
        case _:
            raise ValueError(f"tensor '{name[:64]}' has no valid data_offsets")


def check_checkpoint(path: Path) -> None:
    """Raise UserError unless `path` is a valid single-file model: a `.safetensors` file of at most MAX_WEIGHTS_BYTES bytes."""
    if path.suffix != SAFETENSORS:
        raise UserError(
            f"foundation model '{path}' is not a .safetensors file; pickles (.ckpt, .pt, .bin) are not opened, as they run code",
            hint="save the model as safetensors, or give its diffusers folder with source: diffusers",
        )
    require_weights(path)
    try:
        tensor_places(path)
    except (OSError, ValueError) as error:
        raise UserError(f"foundation model '{path}' is not a valid safetensors file: {_reason(error)}") from error


def check_adapter(name: str, source: AdapterSource) -> None:
    """Raise AdapterError unless `source.path` is a PEFT folder, or for other formats a file, with a valid safetensors header."""
    path, is_folder = source.path, _is_folder(source.path)
    if not os.path.exists(path):  # noqa: PTH110  (it raises nothing)
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=_pickle_beside(path))
    if is_folder is not (source.format is AdapterFormat.PEFT):
        a_file = f"a {SAFETENSORS} file, or a folder with {DIFFUSERS_TENSORS}"
        expected = a_file if is_folder else f"a folder with {PEFT_CONFIG} and {PEFT_TENSORS}"
        raise AdapterError(f"adapter '{name}': '{path}' is {'a folder' if is_folder else 'not a folder'}; expected {expected}")
    if is_folder:
        require_file(path / PEFT_CONFIG, f"adapter '{name}':", fault=AdapterError)
    check_tensor_file(name, path / PEFT_TENSORS if is_folder else path)


def check_adapter_tensors(name: str, path: Path) -> None:
    """Raise AdapterError unless an adapter's tensor file has a valid safetensors header. `path` is the file or its folder."""
    path = adapter_file(path)
    check_tensor_file(name, path / PEFT_TENSORS if _is_folder(path) else path)


def check_tensor_file(name: str, path: Path) -> None:
    """Raise AdapterError unless an adapter's file is safetensors with at least one tensor. Only the file's header is read."""
    if path.suffix in PICKLES:
        raise AdapterError(
            f"adapter '{name}': '{path}' is a pickle, which is never opened, as it can run any code",
            hint="load the file where you trust it, and save it with safetensors.torch.save_file",
        )
    if not os.path.exists(path):  # noqa: PTH110  (it raises nothing)
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=_pickle_beside(path))
    require_file(path, f"adapter '{name}':", fault=AdapterError, max_bytes=MAX_ADAPTER_BYTES)
    try:
        places = tensor_places(path)
    except (OSError, ValueError) as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not a valid safetensors file: {_reason(error)}") from error
    if not places:
        raise AdapterError(f"adapter '{name}': '{path}' has no tensors")


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (it raises nothing, where Path.is_dir does if a folder above cannot be entered)


def _pickle_beside(path: Path) -> str | None:
    """Return a hint that a missing adapter file exists as a pickle file of the same name; None if there is no such file."""
    pickles = [path.with_suffix(suffix).name for suffix in PICKLES if is_file(path.with_suffix(suffix))]
    return f"'{pickles[0]}' is a pickle, which is never opened; save with safe_serialization=True" if pickles else None


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or str(error))
