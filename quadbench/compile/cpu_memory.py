"""Less memory on a CPU: large chains of operators in pieces of channels, and no memory planned ahead."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from quadbench.artifacts import LORA_PREFIX
from quadbench.compile.cpu_graph import (
    Shapes,
    float_bytes,
    int64_constant,
    read_model,
    readers_of,
    replace_nodes,
    shapes_of,
    write_model,
)
from quadbench.lint.linted_graph import DEQUANTIZE, QUANTIZE

LARGE_BYTES = 32 * 2**20  # tensors of fewer bytes, as floats, stay as they are
MIN_WEIGHT_BYTES = 2**20  # smaller weights, as floats, may share their memory
_CHANNELS = 1  # the axis of channels, of groups in a group norm
_BY_ELEMENT = {QUANTIZE, DEQUANTIZE, "Mul", "Add", "Sigmoid"}
_PLANLESS = "planless"  # begins the names of the tensors that hide sizes


def split_channels(path: Path, max_bytes: int = LARGE_BYTES) -> None:
    """Rewrite a quantized graph file: compute chains by channel whose floats exceed `max_bytes` in groups of channels.

    A chain begins and ends with quantized tensors: group norm, its scales, and the activation after it. Between them each tensor
    takes twice the bytes, and several exist at once: 900 MiB of 256 channels of 512x512 (docs/measured/archive/runtime.md).
    """
    model = read_model(path)
    shapes, graph = shapes_of(model), model.graph
    readers, producers = readers_of(graph), {output: node for node in graph.node for output in node.output}
    replaced, pieces = set[int](), list[Any]()
    for node in graph.node:
        if node.op_type == QUANTIZE and float_bytes(shapes.get(node.output[0], ())) > max_bytes and id(node) not in replaced:
            chain = _chain(node.output[0], graph, shapes, readers, producers)
            if chain and replaced.isdisjoint(map(id, chain.nodes)):
                replaced.update(map(id, chain.nodes))
                pieces += chain.split(graph, shapes, max_bytes)
    if replaced:
        replace_nodes(graph, [*(node for node in graph.node if id(node) not in replaced), *pieces])
        del graph.value_info[:]
        write_model(model, path)


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """Nodes, in order, that compute each channel of their results from the same channel of the quantized tensor `source`.

    `results` are quantized tensors that other nodes read, `operands` small tensors with a value for each channel.
    """

    source: str
    nodes: Sequence[Any]
    results: Sequence[str]
    operands: Collection[str]

    def split(self, graph: Any, shapes: Shapes, max_bytes: int) -> Iterator[Any]:
        """Yield nodes that compute the chain in groups of channels, of `max_bytes` of floats or less if the channels allow it."""
        from onnx import helper

        tensors = [self.source, *self.operands, *(node.output[0] for node in self.nodes)]
        most = max(float_bytes(shapes[tensor]) for tensor in tensors)
        whole = [shapes[tensor][0 if tensor in self.operands else _CHANNELS] for tensor in tensors]
        counts = [n for n in range(1, min(whole) + 1) if all(channels % n == 0 for channels in whole)]
        count = next((n for n in counts if most // n <= max_bytes), counts[-1])
        for tensor in (self.source, *self.operands):
            axis = 0 if tensor in self.operands else _CHANNELS
            sizes = f"{self.source}.{tensor}.channels"
            graph.initializer.append(int64_constant(sizes, [shapes[tensor][axis] // count] * count))
            names = [self._piece(tensor, i) for i in range(count)]
            yield helper.make_node("Split", [tensor, sizes], names, sizes, axis=axis)
        for i in range(count):
            for node in self.nodes:
                yield self._piece_of(node, i, count, graph, shapes)
        for tensor in self.results:
            names = [self._piece(tensor, i) for i in range(count)]
            yield helper.make_node("Concat", names, [tensor], f"{tensor}.joined", axis=_CHANNELS)

    def _piece(self, tensor: str, i: int) -> str:
        return f"{self.source}.{tensor}.channels{i}"

    def _piece_of(self, node: Any, i: int, count: int, graph: Any, shapes: Shapes) -> Any:
        piece, own = deepcopy(node), {self.source, *self.operands, *(one.output[0] for one in self.nodes)}
        piece.name = piece.output[0] = self._piece(node.output[0], i)
        for position, tensor in enumerate(node.input):
            if tensor in own:
                piece.input[position] = self._piece(tensor, i)
        if node.op_type == "Reshape":
            sizes = list(shapes[node.output[0]])
            sizes[_CHANNELS] //= count
            piece.input[1] = f"{piece.name}.sizes"
            graph.initializer.append(int64_constant(piece.input[1], sizes))
        for attribute in piece.attribute:
            if attribute.name == "group":
                attribute.i //= count
        return piece


def _chain(
    source: str, graph: Any, shapes: Shapes, readers: Mapping[str, list[Any]], producers: Mapping[str, Any]
) -> _Chain | None:
    """Return the largest chain by channel that begins with `source`; None if there is none with another operator than copies."""
    own, nodes, operands = {source}, list[Any](), set[str]()
    for node in graph.node:
        if node.input and node.input[0] in own and (needed := _operands(node, own, shapes)) is not None:
            own.add(node.output[0])
            operands.update(needed)
            nodes.append(node)
    changed = True
    while changed:  # what leaves the chain is quantized, so that no float tensor exists whole because of the chain
        ids = {id(node) for node in nodes}
        kept = [node for node in nodes if _stays_inside(node, ids, readers) or _is_quantized(node.output[0], producers)]
        outputs = {source, *(node.output[0] for node in kept)}
        kept = [node for node in kept if all(tensor in outputs or tensor not in own for tensor in node.input)]
        changed, nodes = len(kept) < len(nodes), kept
    if not any(node.op_type not in (QUANTIZE, DEQUANTIZE, "Reshape") for node in nodes):
        return None
    ids = {id(node) for node in nodes}
    results = [node.output[0] for node in nodes if not _stays_inside(node, ids, readers)]
    return _Chain(
        source=source, nodes=nodes, results=results, operands=operands.intersection(*[{x for n in nodes for x in n.input}])
    )


def _operands(node: Any, own: Collection[str], shapes: Shapes) -> list[str] | None:
    """Return a node's tensors with a value per channel, if the node works by channel on tensors of `own`; otherwise None."""
    result, first = shapes.get(node.output[0], ()), shapes.get(node.input[0], ())
    if len(result) < 3 or len(first) < 3 or result[0] != 1:
        return None
    if node.op_type in _BY_ELEMENT:
        others = list(node.input[1:])
        same = all((tensor in own and shapes.get(tensor) == first) or prod(shapes.get(tensor, (2,))) == 1 for tensor in others)
        return [] if same and result == first else None
    if node.op_type == "Reshape":  # of channels into groups of whole channels, or back
        return [] if first[0] == 1 and max(first[1], result[1]) % min(first[1], result[1]) == 0 else None
    if node.op_type == "InstanceNormalization":
        return list(node.input[1:])
    if node.op_type == "Conv":
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return list(node.input[1:]) if groups == first[1] == result[1] else None
    return None


