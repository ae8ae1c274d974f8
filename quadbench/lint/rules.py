"""Lint rules for graphs. A rule is a function that takes a LintedGraph and yields each violation as a Finding."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from quadbench.lint.linted_graph import DEQUANTIZE, QUANTIZE, LintedGraph, Node, Tensor

NATIVE_16_BIT_OPSET = 21  # the first with 16-bit QuantizeLinear and DequantizeLinear
FIRST_HTP_ARCH_WITH_16_BIT_WEIGHTS = 73
SIXTEEN_BITS = ("INT16", "UINT16")
WIDEST_SINGLE_FILTER = 256  # channels of a 1x1 depthwise convolution; QNN's compiler crashes at more
RESIZE_DEFAULTS = {  # ONNX's defaults
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
}
EXACT_RESIZE = ("asymmetric", "floor")  # coordinates and rounding
_RESIZE_ON_HTP = {
    ("half_pixel", "floor"): "for which HTP silently computes a wrong result",
    ("asymmetric", "round_prefer_floor"): "which HTP refuses",
}

OPERATORS = {  # operators supported by the LiteRT writer; InstanceNormalization only as part of a group norm
    "Add", "Concat", "Conv", "Div", "Flatten", "Gather", "Gelu", "Gemm", "Identity", "InstanceNormalization",
    "LayerNormalization", "MatMul", "Mul", "ReduceMean", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split",
    "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip


class Severity(StrEnum):
    """The severity of a lint finding: an error stops the compilation, a warning is logged."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A violation of a lint rule: the tensor or node (`subject`), what was found, what was expected, and a hint."""

    rule: str
    severity: Severity = Severity.ERROR
    subject: str
    found: str
    expected: str
    hint: str


Rule = Callable[[LintedGraph], Iterator[Finding]]
Findings = Mapping[str, tuple[Finding, ...]]  # by the graph's path


def messages(findings: Findings, severity: Severity) -> Iterator[str]:
    """Yield one line of text per violated rule: the rule's first finding, and the number of further findings."""
    by_rule: dict[str, list[tuple[str, Finding]]] = {}
    for path, of_graph in findings.items():
        for finding in of_graph:
            if finding.severity is severity:
                by_rule.setdefault(finding.rule, []).append((path, finding))
    for rule, places in by_rule.items():
        path, first = places[0]
        graphs = len({path for path, _ in places})
        more = f" (and {len(places) - 1} more, in {graphs} graph{'s' * (graphs > 1)})" if len(places) > 1 else ""
        yield f"{path}: {rule}: {first.subject}{more}: found {first.found}; expected {first.expected}. Hint: {first.hint}"


def dynamic_shape(graph: LintedGraph) -> Iterator[Finding]:
    """Find graph inputs and outputs without a fixed shape. NPUs need fixed shapes, and the runner allocates buffers only once."""
    for tensor in (*graph.inputs, *graph.outputs):
        if not all(isinstance(size, int) and size > 0 for size in tensor.shape):
            yield Finding(
                rule="dynamic-shape",
                subject=f"tensor '{tensor.name}'",
                found=f"the shape ({', '.join(str(size or '?') for size in tensor.shape)})",
                expected="a fixed size in every dimension",
                hint="export the graph without dynamic axes, for batch 1",
            )


def lora_overridable(graph: LintedGraph) -> Iterator[Finding]:
    """Find LoRA inputs with a default value: ONNX Runtime accepts them, but a QNN context binary of the graph does not load."""
    for tensor in graph.lora_inputs:
        if tensor.name in graph.overridable:
            yield Finding(
                rule="lora-overridable",
                subject=f"tensor '{tensor.name}'",
                found="an optional graph input, whose default value is the initializer of the same name",
                expected="a required graph input",
                hint="remove the initializer",
            )


def lora_zero_point(graph: LintedGraph) -> Iterator[Finding]:
    """Find LoRA inputs with a nonzero zero point. The 0 stored for unused ranks and disabled adapters must dequantize to 0."""
    for tensor, node in _lora_dequantizers(graph):
        values = graph.zero_points.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if values is not None and values.any():
            yield Finding(
                rule="lora-zero-point",
                subject=f"tensor '{tensor.name}'",
                found=f"the zero point {int(values[values != 0].flat[0])} in '{node.name}'",
                expected="0",
                hint="quantize LoRA inputs symmetrically",
            )


def lora_per_channel(graph: LintedGraph) -> Iterator[Finding]:
    """Find LoRA inputs with several scales; the bundle's manifest supports only one scale per graph input."""
    for tensor, node in _lora_dequantizers(graph):
        scale = graph.constants.get(node.inputs[1])
        scales = prod(size for size in scale.shape if isinstance(size, int)) if scale else 1
        if scales != 1:
            yield Finding(
                rule="lora-per-channel",
                subject=f"tensor '{tensor.name}'",
                found=f"{scales} scales in '{node.name}'",
                expected="one scale for the whole tensor",
                hint="quantize LoRA inputs per tensor; scales per channel are for weights that are constants",
            )


