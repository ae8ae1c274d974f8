"""LoRA branches of compiled CPU graphs: inputs of any rank and joined products, with the results of the bundle's graph."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")

import onnx
from onnx import helper, numpy_helper
from support.bundles import write_bundle
from support.small_graphs import INPUTS, RANK, RNG, Feed, conv_model, linear_model, model_of, run, seeded_feed

from quadbench.compile import compile_bundle
from quadbench.compile.lora_branches import ease_compiled_branches
from quadbench.quad.quantize.encodings import Encoding, Range
from quadbench.quad.quantize.qdq import activation_encodings, quantize_graph
from quadbench.quad.quantize.quantizer import write_weight_only
from quadbench.results.layout import Layout
from quadbench.target.targets import OnnxRuntimeTarget

SIZE = 16
WIDE, NARROW = 8, 2  # sizes of images: more positions than twice the outputs, and fewer
MODELS = {"wide": lambda: conv_model(WIDE), "narrow": lambda: conv_model(NARROW), "linear": lambda: linear_model(6)}


def quantized(model: onnx.ModelProto, *, dtype: str = "uint16", lora: str = "int16") -> onnx.ModelProto:
    names = [value.name for value in model.graph.input if value.name not in INPUTS]
    names += [output for node in model.graph.node for output in node.output]
    encodings = {name: Encoding(dtype=lora, scale=1e-3 if lora == "int16" else 2e-2) for name in INPUTS}
    ranges = {name: Range(low=-40.0, high=40.0) for name in names}
    return quantize_graph(model, activation_encodings(model, ranges, dtype=dtype, lora=encodings), encodings)


def compiled(model: onnx.ModelProto, folder: Path, provider: str = "cpu") -> onnx.ModelProto:
    target = OnnxRuntimeTarget(backend="onnxruntime", execution_provider=provider)
    stored = compile_bundle(write_bundle(folder / "bundle", model), target, "key", Layout(folder))
    (graph,) = stored.artifact.graphs
    return onnx.load(stored.path(graph.file))


def integer_feed(model: onnx.ModelProto, ranks: int = RANK) -> Feed:
    """Draw inputs; of a LoRA's ranks all but the first ones are 0."""
    feed = {name: value for name, value in seeded_feed(model).items() if name not in INPUTS}
    for value in model.graph.input:
        if value.name in INPUTS:
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            feed[value.name] = RNG.integers(-99, 100, shape).astype(
                helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            )
    feed[INPUTS[0]][ranks:] = 0
    feed[INPUTS[1]][:, ranks:] = 0
    return feed


def with_ranks(feed: Feed, ranks: int) -> Feed:
    return feed | {INPUTS[0]: feed[INPUTS[0]][:ranks], INPUTS[1]: np.ascontiguousarray(feed[INPUTS[1]][:, :ranks])}


def rank_names(model: onnx.ModelProto) -> list[str]:
    dims = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    return [dims[name][axis].dim_param for axis, name in enumerate(INPUTS)]


@pytest.mark.parametrize("ranks", range(RANK + 1))
@pytest.mark.parametrize("form", MODELS)
def test_an_adapter_of_any_rank_gives_the_bits_of_the_bundle_s_padded_one(tmp_path: Path, form: str, ranks: int) -> None:
    source = quantized(MODELS[form]())
    graph = compiled(source, tmp_path)
    assert rank_names(graph) == [f"lora.s.rank<={RANK}"] * 2
    feed = integer_feed(source, ranks)
    expected = run(source, feed)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(run(graph, with_ranks(feed, ranks)), expected)
    np.testing.assert_array_equal(run(graph, feed), expected)


