"""LoRA branches on a CPU: rewrites of ONNX graphs that make a LoRA as graph input cheaper, with the same results.

`fuse_lora_branches` rewrites float graphs before ONNX Runtime's optimizer, `ease_compiled_branches` any graph after it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from quadbench.artifacts import LORA_PREFIX
from quadbench.compile import cpu_graph
from quadbench.compile.cpu_graph import RUNTIMES_OWN, Shapes, int64_constant, only_reader, readers_of, replace_nodes, shapes_of
from quadbench.lint.linted_graph import DEQUANTIZE, QUANTIZE

_UP, _DOWN = ".up", ".down"
_PRODUCTS = ("Gemm", "Conv")
_LOST_LAYOUT = 1 / 7  # the share of extra time for a convolution larger than 1x1 with non-constant weights
_JOINED_POSITIONS = 2  # a joined product copies the base's weights, which pays for so many positions per output channel
_SHAPE_OF_DOWN = ".merged.down.shape"
_LAST = 2**63 - 1  # the end of a Slice that goes to the end


def fuse_lora_branches(source: Path, path: Path) -> bool:
    """Rewrite the LoRA branches of a float graph for ONNX Runtime. Return False, without writing, if the graph is quantized or
    has no LoRA inputs. Branches that do not have the exporter's form stay as they are.
    """
    content = source.read_bytes()
    if QUANTIZE.encode() in content or LORA_PREFIX.encode() not in content:  # found without importing onnx
        return False
    model = cpu_graph.read_model(source)
    _rewrite(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    cpu_graph.write_model(model, path)
    return True


@dataclass(frozen=True, kw_only=True)
class _LoraNodes:
    """The nodes of one LoRA layer: the base layer, the products with `down` and `up`, and the Add that sums both results.

    `factors` are the float tensors of the LoRA, (r, I, ...) and (O, r, ...). `own` and `term` are the inputs of the Add: the
    base's result and the LoRA's.
    """

    name: str
    base: Any
    down: Any
    up: Any
    total: Any
    factors: tuple[str, str]
    own: str
    term: str

    def is_cheaper_in_weights(self, shapes: Shapes) -> bool:
        """Return whether merging the LoRA into the base layer's weights takes less computation than running the LoRA branch."""
        outputs, (rank, *kernel) = shapes[self.factors[1]][0], shapes[self.factors[0]]
        depth, positions = prod(kernel), prod(shapes[self.base.output[0]]) // outputs
        slower = _LOST_LAYOUT if prod(kernel[1:]) > 1 else 0
        return rank * outputs * depth + slower * positions * outputs * depth < rank * positions * (outputs + depth)


def _rewrite(model: Any) -> None:
    from onnx import helper

    shapes, graph = shapes_of(model), model.graph
    producers = {output: node for node in graph.node for output in node.output}
    readers = readers_of(graph)
    branches = [branch for site in _sites(graph) if (branch := _branch(site, shapes, producers, readers)) is not None]
    merges: list[Any] = []
    for branch in branches:
        if branch.is_cheaper_in_weights(shapes):
            merges += _into_weights(graph, branch, shapes, producers)
        else:
            _into_sum(branch, producers)
    replace_nodes(graph, [*merges, *graph.node])
    if not any(entry.domain == RUNTIMES_OWN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(RUNTIMES_OWN, 1))


def _sites(graph: Any) -> list[str]:
    """Return the name prefixes of LoRA layers with both inputs, `<prefix>.down` and `<prefix>.up`, in alphabetical order."""
    names = {value.name for value in graph.input if value.name.startswith(LORA_PREFIX)}
    return sorted(site for name in names if (site := name.removesuffix(_UP)) != name and f"{site}{_DOWN}" in names)


