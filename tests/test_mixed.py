"""Mixed precision: layers take 8 bits, those whose rounding costs least for their parameters, until a share of them has it."""

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

from quadbench.artifacts import Bundle, Component, StoredBundle, Variant  # noqa: E402
from quadbench.artifacts.bundle import Int8Fraction  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.quantize.calibration import observe_ranges  # noqa: E402
from quadbench.quad.quantize.encodings import Encoding, symmetric  # noqa: E402
from quadbench.quad.quantize.qdq import activation_encodings, encoding_sources  # noqa: E402
from quadbench.quad.quantize.quantizer import (  # noqa: E402
    CalibratedGraph,
    Layer,
    LayerNoise,
    ObservedGraph,
    QuantizedGraph,
    base_layers,
    int8_share,
    layer_noise,
    least_noisy,
    narrow_layers,
    write_qdq,
)
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.results.manifest import read_manifest  # noqa: E402

RNG = np.random.default_rng(0)
DOWN, UP = "lora.s.down", "lora.s.up"
LORA = {DOWN: symmetric(5.0, "int16"), UP: symmetric(5.0, "int16")}
NARROW_LORA = {DOWN: symmetric(5.0, "int8"), UP: symmetric(5.0, "int8")}
Feed = dict[str, np.ndarray]


def _random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Three layers: a filter, a norm's scale, which is none, a linear map with a LoRA, and a wide one behind a Softmax.

    LoRA inputs are as PEFT has them.
    """
    nodes = [
        helper.make_node("Conv", ["x", "filter", "offset"], ["filtered"], "filter", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["filtered", "scale"], ["scaled"], "scale", group=8),
        helper.make_node("Reshape", ["scaled", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[1, 0]),
        helper.make_node("MatMul", ["tokens", "w"], ["base"], "site"),
        helper.make_node("Transpose", [DOWN], ["down.turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["tokens", "down.turned"], ["low"]),
        helper.make_node("Transpose", [UP], ["up.turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["low", "up.turned"], ["high"]),
        helper.make_node("Add", ["base", "high"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["shares"], axis=-1),
        helper.make_node("Gemm", ["shares", "wide", "bias"], ["y"], "wide", transB=1),
    ]
    shapes = {"x": (1, 4, 2, 3), DOWN: (2, 8), UP: (5, 2)}
    constants = {
        "filter": _random(8, 4, 3, 3),
        "offset": _random(8),
        "scale": _random(8, 1, 1, 1),
        "rows": np.array([8, 6], np.int64),
        "w": _random(8, 5),
        "wide": _random(40, 5),
        "bias": _random(40),
    }
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (6, 40))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def feeds(model: onnx.ModelProto) -> list[Feed]:
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return [{name: _random(*shape) for name, shape in shapes.items()} for _ in range(3)]


@pytest.fixture(scope="module")
def layers(model: onnx.ModelProto, feeds: list[Feed]) -> tuple[Layer, ...]:
    return base_layers(model, encoding_sources(model, observe_ranges(model, feeds)))


def _narrow(model: onnx.ModelProto, feeds: list[Feed]) -> dict[str, Encoding]:
    return activation_encodings(model, observe_ranges(model, feeds), dtype="uint8", lora=LORA)


def _run(model: onnx.ModelProto, feed: Feed) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # others move roundings elsewhere
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)[0]


def _with_one_rounded(model: onnx.ModelProto, tensor: str, encoding: Encoding) -> onnx.ModelProto:
    """Return the float graph with QuantizeLinear and DequantizeLinear after one tensor, for its readers and for the output."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    parameters = {"s": np.float32(encoding.scale), "z": np.array(encoding.zero_point, encoding.dtype)}
    constants = [numpy_helper.from_array(np.asarray(value), f"{tensor}.{name}") for name, value in parameters.items()]
    changed.graph.initializer.extend(constants)
    exact = tensor if tensor in {v.name for v in model.graph.input} else f"{tensor}.exact"
    rounded = f"{tensor}.rounded" if exact == tensor else tensor
    for node in changed.graph.node:
        node.input[:] = [rounded if name == tensor else name for name in node.input]
        node.output[:] = [exact if name == tensor else name for name in node.output]
    place = next((i + 1 for i, node in enumerate(changed.graph.node) if exact in node.output), 0)
    names = [constant.name for constant in constants]
    pair = [
        helper.make_node("QuantizeLinear", [exact, *names], [f"{tensor}.integers"]),
        helper.make_node("DequantizeLinear", [f"{tensor}.integers", *names], [rounded]),
    ]
    nodes = [*changed.graph.node[:place], *pair, *changed.graph.node[place:]]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def _eight_bit(result: QuantizedGraph) -> set[str]:
    return {name for name, encoding in result.activations.items() if encoding.dtype == "uint8"}