def encoding_not_constant(graph: LintedGraph) -> Iterator[Finding]:
    """Find scales and zero points that are not constants. They must be constants, as all adapters of a bundle share them."""
    for node in _quantizers(graph):
        for role, name in zip(("scale", "zero point"), node.inputs[1:3], strict=False):
            if name and name not in graph.constants:
                yield Finding(
                    rule="encoding-not-constant",
                    subject=f"node '{node.name}'",
                    found=f"the {role} '{name}', which is computed or an input",
                    expected="an initializer that is not a graph input, or a Constant node",
                    hint="write the calibrated scale and zero point into the graph",
                )


def opset(graph: LintedGraph) -> Iterator[Finding]:
    """Find 16-bit QuantizeLinear nodes of ONNX's own domain in models before opset 21. Nodes of com.microsoft are allowed."""
    nodes = [n for n in _quantizers(graph) if n.domain == "" and _quantized_dtype(graph, n) in SIXTEEN_BITS]
    if nodes and graph.opset < NATIVE_16_BIT_OPSET:
        yield Finding(
            rule="opset",
            subject=f"node '{nodes[0].name}'",
            found=f"{_quantized_dtype(graph, nodes[0])} in opset {graph.opset}",
            expected=f"opset {NATIVE_16_BIT_OPSET} or newer for 16 bits",
            hint=f"export with opset {NATIVE_16_BIT_OPSET}",
        )


def lora_uint16(graph: LintedGraph) -> Iterator[Finding]:
    """Find UINT16 LoRA inputs. QNN silently narrows them to 8 bits: SQNR is 40 to 43 dB, against 69 to 85 with INT16."""
    for tensor in _lora_inputs_of(graph, "UINT16"):
        yield Finding(
            rule="lora-uint16",
            subject=f"tensor '{tensor.name}'",
            found="UINT16, which QNN silently narrows to 8 bits",
            expected="INT16 or INT8 with zero point 0",
            hint="set precision.lora to int16",
        )


def lora_not_dequantized(graph: LintedGraph) -> Iterator[Finding]:
    """Find LoRA inputs unread or read by nodes other than DequantizeLinear. QNN cannot slice or reshape 16-bit integers."""
    for tensor in graph.lora_inputs:
        consumers = graph.consumers(tensor.name)
        others = [node for node in consumers if not (node.op_type == DEQUANTIZE and node.inputs[0] == tensor.name)]
        if others or not consumers:
            yield Finding(
                rule="lora-not-dequantized",
                subject=f"tensor '{tensor.name}'",
                found=f"{others[0].op_type} '{others[0].name}' as its reader" if others else "no node that reads it",
                expected=f"{DEQUANTIZE} as its only reader",
                hint="dequantize before moving values, or store the adapter's tensors in the layout that the graph needs",
            )


def lora_int16(graph: LintedGraph) -> Iterator[Finding]:
    """Find INT16 LoRA inputs for HTPs before v73. On these HTPs, weights that are graph inputs can have only 8 bits."""
    for tensor in _lora_inputs_of(graph, "INT16"):
        yield Finding(
            rule="lora-int16",
            subject=f"tensor '{tensor.name}'",
            found="INT16",
            expected=f"INT8: HTPs before v{FIRST_HTP_ARCH_WITH_16_BIT_WEIGHTS} do not support 16-bit weights as inputs",
            hint="set precision.lora to int8 in the recipe (lora: int8)",
        )


def group_norm(graph: LintedGraph) -> Iterator[Finding]:
    """Find group normalization nodes, which QNN does not support."""
    for node in graph.nodes:
        if node.op_type in ("GroupNormalization", "GroupNorm"):
            yield Finding(
                rule="group-norm",
                subject=f"node '{node.name}'",
                found=node.op_type,
                expected="Reshape, InstanceNormalization, Reshape, Conv",
                hint="run the pass decompose_group_norm before quantizing",
            )


def resize_form(graph: LintedGraph) -> Iterator[Finding]:
    """Find nearest-neighbour Resize nodes with modes that are wrong or untested on HTP (docs/compilers.md)."""
    for node in graph.nodes:
        mode, coordinates, rounding = (node.attributes.get(key, default) for key, default in RESIZE_DEFAULTS.items())
        if node.op_type == "Resize" and mode == "nearest" and (coordinates, rounding) != EXACT_RESIZE:
            fault = _RESIZE_ON_HTP.get((coordinates, rounding))
            yield Finding(
                rule="resize-form",
                severity=Severity.ERROR if fault else Severity.WARNING,
                subject=f"node '{node.name}'",
                found=f"{coordinates} with {rounding}, {fault or 'which is untested on HTP'}",
                expected=" with ".join(EXACT_RESIZE),
                hint="export the graph with the expected form, which gives the same values for integer scale factors",
            )


