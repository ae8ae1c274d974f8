"""Passes: functions that rewrite a float graph into an equivalent one that quantizes and compiles better."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quadbench.artifacts import Component
from quadbench.lint.rules import WIDEST_SINGLE_FILTER
from quadbench.quad.model import initializers as weights

Pass = Callable[[onnx.ModelProto], None]
_MOST_OF_SHAPE = 64  # numbers in a constant that may be a shape, an axis or a pad
MASKED_SCORE = -100.0  # exp(-100) is negligible in float32; -3.4e38 would leave 16-bit scores no resolution


def passes_of(component: Component) -> tuple[Pass, ...]:
    """Return the rewriting passes for the float graph of a component, in order. docs/compilers.md explains each pass."""
    everywhere = (decompose_group_norm, linear_as_gemm)
    return (clamp_mask_constants, split_layer_norm, *everywhere) if component is Component.TEXT_ENCODER else everywhere


def decompose_group_norm(model: onnx.ModelProto) -> None:
    """Replace GroupNormalization by Reshape, InstanceNormalization, Reshape and Conv, which every NPU compiler supports.

    (1, C, h, w) becomes (1, G, C/G*h*w), and each of the G rows is normalised. A depthwise convolution applies scale and offset:
    one node instead of two, exact in 8 bits, and without the Add before Sigmoid and Mul that HTP computes wrongly for small
    tensors (docs/compilers.md). With many channels, the filters get a second weight, which is 0.
    """
    _replace_each(model, "GroupNormalization", partial(_group_norm_nodes, model, value_shapes(model)))


def _replace_each(model: onnx.ModelProto, op_type: str, nodes_for: Callable[[onnx.NodeProto], list[onnx.NodeProto]]) -> None:
    """Replace each node of type `op_type` in the graph in place. `nodes_for` takes a node and returns a list of new nodes."""
    replace_nodes(model, [n for node in model.graph.node for n in (nodes_for(node) if node.op_type == op_type else [node])])


def _group_norm_nodes(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], node: onnx.NodeProto) -> list[onnx.NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    groups, epsilon = int(attributes["num_groups"]), float(attributes["epsilon"])
    x, scale, bias = node.input
    out, shape = node.output[0], shapes[x]
    columns = 1 if shape[1] <= WIDEST_SINGLE_FILTER else 2
    filters = (shape[1],) + (1,) * (len(shape) - 2) + (columns,)
    ones = add_constant(model, f"group_norm.ones_{groups}", np.ones(groups, np.float32))
    zeros = add_constant(model, f"group_norm.zeros_{groups}", np.zeros(groups, np.float32))
    rows = add_constant(model, f"group_norm.rows_{groups}", np.array([shape[0], groups, -1], np.int64))
    full = add_constant(model, f"group_norm.shape_{'x'.join(map(str, shape))}", np.array(shape, np.int64))
    values = np.zeros(filters, np.float32)
    values[..., 0] = _value(model, scale).reshape(filters[:-1])
    weight = add_constant(model, f"{scale}.{'x'.join(map(str, filters))}", values)
    pads = [0] * (2 * len(shape) - 5) + [columns - 1]  # the second filter column needs padding
    return [
        helper.make_node("Reshape", [x, rows], [f"{out}.rows"], f"{node.name}.rows"),
        helper.make_node(
            "InstanceNormalization", [f"{out}.rows", ones, zeros], [f"{out}.norm"], f"{node.name}.norm", epsilon=epsilon
        ),
        helper.make_node("Reshape", [f"{out}.norm", full], [f"{out}.full"], f"{node.name}.full"),
        helper.make_node("Conv", [f"{out}.full", weight, bias], [out], f"{node.name}.scale", group=shape[1], pads=pads),
    ]


def split_layer_norm(model: onnx.ModelProto) -> None:
    """Set every LayerNormalization's scale to 1 and offset to 0. Mul and Add after it apply the original scale and offset.

    HTP computes the original wrongly if a Gemm follows directly and the tensor is small, as in text encoders (docs/compilers.md).
    """
    _replace_each(model, "LayerNormalization", partial(_layer_norm_nodes, model))


def _layer_norm_nodes(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    (x, scale), out = node.input[:2], node.output[0]
    offset = node.input[2] if len(node.input) > 2 else None
    shape = _value(model, scale).shape
    ones = add_constant(model, f"layer_norm.ones_{shape[-1]}", np.ones(shape, np.float32))
    zeros = add_constant(model, f"layer_norm.zeros_{shape[-1]}", np.zeros(shape, np.float32))
    norm = deepcopy(node)
    norm.input[:] = [x, ones, zeros]
    norm.output[0] = f"{out}.norm"
    scaled = out if offset is None else f"{out}.scaled"
    nodes = [norm, helper.make_node("Mul", [f"{out}.norm", scale], [scaled], f"{node.name}.scale")]
    return nodes if offset is None else [*nodes, helper.make_node("Add", [scaled, offset], [out], f"{node.name}.offset")]


def linear_as_gemm(model: onnx.ModelProto) -> None:
    """Replace each linear layer's nodes (Transpose of the weight, MatMul, Add of the bias) by Reshape, Gemm and Reshape.

    Gemm uses LoRA weights directly, without a transposition that would round them first, and adds the bias in 32 bits. Also, ONNX
    Runtime's MatMulNBits rounds activations to 8 bits where the graph says 16; no such operator exists for Gemm.
    """
    graph = GraphIndex(model)
    linears = {node.name: linear for node in model.graph.node if (linear := _linear(model, graph, node)) is not None}
    replaced = {name for linear in linears.values() for name in linear.replaced}
    nodes: list[onnx.NodeProto] = []
    reshaped: set[str] = set()
    for node in model.graph.node:
        if linear := linears.get(node.name):
            tokens, width, channels = linear.shape
            rows, flat = f"{linear.x}.rows", f"{linear.output}.rows.out"
            to_rows = add_constant(model, f"shape.rows_{width}", np.array([-1, width], np.int64))
            to_tokens = add_constant(model, f"shape.{tokens}x{channels}", np.array([-1, tokens, channels], np.int64))
            if rows not in reshaped:  # by an earlier layer
                nodes.append(helper.make_node("Reshape", [linear.x, to_rows], [rows], f"{linear.name}.rows"))  # -> (T, D)
            reshaped.add(rows)
            operands = [rows, linear.weight, *([linear.bias] if linear.bias else [])]
            nodes.append(helper.make_node("Gemm", operands, [flat], linear.name, transB=1))
            nodes.append(helper.make_node("Reshape", [flat, to_tokens], [linear.output], f"{linear.name}.tokens"))  # -> (1, T, O)
        elif node.output[0] not in replaced:
            nodes.append(node)
    replace_nodes(model, nodes)


@dataclass(frozen=True, kw_only=True)
class _Linear:
    """Tensor names of a linear layer: x (1, T, D), weight (O, D), bias (O), output (1, T, O)."""

    name: str
    x: str
    weight: str
    bias: str | None
    output: str
    shape: tuple[int, int, int]  # T, D, O
    replaced: tuple[str, ...]  # outputs of the nodes that are replaced


class GraphIndex:
    """An index of a graph's constants, shapes, producers and readers by tensor name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = {i.name: i for i in model.graph.initializer}
        self.shapes = value_shapes(model) | {name: tuple(i.dims) for name, i in self.constants.items()}
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)


