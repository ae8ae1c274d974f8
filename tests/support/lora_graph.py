"""LoRA graph: the parts to bend -> a quantized model of one LoRA site, small enough to see through."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from support.small_graphs import typed_model

LORA = "lora.site.down"
LORA_SCALE = 0.01


def model_of(
    *,
    dtype: str = "int16",
    zero_point: int = 0,
    scale: np.ndarray | None = None,
    before: tuple[NodeProto, ...] = (),
    after: tuple[NodeProto, ...] = (),
    dequantized: str = LORA,
    rows: int | str = 4,
    extra: tuple[np.ndarray, ...] = (),
    default: bool = False,
    computed_scale: bool = False,
    opset: int = 21,
) -> ModelProto:
    """Return x (rows, 4) -> 16-bit Q, DQ -> MatMul with the dequantized LoRA input (4, 4) -> y; an argument bends one thing."""
    scales = np.float32(LORA_SCALE) if scale is None else scale
    constants = {
        "x_scale": np.float32(0.1),
        "x_zero": np.uint16(7),
        "scale": scales,
        "zero": np.full(np.shape(scales), zero_point, dtype),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x.q"], "x.quantize"),
        helper.make_node("DequantizeLinear", ["x.q", "x_scale", "x_zero"], ["x.dq"], "x.dequantize"),
        *before,
        helper.make_node("DequantizeLinear", [dequantized, "scale", "zero"], ["lora.dq"], "lora.dequantize"),
        helper.make_node("MatMul", ["x.dq", "lora.dq"], ["y.float"], "multiply"),
        *(after or (helper.make_node("Identity", ["y.float"], ["y"], "keep"),)),
    ]
    if computed_scale:
        constants["half"] = constants.pop("scale")
        nodes.insert(0, helper.make_node("Add", ["half", "half"], ["scale"], "add"))
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    initializers += [numpy_helper.from_array(value, f"extra{i}") for i, value in enumerate(extra)]
    if default:
        initializers.append(numpy_helper.from_array(np.zeros((4, 4), dtype), LORA))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 4]),
        helper.make_tensor_value_info(LORA, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [4, 4]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])]
    return typed_model(nodes, inputs, outputs, initializers, opset)


def quantized_model() -> ModelProto:
    """Return the model quantized from end to end, as a graph of a bundle is."""
    quantize = helper.make_node("QuantizeLinear", ["y.float", "x_scale", "x_zero"], ["y.q"], "y.quantize")
    return model_of(after=(quantize, helper.make_node("DequantizeLinear", ["y.q", "x_scale", "x_zero"], ["y"], "y.dequantize")))
