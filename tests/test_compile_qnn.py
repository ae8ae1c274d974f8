"""Qualcomm's compiler on graphs of one layer; the whole model is in test_qnn_model.py."""

import multiprocessing
import shutil
import sys
from dataclasses import replace
from multiprocessing.pool import Pool, ThreadPool
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime_qnn")

from support.bundles import write_bundle  # noqa: E402
from support.htp_emulator import run_on_emulator  # noqa: E402
from support.lora_graph import model_of, quantized_model  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench.artifacts import StoredArtifact, StoredBundle, StoredCompiled, Variant  # noqa: E402
from quadbench.compile import compile_bundle  # noqa: E402
from quadbench.compile.qnn import QnnCompiler  # noqa: E402
from quadbench.compile.single_file import CONTEXT_OP, operators  # noqa: E402
from quadbench.errors import BuildError, MissingDependencyError  # noqa: E402
from quadbench.quad.quantize import passes  # noqa: E402
from quadbench.quad.quantize.calibration import observe_ranges  # noqa: E402
from quadbench.quad.quantize.qdq import activation_encodings, quantize_graph  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.target.targets import QnnTarget, target_key  # noqa: E402

TARGET = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> StoredBundle:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "quantized", quantized_model())


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def compiled_at_once(built: StoredBundle, layout: Layout) -> list[StoredCompiled]:
    """What two threads have that compile the same at the same time."""
    with ThreadPool(2) as pool:
        return compiled_twice(pool, built, layout)


@pytest.fixture(scope="module")
def compiled(compiled_at_once: list[StoredCompiled]) -> StoredCompiled:
    return compiled_at_once[0]


def compiled_twice(pool: Pool, built: StoredBundle, layout: Layout) -> list[StoredCompiled]:
    return pool.starmap(compile_bundle, [(built, TARGET, target_key(TARGET, "aarch64"), layout)] * 2, chunksize=1)


def test_a_graph_becomes_one_context_and_nothing_else(compiled: StoredCompiled) -> None:
    (graph,) = compiled.artifact.graphs
    assert operators(compiled.path(graph.file)) == [CONTEXT_OP]


def test_lora_inputs_stay_integers(compiled: StoredCompiled) -> None:
    (graph,) = compiled.artifact.graphs
    model = onnx.load(compiled.path(graph.file))
    dtypes = {i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type).name for i in model.graph.input}
    assert dtypes == {spec.name: spec.dtype for spec in graph.inputs}
    assert "int16" in dtypes.values()


def test_the_manifest_names_sdk_and_chip_and_what_compiling_took(compiled: StoredCompiled) -> None:
    versions, (cost,) = compiled.artifact.tool_versions, compiled.artifact.costs.values()
    assert (versions["htp_arch"], versions["soc_model"]) == ("v79", "69")
    assert versions["qairt"].count(".") == 2
    assert cost.seconds > 0
    assert cost.peak_memory_bytes > 50 * 2**20


def test_the_graph_of_a_single_task_is_compiled_too_with_memory_of_its_own_and_nothing_on_our_stdout(
    built: StoredBundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held = b"x" * 2**29  # as a build in the same process would
    shared = next(graph for graph in built.artifact.graphs if graph.variant is Variant.SHARED)
    single = replace(shared, variant=Variant.PER_GRAPH, task="one", file=replace(shared.file, path="per-graph/one/unet.onnx"))
    folder = tmp_path / "bundle"
    (folder / "per-graph/one").mkdir(parents=True)
    (folder / single.file.path).write_bytes(built.path(shared.file).read_bytes())
    bundle = StoredArtifact(artifact=replace(built.artifact, graphs=(single,)), folder=folder)
    compiled = compile_bundle(bundle, TARGET, "qnn", Layout(tmp_path))
    (graph,) = compiled.artifact.graphs
    assert graph.task == "one"
    assert operators(compiled.path(graph.file)) == [CONTEXT_OP]
    (cost,) = compiled.artifact.costs.values()
    assert cost.peak_memory_bytes < len(held)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_wide_group_norm_compiles_and_computes_what_the_cpu_does(tmp_path: Path) -> None:
    model = wide_group_norm(320)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 320, 8, 8)).astype(np.float32)}
    passes.decompose_group_norm(model)
    quantized = quantize_graph(model, activation_encodings(model, observe_ranges(model, [feed]), dtype="uint16"))
    bundle = write_bundle(tmp_path / "bundle", quantized)
    compiled = compile_bundle(bundle, TARGET, "qnn", Layout(tmp_path))
    expected = InferenceSession(bundle.folder / "shared/unet.onnx").run(None, feed)[0]
    error = run_on_emulator(compiled.folder / "shared/unet.onnx", feed) - expected
    assert 10 * np.log10(np.sum(expected**2) / np.sum(error**2)) > 55


