"""CPU graphs: rewriting ONNX graphs to run better on a CPU. Attention and weights take less memory, or weights are folded."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quadbench.artifacts import LORA_PREFIX
from quadbench.errors import BuildError, extra_hint, requires_package
from quadbench.lint.linted_graph import DEQUANTIZE, QUANTIZE

Shapes = Mapping[str, tuple[int, ...]]
RUNTIMES_OWN = "com.microsoft"  # the domain of ONNX Runtime's own operators, which its optimizer inserts
_SHAPED_ALIKE = {"FusedMatMul": "MatMul", "FusedConv": "Conv", "QuickGelu": "Sigmoid", "Gelu": "Sigmoid"}
MAX_BYTES = 256 * 2**20  # the most bytes of float weights that faster loading may cost
MAX_SCORES_BYTES = 64 * 2**20  # the most bytes of attention scores computed at once
MIN_ROWS = 8  # the fewest rows of a piece: products of fewer rows are summed in another order
_FLOAT_BYTES = 4
_MATRIX_PRODUCTS = ("MatMul", "FusedMatMul")  # FusedMatMul, ONNX Runtime's own, includes the attention scale of float graphs
_BY_ELEMENT = {QUANTIZE, DEQUANTIZE, "Mul", "Div", "Add", "Cast"}


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Infer the shapes of a model's tensors. Return a dict from tensor name to sizes, without tensors of unknown shape."""
    import onnx

    light = deepcopy(model)
    for constant in light.graph.initializer:
        if len(constant.raw_data) > 1024:
            constant.ClearField("raw_data")
    for node in light.graph.node:
        if node.domain == RUNTIMES_OWN and node.op_type in _SHAPED_ALIKE and not transposes(node):
            # For shape inference, ONNX Runtime's own operators are replaced by ONNX operators of the same output shape.
            node.op_type, node.domain = _SHAPED_ALIKE[node.op_type], ""
            is_conv = node.op_type == "Conv"
            kept = [attribute for attribute in node.attribute if is_conv and not attribute.name.startswith("activation")]
            del node.input[3 if is_conv else 2 :]  # without the term that a FusedConv adds
            del node.attribute[:]
            node.attribute.extend(kept)
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    shapes = {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        kind = value.type.tensor_type
        sizes = tuple(dimension.dim_value for dimension in kind.shape.dim)
        if kind.HasField("shape") and all(sizes):
            shapes[value.name] = sizes
    return shapes


def transposes(node: Any) -> bool:
    """Return whether a FusedMatMul node transposes one of its inputs."""
    return any(attribute.name.startswith("trans") and attribute.i for attribute in node.attribute)


def read_model(path: Path) -> Any:
    """Load an ONNX file and return its model. Weights in external data files are not loaded."""
    with requires_package("compiling graphs", hint=extra_hint("quad")):
        import onnx
    return onnx.load(path, load_external_data=False)


def write_model(model: Any, path: Path) -> None:
    """Write an ONNX model to `path`. Weights in external data files are not written, and their files stay unchanged."""
    import onnx

    onnx.save(model, path)


def readers_of(graph: Any) -> dict[str, list[Any]]:
    """Return a dict from tensor name to the list of nodes that read the tensor, one entry per read. None means a graph output."""
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in names_read(node):
            readers[name].append(node)
    for value in graph.output:
        readers[value.name].append(None)
    return readers


def only_reader(readers: Mapping[str, list[Any]], name: str) -> Any:
    """Return the only node that reads a tensor; None if several nodes or no node read the tensor, or if it is a graph output."""
    nodes = readers.get(name, [])
    return nodes[0] if len(nodes) == 1 else None


def replace_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    """Sort `nodes` topologically, and make them the graph's nodes. Drop every node on which no graph output depends."""
    ordered = _in_order(nodes)
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(ordered):
        if needed.intersection(node.output):
            needed.update(names_read(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def names_read(node: Any) -> Iterator[str]:
    """Yield the tensor names that a node and the nodes of its subgraphs read."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from names_read(inner)


def _in_order(nodes: Sequence[Any]) -> list[Any]:
    """Return the ONNX nodes in topological order: each node after the nodes whose outputs it reads."""
    computed = {name for node in nodes for name in node.output if name}
    waiting = {index: computed.intersection(names_read(node)) for index, node in enumerate(nodes)}
    needed: dict[str, list[int]] = defaultdict(list)
    for index, names in waiting.items():
        for name in names:
            needed[name].append(index)
    ready = [index for index, names in sorted(waiting.items(), reverse=True) if not names]
    ordered = []
    while ready:
        node = nodes[ready.pop()]
        ordered.append(node)
        for name in reversed(node.output):
            for index in reversed(needed[name]):
                waiting[index].discard(name)
                if not waiting[index]:
                    ready.append(index)
    return ordered


def int64_constant(name: str, sizes: Sequence[int]) -> Any:
    """Return an ONNX constant of int64, as shapes of Reshape and sizes of Split are."""
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(sizes, np.int64), name)


def allow_folding(path: Path) -> None:
    """Rewrite a graph file so that ONNX Runtime dequantizes weights once, at load. Leave the file unchanged if the graph has
    QuantizeLinear nodes, or if its weights would exceed 256 MiB as float32.
    """
    if QUANTIZE.encode() in path.read_bytes():  # an operator's name, found without importing onnx
        return
    model = read_model(path)
    constants = {constant.name: constant for constant in model.graph.initializer}
    if sum(prod(constant.dims) for constant in constants.values()) * 4 > MAX_BYTES:
        return
    from onnx import TensorProto, helper

    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type != DEQUANTIZE or node.input[0] not in constants:
            nodes.append(node)
            continue
        # These nodes compute exactly the values of the DequantizeLinear, whose zero point is 0.
        values, scales = (constants[name] for name in node.input[:2])
        axis = _axis(node, 1)
        shape = [-1 if dimension == axis else 1 for dimension in range(len(values.dims))] if len(scales.dims) else []
        factor, floats = f"{node.output[0]}.factor", f"{node.output[0]}.cast"
        model.graph.initializer.append(int64_constant(f"{factor}.shape", shape))
        nodes += [
            helper.make_node("Cast", [node.input[0]], [floats], f"{node.name}.cast", to=TensorProto.FLOAT),
            helper.make_node("Reshape", [node.input[1], f"{factor}.shape"], [factor], f"{node.name}.scales"),
            helper.make_node("Mul", [floats, factor], [node.output[0]], f"{node.name}.factor"),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    unread = [constant for constant in model.graph.initializer if constant.name not in read]
    for constant in unread:
        model.graph.initializer.remove(constant)
    write_model(model, path)


def _axis(node: Any, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), default)


def defer_weights(path: Path) -> None:
    """Put the nodes that compute weights first in an ONNX file. ONNX Runtime then runs each when needed, which saves memory."""
    model = read_model(path)
    loras = [value.name for value in model.graph.input if value.name.startswith(LORA_PREFIX)]
    ready = {"", *(constant.name for constant in model.graph.initializer), *loras}
    first, others = [], []
    for node in model.graph.node:
        if ready.issuperset(names_read(node)):
            first.append(node)
            ready.update(node.output)
        else:
            others.append(node)
    if first == list(model.graph.node)[: len(first)]:
        return
    del model.graph.node[:]
    model.graph.node.extend([*first, *others])
    write_model(model, path)


def externalize_weights(source: Path, path: Path) -> None:
    """In the optimized ONNX file `path`, replace embedded weights by references to the weight file of the original `source`."""
    before = read_model(source).graph.initializer
    outside = {constant.name: constant for constant in before if constant.data_location == constant.EXTERNAL}
    model = read_model(path)
    for constant in model.graph.initializer:
        if constant.name in outside:
            constant.CopyFrom(outside.pop(constant.name))
    if outside:
        raise BuildError(
            f"ONNX Runtime's optimizer has replaced weights of '{source.name}' that adapters change: {', '.join(outside)}",
            hint="remove merged-at-load from the recipe's baselines, or use another version of onnxruntime",
        )
    write_model(model, path)


def split_attention(path: Path, max_bytes: int = MAX_SCORES_BYTES) -> None:
    """Rewrite a graph file: compute attention whose scores exceed `max_bytes` in groups of rows. The results stay equal.

    Scores of 4096 tokens in eight heads take 512 MiB, and several such tensors exist at once (docs/measured/archive/runtime.md).
    """
    model = read_model(path)
    shapes, consumers = shapes_of(model), readers_of(model.graph)
    large = [node for node in model.graph.node if _is_product(node) and float_bytes(shapes.get(node.output[0], ())) > max_bytes]
    chains, replaced = [], set[int]()
    for node in large:
        chain = _chain(node, shapes, consumers)
        if chain and replaced.isdisjoint(map(id, chain)):  # if two chains share a product, only one is split
            chains.append(chain)
            replaced.update(map(id, chain))
    if not chains:
        return
    nodes = [node for node in model.graph.node if id(node) not in replaced]
    for chain in chains:
        nodes += _pieces(model.graph, chain, shapes, max_bytes)
    replace_nodes(model.graph, nodes)
    write_model(model, path)


def _chain(node: Any, shapes: Shapes, consumers: Mapping[str, list[Any]]) -> list[Any] | None:
    """Return an attention's nodes from QK product to product with V, or None if the attention cannot be computed row by row."""
    scores, chain = shapes[node.output[0]], [node]
    while (following := only_reader(consumers, name := chain[-1].output[0])) is not None and following.input[:1] == [name]:
        chain.append(following)
        if _is_product(following):  # queries, scores and results must have their rows in the second to last dimension
            ranks = {len(shapes.get(tensor, ())) for tensor in (node.input[0], node.output[0], following.output[0])}
            return chain if len(chain) > 2 and len(ranks) == 1 and min(ranks) > 1 else None
        if not _works_by_row(following, scores, shapes):
            return None
    return None


def _is_product(node: Any) -> bool:
    return node.op_type in _MATRIX_PRODUCTS and not transposes(node)


def _works_by_row(node: Any, scores: Sequence[int], shapes: Shapes) -> bool:
    if node.op_type == "Softmax":
        return _axis(node, -1) in (-1, len(scores) - 1)
    return node.op_type in _BY_ELEMENT and all(prod(shapes.get(name, (2,))) == 1 for name in node.input[1:])


def float_bytes(shape: Sequence[int]) -> int:
    return prod(shape) * _FLOAT_BYTES if shape else 0


def _pieces(graph: Any, chain: Sequence[Any], shapes: Shapes, max_bytes: int) -> Iterator[Any]:
    """Yield nodes that replace an attention `chain`: split queries by rows, compute each group, and concatenate the results."""
    from onnx import helper

    first, last = chain[0], chain[-1]
    scores = shapes[first.output[0]]
    rows = scores[-2]
    counts = [n for n in range(1, max(rows // MIN_ROWS, 1) + 1) if rows % n == 0]
    count = next((n for n in counts if float_bytes(scores) // n <= max_bytes), counts[-1])
    axis = len(scores) - 2
    queries = [f"{first.input[0]}.{first.output[0]}.piece{i}" for i in range(count)]
    sizes = f"{first.output[0]}.pieces"
    graph.initializer.append(int64_constant(sizes, [rows // count] * count))
    yield helper.make_node("Split", [first.input[0], sizes], queries, f"{first.output[0]}.split", axis=axis)
    results = []
    for i, query in enumerate(queries):
        name = query
        for node in chain:
            piece = deepcopy(node)
            piece.name, piece.input[0], name = f"{node.output[0]}.piece{i}", name, f"{node.output[0]}.piece{i}"
            piece.output[0] = name
            yield piece
        results.append(name)
    yield helper.make_node("Concat", results, [last.output[0]], f"{last.output[0]}.joined", axis=axis)
