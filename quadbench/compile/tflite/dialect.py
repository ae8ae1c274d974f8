"""Dialect: a QDQ graph -> the same graph as LiteRT rounds it: activations and constants in INT16 with zero point 0.

A range [low, high] of UINT16 becomes [-m, m] with m the greater magnitude of its ends, which costs up to one bit. [0, 1], as
Sigmoid and Softmax give it, gets the scale 2^-15, as LiteRT's LOGISTIC has no other; 1 itself is rounded to 32767 / 32768. INT8
weights by channel stay as they are, and so do LoRA inputs, whose zero point is 0 already: an adapter's file serves both.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quadbench.errors import BuildError
from quadbench.lint.graph import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

GREATEST = 32767
UNIT_SCALE = 2.0**-15  # of LOGISTIC's result, by LiteRT's own rule
_GREATEST_UINT16 = 65535


def in_dialect(model: "ModelProto") -> "ModelProto":
    """Rewrite the encodings of a QDQ graph in place, and return it.

    Raises:
        BuildError: an activation is not rounded to 16 bits.
    """
    writer = _Dialect(model=model, constants={constant.name: constant for constant in model.graph.initializer})
    for node in model.graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            writer.reencode(node)
    writer.reencode_biases()
    return model


def symmetric_scale(scale: float, zero_point: int) -> float:
    """Return the scale of INT16 with zero point 0 for the range of a UINT16 encoding."""
    magnitude = scale * max(zero_point, _GREATEST_UINT16 - zero_point)
    is_unit = zero_point == 0 and np.isclose(magnitude, 1.0, rtol=1e-6)
    return UNIT_SCALE if is_unit else float(np.float32(magnitude / GREATEST))


@dataclass(kw_only=True)
class _Dialect:
    """A graph under way. `scales` has the new scale of every dequantized tensor that has one for all of it."""

    model: "ModelProto"
    constants: dict[str, Any]
    scales: dict[str, float] = field(default_factory=dict)

    def reencode(self, node: "NodeProto") -> None:
        """Give a QuantizeLinear or DequantizeLinear its symmetric encoding; weights by channel keep theirs."""
        scale, zero = self._value(node.input[1]), self._value(node.input[2])
        if scale.ndim:
            return
        if zero.dtype == np.uint8:
            raise BuildError(
                f"'{node.input[0]}' is rounded to 8 bits; LiteRT's dialect has activations in 16",
                hint="set precision.activations to {scheme: w8a16}",
            )
        new = symmetric_scale(float(scale), int(zero)) if zero.dtype == np.uint16 else float(scale)
        if zero.dtype == np.uint16:
            self._round_again(node.input[0], float(scale), int(zero), new)
            node.input[1] = self._constant(f"scale.{new!r}", np.float32(new))
            node.input[2] = self._constant("zero_point.int16.0", np.int16(0))
        if node.op_type == DEQUANTIZE:
            self.scales[node.output[0]] = new

    def reencode_biases(self) -> None:
        """Round each bias anew: its scale is the product of those of the weight and the data, of which the latter has changed."""
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

    def _round_again(self, name: str, scale: float, zero: int, new: float) -> None:
        """Round a constant of UINT16 to INT16, once: who dequantizes it next finds it so."""
        if name in self.constants and (stored := self._value(name)).dtype == np.uint16:
            values = (stored.astype(np.float64) - zero) * scale
            self._replace(name, np.clip(np.rint(values / new), -GREATEST, GREATEST).astype(np.int16))

    def _value(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _replace(self, name: str, value: np.ndarray) -> None:
        from onnx import numpy_helper

        self.constants[name].CopyFrom(numpy_helper.from_array(value, name))

    def _constant(self, name: str, value: np.generic) -> str:
        """Add a constant, unless one of this name is there, and return its name."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = self.model.graph.initializer.add()
            self.constants[name].CopyFrom(numpy_helper.from_array(np.asarray(value), name))
        return name