def wide_group_norm(channels: int) -> onnx.ModelProto:
    """Return a GroupNormalization as the exporter writes it, before x * sigmoid(x)."""
    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal(channels).astype(np.float32) for name in ("scale", "offset")}
    nodes = [
        onnx.helper.make_node("GroupNormalization", ["x", *constants], ["norm"], "norm", num_groups=32, epsilon=1e-5),
        onnx.helper.make_node("Sigmoid", ["norm"], ["gate"], "gate"),
        onnx.helper.make_node("Mul", ["norm", "gate"], ["y"], "silu"),
    ]
    x, norm, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, 8, 8]) for name in ("x", "norm", "y")
    )
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], initializers, value_info=[norm])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def test_two_threads_may_compile_the_same_at_once(compiled_at_once: list[StoredCompiled], layout: Layout) -> None:
    assert_one_product(compiled_at_once, layout)


@pytest.mark.slow
def test_two_processes_may_compile_the_same_at_once(built: StoredBundle, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert_one_product(compiled_twice(pool, built, Layout(tmp_path)), Layout(tmp_path))


def assert_one_product(products: list[StoredCompiled], layout: Layout) -> None:
    assert [operators(product.folder / "shared/unet.onnx") for product in products] == [[CONTEXT_OP]] * 2
    assert [path.name for path in layout.compiled_bundles.iterdir()] == [products[0].folder.name]


def test_nodes_that_would_stay_on_the_cpu_are_named_with_the_reason(tmp_path: Path) -> None:
    parameters = ["x_scale", "x_zero"]
    bending = onnx.helper.make_node("Sinh", ["y.float"], ["bent"], "bending")
    quantize = onnx.helper.make_node("QuantizeLinear", ["bent", *parameters], ["y.q"], "y.quantize")
    dequantize = onnx.helper.make_node("DequantizeLinear", ["y.q", *parameters], ["y"], "y.dequantize")
    model = model_of(after=(bending, quantize, dequantize))
    bundle = write_bundle(tmp_path / "bundle", model)
    with raising(BuildError, "v79", "shared/unet.onnx", "Sinh", "bending"):
        compile_bundle(bundle, TARGET, "qnn", Layout(tmp_path))
    assert list(tmp_path.glob("compiled/*")) == []


def test_a_compiler_that_takes_too_long_is_killed_and_leaves_nothing(built: StoredBundle, tmp_path: Path) -> None:
    compiler = QnnCompiler(htp_arch="v79", soc_model=69, timeout_s=0.2)
    quantized = [graph for graph in built.artifact.graphs if graph.variant.is_quantized]
    with raising(BuildError, "0.2", "shared/unet.onnx"):
        compiler.compile_all(quantized, built.folder, _folder(tmp_path), lambda _: None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_after_a_failure_what_was_compiled_is_not_compiled_again(built: StoredBundle, tmp_path: Path) -> None:
    (good,) = (graph for graph in built.artifact.graphs if graph.variant.is_quantized)
    absent = replace(good, file=replace(good.file, path="absent.onnx", sha256="0" * 64))
    compiler, steps = QnnCompiler(htp_arch="v79", soc_model=69), []
    with raising(BuildError, "absent.onnx"):
        compiler.compile_all([good, absent], built.folder, _folder(tmp_path), steps.append)
    impatient = replace(compiler, timeout_s=0.001)
    product = impatient.compile_all([good], built.folder, _folder(tmp_path), steps.append)
    assert product.costs[good.file.path].seconds > 0
    with raising(BuildError):  # done with, and no longer kept
        impatient.compile_all([good], built.folder, _folder(tmp_path), steps.append)


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "product"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def test_another_chip_is_another_product(built: StoredBundle, compiled: StoredCompiled) -> None:
    other = TARGET.model_copy(update={"htp_arch": "v75", "soc_model": 57})
    versions = QnnCompiler(htp_arch=other.htp_arch, soc_model=other.soc_model).versions()
    assert versions != compiled.artifact.tool_versions


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    with raising(MissingDependencyError, "onnxruntime-qnn", "quadbench[qnn]"):
        QnnCompiler(htp_arch="v79", soc_model=69).versions()