@pytest.mark.parametrize("ranks", range(RANK + 1))
@pytest.mark.parametrize("form", MODELS)
def test_float_activations_take_any_rank_too(tmp_path: Path, form: str, ranks: int) -> None:
    lora = {name: Encoding(dtype="int16", scale=1e-3) for name in INPUTS}
    source = write_weight_only(MODELS[form](), lora=lora).model
    graph = compiled(source, tmp_path)
    assert rank_names(graph) == [f"lora.s.rank<={RANK}"] * 2
    feed = integer_feed(source, ranks)
    np.testing.assert_allclose(run(graph, with_ranks(feed, ranks)), run(source, feed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ranks", [(0, RANK), (RANK, 0), (1, RANK), (RANK, 1)])
def test_layers_of_one_graph_take_different_ranks(tmp_path: Path, ranks: tuple[int, int]) -> None:
    nodes, shapes, feed = [], {"x": (SIZE, SIZE)}, {"x": RNG.standard_normal((SIZE, SIZE)).astype(np.float32)}
    expected = feed["x"]
    for (source, site, result), rank in zip((("x", "lora.a", "h"), ("h", "lora.b", "y")), ranks, strict=True):
        down, up, low, high = (f"{site}.{part}" for part in ("down", "up", "low", "high"))
        shapes |= {down: (RANK, SIZE), up: (SIZE, RANK)}
        feed |= {
            down: RNG.standard_normal((rank, SIZE)).astype(np.float32),
            up: RNG.standard_normal((SIZE, rank)).astype(np.float32),
        }
        nodes += [
            helper.make_node("Gemm", [source, down], [low], transB=1),
            helper.make_node("Gemm", [low, up], [high], transB=1),
            helper.make_node("Add", [high, source], [result]),
        ]
        expected = expected @ feed[down].T @ feed[up].T + expected
    onnx.save(model_of(nodes, shapes, {}, (SIZE, SIZE)), path := tmp_path / "graph.onnx")
    ease_compiled_branches(path)
    np.testing.assert_allclose(run(onnx.load(path), feed), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "is_joined"), [(WIDE, True), (NARROW, False)])
def test_a_convolution_over_many_positions_is_one_product_with_down(tmp_path: Path, size: int, is_joined: bool) -> None:
    graph = compiled(quantized(conv_model(size)), tmp_path)
    operators = Counter(node.op_type for node in graph.graph.node)
    assert (operators["Conv"], operators["Concat"]) == ((2, 1) if is_joined else (3, 0))


def test_nothing_reshapes_between_the_products_of_a_linear_layer(tmp_path: Path) -> None:
    source = quantized(linear_model(6))
    before, after = (Counter(node.op_type for node in model.graph.node) for model in (source, compiled(source, tmp_path)))
    assert before["Reshape"] - after["Reshape"] >= 2


@pytest.mark.parametrize(("provider", "dtype", "lora"), [("xnnpack", "uint16", "int16"), ("cpu", "uint8", "int8")])
def test_other_providers_and_products_in_integers_keep_their_rank(tmp_path: Path, provider: str, dtype: str, lora: str) -> None:
    source = quantized(conv_model(WIDE), dtype=dtype, lora=lora)
    graph = compiled(source, tmp_path, provider)
    assert rank_names(graph) == ["", ""]
    feed = integer_feed(source)
    np.testing.assert_allclose(run(graph, feed), run(source, feed), atol=1.0 if dtype == "uint8" else 0)


@pytest.mark.parametrize(
    "change", ["down is read twice", "low is an output", "low is changed", "scales by rank", "down has a bias"]
)
def test_a_branch_in_another_form_keeps_its_rank(tmp_path: Path, change: str) -> None:
    model = conv_model(NARROW)
    _base, down, up, total = model.graph.node
    match change:
        case "down is read twice":
            model.graph.node.append(helper.make_node("ReduceMax", [INPUTS[0]], ["most"]))
            model.graph.node.append(helper.make_node("Add", ["sum", "most"], ["y"]))
            total.output[0] = "sum"
        case "low is an output":
            model.graph.output.append(helper.make_tensor_value_info("low", onnx.TensorProto.FLOAT, [1, RANK, NARROW, NARROW]))
        case "low is changed":
            model.graph.node.insert(2, helper.make_node("Sigmoid", ["low"], ["gate"]))
            up.input[0] = "gate"
        case "scales by rank":
            scales = {"scales": np.full(RANK, 0.1, np.float32), "zeros": np.zeros(RANK, np.uint16)}
            model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in scales.items())
            model.graph.node.insert(2, helper.make_node("QuantizeLinear", ["low", *scales], ["low.q"], axis=1))
            model.graph.node.insert(3, helper.make_node("DequantizeLinear", ["low.q", *scales], ["low.dq"], axis=1))
            up.input[0] = "low.dq"
        case "down has a bias":
            model.graph.initializer.append(numpy_helper.from_array(np.ones(RANK, np.float32), "bias"))
            down.input.append("bias")
    onnx.save(model, path := tmp_path / "graph.onnx")
    ease_compiled_branches(path)
    graph = onnx.load(path)
    assert rank_names(graph) == ["", ""]
    feed = seeded_feed(model)
    np.testing.assert_array_equal(run(graph, feed), run(model, feed))


def test_a_graph_without_lora_inputs_stays_as_it_is(tmp_path: Path) -> None:
    model = conv_model(WIDE)
    for value in model.graph.input:
        value.name = value.name.replace("lora.", "other.")
    for node in model.graph.node:
        node.input[:] = [name.replace("lora.", "other.") for name in node.input]
    onnx.save(model, path := tmp_path / "graph.onnx")
    before = path.read_bytes()
    ease_compiled_branches(path)
    assert path.read_bytes() == before
