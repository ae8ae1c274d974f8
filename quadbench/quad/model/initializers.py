"""Initializers: reading, running and saving ONNX graphs with weights in an external file, without a second copy in memory.

A protobuf is limited to 2 GB, and every copy costs as much memory. So the graph of a large model stays small: its initializers
refer to a file and an offset. In memory, the file is given by its absolute path.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError, Message
from onnx import helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data
from safetensors.numpy import save_file

from quadbench.errors import ArtifactError, quote
from quadbench.harness.runtime_library import EXACT
from quadbench.quad.model_files import tensor_places
from quadbench.results.manifest import link_file

ROOT = Path("/")
_GRAPH, _WEIGHTS = "graph.onnx", "weights"
_ALIGNMENT = 64  # bytes, of each weight in a file
_PLACE_KEYS = {"location", "offset", "length", "checksum"}  # used by quadbench and by torch's exporter
INLINE_LIMIT_BYTES = 2**28  # far below protobuf's 2**31, as graphs are copied several times


def save_with_file(program: object, scratch: Path) -> onnx.ModelProto:
    """Save a torch ONNXProgram, with a separate weights file, in a new folder in `scratch`. Return the graph without weights."""
    folder = Path(tempfile.mkdtemp(dir=scratch.resolve()))
    program.save(folder / _GRAPH, external_data=True)  # type: ignore[attr-defined]
    return open_graph(folder / _GRAPH, folder / f"{_GRAPH}.data")


def keep_graph(model: onnx.ModelProto, folder: Path) -> None:
    """Write a graph into an empty folder, and move its file of weights there, if `save_with_file` has written one."""
    outside = file_of(model)
    onnx.save(with_weights_file(model, _WEIGHTS) if outside else model, folder / _GRAPH)
    if outside:
        link_file(outside, folder / _WEIGHTS)
        discard(model)


def kept_graph(folder: Path) -> onnx.ModelProto:
    """Return the graph that `keep_graph` wrote into a folder, without reading external weights."""
    weights = folder / _WEIGHTS
    return open_graph(folder / _GRAPH, weights if weights.exists() else None)


def open_graph(path: Path, weights: Path | None) -> onnx.ModelProto:
    """Return the ONNX graph in the file `path`, without reading external weights. Only the file `weights` may hold them; None
    allows no external weights. Raise ArtifactError for an invalid graph, or for an invalid file, offset or length of weights.
    """
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
        for tensor in external_tensors(model):
            place = _place(tensor)
            location = place.get("location", "")
            if weights is None or location != weights.name:
                whose = f"only in '{weights.name}'" if weights else "inside the graph"
                raise ArtifactError(f"graph '{path}' has weights in {quote(location)}; expected them {whose}")
            _check_place(tensor, place, weights.stat().st_size)
            _set_location(tensor, str(weights.resolve().relative_to(ROOT)))
    except (OSError, DecodeError, ValueError) as error:
        raise ArtifactError(f"graph '{path}' cannot be read: {error}", hint="build the bundle again") from error
    return model


def _place(tensor: onnx.TensorProto) -> dict[str, str]:
    """Return a tensor's ONNX external_data entries as a dict from key to text. Raise ValueError for unknown or repeated keys."""
    place: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _PLACE_KEYS or entry.key in place:
            known = ", ".join(sorted(_PLACE_KEYS))
            raise ValueError(f"tensor {quote(tensor.name)} has an extra key {quote(entry.key)}; expected one each of {known}")
        place[entry.key] = entry.value
    return place


def _check_place(tensor: onnx.TensorProto, place: dict[str, str], file_bytes: int) -> None:
    """Raise ValueError if a tensor's external data ends beyond the file, or has a length that does not match the shape."""
    size, name = _size_bytes(tensor), quote(tensor.name)
    for key in ("offset", "length"):
        if not ((text := place.get(key, "0")).isascii() and text.isdigit() and len(text) < len(str(2**63))):
            raise ValueError(f"tensor {name} has {key} {quote(text)}; expected a number of bytes")
    offset, length = int(place.get("offset", "0")), int(place.get("length", size))
    if length != size:
        raise ValueError(f"tensor {name} has length {length}; expected {size} for its shape and type")
    if offset + size > file_bytes:
        raise ValueError(f"tensor {name} ends at byte {offset + size}; expected at most {file_bytes}, the size of its file")


def _size_bytes(tensor: onnx.TensorProto) -> int:
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        raise ValueError(f"tensor {quote(tensor.name)} has type {tensor.data_type}, which is not an ONNX type") from error
    if any(dimension < 0 for dimension in tensor.dims):
        raise ValueError(f"tensor {quote(tensor.name)} has shape {list(tensor.dims)[:8]}; expected dimensions of 0 or more")
    return prod(tensor.dims) * dtype.itemsize


