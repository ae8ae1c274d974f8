"""Rounded graph: a QDQ graph as operations on integer tensors with scales, in LiteRT's symmetric INT16 encodings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from quadbench.errors import BuildError
from quadbench.lint.linted_graph import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]
_MAX_INSPECTED = 1024  # the most bytes of a constant that shape inference may read
REQUANTIZE, GROUP_NORM = "Requantize", "GroupNorm"  # operations that replace several ONNX nodes, or none
_PARTS = ("Conv", "Reshape", "InstanceNormalization", "Reshape")  # in reverse order
GREATEST = 32767
UNIT_SCALE = 2.0**-15  # the output scale of LOGISTIC, fixed by LiteRT
_MAX_UINT16 = 65535


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Constant values with one scale, or one per index of `axis`. If `scales` is None, the values are not quantized."""

    values: np.ndarray
    scales: np.ndarray | None = None
    axis: int = 0

    @property
    def dequantized(self) -> np.ndarray:
        """Return the constant's values times its scales, as float32. If `scales` is None, return the values unchanged."""
        if self.scales is None:
            return self.values
        shape = [-1 if dimension == self.axis else 1 for dimension in range(self.values.ndim)] if self.scales.ndim else []
        return np.asarray(self.values.astype(np.float32) * self.scales.reshape(shape))


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation of a RoundedGraph. `inputs` names tensors and constants; an empty name is an omitted optional input."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.op_type} '{self.name}'"


@dataclass(kw_only=True)
class RoundedGraph:
    """A quantized model as a list of integer operations. `outputs` maps ONNX output names to quantized tensors' names."""

    inputs: dict[str, str]  # NumPy dtype of each input
    outputs: dict[str, str]
    shapes: dict[str, Shape]
    operations: list[Operation] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)


def read_rounded_graph(model: "ModelProto") -> RoundedGraph:
    """Convert an ONNX model in QDQ form to integer operations. Large weights are removed from `model` to save memory."""
    reader = _QdqReader(model)
    for node in model.graph.node:
        reader.read(node)
    return reader.finished()


class _QdqReader:
    """Converts a QDQ graph to a RoundedGraph (integer operations). `names` maps QDQ tensor names to RoundedGraph tensor names."""

    def __init__(self, model: "ModelProto") -> None:
        from onnx import TensorProto, helper, numpy_helper, shape_inference

        self._stored = {constant.name: np.asarray(numpy_helper.to_array(constant)) for constant in model.graph.initializer}
        for constant in model.graph.initializer:
            if len(constant.raw_data) > _MAX_INSPECTED:
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
        """Convert one node of the QDQ graph and add it to `graph`. Nodes must come in topological order."""
        match node.op_type:
            case "DequantizeLinear":
                self._dequantized(node)
            case "QuantizeLinear":
                self._quantized(node)
            case _:
                self._operation(node)

    def finished(self) -> RoundedGraph:
        """Return the RoundedGraph after `read` has converted all nodes. Raise BuildError if a float tensor has no scale."""
        graph = self.graph
        graph.outputs = {name: self.names.get(name, name) for name in self._output_names}
        tensors = [*graph.outputs.values(), *(name for op in graph.operations for name in op.outputs)]
        for name in tensors:
            if name not in graph.scales and name in self._floats:
                raise BuildError(f"'{name}' is not quantized", hint="put QuantizeLinear and DequantizeLinear around every node")
        return graph

    def _dequantized(self, node: "NodeProto") -> None:
        source, output = node.input[0], node.output[0]
        if source in self._stored:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            constant = Constant(values=self._stored[source], scales=self._stored[node.input[1]], axis=axis)
            self.graph.constants[output] = constant
            return
        self.names[output] = self.names.get(source, source)
        self.graph.scales.setdefault(self.names[output], float(self._stored[node.input[1]]))

    def _quantized(self, node: "NodeProto") -> None:
        """Convert a QuantizeLinear: set its input's scale. If a different scale is already set, add a Requantize operation."""
        source, output = self.names.get(node.input[0], node.input[0]), node.output[0]
        scale = float(self._stored[node.input[1]])
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


def fuse_group_norms(graph: RoundedGraph) -> RoundedGraph:
    """Replace each Reshape, InstanceNormalization, Reshape and depthwise Conv by one GroupNorm. Return the new RoundedGraph."""
    makers = {name: op for op in graph.operations for name in op.outputs}
    operations = [_group_norm(graph, op, makers) or op for op in graph.operations]
    needed, kept = set(graph.outputs.values()), []
    for op in reversed(operations):
        if needed.intersection(op.outputs):  # another operation reads the results
            needed.update(op.inputs)
            kept.append(op)
    return replace(graph, operations=kept[::-1])


