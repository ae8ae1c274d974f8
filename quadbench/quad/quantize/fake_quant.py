"""Fake quantization: a QDQ graph computed in torch with float arithmetic, with gradients for its LoRA inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

from quadbench.errors import BuildError
from quadbench.lint.rules import EXACT_RESIZE, RESIZE_DEFAULTS
from quadbench.quad.quantize.encodings import limits

Operands = Sequence[Any]  # tensors, or None for an omitted optional input
Attributes = Mapping[str, Any]
Operator = Callable[[Operands, Attributes], torch.Tensor | Sequence[torch.Tensor]]
# For integer factors both repeat each value: the form that HTP supports, and ONNX's defaults.
RESIZE_FORMS = (", ".join(("nearest", *EXACT_RESIZE)), ", ".join(RESIZE_DEFAULTS.values()))
Tensors = dict[str, torch.Tensor]
Rounding = tuple[float, int, int, int]  # scale, zero point, least and greatest integer: arguments of torch's fake quantization


def resize_fault(x: Operands, a: Attributes) -> str | None:
    """Return text that describes an unsupported Resize node; None if it is supported. `x` has None for non-constant inputs."""
    form = ", ".join(a[key].decode() if key in a else default for key, default in RESIZE_DEFAULTS.items())
    if form not in RESIZE_FORMS:
        return form
    factors = x[2].tolist() if len(x) > 2 and x[2] is not None else []
    is_whole = len(factors) == 4 and factors[:2] == [1, 1] and all(f >= 1 and f == int(f) for f in factors)
    return None if is_whole else f"{form}, by factors {factors or 'that are not constant'}"


def _conv(x: Operands, a: Attributes) -> torch.Tensor:
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    data = x[0]
    if (top, left) != (bottom, right):
        data, top, left = F.pad(data, (left, right, top, bottom)), 0, 0
    bias = x[2] if len(x) > 2 else None
    return F.conv2d(data, x[1], bias, a.get("strides", 1), (top, left), a.get("dilations", 1), a.get("group", 1))


def _gemm(x: Operands, a: Attributes) -> torch.Tensor:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * x[2] if len(x) > 2 else product


def _reshape(x: Operands, _: Attributes) -> torch.Tensor:
    """Reshape tensor x[0] to shape x[1]. A first dimension of 0 or 1 stands for the batch size of x[0]."""
    batch, *shape = x[1].tolist()
    return x[0].reshape(x[0].shape[0] if batch in (0, 1) else batch, *shape)


def _layer_norm(x: Operands, a: Attributes) -> torch.Tensor:
    normalised = x[0].shape[a.get("axis", -1) :]
    return F.layer_norm(x[0], normalised, x[1], x[2] if len(x) > 2 else None, a.get("epsilon", 1e-5))


def _resize(x: Operands, _: Attributes) -> torch.Tensor:
    """Upsample x[0], shaped (B, C, h, w), by the whole factors in x[2] along h and w. Each value is repeated."""
    factors = [int(f) for f in x[2].tolist()]
    return x[0].repeat_interleave(factors[-2], -2).repeat_interleave(factors[-1], -1)


def _split(x: Operands, a: Attributes) -> Sequence[torch.Tensor]:
    axis = a.get("axis", 0)
    if len(x) > 1 and x[1] is not None:
        return torch.split(x[0], x[1].tolist(), axis)
    return torch.chunk(x[0], a["num_outputs"], axis)


def _slice(x: Operands, _: Attributes) -> torch.Tensor:
    starts, ends = x[1].tolist(), x[2].tolist()
    axes = x[3].tolist() if len(x) > 3 and x[3] is not None else range(len(starts))
    steps = x[4].tolist() if len(x) > 4 and x[4] is not None else [1] * len(starts)
    index = [slice(None)] * x[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, min(end, x[0].shape[axis]), step)
    return x[0][tuple(index)]


def _unsqueeze(x: Operands, _: Attributes) -> torch.Tensor:
    tensor = x[0]
    for axis in sorted(x[1].tolist()):
        tensor = tensor.unsqueeze(axis)
    return tensor


OPERATORS: dict[str, Operator] = {
    "Add": lambda x, _: x[0] + x[1],
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: x[0] / x[1],
    "MatMul": lambda x, _: x[0] @ x[1],
    "Gemm": _gemm,
    "Conv": _conv,
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "Tanh": lambda x, _: x[0].tanh(),
    "Erf": lambda x, _: x[0].erf(),
    "Gelu": lambda x, a: F.gelu(x[0], approximate=a.get("approximate", b"none").decode()),
    "Softmax": lambda x, a: x[0].softmax(a.get("axis", -1)),
    "InstanceNormalization": lambda x, a: F.instance_norm(x[0], weight=x[1], bias=x[2], eps=a.get("epsilon", 1e-5)),
    "LayerNormalization": _layer_norm,
    "Reshape": _reshape,
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
    "Concat": lambda x, a: torch.cat(list(x), a["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Resize": _resize,
    "Identity": lambda x, _: x[0],
}


@dataclass(frozen=True, kw_only=True)
class _Node:
    """An ONNX node parsed for execution in torch: its operator, tensor names and attributes."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class FakeQuantGraph:
    """A quantized U-Net as a function from input tensors by name to the output tensor. Unsupported nodes raise BuildError."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._initializers = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer}
        self._output = model.graph.output[0].name
        self._constants: Tensors = {n: t for n, t in self._initializers.items() if t.dtype in (torch.float32, torch.int64)}
        self._roundings: dict[str, Rounding] = {}
        self._nodes = [node for proto in model.graph.node if (node := self._prepared(proto)) is not None]

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the graph's output tensor for input tensors by name. Float LoRA inputs are rounded to quantized values."""
        values: Tensors = dict(inputs)
        for node in self._nodes:
            values |= self._run(node, values)
        return values[self._output]

    def _run(self, node: _Node, values: Tensors) -> Tensors:
        operands = [values.get(name, self._constants.get(name)) for name in node.inputs]
        if rounding := self._roundings.get(node.outputs[0]):
            if operands[0] is None:
                raise ValueError(f"graph input '{node.inputs[0]}' is not given")
            # The result is rounded and clipped, but stays float; gradients pass for values that were not clipped.
            return {node.outputs[0]: torch.fake_quantize_per_tensor_affine(operands[0], *rounding)}
        results = OPERATORS[node.op_type](operands, node.attributes)
        return dict(zip(node.outputs, results if isinstance(results, Sequence) else (results,), strict=True))

    def _prepared(self, proto: onnx.NodeProto) -> _Node | None:
        """Return a node parsed for torch. For DequantizeLinear of an initializer, store the float values and return None."""
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        node = _Node(
            name=proto.name, op_type=proto.op_type, inputs=tuple(proto.input), outputs=tuple(proto.output), attributes=attributes
        )
        if node.op_type == "DequantizeLinear":
            # Constants are dequantized once, LoRA inputs are rounded, and results of QuantizeLinear are passed through.
            source, output = node.inputs[0], node.outputs[0]
            if source in self._initializers:
                axis = int(node.attributes.get("axis", 1))
                scale, zero = (self._initializers[name] for name in node.inputs[1:3])
                self._constants[output] = _dequantized(self._initializers[source], scale, zero, axis)
                return None
            if source in self._roundings:
                return _Node(name=node.name, op_type="Identity", inputs=(source,), outputs=(output,), attributes={})
            self._roundings[output] = self._rounding(node)
            return node
        if node.op_type == "QuantizeLinear":
            self._roundings[node.outputs[0]] = self._rounding(node)
        elif node.op_type not in OPERATORS:
            raise BuildError(f"node '{node.name}' is a {node.op_type}, which fake quantization does not support")
        constants = [self._constants.get(name) for name in node.inputs]
        if node.op_type == "Resize" and (fault := resize_fault(constants, node.attributes)):
            forms = "' or '".join(RESIZE_FORMS)
            raise BuildError(f"node '{node.name}' is a Resize with '{fault}'; expected '{forms}', by whole factors (1, 1, h, w)")
        return node

    def _rounding(self, node: _Node) -> Rounding:
        """Return (scale, zero point, least integer, greatest integer) of a QuantizeLinear or DequantizeLinear node."""
        scale, zero = (self._initializers[name] for name in node.inputs[1:3])
        return float(scale), int(zero), *limits(str(zero.numpy().dtype))


def _dequantized(integers: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, axis: int) -> torch.Tensor:
    """Return float32 (integers - zero) * scale. `scale` and `zero` have one value, or one for each index of `axis`."""
    if scale.ndim:
        shape = [1] * integers.ndim
        shape[axis] = -1
        scale, zero = scale.view(shape), zero.view(shape)
    return (integers.double() - zero.double()).float() * scale