def _row(name: str, parameters: int, sqnr_db: float, data: str = "", result: str = "") -> LayerNoise:
    layer = Layer(
        name=name, data=data or f"{name}.in", result=result or f"{name}.out", parameters=parameters, multiply_accumulates=1
    )
    return LayerNoise(layer=layer, sqnr_db=sqnr_db)


def test_layers_are_the_filters_and_linear_maps_of_the_base(layers: tuple[Layer, ...]) -> None:
    listed = [(layer.name, layer.data, layer.result, layer.parameters, layer.multiply_accumulates) for layer in layers]
    assert listed == [
        ("filter", "x", "filtered", 8 * 4 * 9 + 8, 8 * 4 * 9 * 6),
        ("site", "scaled", "base", 8 * 5, 8 * 5 * 6),  # Reshape and Transpose only move what `scaled` holds
        ("wide", "shares", "y", 40 * 5 + 40, 40 * 5 * 6),
    ]


def test_a_layer_costs_what_rounding_its_data_and_result_alone_does_to_the_output(
    model: onnx.ModelProto, feeds: list[Feed], layers: tuple[Layer, ...]
) -> None:
    narrow = _narrow(model, feeds)
    for row in layer_noise(model, layers, narrow, feeds):
        rounded = model
        for tensor in (row.layer.data, row.layer.result):
            rounded = _with_one_rounded(rounded, tensor, narrow[tensor])
        exact = [_run(model, feed) for feed in feeds]
        noise = sum(float(np.square(_run(rounded, feed) - right).sum()) for feed, right in zip(feeds, exact, strict=True))
        signal = sum(float(np.square(right).sum()) for right in exact)
        assert row.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.01), row.layer.name


def test_the_least_noise_for_its_parameters_comes_first(
    model: onnx.ModelProto, feeds: list[Feed], layers: tuple[Layer, ...]
) -> None:
    noise = layer_noise(model, layers, _narrow(model, feeds), feeds)
    assert {row.layer for row in noise} == set(layers)
    costs = [10 ** (-row.sqnr_db / 10) / row.layer.parameters for row in noise if row.sqnr_db is not None]
    assert costs == sorted(costs)


def test_a_layer_whose_rounding_changes_nothing_has_no_noise(
    model: onnx.ModelProto, feeds: list[Feed], layers: tuple[Layer, ...]
) -> None:
    silent = [feed | {name: np.zeros_like(feed[name]) for name in ("x", UP)} for feed in feeds]
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for constant in changed.graph.initializer:
        if constant.name == "offset":
            constant.CopyFrom(numpy_helper.from_array(np.zeros(8, np.float32), "offset"))
    noise = layer_noise(changed, layers, _narrow(changed, silent), silent)
    assert next(row.sqnr_db for row in noise if row.layer.name == "filter") is None
    assert noise[0].sqnr_db is None


def test_a_share_is_of_parameters_and_not_of_layers() -> None:
    noise = [_row("small", 10, 90.0), _row("large", 70, 80.0), _row("last", 20, 60.0)]
    assert least_noisy(noise, 10) == {"small.in", "small.out"}
    assert least_noisy(noise, 80) == {"small.in", "small.out", "large.in", "large.out"}
    assert least_noisy(noise, 0) == set()


