"""Write ONNX operators to a .tflite file, one function per operator: elementwise operators, data movements and norms."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.tflite import linear
from quadbench.compile.tflite.flatbuffer import IMAGE_RANK, TO_LAST, TO_PLAIN, TfliteWriter
from quadbench.compile.tflite.rounded_graph import GROUP_NORM, REQUANTIZE, Constant, Operation, Shape
from quadbench.errors import BuildError
from quadbench.lint.rules import EXACT_RESIZE, RESIZE_DEFAULTS

Form = Callable[[TfliteWriter, Operation], None]
_LAST_AXES = {0: 0, 1: 3, 2: 1, 3: 2}  # ONNX axis to axis in channels-last layout


def div(w: TfliteWriter, op: Operation) -> None:
    """Write Div as MUL by a constant's reciprocal, as LiteRT has no INT16 DIV."""
    reciprocal = f"{op.outputs[0]}.reciprocal"
    w.graph.constants[reciprocal] = Constant(values=1 / w.constant_input(op, 1).dequantized)
    _elementwise("MUL", schema.MulOptionsT())(w, replace(op, inputs=(op.inputs[0], reciprocal)))


def gelu(w: TfliteWriter, op: Operation) -> None:
    """Write ONNX Gelu as TFLite's GELU. The ONNX attribute `approximate` selects the exact form or the tanh approximation."""
    is_tanh = op.attributes.get("approximate", b"none") == b"tanh"
    _elementwise("GELU", schema.GeluOptionsT(approximate=is_tanh))(w, op)


def softmax(w: TfliteWriter, op: Operation) -> None:
    """Write ONNX Softmax as a SOFTMAX on float values: DEQUANTIZE before it, QUANTIZE after it.

    LiteRT's INT16 softmax clips scores 10 below the greatest, so masked tokens would leak and long flat rows lose values.
    """
    shape = w.graph.shapes[op.inputs[0]]
    if op.attributes.get("axis", -1) not in (-1, len(shape) - 1):
        raise BuildError(f"{op} works on axis {op.attributes['axis']}; expected the last", hint="put a Transpose before it")
    exact, chances = w.intermediate(f"{op.name}.exact", shape), w.intermediate(f"{op.name}.chances", shape)
    w.operator("DEQUANTIZE", [w.plain(op.inputs[0])], [exact])
    w.operator("SOFTMAX", [exact], [chances], schema.SoftmaxOptionsT(beta=1.0))
    w.operator("QUANTIZE", [chances], [w.add_result(op.outputs[0])])


def _elementwise(code: str, options: Any = None) -> Form:
    """Return a function (TfliteWriter, Operation) -> None that writes TFLite's elementwise operator `code`, such as MUL."""

    def write(w: TfliteWriter, op: Operation) -> None:
        last = w.is_channels_last(*op.inputs)
        operands = [w.channels_last(name) if last else w.plain(name) for name in op.inputs]
        w.operator(code, operands, [w.add_result(op.outputs[0], last=last)], options)

    return write


def reshape(w: TfliteWriter, op: Operation) -> None:
    """Write Reshape, Squeeze, Unsqueeze or Flatten as RESHAPE, or nothing if the shape stays. Token ids stay integers."""
    source, name = op.inputs[0], op.outputs[0]
    if w.graph.shapes[source] == w.graph.shapes[name]:
        identity(w, op)
        return
    result = w.add_result(name) if name in w.graph.scales else w.tensor(name, w.graph.shapes[name], w.graph.inputs[source])
    w.register(name, w.reshape(w.plain(source), result))


def identity(w: TfliteWriter, op: Operation) -> None:
    """Write no operator for an ONNX Identity. Instead, register the input's tensor under the output's name."""
    for number, last in zip(w.layouts_of(op.inputs[0]), (False, True), strict=True):
        if number is not None:
            w.register(op.outputs[0], number, last=last)


