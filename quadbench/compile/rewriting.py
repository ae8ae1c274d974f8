"""Rewriting: an ONNX model -> the shapes of its tensors, its nodes by what they read and write, and new nodes in their place."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
RUNTIMES_OWN = "com.microsoft"  # the domain of operators that ONNX Runtime's optimizer puts in and ONNX does not know
_SHAPED_ALIKE = {"FusedMatMul": "MatMul", "FusedConv": "Conv", "QuickGelu": "Sigmoid", "Gelu": "Sigmoid"}


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors that are known; only those of constants are looked at, not their values."""
    import onnx

    light = onnx.ModelProto()
    light.CopyFrom(model)
    for constant in light.graph.initializer:
        if len(constant.raw_data) > 1024:
            constant.ClearField("raw_data")
    for node in light.graph.node:
        if node.domain == RUNTIMES_OWN and node.op_type in _SHAPED_ALIKE and not transposes(node):
            _make_standard(node)
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    shapes = {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        kind = value.type.tensor_type
        sizes = tuple(dimension.dim_value for dimension in kind.shape.dim)
        if kind.HasField("shape") and all(sizes):
            shapes[value.name] = sizes
    return shapes


def _make_standard(node: Any) -> None:
    """Make of an operator of ONNX Runtime's own the one of ONNX whose output has the same shape."""
    node.op_type, node.domain = _SHAPED_ALIKE[node.op_type], ""
    is_conv = node.op_type == "Conv"
    kept = [attribute for attribute in node.attribute if is_conv and not attribute.name.startswith("activation")]
    del node.input[3 if is_conv else 2 :]  # without what a FusedConv adds
    del node.attribute[:]
    node.attribute.extend(kept)


def transposes(node: Any) -> bool:
    """Say whether a product of ONNX Runtime's own transposes one of its inputs before."""
    return any(attribute.name.startswith("trans") and attribute.i for attribute in node.attribute)


def readers_of(graph: Any) -> dict[str, list[Any]]:
    """Return the nodes that read each tensor, as often as each does; None stands for whoever reads an output of the graph."""
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in names_read(node):
            readers[name].append(node)
    for value in graph.output:
        readers[value.name].append(None)
    return readers


def only_reader(readers: Mapping[str, list[Any]], name: str) -> Any:
    """Return the only node that reads a tensor; None if it has none or several, or is an output of the graph."""
    nodes = readers.get(name, [])
    return nodes[0] if len(nodes) == 1 else None


def replace_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    """Make these the graph's nodes, each after those that make its inputs, without those whose outputs nothing needs."""
    ordered = _in_order(nodes)
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(ordered):
        if needed.intersection(node.output):
            needed.update(names_read(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def names_read(node: Any) -> Iterator[str]:
    """Yield the names that a node reads, and those that the nodes of its subgraphs do, which may be of tensors around them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from names_read(inner)


def _in_order(nodes: Sequence[Any]) -> list[Any]:
    """Return the nodes so that each comes after those that make its inputs."""
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
