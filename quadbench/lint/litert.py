"""LiteRT: a graph -> findings, the parts that cannot be written for LiteRT, or that a vendor's compiler leaves to the CPU.

What the vendors demand of weights, constants and norms is met by the forms in which graphs are written (docs/litert.md).
MediaTek's rule comes from its plugin in LiteRT 2.3.0 with a stub in place of the SDK; no chip of any vendor has run such a file.
"""

from collections.abc import Iterator

from quadbench.lint.findings import Finding, Rule, Severity
from quadbench.lint.graph import DEQUANTIZE, QUANTIZE, LintedGraph
from quadbench.lint.rules import EXACT_RESIZE, RESIZE_DEFAULTS

OPERATORS = {  # those with a form; InstanceNormalization where it is part of a group norm
    "Add", "Concat", "Conv", "Div", "Flatten", "Gather", "Gelu", "Gemm", "Identity", "InstanceNormalization",
    "LayerNormalization", "MatMul", "Mul", "ReduceMean", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split",
    "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip


def litert_operator(graph: LintedGraph) -> Iterator[Finding]:
    """Find operators that have no form in LiteRT."""
    for node in graph.nodes:
        if node.op_type not in {*OPERATORS, QUANTIZE, DEQUANTIZE}:
            yield Finding(
                rule="litert-operator",
                subject=f"node '{node.name}'",
                found=node.op_type,
                expected="an operator that has a form in LiteRT",
                hint="docs/litert.md lists them; write the operator as some of these by a pass over the float graph",
            )


def litert_8_bit(graph: LintedGraph) -> Iterator[Finding]:
    """Find activations in 8 bits: the dialect has them in 16."""
    for node in graph.nodes:
        if node.op_type == QUANTIZE and graph.dtypes[node.outputs[0]] == "UINT8":
            yield Finding(
                rule="litert-8-bit",
                subject=f"node '{node.name}'",
                found="UINT8",
                expected="UINT16, which LiteRT's dialect turns into INT16",
                hint="set precision.activations to {scheme: w8a16}",
            )


def litert_resize(graph: LintedGraph) -> Iterator[Finding]:
    """Find forms of enlarging other than the one that is written as repetitions."""
    for node in graph.nodes:
        form = tuple(node.attributes.get(key, default) for key, default in RESIZE_DEFAULTS.items())
        if node.op_type == "Resize" and form != ("nearest", *EXACT_RESIZE):
            yield Finding(
                rule="litert-resize",
                subject=f"node '{node.name}'",
                found=" with ".join(form),
                expected=" with ".join(("nearest", *EXACT_RESIZE)),
                hint="export the graph with the expected form",
            )


def litert_gather(graph: LintedGraph) -> Iterator[Finding]:
    """Find look-ups of token embeddings, which MediaTek's plugin leaves to the CPU."""
    for node in graph.nodes:
        if node.op_type == "Gather":
            yield Finding(
                rule="litert-gather",
                severity=Severity.WARNING,
                subject=f"node '{node.name}'",
                found="a look-up, which MediaTek's plugin leaves to the CPU",
                expected="nothing else outside of the NPU's part",
                hint="none is needed: the rest is one part",
            )


def litert_rules(soc: str | None) -> tuple[Rule, ...]:
    """Return the rules for a chip by LiteRT's name; None is the CPU."""
    is_mediatek = soc is not None and soc.startswith("MT")
    return (litert_operator, litert_8_bit, litert_resize, *((litert_gather,) if is_mediatek else ()))
