"""Branches: a float graph with LoRA inputs -> the same with the LoRA of each site computed where a CPU has the least to do.

As built, a site is three products and a sum: the base's, that of `down`, that of `up`. Where `up down` takes fewer
multiply-accumulates than a branch over all positions, it is added to the weights, in every run. Elsewhere the product of `up`
adds the base's result by itself, and nothing reshapes between. What that is worth: docs/measured/runtime.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from quadbench.artifacts import LORA_PREFIX
from quadbench.compile.rewriting import RUNTIMES_OWN, Shapes, only_reader, readers_of, replace_nodes, shapes_of
from quadbench.errors import package_needed
from quadbench.lint.graph import DEQUANTIZE, QUANTIZE

_UP, _DOWN = ".up", ".down"
_PRODUCTS = ("Gemm", "Conv")
_LOST_LAYOUT = 1 / 7  # the share that a convolution over neighbours takes longer where its weights are not constants


def ease_branches(source: Path, path: Path) -> bool:
    """Write the graph at `source`, rewritten, to `path`. False: it has no LoRA or is quantized, and nothing is written.

    A site in any other form than the exporter's stays as it is.

    Raises:
        MissingDependencyError: it has to be rewritten, and the package onnx is not installed.
    """
    content = source.read_bytes()
    if QUANTIZE.encode() in content or LORA_PREFIX.encode() not in content:  # told without the package
        return False
    with package_needed("compiling graphs", hint="pip install onnx"):
        import onnx
    model = onnx.load(source, load_external_data=False)
    _rewrite(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return True


@dataclass(frozen=True, kw_only=True)
class _LoraNodes:
    """A site: the products of its base, of `down` and of `up`, and the sum that adds what came of the first and the last.

    `factors` are the tensors that the LoRA's products read, (r, I, ...) and (O, r, ...); `own` is the base's result and `term`
    the LoRA's, each as the sum reads it.
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
        """Compare the multiply-accumulates of `up down`, (O, r) by (r, K), with those of a branch over all positions."""
        outputs, (rank, *kernel) = shapes[self.factors[1]][0], shapes[self.factors[0]]
        depth, positions = prod(kernel), prod(shapes[self.base.output[0]]) // outputs
        slower = _LOST_LAYOUT if prod(kernel[1:]) > 1 else 0
        return rank * outputs * depth + slower * positions * outputs * depth < rank * positions * (outputs + depth)


def _rewrite(model: Any) -> None:
    from onnx import helper

    shapes, graph = shapes_of(model), model.graph
    producers = {output: node for node in graph.node for output in node.output}
    merges: list[Any] = []
    for branch in list(_branches(graph, shapes, producers)):
        if branch.is_cheaper_in_weights(shapes):
            merges += _into_weights(graph, branch, shapes, producers)
        else:
            _into_sum(branch, producers)
    replace_nodes(graph, [*merges, *graph.node])
    if not any(entry.domain == RUNTIMES_OWN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(RUNTIMES_OWN, 1))


def _branches(graph: Any, shapes: Shapes, producers: dict[str, Any]) -> Iterator[_LoraNodes]:
    """Yield the sites in the form that can be rewritten."""
    readers = readers_of(graph)
    names = {value.name for value in graph.input if value.name.startswith(LORA_PREFIX)}
    for name in sorted(name.removesuffix(_UP) for name in names if name.endswith(_UP)):
        if f"{name}{_DOWN}" in names and (branch := _branch(name, shapes, producers, readers)) is not None:
            yield branch


def _branch(name: str, shapes: Shapes, producers: dict[str, Any], readers: dict[str, list[Any]]) -> _LoraNodes | None:
    factors = _factor(f"{name}{_DOWN}", readers), _factor(f"{name}{_UP}", readers)
    products = [only_reader(readers, factor) for factor in factors]
    term, total = _forward(products[1].output[0], readers) if products[1] is not None else ("", None)
    if total is None or total.op_type != "Add":
        return None
    own = next((operand for operand in total.input if operand != term), "")
    base = _backward(own, producers)
    if base is None or _forward(base.output[0], readers)[1] is not total:
        return None  # somebody else reads the base's result
    down, up = products
    is_site = (
        down is not None
        and base.op_type in _PRODUCTS
        and base.op_type == down.op_type == up.op_type
        and (base.input[0], *factors) == (down.input[0], down.input[1], up.input[1])
        and (len(down.input), len(up.input)) == (2, 2)
        and _backward(up.input[0], producers) is down
        and _have_like_attributes(base, down, up)
        and _fit(base, down, up, shapes)
        and shapes.get(own) == shapes.get(term) == shapes.get(total.output[0], ())
    )
    if not is_site:
        return None
    return _LoraNodes(name=name, base=base, down=down, up=up, total=total, factors=factors, own=own, term=term)


