"""Kernels: a graph as ONNX Runtime's optimizer left it -> how many of its nodes compute in integers, and how many in float."""

import re
from collections import Counter

from quadbench.artifacts import Kernels
from quadbench.lint.graph import DEQUANTIZE, MOVES_VALUES, QUANTIZE, LintedGraph

_MOVES = MOVES_VALUES | {"Concat", "Resize", "Pad", "Cast", "ReorderInput", "ReorderOutput"}
# ONNX's operators on integers and those of com.microsoft: QLinearConv, QGemm, MatMulIntegerToFloat, DynamicQuantizeMatMul, ...
_IN_INTEGERS = re.compile(r"QLinear|Q[A-Z]|.*Integer|DynamicQuantize")
_PRODUCT = re.compile(r".*(Conv|Gemm|MatMul)")


def kernels_of(graph: LintedGraph) -> Kernels:
    """Count the nodes by their operators."""
    counts = Counter(node.op_type for node in graph.nodes if node.op_type not in _MOVES)
    quantize, dequantize = counts.pop(QUANTIZE, 0), counts.pop(DEQUANTIZE, 0)
    floats = {op: number for op, number in counts.items() if not _IN_INTEGERS.match(op)}
    return Kernels(
        in_integers=counts.total() - sum(floats.values()),
        in_float=sum(floats.values()),
        products_in_float=sum(number for op, number in floats.items() if _PRODUCT.match(op)),
        quantize=quantize,
        dequantize=dequantize,
    )