def wide_depthwise(graph: LintedGraph) -> Iterator[Finding]:
    """Find 1x1 depthwise convolutions with more than 256 channels, on which QNN's compiler crashes (docs/compilers.md).

    The compiler accepts them with one scale for the whole tensor, with larger filters, or with 8-bit data.
    """
    makers = {output: node for node in graph.nodes for output in node.outputs}
    for node in graph.nodes:
        data, filters = (makers.get(name) for name in node.inputs[:2]) if node.op_type == "Conv" else (None, None)
        if not data or not filters or {data.op_type, filters.op_type} != {DEQUANTIZE}:
            continue
        shape, scale = (graph.constants.get(name) for name in filters.inputs[:2])
        if (
            shape is None
            or not shape.shape
            or scale is None
            or graph.dtypes.get(data.inputs[0]) not in SIXTEEN_BITS
            or shape.dtype != "INT8"
        ):
            continue
        channels = int(shape.shape[0] or 0)
        if channels > WIDEST_SINGLE_FILTER and set(shape.shape[1:]) == {1} and scale.shape == (channels,):
            yield Finding(
                rule="wide-depthwise",
                subject=f"node '{node.name}'",
                found=f"{channels} INT8 filters of one weight each, with one scale per filter, on 16-bit data",
                expected=f"at most {WIDEST_SINGLE_FILTER} filters, or filters of more than one weight",
                hint="run the pass decompose_group_norm before quantizing, or pad the filters with zeros",
            )


RULES: tuple[Rule, ...] = (dynamic_shape, lora_overridable, lora_zero_point, lora_per_channel, encoding_not_constant, opset)
HTP_RULES: tuple[Rule, ...] = (lora_uint16, lora_not_dequantized, group_norm, resize_form, wide_depthwise)


def htp_rules(htp_arch: str) -> tuple[Rule, ...]:
    """Return a tuple of the lint rules for graphs on a Qualcomm HTP architecture, such as `v79`."""
    is_old = int(htp_arch.removeprefix("v")) < FIRST_HTP_ARCH_WITH_16_BIT_WEIGHTS
    return (*HTP_RULES, *((lora_int16,) if is_old else ()))


def _lora_inputs_of(graph: LintedGraph, dtype: str) -> Iterator[Tensor]:
    return (tensor for tensor in graph.lora_inputs if tensor.dtype == dtype)


def _lora_dequantizers(graph: LintedGraph) -> Iterator[tuple[Tensor, Node]]:
    return ((tensor, node) for tensor in graph.lora_inputs for node in graph.dequantizers(tensor.name))


def _quantizers(graph: LintedGraph) -> Iterator[Node]:
    return (node for node in graph.nodes if node.op_type in (QUANTIZE, DEQUANTIZE))


def _quantized_dtype(graph: LintedGraph, node: Node) -> str | None:
    return graph.dtypes.get(node.inputs[0] if node.op_type == DEQUANTIZE else node.outputs[0])


def litert_operator(graph: LintedGraph) -> Iterator[Finding]:
    """Find ONNX operators that the writer of .tflite files does not support."""
    for node in graph.nodes:
        if node.op_type not in {*OPERATORS, QUANTIZE, DEQUANTIZE}:
            yield Finding(
                rule="litert-operator",
                subject=f"node '{node.name}'",
                found=node.op_type,
                expected="an operator that quadbench can write for LiteRT",
                hint="replace the operator in the float graph by a pass; docs/compilers.md lists the supported operators",
            )


def litert_8_bit(graph: LintedGraph) -> Iterator[Finding]:
    """Find 8-bit activations. The writer of .tflite files supports only 16-bit activations."""
    for node in graph.nodes:
        if node.op_type == QUANTIZE and graph.dtypes[node.outputs[0]] == "UINT8":
            yield Finding(
                rule="litert-8-bit",
                subject=f"node '{node.name}'",
                found="UINT8",
                expected="UINT16, which quadbench converts to INT16 for LiteRT",
                hint="set precision.activations to {scheme: w8a16}",
            )


def litert_resize(graph: LintedGraph) -> Iterator[Finding]:
    """Find unsupported Resize nodes. The .tflite writer needs mode `nearest`, coordinates `asymmetric` and rounding `floor`."""
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
    """Find token embedding look-ups (Gather), which MediaTek's plugin leaves to the CPU."""
    for node in graph.nodes:
        if node.op_type == "Gather":
            yield Finding(
                rule="litert-gather",
                severity=Severity.WARNING,
                subject=f"node '{node.name}'",
                found="a look-up, which MediaTek's plugin leaves to the CPU",
                expected="all other nodes on the NPU",
                hint="nothing to do: the other nodes stay one NPU partition",
            )


def litert_rules(soc: str | None) -> tuple[Rule, ...]:
    """Return a tuple of lint rules for LiteRT on the chip `soc`, such as `MT6991`. None means LiteRT on the CPU."""
    is_mediatek = soc is not None and soc.startswith("MT")
    return (litert_operator, litert_8_bit, litert_resize, *((litert_gather,) if is_mediatek else ()))
