"""Qualcomm's compiler on graphs of one layer; the whole model is in test_qnn_model.py."""

import multiprocessing
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime_qnn")

from support.htp_emulator import run_on_emulator  # noqa: E402
from support.lora_graph import model_of, quantized_model, write_bundle  # noqa: E402

from quadbench.artifacts import Bundle, Variant  # noqa: E402
from quadbench.compile import Compiled, compile_bundle  # noqa: E402
from quadbench.compile.qnn import QnnCompiler  # noqa: E402
from quadbench.compile.single_file import CONTEXT_OP, operators  # noqa: E402
from quadbench.errors import BuildError, MissingDependencyError  # noqa: E402
from quadbench.quad.quantize import passes  # noqa: E402
from quadbench.quad.quantize.calibration import observe_ranges  # noqa: E402
from quadbench.quad.quantize.qdq import activation_encodings, quantize_graph  # noqa: E402
from quadbench.target.profile import target_key  # noqa: E402
from quadbench.target.targets import QnnTarget  # noqa: E402

TARGET = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)
Built = tuple[Bundle, Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("bundles") / "made"
    return write_bundle(folder, quantized_model()), folder


@pytest.fixture(scope="module")
def compiled(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_bundle(*built, TARGET, target_key(TARGET, "aarch64"), tmp_path_factory.mktemp("compiled"))


def test_a_graph_becomes_one_context_and_nothing_else(compiled: Compiled) -> None:
    (graph,) = compiled.compiled.graphs
    assert operators(compiled.folder / graph.file.path) == [CONTEXT_OP]


def test_lora_inputs_stay_integers(compiled: Compiled) -> None:
    (graph,) = compiled.compiled.graphs
    model = onnx.load(compiled.folder / graph.file.path)
    found = {i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type).name for i in model.graph.input}
    assert found == {spec.name: spec.dtype for spec in graph.inputs}
    assert "int16" in found.values()


def test_the_manifest_names_sdk_and_chip_and_what_compiling_took(compiled: Compiled) -> None:
    versions, (cost,) = compiled.compiled.tool_versions, compiled.compiled.costs.values()
    assert (versions["htp_arch"], versions["soc_model"]) == ("v79", "69")
    assert versions["qairt"].count(".") == 2
    assert cost.seconds > 0
    assert cost.peak_memory_bytes > 50 * 2**20


def test_the_memory_that_compiling_took_is_the_compiler_s_own(built: Built, tmp_path: Path) -> None:
    held = b"x" * 2**29  # as a build in the same process would
    (cost,) = compile_bundle(*built, TARGET, "qnn", tmp_path).compiled.costs.values()
    assert cost.peak_memory_bytes < len(held)


def test_the_graph_of_a_single_task_is_compiled_too(built: Built, tmp_path: Path) -> None:
    shared = next(graph for graph in built[0].graphs if graph.variant is Variant.SHARED)
    single = replace(shared, variant=Variant.PER_GRAPH, task="one", file=replace(shared.file, path="per-graph/one/unet.onnx"))
    folder = tmp_path / "bundle"
    (folder / "per-graph/one").mkdir(parents=True)
    (folder / single.file.path).write_bytes((built[1] / shared.file.path).read_bytes())
    made = compile_bundle(replace(built[0], graphs=(single,)), folder, TARGET, "qnn", tmp_path / "compiled")
    (graph,) = made.compiled.graphs
    assert graph.task == "one"
    assert operators(made.folder / graph.file.path) == [CONTEXT_OP]


def test_a_wide_group_norm_compiles_and_computes_what_the_cpu_does(tmp_path: Path) -> None:
    model = wide_group_norm(320)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 320, 8, 8)).astype(np.float32)}
    passes.decompose_group_norm(model)
    quantized = quantize_graph(model, activation_encodings(model, observe_ranges(model, [feed]), dtype="uint16"))
    bundle = write_bundle(tmp_path / "bundle", quantized)
    made = compile_bundle(bundle, tmp_path / "bundle", TARGET, "qnn", tmp_path / "compiled")
    expected = InferenceSession(tmp_path / "bundle/shared/unet.onnx").run(None, feed)[0]
    error = run_on_emulator(made.folder / "shared/unet.onnx", feed) - expected
    assert 10 * np.log10(np.sum(expected**2) / np.sum(error**2)) > 55


