"""Probe bundle: the smallest bundle that the harness runs, with known pixels from NumPy: what `quadbench doctor --device` tries.

PYTHONPATH=. python -m tests.support.probe_bundle     writes it anew into quadbench/doctor/probe

Its U-Net is one layer of INT8 weights with one LoRA site; the text encoder looks up two tokens, the decoder mixes channels.
Every constant is a multiple of its scale, so that quantized graphs differ from float ones by the rounding of activations alone.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from quadbench.artifacts import Bundle, Component, FileRef, Graph, TaskAssets, TaskItem, TensorSpec, Variant
from quadbench.artifacts.bundle import AdapterFile, BaseDigests, TaskKind
from quadbench.doctor.bring_up import PROBE, PROBE_FOLDER, PROBE_ITEM
from quadbench.results.manifest import file_ref, publish

VOCABULARY, TOKENS, WIDTH, FEATURES, CHANNELS, SIZE, RANK = 8, 2, 4, 4, 4, 8, 2
ROWS = SIZE * SIZE
IDS = (3, 6)
WEIGHT_SCALE, LORA_SCALE, ACTIVATION_SCALE, ACTIVATION_ZERO = 1 / 64, 1 / 4096, 16 / 65536, 32768
STEPS = ((0.9, (0.6,)), (0.8, (0.2, -0.7)))  # of the sampler: x_{i+1} = x * x_i + the sum of eps_j * eps
LORA = {"lora.probe.down": (RANK, CHANNELS), "lora.probe.up": (CHANNELS, RANK)}
OPSET, IR_VERSION = 21, 10
_RNG = np.random.default_rng(20)

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


def _int8(*shape: int) -> Array:
    return _RNG.integers(-40, 41, shape).astype(np.int8)


EMBEDDING, BASE, CONTEXT = _int8(VOCABULARY, WIDTH), _int8(CHANNELS, CHANNELS), _int8(CHANNELS, WIDTH)
TIME, DECODER, ENCODER = _int8(CHANNELS, FEATURES), _int8(3, CHANNELS, 1, 1), _int8(CHANNELS, 3, 1, 1)
ADAPTER_INTEGERS = {name: _RNG.integers(-4500, 4501, shape).astype(np.int16) for name, shape in sorted(LORA.items())}
NOISE = _RNG.uniform(-1, 1, (1 + len(STEPS), CHANNELS, SIZE, SIZE)).astype(np.float32)
TIME_FEATURES = _RNG.uniform(-1, 1, (len(STEPS), FEATURES)).astype(np.float32)


def known_pixels(*, with_adapter: bool = True) -> Array:
    """Return the image (H, W, 3) that the probe's task paints, by NumPy alone."""
    x = NOISE[0]
    eps: list[Array] = []
    for (factor, factors), features in zip(STEPS, TIME_FEATURES, strict=True):
        eps.append(_eps(x, features, with_adapter=with_adapter))
        x = factor * x + sum(weight * one for weight, one in zip(factors, eps, strict=True))
    image = np.einsum("oi,ihw->hwo", DECODER[:, :, 0, 0] * WEIGHT_SCALE, x)
    return np.rint(np.clip((image + 1) / 2, 0, 1) * 255).astype(np.uint8)


def _eps(x: Array, features: Array, *, with_adapter: bool) -> Array:
    weights = BASE * WEIGHT_SCALE
    if with_adapter:
        lora = {name: values * LORA_SCALE for name, values in ADAPTER_INTEGERS.items()}
        weights = weights + lora["lora.probe.up"] @ lora["lora.probe.down"]
    context = (EMBEDDING[list(IDS)] * WEIGHT_SCALE @ (CONTEXT * WEIGHT_SCALE).T).mean(axis=0)
    bias = context + features @ (TIME * WEIGHT_SCALE).T
    return np.einsum("oi,ihw->ohw", weights, x) + bias[:, None, None]


