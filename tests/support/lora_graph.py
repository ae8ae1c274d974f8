"""A graph of one LoRA site, small enough to see through, each part of which a test can bend; and a bundle that holds it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from quadbench.artifacts import BaseDigests, Bundle, Component, Graph, TensorSpec, Variant
from quadbench.results.manifest import file_ref, publish

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
    """x (rows, 4) -> 16-bit Q, DQ -> MatMul with the dequantized LoRA input (4, 4) -> y; each argument bends one thing."""
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
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def quantized_model() -> ModelProto:
    """Quantized from end to end, as a graph of a bundle is."""
    quantize = helper.make_node("QuantizeLinear", ["y.float", "x_scale", "x_zero"], ["y.q"], "y.quantize")
    return model_of(after=(quantize, helper.make_node("DequantizeLinear", ["y.q", "x_scale", "x_zero"], ["y"], "y.dequantize")))


def write_bundle(folder: Path, model: ModelProto) -> Bundle:
    """Publish a bundle with the model as its shared U-Net, and a copy as its float one."""
    return publish(folder, lambda temporary: _fill(temporary, model))


def _fill(folder: Path, model: ModelProto) -> Bundle:
    (folder / "profile.json").write_text("{}")
    graphs = tuple(_graph(folder, variant, model) for variant in (Variant.SHARED, Variant.FLOAT))
    return Bundle(
        digest="d",
        recipe_name="made",
        recipe_digest="r",
        precision="w8a16",
        tool_versions={},
        graphs=graphs,
        adapters=(),
        tasks=(),
        profile=file_ref(folder, folder / "profile.json"),
        base=BaseDigests(graph=graphs[0].file.sha256, profile="0" * 64),
    )


def _graph(folder: Path, variant: Variant, model: ModelProto) -> Graph:
    path = folder / variant / "unet.onnx"
    path.parent.mkdir()
    onnx.save(model, path)
    return Graph(
        variant=variant,
        component=Component.UNET,
        file=file_ref(folder, path),
        inputs=tuple(_spec(tensor) for tensor in model.graph.input),
        outputs=tuple(_spec(tensor) for tensor in model.graph.output),
    )


def _spec(tensor: onnx.ValueInfoProto) -> TensorSpec:
    tensor_type = tensor.type.tensor_type
    return TensorSpec(
        name=tensor.name,
        shape=tuple(size.dim_value for size in tensor_type.shape.dim),
        dtype=str(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)),
        scale=LORA_SCALE if tensor.name == LORA else None,
    )