def wide_group_norm(channels: int) -> onnx.ModelProto:
    """As the exporter writes it, before x * sigmoid(x)."""
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


def test_two_processes_may_compile_the_same_at_once(built: Built, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.starmap(compile_bundle, [(*built, TARGET, "qnn", tmp_path)] * 2, chunksize=1)
    assert [operators(one.folder / "shared/unet.onnx") for one in made] == [[CONTEXT_OP]] * 2
    assert [path.name for path in tmp_path.iterdir()] == [made[0].folder.name]


def test_nodes_that_would_stay_on_the_cpu_are_named_with_the_reason(tmp_path: Path) -> None:
    parameters = ["x_scale", "x_zero"]
    bending = onnx.helper.make_node("Sinh", ["y.float"], ["bent"], "bending")
    quantize = onnx.helper.make_node("QuantizeLinear", ["bent", *parameters], ["y.q"], "y.quantize")
    dequantize = onnx.helper.make_node("DequantizeLinear", ["y.q", *parameters], ["y"], "y.dequantize")
    model = model_of(after=(bending, quantize, dequantize))
    bundle = write_bundle(tmp_path / "bundle", model)
    with pytest.raises(
        BuildError, match=r"(?s)v79 leaves nodes of 'shared/unet\.onnx' to the CPU:\nSinh 'bending' \(.*not supported"
    ):
        compile_bundle(bundle, tmp_path / "bundle", TARGET, "qnn", tmp_path / "compiled")
    assert list(tmp_path.glob("compiled/*")) == []


def test_a_compiler_that_takes_too_long_is_killed_and_leaves_nothing(built: Built, tmp_path: Path) -> None:
    compiler = QnnCompiler(htp_arch="v79", soc_model=69, timeout_s=0.2)
    quantized = [graph for graph in built[0].graphs if graph.variant.is_quantized]
    with pytest.raises(BuildError, match=r"was still running after 0\.2 s on 'shared/unet\.onnx'"):
        compiler.compile_all(quantized, built[1], _folder(tmp_path), lambda _: None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_after_a_failure_what_was_compiled_is_not_compiled_again(built: Built, tmp_path: Path) -> None:
    bundle, source = built
    (good,) = (graph for graph in bundle.graphs if graph.variant.is_quantized)
    absent = replace(good, file=replace(good.file, path="absent.onnx", sha256="0" * 64))
    compiler, steps = QnnCompiler(htp_arch="v79", soc_model=69), []
    with pytest.raises(BuildError, match=r"on 'absent\.onnx'"):
        compiler.compile_all([good, absent], source, _folder(tmp_path), steps.append)
    impatient = replace(compiler, timeout_s=0.001)
    product = impatient.compile_all([good], source, _folder(tmp_path), steps.append)
    assert product.costs[good.file.path].seconds > 0
    with pytest.raises(BuildError, match="still running"):  # done with, and no longer kept
        impatient.compile_all([good], source, _folder(tmp_path), steps.append)


def _folder(tmp_path: Path) -> Path:
    made = tmp_path / "product"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    return made


def test_another_chip_is_another_product(built: Built, compiled: Compiled) -> None:
    other = TARGET.model_copy(update={"htp_arch": "v75", "soc_model": 57})
    versions = QnnCompiler(htp_arch=other.htp_arch, soc_model=other.soc_model).versions()
    assert versions != compiled.compiled.tool_versions


def test_the_compiler_says_nothing_on_our_stdout(built: Built, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    compile_bundle(*built, TARGET, "qnn", tmp_path)
    assert capfd.readouterr().out == ""


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    with pytest.raises(MissingDependencyError, match=r"onnxruntime-qnn.*pip install 'quadbench\[qnn\]'"):
        QnnCompiler(htp_arch="v79", soc_model=69).versions()
