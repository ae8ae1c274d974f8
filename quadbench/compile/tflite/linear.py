"""Linear operators: writing Conv, Gemm, MatMul and Gather to .tflite files. Weights are constants or LoRA inputs."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.tflite.flatbuffer import TO_LAST, TfliteWriter
from quadbench.compile.tflite.rounded_graph import GREATEST, Constant, Operation
from quadbench.errors import BuildError

_MAX_INT16, _MAX_INT32 = 2**15, 2**31 - 1


def gemm(w: TfliteWriter, op: Operation) -> None:
    """Write Gemm as FULLY_CONNECTED if the weights are constants, or as a matrix product if they are LoRA inputs."""
    a = op.attributes
    if a.get("transA", 0) or not a.get("transB", 0) or a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0:
        raise BuildError(f"{op} is not a linear layer: expected transA 0, transB 1, alpha 1 and beta 1")
    if op.inputs[1] not in w.graph.constants:
        product(w, w.plain(op.inputs[0]), w.plain(op.inputs[1]), w.add_result(op.outputs[0]), adjoint=True)
        return
    weight = w.constant_input(op, 1)
    bias, dtype = bias_of(w, op, weight)
    options = schema.FullyConnectedOptionsT(quantizedBiasType=dtype, keepNumDims=True)
    operands = [w.plain(op.inputs[0]), w.constant(op.inputs[1], weight.values, weight.scales), bias]
    w.operator("FULLY_CONNECTED", operands, [w.add_result(op.outputs[0])], options)


def matmul(w: TfliteWriter, op: Operation) -> None:
    """Write ONNX MatMul as BATCH_MATMUL of two quantized tensors, such as queries and keys of attention."""
    product(w, w.plain(op.inputs[0]), w.plain(op.inputs[1]), w.add_result(op.outputs[0]))


def product(w: TfliteWriter, left: int, right: int, result: int, *, adjoint: bool = False) -> None:
    """Write a BATCH_MATMUL of two tensors, given by index, into `result`. `adjoint` transposes the matrices of `right`."""
    w.operator("BATCH_MATMUL", [left, right], [result], schema.BatchMatMulOptionsT(adjY=adjoint))


def gather(w: TfliteWriter, op: Operation) -> None:
    """Write Gather from an INT8 table as GATHER and QUANTIZE to INT16. For constant indices, write the rows as a constant."""
    table, name = w.constant_input(op, 0), op.outputs[0]
    if op.attributes.get("axis", 0) != 0 or table.scales is None or table.scales.ndim:
        raise BuildError(f"{op} is not an embedding: expected rows of a table with one scale")
    if op.inputs[1] in w.graph.constants:
        always = table.dequantized[w.graph.constants[op.inputs[1]].values].astype(np.float64)
        scale = w.graph.scales[name]
        integers = np.clip(np.rint(always / scale), -GREATEST, GREATEST).astype(np.int16)
        w.register(name, w.constant(name, integers, scale))
        return
    rows = w.tensor(f"{name}.rows", w.graph.shapes[name], "int8", table.scales)
    integers = w.constant(op.inputs[0], table.values, table.scales)
    w.operator("GATHER", [integers, w.plain(op.inputs[1])], [rows], schema.GatherOptionsT(axis=0))
    w.operator("QUANTIZE", [rows], [w.add_result(name)])


def bias_of(w: TfliteWriter, op: Operation, weight: Constant) -> tuple[int, int]:
    """Write a layer's bias (default: zeros). Return the index and TensorType: INT32 if no weighted sum overflows, else INT64.

    LiteRT's CPU accumulates in the bias's type. INT64 is always exact, but many times slower.
    """
    channels = weight.values.shape[0]
    values = np.zeros(channels, np.int64) if len(op.inputs) < 3 else w.constant_input(op, 2).values.astype(np.int64)
    rows = weight.values.reshape(channels, -1)
    magnitudes = 2 * np.maximum(rows, 0).sum(1, dtype=np.int64) - rows.sum(1, dtype=np.int64)  # abs would take more memory
    greatest = magnitudes * _MAX_INT16 + np.abs(values)
    is_narrow = greatest.max() <= _MAX_INT32
    scales = np.asarray(weight.scales) * np.float32(w.graph.scales[op.inputs[0]])
    number = w.constant(f"{op.outputs[0]}.bias", values.astype(np.int32 if is_narrow else np.int64), scales)
    return number, schema.TensorType.INT32 if is_narrow else schema.TensorType.INT64


def conv(w: TfliteWriter, op: Operation) -> None:
    """Write an ONNX Conv to a .tflite model as CONV_2D. If its weights are LoRA inputs, write a BATCH_MATMUL instead."""
    attributes = op.attributes
    if attributes.get("group", 1) != 1 or set(attributes.get("dilations", [1])) != {1}:
        raise BuildError(f"{op} has groups or dilations, which are not supported for LiteRT")
    if op.inputs[1] not in w.graph.constants:
        _with_lora_weights(w, op)
        return
    weight, stride = w.constant_input(op, 1), _stride(op)
    filters = weight.values.transpose(TO_LAST)  # (O, C, k, k) -> (O, k, k, C)
    data, padding = w.channels_last(op.inputs[0]), schema.Padding.SAME
    if not _is_same(w.shape(data)[1:3], filters.shape[1:3], stride, _pads(op)):
        data, padding = _padded(w, op, data), schema.Padding.VALID
    bias, dtype = bias_of(w, op, weight)
    options = schema.Conv2DOptionsT(
        padding=padding, strideH=stride[0], strideW=stride[1], dilationHFactor=1, dilationWFactor=1, quantizedBiasType=dtype
    )
    operands = [data, w.constant(op.inputs[1], filters, weight.scales), bias]
    w.operator("CONV_2D", operands, [w.add_result(op.outputs[0], last=True)], options)


def _with_lora_weights(w: TfliteWriter, op: Operation) -> None:
    """Write a Conv whose weights are LoRA inputs as a BATCH_MATMUL of two matrices, whose rows are image patches and filters."""
    data, filters = w.channels_last(op.inputs[0]), w.graph.shapes[op.inputs[1]]
    scale = w.graph.scales[op.inputs[0]]
    if filters[2:] != (1, 1):
        data = _windows(w, op, data, scale)
    _, height, width, channels = w.shape(data)
    rows = w.reshape(data, w.intermediate(f"{op.name}.rows", (height * width, channels), scale))
    matrix = w.plain(op.inputs[1])
    if filters[2:] != (1, 1):
        matrix = w.channels_last(op.inputs[1])  # (O, k, k, C), in the order of the windows
    matrix = w.reshape(matrix, w.intermediate(f"{op.name}.matrix", (filters[0], channels), w.graph.scales[op.inputs[1]]))
    name = op.outputs[0]
    products = w.intermediate(f"{name}.rows", (height * width, filters[0]), w.graph.scales[name])
    product(w, rows, matrix, products, adjoint=True)
    w.reshape(products, w.add_result(name, last=True))


def _windows(w: TfliteWriter, op: Operation, data: int, scale: float) -> int:
    """Write a Conv's im2col: slice the input per filter position, and concatenate along channels. Return the result's index."""
    stride, (rows, columns) = _stride(op), w.graph.shapes[op.inputs[1]][2:]
    _, _, height, width = w.graph.shapes[op.outputs[0]]
    data = _padded(w, op, data) if any(_pads(op)) else data
    channels = w.shape(data)[3]
    slices = []
    for top, left in np.ndindex(rows, columns):
        end = (top + stride[0] * (height - 1) + 1, left + stride[1] * (width - 1) + 1)
        piece = w.intermediate(f"{op.name}.window.{top}.{left}", (1, height, width, channels), scale)
        bounds = [w.int32_constant(*v) for v in ((0, top, left, 0), (1, *end, channels), (1, *stride, 1))]
        w.operator("STRIDED_SLICE", [data, *bounds], [piece], schema.StridedSliceOptionsT())
        slices.append(piece)
    windows = w.intermediate(f"{op.name}.windows", (1, height, width, channels * rows * columns), scale)
    w.operator("CONCATENATION", slices, [windows], schema.ConcatenationOptionsT(axis=3))
    return windows


def _padded(w: TfliteWriter, op: Operation, data: int) -> int:
    top, left, bottom, right = _pads(op)
    _, height, width, channels = w.shape(data)
    shape = (1, height + top + bottom, width + left + right, channels)
    padded = w.intermediate(f"{op.name}.padded", shape, w.graph.scales[op.inputs[0]])
    pads = w.constant(f"{op.name}.pads", np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
    w.operator("PAD", [data, pads], [padded], schema.PadOptionsT())
    return padded


def _stride(op: Operation) -> tuple[int, int]:
    down, right = op.attributes.get("strides", (1, 1))
    return int(down), int(right)


def _pads(op: Operation) -> tuple[int, int, int, int]:
    """Return the padding of a Conv node in pixels as (top, left, bottom, right). The default is zeros."""
    top, left, bottom, right = op.attributes.get("pads", (0, 0, 0, 0))
    return int(top), int(left), int(bottom), int(right)


def _is_same(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int]) -> bool:
    """Return whether a Conv's `pads` equal TFLite's SAME padding. SAME puts an odd total's extra pixel at bottom or right."""
    own = []
    for length, filter_length, op in zip(size, kernel, stride, strict=True):
        results = -(-length // op)
        total = max((results - 1) * op + filter_length - length, 0)
        own.append((total // 2, total - total // 2))
    return ((own[0][0], own[1][0]), (own[0][1], own[1][1])) == (tuple(pads[:2]), tuple(pads[2:]))
