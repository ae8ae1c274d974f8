"""LoRA branches on a CPU: the same values within float rounding, from fewer nodes and fewer multiply-accumulates."""

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")  # the graphs are written here
pytest.importorskip("torch")

import onnx
from onnx import helper, numpy_helper
from support.bundles import write_bundle
from support.lora_graph import quantized_model
from support.small_graphs import IN, INPUTS, OUT, RANK, conv_model, drawn, linear_model, model_of, run, seeded_feed

from quadbench.compile import compile_bundle
from quadbench.compile.cpu_graph import shapes_of
from quadbench.compile.lora_branches import fuse_lora_branches
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.quantizer import write_weight_only
from quadbench.results.layout import Layout
from quadbench.target.targets import OnnxRuntimeTarget

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def eased(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    onnx.save(model, folder / "source.onnx")
    assert fuse_lora_branches(folder / "source.onnx", folder / "eased.onnx")
    return onnx.load(folder / "eased.onnx")


def multiply_accumulates(model: onnx.ModelProto) -> int:
    shapes = shapes_of(model)  # those behind a FusedConv are unknown, and so not counted
    products = [node for node in model.graph.node if node.op_type in ("Gemm", "Conv", "FusedConv")]
    return sum(prod(shapes.get(n.output[0], (0,))) * prod(shapes.get(n.input[1], (0,))[1:]) for n in products)


@pytest.mark.parametrize("size", [2, 8], ids=["few positions", "many positions"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (1, 1), (3, 2)])
def test_convolutions_give_the_same_values(tmp_path: Path, size: int, kernel: int, stride: int) -> None:
    model = conv_model(size, kernel=kernel, stride=stride)
    feed = seeded_feed(model)
    np.testing.assert_allclose(run(eased(model, tmp_path), feed), run(model, feed), **TOLERANCE)


@pytest.mark.parametrize("tokens", [2, 6], ids=["few positions", "many positions"])
def test_linear_layers_give_the_same_values(tmp_path: Path, tokens: int) -> None:
    model = linear_model(tokens)
    feed = seeded_feed(model)
    np.testing.assert_allclose(run(eased(model, tmp_path), feed), run(model, feed), **TOLERANCE)


def test_over_few_positions_the_last_product_adds_the_base_and_nothing_reshapes_between(tmp_path: Path) -> None:
    conv, linear = eased(conv_model(2), tmp_path), eased(linear_model(2), tmp_path)
    assert [node.op_type for node in conv.graph.node] == ["Conv", "Conv", "FusedConv"]
    before, after = (Counter(node.op_type for node in model.graph.node) for model in (linear_model(2), linear))
    assert before - after == {"Reshape": 3, "Add": 1}
    assert not after - before


def test_over_many_positions_the_adapter_is_added_to_the_weights(tmp_path: Path) -> None:
    model = linear_model(6)
    after = eased(model, tmp_path)
    assert Counter(node.op_type for node in after.graph.node) == {"Gemm": 2, "Reshape": 2, "Transpose": 1, "MatMul": 1}
    assert multiply_accumulates(after) < multiply_accumulates(model)
    conv = eased(conv_model(8), tmp_path)
    assert [node.op_type for node in conv.graph.node if "x" in node.input] == ["Conv"]  # no other product over all positions


@pytest.mark.parametrize(("kernel", "is_in_weights"), [(1, True), (3, False)])
def test_a_wide_convolution_over_neighbours_keeps_its_weights_constant(tmp_path: Path, kernel: int, is_in_weights: bool) -> None:
    model = eased(conv_model(8, kernel=kernel, out=64), tmp_path)
    assert len([node for node in model.graph.node if "x" in node.input]) == (1 if is_in_weights else 2)


def test_a_quantized_graph_and_one_without_lora_are_left_alone(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    plain = model_of([node], {"x": (1, IN, 2, 2)}, {"w": drawn(OUT, IN, 1, 1)}, (1, OUT, 2, 2))
    for model in (quantized_model(), plain):
        onnx.save(model, tmp_path / "source.onnx")
        assert not fuse_lora_branches(tmp_path / "source.onnx", tmp_path / "eased.onnx")
        assert not (tmp_path / "eased.onnx").exists()


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize(
    "change", ["base is read", "base is an output", "term is an output", "other input", "other padding", "bias", "up moves"]
)
def test_a_site_in_another_form_stays_as_it_is(tmp_path: Path, change: str, size: int) -> None:
    model = conv_model(size)
    _base, down, up, _total = model.graph.node
    match change:
        case "base is read":
            model.graph.node.append(helper.make_node("Mul", ["base", "y"], ["z"]))
            model.graph.output[0].name = "z"
        case "base is an output" | "term is an output":
            model.graph.output.add().CopyFrom(model.graph.output[0])
            model.graph.output[1].name = "base" if change == "base is an output" else "high"
        case "other input":
            model.graph.node.insert(0, helper.make_node("Sigmoid", ["x"], ["other"]))
            down.input[0] = "other"
        case "other padding":
            pads = next(attribute for attribute in down.attribute if attribute.name == "pads")
            pads.CopyFrom(helper.make_attribute("auto_pad", "SAME_UPPER"))
        case "up moves":
            up.attribute.append(helper.make_attribute("strides", [2, 2]))
            up.attribute.append(helper.make_attribute("pads", [0, 0, size - 1, size - 1]))
        case "bias":
            up.input.append("b")
    before = Counter(node.op_type for node in model.graph.node)
    assert Counter(node.op_type for node in eased(model, tmp_path).graph.node) == before


@pytest.mark.parametrize("size", [2, 8])
def test_a_convolution_over_one_dimension_stays_as_it_is(tmp_path: Path, size: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["base"]),
        helper.make_node("Conv", ["x", INPUTS[0]], ["low"]),
        helper.make_node("Conv", ["low", INPUTS[1]], ["high"]),
        helper.make_node("Add", ["base", "high"], ["y"]),
    ]
    shapes = {"x": (1, IN, size), INPUTS[0]: (RANK, IN, 1), INPUTS[1]: (OUT, RANK, 1)}
    model = model_of(nodes, shapes, {"w": drawn(OUT, IN, 1)}, (1, OUT, size))
    assert list(eased(model, tmp_path).graph.node) == nodes


@pytest.mark.parametrize("tokens", [2, 6])
def test_a_sum_of_terms_in_other_shapes_stays_a_sum(tmp_path: Path, tokens: int) -> None:
    model = linear_model(tokens)
    place, total = next((place, node) for place, node in enumerate(model.graph.node) if node.op_type == "Add")
    model.graph.node.insert(place, helper.make_node("Reshape", [total.input[1], "apart"], ["each"], "each"))
    total.input[1] = "each"
    model.graph.initializer.append(numpy_helper.from_array(np.array([tokens, 1, OUT]), "apart"))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = tokens
    feed = seeded_feed(model)
    np.testing.assert_allclose(run(eased(model, tmp_path), feed), run(model, feed), **TOLERANCE)


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("name", ["base", "high", "low", "beside"])
def test_a_tensor_that_a_subgraph_reads_is_computed_before_it(tmp_path: Path, name: str, size: int) -> None:
    model = conv_model(size)
    model.graph.node[-1].output[0] = "sum"
    shapeless = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph(
        [helper.make_node("ReduceMax", [name], ["max"]), helper.make_node("Add", ["sum", "max"], ["z"])], "one", [], [shapeless]
    )
    model.graph.node.append(helper.make_node("Sigmoid", ["sum"], ["beside"], "beside"))
    model.graph.node.append(helper.make_node("If", ["true"], ["y"], "if", then_branch=branch, else_branch=branch))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    feed = seeded_feed(model)
    np.testing.assert_allclose(run(eased(model, tmp_path), feed), run(model, feed), **TOLERANCE)


@pytest.mark.parametrize(("provider", "is_eased"), [("cpu", True), ("xnnpack", False)])
def test_a_graph_with_float_activations_is_eased_for_the_cpu_alone(provider: str, is_eased: bool, tmp_path: Path) -> None:
    lora = {name: Encoding(dtype="int16", scale=1e-3) for name in INPUTS}
    bundle = write_bundle(tmp_path / "bundle", write_weight_only(linear_model(6), lora=lora).model)
    target = OnnxRuntimeTarget(backend="onnxruntime", execution_provider=provider)
    compiled = compile_bundle(bundle, target, "key", Layout(tmp_path))
    (graph,) = compiled.artifact.graphs
    operators = Counter(node.op_type for node in onnx.load(compiled.path(graph.file)).graph.node)
    assert operators["Gemm"] == (2 if is_eased else 3)
    assert operators["Add"] == (0 if is_eased else 1)
