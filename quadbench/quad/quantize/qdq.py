"""QDQ: writing a float graph as a quantized graph, with QuantizeLinear and DequantizeLinear around every node.

Weights become INT8 per output channel, constants and activations UINT16 (or UINT8) per tensor, LoRA inputs integers with zero
point 0. Without activation encodings, activations, constants and biases stay float. The graph is written directly from ranges: no
calibration data is needed here, and no weight is held twice.
"""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.errors import BuildError
from quadbench.lint.linted_graph import MOVES_VALUES
from quadbench.quad.model import initializers as weights
from quadbench.quad.quantize import encodings as enc
from quadbench.quad.quantize.encodings import Encoding, Range

WEIGHT_AXIS = {"Conv": 0, "Gemm": 0, "MatMul": 1}  # the output channel of input 1; Gemm has transB = 1
KEEPS_ENCODING = MOVES_VALUES | {"Resize"}  # Resize repeats values (fake_quant.RESIZE_FORMS)
KNOWN_RANGES = {"Softmax": Range(low=0.0, high=1.0), "Sigmoid": Range(low=0.0, high=1.0)}
# Qualcomm's HTP refuses these with 8 bits in and 16 out or the reverse, and with 16-bit LoRA weights between 8-bit tensors.
ONE_WIDTH = {"Conv", "Gemm", "MatMul", "InstanceNormalization"}


def weight_key(name: str, *, axis: int) -> str:
    """Return the name prefix of a weight's tensors in the QDQ graph: integers (`.int8`), `.scales` and `.zero_points`."""
    return f"{name}.axis{axis}"


def bias_key(name: str, output: str) -> str:
    """Return the prefix of a bias's tensor names (`.int32`, `.scales`) in the QDQ graph. `output` names the layer's output."""
    return f"{name}.for.{output}"


def encoding_sources(model: onnx.ModelProto, tensors: Collection[str]) -> dict[str, str]:
    """Return a dict from tensor to the tensor whose encoding it uses: itself, or the input of a node that only moves values."""
    sources = {value.name: value.name for value in model.graph.input if value.name in tensors}
    for node in model.graph.node:
        for output in node.output:
            if output in tensors:
                moved = node.input[0] if node.op_type in KEEPS_ENCODING else output
                sources[output] = sources.get(moved, output)
    return sources


def activation_encodings(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    *,
    dtype: str,
    lora: Mapping[str, Encoding] | None = None,
) -> dict[str, Encoding]:
    """Return a dict from the name of each tensor in `ranges`, except the inputs in `lora`, to the tensor's encoding.
    The output of a node that only moves values (Transpose) has the input's encoding. Softmax and Sigmoid get the range [0, 1].
    """
    operators = {output: node.op_type for node in model.graph.node for output in node.output}
    encodings: dict[str, Encoding] = dict(lora or {})
    for name, source in encoding_sources(model, ranges).items():
        if source not in encodings:
            values = KNOWN_RANGES.get(operators.get(source, ""), ranges[source])
            encodings[source] = enc.asymmetric(values, dtype)
        encodings[name] = encodings[source]
    return {name: encoding for name, encoding in encodings.items() if name not in (lora or {})}


def quantize_graph(
    model: onnx.ModelProto, activations: Mapping[str, Encoding], lora: Mapping[str, Encoding] | None = None
) -> onnx.ModelProto:
    """Convert a float graph to a QDQ graph. Inputs in `lora` become integers. Activations without an encoding stay float."""
    return _Writer(model=model, activations=activations, lora=lora or {}).write()


def typed_input(value: onnx.ValueInfoProto, lora: Mapping[str, Encoding]) -> onnx.ValueInfoProto:
    """Return a copy of a graph input. An input in `lora` gets the integer type of its encoding; other inputs keep their type."""
    typed = deepcopy(value)
    if value.name in lora:
        typed.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(lora[value.name].dtype))
    return typed