def _stays_inside(node: Any, ids: Collection[int], readers: Mapping[str, list[Any]]) -> bool:
    return all(reader is not None and id(reader) in ids for reader in readers.get(node.output[0], ()))


def _is_quantized(tensor: str, producers: Mapping[str, Any]) -> bool:
    node = producers[tensor]
    while node.op_type == "Reshape" and node.input[0] in producers:
        node = producers[node.input[0]]
    return bool(node.op_type == QUANTIZE)


def hide_sizes(path: Path, large_bytes: int = LARGE_BYTES) -> None:
    """Rewrite a graph file with tensors above `large_bytes` so that ONNX Runtime frees each as soon as no node reads it.

    Before a run it plans which tensors share a block of memory, by equal sizes, and so keeps blocks that nothing reads for later
    tensors (docs/measured/archive/runtime.md); its C API has no option against this. So the sizes of data are computed at run
    time, and each large weight is dequantized in a shape of its own. Float results may differ in the last bits.
    """
    from onnx import TensorProto, helper

    model = read_model(path)
    graph, shapes = model.graph, shapes_of(model)
    data = [value for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name in shapes]
    data = [value for value in data if not value.name.startswith(LORA_PREFIX)]
    if not data or max(map(float_bytes, shapes.values())) <= large_bytes:
        return
    name = max(data, key=lambda value: prod(shapes[value.name])).name
    constants = {constant.name: constant for constant in graph.initializer}
    sizes = int64_constant(f"{_PLANLESS}.sizes", shapes[name])
    first, one = int64_constant(f"{_PLANLESS}.first", [0]), int64_constant(f"{_PLANLESS}.one", [1])
    flat = int64_constant(f"{_PLANLESS}.flat", [-1])
    graph.initializer.extend([sizes, first, one, flat])
    unknown = f"{_PLANLESS}.data"
    nodes = [  # 0 from data, which no optimizer can know before the run: x < x is false, for NaN too
        helper.make_node("Reshape", [name, flat.name], [f"{_PLANLESS}.row"]),
        helper.make_node("Slice", [f"{_PLANLESS}.row", first.name, one.name], [f"{_PLANLESS}.value"]),
        helper.make_node("Less", [f"{_PLANLESS}.value", f"{_PLANLESS}.value"], [f"{_PLANLESS}.false"]),
        helper.make_node("Cast", [f"{_PLANLESS}.false"], [f"{_PLANLESS}.zero"], to=TensorProto.INT64),
        helper.make_node("Add", [sizes.name, f"{_PLANLESS}.zero"], [f"{sizes.name}.hidden"]),
        helper.make_node("Reshape", [name, f"{sizes.name}.hidden"], [unknown]),
    ]
    hidden: dict[str, str] = {}
    for node in graph.node:
        for position, tensor in enumerate(node.input):
            if tensor == name:
                node.input[position] = unknown
        if node.op_type == "Reshape" and node.input[1] in constants and node.input[0] not in constants:
            own = node.input[1]
            if own not in hidden:
                hidden[own] = f"{own}.hidden"
                nodes.append(helper.make_node("Add", [own, f"{_PLANLESS}.zero"], [hidden[own]]))
            node.input[1] = hidden[own]
    nodes += _own_shapes(graph, constants)
    replace_nodes(graph, [*nodes, *graph.node])
    del graph.value_info[:]
    write_model(model, path)