def _branch(name: str, shapes: Shapes, producers: dict[str, Any], readers: dict[str, list[Any]]) -> _LoraNodes | None:
    factors = _factor(f"{name}{_DOWN}", readers), _factor(f"{name}{_UP}", readers)
    products = [only_reader(readers, factor) for factor in factors]
    term, total = _forward(products[1].output[0], readers) if products[1] is not None else ("", None)
    if total is None or total.op_type != "Add":
        return None
    own = next((operand for operand in total.input if operand != term), "")
    base = _backward(own, producers)
    if base is None or _forward(base.output[0], readers)[1] is not total:
        return None  # another node reads the base's result
    down, up = products
    is_site = (
        down is not None
        and base.op_type in _PRODUCTS
        and base.op_type == down.op_type == up.op_type
        and (base.input[0], *factors) == (down.input[0], down.input[1], up.input[1])
        and (len(down.input), len(up.input)) == (2, 2)
        and _backward(up.input[0], producers) is down
        and _have_like_attributes(base, down, up)
        and _shapes_fit(base, down, up, shapes)
        and shapes.get(own) == shapes.get(term) == shapes.get(total.output[0], ())
    )
    if not is_site:
        return None
    return _LoraNodes(name=name, base=base, down=down, up=up, total=total, factors=factors, own=own, term=term)


def _have_like_attributes(base: Any, down: Any, up: Any) -> bool:
    """Return whether Gemms have no attribute but transB=1. For Convs: whether `down` has `base`'s attributes and `up` is 1x1."""
    if base.op_type == "Gemm":
        return all([(a.name, a.i) for a in product.attribute] == [("transB", 1)] for product in (base, down, up))
    return list(base.attribute) == list(down.attribute) and all(set(a.ints) <= {0, 1} for a in up.attribute)


def _shapes_fit(base: Any, down: Any, up: Any, shapes: Shapes) -> bool:
    """Return whether a LoRA branch's shapes are known, and `up` times `down` fits the base weight. Grouped Convs do not fit."""
    names = (base.input[0], base.input[1], base.output[0], down.input[1], up.input[1])
    if any(len(shapes.get(name, ())) < 2 for name in names):
        return False
    x, weight, result, (rank, *kernel), (outputs, *rest) = (shapes[name] for name in names)
    return (
        weight == (outputs, *kernel)
        and len(kernel) in (1, 3)  # a linear layer or a 2D convolution
        and x[1] == kernel[0]
        and rest == [rank, *(1 for _ in kernel[1:])]
        and result == shapes.get(up.output[0])
        and shapes.get(down.output[0]) == shapes.get(up.input[0])
    )


def _factor(name: str, readers: Mapping[str, list[Any]]) -> str:
    """Return the name of a LoRA input's float tensor: the output of the DequantizeLinear that reads it, else the input's name."""
    reader = only_reader(readers, name)
    return reader.output[0] if reader is not None and reader.op_type == DEQUANTIZE else name


def _forward(name: str, readers: dict[str, list[Any]]) -> tuple[str, Any]:
    """Follow a tensor through Reshape nodes. Return a tuple: the last tensor's name, and its only reader node or None."""
    while (node := only_reader(readers, name)) is not None and node.op_type == "Reshape":
        name = node.output[0]
    return name, node


def _backward(name: str, producers: dict[str, Any]) -> Any:
    """Return the node that computes a tensor, skipping Reshapes. Return None if the tensor is a graph input or constant."""
    while (node := producers.get(name)) is not None and node.op_type == "Reshape":
        name = node.input[0]
    return node


def _into_weights(graph: Any, branch: _LoraNodes, shapes: Shapes, producers: dict[str, Any]) -> Iterator[Any]:
    """Make a LoRA branch's base layer read merged weights, W + up @ down. Yield the nodes that compute the merged weights."""
    from onnx import helper

    base, factors, weight = branch.base, branch.factors, branch.base.input[1]
    down, up, merged = factors[0], factors[1], f"{branch.name}.merged"
    producers[branch.own].output[0] = branch.total.output[0]
    branch.total.output[0] = f"{branch.name}.unread"
    base.input[1] = merged
    if base.op_type == "Gemm":
        yield helper.make_node("Gemm", [up, down, weight], [merged], merged)
        return
    _, *kernel = shapes[down]
    outputs, width = shapes[up][0], prod(kernel)
    for name, key, sizes in ((down, "down", (1, -1, width, 1)), (weight, "base", (1, outputs, width, 1))):
        graph.initializer.append(int64_constant(f"{merged}.{key}.shape", sizes))
        yield helper.make_node("Reshape", [name, f"{merged}.{key}.shape"], [f"{merged}.{key}"], f"{merged}.{key}")
    operands = [f"{merged}.down", up, "", f"{merged}.base"]  # (1, r, I k k, 1), (O, r, 1, 1), no bias, (1, O, I k k, 1)
    yield helper.make_node("FusedConv", operands, [f"{merged}.flat"], f"{merged}.flat", domain=RUNTIMES_OWN)
    graph.initializer.append(int64_constant(f"{merged}.shape", (outputs, *kernel)))
    yield helper.make_node("Reshape", [f"{merged}.flat", f"{merged}.shape"], [merged], merged)


