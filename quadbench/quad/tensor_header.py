"""Tensor header: a safetensors file -> its tensors and where they lie, read within bounds before anything else of it. No torch.

The format is that of https://github.com/huggingface/safetensors: eight bytes with the header's length, the header in JSON, data.
"""

import os
import struct
from pathlib import Path

from pydantic_core import from_json

from quadbench.spec.files import open_regular

MOST_TENSORS = 10_000  # Stable Diffusion 1.x has 1,131 in one file, a LoHa of all of its sites some 2,000
_MOST_HEADER_BYTES = 32 * 2**20  # trainers put lists of tags into it
_LENGTH_BYTES = 8
_METADATA = "__metadata__"


def tensor_names(path: Path) -> tuple[str, ...]:
    """Return the names of the tensors in a file that is as long as its header says.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no whole safetensors file, or has more tensors than any model or adapter.
    """
    return tuple(tensor_places(path))


def tensor_places(path: Path) -> dict[str, tuple[int, int]]:
    """Return where each tensor begins and ends, in bytes of the file, by name.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no whole safetensors file, or has more tensors than any model or adapter.
    """
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES).ljust(_LENGTH_BYTES, b"\xff"))
        data_bytes = size_bytes - _LENGTH_BYTES - length
        if length > _MOST_HEADER_BYTES or data_bytes < 0:
            raise ValueError(f"it has {size_bytes} bytes, and its header would have {length}")
        header = from_json(file.read(length), allow_inf_nan=False)
    if not isinstance(header, dict):
        raise ValueError("its header holds no tensors by name")
    header.pop(_METADATA, None)
    if len(header) > MOST_TENSORS:
        raise ValueError(f"it has {len(header)} tensors; expected at most {MOST_TENSORS}")
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = max((end for _, end in places.values()), default=0)
    if end != data_bytes:
        raise ValueError(f"its tensors end after {end} bytes of {data_bytes}: it is cut off, or more than that")
    start = size_bytes - data_bytes
    return {name: (start + begin, start + end) for name, (begin, end) in places.items()}


def _place(name: str, entry: object) -> tuple[int, int]:
    """Return where a tensor begins and ends, in bytes behind the header."""
    match entry:
        case {"data_offsets": [int(begin), int(end)]}:
            return begin, end
        case _:
            raise ValueError(f"its tensor '{name[:64]}' has no place in it")