def _linear(model: onnx.ModelProto, graph: GraphIndex, node: onnx.NodeProto) -> _Linear | None:
    """Return a _Linear for a MatMul by a weight matrix (plus bias Add, if any), else None. Transpose a constant weight."""
    if node.op_type != "MatMul" or len(graph.shapes[node.input[0]]) != 3 or len(graph.shapes[node.input[1]]) != 2:
        return None
    x, factor = node.input
    if factor in graph.constants:
        constant, weight = graph.constants[factor], f"{factor}.transposed"
        if len(graph.readers[factor]) > 1:
            weight = add_constant(model, weight, weights.value(constant).T)
        else:  # in place, as weights may be large
            weights.transpose(constant)
            constant.name = weight
    elif (source := graph.producers.get(factor)) is not None and source.op_type == "Transpose":
        weight = source.input[0]
    else:
        return None
    bias, output = None, node.output[0]
    readers = graph.readers.get(output, [])
    if len(readers) == 1 and (adds := readers[0]).op_type == "Add":
        bias = next((name for name in adds.input if name in graph.constants and len(graph.shapes[name]) == 1), None)
        output = output if bias is None else adds.output[0]
    _, tokens, width = graph.shapes[x]
    shape = (tokens, width, graph.shapes[factor][1])
    replaced = (node.output[0], output)
    return _Linear(name=node.name, x=x, weight=weight, bias=bias, output=output, shape=shape, replaced=replaced)


def clamp_mask_constants(model: onnx.ModelProto) -> None:
    """Replace minus infinity in the constants of attention masks by the finite number MASKED_SCORE."""
    for initializer in model.graph.initializer:
        if initializer.data_type == onnx.TensorProto.FLOAT:
            value = weights.value(initializer)
            if value.size and value.min() < 10 * MASKED_SCORE and np.isin(value, [value.min(), 0]).all():
                initializer.CopyFrom(numpy_helper.from_array(np.maximum(value, MASKED_SCORE), initializer.name))


def value_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return a dict from tensor name to static shape (a tuple) for a graph's inputs, intermediate values and outputs."""
    return {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in inferred_values(model)}


def inferred_values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return a graph's inputs, intermediate values and outputs as a list of ValueInfoProto with inferred types and shapes."""
    light = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import
    )  # without weights, which onnx would copy
    graph = model.graph
    light.graph.MergeFrom(onnx.GraphProto(name=graph.name, node=graph.node, input=graph.input, output=graph.output))
    light.graph.value_info.extend(graph.value_info)
    for constant in graph.initializer:
        is_small = prod(constant.dims) <= _MOST_OF_SHAPE
        kept = constant if is_small else onnx.TensorProto(name=constant.name, dims=constant.dims, data_type=constant.data_type)
        light.graph.initializer.append(kept)
    inferred = onnx.shape_inference.infer_shapes(light, strict_mode=True).graph
    return [*inferred.input, *inferred.value_info, *inferred.output]


def _value(model: onnx.ModelProto, name: str) -> np.ndarray:
    return weights.value(next(i for i in model.graph.initializer if i.name == name))


def add_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    """Add an initializer to the model unless the name exists, and return the name."""
    if not any(i.name == name for i in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the graph's nodes by `nodes`, and drop nodes and constants whose results nothing reads."""
    used = {value.name for value in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    initializers = [i for i in model.graph.initializer if i.name in used]
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