def _into_sum(branch: _LoraNodes, producers: dict[str, Any]) -> None:
    """Make a LoRA branch's `up` node (Gemm or FusedConv) add the base layer's result as last input. The Add becomes unused."""
    up, total = branch.up, branch.total.output[0]
    branch.total.output[0] = f"{branch.name}.unread"
    producers[branch.term].output[0] = total
    up.input[0] = branch.down.output[0]
    if up.op_type == "Conv":
        up.op_type, up.domain = "FusedConv", RUNTIMES_OWN
        up.input.append("")  # no bias
    up.input.append(branch.base.output[0])


def ease_compiled_branches(path: Path) -> None:
    """Rewrite the LoRA branches of an optimized graph file. Results stay equal, up to the order of float sums.

    LoRA inputs take any rank from 0 to the bundle's: the rank becomes the symbolic dimension `<site>.rank<=N`. An adapter then
    costs its own rank, and a layer that it does not have costs no product. A base convolution over many positions whose weights
    are dequantized in every run becomes one product with `down`, as both gather the same data. Other forms stay as they are.
    """
    if LORA_PREFIX.encode() not in path.read_bytes():
        return
    model = cpu_graph.read_model(path)
    graph, shapes = model.graph, shapes_of(model)
    readers = readers_of(graph)
    producers = {output: node for node in graph.node for output in node.output}
    inputs, convolutions = {value.name: value for value in graph.input}, _convolutions(graph, producers)
    joined: list[Any] = []
    for site in _sites(graph):
        names = f"{site}{_DOWN}", f"{site}{_UP}"
        factors = _factor(names[0], readers), _factor(names[1], readers)
        if not _is_merged(names, graph, readers):
            path_nodes = _low_rank_path(factors, readers, shapes)
            if path_nodes is None:
                continue
            down, *between = path_nodes
            _drop_reshapes(down, between)
            bases = convolutions.get(_source(down.input[0], producers), []) if down.op_type == "Conv" else []
            fitting = [base for base in bases if _is_cheaper_joined(base, down, shapes)]
            if len(fitting) == 1:
                joined += _joined(graph, site, fitting[0], down, shapes)
        for name, axis in zip(names, (0, 1), strict=True):
            rank = inputs[name].type.tensor_type.shape.dim[axis]
            # Of a name of its own, as ONNX Runtime takes sizes of one name for equal. Assigning the name clears the value.
            rank.dim_param = f"{site}.rank<={rank.dim_value}"
    del graph.value_info[:]  # shapes of the ranks before
    replace_nodes(graph, [*graph.node, *joined])
    cpu_graph.write_model(model, path)


def _is_merged(names: tuple[str, str], graph: Any, readers: Mapping[str, list[Any]]) -> bool:
    """Return whether a LoRA is only added to its layer's weights, in one of the forms that `fuse_lora_branches` writes."""
    from onnx import numpy_helper

    free = {one.name for one in graph.initializer if one.name.endswith(_SHAPE_OF_DOWN) and -1 in numpy_helper.to_array(one)}
    tensor, up = names[0], _factor(names[1], readers)
    while (node := only_reader(readers, tensor)) is not None and (
        node.op_type == DEQUANTIZE or (node.op_type == "Reshape" and node.input[1] in free)
    ):
        tensor = node.output[0]
    if node is None or only_reader(readers, up) is not node:
        return False
    operands = {"Gemm": [up, tensor], "FusedConv": [tensor, up]}
    return list(node.input[:2]) == operands.get(node.op_type)


