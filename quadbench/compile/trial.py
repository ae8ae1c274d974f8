"""Trial: a folder -> a graph of two layers with LoRA weights as inputs, by which a compiler shows if it takes such graphs.

x --W (INT8, constant)-------------------+
  \\-lora.trial.down (INT16) -- lora.trial.up (INT16)-- + -- y
"""

from pathlib import Path
from typing import Any

import numpy as np

from quadbench.artifacts import Component, Graph, TensorSpec, Variant
from quadbench.lint.rules import NATIVE_16_BIT_OPSET
from quadbench.results.manifest import file_ref

CHANNELS, RANK, SIZE = 8, 4, 8
_ACTIVATION_SCALE, _LORA_SCALE = 1 / 4096, 1 / 32767
_IR = 10


def write_trial_graph(folder: Path) -> Graph:
    """Write the trial graph, always the same bytes: a U-Net's form of convolution, quantized as a bundle's graphs are."""
    from onnx import helper, save

    path = folder / "trial.onnx"
    inputs = (
        TensorSpec(name="x", shape=(1, CHANNELS, SIZE, SIZE), dtype="float32"),
        TensorSpec(name="lora.trial.down", shape=(RANK, CHANNELS, 3, 3), dtype="int16", scale=_LORA_SCALE),
        TensorSpec(name="lora.trial.up", shape=(CHANNELS, RANK, 1, 1), dtype="int16", scale=_LORA_SCALE),
    )
    outputs = (TensorSpec(name="y", shape=(1, CHANNELS, SIZE, SIZE), dtype="float32"),)
    graph = helper.make_graph(_nodes(), "trial", [_value(s) for s in inputs], [_value(s) for s in outputs], _constants())
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", NATIVE_16_BIT_OPSET)], ir_version=_IR), path)
    return Graph(variant=Variant.SHARED, component=Component.UNET, file=file_ref(folder, path), inputs=inputs, outputs=outputs)


def _nodes() -> list[Any]:
    from onnx import helper

    def rounded(name: str) -> list[Any]:
        parameters = ["activation.scale", "activation.zero"]
        return [
            helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}.q"]),
            helper.make_node("DequantizeLinear", [f"{name}.q", *parameters], [f"{name}.dq"]),
        ]

    def convolution(data: str, weight: str, output: str, pad: int) -> list[Any]:
        return [helper.make_node("Conv", [data, weight], [output], pads=[pad] * 4), *rounded(output)]

    return [
        *rounded("x"),
        helper.make_node("DequantizeLinear", ["w.q", "w.scale"], ["w"]),
        helper.make_node("DequantizeLinear", ["lora.trial.down", "lora.scale"], ["down"]),
        helper.make_node("DequantizeLinear", ["lora.trial.up", "lora.scale"], ["up"]),
        *convolution("x.dq", "w", "base", 1),
        *convolution("x.dq", "down", "projected", 1),
        *convolution("projected.dq", "up", "lora", 0),
        helper.make_node("Add", ["base.dq", "lora.dq"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "activation.scale", "activation.zero"], ["sum.q"]),
        helper.make_node("DequantizeLinear", ["sum.q", "activation.scale", "activation.zero"], ["y"]),
    ]


def _constants() -> list[Any]:
    from onnx import numpy_helper

    weights = np.random.default_rng(0).integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
    values = {
        "activation.scale": np.float32(_ACTIVATION_SCALE),
        "activation.zero": np.uint16(32768),
        "lora.scale": np.float32(_LORA_SCALE),
        "w.q": weights,
        "w.scale": np.float32(1 / 127),
    }
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _value(spec: TensorSpec) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.shape)