@dataclass(kw_only=True)
class _Writer:
    """A converter of the float graph `model` to a QDQ graph. It collects nodes, constants and dequantized tensors' names."""

    model: onnx.ModelProto
    activations: Mapping[str, Encoding]
    lora: Mapping[str, Encoding]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    dequantized: dict[str, str] = field(default_factory=dict)  # float tensor or (constant, role) -> its dequantized tensor
    scales: dict[str, np.ndarray] = field(default_factory=dict)  # dequantized weight -> scales per channel

    def write(self) -> onnx.ModelProto:
        """Write all nodes, check the QDQ graph, and return it."""
        graph = self.model.graph
        self._initializers = {i.name: i for i in graph.initializer}
        self._outputs = {v.name for v in graph.output}
        for name in (value.name for value in graph.input):
            if name in self.lora:
                self._dequantize(name, name, self._parameters(self.lora[name]))
            elif name in self.activations:
                self._quantize_dequantize(name, name, f"{name}.dq", self.activations[name])
        for node in graph.node:
            self._node(node)
        quantized = helper.make_graph(
            self.nodes, graph.name, [typed_input(v, self.lora) for v in graph.input], list(graph.output)
        )
        written = helper.make_model(quantized, opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version)
        checked = deepcopy(written)  # onnx makes two copies of all that it checks, so constants are inputs without values there
        checked.graph.input.extend(helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in self.constants.values())
        onnx.checker.check_model(checked)
        for name in list(self.constants):
            written.graph.initializer.append(self.constants.pop(name))  # append copies it
        return written

    def _node(self, node: onnx.NodeProto) -> None:
        """Add a float node to the QDQ graph. The node reads dequantized inputs. Each output with an encoding is quantized."""
        copy = deepcopy(node)
        for i, name in enumerate(node.input):
            copy.input[i] = self._operand(node, i, name)
        self.nodes.append(copy)
        for i, name in enumerate(node.output):
            if name not in self.activations:
                continue
            source, target = (f"{name}.raw", name) if name in self._outputs else (name, f"{name}.dq")
            copy.output[i] = source
            if self._is_widened(node, name):
                copy.output[i] = f"{name}.exact"
                self._quantize_dequantize(copy.output[i], copy.output[i], source, enc.widen(self.activations[name]))
            self._quantize_dequantize(name, source, target, self.activations[name])

    def _is_widened(self, node: onnx.NodeProto, name: str) -> bool:
        """Return whether a node must use the 8-bit tensor `name` as 16-bit, because the operator needs tensors of equal width."""
        if node.op_type not in ONE_WIDTH or name not in self.activations or self.activations[name].dtype != "uint8":
            return False
        encodings = {**self.activations, **self.lora}
        return any(encodings[other].bits == 16 for other in (*node.input[:2], *node.output) if other in encodings)

    def _rounded_again(self, name: str, form: str, encoding: Encoding) -> str:
        """Requantize a tensor with `encoding`. Return the new name `{name}.{form}.dq`, where `form` is `wide` or `factor`."""
        key = f"{name}.{form}"
        if key not in self.dequantized:
            self._quantize_dequantize(key, self.dequantized[name], f"{key}.dq", encoding)
        return self.dequantized[key]

    def _data_encoding(self, node: onnx.NodeProto) -> Encoding | None:
        """Return the encoding of a node's first input, widened to UINT16 if the node needs it. Return None for a float input."""
        name = node.input[0]
        return enc.widen(self.activations[name]) if self._is_widened(node, name) else self.activations.get(name)

    def _operand(self, node: onnx.NodeProto, index: int, name: str) -> str:
        """Return the tensor name that a QDQ node reads as one of its inputs: a dequantized tensor, or an unchanged constant."""
        initializer = self._initializers.get(name)
        if initializer is None:
            if index == 0 and self._is_widened(node, name):
                return self._rounded_again(name, "wide", enc.widen(self.activations[name]))
            is_factor = node.op_type == "MatMul" and index == 1
            return self._factor(name) if is_factor else self.dequantized.get(name, name)
        if initializer.data_type != TensorProto.FLOAT or (index > 0 and node.op_type in KEEPS_ENCODING):
            return self._as_it_is(initializer)
        if node.op_type in WEIGHT_AXIS and index == 1:
            return self._weight(node, name)
        if node.op_type == "Gather" and index == 0:
            return self._constant(name, enc.symmetric(float(np.abs(self._value(name)).max()), "int8"))
        if not self.activations:
            return self._as_it_is(initializer)
        if node.op_type in ("Conv", "Gemm") and index == 2:
            return self._bias(node, name)
        return self._constant(name, enc.asymmetric(enc.range_of(self._value(name)), "uint16"))

    def _as_it_is(self, initializer: onnx.TensorProto) -> str:
        self.constants[initializer.name] = weights.with_inline_values(initializer)
        return initializer.name

    def _factor(self, name: str) -> str:
        """Return the name of a MatMul's dequantized second input. Requantize UINT16 to INT16, as HTP cuts UINT16 to 8 bits."""
        encoding = self.activations.get(name)
        if encoding is None or encoding.dtype != "uint16":
            return self.dequantized.get(name, name)
        magnitude = encoding.scale * max(encoding.zero_point, encoding.limit - encoding.zero_point)
        return self._rounded_again(name, "factor", enc.symmetric(magnitude, "int16"))

    def _value(self, name: str) -> np.ndarray:
        return weights.value(self._initializers[name])

    def _weight(self, node: onnx.NodeProto, name: str) -> str:
        """Write a weight as INT8 with one scale per output channel, and return its dequantized tensor's name."""
        axis = WEIGHT_AXIS[node.op_type]
        key = weight_key(name, axis=axis)
        if key not in self.dequantized:
            value = self._value(name)
            if value.ndim < 2 or (node.op_type == "MatMul" and value.ndim != 2):
                raise BuildError(f"weight '{name}' of {node.op_type} has shape {value.shape}; expected a matrix or a filter")
            integers, scales = enc.quantize_channels(value, axis, least_scales=self._least_scales(node))
            self._store(f"{key}.int8", integers)
            self._dequantize(key, f"{key}.int8", self._channel_parameters(key, scales, np.int8), axis=axis)
            self.scales[self.dequantized[key]] = scales
        return self.dequantized[key]

    def _least_scales(self, node: onnx.NodeProto) -> np.ndarray | None:
        """Return the least weight scales (O,) with which the bias fits INT32. Return None without bias or with a float input."""
        encoding = self._data_encoding(node)
        if len(node.input) < 3 or encoding is None:
            return None
        return np.abs(self._value(node.input[2])) / (encoding.scale * 2**30)

    def _bias(self, node: onnx.NodeProto, name: str) -> str:
        """Store a bias as INT32 if layer input and weight are quantized, else as UINT16. Return the dequantized tensor's name."""
        weight = self._operand(node, 1, node.input[1])
        encoding = self._data_encoding(node)
        if weight not in self.scales or encoding is None:
            return self._constant(name, enc.asymmetric(enc.range_of(self._value(name)), "uint16"))
        scales = (self.scales[weight] * np.float32(encoding.scale)).astype(np.float32)
        key = bias_key(name, node.output[0])
        integers = enc.quantize_bias(self._value(name), scales)
        if np.abs(integers.astype(np.int64)).max(initial=0) >= enc.limits("int32")[1]:
            raise BuildError(f"bias '{name}' of {node.op_type} does not fit 32 bits: its input or weight range is too small")
        self._store(f"{key}.int32", integers)
        self._dequantize(key, f"{key}.int32", self._channel_parameters(key, scales, np.int32), axis=0)
        return self.dequantized[key]

    def _constant(self, name: str, encoding: Encoding) -> str:
        """Write a float constant as integers with the given encoding, and return the dequantized tensor's name."""
        key = f"{name}.{encoding.dtype}"
        if key not in self.dequantized:
            self._store(f"{key}.q", enc.quantize(self._value(name), encoding))
            self._dequantize(key, f"{key}.q", self._parameters(encoding))
        return self.dequantized[key]

    def _quantize_dequantize(self, name: str, source: str, target: str, encoding: Encoding) -> None:
        parameters = self._parameters(encoding)
        self.nodes.append(helper.make_node("QuantizeLinear", [source, *parameters], [f"{name}.q"], f"{name}.quantize"))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *parameters], [target], f"{name}.dequantize"))
        self.dequantized[name] = target

    def _dequantize(self, key: str, source: str, parameters: tuple[str, str], axis: int | None = None) -> None:
        attributes = {} if axis is None else {"axis": axis}
        self.nodes.append(
            helper.make_node("DequantizeLinear", [source, *parameters], [f"{key}.dq"], f"{key}.dequantize", **attributes)
        )
        self.dequantized[key] = f"{key}.dq"

    def _parameters(self, encoding: Encoding) -> tuple[str, str]:
        """Store an encoding's scale and zero point as constants, and return their names. Equal encodings share constants."""
        scale, zero_point = f"scale.{encoding.scale!r}", f"zero_point.{encoding.dtype}.{encoding.zero_point}"
        self._store(scale, np.float32(encoding.scale))
        self._store(zero_point, np.array(encoding.zero_point, encoding.dtype))
        return scale, zero_point

    def _channel_parameters(self, key: str, scales: np.ndarray, dtype: type) -> tuple[str, str]:
        self._store(f"{key}.scales", scales)
        self._store(f"{key}.zero_points", np.zeros(len(scales), dtype))
        return f"{key}.scales", f"{key}.zero_points"

    def _store(self, name: str, value: np.ndarray | np.generic) -> None:
        """Add a constant to the QDQ graph unless the name exists."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
