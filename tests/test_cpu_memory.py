"""Less memory on a CPU: chains in pieces of channels, and no plan of memory. Values are the same to the last bit."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("onnx")  # the graphs are written here

import onnx

from quadbench.compile.cpu_graph import shapes_of
from quadbench.compile.cpu_memory import hide_sizes, split_channels

CHANNELS, GROUPS, SIZE = 16, 8, 12
BYTES = CHANNELS * SIZE * SIZE * 4
PEAK = """
import re, sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(x,) = session.get_inputs()
open("/proc/self/clear_refs", "w").write("5")
kilobytes = lambda key: int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
before = kilobytes("VmRSS")
session.run(None, {x.name: np.ones(x.shape, np.float32)})
print(kilobytes("VmHWM") - before)
"""


def write(path: Path, nodes: Sequence, inputs: dict[str, tuple], outputs: dict[str, tuple], constants: dict[str, object]) -> Path:
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_block(path: Path, channels: int = CHANNELS) -> Path:
    """A residual block as a compiled graph has it: group norm, scales, SiLU and a convolution, each between Q and DQ."""
    make, nodes = onnx.helper.make_node, []
    rng, shape = np.random.default_rng(3), (1, channels, SIZE, SIZE)

    def rounded(name: str) -> str:
        nodes.append(make("QuantizeLinear", [name, "s", "z"], [f"{name}.q"], f"{name}.q"))
        nodes.append(make("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.dq"], f"{name}.dq"))
        return f"{name}.dq"

    nodes.append(make("QuantizeLinear", ["x", "s", "z"], ["x.q"], "x.q"))
    nodes.append(make("DequantizeLinear", ["x.q", "s", "z"], ["x.dq"], "x.dq"))
    nodes.append(make("DequantizeLinear", ["x.q", "s", "z"], ["x.again"], "x.again"))
    nodes.append(make("Reshape", ["x.dq", "rows.shape"], ["rows"], "rows"))
    nodes.append(make("InstanceNormalization", [rounded("rows"), "ones", "zeros"], ["norm"], "norm"))
    nodes.append(make("Reshape", [rounded("norm"), "full.shape"], ["full"], "full"))
    nodes.append(make("Conv", [rounded("full"), "scale", "bias"], ["scaled"], "scaled", group=channels))
    scaled = rounded("scaled")
    nodes.append(make("Sigmoid", [scaled], ["sigmoid"], "sigmoid"))
    nodes.append(make("Mul", [scaled, rounded("sigmoid")], ["silu"], "silu"))
    nodes.append(make("Conv", [rounded("silu"), "weight"], ["conv"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    nodes.append(make("Add", ["x.again", rounded("conv")], ["y"], "add"))
    constants = {
        "s": np.float32(0.001),
        "z": np.uint16(32768),
        "rows.shape": np.array([1, GROUPS, channels // GROUPS * SIZE * SIZE]),
        "full.shape": np.array(shape),
        "ones": np.ones(GROUPS, np.float32),
        "zeros": np.zeros(GROUPS, np.float32),
        "scale": rng.random((channels, 1, 1, 1), np.float32),
        "bias": rng.random(channels, np.float32),
        "weight": rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 20,
    }
    return write(path, nodes, {"x": shape}, {"y": shape}, constants)


def computed(path: Path, optimize: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(7)
    feed = {one.name: rng.standard_normal(one.shape).astype(np.float32) for one in session.get_inputs()}
    (value,) = session.run(None, feed)
    return value


def count(path: Path, operator: str) -> int:
    return sum(node.op_type == operator for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(("most", "pieces"), [(BYTES - 1, 2), (BYTES // 4, 4), (1, GROUPS)])
def test_a_chain_in_pieces_gives_the_same_values_to_the_last_bit(tmp_path: Path, most: int, pieces: int) -> None:
    path = write_block(tmp_path / "block.onnx")
    before = computed(path, optimize=False)
    split_channels(path, most)
    onnx.checker.check_model(onnx.load(path))
    assert count(path, "InstanceNormalization") == count(path, "Sigmoid") == pieces
    np.testing.assert_array_equal(computed(path, optimize=False), before)


def test_within_a_chain_no_float_tensor_is_larger_than_a_piece(tmp_path: Path) -> None:
    path = write_block(tmp_path / "block.onnx")
    split_channels(path, BYTES // 4)
    model = onnx.load(path)
    shapes = shapes_of(model)
    whole = {"Conv", "Add", "DequantizeLinear"}  # a convolution over all channels reads all of them
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "Split", "Concat"} and np.prod(shapes[node.output[0]]) * 4 > BYTES // 4:
            assert node.op_type in whole, node.name
    assert count(path, "Concat") == 1


def test_what_is_small_or_not_quantized_stays_as_it_is(tmp_path: Path) -> None:
    path = write_block(tmp_path / "block.onnx")
    before = path.read_bytes()
    split_channels(path, BYTES)
    hide_sizes(path)
    assert path.read_bytes() == before
    floats = write(
        tmp_path / "floats.onnx",
        [onnx.helper.make_node("Sigmoid", ["x"], ["y"], "sigmoid")],
        {"x": (1, 4, 8, 8)},
        {"y": (1, 4, 8, 8)},
        {},
    )
    before = floats.read_bytes()
    split_channels(floats, 1)
    assert floats.read_bytes() == before


def test_an_odd_number_of_channels_that_no_group_divides_stays_whole(tmp_path: Path) -> None:
    path = write_block(tmp_path / "block.onnx", channels=GROUPS)  # one channel a group: pieces of whole groups alone
    before = computed(path, optimize=False)
    split_channels(path, 1)
    assert count(path, "Sigmoid") == GROUPS
    np.testing.assert_array_equal(computed(path, optimize=False), before)


def test_hidden_sizes_give_the_same_values_and_no_tensor_of_data_has_a_known_size(tmp_path: Path) -> None:
    path = write_block(tmp_path / "block.onnx")
    before = computed(path)
    hide_sizes(path, 1)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    shapes = shapes_of(model)
    assert not {"rows.dq", "norm", "scaled", "silu", "conv"} & shapes.keys()
    assert shapes["y"] == (1, CHANNELS, SIZE, SIZE)  # as programs that bind the output have to know it
    np.testing.assert_array_equal(computed(path), before)


def write_layers(path: Path, layers: int, width: int) -> Path:
    """Layers of equal size whose INT8 weights are dequantized in every run."""
    make, nodes, constants, name = onnx.helper.make_node, [], {"scale": np.full(width, 0.01, np.float32)}, "x"
    for i in range(layers):
        constants[f"w{i}"] = np.random.default_rng(i).integers(-9, 9, (width, width), np.int8)
        nodes.append(make("DequantizeLinear", [f"w{i}", "scale"], [f"w{i}.dq"], f"w{i}", axis=0))
        nodes.append(make("Gemm", [name, f"w{i}.dq"], [f"g{i}"], f"g{i}", transB=1))
        nodes.append(make("Tanh", [f"g{i}"], [f"y{i}"], f"y{i}"))
        name = f"y{i}"
    return write(path, nodes, {"x": (2, width)}, {name: (2, width)}, constants)


def test_weights_of_equal_shape_are_dequantized_in_shapes_of_their_own(tmp_path: Path) -> None:
    path = write_layers(tmp_path / "layers.onnx", 6, 600)
    before = computed(path)
    hide_sizes(path, 1)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    weights = [tuple(one.dims) for one in model.graph.initializer if re.fullmatch(r"w\d", one.name)]
    assert len(set(weights)) == len(weights) == 6
    assert {(dims[0], int(np.prod(dims))) for dims in weights} == {(600, 360000)}
    np.testing.assert_array_equal(computed(path), before)


def test_a_run_takes_less_memory(tmp_path: Path) -> None:
    """Many tensors of one size, then a large one, then many again: the memory of the first is free while the large one exists."""
    make = onnx.helper.make_node
    wide, shape = 64, (1, 64, 192, 192)
    constants = {
        "one": np.full((wide, wide, 1, 1), 0.01, np.float32),
        "up": np.full((12 * wide, wide, 1, 1), 0.01, np.float32),
        "down": np.full((wide, 12 * wide, 1, 1), 0.01, np.float32),
    }
    nodes = []
    name = "x"
    for i in range(6):  # a name each, so that several of this size are read at a time
        nodes.append(make("Conv", [name, "one"], [f"a{i}"], f"a{i}"))
        name = f"a{i}"
    nodes.append(make("Sum", [f"a{i}" for i in range(6)], ["sum"], "sum"))
    nodes.append(make("MaxPool", ["sum"], ["less"], "less", kernel_shape=[2, 2], strides=[2, 2]))
    nodes.append(make("Conv", ["less", "up"], ["up.out"], "up"))
    nodes.append(make("Conv", ["up.out", "down"], ["down.out"], "down"))
    nodes.append(make("Resize", ["down.out", "", "scales"], ["b"], "resize", mode="nearest"))
    constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    name = "b"
    for i in range(6):
        nodes.append(make("Conv", [name, "one"], [f"c{i}"], f"c{i}"))
        name = f"c{i}"
    nodes.append(make("Sum", [f"c{i}" for i in range(6)], ["y"], "last"))
    path = write(tmp_path / "wide.onnx", nodes, {"x": shape}, {"y": shape}, constants)
    before, value = peak(path), computed(path)
    hide_sizes(path, 1)
    assert peak(path) < 0.9 * before
    np.testing.assert_array_equal(computed(path), value)


def peak(path: Path) -> int:
    """Return the kilobytes that a run adds to a process. Freed memory goes back to the system at once."""
    command, environment = [sys.executable, "-c", PEAK, str(path)], os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
