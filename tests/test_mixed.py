"""Mixed precision: the activations that take 8 bits are those that cost least, each by itself."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from quadbench.artifacts import Bundle, Component, Stored, Variant  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.quantize.calibration import observe_ranges  # noqa: E402
from quadbench.quad.quantize.encodings import Encoding, symmetric  # noqa: E402
from quadbench.quad.quantize.mixed import EncodingNoise, encoding_noise, least_noisy  # noqa: E402
from quadbench.quad.quantize.qdq import activation_encodings, encoding_sources  # noqa: E402
from quadbench.quad.quantize.quantizer import Calibrated, Observed, Quantized, quantized  # noqa: E402
from quadbench.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402

RNG = np.random.default_rng(0)
DOWN, UP = "lora.s.down", "lora.s.up"
LORA = {DOWN: symmetric(5.0, "int16"), UP: symmetric(5.0, "int16")}
SOURCES = ["x", "base", "low", "high", "sum", "y"]  # `tall` has the encoding of `sum`
Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """y = softmax(transpose(x w + (x down^T) up^T)), its LoRA inputs as PEFT has them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["base"]),
        helper.make_node("Transpose", [DOWN], ["down.turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "down.turned"], ["low"]),
        helper.make_node("Transpose", [UP], ["up.turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["low", "up.turned"], ["high"]),
        helper.make_node("Add", ["base", "high"], ["sum"]),
        helper.make_node("Transpose", ["sum"], ["tall"], perm=[1, 0]),
        helper.make_node("Softmax", ["tall"], ["y"], axis=-1),
    ]
    shapes = {"x": (6, 8), DOWN: (2, 8), UP: (5, 2)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (5, 6))],
        [numpy_helper.from_array(RNG.standard_normal((8, 5)).astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def feeds(model: onnx.ModelProto) -> list[Feed]:
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return [{name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(3)]


def _narrow(model: onnx.ModelProto, feeds: list[Feed]) -> dict[str, Encoding]:
    encodings = activation_encodings(model, observe_ranges(model, feeds), dtype="uint8", lora=LORA)
    return {name: encodings[name] for name in SOURCES}


def _run(model: onnx.ModelProto, feed: Feed) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]


def _with_one_rounded(model: onnx.ModelProto, tensor: str, encoding: Encoding) -> onnx.ModelProto:
    """Return the float graph with QuantizeLinear and DequantizeLinear after one tensor, for its readers and for the output."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    parameters = {"s": np.float32(encoding.scale), "z": np.array(encoding.zero_point, encoding.dtype)}
    changed.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in parameters.items())
    exact = tensor if tensor in {v.name for v in model.graph.input} else "exact"
    rounded = "rounded" if exact == tensor else tensor
    for node in changed.graph.node:
        node.input[:] = [rounded if name == tensor else name for name in node.input]
        node.output[:] = [exact if name == tensor else name for name in node.output]
    place = next((i + 1 for i, node in enumerate(changed.graph.node) if exact in node.output), 0)
    pair = [
        helper.make_node("QuantizeLinear", [exact, "s", "z"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "s", "z"], [rounded]),
    ]
    nodes = [*changed.graph.node[:place], *pair, *changed.graph.node[place:]]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def _eight_bit(result: Quantized) -> set[str]:
    return {name for name, encoding in result.activations.items() if encoding.dtype == "uint8"}


def test_an_encoding_costs_what_rounding_its_tensors_alone_does_to_the_output(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    narrow = _narrow(model, feeds)
    for row in encoding_noise(model, narrow, feeds):
        rounded = _with_one_rounded(model, row.tensor, narrow[row.tensor])
        exact = [_run(model, feed) for feed in feeds]
        noise = sum(float(np.square(_run(rounded, feed) - right).sum()) for feed, right in zip(feeds, exact, strict=True))
        signal = sum(float(np.square(right).sum()) for right in exact)
        assert row.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.01), row.tensor


def test_the_least_noise_comes_first(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    noise = encoding_noise(model, _narrow(model, feeds), feeds)
    assert {row.tensor for row in noise} == set(SOURCES)
    assert [row.sqnr_db for row in noise] == sorted((row.sqnr_db for row in noise), reverse=True)


def test_an_encoding_whose_rounding_changes_nothing_has_no_noise(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    level = [feed | {"x": np.full_like(feed["x"], 3.0)} for feed in feeds]  # 3 is the end of its range, and so exact
    assert encoding_noise(model, _narrow(model, level), level)[0] == EncodingNoise(tensor="x", sqnr_db=None)


def test_a_greater_share_contains_a_smaller_one() -> None:
    noise = [EncodingNoise(tensor=str(i), sqnr_db=60.0 - i) for i in range(7)]
    chosen = [least_noisy(noise, percent) for percent in (0, 20, 50, 90, 100)]
    assert [len(names) for names in chosen] == [0, 1, 4, 6, 7]
    assert all(set(fewer) <= set(more) for fewer, more in pairwise(chosen))


def test_tensors_whose_values_are_only_moved_share_an_encoding_and_its_bits(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    assert encoding_sources(model, observe_ranges(model, feeds))["tall"] == "sum"
    for percent in (20, 40, 60, 80):
        result = quantized(Calibrated(Observed(model, feeds)), int8_percent=percent, lora=LORA)
        assert result.activations["tall"] == result.activations["sum"]
        assert len(_eight_bit(result) - {"tall"}) == round(len(SOURCES) * percent / 100)


def test_lora_weights_stay_the_integers_that_came_in_wherever_they_are_moved(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    activations = quantized(Calibrated(Observed(model, feeds)), int8_percent=100, lora=LORA).activations
    assert activations["down.turned"] == LORA[DOWN]
    assert not {DOWN, UP} & set(activations)


def test_more_bits_give_less_noise(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    exact = [_run(model, feed) for feed in feeds]
    integers = [{n: np.rint(a / LORA[n].scale).astype(np.int16) if n in LORA else a for n, a in f.items()} for f in feeds]
    errors = [
        sum(float(np.square(_run(narrowed, feed) - right).sum()) for feed, right in zip(integers, exact, strict=True))
        for narrowed in (
            quantized(Calibrated(Observed(model, feeds)), int8_percent=percent, lora=LORA).model for percent in (0, 50, 100)
        )
    ]
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


def _varied(tiny_recipe: Path, folder: Path, activations: str) -> Stored[Bundle]:
    """Build the tiny model's bundle with other activations, without baselines."""
    path = Path(shutil.copytree(tiny_recipe.parent, folder / "model")) / "recipe.yaml"
    text = path.read_text().replace("{scheme: w8a16}", activations).replace("baselines: [per-graph]\n", "")
    path.write_text(text)
    return build(load_recipe(path), Layout(folder / "results"))


@pytest.mark.slow
def test_a_bundle_lists_what_was_measured_and_what_followed(tiny_recipe: Path, tmp_path: Path) -> None:
    bundle = _varied(tiny_recipe, tmp_path, "{scheme: mixed, int8_percent: 30}")
    profile = json.loads(bundle.path(bundle.artifact.profile).read_text())
    rows = profile["mixed"]
    narrow = [row["dtype"] == "uint8" for row in rows]
    assert bundle.artifact.precision == "mixed-30"
    assert sum(narrow) == round(len(rows) * 0.3)
    assert narrow == sorted(narrow, reverse=True)
    assert all(profile["encodings"]["unet"][row["tensor"]]["dtype"] == row["dtype"] for row in rows)
    assert not any(row["tensor"].startswith("lora.") for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(("percent", "scheme"), [(0, "w8a16"), (100, "w8a8")])
def test_its_ends_are_the_very_graphs_of_the_other_schemes(tiny_recipe: Path, tmp_path: Path, percent: int, scheme: str) -> None:
    built = [
        _varied(tiny_recipe, tmp_path / name, activations)
        for name, activations in (("end", f"{{scheme: mixed, int8_percent: {percent}}}"), ("whole", f"{{scheme: {scheme}}}"))
    ]
    graphs = [graph for bundle in built for graph in bundle.artifact.graphs]
    unets = [graph for graph in graphs if (graph.variant, graph.component) == (Variant.SHARED, Component.UNET)]
    assert unets[0].file.sha256 == unets[1].file.sha256
    assert [json.loads(bundle.path(bundle.artifact.profile).read_text())["mixed"] for bundle in built] == [None, None]
