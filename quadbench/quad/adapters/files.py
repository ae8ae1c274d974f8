"""Files: a safetensors file -> its tensors and metadata, or the fault of the file. Pickles are never opened."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from quadbench.errors import AdapterError
from quadbench.quad.layouts import check_tensor_file


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
    check_tensor_file(name, path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not a whole safetensors file: {error}") from error
    return TensorFile(path=path, tensors=tensors, metadata=metadata)
