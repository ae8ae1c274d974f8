"""What a CPU makes of a quantized graph: how many nodes compute in float, and graphs whose activations stay float by design."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")  # the graphs are written here

import onnx
import onnxruntime
from onnx import helper
from support.bundles import write_bundle
from support.lora_graph import quantized_model
from support.sentences import raising
from support.small_graphs import attention_model, model_of

from quadbench.artifacts import Caveat
from quadbench.compile import compile_bundle
from quadbench.compile.cpu_graph import allow_folding
from quadbench.compile.onnxruntime import kernels_of
from quadbench.errors import BuildError
from quadbench.lint import lint_graph
from quadbench.lint.linted_graph import graph_of
from quadbench.quad.quantize.encodings import Encoding, quantize
from quadbench.quad.quantize.quantizer import write_weight_only
from quadbench.recipe.settings import FLOAT_LABEL, Precision
from quadbench.results.layout import Layout
from quadbench.target.targets import OnnxRuntimeTarget, QnnTarget, Target

CPU = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
LORA = {name: Encoding(dtype="int16", scale=1e-3) for name in ("lora.s.down", "lora.s.up")}


def _feed(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        value.name: rng.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim]).astype(np.float32)
        for value in model.graph.input
    }


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # node by node, as the graph says
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def test_a_product_of_16_bit_activations_is_counted_as_float_and_the_times_are_marked(tmp_path: Path) -> None:
    compiled = compile_bundle(write_bundle(tmp_path / "bundle", quantized_model()), CPU, "cpu", Layout(tmp_path)).artifact
    (counts,) = compiled.kernels.values()
    assert (counts.in_integers, counts.in_float, counts.products_in_float) == (0, 1, 1)
    assert (counts.quantize, counts.dequantize) == (2, 3)
    assert compiled.caveats == (Caveat.SIMULATED_INTEGERS,)


def test_kernels_on_integers_are_known_by_their_operators() -> None:
    names = (
        "QLinearConv",
        "QGemm",
        "QLinearMatMul",
        "MatMulIntegerToFloat",
        "ConvInteger",
        "FusedConv",
        "MatMulNBits",
        "Softmax",
    )
    nodes = [helper.make_node(name, ["x"], [f"y{i}"]) for i, name in enumerate((*names, "Reshape", "ReorderInput"))]
    counts = kernels_of(graph_of(model_of(nodes, {"x": (1,)}, {}, (1,))))
    assert (counts.in_integers, counts.in_float, counts.products_in_float) == (5, 3, 2)
    assert not counts.is_simulated  # nothing is quantized


def test_with_float_activations_weights_and_lora_alone_are_integers() -> None:
    exact = attention_model()
    model = write_weight_only(exact, lora=LORA).model
    assert not [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    dtypes = {constant.name: constant.data_type for constant in model.graph.initializer}
    assert dtypes["w.axis1.int8"] == onnx.TensorProto.INT8
    assert dtypes["b"] == onnx.TensorProto.FLOAT
    feed = _feed(exact)
    integers = {name: quantize(values, LORA[name]) if name in LORA else values for name, values in feed.items()}
    expected = _run(exact, feed)
    assert np.abs(_run(model, integers) - expected).max() < 0.02 * np.abs(expected).max()
    assert lint_graph(graph_of(model), htp_arch="v79") == ()


def test_weights_that_fold_give_the_same_values_and_stay_integers_in_the_file(tmp_path: Path) -> None:
    model, path = write_weight_only(attention_model(), lora=LORA).model, tmp_path / "graph.onnx"
    onnx.save(model, path)
    allow_folding(path)
    folded = onnx.load(path)
    feed = {name: quantize(values, LORA[name]) if name in LORA else values for name, values in _feed(attention_model()).items()}
    np.testing.assert_array_equal(_run(folded, feed), _run(model, feed))
    assert next(c for c in folded.graph.initializer if c.name == "w.axis1.int8").data_type == onnx.TensorProto.INT8
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx")
    read = {node.input[0] for node in loaded.graph.node if node.op_type in ("DequantizeLinear", "Cast")}
    assert not read & {constant.name for constant in loaded.graph.initializer}  # no weight is dequantized in a run


def test_a_quantized_graph_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    onnx.save(quantized_model(), path)
    before = path.read_bytes()
    allow_folding(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("target", "is_refused"), [(QnnTarget(backend="qnn", htp_arch="v79", soc_model=69), True), (CPU, False)], ids=["qnn", "cpu"]
)
def test_float_activations_are_for_the_cpu_alone(target: Target, is_refused: bool, tmp_path: Path) -> None:
    stored = write_bundle(tmp_path / "bundle", write_weight_only(attention_model(), lora=LORA).model)
    bundle = replace(stored, artifact=replace(stored.artifact, precision=FLOAT_LABEL))
    if is_refused:
        with raising(BuildError, "key", "small"):
            compile_bundle(bundle, target, "key", Layout(tmp_path))
    else:
        assert compile_bundle(bundle, target, "key", Layout(tmp_path)).artifact.caveats == ()


def test_a_precision_with_float_activations_has_a_word() -> None:
    precision = Precision.model_validate({"weights": "int8", "activations": {"scheme": "float"}, "lora": "int16"})
    assert precision.label == FLOAT_LABEL == "w8a32"
