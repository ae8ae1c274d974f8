"""The .tflite writer: every operator's form on LiteRT's CPU against torch, and the dialect that both compute in."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from support.sentences import raising, says  # noqa: E402
from support.small_graphs import model_of, typed_model  # noqa: E402
from support.tflite_run import dialect_of, quantized_by_feed, run_exactly, run_tflite, sqnr_db  # noqa: E402

from quadbench.compile.litert import operators_of  # noqa: E402
from quadbench.compile.tflite import reencode_for_litert, write_tflite  # noqa: E402
from quadbench.compile.tflite.flatbuffer import TfliteWriter  # noqa: E402
from quadbench.compile.tflite.rounded_graph import UNIT_SCALE, Constant, RoundedGraph, symmetric_scale  # noqa: E402
from quadbench.errors import BuildError  # noqa: E402
from quadbench.quad.quantize import passes  # noqa: E402
from quadbench.quad.quantize.encodings import symmetric  # noqa: E402
from quadbench.quad.quantize.fake_quant import FakeQuantGraph  # noqa: E402

Feed = dict[str, np.ndarray]
PEAK = """\
import sys
from pathlib import Path
import ai_edge_litert.schema_py_generated, onnx
from quadbench.compile.tflite import flatbuffer, forms, write_tflite
from quadbench.host import peak_memory_bytes
before = peak_memory_bytes()
write_tflite(Path(sys.argv[1]), Path(sys.argv[2]))
print(before, peak_memory_bytes())
"""
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_values_in_any_order() -> None:
    RNG.bit_generator.state = START


def values(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def convolution(kernel: int, stride: int, pads: list[int]) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[stride] * 2, pads=pads)
    size = (8 + pads[0] + pads[2] - kernel) // stride + 1
    weights = {"w": values(6, 5, kernel, kernel), "b": values(6)}
    return model_of([node], {"x": (1, 5, 8, 8)}, weights, (1, 6, size, size))


def linear() -> onnx.ModelProto:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    return model_of([node], {"x": (7, 32)}, {"w": values(16, 32), "b": values(16)}, (7, 16))


def attention() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["k"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "turned"], ["raw"]),
        helper.make_node("Mul", ["raw", "scale"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["y"]),
    ]
    mask = np.triu(np.full((1, 1, 6, 6), passes.MASKED_SCORE, np.float32), 1)
    constants = {"scale": np.float32(8**-0.5), "mask": mask}
    return model_of(nodes, dict.fromkeys("qkv", (1, 2, 6, 8)), constants, (1, 2, 6, 8))


def group_norm(shape: tuple[int, ...], channels: int) -> onnx.ModelProto:
    weights = {"scale": values(channels), "offset": values(channels)}
    node = helper.make_node("GroupNormalization", ["x", "scale", "offset"], ["y"], "norm", num_groups=4, epsilon=1e-5)
    model = model_of([node], {"x": shape}, weights, shape)
    passes.decompose_group_norm(model)
    return model


def layer_norm() -> onnx.ModelProto:
    node = helper.make_node("LayerNormalization", ["x", "scale", "offset"], ["y"], axis=-1, epsilon=1e-5)
    return model_of([node], {"x": (1, 7, 32)}, {"scale": values(32), "offset": values(32)}, (1, 7, 32))


def one(
    op_type: str, output: tuple[int, ...] = (1, 4, 6, 6), constants: Feed | None = None, **attributes: object
) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x", *(constants or {})], ["y"], **attributes)
    return model_of([node], {"x": (1, 4, 6, 6)}, constants or {}, output)


def two(op_type: str, other: tuple[int, ...]) -> onnx.ModelProto:
    return model_of([helper.make_node(op_type, ["x", "z"], ["y"])], {"x": (1, 4, 6, 6), "z": other}, {}, (1, 4, 6, 6))


def parts() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Mul", ["b", "ten"], ["c"]),
        helper.make_node("Concat", ["c", "a"], ["y"], axis=1),
    ]
    return model_of(nodes, {"x": (1, 4, 6, 6)}, {"ten": np.float32(10)}, (1, 4, 6, 6))


def half() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Mul", ["a", "factor"], ["y"]),
    ]
    return model_of(nodes, {"x": (1, 4, 6, 6)}, {"factor": np.float32(0.18215)}, (1, 2, 6, 6))


def between_convolutions(*nodes: onnx.NodeProto, constants: Feed | None = None, size: int = 6) -> onnx.ModelProto:
    """Return nodes from h to g between two convolutions, which have their channels last in LiteRT."""
    weights = {"w": values(4, 4, 1, 1), "v": values(4, 4, 1, 1), **(constants or {})}
    around = [helper.make_node("Conv", ["x", "w"], ["h"]), *nodes, helper.make_node("Conv", ["g", "v"], ["y"])]
    return model_of(around, {"x": (1, 4, 6, 6)}, weights, (1, 4, size, size))


def tokens() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "rows"], ["r"]),
        helper.make_node("Reshape", ["r", "image"], ["i"]),
        helper.make_node("Transpose", ["i"], ["g"], perm=[0, 3, 1, 2]),
    ]
    return between_convolutions(*nodes, constants={"rows": integers(1, 36, 4), "image": integers(1, 6, 6, 4)})


def doubled() -> onnx.ModelProto:
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    node = helper.make_node("Resize", ["h", "", "factors"], ["g"], **attributes)
    return between_convolutions(node, constants={"factors": np.array([1, 1, 2, 2], np.float32)}, size=12)


FORMS: dict[str, tuple[Callable[[], onnx.ModelProto], float]] = {
    "a convolution": (lambda: convolution(3, 1, [1, 1, 1, 1]), 80),
    "a convolution that halves": (lambda: convolution(3, 2, [1, 1, 1, 1]), 80),
    "a convolution that halves and pads at the end alone": (lambda: convolution(3, 2, [0, 0, 1, 1]), 80),
    "a convolution of single places": (lambda: convolution(1, 1, [0, 0, 0, 0]), 80),
    "a linear layer": (linear, 80),
    "attention with a mask": (attention, 55),
    "a group norm": (lambda: group_norm((1, 16, 6, 6), 16), 75),
    "a group norm of more channels than a single filter may have": (lambda: group_norm((1, 320, 4, 4), 320), 75),
    "a layer norm": (layer_norm, 75),
    "Sigmoid": (lambda: one("Sigmoid"), 75),
    "Gelu": (lambda: one("Gelu"), 65),
    "Gelu by tanh": (lambda: one("Gelu", approximate="tanh"), 65),
    "Add": (lambda: two("Add", (1, 4, 6, 6)), 80),
    "Add to each channel": (lambda: two("Add", (1, 4, 1, 1)), 80),
    "Sub": (lambda: two("Sub", (1, 4, 6, 6)), 80),
    "Mul": (lambda: two("Mul", (1, 4, 6, 6)), 75),
    "Mul by a number": (lambda: one("Mul", constants={"factor": np.float32(1.702)}), 80),
    "Div by a number": (lambda: one("Div", constants={"divisor": np.float32(1.5)}), 80),
    "Split, and Concat of other scales": (parts, 75),
    "Split of which one part is read": (half, 80),
    "Slice": (lambda: one("Slice", (1, 2, 6, 6), dict(zip("abc", (integers(1), integers(3), integers(1)), strict=True))), 80),
    "Unsqueeze": (lambda: one("Unsqueeze", (1, 1, 4, 6, 6), {"axes": integers(1)}), 80),
    "an image as tokens and back": (tokens, 75),
    "an image of twice the size": (doubled, 75),
    "an image plus a number for each column": (
        lambda: between_convolutions(helper.make_node("Add", ["h", "row"], ["g"]), constants={"row": values(6)}),
        75,
    ),
    "Sigmoid of an image": (lambda: between_convolutions(helper.make_node("Sigmoid", ["h"], ["g"])), 70),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_computes_what_torch_does(name: str, tmp_path: Path) -> None:
    model, least_db = FORMS[name][0](), FORMS[name][1]
    feed = {v.name: values(*(d.dim_value for d in v.type.tensor_type.shape.dim)) for v in model.graph.input}
    quantized = quantized_by_feed(model, feed)
    onnx.save(quantized, tmp_path / "model.onnx")
    write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
    with torch.no_grad():
        expected = FakeQuantGraph(dialect_of(quantized))({key: torch.from_numpy(value) for key, value in feed.items()}).numpy()
    assert sqnr_db(expected, run_tflite(tmp_path / "model.tflite", feed)) > least_db


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ((1, 16, 36), lambda: group_norm((1, 16, 36), 16)),
        ((1, 4, 6, 6), lambda: one("ReduceMean", (1, 4, 1, 1), {"axes": integers(2, 3)}, keepdims=1)),
    ],
)
def test_a_form_of_which_torch_has_none_here_computes_what_onnx_runtime_does(
    shape: tuple[int, ...], make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    feed = {"x": values(*shape)}
    quantized = quantized_by_feed(make(), feed)
    onnx.save(quantized, tmp_path / "model.onnx")
    write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
    assert sqnr_db(run_exactly(dialect_of(quantized), feed), run_tflite(tmp_path / "model.tflite", feed)) > 65


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (None, 1)])
@pytest.mark.parametrize("dtype", ["int16", "int8"])
def test_lora_weights_are_inputs_of_the_file_and_compute_what_torch_does(
    kernel: int | None, stride: int, dtype: str, tmp_path: Path
) -> None:
    model, lora = lora_site(kernel, stride), {}
    feed = {v.name: values(*(d.dim_value for d in v.type.tensor_type.shape.dim)) for v in model.graph.input}
    lora = {name: symmetric(float(np.abs(value).max()), dtype) for name, value in feed.items() if name.startswith("lora.")}
    quantized = quantized_by_feed(model, feed, lora)
    onnx.save(quantized, tmp_path / "model.onnx")
    write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
    stored = {name: np.rint(feed[name] / encoding.scale).astype(dtype) for name, encoding in lora.items()}
    expected = run_exactly(dialect_of(quantized), feed | stored)
    assert sqnr_db(expected, run_tflite(tmp_path / "model.tflite", feed | stored)) > 75
    nothing = {name: np.zeros_like(value) for name, value in stored.items()}
    assert np.all(run_tflite(tmp_path / "model.tflite", feed | nothing) == 0)


def lora_site(kernel: int | None, stride: int) -> onnx.ModelProto:
    """Return up (down x) of a convolution, or of a linear layer where there is no kernel."""
    names = ["lora.s.down", "lora.s.up"]
    if kernel is None:
        nodes = [
            helper.make_node("Gemm", [a, b], [c], transB=1) for a, b, c in zip(["x", "low"], names, ["low", "y"], strict=True)
        ]
        return model_of(nodes, {"x": (7, 32), names[0]: (3, 32), names[1]: (16, 3)}, {}, (7, 16))
    down = helper.make_node("Conv", ["x", names[0]], ["low"], strides=[stride] * 2, pads=[kernel // 2] * 4)
    up = helper.make_node("Conv", ["low", names[1]], ["y"])
    shapes = {"x": (1, 5, 8, 8), names[0]: (3, 5, kernel, kernel), names[1]: (6, 3, 1, 1)}
    return model_of([down, up], shapes, {}, (1, 6, 8 // stride, 8 // stride))


def test_the_values_of_constants_begin_at_multiples_of_16_bytes(tmp_path: Path) -> None:
    onnx.save(quantized_by_feed(convolution(3, 1, [1, 1, 1, 1]), {"x": values(1, 5, 8, 8)}), tmp_path / "model.onnx")
    write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
    data = (tmp_path / "model.tflite").read_bytes()
    model = schema.Model.GetRootAs(data)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert len(starts) > 2
    assert all(start % 16 == 0 for start in starts)


def test_token_ids_are_looked_up(tmp_path: Path) -> None:
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, [1, 5])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 5, 8])
    nodes = [helper.make_node("Reshape", ["ids", "shape"], ["row"]), helper.make_node("Gather", ["table", "row"], ["y"])]
    constants = {"table": values(20, 8), "shape": integers(1, 5)}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model, feed = typed_model(nodes, [ids], [y], initializers), {"ids": np.array([[3, 1, 4, 1, 19]], np.int32)}
    quantized = quantized_by_feed(model, feed)
    onnx.save(quantized, tmp_path / "model.onnx")
    write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
    assert sqnr_db(run_exactly(dialect_of(quantized), feed), run_tflite(tmp_path / "model.tflite", feed)) > 80


def test_rows_that_are_always_the_same_are_looked_up_beforehand(tmp_path: Path) -> None:
    """As of position embeddings, which a text encoder adds to those of tokens."""
    nodes = [helper.make_node("Gather", ["table", "places"], ["rows"]), helper.make_node("Add", ["x", "rows"], ["y"])]
    model = model_of(nodes, {"x": (1, 5, 8)}, {"table": values(20, 8), "places": integers(3, 0, 4, 19, 7)[None]}, (1, 5, 8))
    feed = {"x": values(1, 5, 8)}
    quantized = quantized_by_feed(model, feed)
    onnx.save(quantized, tmp_path / "model.onnx")
    write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
    assert "GATHER" not in operators_of(tmp_path / "model.tflite")
    assert sqnr_db(run_exactly(dialect_of(quantized), feed), run_tflite(tmp_path / "model.tflite", feed)) > 80


def test_integers_that_stand_for_themselves_are_never_rounded_as_values() -> None:
    places = Constant(values=integers(3, 0, 4))
    graph = RoundedGraph(inputs={}, outputs={}, shapes={"places": (3,)}, constants={"places": places})
    with raising(BuildError, "places", "int64"):
        TfliteWriter(graph).plain("places")


def test_weights_are_in_memory_twice_at_most_while_they_are_written(tmp_path: Path) -> None:
    side = 2048
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    model = model_of([node], {"x": (1, side)}, {"w": values(side, side)}, (1, side))
    onnx.save(quantized_by_feed(model, {"x": values(1, side)}), tmp_path / "model.onnx")
    words = [str(tmp_path / "model.onnx"), str(tmp_path / "model.tflite")]
    said = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, check=True).stdout
    before, most = (int(word) for word in said.split())
    own = 10 * 2**20  # what the libraries take, however large the weights are
    assert most - before - own < 3.5 * side * side  # with flatbuffers' own writer over 6


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-1.0, 3.0, 3 / 32767), (-3.0, 1.0, 3 / 32767), (0.0, 2.0, 2 / 32767), (0.0, 1.0, UNIT_SCALE)]
)
def test_a_range_becomes_symmetric_and_that_of_a_sigmoid_what_litert_demands(low: float, high: float, expected: float) -> None:
    scale = (high - low) / 65535
    assert symmetric_scale(scale, round(-low / scale)) == pytest.approx(expected, rel=1e-4)


def test_the_dialect_leaves_weights_and_lora_inputs_as_they_are(tmp_path: Path) -> None:
    model = lora_site(3, 1)
    feed = {v.name: values(*(d.dim_value for d in v.type.tensor_type.shape.dim)) for v in model.graph.input}
    lora = {name: symmetric(4.0, "int16") for name in feed if name.startswith("lora.")}
    quantized = quantized_by_feed(model, feed, lora)
    dialect = dialect_of(quantized)
    assert {(v.name, v.type.tensor_type.elem_type) for v in dialect.graph.input} == {
        (v.name, v.type.tensor_type.elem_type) for v in quantized.graph.input
    }
    assert _scale_of(dialect, "lora.s.down") == _scale_of(quantized, "lora.s.down")
    layer = quantized_by_feed(linear(), {"x": values(7, 32)})
    weights = [
        numpy_helper.to_array(i) for m in (layer, dialect_of(layer)) for i in m.graph.initializer if i.name == "w.axis0.int8"
    ]
    assert np.array_equal(*weights)


def _scale_of(model: onnx.ModelProto, name: str) -> float:
    node = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == name)
    return float(numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == node.input[1])))


def test_activations_in_8_bits_are_refused() -> None:
    model = quantized_by_feed(linear(), {"x": values(7, 32)})
    for constant in model.graph.initializer:
        if constant.name.startswith("zero_point.uint16"):
            constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.uint8), constant.name))
    with raising(BuildError, "x", 8):
        reencode_for_litert(model)


def refused(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], output: tuple[int, ...], tmp_path: Path) -> str:
    model = model_of([node], shapes, {}, output)
    feed = {name: values(*shape) for name, shape in shapes.items()}
    onnx.save(quantized_by_feed(model, feed), tmp_path / "model.onnx")
    with pytest.raises(BuildError) as caught:
        write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()
    return caught.value.message


def test_an_operator_without_a_form_is_named(tmp_path: Path) -> None:
    says(refused(helper.make_node("Tanh", ["x"], ["y"], "bend"), {"x": (1, 4)}, (1, 4), tmp_path), "bend")


def test_a_softmax_over_another_axis_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], "rows", axis=1)
    says(refused(node, {"x": (1, 4, 6)}, (1, 4, 6), tmp_path), "Softmax", "rows", 1)


def test_an_enlarging_of_another_form_is_refused(tmp_path: Path) -> None:
    model = doubled()
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    next(attribute for attribute in resize.attribute if attribute.name == "nearest_mode").s = b"ceil"
    onnx.save(quantized_by_feed(model, {"x": values(1, 4, 6, 6)}), tmp_path / "model.onnx")
    with raising(BuildError):
        write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")


def test_a_graph_that_is_not_rounded_everywhere_is_refused(tmp_path: Path) -> None:
    onnx.save(two("Add", (1, 4, 6, 6)), tmp_path / "model.onnx")
    with raising(BuildError, "y"):
        write_tflite(tmp_path / "model.onnx", tmp_path / "model.tflite")
