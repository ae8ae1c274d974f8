"""Tiny model: four ONNX graphs whose U-Net has LoRA inputs, and the same arithmetic in NumPy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from safetensors.numpy import save_file

from quadbench.quad.model_files import tensor_places

Array = NDArray[np.float32]
Lora = dict[str, Array]

PIXELS, LATENT, TOKENS, WIDTH, FEATURES, VOCABULARY, RANK = 16, 8, 5, 6, 4, 32, 2
LORA_SCALE = 1 / 1024
LORA_SHAPES = {
    "lora.conv.down": (RANK, 4, 1, 1),
    "lora.conv.up": (4, RANK, 1, 1),
    "lora.proj.down": (RANK, WIDTH),
    "lora.proj.up": (4, RANK),
}
_OPSET, _IR_VERSION = 21, 10


def _draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(0, 0.4, shape).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """Weights. Convolutions are 1x1, or 2x2 with stride 2 in the VAE, so that NumPy needs only einsum."""

    embedding: Array = field(default_factory=lambda: _draw(1, VOCABULARY, WIDTH))
    encoder: Array = field(default_factory=lambda: _draw(2, 4, 3, 2, 2))
    decoder: Array = field(default_factory=lambda: _draw(3, 4, 3, 2, 2))
    conv: Array = field(default_factory=lambda: _draw(4, 4, 4, 1, 1))
    proj: Array = field(default_factory=lambda: _draw(5, 4, WIDTH))
    time: Array = field(default_factory=lambda: _draw(6, FEATURES, 4))

    def text(self, ids: list[int]) -> Array:
        """(T,) -> (1, T, D)"""
        return self.embedding[np.array(ids)][None]

    def encode(self, image: Array) -> Array:
        """(1, 3, H, W) -> (1, 4, h, w)"""
        blocks = image.reshape(1, 3, LATENT, 2, LATENT, 2)
        return np.einsum("bcyixj,ocij->boyx", blocks, self.encoder).astype(np.float32)

    def decode(self, latent: Array) -> Array:
        """(1, 4, h, w) -> (1, 3, H, W)"""
        blocks = np.einsum("bcyx,coij->boyixj", latent, self.decoder)
        return blocks.reshape(1, 3, PIXELS, PIXELS).astype(np.float32)

    def eps(self, sample: Array, features: Array, context: Array, lora: Lora | None) -> Array:
        """(1, 4, h, w), (1, C), (1, T, D) -> (1, 4, h, w). `lora` holds floats."""
        conv, proj = self.conv[:, :, 0, 0], self.proj
        if lora is not None:
            conv = conv + lora["lora.conv.up"][:, :, 0, 0] @ lora["lora.conv.down"][:, :, 0, 0]
            proj = proj + lora["lora.proj.up"] @ lora["lora.proj.down"]
        bias = context.mean(axis=1) @ proj.T + features @ self.time  # (1, 4)
        return np.tanh(np.einsum("oi,biyx->boyx", conv, sample) + bias[:, :, None, None]).astype(np.float32)

    def write_parts(self, folder: Path) -> dict[str, Path]:
        """Text encoder, VAE encoder and VAE decoder as ONNX files."""
        image, latent = _floats("image", [1, 3, PIXELS, PIXELS]), _floats("latent", [1, 4, LATENT, LATENT])
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT32, [1, TOKENS])
        states = _floats("encoder_hidden_states", [1, TOKENS, WIDTH])
        text = [_node("Gather", ["embedding", "input_ids"], "encoder_hidden_states")]
        encoder = [helper.make_node("Conv", ["image", "encoder"], ["latent"], strides=[2, 2])]
        decoder = [helper.make_node("ConvTranspose", ["latent", "decoder"], ["image"], strides=[2, 2])]
        return {
            "text_encoder": _save(folder / "text_encoder.onnx", text, [ids], [states], {"embedding": self.embedding}),
            "vae_encoder": _save(folder / "vae_encoder.onnx", encoder, [image], [latent], {"encoder": self.encoder}),
            "vae_decoder": _save(folder / "vae_decoder.onnx", decoder, [latent], [image], {"decoder": self.decoder}),
        }

    def write_unet(self, path: Path, *, lora: str | None, extra_input: str | None = None) -> Path:
        """The U-Net. `lora`: dtype of its LoRA inputs (int16, int8, float32), or None for a graph without any."""
        nodes, weights = self._trunk(), {"conv": self.conv, "proj_t": np.ascontiguousarray(self.proj.T), "time": self.time}
        inputs = [
            _floats("sample", [1, 4, LATENT, LATENT]),
            _floats("time_features", [1, FEATURES]),
            _floats("encoder_hidden_states", [1, TOKENS, WIDTH]),
        ]
        if lora is None:
            nodes += [_node("Identity", ["conv_base"], "conv_out"), _node("Identity", ["proj_base"], "proj_out")]
        else:
            nodes = [*_dequantized(lora), *nodes, *_lora_sites()]
            element = helper.np_dtype_to_tensor_dtype(np.dtype(lora))
            inputs += [helper.make_tensor_value_info(name, element, shape) for name, shape in sorted(LORA_SHAPES.items())]
            weights["lora_scale"] = np.float32(LORA_SCALE)
            weights["lora_zero"] = np.zeros((), lora)
        if extra_input is not None:
            inputs.append(_floats(extra_input, [1, 1]))
        nodes += self._head()
        weights |= {"axis": np.array([1]), "spread": np.array([1, 4, 1, 1])}
        return _save(path, nodes, inputs, [_floats("eps", [1, 4, LATENT, LATENT])], weights)

    def write_mergeable(self, folder: Path) -> tuple[Path, Path, Path]:
        """The U-Net whose weights at the sites lie in a file beside it, the graph that adds an adapter to them, and that file."""
        weights = {"conv": self.conv, "proj_t": np.ascontiguousarray(self.proj.T)}
        save_file(weights, path := folder / "weights.safetensors")
        unet = self.write_unet(folder / "unet-mergeable.onnx", lora=None)
        _refer(unet, path, {name: name for name in weights})
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT16, shape) for name, shape in sorted(LORA_SHAPES.items())]
        constants = {
            "lora_scale": np.float32(LORA_SCALE),
            "lora_zero": np.zeros((), np.int16),
            "to_filter": np.array([4, 4, 1, 1]),
        }
        constants |= {"to_down": np.array([RANK, 4]), "to_up": np.array([4, RANK])}
        constants |= {f"{name}_base": value for name, value in weights.items()}
        nodes = [
            *_dequantized("int16"),
            _node("Reshape", ["lora.conv.down.float", "to_down"], "conv_down"),
            _node("Reshape", ["lora.conv.up.float", "to_up"], "conv_up"),
            _node("MatMul", ["conv_up", "conv_down"], "conv_product"),
            _node("Reshape", ["conv_product", "to_filter"], "conv_more"),
            _node("Add", ["conv_base", "conv_more"], "conv"),
            _node("MatMul", ["lora.proj.up.float", "lora.proj.down.float"], "proj_product"),
            _node("Transpose", ["proj_product"], "proj_more"),
            _node("Add", ["proj_t_base", "proj_more"], "proj_t"),
        ]
        outputs = [_floats(name, list(value.shape)) for name, value in weights.items()]
        merge = _save(folder / "merge.onnx", nodes, inputs, outputs, constants)
        _refer(merge, path, {f"{name}_base": name for name in weights})
        return unet, merge, path

    def _trunk(self) -> list[onnx.NodeProto]:
        return [
            _node("Conv", ["sample", "conv"], "conv_base"),
            helper.make_node("ReduceMean", ["encoder_hidden_states", "axis"], ["pooled"], keepdims=0),
            _node("MatMul", ["pooled", "proj_t"], "proj_base"),
            _node("MatMul", ["time_features", "time"], "time_out"),
        ]

    def _head(self) -> list[onnx.NodeProto]:
        return [
            _node("Add", ["proj_out", "time_out"], "bias"),
            _node("Reshape", ["bias", "spread"], "bias_4d"),
            _node("Add", ["conv_out", "bias_4d"], "sum"),
            _node("Tanh", ["sum"], "eps"),
        ]


def merged(model: TinyModel, lora: Lora) -> TinyModel:
    """The model with an adapter in its weights."""
    conv = lora["lora.conv.up"][:, :, 0, 0] @ lora["lora.conv.down"][:, :, 0, 0]
    return TinyModel(conv=model.conv + conv[:, :, None, None], proj=model.proj + lora["lora.proj.up"] @ lora["lora.proj.down"])


def draw_adapter(seed: int, dtype: str) -> dict[str, NDArray[Any]]:
    """An adapter as its file holds it."""
    floats = {name: _draw(seed + i, *shape) for i, (name, shape) in enumerate(sorted(LORA_SHAPES.items()))}
    if dtype == "float32":
        return dict(floats)
    limit = np.iinfo(dtype).max
    return {name: np.clip(np.round(value / LORA_SCALE), -limit, limit).astype(dtype) for name, value in floats.items()}


def as_floats(adapter: dict[str, NDArray[Any]]) -> Lora:
    """What the graph makes of an adapter's file."""
    return {
        name: value if value.dtype == np.float32 else (value * LORA_SCALE).astype(np.float32) for name, value in adapter.items()
    }