def _low_rank_path(factors: tuple[str, str], readers: Mapping[str, list[Any]], shapes: Shapes) -> list[Any] | None:
    """Return the nodes from the product with `down` to the one with `up`. Return None if the rank is more than summed over.

    Between the products may be nodes that quantize or dequantize a tensor with one scale, and Reshapes.
    """
    node = only_reader(readers, factors[0])
    if node is None or node.op_type not in _PRODUCTS or len(node.input) != 2 or node.input[1] != factors[0]:
        return None
    nodes = [node]
    while (node := only_reader(readers, nodes[-1].output[0])) is not None and node.input[0] == nodes[-1].output[0]:
        nodes.append(node)
        if node.op_type in (*_PRODUCTS, "FusedConv"):
            is_up = node.input[1] == factors[1] and only_reader(readers, factors[1]) is node
            low = shapes.get(nodes[0].output[0])
            return nodes if is_up and low is not None and low == shapes.get(node.input[0]) else None
        if node.op_type != "Reshape" and (
            node.op_type not in (QUANTIZE, DEQUANTIZE) or prod(shapes.get(node.input[1], (0,))) != 1
        ):
            return None
    return None


def _drop_reshapes(down: Any, between: list[Any]) -> None:
    """Have the nodes on a path from `down` to `up` read what the path's Reshapes read, which have no effect together."""
    tensor = down.output[0]
    for node in between:
        if node.op_type != "Reshape":
            node.input[0] = tensor
            tensor = node.output[0]


def _convolutions(graph: Any, producers: Mapping[str, Any]) -> dict[tuple[str, ...], list[Any]]:
    """Return convolutions whose constant weights are dequantized in every run, by what their data are computed from."""
    constants = {constant.name for constant in graph.initializer}
    by_data: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for node in graph.node:
        weight = producers.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is not None and weight.op_type == DEQUANTIZE and weight.input[0] in constants:
            by_data[_source(node.input[0], producers)].append(node)
    return by_data


def _is_cheaper_joined(base: Any, down: Any, shapes: Shapes) -> bool:
    """Return whether `base` and a LoRA's `down` can be one convolution, and their gathered data are more than base's weights."""
    outputs, *kernel = shapes[base.input[1]]
    positions = prod(shapes.get(base.output[0], (0,))[2:])
    is_like = list(base.attribute) == list(down.attribute) and kernel == list(shapes[down.input[1]][1:])
    return is_like and positions >= _JOINED_POSITIONS * outputs


def _source(tensor: str, producers: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a tensor is computed from. ONNX Runtime's optimizer has repeated DequantizeLinear nodes for each reader."""
    node = producers.get(tensor)
    return tuple(node.input) if node is not None and node.op_type == DEQUANTIZE else (tensor,)


def _joined(graph: Any, site: str, base: Any, down: Any, shapes: Shapes) -> Iterator[Any]:
    """Yield nodes that compute a convolution and a LoRA's `down` as one, and take the outputs apart. Both nodes become unread."""
    from onnx import helper

    outputs, name = shapes[base.input[1]][0], f"{site}.joined"
    ends = {"first": 0, "split": outputs, "last": _LAST, "axis": 1}
    graph.initializer.extend(int64_constant(f"{name}.{key}", [value]) for key, value in ends.items())
    own, low = base.output[0], down.output[0]
    base.output[0], down.output[0] = f"{own}.unread", f"{low}.unread"
    yield helper.make_node("Concat", [base.input[1], down.input[1]], [f"{name}.weights"], f"{name}.weights", axis=0)
    product = helper.make_node("Conv", [base.input[0], f"{name}.weights"], [name], name)
    product.attribute.extend(base.attribute)
    yield product
    yield helper.make_node("Slice", [name, f"{name}.split", f"{name}.last", f"{name}.axis"], [low], f"{name}.low")
    plain = f"{name}.plain" if len(base.input) > 2 else own
    yield helper.make_node("Slice", [name, f"{name}.first", f"{name}.split", f"{name}.axis"], [plain], f"{name}.own")
    if plain != own:
        graph.initializer.append(int64_constant(f"{name}.bias.shape", [outputs, 1, 1]))
        yield helper.make_node("Reshape", [base.input[2], f"{name}.bias.shape"], [f"{name}.bias"], f"{name}.bias")
        yield helper.make_node("Add", [plain, f"{name}.bias"], [own], f"{name}.sum")
