"""Forms that graphs are not given: float or QDQ graph -> one that computes the same, for passes.py to measure.

Functions that change a float graph return the factors that its LoRA inputs have to be multiplied by, {} for none.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quadbench.quad.quantize.passes import value_shapes

Factors = dict[str, float]


def fewer_reshapes(model: onnx.ModelProto) -> Factors:
    """Rewrite: Add of two Reshapes -> Reshape of the Add; then Reshape of a Reshape -> one, or none where that leads back."""
    shapes, producers = value_shapes(model), _producers(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.extend(_flat_add(model, node, shapes, producers) or [node])
    _replace(model, nodes)
    shapes = value_shapes(model)
    starts: dict[str, str] = {}  # what a Reshape makes -> what the first of its chain is given
    nodes = []
    for node in model.graph.node:
        node.input[:] = [starts[n] if n in starts and shapes[n] == shapes[starts[n]] else n for n in node.input]
        if node.op_type == "Reshape":
            x, out = node.input[0], node.output[0]
            starts[out] = starts.get(x, x)
            if starts[out] != x:
                node = _reshape(model, starts[out], out, shapes[out])
        nodes.append(node)
    _replace(model, nodes)
    return {}


def _flat_add(
    model: onnx.ModelProto, node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], producers: dict[str, onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """Return the Add before its operands' Reshapes, or nothing where these differ in a shape before or after."""
    if node.op_type != "Add" or any(n not in producers or producers[n].op_type != "Reshape" for n in node.input):
        return []
    flat, out = [producers[name].input[0] for name in node.input], node.output[0]
    if shapes[flat[0]] != shapes[flat[1]] or any(shapes[name] != shapes[out] for name in node.input):
        return []
    return [helper.make_node("Add", flat, [f"{out}.flat"], node.name), _reshape(model, f"{out}.flat", out, shapes[out])]


