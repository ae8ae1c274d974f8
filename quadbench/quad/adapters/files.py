"""Files: a safetensors file -> its tensors and metadata, or the fault of the file. Pickles are never opened."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from quadbench.errors import AdapterError
from quadbench.quad.sources import MOST_ADAPTER_BYTES
from quadbench.spec import require_file

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A safetensors file as it is: nothing converted, at least one tensor."""

    path: Path
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]


def read_tensor_file(name: str, path: Path) -> TensorFile:
    """Read a whole file into memory.

    Raises:
        AdapterError: the file is missing, a pickle, cut off, too large, of another format, or empty.
    """
    if path.suffix in _PICKLES:
        raise AdapterError(
            f"adapter '{name}': '{path}' is a pickle, which is never opened: it can run any program",
            hint="save it as safetensors; load it where you trust it, then safetensors.torch.save_file",
        )
    if not path.is_file():
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=_pickle_beside(path))
    require_file(path, f"adapter '{name}':", fault=AdapterError, most_bytes=MOST_ADAPTER_BYTES)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not a whole safetensors file: {error}") from error
    if not tensors:
        raise AdapterError(f"adapter '{name}': '{path}' holds no tensors")
    return TensorFile(path=path, tensors=tensors, metadata=metadata)


def _pickle_beside(path: Path) -> str | None:
    """Return a hint where the same adapter lies beside the path as a pickle; others' pickles say nothing."""
    pickles = [path.with_suffix(suffix).name for suffix in _PICKLES if path.with_suffix(suffix).is_file()]
    return f"'{pickles[0]}' is a pickle, which is never opened; save with safe_serialization=True" if pickles else None