def _own_shapes(graph: Any, constants: Mapping[str, Any]) -> Iterator[Any]:
    """Give large weights of equal shape that are dequantized in each run shapes of their own. Yield the nodes that undo it."""
    from onnx import helper

    taken: set[tuple[int, ...]] = set()
    readers = readers_of(graph)
    for node in graph.node:
        weight = constants.get(node.input[0]) if node.op_type == DEQUANTIZE else None
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if weight is None or axis != 0 or prod(weight.dims) * 4 < MIN_WEIGHT_BYTES or len(readers[weight.name]) > 1:
            continue
        shape = tuple(weight.dims)
        free = next((one for one in _foldings(shape) if one not in taken), None)
        if free is None:
            continue
        taken.add(free)
        if free == shape:
            continue
        result, sizes = node.output[0], int64_constant(f"{node.output[0]}.shape", shape)
        graph.initializer.append(sizes)
        weight.ClearField("dims")
        weight.dims.extend(free)
        node.output[0] = f"{result}.own"
        yield helper.make_node("Reshape", [node.output[0], sizes.name], [result], f"{result}.own")


def _foldings(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield shapes of equal size and equal first dimension: `shape` first, then with two and three further dimensions."""
    yield shape
    rest = prod(shape[1:])
    divisors = [n for n in range(1, rest + 1) if rest % n == 0]
    for a in divisors:
        yield shape[0], a, rest // a
    for a in divisors:
        for b in divisors:
            if rest // a % b == 0:
                yield shape[0], a, b, rest // a // b
