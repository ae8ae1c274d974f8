"""Fake quantization: a QDQ graph -> the same computation in torch, in float, with gradients for its LoRA inputs.

The graph is the one that is compiled for phones, so what is trained here is what runs there. QuantizeLinear rounds and clips to
its integers and goes on in float; gradients pass straight through the rounding and stop where a value was clipped (Bengio et al.
2013, arXiv 1308.3432; Jacob et al. 2018, arXiv 1712.05877).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper

from quadbench.errors import BuildError
from quadbench.quad.quantize.encodings import limits
from quadbench.quad.quantize.operators import OPERATORS, RESIZE_FORMS, resize_fault

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class _Node:
    """A node of the graph, with what stays the same in every run."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Rounding:
    """An encoding of a whole tensor, as fake quantization takes it."""

    scale: float
    zero_point: int
    low: int
    high: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Round and clip, and go on in float; gradients pass where nothing was clipped."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, self.low, self.high)


class FakeQuantGraph:
    """A quantized U-Net as a function of tensors.

    Raises:
        BuildError: the graph has an operator, a form of Resize or a use of QuantizeLinear that cannot be computed here.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._initializers = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer}
        self._output = model.graph.output[0].name
        self._constants: Tensors = {n: t for n, t in self._initializers.items() if t.dtype in (torch.float32, torch.int64)}
        self._roundings: dict[str, _Rounding] = {}
        self._nodes = [node for proto in model.graph.node if (node := self._prepared(proto)) is not None]

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Compute the graph's output. LoRA inputs come as float weights, and are rounded here."""
        values: Tensors = dict(inputs)
        for node in self._nodes:
            values |= self._run(node, values)
        return values[self._output]

    def _run(self, node: _Node, values: Tensors) -> Tensors:
        """Compute a node's outputs, by name."""
        operands = [values.get(name, self._constants.get(name)) for name in node.inputs]
        if rounding := self._roundings.get(node.outputs[0]):
            return {node.outputs[0]: rounding(_given(operands[0], node.inputs[0]))}
        results = OPERATORS[node.op_type](operands, node.attributes)
        return dict(zip(node.outputs, results if isinstance(results, Sequence) else (results,), strict=True))

    def _prepared(self, proto: onnx.NodeProto) -> _Node | None:
        """Return the node as it is run; None if it was folded into a constant."""
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        node = _Node(
            name=proto.name, op_type=proto.op_type, inputs=tuple(proto.input), outputs=tuple(proto.output), attributes=attributes
        )
        if node.op_type == "DequantizeLinear":
            return self._dequantizing(node)
        if node.op_type == "QuantizeLinear":
            self._roundings[node.outputs[0]] = self._rounding(node)
        elif node.op_type not in OPERATORS:
            raise BuildError(f"node '{node.name}' is a {node.op_type}, for which there is no torch function here")
        elif node.op_type == "Resize":
            self._check_resize(node)
        return node

    def _check_resize(self, node: _Node) -> None:
        if fault := resize_fault([self._constants.get(name) for name in node.inputs], node.attributes):
            forms = "' or '".join(RESIZE_FORMS)
            raise BuildError(
                f"node '{node.name}' is a Resize: found '{fault}'; accepted '{forms}', by whole factors (1, 1, h, w)"
            )

    def _dequantizing(self, node: _Node) -> _Node | None:
        """Dequantize a constant once and for all, round a LoRA input, and pass on what QuantizeLinear has rounded."""
        source, output = node.inputs[0], node.outputs[0]
        if source in self._initializers:
            axis = int(node.attributes.get("axis", 1))
            scale, zero = (self._initializers[name] for name in node.inputs[1:3])
            self._constants[output] = _dequantized(self._initializers[source], scale, zero, axis)
            return None
        if source in self._roundings:
            if self._roundings[source] != self._rounding(node):
                raise BuildError(f"'{source}' is quantized and dequantized with different encodings")
            return _Node(name=node.name, op_type="Identity", inputs=(source,), outputs=(output,), attributes={})
        self._roundings[output] = self._rounding(node)
        return node

    def _rounding(self, node: _Node) -> _Rounding:
        """Return the encoding in a node's constants."""
        scale, zero = (self._initializers[name] for name in node.inputs[1:3])
        low, high = limits(str(zero.numpy().dtype))
        return _Rounding(scale=float(scale), zero_point=int(zero), low=low, high=high)


def _dequantized(integers: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, axis: int) -> torch.Tensor:
    """Return (q - z) s, for a whole tensor or along an axis."""
    if scale.ndim:
        shape = [1] * integers.ndim
        shape[axis] = -1
        scale, zero = scale.view(shape), zero.view(shape)
    return (integers.double() - zero.double()).float() * scale


def _given(value: torch.Tensor | None, name: str) -> torch.Tensor:
    """Return a graph input's value, which the caller has to give."""
    if value is None:
        raise ValueError(f"graph input '{name}' is not given")
    return value