def _have_like_attributes(base: Any, down: Any, up: Any) -> bool:
    """Tell whether `down` moves over its input as the base does, and `up` over each position; of Gemm, whether all are x W^T."""
    if base.op_type == "Gemm":
        return all([(a.name, a.i) for a in product.attribute] == [("transB", 1)] for product in (base, down, up))
    return list(base.attribute) == list(down.attribute) and all(set(a.ints) <= {0, 1} for a in up.attribute)


def _fit(base: Any, down: Any, up: Any, shapes: Shapes) -> bool:
    """Tell whether all shapes are known, and those of a LoRA without groups beside its base."""
    names = (base.input[0], base.input[1], base.output[0], down.input[1], up.input[1])
    if any(len(shapes.get(name, ())) < 2 for name in names):
        return False
    x, weight, result, (rank, *kernel), (outputs, *rest) = (shapes[name] for name in names)
    return (
        weight == (outputs, *kernel)
        and len(kernel) in (1, 3)  # a linear layer's, and that of a convolution over pictures
        and x[1] == kernel[0]
        and rest == [rank, *(1 for _ in kernel[1:])]
        and result == shapes.get(up.output[0])
        and shapes.get(down.output[0]) == shapes.get(up.input[0])
    )


def _factor(name: str, readers: dict[str, list[Any]]) -> str:
    """Return a LoRA input's name, or that of the float tensor which is made of it."""
    reader = only_reader(readers, name)
    return reader.output[0] if reader is not None and reader.op_type == DEQUANTIZE else name


def _forward(name: str, readers: dict[str, list[Any]]) -> tuple[str, Any]:
    """Follow Reshapes to the only node that reads the values of a tensor, and under what name; None if it has none or several."""
    while (node := only_reader(readers, name)) is not None and node.op_type == "Reshape":
        name = node.output[0]
    return name, node


def _backward(name: str, producers: dict[str, Any]) -> Any:
    """Follow Reshapes to the node that computes the values of a tensor; None: it is an input or a constant."""
    while (node := producers.get(name)) is not None and node.op_type == "Reshape":
        name = node.input[0]
    return node


def _into_weights(graph: Any, branch: _LoraNodes, shapes: Shapes, producers: dict[str, Any]) -> Iterator[Any]:
    """Let the base compute the sum with weights W + up down, and yield the nodes that make these."""
    from onnx import helper

    base, factors, weight = branch.base, branch.factors, branch.base.input[1]
    down, up, merged = factors[0], factors[1], f"{branch.name}.merged"
    producers[branch.own].output[0] = branch.total.output[0]
    branch.total.output[0] = f"{branch.name}.unread"
    base.input[1] = merged
    if base.op_type == "Gemm":
        yield helper.make_node("Gemm", [up, down, weight], [merged], merged)
        return
    rank, *kernel = shapes[down]
    outputs, width = shapes[up][0], prod(kernel)
    for name, key, sizes in ((down, "down", (1, rank, width, 1)), (weight, "base", (1, outputs, width, 1))):
        graph.initializer.append(_sizes(f"{merged}.{key}.shape", sizes))
        yield helper.make_node("Reshape", [name, f"{merged}.{key}.shape"], [f"{merged}.{key}"], f"{merged}.{key}")
    operands = [f"{merged}.down", up, "", f"{merged}.base"]  # (1, r, I k k, 1), (O, r, 1, 1), no bias, (1, O, I k k, 1)
    yield helper.make_node("FusedConv", operands, [f"{merged}.flat"], f"{merged}.flat", domain=RUNTIMES_OWN)
    graph.initializer.append(_sizes(f"{merged}.shape", (outputs, *kernel)))
    yield helper.make_node("Reshape", [f"{merged}.flat", f"{merged}.shape"], [merged], merged)


def _sizes(name: str, sizes: Sequence[int]) -> Any:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(sizes, np.int64), name)


def _into_sum(branch: _LoraNodes, producers: dict[str, Any]) -> None:
    """Let the product of `up` add the base's result, and read that of `down` as it is."""
    up, total = branch.up, branch.total.output[0]
    branch.total.output[0] = f"{branch.name}.unread"
    producers[branch.term].output[0] = total
    up.input[0] = branch.down.output[0]
    if up.op_type == "Conv":
        up.op_type, up.domain = "FusedConv", RUNTIMES_OWN
        up.input.append("")  # no bias
    up.input.append(branch.base.output[0])
