"""Linted graph: an ONNX model's tensors, nodes and constants as plain data for the lint rules."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quadbench.artifacts import LORA_PREFIX
from quadbench.errors import ArtifactError, extra_hint, requires_package

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_MIN_INPUTS = {QUANTIZE: 2, DEQUANTIZE: 2, "Conv": 2}  # for operators whose inputs the rules read
MOVES_VALUES = {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Split", "Slice", "Flatten", "Expand", "Identity", "Gather"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor's type. `dtype` is ONNX's name, such as INT16; each dimension is a number, a symbolic name, or None if unknown."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, kw_only=True)
class Node:
    """An ONNX node. `inputs` and `outputs` are tensor names; the name of an omitted optional input is an empty string."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, str]  # only text attributes


@dataclass(frozen=True, kw_only=True)
class LintedGraph:
    """A model's main graph as data for lint rules. Subgraphs of control flow are ignored, as exported graphs have none."""

    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    overridable: frozenset[str]  # initializers that are also graph inputs, so not constant
    zero_points: Mapping[str, np.ndarray]  # only constant zero points
    dtypes: Mapping[str, str]  # for every input, constant and quantized tensor

    @property
    def lora_inputs(self) -> tuple[Tensor, ...]:
        """Return the graph's inputs that are LoRA weights, as a tuple of Tensors. Their names begin with `lora.`."""
        return tuple(tensor for tensor in self.inputs if tensor.name.startswith(LORA_PREFIX))

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that read a tensor."""
        return tuple(self._consumers.get(name, ()))

    @cached_property
    def _consumers(self) -> dict[str, list[Node]]:
        consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                consumers.setdefault(name, []).append(node)
        return consumers

    def dequantizers(self, name: str) -> Iterator[Node]:
        """Yield the DequantizeLinear nodes that read a tensor, directly or through nodes that only move values (e.g. Reshape)."""
        for node in self.consumers(name):
            if node.op_type == DEQUANTIZE and node.inputs[0] == name:
                yield node
            elif node.op_type in MOVES_VALUES and node.inputs[0] == name:
                for output in node.outputs:
                    yield from self.dequantizers(output)


def read_graph(path: Path) -> LintedGraph:
    """Read an ONNX file into a LintedGraph, the data that lint rules take. Weights stored in separate files are not loaded.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        ArtifactError: the file is not an ONNX model.
    """
    with requires_package("reading graphs", hint=extra_hint("quad")):
        import onnx
        from google.protobuf.message import DecodeError
    try:
        return graph_of(onnx.load(path, load_external_data=False))
    except (OSError, DecodeError, ValueError, IndexError) as error:
        raise ArtifactError(f"'{path}' cannot be read as an ONNX model: {error}") from error


def graph_of(model: "ModelProto") -> LintedGraph:
    """Convert a loaded ONNX `ModelProto` to a LintedGraph, the plain data that lint rules read."""
    from onnx import numpy_helper

    graph = model.graph
    nodes = tuple(_node(node) for node in graph.node)
    inputs = tuple(_tensor(value) for value in graph.input)
    arrays = dict(_constant_arrays(graph))
    overridable = arrays.keys() & {tensor.name for tensor in inputs}
    constants = {
        name: Tensor(name=name, dtype=_dtype(proto.data_type), shape=tuple(proto.dims))
        for name, proto in arrays.items()
        if name not in overridable
    }
    dtypes = {tensor.name: tensor.dtype for tensor in (*inputs, *constants.values())}
    for node in graph.node:  # integers come from inputs, constants and QuantizeLinear, directly or through moving nodes
        if node.op_type == QUANTIZE:
            dtypes[node.output[0]] = _quantized_dtype(node, dtypes)
        elif node.op_type in MOVES_VALUES and node.input[0] in dtypes:
            dtypes.update(dict.fromkeys(node.output, dtypes[node.input[0]]))
    zero_point_names = {node.input[2] for node in graph.node if node.op_type in (QUANTIZE, DEQUANTIZE) and len(node.input) > 2}
    return LintedGraph(
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        inputs=inputs,
        outputs=tuple(_tensor(value) for value in graph.output),
        nodes=nodes,
        constants=constants,
        overridable=frozenset(overridable),
        zero_points={name: np.asarray(numpy_helper.to_array(arrays[name])) for name in zero_point_names & constants.keys()},
        dtypes=dtypes,
    )


def _node(node: Any) -> Node:
    if not node.output or len(node.input) < _MIN_INPUTS.get(node.op_type, 0):
        raise ValueError(f"a {node.op_type} node has too few tensors: {len(node.input)} inputs, {len(node.output)} outputs")
    return Node(
        name=node.name or f"{node.op_type} -> {node.output[0]}",
        op_type=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={attribute.name: attribute.s.decode(errors="replace") for attribute in node.attribute if attribute.s},
    )


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    sizes = (size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in kind.shape.dim)
    return Tensor(name=value.name, dtype=_dtype(kind.elem_type), shape=tuple(sizes) if kind.HasField("shape") else (None,))


def _constant_arrays(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield `(tensor name, TensorProto)` for each initializer and Constant node of an ONNX graph. Skip sparse Constant nodes."""
    from onnx import helper, numpy_helper

    yield from ((initializer.name, initializer) for initializer in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and not node.attribute[0].name.startswith("sparse"):
            value = helper.get_attribute_value(node.attribute[0])
            is_tensor = node.attribute[0].name == "value"
            yield node.output[0], value if is_tensor else numpy_helper.from_array(np.asarray(value))


def _dtype(number: int) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(number))


def _quantized_dtype(node: Any, known: Mapping[str, str]) -> str:
    if len(node.input) > 2 and node.input[2] in known:
        return known[node.input[2]]
    chosen = next((attribute.i for attribute in node.attribute if attribute.name == "output_dtype"), 0)
    return _dtype(chosen) if chosen else "UINT8"  # as ONNX defines