def _dequantized(dtype: str) -> list[onnx.NodeProto]:
    if dtype == "float32":
        return [_node("Identity", [name], f"{name}.float") for name in sorted(LORA_SHAPES)]
    return [_node("DequantizeLinear", [name, "lora_scale", "lora_zero"], f"{name}.float") for name in sorted(LORA_SHAPES)]


def _lora_sites() -> list[onnx.NodeProto]:
    return [
        _node("Conv", ["sample", "lora.conv.down.float"], "conv_down"),
        _node("Conv", ["conv_down", "lora.conv.up.float"], "conv_up"),
        _node("Add", ["conv_base", "conv_up"], "conv_out"),
        helper.make_node("Gemm", ["pooled", "lora.proj.down.float"], ["proj_down"], transB=1),
        helper.make_node("Gemm", ["proj_down", "lora.proj.up.float"], ["proj_up"], transB=1),
        _node("Add", ["proj_base", "proj_up"], "proj_out"),
    ]


def _node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output])


def _floats(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _refer(graph: Path, file: Path, names: dict[str, str]) -> None:
    """Have the constants of a graph lie in a file beside it, as the tensors of these names."""
    model, places = onnx.load(graph), tensor_places(file)
    for constant in model.graph.initializer:
        if constant.name in names:
            begin, end = places[names[constant.name]]
            set_external_data(constant, file.name, begin, end - begin)
            constant.ClearField("raw_data")
    onnx.save(model, graph)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, NDArray[Any]],
) -> Path:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
