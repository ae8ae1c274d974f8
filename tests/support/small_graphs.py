"""Small graphs: nodes and constants -> models of a few nodes, values for their inputs, and ONNX Runtime's outputs."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from quadbench.quad.quantize.passes import linear_as_gemm

RNG = np.random.default_rng(0)
Feed = dict[str, np.ndarray]
IN, OUT, RANK = 4, 5, 2
INPUTS = ("lora.s.down", "lora.s.up")


def model_of(
    nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], weights: Feed, output: tuple[int, ...]
) -> onnx.ModelProto:
    """Join nodes to a model whose inputs and only output, y, are float."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)]
    return typed_model(nodes, inputs, outputs, [numpy_helper.from_array(value, name) for name, value in weights.items()])


def typed_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto],
    opset: int = 21,
) -> onnx.ModelProto:
    """Join nodes to a model whose inputs and outputs have types of their own."""
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def attention_model(tokens: int = 6) -> onnx.ModelProto:
    """Return (x W + b + up(down x)) times its own transpose, as the exporter writes attention and a Linear with a LoRA."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "base"),
        helper.make_node("Add", ["product", "b"], ["base"], "bias"),
        helper.make_node("Transpose", ["lora.s.down"], ["down.t"], "turn.down", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "down.t"], ["low"], "down"),
        helper.make_node("Transpose", ["lora.s.up"], ["up.t"], "turn.up", perm=[1, 0]),
        helper.make_node("MatMul", ["low", "up.t"], ["high"], "up"),
        helper.make_node("Add", ["base", "high"], ["sum"], "sum"),
        helper.make_node("Transpose", ["sum"], ["keys"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["sum", "keys"], ["y"], "scores"),
    ]
    shapes = {"x": (1, tokens, 4), "lora.s.down": (2, 4), "lora.s.up": (5, 2)}
    weights = {"w": RNG.standard_normal((4, 5)).astype(np.float32), "b": RNG.standard_normal(5).astype(np.float32)}
    return model_of(nodes, shapes, weights, (1, tokens, tokens))


def linear_model(tokens: int) -> onnx.ModelProto:
    """Return `attention_model` with its linear layers as Gemms, as a bundle's graphs have them."""
    model = attention_model(tokens)
    linear_as_gemm(model)
    return model


def conv_model(size: int, *, kernel: int = 3, stride: int = 1, out: int = OUT) -> onnx.ModelProto:
    """Return W x + b + up(down x) with convolutions of (1, IN, size, size)."""
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["base"], "base", pads=pads, strides=[stride, stride]),
        helper.make_node("Conv", ["x", INPUTS[0]], ["low"], "down", pads=pads, strides=[stride, stride]),
        helper.make_node("Conv", ["low", INPUTS[1]], ["high"], "up"),
        helper.make_node("Add", ["base", "high"], ["y"], "sum"),
    ]
    weights = {"w": drawn(out, IN, kernel, kernel), "b": drawn(out)}
    shapes = {"x": (1, IN, size, size), INPUTS[0]: (RANK, IN, kernel, kernel), INPUTS[1]: (out, RANK, 1, 1)}
    return model_of(nodes, shapes, weights, (1, out, -(-size // stride), -(-size // stride)))


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def seeded_feed(model: onnx.ModelProto) -> Feed:
    """Draw a value for each input of a model."""
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(model: onnx.ModelProto, feed: Feed) -> np.ndarray:
    """Return a model's first output."""
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]
