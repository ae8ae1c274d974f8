"""Norms: LayerNormalization, a whole group norm and ReduceMean -> their form in LiteRT.

Norms are computed in float between DEQUANTIZE and QUANTIZE. A variance that is rounded to INT16 under one scale for all groups
and all inputs loses the small ones, and the norm with them.
"""

from collections.abc import Callable
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.tflite.graph import Operation, Shape
from quadbench.compile.tflite.writer import IMAGE_RANK, Writer
from quadbench.errors import BuildError


def layer_norm(w: Writer, op: Operation) -> None:
    """Normalise the last axis."""
    source, shape = op.inputs[0], w.graph.shapes[op.inputs[0]]
    if op.attributes.get("axis", -1) not in (-1, len(shape) - 1):
        raise BuildError(f"{op} is over axis {op.attributes['axis']} and those after it; expected the last alone")
    norm = _Norm(w, op)
    normal = norm.normalised(norm.exact(w.plain(source)), lambda x: norm.mean(x, (len(shape) - 1,)))
    norm.scaled(normal, w.result(op.outputs[0]), shape[-1:])


def group_norm(w: Writer, op: Operation) -> None:
    """Normalise each group of channels over all places.

    An image (1, h, w, C) keeps its shape, since chips lay channels out in blocks of 32: seen as (1, h w, G, C/G) it would take
    eight times the room where C/G is 4. (1, C, T), which has its channels first, is seen as (1, G, C/G T).
    """
    groups, channels = op.attributes["groups"], w.graph.shapes[op.inputs[0]][1]
    norm = _Norm(w, op)
    if len(w.graph.shapes[op.inputs[0]]) == IMAGE_RANK:
        normal = norm.normalised(norm.exact(w.channels_last(op.inputs[0])), lambda x: norm.group_mean(x, groups))
        norm.scaled(normal, w.result(op.outputs[0], last=True), (channels,))
        return
    data = w.plain(op.inputs[0])
    grouped = norm.reshaped(norm.exact(data), (1, groups, -1))
    normal = norm.reshaped(norm.normalised(grouped, lambda x: norm.mean(x, (2,))), w.model.shape(data))
    norm.scaled(normal, w.result(op.outputs[0]), (channels, 1))


def mean(w: Writer, op: Operation) -> None:
    """MEAN over constant axes, in INT16."""
    source, axes = op.inputs[0], w.weights(op, 1).values
    options = schema.ReducerOptionsT(keepDims=bool(op.attributes.get("keepdims", 1)))
    w.model.operator("MEAN", [w.plain(source), w.model.numbers(*axes.tolist())], [w.result(op.outputs[0])], options)


class _Norm:
    """The parts of a norm, in float."""

    def __init__(self, w: Writer, op: Operation) -> None:
        self._w, self._op, self._parts = w, op, 0

    def exact(self, rounded: int) -> int:
        """Turn a rounded tensor into float."""
        return self._written("DEQUANTIZE", [rounded], self._w.model.shape(rounded))

    def reshaped(self, tensor: int, shape: Shape) -> int:
        """See a tensor in another shape, of which one size may be -1: what is left."""
        left = prod(self._w.model.shape(tensor)) // -prod(shape) if -1 in shape else 0
        whole = tuple(left if size == -1 else size for size in shape)
        return self._written("RESHAPE", [tensor, self._w.model.numbers(*whole)], whole)

    def normalised(self, x: int, mean: Callable[[int], int]) -> int:
        """Subtract the mean, and divide by the root of the variance. `mean` returns one that fits every value of a tensor."""
        shape = self._w.model.shape(x)
        centred = self._written("SUB", [x, mean(x)], shape, schema.SubOptionsT())
        variance = mean(self._written("MUL", [centred, centred], shape, schema.MulOptionsT()))
        epsilon = self._constant(np.float32(self._op.attributes["epsilon"]))
        safe = self._written("ADD", [variance, epsilon], self._w.model.shape(variance), schema.AddOptionsT())
        root = self._written("RSQRT", [safe], self._w.model.shape(variance))
        return self._written("MUL", [centred, root], shape, schema.MulOptionsT())

    def mean(self, x: int, axes: tuple[int, ...]) -> int:
        """Return the mean over axes, which stay with a size of 1."""
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(self._w.model.shape(x)))
        return self._written("MEAN", [x, self._w.model.numbers(*axes)], shape, schema.ReducerOptionsT(keepDims=True))

    def group_mean(self, x: int, groups: int) -> int:
        """Return the mean over the places and the group of each channel of an image, (1, 1, 1, C)."""
        *_, channels = self._w.model.shape(x)
        apart = (1, 1, groups, channels // groups)
        means = self.mean(self.reshaped(self.mean(x, (1, 2)), apart), (3,))
        spread = self._written("MUL", [means, self._constant(np.ones(apart, np.float32))], apart, schema.MulOptionsT())
        return self.reshaped(spread, (1, 1, 1, channels))

    def scaled(self, normal: int, result: int, channels: Shape) -> None:
        """Multiply each channel by its scale, add its offset, which may be left out, and round. `channels` is their shape."""
        shape = self._w.model.shape(normal)
        scaled = self._written("MUL", [normal, self._channels(1, channels)], shape, schema.MulOptionsT())
        if len(self._op.inputs) > 2:
            scaled = self._written("ADD", [scaled, self._channels(2, channels)], shape, schema.AddOptionsT())
        self._w.model.operator("QUANTIZE", [scaled], [result])

    def _channels(self, index: int, shape: Shape) -> int:
        """Return the scale or offset of each channel; a scale that is a filter has it as its first weight."""
        exact = self._w.weights(self._op, index).exact
        return self._constant(exact.reshape(len(exact), -1)[:, 0].reshape(shape))

    def _constant(self, values: np.ndarray | np.float32) -> int:
        return self._w.model.constant(self._name(), np.asarray(values, np.float32))

    def _written(self, code: str, inputs: list[int], shape: Shape, options: object = None) -> int:
        result = self._w.between(self._name(), shape)
        self._w.model.operator(code, inputs, [result], options)
        return result

    def _name(self) -> str:
        self._parts += 1
        return f"{self._op.outputs[0]}.{self._parts}"
