"""Elementwise: operators that take and give values one by one, and Softmax -> their form in LiteRT."""

from dataclasses import replace
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.tflite.graph import Constant, Operation
from quadbench.compile.tflite.writer import Writer
from quadbench.errors import BuildError


def add(w: Writer, op: Operation) -> None:
    """ADD of two tensors that may have different scales."""
    _binary(w, op, "ADD", schema.AddOptionsT(potScaleInt16=False))


def sub(w: Writer, op: Operation) -> None:
    """SUB, as `add`."""
    _binary(w, op, "SUB", schema.SubOptionsT(potScaleInt16=False))


def mul(w: Writer, op: Operation) -> None:
    """MUL, as `add`."""
    _binary(w, op, "MUL", schema.MulOptionsT())


def div(w: Writer, op: Operation) -> None:
    """MUL by the reciprocal of a constant: LiteRT has no DIV of INT16."""
    reciprocal = f"{op.outputs[0]}.reciprocal"
    w.graph.constants[reciprocal] = Constant(values=1 / w.weights(op, 1).exact)
    mul(w, replace(op, inputs=(op.inputs[0], reciprocal)))


def sigmoid(w: Writer, op: Operation) -> None:
    """LOGISTIC, whose result has the scale 2^-15."""
    _unary(w, op, "LOGISTIC", None)


def gelu(w: Writer, op: Operation) -> None:
    """GELU, exact or by tanh."""
    is_tanh = op.attributes.get("approximate", b"none") == b"tanh"
    _unary(w, op, "GELU", schema.GeluOptionsT(approximate=is_tanh))


def requantize(w: Writer, op: Operation) -> None:
    """QUANTIZE to another scale."""
    _unary(w, op, "QUANTIZE", None)


def softmax(w: Writer, op: Operation) -> None:
    """SOFTMAX in float between DEQUANTIZE and QUANTIZE.

    LiteRT's CPU clips INT16 scores 10 below the greatest: masked tokens would leak, and long flat rows lose what they have.
    """
    shape = w.graph.shapes[op.inputs[0]]
    if op.attributes.get("axis", -1) not in (-1, len(shape) - 1):
        raise BuildError(f"{op} is over axis {op.attributes['axis']}; LiteRT's is over the last", hint="transpose before it")
    exact, chances = w.between(f"{op.name}.exact", shape), w.between(f"{op.name}.chances", shape)
    w.model.operator("DEQUANTIZE", [w.plain(op.inputs[0])], [exact])
    w.model.operator("SOFTMAX", [exact], [chances], schema.SoftmaxOptionsT(beta=1.0))
    w.model.operator("QUANTIZE", [chances], [w.result(op.outputs[0])])


def _binary(w: Writer, op: Operation, code: str, options: Any) -> None:
    last = w.lies_last(*op.inputs)
    operands = [w.channels_last(name) if last else w.plain(name) for name in op.inputs]
    w.model.operator(code, operands, [w.result(op.outputs[0], last=last)], options)


def _unary(w: Writer, op: Operation, code: str, options: Any) -> None:
    source, last = op.inputs[0], w.lies_last(op.inputs[0])
    operand = w.channels_last(source) if last else w.plain(source)
    w.model.operator(code, [operand], [w.result(op.outputs[0], last=last)], options)
