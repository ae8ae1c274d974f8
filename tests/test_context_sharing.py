"""Graphs of several tasks in one context of Qualcomm's HTP, in which equal weights are there once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime_qnn")

from support.bundles import write_bundle, write_graph  # noqa: E402
from support.htp_emulator import run_on_emulator  # noqa: E402

from quadbench.artifacts import StoredArtifact, StoredBundle, StoredCompiled, Variant  # noqa: E402
from quadbench.compile import compile_bundle  # noqa: E402
from quadbench.compile.single_file import CONTEXT_OP, operators, with_context_file  # noqa: E402
from quadbench.errors import BuildError, HarnessError  # noqa: E402
from quadbench.quad.quantize.calibration import observe_ranges  # noqa: E402
from quadbench.quad.quantize.qdq import activation_encodings, quantize_graph  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.target.targets import QnnTarget  # noqa: E402

TARGET = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)
TASKS = ("one", "two")
WIDTH, LAYERS = 512, 4
FEED = {"x": np.random.default_rng(9).standard_normal((1, 16, WIDTH)).astype(np.float32)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> StoredBundle:
    """Two tasks whose graphs differ in the last of four layers."""
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    stored, graphs = write_bundle(folder, quantized(layers(100))), []
    for seed, task in enumerate(TASKS, start=100):
        own = write_graph(folder, quantized(layers(seed)), variant=Variant.PER_GRAPH, task=task)
        graphs += [own, replace(own, variant=Variant.CONTEXT_SHARED)]
    return StoredArtifact(artifact=replace(stored.artifact, graphs=tuple(graphs)), folder=folder)


@pytest.fixture(scope="module")
def compiled(built: StoredBundle, tmp_path_factory: pytest.TempPathFactory) -> StoredCompiled:
    return compile_bundle(built, TARGET, "qnn", Layout(tmp_path_factory.mktemp("results")))


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    return quantize_graph(model, activation_encodings(model, observe_ranges(model, [FEED]), dtype="uint16"))


def layers(last_seed: int) -> onnx.ModelProto:
    """Return x (1, 16, WIDTH) -> LAYERS times MatMul and Relu -> y. `last_seed` draws the last one's weights."""
    nodes, weights, tensor = [], [], "x"
    for i in range(LAYERS):
        rng = np.random.default_rng(last_seed if i == LAYERS - 1 else i)
        weights.append(onnx.numpy_helper.from_array(rng.normal(0, 0.05, (WIDTH, WIDTH)).astype(np.float32), f"w{i}"))
        after = "y" if i == LAYERS - 1 else f"h{i}"
        nodes.append(onnx.helper.make_node("MatMul", [tensor, f"w{i}"], [f"m{i}"], f"multiply{i}"))
        nodes.append(onnx.helper.make_node("Relu", [f"m{i}"], [after], f"relu{i}"))
        tensor = after
    x, y, *inner = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 16, WIDTH])
        for name in ("x", "y", *(f"m{i}" for i in range(LAYERS)), *(f"h{i}" for i in range(LAYERS - 1)))
    )
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], weights, value_info=inner)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def test_weights_that_are_equal_are_in_the_context_once(compiled: StoredCompiled) -> None:
    own = [graph.file.size_bytes for graph in compiled.artifact.graphs if graph.variant is Variant.PER_GRAPH]
    shared = [graph for graph in compiled.artifact.graphs if graph.variant is Variant.CONTEXT_SHARED]
    (context,) = {graph.data for graph in shared}
    assert context is not None
    assert [graph.task for graph in shared] == list(TASKS)
    assert all(operators(compiled.path(graph.file)) == [CONTEXT_OP] for graph in shared)
    layer = WIDTH * WIDTH
    saved = sum(own) - context.size_bytes - sum(graph.file.size_bytes for graph in shared)
    assert (LAYERS - 1.5) * layer < saved < (LAYERS + 0.5) * layer
    assert {path.name for path in (compiled.folder / "context-shared").iterdir()} == {
        *(f"{task}.onnx" for task in TASKS), context.sha256,
    }  # fmt: skip


def test_the_emulator_loads_a_context_of_one_graph_and_dies_of_one_that_shares_weights(
    built: StoredBundle, compiled: StoredCompiled
) -> None:
    """If a newer emulator loads it, runs on virtual devices need not be refused any longer (rollout/forecast.py)."""
    expected = InferenceSession(built.folder / "per-graph/one/unet.onnx").run(None, FEED)[0]
    error = run_on_emulator(compiled.folder / "per-graph/one/unet.onnx", FEED) - expected
    assert 10 * np.log10(np.sum(expected**2) / np.sum(error**2)) > 40
    with pytest.raises(HarnessError, match="signal 11"):
        run_on_emulator(compiled.folder / "context-shared/one.onnx", FEED)


def test_a_graph_that_refers_to_another_file_is_refused(compiled: StoredCompiled, tmp_path: Path) -> None:
    graph = next(graph for graph in compiled.artifact.graphs if graph.variant is Variant.CONTEXT_SHARED)
    with pytest.raises(BuildError, match=r"other\.bin"):
        with_context_file(compiled.path(graph.file), tmp_path / "out.onnx", "other.bin", "name")
    assert not (tmp_path / "out.onnx").exists()
