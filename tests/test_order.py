"""Weights are made ready late: right before the layer that takes them, and nothing else changes."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from quadbench.compile.cpu_graph import defer_weights

onnx = pytest.importorskip("onnx")

LAYERS, WIDTH = 4, 8


def write_layers(path: Path, *, branch: bool = False) -> None:
    """Layers with an INT8 weight and an INT16 LoRA each, as an exporter writes them: made ready right before they are read."""
    make, stored, nodes, name = onnx.helper.make_node, {"s": np.float32(0.1)}, [], "x"
    values = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, WIDTH))]
    for i in range(LAYERS):
        stored[f"w{i}"] = np.full((WIDTH, WIDTH), i + 1, np.int8)
        values.append(onnx.helper.make_tensor_value_info(f"lora.{i}", onnx.TensorProto.INT16, (WIDTH, WIDTH)))
        nodes += [
            make("DequantizeLinear", [f"w{i}", "s"], [f"w{i}.dq"], f"weight{i}"),
            make("DequantizeLinear", [f"lora.{i}", "s"], [f"l{i}.dq"], f"lora{i}"),
            make("Add", [f"w{i}.dq", f"l{i}.dq"], [f"sum{i}"], f"sum{i}"),
            make("MatMul", [name, f"sum{i}"], [f"y{i}"], f"layer{i}"),
        ]
        name = f"y{i}"
    if branch:  # whose outcome needs an activation that the node does not name as its input
        taken = onnx.helper.make_graph([make("Identity", ["y0"], ["z"], "taken")], "taken", [], [_float("z")])
        stored["yes"] = np.bool_(True)
        nodes += [make("If", ["yes"], ["branched"], "if", then_branch=taken, else_branch=taken)]
        nodes += [make("Add", [name, "branched"], ["all"], "all")]
        name = "all"
    weights = [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in stored.items()]
    graph = onnx.helper.make_graph(nodes, "layers", values, [_float(name)], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _float(name: str):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, WIDTH))


def run(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return what a graph computes and the order in which its nodes ran."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling, options.profile_file_prefix = True, str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {f"lora.{i}": np.full((WIDTH, WIDTH), i, np.int16) for i in range(LAYERS)}
    (output,) = session.run(None, {"x": np.arange(WIDTH, dtype=np.float32)[None], **feed})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["name"].removesuffix("_kernel_time") for event in events if event["name"].endswith("_kernel_time")]
    return output, ran


def test_a_weight_is_made_ready_when_the_layer_before_it_has_run(tmp_path: Path) -> None:
    path = tmp_path / "layers.onnx"
    write_layers(path)
    before, early = run(path)
    assert early.index("weight3") < early.index("layer0")
    defer_weights(path)
    after, late = run(path)
    np.testing.assert_array_equal(before, after)
    for i in range(1, LAYERS):
        assert late.index(f"layer{i - 1}") < min(late.index(f"{name}{i}") for name in ("weight", "lora", "sum"))


def test_a_node_with_a_graph_inside_stays_behind_what_that_reads(tmp_path: Path) -> None:
    path = tmp_path / "layers.onnx"
    write_layers(path, branch=True)
    before, _ = run(path)
    defer_weights(path)
    onnx.checker.check_model(onnx.load(path))
    np.testing.assert_array_equal(before, run(path)[0])


def test_a_graph_in_that_order_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "layers.onnx"
    write_layers(path)
    defer_weights(path)
    before = path.read_bytes()
    path.chmod(0o400)
    defer_weights(path)
    assert path.read_bytes() == before
