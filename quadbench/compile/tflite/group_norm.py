"""Group norm: a rounded graph in which it is Reshape, InstanceNormalization, Reshape, Conv -> one in which it is one operation.

LiteRT has no InstanceNormalization, and with channels last the reshaping would move every value twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quadbench.compile.tflite.graph import GROUP_NORM, Operation, RoundedGraph

_PARTS = ("Conv", "Reshape", "InstanceNormalization", "Reshape")  # from the last back


def with_group_norms(graph: RoundedGraph) -> RoundedGraph:
    """Put one operation in place of the four; the groups become an attribute, scale and offset stay the Conv's constants."""
    makers = {name: op for op in graph.operations for name in op.outputs}
    operations = [_group_norm(graph, op, makers) or op for op in graph.operations]
    return replace(graph, operations=_read(operations, graph.outputs.values()))


def _group_norm(graph: RoundedGraph, op: Operation, makers: dict[str, Operation]) -> Operation | None:
    """Return what stands for a depthwise Conv and the three before it; None where something else stands there."""
    parts = [op]
    while len(parts) < len(_PARTS) and parts[-1].inputs[0] in makers:
        parts.append(makers[parts[-1].inputs[0]])
    if tuple(part.op_type for part in parts) != _PARTS or op.attributes.get("group", 1) == 1:
        return None
    _, _, norm, rows = parts
    attributes = {"epsilon": norm.attributes["epsilon"], "groups": graph.shapes[rows.outputs[0]][1]}
    return replace(op, op_type=GROUP_NORM, inputs=(rows.inputs[0], *op.inputs[1:]), attributes=attributes)


def _read(operations: Sequence[Operation], outputs: Iterable[str]) -> list[Operation]:
    """Return the operations whose results somebody reads."""
    needed, kept = set(outputs), []
    for op in reversed(operations):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    return kept[::-1]
