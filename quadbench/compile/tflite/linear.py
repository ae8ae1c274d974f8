"""Linear: Gemm, MatMul and Gather -> their form in LiteRT.

Weights of the base are INT8 by channel in FULLY_CONNECTED; LoRA weights, which are inputs, are INT16 in BATCH_MATMUL: the chips'
compilers refuse them as the weights of a FULLY_CONNECTED or CONV_2D.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.tflite.dialect import GREATEST
from quadbench.compile.tflite.graph import Constant, Operation
from quadbench.compile.tflite.writer import Writer
from quadbench.errors import BuildError

_GREATEST_INT16, _GREATEST_INT32 = 2**15, 2**31 - 1


def gemm(w: Writer, op: Operation) -> None:
    """FULLY_CONNECTED with the base's weights, or a product with LoRA weights."""
    a = op.attributes
    if a.get("transA", 0) or not a.get("transB", 0) or a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0:
        raise BuildError(f"{op} is no linear layer: expected transA 0, transB 1, alpha 1 and beta 1")
    if op.inputs[1] not in w.graph.constants:
        product(w, w.plain(op.inputs[0]), w.plain(op.inputs[1]), w.result(op.outputs[0]), adjoint=True)
        return
    weight = w.weights(op, 1)
    bias, dtype = bias_of(w, op, weight)
    options = schema.FullyConnectedOptionsT(quantizedBiasType=dtype, keepNumDims=True)
    operands = [w.plain(op.inputs[0]), w.model.constant(op.inputs[1], weight.values, weight.scales), bias]
    w.model.operator("FULLY_CONNECTED", operands, [w.result(op.outputs[0])], options)


def matmul(w: Writer, op: Operation) -> None:
    """BATCH_MATMUL of two rounded tensors, as in attention."""
    product(w, w.plain(op.inputs[0]), w.plain(op.inputs[1]), w.result(op.outputs[0]))


def product(w: Writer, left: int, right: int, result: int, *, adjoint: bool = False) -> None:
    """Write BATCH_MATMUL; `adjoint` transposes the second factor."""
    w.model.operator("BATCH_MATMUL", [left, right], [result], schema.BatchMatMulOptionsT(adjY=adjoint))


def gather(w: Writer, op: Operation) -> None:
    """GATHER of rows of an INT8 table, then QUANTIZE to 16 bits; rows that are always the same are looked up here."""
    table, name = w.weights(op, 0), op.outputs[0]
    if op.attributes.get("axis", 0) != 0 or table.scales is None or table.scales.ndim:
        raise BuildError(f"{op} is no embedding: expected rows of a table with one scale")
    if op.inputs[1] in w.graph.constants:
        always = table.exact[w.graph.constants[op.inputs[1]].values].astype(np.float64)
        scale = w.graph.scales[name]
        integers = np.clip(np.rint(always / scale), -GREATEST, GREATEST).astype(np.int16)
        w.known(name, w.model.constant(name, integers, scale))
        return
    rows = w.model.tensor(f"{name}.rows", w.graph.shapes[name], "int8", table.scales)
    integers = w.model.constant(op.inputs[0], table.values, table.scales)
    w.model.operator("GATHER", [integers, w.plain(op.inputs[1])], [rows], schema.GatherOptionsT(axis=0))
    w.model.operator("QUANTIZE", [rows], [w.result(name)])


def bias_of(w: Writer, op: Operation, weight: Constant) -> tuple[int, int]:
    """Return the bias of a layer, -1 where it has none, and its type: INT32 where no sum of products can leave 32 bits.

    LiteRT's CPU adds up in the bias's type. INT64 is always exact, and many times slower.
    """
    channels = weight.values.shape[0]
    values = np.zeros(channels, np.int64) if len(op.inputs) < 3 else w.weights(op, 2).values.astype(np.int64)
    rows = weight.values.reshape(channels, -1)
    magnitudes = 2 * np.maximum(rows, 0).sum(1, dtype=np.int64) - rows.sum(1, dtype=np.int64)  # abs would take more memory
    greatest = magnitudes * _GREATEST_INT16 + np.abs(values)
    is_narrow = greatest.max() <= _GREATEST_INT32
    scales = np.asarray(weight.scales) * np.float32(w.graph.scales[op.inputs[0]])
    number = w.model.constant(f"{op.outputs[0]}.bias", values.astype(np.int32 if is_narrow else np.int64), scales)
    return number, schema.TensorType.INT32 if is_narrow else schema.TensorType.INT64