@dataclass
class _Nodes:
    """The nodes of a graph, in float or quantized: then every result is rounded to 16 bits, and weights lie there as integers."""

    is_quantized: bool

    def __post_init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        if self.is_quantized:
            self.constants |= {
                "activation.scale": np.float32(ACTIVATION_SCALE),
                "activation.zero": np.uint16(ACTIVATION_ZERO),
                "weight.scale": np.float32(WEIGHT_SCALE),
                "weight.zero": np.int8(0),
                "lora.scale": np.float32(LORA_SCALE),
                "lora.zero": np.int16(0),
            }

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name under which its result is used."""
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return self.rounded(output)

    def rounded(self, tensor: str) -> str:
        """Round a tensor to 16 bits, where the graph is quantized."""
        if not self.is_quantized:
            return tensor
        self._node("QuantizeLinear", tensor, "activation", f"{tensor}.q")
        return self._node("DequantizeLinear", f"{tensor}.q", "activation", f"{tensor}.dq")

    def weight(self, name: str, integers: Array) -> str:
        """Add a constant of INT8 weights."""
        if not self.is_quantized:
            self.constants[name] = (integers * WEIGHT_SCALE).astype(np.float32)
            return name
        self.constants[f"{name}.q"] = integers
        return self._node("DequantizeLinear", f"{name}.q", "weight", f"{name}.dq")

    def lora(self, name: str) -> str:
        """Take a LoRA input."""
        return self._node("DequantizeLinear", name, "lora", f"{name}.dq") if self.is_quantized else name

    def shape(self, name: str, *sizes: int) -> str:
        """Add a shape for Reshape, or axes."""
        self.constants[name] = np.array(sizes, np.int64)
        return name

    def _node(self, op: str, tensor: str, encoding: str, output: str) -> str:
        self.nodes.append(helper.make_node(op, [tensor, f"{encoding}.scale", f"{encoding}.zero"], [output], output))
        return output

    def graph(self, path: Path, inputs: list[TensorSpec], output: TensorSpec, last: str) -> None:
        """Write the graph; `last` is what becomes its output."""
        self.nodes[-1].output[0] = output.name
        assert last
        weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, path.stem, [*map(_info, inputs)], [_info(output)], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "quadbench"
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def _info(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.shape)


def _floats(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype="float32")


def _text_encoder(folder: Path, variant: Variant) -> Graph:
    ids, states = (
        TensorSpec(name="input_ids", shape=(1, TOKENS), dtype="int32"),
        _floats("encoder_hidden_states", 1, TOKENS, WIDTH),
    )
    nodes = _Nodes(variant.is_quantized)
    last = nodes.add("Gather", [nodes.weight("embedding", EMBEDDING), "input_ids"], "looked.up")
    return _written(nodes, folder, variant, Component.TEXT_ENCODER, [ids], states, last)


def _vae_encoder(folder: Path, variant: Variant) -> Graph:
    nodes = _Nodes(variant.is_quantized)
    last = nodes.add("Conv", [nodes.rounded("image"), nodes.weight("encoder", ENCODER)], "mixed")
    inputs, output = [_floats("image", 1, 3, SIZE, SIZE)], _floats("latent", 1, CHANNELS, SIZE, SIZE)
    return _written(nodes, folder, variant, Component.VAE_ENCODER, inputs, output, last)


def _vae_decoder(folder: Path, variant: Variant) -> Graph:
    nodes = _Nodes(variant.is_quantized)
    last = nodes.add("Conv", [nodes.rounded("latent"), nodes.weight("decoder", DECODER)], "mixed")
    inputs, output = [_floats("latent", 1, CHANNELS, SIZE, SIZE)], _floats("image", 1, 3, SIZE, SIZE)
    return _written(nodes, folder, variant, Component.VAE_DECODER, inputs, output, last)


def _unet(folder: Path, variant: Variant) -> Graph:
    nodes = _Nodes(variant.is_quantized)
    turned = nodes.add("Transpose", [nodes.rounded("sample")], "turned", perm=[0, 2, 3, 1])
    rows = nodes.add("Reshape", [turned, nodes.shape("rows.shape", ROWS, CHANNELS)], "rows")
    base = nodes.add("Gemm", [rows, nodes.weight("base", BASE)], "base.out", transB=1)
    low = nodes.add("Gemm", [rows, nodes.lora("lora.probe.down")], "low", transB=1)
    high = nodes.add("Gemm", [low, nodes.lora("lora.probe.up")], "high", transB=1)
    both = nodes.add("Add", [base, high], "both")
    words = nodes.rounded("encoder_hidden_states")
    words = nodes.add("Reshape", [words, nodes.shape("words.shape", TOKENS, WIDTH)], "words")
    words = nodes.add("Gemm", [words, nodes.weight("context", CONTEXT)], "words.out", transB=1)
    words = nodes.add("ReduceMean", [words, nodes.shape("first.axis", 0)], "words.mean", keepdims=1)
    time = nodes.add("Gemm", [nodes.rounded("time_features"), nodes.weight("time", TIME)], "time.out", transB=1)
    bias = nodes.add("Add", [words, time], "bias")
    total = nodes.add("Add", [both, bias], "total")
    back = nodes.add("Reshape", [total, nodes.shape("image.shape", 1, SIZE, SIZE, CHANNELS)], "back")
    last = nodes.add("Transpose", [back], "turned.back", perm=[0, 3, 1, 2])
    lora = [
        TensorSpec(name=name, shape=shape, dtype="int16", scale=LORA_SCALE) if variant.is_quantized else _floats(name, *shape)
        for name, shape in sorted(LORA.items())
    ]
    data = [
        _floats("sample", 1, CHANNELS, SIZE, SIZE),
        _floats("time_features", 1, FEATURES),
        _floats("encoder_hidden_states", 1, TOKENS, WIDTH),
    ]
    return _written(nodes, folder, variant, Component.UNET, [*data, *lora], _floats("eps", 1, CHANNELS, SIZE, SIZE), last)


def _written(
    nodes: _Nodes, folder: Path, variant: Variant, component: Component, inputs: list[TensorSpec], output: TensorSpec, last: str
) -> Graph:
    path = folder / variant / f"{component}.onnx"
    nodes.graph(path, inputs, output, last)
    return Graph(
        variant=variant, component=component, file=file_ref(folder, path), inputs=tuple(inputs), outputs=(output,), int8=None
    )


def _adapters(folder: Path, base: BaseDigests) -> list[AdapterFile]:
    files = []
    for variant in (Variant.SHARED, Variant.FLOAT):
        path = folder / "adapters" / f"{variant}.safetensors"
        path.parent.mkdir(exist_ok=True)
        floats = {name: (values * LORA_SCALE).astype(np.float32) for name, values in ADAPTER_INTEGERS.items()}
        metadata = {"base_graph": base.graph, "base_profile": base.profile}
        save_file(ADAPTER_INTEGERS if variant.is_quantized else floats, path, metadata)
        files.append(AdapterFile(name=PROBE, variant=variant, file=file_ref(folder, path), rank=RANK, sites=1))
    return files


def _task(folder: Path) -> TaskAssets:
    (folder / "task").mkdir()
    steps = [{"input_scale": 1.0, "x_start": 0.0, "x": x, "eps": list(eps), "noise": 0.0, "known": None} for x, eps in STEPS]
    table = {
        "schema_version": 1,
        "scheme": "ed",
        "timesteps": [999.0, 499.0],
        "start": {"latent": 0.0, "noise": 1.0},
        "steps": steps,
        "fit_error": None,
    }
    (folder / "task/table.json").write_text(json.dumps(table, indent=1) + "\n")
    save_file({"time_features": TIME_FEATURES, f"noise.{PROBE_ITEM}": NOISE}, folder / "task/tensors.safetensors")
    Image.fromarray(known_pixels()).save(folder / "task/known.png")
    item = TaskItem(
        name=PROBE_ITEM,
        image=None,
        mask=None,
        truth=None,
        reference=file_ref(folder, folder / "task/known.png"),
        prompt="",
        tokens={"input_ids": IDS},
        negative_tokens={"input_ids": IDS},
    )
    return TaskAssets(
        name=PROBE,
        kind=TaskKind.TEXT_TO_IMAGE,
        adapter=PROBE,
        scheme="ed",
        steps=len(STEPS),
        guidance=1.0,
        table=file_ref(folder, folder / "task/table.json"),
        tensors=file_ref(folder, folder / "task/tensors.safetensors"),
        items=(item,),
    )


def _bundle(folder: Path) -> Bundle:
    writers = (_text_encoder, _vae_encoder, _unet, _vae_decoder)
    graphs = [write(folder, variant) for variant in (Variant.SHARED, Variant.FLOAT) for write in writers]
    (folder / "profile.json").write_text("{}\n")
    profile = file_ref(folder, folder / "profile.json")
    base = BaseDigests(graph=graphs[2].file.sha256, profile=profile.sha256)
    adapters, task = _adapters(folder, base), _task(folder)
    content = sorted((ref.path, ref.sha256) for ref in _refs(graphs, adapters, task))
    return Bundle(
        digest=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        recipe_name="probe",
        recipe_digest="0" * 64,
        precision="w8a16",
        tool_versions={},
        graphs=tuple(graphs),
        adapters=tuple(adapters),
        tasks=(task,),
        profile=profile,
        base=base,
    )


def _refs(graphs: list[Graph], adapters: list[AdapterFile], task: TaskAssets) -> list[FileRef]:
    return [*(graph.file for graph in graphs), *(adapter.file for adapter in adapters), task.table, task.tensors]


def write_probe_bundle(folder: Path) -> None:
    """Write the bundle into a folder that is not there yet."""
    publish(folder, _bundle)


if __name__ == "__main__":
    shutil.rmtree(PROBE_FOLDER, ignore_errors=True)
    write_probe_bundle(PROBE_FOLDER)
