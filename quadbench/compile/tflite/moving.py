"""Moving: operators that give values as they are, elsewhere -> their form in LiteRT."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.tflite.graph import Operation, Shape
from quadbench.compile.tflite.writer import TO_LAST, TO_PLAIN, Writer
from quadbench.errors import BuildError
from quadbench.lint.rules import EXACT_RESIZE, RESIZE_DEFAULTS

_LAST_AXES = {0: 0, 1: 3, 2: 1, 3: 2}  # of a tensor with its channels last, by the axis that ONNX means


def reshape(w: Writer, op: Operation) -> None:
    """RESHAPE, also for Squeeze and Unsqueeze; nothing where the shape stays. Token ids stay what they are."""
    source, name = op.inputs[0], op.outputs[0]
    if w.graph.shapes[source] == w.graph.shapes[name]:
        identity(w, op)
        return
    result = w.result(name) if name in w.graph.scales else w.model.tensor(name, w.graph.shapes[name], w.graph.inputs[source])
    w.model.operator("RESHAPE", [w.plain(source), w.model.numbers(*w.graph.shapes[name])], [result])
    w.known(name, result)


def identity(w: Writer, op: Operation) -> None:
    """Nothing: the tensor gets another name."""
    for number, last in zip(w.forms_of(op.inputs[0]), (False, True), strict=True):
        if number is not None:
            w.known(op.outputs[0], number, last=last)


def transpose(w: Writer, op: Operation) -> None:
    """TRANSPOSE; or nothing, where the order that is asked for is another form of the same tensor."""
    source, name, order = op.inputs[0], op.outputs[0], tuple(op.attributes["perm"])
    if order == TO_LAST:
        w.known(name, w.channels_last(source))
    elif order == TO_PLAIN:
        w.known(name, w.plain(source), last=True)
    else:
        w.known(name, w.transposed(w.plain(source), source, order))


def concat(w: Writer, op: Operation) -> None:
    """CONCATENATION of tensors under one scale: LiteRT takes different ones and silently means the same by them."""
    name, last = op.outputs[0], w.lies_last(*op.inputs)
    parts = [w.channels_last(part) if last else w.plain(part) for part in op.inputs]
    scale = w.graph.scales[name]
    for i, part in enumerate(op.inputs):
        if w.graph.scales[part] != scale:
            rounded = w.between(f"{name}.part.{i}", w.model.shape(parts[i]), scale)
            w.model.operator("QUANTIZE", [parts[i]], [rounded])
            parts[i] = rounded
    axis = op.attributes["axis"] % len(w.graph.shapes[name])
    options = schema.ConcatenationOptionsT(axis=_LAST_AXES[axis] if last else axis)
    w.model.operator("CONCATENATION", parts, [w.result(name, last=last)], options)


def split(w: Writer, op: Operation) -> None:
    """STRIDED_SLICE for each part that is read.

    Of SPLIT, Qualcomm's compiler makes a part that nobody reads an output of the whole graph, which then cannot be run.
    """
    shape = w.graph.shapes[op.inputs[0]]
    axis, start = op.attributes.get("axis", 0) % len(shape), 0
    for name in op.outputs:
        end = start + w.graph.shapes[name][axis]
        if w.is_read(name):
            _sliced(w, op, name, [[start, end, 1] if i == axis else [0, size, 1] for i, size in enumerate(shape)])
        start = end


def slice_(w: Writer, op: Operation) -> None:
    """STRIDED_SLICE from, to and by constants."""
    shape = w.graph.shapes[op.inputs[0]]
    starts, ends = w.weights(op, 1).values, w.weights(op, 2).values
    axes = w.weights(op, 3).values if len(op.inputs) > 3 else np.arange(len(starts))
    operations = w.weights(op, 4).values if len(op.inputs) > 4 else np.ones(len(starts), np.int64)
    bounds = [[0, size, 1] for size in shape]
    for axis, start, end, stride in zip(axes, starts, ends, operations, strict=True):
        if min(start, end) < 0 or stride < 1:
            raise BuildError(f"{op} counts from the end or backwards, which has no form in LiteRT here")
        bounds[axis] = [int(start), min(int(end), shape[axis]), int(stride)]
    _sliced(w, op, op.outputs[0], bounds)


def _sliced(w: Writer, op: Operation, name: str, bounds: Sequence[Sequence[int]]) -> None:
    """Write a slice: begin, end and stride in each dimension."""
    numbers = [w.model.numbers(*column) for column in zip(*bounds, strict=True)]
    w.model.operator("STRIDED_SLICE", [w.plain(op.inputs[0]), *numbers], [w.result(name)], schema.StridedSliceOptionsT())


def resize(w: Writer, op: Operation) -> None:
    """Repeat each value twice in both directions by CONCATENATION and RESHAPE: chips refuse RESIZE_NEAREST_NEIGHBOR of INT16."""
    form = [str(op.attributes.get(key, default.encode()), "utf-8") for key, default in RESIZE_DEFAULTS.items()]
    before, after = w.graph.shapes[op.inputs[0]], w.graph.shapes[op.outputs[0]]
    if form != ["nearest", *EXACT_RESIZE] or after != (*before[:2], 2 * before[2], 2 * before[3]):
        raise BuildError(f"{op} is no enlarging to twice the size by nearest neighbour, {' with '.join(EXACT_RESIZE)}")
    name, (_, channels, height, width) = op.outputs[0], before
    wide = _twice(w, f"{name}.wide", w.channels_last(op.inputs[0]), (1, height, width, 2 * channels), axis=3, name=name)
    rows = w.between(f"{name}.rows", (1, height, 1, 2 * width * channels), w.graph.scales[name])
    w.model.operator("RESHAPE", [wide, w.model.numbers(*w.model.shape(rows))], [rows])
    tall = _twice(w, f"{name}.tall", rows, (1, height, 2, 2 * width * channels), axis=2, name=name)
    result = w.result(name, last=True)
    w.model.operator("RESHAPE", [tall, w.model.numbers(*w.model.shape(result))], [result])


def _twice(w: Writer, own: str, tensor: int, shape: Shape, *, axis: int, name: str) -> int:
    twice = w.between(own, shape, w.graph.scales[name])
    w.model.operator("CONCATENATION", [tensor, tensor], [twice], schema.ConcatenationOptionsT(axis=axis))
    return twice