def test_a_share_is_met_as_nearly_as_whole_layers_allow() -> None:
    noise = [_row("a", 40, 90.0), _row("b", 40, 80.0), _row("c", 20, 70.0)]
    assert [len(least_noisy(noise, percent)) // 2 for percent in (15, 25, 55, 65, 95)] == [0, 1, 1, 2, 3]


def test_a_greater_share_contains_a_smaller_one() -> None:
    noise = [_row(str(i), 10 + i, 60.0 - i) for i in range(7)]
    chosen = [least_noisy(noise, percent) for percent in range(0, 101, 5)]
    assert all(fewer <= more for fewer, more in pairwise(chosen))


def test_a_layer_between_two_that_were_chosen_has_8_bits_and_counts() -> None:
    noise = [_row("first", 10, 90.0, "x", "y"), _row("last", 10, 80.0, "z", "out"), _row("between", 80, 70.0, "y", "z")]
    assert least_noisy(noise, 100) == {"x", "y", "z", "out"}
    assert least_noisy(noise, 20) == {"x", "y"}  # 10 % are nearer than the 100 % that the second layer would bring


def test_encodings_follow_from_the_layers(model: onnx.ModelProto, feeds: list[Feed], layers: tuple[Layer, ...]) -> None:
    for percent in (7, 45, 60, 95):
        calibrated = CalibratedGraph(ObservedGraph(model, feeds))
        result = write_qdq(calibrated, int8_percent=percent, lora=LORA)
        narrow = _eight_bit(result)
        assert {calibrated.sources[name] for name in narrow} == least_noisy(calibrated.noise, percent)
        assert len({result.activations[name] for name in ("scaled", "flat", "tokens")}) == 1  # moved, so rounded alike
        assert not {"low", "high", "sum"} & narrow  # between layers nothing is rounded
        achieved = sum(layer.parameters for layer in narrow_layers(layers, narrow))
        assert result.int8.parameters == Int8Fraction(int8=achieved, total=576)


def test_a_layer_counts_only_with_8_bits_on_both_sides(
    model: onnx.ModelProto, feeds: list[Feed], layers: tuple[Layer, ...]
) -> None:
    ranges = observe_ranges(model, feeds)
    wide = activation_encodings(model, ranges, dtype="uint16", lora=LORA)
    narrow, sources = _narrow(model, feeds), encoding_sources(model, ranges)
    one_sided = {**wide, "x": narrow["x"], "base": narrow["base"]}
    assert int8_share(model, sources, one_sided, LORA).layers == Int8Fraction(int8=0, total=3)
    both = int8_share(model, sources, {**one_sided, "filtered": narrow["filtered"]}, LORA)
    assert (both.layers.int8, both.parameters.int8, both.multiply_accumulates.int8) == (1, 296, 1728)


def test_all_layers_and_what_lies_between_have_8_bits_at_the_end(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    result = write_qdq(CalibratedGraph(ObservedGraph(model, feeds)), int8_percent=100, lora=NARROW_LORA)
    assert all(encoding.bits == 8 for encoding in result.activations.values())
    assert (result.int8.layers.percent, result.int8.parameters.percent, result.int8.lora_products.percent) == (100, 100, 100)


def test_a_lora_product_of_16_bit_weights_is_not_in_8_bits(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    result = write_qdq(CalibratedGraph(ObservedGraph(model, feeds)), int8_percent=100, lora=LORA)
    assert result.int8.lora_products == Int8Fraction(int8=0, total=2)
    assert result.int8.layers.percent == 100


def test_nothing_is_in_8_bits_where_nothing_was_asked_for(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    int8 = write_qdq(CalibratedGraph(ObservedGraph(model, feeds)), lora=LORA).int8
    assert (int8.layers.int8, int8.parameters.int8, int8.multiply_accumulates.int8, int8.lora_products.int8) == (0, 0, 0, 0)


def test_a_graph_without_layers_has_no_share() -> None:
    assert Int8Fraction(int8=0, total=0).percent == 0


def test_lora_weights_stay_the_integers_that_came_in_wherever_they_are_moved(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    activations = write_qdq(CalibratedGraph(ObservedGraph(model, feeds)), int8_percent=100, lora=LORA).activations
    assert activations["down.turned"] == LORA[DOWN]
    assert not {DOWN, UP} & set(activations)


def test_more_bits_give_less_noise(model: onnx.ModelProto, feeds: list[Feed]) -> None:
    exact = [_run(model, feed) for feed in feeds]
    integers = [{n: np.rint(a / LORA[n].scale).astype(np.int16) if n in LORA else a for n, a in f.items()} for f in feeds]
    errors = [
        sum(float(np.square(_run(narrowed, feed) - right).sum()) for feed, right in zip(integers, exact, strict=True))
        for narrowed in (
            write_qdq(CalibratedGraph(ObservedGraph(model, feeds)), int8_percent=percent, lora=LORA).model
            for percent in (0, 50, 100)
        )
    ]
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


def _varied(tiny_recipe: Path, folder: Path, activations: str) -> StoredBundle:
    """Build the tiny model's bundle with other activations, without baselines."""
    path = Path(shutil.copytree(tiny_recipe.parent, folder / "model")) / "recipe.yaml"
    text = path.read_text().replace("{scheme: w8a16}", activations).replace("baselines: [per-graph]\n", "")
    path.write_text(text)
    return build(load_recipe(path), Layout(folder / "results"))


@pytest.mark.slow
def test_a_bundle_says_what_was_measured_and_what_was_achieved(tiny_recipe: Path, tmp_path: Path) -> None:
    bundle = _varied(tiny_recipe, tmp_path, "{scheme: mixed, int8_percent: 30}")
    profile = json.loads(bundle.path(bundle.artifact.profile).read_text())
    rows, encodings = profile["mixed"], profile["encodings"]["unet"]
    unet = next(g for g in bundle.artifact.graphs if (g.variant, g.component) == (Variant.SHARED, Component.UNET))
    assert bundle.artifact.precision == "mixed-30"
    assert unet.int8 is not None
    for key, share in (("parameters", unet.int8.parameters), ("multiply_accumulates", unet.int8.multiply_accumulates)):
        assert share == Int8Fraction(int8=sum(row[key] for row in rows if row["int8"]), total=sum(row[key] for row in rows))
    assert unet.int8.layers == Int8Fraction(int8=sum(row["int8"] for row in rows), total=len(rows))
    assert abs(unet.int8.parameters.percent - 30) < 10
    for row in rows:
        assert row["int8"] == (encodings[row["data"]]["dtype"] == encodings[row["result"]]["dtype"] == "uint8")
    assert read_manifest(bundle.folder, Bundle).artifact == bundle.artifact


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