def external_tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield all tensors with external data in a model or a part of it, including those in nodes and functions."""
    if isinstance(message, onnx.TensorProto):
        yield from (message,) if uses_external_data(message) else ()
        return
    for field, content in message.ListFields():
        if field.message_type:
            for part in (content,) if isinstance(content, Message) else content:
                yield from external_tensors(part)


def file_of(model: onnx.ModelProto) -> Path | None:
    """Return the external weights file of a graph; None if the graph holds its weights itself."""
    return next((ROOT / ExternalDataInfo(initializer).location for initializer in _external(model)), None)


def discard(model: onnx.ModelProto) -> None:
    """Remove the weights files that `save_with_file` wrote for a graph, if any; the graph cannot be used afterwards."""
    if file := file_of(model):
        file.unlink()
        file.with_name(_GRAPH).unlink()
        file.parent.rmdir()


def with_weights_file(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a copy of a graph whose external weights are in the file `name`, in the folder where the copy will be saved."""
    saved = deepcopy(model)
    for initializer in _external(saved):
        _set_location(initializer, name)
    return saved


def value(initializer: onnx.TensorProto) -> np.ndarray:
    """Return an initializer's values. External values are memory-mapped, and must not be written to."""
    if not uses_external_data(initializer):
        return numpy_helper.to_array(initializer)
    info, shape = ExternalDataInfo(initializer), tuple(initializer.dims)
    dtype = helper.tensor_dtype_to_np_dtype(initializer.data_type)
    return np.memmap(ROOT / info.location, dtype, "r", offset=info.offset or 0, shape=shape)


def with_inline_values(initializer: onnx.TensorProto) -> onnx.TensorProto:
    """Return an initializer that holds its values itself, not in an external file."""
    return numpy_helper.from_array(value(initializer), initializer.name) if uses_external_data(initializer) else initializer


def transpose(initializer: onnx.TensorProto) -> None:
    """Transpose a 2-D ONNX initializer in place, whether its values are in the graph or in an external file."""
    turned = np.ascontiguousarray(value(initializer).T)
    if not uses_external_data(initializer):
        initializer.CopyFrom(numpy_helper.from_array(turned, initializer.name))
        return
    with (ROOT / ExternalDataInfo(initializer).location).open("r+b") as file:
        file.seek(ExternalDataInfo(initializer).offset or 0)
        file.write(turned.tobytes())
    initializer.dims[:] = turned.shape


class WeightsFile:
    """A new file in the folder `scratch`, to which weights are appended in a `with` block. Without weights there is no file."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._file: BinaryIO | None = None

    def __enter__(self) -> "WeightsFile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, name: str, value: np.ndarray) -> onnx.TensorProto:
        """Append an array to the file. Return an initializer that refers to it."""
        if self._file is None:
            descriptor, _ = path = tempfile.mkstemp(dir=self._scratch.resolve(), suffix=".weights")
            self._file, self._location = os.fdopen(descriptor, "wb"), str(Path(path[1]).relative_to(ROOT))
        tensor = onnx.TensorProto(
            name=name, data_type=helper.np_dtype_to_tensor_dtype(value.dtype), dims=value.shape, raw_data=b""
        )
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        set_external_data(tensor, self._location, self._file.tell(), value.nbytes)
        tensor.ClearField("raw_data")
        self._file.write(np.ascontiguousarray(value).data)
        return tensor


def move_to_file(model: onnx.ModelProto, names: Sequence[str], scratch: Path) -> None:
    """Move named initializers of a graph to a safetensors file in the folder `scratch`, under the same tensor names."""
    path = Path(tempfile.mkdtemp(dir=scratch.resolve())) / "weights.safetensors"
    moved = {initializer.name: initializer for initializer in model.graph.initializer if initializer.name in names}
    save_file({name: numpy_helper.to_array(initializer) for name, initializer in moved.items()}, path)
    for name, (begin, end) in tensor_places(path).items():
        set_external_data(moved[name], str(path.relative_to(ROOT)), begin, end - begin)
        moved[name].ClearField("raw_data")


def open_session(model: onnx.ModelProto, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open an ONNX Runtime session for a graph on this machine's CPU; 0 threads means one per core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # memory patterns would allocate all tensors again after the first run
    options.add_session_config_entry(*EXACT)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning takes CPU time from other processes
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(ROOT))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _external(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield a graph's initializers whose values are in an external file."""
    return (initializer for initializer in model.graph.initializer if uses_external_data(initializer))


def _set_location(initializer: onnx.TensorProto, location: str) -> None:
    for entry in initializer.external_data:
        if entry.key == "location":
            entry.value = location
