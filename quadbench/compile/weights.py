"""Weights: a graph with float activations -> the same with INT8 weights in a form that ONNX Runtime makes float as it loads them.

ONNX Runtime computes a DequantizeLinear of constants anew in every run, in case that integer kernels can be made of it. Cast,
Reshape and Mul of constants it computes once. Measured on the built-in U-Net: 13 % less time in a run, that of the float graph,
and the file stays a quarter of it (docs/measured/cpu-precision.md).
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quadbench.errors import package_needed
from quadbench.lint.graph import DEQUANTIZE, QUANTIZE

MOST_BYTES = 256 * 2**20  # of float weights that a graph may hold for the time that this saves


def let_weights_fold(path: Path) -> None:
    """Rewrite the file of a graph without QuantizeLinear, if its float weights are not too large; leave any other as it is.

    Raises:
        MissingDependencyError: it has to be rewritten, and the package onnx is not installed.
    """
    if QUANTIZE.encode() in path.read_bytes():  # its name among the nodes' operators; told without the package
        return
    with package_needed("compiling graphs", hint="pip install onnx"):
        import onnx
    model = onnx.load(path, load_external_data=False)
    constants = {constant.name: constant for constant in model.graph.initializer}
    if sum(prod(constant.dims) for constant in constants.values()) * 4 > MOST_BYTES:
        return
    nodes: list[Any] = []
    for node in model.graph.node:
        is_weight = node.op_type == DEQUANTIZE and node.input[0] in constants
        nodes += _float_weight(model.graph, node, constants) if is_weight else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    unread = [constant for constant in model.graph.initializer if constant.name not in read]
    for constant in unread:
        model.graph.initializer.remove(constant)
    onnx.save(model, path)


def _float_weight(graph: Any, node: Any, constants: Mapping[str, Any]) -> list[Any]:
    """Return the nodes that give what the DequantizeLinear of a constant gives, value for value; its zero point is 0."""
    from onnx import TensorProto, helper, numpy_helper

    values, scales = (constants[name] for name in node.input[:2])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [-1 if dimension == axis else 1 for dimension in range(len(values.dims))] if len(scales.dims) else []
    factor, floats = f"{node.output[0]}.factor", f"{node.output[0]}.cast"
    graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{factor}.shape"))
    return [
        helper.make_node("Cast", [node.input[0]], [floats], f"{node.name}.cast", to=TensorProto.FLOAT),
        helper.make_node("Reshape", [node.input[1], f"{factor}.shape"], [factor], f"{node.name}.scales"),
        helper.make_node("Mul", [floats, factor], [node.output[0]], f"{node.name}.factor"),
    ]