def linear_as_conv(model: onnx.ModelProto) -> Factors:
    """Rewrite: Gemm of rows (T, D) -> 1x1 Conv of (1, D, 1, T)."""
    shapes, constants = value_shapes(model), _constants(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or shapes[node.input[0]][0] == 1:
            nodes.append(node)
            continue
        (x, weight), out = node.input[:2], node.output[0]
        (tokens, width), channels = shapes[x], shapes[out][1]
        filters = f"{weight}.filters"
        if weight in constants:
            _store(model, filters, numpy_helper.to_array(constants[weight])[:, :, None, None])
        else:
            nodes.append(_reshape(model, weight, filters, (channels, width, 1, 1)))
        nodes += [
            helper.make_node("Transpose", [x], [f"{out}.turned"], f"{node.name}.turn", perm=[1, 0]),
            _reshape(model, f"{out}.turned", f"{out}.image", (1, width, 1, tokens)),
            helper.make_node("Conv", [f"{out}.image", filters, *node.input[2:]], [f"{out}.conv"], node.name),
            _reshape(model, f"{out}.conv", f"{out}.columns", (channels, tokens)),
            helper.make_node("Transpose", [f"{out}.columns"], [out], f"{node.name}.back", perm=[1, 0]),
        ]
    _replace(model, nodes)
    return {}


def single_heads(model: onnx.ModelProto) -> Factors:
    """Rewrite: attention over (1, H, T, d) at once -> H times over (1, 1, T, d), between Split and Concat."""
    shapes, producers = value_shapes(model), _producers(model)
    nodes: list[onnx.NodeProto] = []
    inner: set[str] = set()
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for mixing in model.graph.node:
        softmax = producers.get(mixing.input[0])
        if mixing.op_type != "MatMul" or softmax is None or softmax.op_type != "Softmax":
            continue
        scaling = producers[softmax.input[0]]
        scoring = producers[scaling.input[0]]
        inner |= {scoring.output[0], scaling.output[0], softmax.output[0]}
        heads = shapes[softmax.output[0]][1]
        replaced[mixing.output[0]] = _heads(scoring, scaling, mixing, heads)
    for node in model.graph.node:
        if node.output[0] not in inner:
            nodes += replaced.get(node.output[0], [node])
    _replace(model, nodes)
    return {}


def _heads(scoring: onnx.NodeProto, scaling: onnx.NodeProto, mixing: onnx.NodeProto, heads: int) -> list[onnx.NodeProto]:
    out, scale = mixing.output[0], scaling.input[1]
    parts = {name: [f"{out}.{name}.{i}" for i in range(heads)] for name in ("q", "k", "v", "scores", "scaled", "shares", "mixed")}
    nodes = [
        helper.make_node("Split", [source], parts[name], f"{out}.{name}.split", axis=1, num_outputs=heads)
        for name, source in (("q", scoring.input[0]), ("k", scoring.input[1]), ("v", mixing.input[1]))
    ]
    for i in range(heads):
        q, k, v, scores, scaled, shares, mixed = (names[i] for names in parts.values())
        nodes += [
            helper.make_node("MatMul", [q, k], [scores], scores),
            helper.make_node("Mul", [scores, scale], [scaled], scaled),
            helper.make_node("Softmax", [scaled], [shares], shares, axis=-1),
            helper.make_node("MatMul", [shares, v], [mixed], mixed),
        ]
    return [*nodes, helper.make_node("Concat", parts["mixed"], [out], f"{out}.heads", axis=1)]


def scale_in_weights(model: onnx.ModelProto) -> Factors:
    """Move the factor of attention's scores into the weights and LoRAs that make the queries."""
    producers, constants = _producers(model), _constants(model)
    factors: Factors = {}
    same: dict[str, str] = {}
    for softmax in model.graph.node:
        if softmax.op_type != "Softmax" or producers[softmax.input[0]].op_type != "Mul":
            continue
        scores, constant = producers[softmax.input[0]].input
        factor = float(numpy_helper.to_array(constants[constant]))
        same[softmax.input[0]] = scores
        pending = [producers[scores].input[0]]
        while pending:
            node = producers[pending.pop()]
            if node.op_type != "Gemm":
                pending += node.input if node.op_type == "Add" else node.input[:1]
            elif node.input[1] in constants:
                for name in node.input[1:]:
                    _store(model, name, numpy_helper.to_array(constants[name]) * np.float32(factor))
            else:
                factors[node.input[1]] = factor
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    _replace(model, list(model.graph.node))
    return factors


def group_norm_with_mul_and_add(model: onnx.ModelProto) -> Factors:
    """Write a norm's scale and offset as Mul and Add, not as a convolution of single channels."""
    constants = _constants(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Conv" or not node.name.startswith("GroupNormalization"):
            nodes.append(node)
            continue
        (x, weight, bias), out = node.input, node.output[0]
        for name in (weight, bias):
            value = numpy_helper.to_array(constants[name])
            _store(model, f"{name}.plain", value.reshape(len(value), -1)[:, 0].reshape(1, -1, 1, 1))
        nodes += [
            helper.make_node("Mul", [x, f"{weight}.plain"], [f"{out}.scaled"], f"{node.name}.mul"),
            helper.make_node("Add", [f"{out}.scaled", f"{bias}.plain"], [out], f"{node.name}.add"),
        ]
    _replace(model, nodes)
    return {}


def resize_as_concat(model: onnx.ModelProto) -> Factors:
    """Rewrite: Resize to twice the size by nearest neighbour -> Concat with itself between Reshapes, along width, then height."""
    shapes = value_shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Resize":
            nodes.append(node)
            continue
        x, out = node.input[0], node.output[0]
        _, c, h, w = shapes[x]
        nodes += [
            _reshape(model, x, f"{out}.columns", (c * h, w, 1)),
            helper.make_node("Concat", [f"{out}.columns"] * 2, [f"{out}.wide"], f"{out}.widen", axis=2),
            _reshape(model, f"{out}.wide", f"{out}.rows", (c * h, 1, 2 * w)),
            helper.make_node("Concat", [f"{out}.rows"] * 2, [f"{out}.high"], f"{out}.heighten", axis=1),
            _reshape(model, f"{out}.high", out, (1, c, 2 * h, 2 * w)),
        ]
    _replace(model, nodes)
    return {}


def unsigned_factors(model: onnx.ModelProto) -> None:
    """Leave the second factors of a QDQ graph's attention in UINT16, as all other activations are."""
    producers = _producers(model)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name.endswith(".factor.dq"):
                node.input[i] = producers[producers[name].input[0]].input[0]
    _replace(model, list(model.graph.node))


def silu_as_quick_gelu(model: onnx.ModelProto) -> None:
    """Write x * sigmoid(x) of a QDQ graph as ONNX Runtime's own QuickGelu with alpha 1."""
    producers = _producers(model)
    for node in model.graph.node:
        if node.op_type == "Mul" and (x := _silu_input(node, producers)):
            gelu = helper.make_node("QuickGelu", [x], list(node.output), node.name, domain="com.microsoft", alpha=1.0)
            node.CopyFrom(gelu)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    _replace(model, list(model.graph.node))


def silu_in_one_piece(model: onnx.ModelProto) -> None:
    """Quantize nothing of a QDQ graph between Sigmoid and the Mul of x * sigmoid(x)."""
    producers = _producers(model)
    for node in model.graph.node:
        if node.op_type == "Mul" and (x := _silu_input(node, producers)):
            other = next(name for name in node.input if name != x)
            node.input[:] = [x, producers[producers[other].input[0]].input[0]]
    _replace(model, list(model.graph.node))


def _silu_input(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> str | None:
    """Return x, dequantized, where the Mul's other operand is its sigmoid, quantized and dequantized."""
    for x, other in (node.input, list(node.input)[::-1]):
        steps = [other]
        while len(steps) < 4 and steps[-1] in producers:
            steps.append(producers[steps[-1]].input[0])
        if len(steps) == 4 and steps[3] == x and producers[steps[2]].op_type == "Sigmoid":
            return str(x)
    return None


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {i.name: i for i in model.graph.initializer}


def _store(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    """Store a constant, over the one that has its name, and return the name."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    old = _constants(model).get(name)
    if old is None:
        model.graph.initializer.append(tensor)
    else:
        old.CopyFrom(tensor)
    return name


def _reshape(model: onnx.ModelProto, x: str, out: str, shape: tuple[int, ...]) -> onnx.NodeProto:
    name = _store(model, f"form.{'x'.join(map(str, shape))}", np.array(shape, np.int64))
    return helper.make_node("Reshape", [x, name], [out], f"{out}.reshape")


def _replace(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Give the graph these nodes, each output once, without nodes and constants that nobody reads."""
    used = {value.name for value in model.graph.output}
    kept: dict[str, onnx.NodeProto] = {}
    for node in reversed(nodes):
        if used.intersection(node.output) and node.output[0] not in kept:
            used.update(node.input)
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            kept[node.output[0]] = copy
    constants = [i for i in model.graph.initializer if i.name in used]
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept.values()))
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
