"""Attention: a graph -> the same with large attention maps computed some rows at a time, so that no whole one is in memory.

The scores of 4096 tokens in eight heads are 512 MiB of float, and several such tensors are held at once: scores, rounded scores,
softmax. Each row of them is computed for itself, so the same values come out piece by piece (docs/measured/runtime.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quadbench.compile.cpu_graph import (
    Shapes,
    only_reader,
    read_model,
    readers_of,
    replace_nodes,
    shapes_of,
    transposes,
    write_model,
)
from quadbench.lint.linted_graph import DEQUANTIZE, QUANTIZE

MOST_BYTES = 64 * 2**20  # of the scores that are computed at a time
FEWEST_ROWS = 8  # of a piece: products of very few rows are summed in another order
_FLOAT_BYTES = 4
_PRODUCTS = ("MatMul", "FusedMatMul")  # the latter is ONNX Runtime's, with the scale of a float graph's scores in it
_BY_ELEMENT = {QUANTIZE, DEQUANTIZE, "Mul", "Div", "Add", "Cast"}


def split_attention(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Rewrite the file of a graph with attention scores of more than `most_bytes`; leave any other as it is."""
    model = read_model(path)
    shapes, consumers = shapes_of(model), readers_of(model.graph)
    large = [node for node in model.graph.node if _is_product(node) and _float_bytes(shapes.get(node.output[0], ())) > most_bytes]
    chains, replaced = [], set[int]()
    for node in large:
        chain = _chain(node, shapes, consumers)
        if chain and replaced.isdisjoint(map(id, chain)):  # of chains that share a product one stays whole
            chains.append(chain)
            replaced.update(map(id, chain))
    if not chains:
        return
    nodes = [node for node in model.graph.node if id(node) not in replaced]
    for chain in chains:
        nodes += _pieces(model.graph, chain, shapes, most_bytes)
    replace_nodes(model.graph, nodes)
    write_model(model, path)


def _chain(node: Any, shapes: Shapes, consumers: Mapping[str, list[Any]]) -> list[Any] | None:
    """Return the nodes from a product to the next one that takes what came of it, if all between work row by row."""
    scores, chain = shapes[node.output[0]], [node]
    while (following := only_reader(consumers, name := chain[-1].output[0])) is not None and following.input[:1] == [name]:
        chain.append(following)
        if _is_product(following):
            return chain if len(chain) > 2 and _have_rows_alike(chain, shapes) else None
        if not _works_by_row(following, scores, shapes):
            return None
    return None


def _have_rows_alike(chain: Sequence[Any], shapes: Shapes) -> bool:
    """Say whether queries, scores and results all have their rows in the dimension before the last."""
    first, last = chain[0], chain[-1]
    ranks = {len(shapes.get(name, ())) for name in (first.input[0], first.output[0], last.output[0])}
    return len(ranks) == 1 and min(ranks) > 1


def _is_product(node: Any) -> bool:
    return node.op_type in _PRODUCTS and not transposes(node)


def _works_by_row(node: Any, scores: Sequence[int], shapes: Shapes) -> bool:
    if node.op_type == "Softmax":
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        return axis in (-1, len(scores) - 1)
    return node.op_type in _BY_ELEMENT and all(prod(shapes.get(name, (2,))) == 1 for name in node.input[1:])


def _float_bytes(shape: Sequence[int]) -> int:
    return prod(shape) * _FLOAT_BYTES if shape else 0


def _pieces(graph: Any, chain: Sequence[Any], shapes: Shapes, most_bytes: int) -> Iterator[Any]:
    """Yield the nodes that compute a chain piece by piece: the queries are split, the results joined."""
    from onnx import helper, numpy_helper

    first, last = chain[0], chain[-1]
    scores = shapes[first.output[0]]
    rows = scores[-2]
    counts = [n for n in range(1, max(rows // FEWEST_ROWS, 1) + 1) if rows % n == 0]
    count = next((n for n in counts if _float_bytes(scores) // n <= most_bytes), counts[-1])
    axis = len(scores) - 2
    queries = [f"{first.input[0]}.{first.output[0]}.piece{i}" for i in range(count)]
    sizes = f"{first.output[0]}.pieces"
    graph.initializer.append(numpy_helper.from_array(np.full(count, rows // count, np.int64), sizes))
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
