"""Passes: float graph -> equivalent float graph that quantizes and compiles better. Each is one function."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

MASKED_SCORE = -100.0  # exp(-100) is 0 beside any score in float32; -3.4e38 would leave 16-bit scores no resolution


def decompose_group_norm(model: onnx.ModelProto) -> None:
    """GroupNormalization -> Reshape, InstanceNormalization, Reshape, Mul, Add, which every NPU compiler takes.

    (1, C, h, w) is seen as (1, G, C/G*h*w), each of the G rows normalised by itself.
    """
    shapes = value_shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.extend(_group_norm_nodes(model, node, shapes) if node.op_type == "GroupNormalization" else [node])
    _replace_nodes(model, nodes)


def _group_norm_nodes(model: onnx.ModelProto, node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> list[onnx.NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    groups, epsilon = int(attributes["num_groups"]), float(attributes["epsilon"])
    x, scale, bias = node.input
    out, shape = node.output[0], shapes[x]
    channels = (shape[1],) + (1,) * (len(shape) - 2)
    ones = _constant(model, f"group_norm.ones_{groups}", np.ones(groups, np.float32))
    zeros = _constant(model, f"group_norm.zeros_{groups}", np.zeros(groups, np.float32))
    rows = _constant(model, f"group_norm.rows_{groups}", np.array([shape[0], groups, -1], np.int64))
    full = _constant(model, f"group_norm.shape_{'x'.join(map(str, shape))}", np.array(shape, np.int64))
    weight = _constant(model, f"{scale}.{'x'.join(map(str, channels))}", _value(model, scale).reshape(channels))
    offset = _constant(model, f"{bias}.{'x'.join(map(str, channels))}.offset", _value(model, bias).reshape(channels))
    return [
        helper.make_node("Reshape", [x, rows], [f"{out}.rows"], f"{node.name}.rows"),
        helper.make_node(
            "InstanceNormalization", [f"{out}.rows", ones, zeros], [f"{out}.norm"], f"{node.name}.norm", epsilon=epsilon
        ),
        helper.make_node("Reshape", [f"{out}.norm", full], [f"{out}.full"], f"{node.name}.full"),
        helper.make_node("Mul", [f"{out}.full", weight], [f"{out}.scaled"], f"{node.name}.scale"),
        helper.make_node("Add", [f"{out}.scaled", offset], [out], f"{node.name}.offset"),
    ]


def clamp_mask_constants(model: onnx.ModelProto) -> None:
    """Raise the minus infinity of attention masks to MASKED_SCORE."""
    for initializer in model.graph.initializer:
        if initializer.data_type == onnx.TensorProto.FLOAT:
            value = numpy_helper.to_array(initializer)
            if value.size and value.min() < 10 * MASKED_SCORE and np.isin(value, [value.min(), 0]).all():
                initializer.CopyFrom(numpy_helper.from_array(np.maximum(value, MASKED_SCORE), initializer.name))


def value_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Static shapes of all inputs, outputs and intermediate values."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in values}


def _value(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == name))


def _constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    if not any(i.name == name for i in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def _replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