def _group_norm(graph: RoundedGraph, op: Operation, makers: dict[str, Operation]) -> Operation | None:
    """Fuse the group norm that ends in `op`, a depthwise Conv. Return one operation, or None if `op` ends no group norm."""
    parts = [op]
    while len(parts) < len(_PARTS) and parts[-1].inputs[0] in makers:
        parts.append(makers[parts[-1].inputs[0]])
    if tuple(part.op_type for part in parts) != _PARTS or op.attributes.get("group", 1) == 1:
        return None
    _, _, norm, rows = parts
    attributes = {"epsilon": norm.attributes["epsilon"], "groups": graph.shapes[rows.outputs[0]][1]}
    return replace(op, op_type=GROUP_NORM, inputs=(rows.inputs[0], *op.inputs[1:]), attributes=attributes)


def reencode_for_litert(model: "ModelProto") -> "ModelProto":
    """Convert a QDQ graph's UINT16 encodings to LiteRT's symmetric INT16 ones, in place. Return `model` itself."""
    writer = _Dialect(model=model, constants={constant.name: constant for constant in model.graph.initializer})
    for node in model.graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            writer.reencode(node)
    writer.reencode_biases()
    return model


def symmetric_scale(scale: float, zero_point: int) -> float:
    """Return the scale of an INT16 encoding with zero point 0 that covers the range of a UINT16 encoding."""
    magnitude = scale * max(zero_point, _MAX_UINT16 - zero_point)
    is_unit = zero_point == 0 and np.isclose(magnitude, 1.0, rtol=1e-6)
    return UNIT_SCALE if is_unit else float(np.float32(magnitude / GREATEST))


@dataclass(kw_only=True)
class _Dialect:
    """Converts a QDQ graph from UINT16 to INT16. `scales` maps each per-tensor DequantizeLinear output to its new scale."""

    model: "ModelProto"
    constants: dict[str, Any]
    scales: dict[str, float] = field(default_factory=dict)

    def reencode(self, node: "NodeProto") -> None:
        """Convert the UINT16 encoding of a QDQ node to symmetric INT16. Leave per-channel encodings (of weights) unchanged."""
        scale, zero = self._value(node.input[1]), self._value(node.input[2])
        if scale.ndim:
            return
        if zero.dtype == np.uint8:
            hint = "set precision.activations to {scheme: w8a16}"
            raise BuildError(f"'{node.input[0]}' is quantized to 8 bits; LiteRT graphs need 16-bit activations", hint=hint)
        new = symmetric_scale(float(scale), int(zero)) if zero.dtype == np.uint16 else float(scale)
        if zero.dtype == np.uint16:
            name = node.input[0]
            if name in self.constants and (stored := self._value(name)).dtype == np.uint16:  # only once: later readers find INT16
                values = (stored.astype(np.float64) - int(zero)) * float(scale)
                self._replace(name, np.clip(np.rint(values / new), -GREATEST, GREATEST).astype(np.int16))
            node.input[1] = self._constant(f"scale.{new!r}", np.float32(new))
            node.input[2] = self._constant("zero_point.int16.0", np.int16(0))
        if node.op_type == DEQUANTIZE:
            self.scales[node.output[0]] = new

    def reencode_biases(self) -> None:
        """Requantize biases after layers' input scales have changed. A bias scale is input scale times weight scale."""
        dequantizers = {node.output[0]: node for node in self.model.graph.node if node.op_type == DEQUANTIZE}
        for node in self.model.graph.node:
            bias = dequantizers.get(node.input[2]) if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else None
            if bias is None or bias.input[0] not in self.constants or self._value(bias.input[0]).dtype != np.int32:
                continue
            exact = self._value(bias.input[0]) * self._value(bias.input[1]).astype(np.float64)
            weight_scales = self._value(dequantizers[node.input[1]].input[1])
            scales = (weight_scales * np.float32(self.scales[node.input[0]])).astype(np.float32)
            self._replace(bias.input[0], np.rint(exact / scales).astype(np.int32))
            self._replace(bias.input[1], scales)

    def _value(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _replace(self, name: str, value: np.ndarray | np.generic) -> None:
        from onnx import numpy_helper

        self.constants[name].CopyFrom(numpy_helper.from_array(np.asarray(value), name))

    def _constant(self, name: str, value: np.generic) -> str:
        """Add a constant and return its name. If the graph has a constant of this name already, add nothing."""
        if name not in self.constants:
            self.constants[name] = self.model.graph.initializer.add()
            self._replace(name, value)
        return name