def transpose(w: TfliteWriter, op: Operation) -> None:
    """Write ONNX Transpose as TRANSPOSE. For NCHW to NHWC or back, reuse a tensor with the result's memory order, if any."""
    source, name, order = op.inputs[0], op.outputs[0], tuple(op.attributes["perm"])
    if order == TO_LAST:
        w.register(name, w.channels_last(source))
    elif order == TO_PLAIN:
        w.register(name, w.plain(source), last=True)
    else:
        w.register(name, w.transpose(w.plain(source), source, order))


def concat(w: TfliteWriter, op: Operation) -> None:
    """Write ONNX Concat as CONCATENATION. Requantize inputs to the result's scale first: LiteRT ignores unequal input scales."""
    name, last = op.outputs[0], w.is_channels_last(*op.inputs)
    parts = [w.channels_last(part) if last else w.plain(part) for part in op.inputs]
    scale = w.graph.scales[name]
    for i, part in enumerate(op.inputs):
        if w.graph.scales[part] != scale:
            rounded = w.intermediate(f"{name}.part.{i}", w.shape(parts[i]), scale)
            w.operator("QUANTIZE", [parts[i]], [rounded])
            parts[i] = rounded
    axis = op.attributes["axis"] % len(w.graph.shapes[name])
    options = schema.ConcatenationOptionsT(axis=_LAST_AXES[axis] if last else axis)
    w.operator("CONCATENATION", parts, [w.add_result(name, last=last)], options)


def split(w: TfliteWriter, op: Operation) -> None:
    """Write ONNX Split as one STRIDED_SLICE for each output that an operation reads or that is a graph output.

    With SPLIT, Qualcomm's compiler turns unused parts into graph outputs, and the graph cannot be run.
    """
    shape = w.graph.shapes[op.inputs[0]]
    axis, start = op.attributes.get("axis", 0) % len(shape), 0
    for name in op.outputs:
        end = start + w.graph.shapes[name][axis]
        if w.is_read(name):
            _sliced(w, op, name, [[start, end, 1] if i == axis else [0, size, 1] for i, size in enumerate(shape)])
        start = end


def slice_(w: TfliteWriter, op: Operation) -> None:
    """Write STRIDED_SLICE with constant starts, ends and steps."""
    shape = w.graph.shapes[op.inputs[0]]
    starts, ends = w.constant_input(op, 1).values, w.constant_input(op, 2).values
    axes = w.constant_input(op, 3).values if len(op.inputs) > 3 else np.arange(len(starts))
    operations = w.constant_input(op, 4).values if len(op.inputs) > 4 else np.ones(len(starts), np.int64)
    bounds = [[0, size, 1] for size in shape]
    for axis, start, end, stride in zip(axes, starts, ends, operations, strict=True):
        if min(start, end) < 0 or stride < 1:
            raise BuildError(f"{op} has a negative start, end or step, which is not supported for LiteRT")
        bounds[axis] = [int(start), min(int(end), shape[axis]), int(stride)]
    _sliced(w, op, op.outputs[0], bounds)


def _sliced(w: TfliteWriter, op: Operation, name: str, bounds: Sequence[Sequence[int]]) -> None:
    """Write a STRIDED_SLICE whose result is the tensor `name`. `bounds` has (begin, end, stride) for each dimension."""
    numbers = [w.int32_constant(*column) for column in zip(*bounds, strict=True)]
    w.operator("STRIDED_SLICE", [w.plain(op.inputs[0]), *numbers], [w.add_result(name)], schema.StridedSliceOptionsT())


