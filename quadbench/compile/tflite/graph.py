"""Graph: a QDQ graph -> its operations between rounded tensors, and the scale of each tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quadbench.errors import BuildError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]
_MOST_LOOKED_AT = 1024  # bytes of a constant whose values shapes may follow from
REQUANTIZE, GROUP_NORM = "Requantize", "GroupNorm"  # operations that stand for several nodes, or for none


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Integers with their scale, or with one for each index of `axis`; `scales` is None where the values are what they say."""

    values: np.ndarray
    scales: np.ndarray | None = None
    axis: int = 0

    @property
    def exact(self) -> np.ndarray:
        """Return what the integers mean, in float."""
        if self.scales is None:
            return self.values
        shape = [-1 if dimension == self.axis else 1 for dimension in range(self.values.ndim)] if self.scales.ndim else []
        return np.asarray(self.values.astype(np.float32) * self.scales.reshape(shape))


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operator. An input is a tensor, a constant, or empty where an optional one is left out."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.op_type} '{self.name}'"


@dataclass(kw_only=True)
class RoundedGraph:
    """A graph whose tensors are integers. `outputs` are the rounded tensors by the names under which they leave the graph."""

    inputs: dict[str, str]  # NumPy's name of each input's type
    outputs: dict[str, str]
    shapes: dict[str, Shape]
    operations: list[Operation] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)


def rounded_graph(model: "ModelProto") -> RoundedGraph:
    """Return the view of a QDQ graph in LiteRT's dialect. It has the model's weights, and the model has them no more.

    Raises:
        BuildError: the graph is no QDQ graph from end to end.
    """
    reader = _QdqReader(model)
    for node in model.graph.node:
        reader.read(node)
    return reader.finished()


class _QdqReader:
    """A graph as far as it was read. `names` leads from each name of a rounded tensor to the one that it has here."""

    def __init__(self, model: "ModelProto") -> None:
        from onnx import TensorProto, helper, numpy_helper, shape_inference

        self._stored = {constant.name: np.asarray(numpy_helper.to_array(constant)) for constant in model.graph.initializer}
        for constant in model.graph.initializer:
            if len(constant.raw_data) > _MOST_LOOKED_AT:
                constant.ClearField("raw_data")
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        self._output_names = [value.name for value in model.graph.output]
        self._floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.names: dict[str, str] = {}
        self.graph = RoundedGraph(
            inputs={v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name for v in model.graph.input},
            outputs={},
            shapes={v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values},
        )

    def read(self, node: "NodeProto") -> None:
        """Take the next node."""
        match node.op_type:
            case "DequantizeLinear":
                self._dequantized(node)
            case "QuantizeLinear":
                self._quantized(node)
            case _:
                self._operation(node)

    def finished(self) -> RoundedGraph:
        """Return the graph, once all nodes were read."""
        graph = self.graph
        graph.outputs = {name: self.names.get(name, name) for name in self._output_names}
        tensors = [*graph.outputs.values(), *(name for op in graph.operations for name in op.outputs)]
        for name in tensors:
            if name not in graph.scales and name in self._floats:
                raise BuildError(
                    f"'{name}' is not rounded", hint="expected QuantizeLinear and DequantizeLinear around every node"
                )
        return graph

    def _dequantized(self, node: "NodeProto") -> None:
        source, output = node.input[0], node.output[0]
        if source in self._stored:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            constant = Constant(values=self._stored[source], scales=self._stored[node.input[1]], axis=axis)
            self.graph.constants[output] = constant
            return
        self.names[output] = self.names.get(source, source)
        self.graph.scales.setdefault(self.names[output], self._scale(node))

    def _quantized(self, node: "NodeProto") -> None:
        """Let what a node gave have a scale; a tensor that has another one already is rounded again."""
        source, output, scale = self.names.get(node.input[0], node.input[0]), node.output[0], self._scale(node)
        if self.graph.scales.setdefault(source, scale) == scale:
            self.names[output] = source
            return
        self.graph.scales[output] = scale
        self.graph.shapes[output] = self.graph.shapes[source]
        self.graph.operations.append(
            Operation(name=node.name, op_type=REQUANTIZE, inputs=(source,), outputs=(output,), attributes={})
        )

    def _operation(self, node: "NodeProto") -> None:
        from onnx import helper

        for name in node.input:
            if name in self._stored:
                self.graph.constants[name] = Constant(values=self._stored[name])
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        self.graph.operations.append(
            Operation(
                name=node.name or node.output[0],
                op_type=node.op_type,
                inputs=tuple(self.names.get(name, name) for name in node.input),
                outputs=tuple(node.output),
                attributes=attributes,
            )
        )

    def _scale(self, node: "NodeProto") -> float:
        return float(self._stored[node.input[1]])
