"""Attention in pieces: the same values to the last bit, and no whole map of scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("onnx")  # the graphs are written here

import onnx
from support.small_graphs import model_of

from quadbench.compile.cpu_graph import RUNTIMES_OWN, split_attention

HEADS, TOKENS, WIDTH = 2, 48, 4
SCORES = (HEADS, TOKENS, TOKENS)
BYTES = HEADS * TOKENS * TOKENS * 4


def write_attention(path: Path, *, axis: int = -1, branches: bool = False) -> None:
    """Rounded attention as a compiled graph has it: scores, scale and softmax each between Q and DQ."""
    constants = {"s": np.float32(0.01), "z": np.uint16(32768), "root": np.float32(0.5)}
    nodes = [onnx.helper.make_node("MatMul", ["q", "k"], ["scores"], "product")]
    name = "scores"
    for number, (operator, *others) in enumerate((("Mul", "root"), ("Softmax",))):
        attributes = {"axis": axis} if operator == "Softmax" else {}
        nodes += [
            onnx.helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}.q"], f"q{number}"),
            onnx.helper.make_node("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.dq"], f"dq{number}"),
            onnx.helper.make_node(operator, [f"{name}.dq", *others], [operator], operator, **attributes),
        ]
        name = operator
    nodes.append(onnx.helper.make_node("MatMul", [name, "v"], ["out"], "values"))
    if branches:
        nodes.append(onnx.helper.make_node("ReduceMax", ["scores"], ["highest"], "reduce", keepdims=0))
    shapes = {"q": (HEADS, TOKENS, WIDTH), "k": (HEADS, WIDTH, TOKENS), "v": (HEADS, TOKENS, WIDTH)}
    inputs = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key, shape in shapes.items()]
    outputs = [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, shapes["q"])]
    if branches:
        outputs.append(onnx.helper.make_tensor_value_info("highest", onnx.TensorProto.FLOAT, ()))
    stored = [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "attention", inputs, outputs, stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def computed(path: Path) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {one.name: rng.standard_normal(one.shape).astype(np.float32) for one in session.get_inputs()}
    return list(session.run(None, feed))


def assert_stays_whole(path: Path, most: int = 1) -> None:
    before = path.read_bytes()
    split_attention(path, most)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("most", "pieces"), [(BYTES // 2, 2), (BYTES // 4, 4), (BYTES // 5, 6), (1, 6)])
def test_pieces_give_the_same_values_to_the_last_bit(tmp_path: Path, most: int, pieces: int) -> None:
    path = tmp_path / "attention.onnx"
    write_attention(path)
    before = computed(path)
    split_attention(path, most)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Softmax") == pieces
    assert operators.index("Concat") == len(operators) - 1
    for old, new in zip(before, computed(path), strict=True):
        np.testing.assert_array_equal(old, new)


def test_each_piece_is_done_before_the_next_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    write_attention(path)
    split_attention(path, BYTES // 3)
    pieces = [node.name.rpartition("piece")[2] for node in onnx.load(path).graph.node if "piece" in node.name]
    assert pieces == sorted(pieces)


def write_fused_attention(path: Path, *, transposed: str = "") -> None:
    """Float attention as ONNX Runtime leaves it: the scale is in the product of queries and keys."""
    first, last = ({f"trans{transposed[1]}": 1} if transposed[:1] == place else {} for place in "01")
    nodes = [
        onnx.helper.make_node("QuickGelu", ["q"], ["queries"], "gelu", domain=RUNTIMES_OWN),
        onnx.helper.make_node("FusedMatMul", ["queries", "k"], ["scores"], "product", domain=RUNTIMES_OWN, alpha=0.5, **first),
        onnx.helper.make_node("Softmax", ["scores"], ["shares"], "softmax", axis=-1),
        onnx.helper.make_node("FusedMatMul", ["shares", "v"], ["out"], "values", domain=RUNTIMES_OWN, **last),
    ]
    shapes = {
        "q": (HEADS, TOKENS, WIDTH),
        "k": (HEADS, WIDTH, TOKENS),
        "v": (HEADS, TOKENS, WIDTH),
        "out": (HEADS, TOKENS, WIDTH),
    }
    if transposed[:1] == "0":
        name = {"A": "q", "B": "k"}[transposed[1]]
        shapes[name] = (HEADS, *reversed(shapes[name][1:]))
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = onnx.helper.make_graph(nodes, "attention", values[:3], values[3:])
    graph.value_info.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, SCORES))
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in (("", 21), (RUNTIMES_OWN, 1))]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def test_products_of_onnx_runtime_s_own_are_computed_in_pieces_too(tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    write_fused_attention(path)
    before = computed(path)
    split_attention(path, BYTES // 3)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("FusedMatMul") == 6
    np.testing.assert_array_equal(before[0], computed(path)[0])


@pytest.mark.parametrize("transposed", ["0A", "0B", "1A"])
def test_products_that_transpose_stay_whole(tmp_path: Path, transposed: str) -> None:
    path = tmp_path / "attention.onnx"
    write_fused_attention(path, transposed=transposed)
    assert np.isfinite(computed(path)[0]).all()
    assert_stays_whole(path)


Shapes = dict[str, tuple[int, ...]]
PLAIN: Shapes = {
    "q": (HEADS, TOKENS, WIDTH),
    "k": (HEADS, WIDTH, TOKENS),
    "v": (HEADS, TOKENS, WIDTH),
    "y": (HEADS, TOKENS, WIDTH),
}


def write_plain_attention(path: Path, shapes: Shapes, between: Sequence[onnx.NodeProto] = ()) -> onnx.ModelProto:
    """Write float attention of nodes without names; `between` makes the shares of the scores, or Softmax does."""
    softmax = onnx.helper.make_node("Softmax", ["scores"], ["shares"])
    first, last = (onnx.helper.make_node("MatMul", *names) for names in ((["q", "k"], ["scores"]), (["shares", "v"], ["y"])))
    inputs = {name: shape for name, shape in shapes.items() if name != "y"}
    model = model_of([first, *(between or [softmax]), last], inputs, {}, shapes["y"])
    onnx.save(model, path)
    return model


def test_nodes_without_names_are_computed_in_pieces_too(tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    write_plain_attention(path, PLAIN)
    before = computed(path)
    split_attention(path, BYTES // 3)
    assert [node.op_type for node in onnx.load(path).graph.node].count("Softmax") == 3
    np.testing.assert_array_equal(before[0], computed(path)[0])


@pytest.mark.parametrize(
    "shapes",
    [
        {"q": (TOKENS, WIDTH)},
        {"q": (TOKENS, TOKENS), "k": (HEADS, TOKENS, TOKENS)},
        {"k": (WIDTH,), "q": (TOKENS, WIDTH), "v": (TOKENS, WIDTH), "y": (WIDTH,)},
        {"q": (TOKENS, WIDTH), "k": (WIDTH, TOKENS)},
    ],
    ids=["queries of all heads", "as many channels as tokens", "a key", "values of each head"],
)
def test_rows_in_another_dimension_stay_whole(tmp_path: Path, shapes: Shapes) -> None:
    path = tmp_path / "attention.onnx"
    write_plain_attention(path, PLAIN | shapes)
    assert np.isfinite(computed(path)[0]).all()
    assert_stays_whole(path)


def test_scores_that_are_an_output_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    model = write_plain_attention(path, PLAIN)
    model.graph.output.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, SCORES))
    onnx.save(model, path)
    assert_stays_whole(path)


def test_a_mask_of_unknown_shape_is_none_of_a_single_value(tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    masked = [
        onnx.helper.make_node("Add", ["scores", "mask"], ["masked"]),
        onnx.helper.make_node("Softmax", ["masked"], ["shares"]),
    ]
    model = write_plain_attention(path, PLAIN, masked)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, None))
    onnx.save(model, path)
    assert_stays_whole(path)


def test_of_chains_that_share_a_product_one_is_computed_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    steps = [("Softmax", "scores", "rows"), ("MatMul", "rows", "mixed"), ("Softmax", "mixed", "shares")]
    nodes = [onnx.helper.make_node(step, [name, "m"] if step == "MatMul" else [name], [result]) for step, name, result in steps]
    write_plain_attention(path, PLAIN | {"m": SCORES}, nodes)
    before = computed(path)
    split_attention(path, BYTES // 2)
    assert [node.op_type for node in onnx.load(path).graph.node].count("Softmax") == 3
    np.testing.assert_array_equal(before[0], computed(path)[0])


@pytest.mark.parametrize("graph", [{"axis": 1}, {"branches": True}])
def test_what_does_not_work_row_by_row_stays_whole(tmp_path: Path, graph: dict[str, int]) -> None:
    path = tmp_path / "attention.onnx"
    write_attention(path, **graph)
    assert_stays_whole(path)


def test_small_scores_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "attention.onnx"
    write_attention(path)
    assert_stays_whole(path, BYTES)