def resize(w: TfliteWriter, op: Operation) -> None:
    """Write 2x nearest-neighbour upsampling as CONCATENATION and RESHAPE. Chips refuse RESIZE_NEAREST_NEIGHBOR in INT16."""
    form = [str(op.attributes.get(key, default.encode()), "utf-8") for key, default in RESIZE_DEFAULTS.items()]
    before, after = w.graph.shapes[op.inputs[0]], w.graph.shapes[op.outputs[0]]
    if form != ["nearest", *EXACT_RESIZE] or after != (*before[:2], 2 * before[2], 2 * before[3]):
        raise BuildError(f"{op} is not a 2x nearest-neighbour upsampling, {' with '.join(EXACT_RESIZE)}")
    name, (_, channels, height, width) = op.outputs[0], before
    wide = _doubled(w, f"{name}.wide", w.channels_last(op.inputs[0]), (1, height, width, 2 * channels), axis=3, name=name)
    rows = w.intermediate(f"{name}.rows", (1, height, 1, 2 * width * channels), w.graph.scales[name])
    tall = _doubled(w, f"{name}.tall", w.reshape(wide, rows), (1, height, 2, 2 * width * channels), axis=2, name=name)
    w.reshape(tall, w.add_result(name, last=True))


def _doubled(w: TfliteWriter, own: str, tensor: int, shape: Shape, *, axis: int, name: str) -> int:
    twice = w.intermediate(own, shape, w.graph.scales[name])
    w.operator("CONCATENATION", [tensor, tensor], [twice], schema.ConcatenationOptionsT(axis=axis))
    return twice


def layer_norm(w: TfliteWriter, op: Operation) -> None:
    """Write layer normalization over the last axis."""
    source, shape = op.inputs[0], w.graph.shapes[op.inputs[0]]
    if op.attributes.get("axis", -1) not in (-1, len(shape) - 1):
        raise BuildError(f"{op} normalizes axis {op.attributes['axis']} and those after it; expected only the last axis")
    norm = _Norm(w, op)
    normal = norm.normalised(norm.exact(w.plain(source)), lambda x: norm.mean(x, (len(shape) - 1,)))
    norm.scaled(normal, w.add_result(op.outputs[0]), shape[-1:])


def group_norm(w: TfliteWriter, op: Operation) -> None:
    """Write group normalization in float: each group of channels has one mean and one variance over all positions.

    An image (1, h, w, C) keeps its shape: chips lay channels out in blocks of 32, so (1, h w, G, C/G) would take eight times the
    memory for C/G = 4. A tensor (1, C, T) with channels first is reshaped to (1, G, C/G T).
    """
    groups, channels = op.attributes["groups"], w.graph.shapes[op.inputs[0]][1]
    norm = _Norm(w, op)
    if len(w.graph.shapes[op.inputs[0]]) == IMAGE_RANK:
        normal = norm.normalised(norm.exact(w.channels_last(op.inputs[0])), lambda x: norm.group_mean(x, groups))
        norm.scaled(normal, w.add_result(op.outputs[0], last=True), (channels,))
        return
    data = w.plain(op.inputs[0])
    grouped = norm.reshaped(norm.exact(data), (1, groups, -1))
    normal = norm.reshaped(norm.normalised(grouped, lambda x: norm.mean(x, (2,))), w.shape(data))
    norm.scaled(normal, w.add_result(op.outputs[0]), (channels, 1))


def mean(w: TfliteWriter, op: Operation) -> None:
    """Write an INT16 MEAN over the axes that the ONNX node gives as constants."""
    source, axes = op.inputs[0], w.constant_input(op, 1).values
    options = schema.ReducerOptionsT(keepDims=bool(op.attributes.get("keepdims", 1)))
    w.operator("MEAN", [w.plain(source), w.int32_constant(*axes.tolist())], [w.add_result(op.outputs[0])], options)


class _Norm:
    """A helper that adds the float operators of one layer norm or group norm to a .tflite file."""

    def __init__(self, w: TfliteWriter, op: Operation) -> None:
        self._w, self._op, self._parts = w, op, 0

    def exact(self, rounded: int) -> int:
        """Add a DEQUANTIZE of a quantized tensor. Return the index of the resulting float32 tensor."""
        return self._written("DEQUANTIZE", [rounded], self._w.shape(rounded))

    def reshaped(self, tensor: int, shape: Shape) -> int:
        """Add a RESHAPE of a float tensor and return the result's index. A size of -1 is computed from the tensor's size."""
        left = prod(self._w.shape(tensor)) // -prod(shape) if -1 in shape else 0
        whole = tuple(left if size == -1 else size for size in shape)
        return self._written("RESHAPE", [tensor, self._w.int32_constant(*whole)], whole)

    def normalised(self, x: int, mean: Callable[[int], int]) -> int:
        """Write (x - mean) / standard deviation; return its index. `mean` takes a tensor's index and returns its mean's index."""
        shape = self._w.shape(x)
        centred = self._written("SUB", [x, mean(x)], shape, schema.SubOptionsT())
        variance = mean(self._written("MUL", [centred, centred], shape, schema.MulOptionsT()))
        epsilon = self._constant(np.float32(self._op.attributes["epsilon"]))
        safe = self._written("ADD", [variance, epsilon], self._w.shape(variance), schema.AddOptionsT())
        root = self._written("RSQRT", [safe], self._w.shape(variance))
        return self._written("MUL", [centred, root], shape, schema.MulOptionsT())

    def mean(self, x: int, axes: tuple[int, ...]) -> int:
        """Add a MEAN of a float tensor over `axes`. In the result, these axes have size 1. Return the result's index."""
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(self._w.shape(x)))
        return self._written("MEAN", [x, self._w.int32_constant(*axes)], shape, schema.ReducerOptionsT(keepDims=True))

    def group_mean(self, x: int, groups: int) -> int:
        """Write each channel's group mean over all positions of an image (1, h, w, C). Return the (1, 1, 1, C) tensor's index."""
        *_, channels = self._w.shape(x)
        apart = (1, 1, groups, channels // groups)
        means = self.mean(self.reshaped(self.mean(x, (1, 2)), apart), (3,))
        spread = self._written("MUL", [means, self._constant(np.ones(apart, np.float32))], apart, schema.MulOptionsT())
        return self.reshaped(spread, (1, 1, 1, channels))

    def scaled(self, normal: int, result: int, channels: Shape) -> None:
        """Scale `normal` per channel, add offsets if given, and quantize into `result`. `channels` is the scales' shape."""
        shape = self._w.shape(normal)
        scaled = self._written("MUL", [normal, self._channels(1, channels)], shape, schema.MulOptionsT())
        if len(self._op.inputs) > 2:
            scaled = self._written("ADD", [scaled, self._channels(2, channels)], shape, schema.AddOptionsT())
        self._w.operator("QUANTIZE", [scaled], [result])

    def _channels(self, index: int, shape: Shape) -> int:
        """Reshape channel scales or offsets, (C,) or (C, 1, 1, 1), to `shape`. Add a float constant and return its index."""
        exact = self._w.constant_input(self._op, index).dequantized
        return self._constant(exact.reshape(len(exact), -1)[:, 0].reshape(shape))

    def _constant(self, values: np.ndarray | np.float32) -> int:
        return self._w.constant(self._name(), np.asarray(values, np.float32))

    def _written(self, code: str, inputs: list[int], shape: Shape, options: object = None) -> int:
        result = self._w.intermediate(self._name(), shape)
        self._w.operator(code, inputs, [result], options)
        return result

    def _name(self) -> str:
        self._parts += 1
        return f"{self._op.outputs[0]}.{self._parts}"


FORMS: dict[str, Form] = {
    "Add": _elementwise("ADD", schema.AddOptionsT(potScaleInt16=False)),
    "Sub": _elementwise("SUB", schema.SubOptionsT(potScaleInt16=False)),
    "Mul": _elementwise("MUL", schema.MulOptionsT()),
    "Div": div,
    "Sigmoid": _elementwise("LOGISTIC"),  # the output scale is 2^-15
    "Gelu": gelu,
    "Softmax": softmax,
    REQUANTIZE: _elementwise("QUANTIZE"),
    "Conv": linear.conv,
    "Gemm": linear.gemm,
    "MatMul": linear.matmul,
    "Gather": linear.gather,
    "LayerNormalization": layer_norm,
    GROUP_NORM: group_norm,
    "ReduceMean": mean,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), reshape),
    "Identity": identity,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Resize": resize,
}
