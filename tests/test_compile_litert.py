"""LiteRT as a compiler: for Qualcomm's chip for real, for MediaTek's with a stub in place of its SDK."""

import os
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
litert = pytest.importorskip("ai_edge_litert")

from onnx import ModelProto, helper, load  # noqa: E402
from support import neuron_stub  # noqa: E402
from support.bundles import write_bundle  # noqa: E402
from support.litert_context import name_in_context, write_for_emulator  # noqa: E402
from support.lora_graph import LORA  # noqa: E402
from support.sentences import raising, reads  # noqa: E402
from support.small_graphs import model_of, seeded_feed  # noqa: E402
from support.tflite_run import Feed, quantized_by_feed, run_tflite, sqnr_db  # noqa: E402

from quadbench.artifacts import Caveat, StoredBundle, StoredCompiled  # noqa: E402
from quadbench.compile import compile_bundle  # noqa: E402
from quadbench.compile.availability import availability  # noqa: E402
from quadbench.compile.litert import DISPATCH, operators_of, refuse_partial_compile  # noqa: E402
from quadbench.compile.litert_sdk import litert_version  # noqa: E402
from quadbench.compile.qnn import run_on_emulator  # noqa: E402
from quadbench.compile.tflite.forms import FORMS  # noqa: E402
from quadbench.compile.tflite.rounded_graph import GROUP_NORM, REQUANTIZE  # noqa: E402
from quadbench.errors import BuildError, MissingDependencyError  # noqa: E402
from quadbench.lint.rules import OPERATORS  # noqa: E402
from quadbench.quad.quantize.encodings import quantize, symmetric  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.target.targets import LiteRtTarget, target_key  # noqa: E402

ENCODINGS = {LORA: symmetric(4.0, "int16")}


def lora_product() -> ModelProto:
    return model_of([helper.make_node("Gemm", ["x", LORA], ["y"], transB=1)], {"x": (16, 32), LORA: (8, 32)}, {}, (16, 8))


@pytest.fixture(scope="module")
def exact() -> Feed:
    """Inputs of the bundle's graph before they are rounded."""
    return seeded_feed(lora_product())


@pytest.fixture(scope="module")
def built(exact: Feed, tmp_path_factory: pytest.TempPathFactory) -> StoredBundle:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "quantized", quantized_by_feed(lora_product(), exact, ENCODINGS))


def compiled_for(soc: str | None, bundle: StoredBundle, folder: Path) -> StoredCompiled:
    target = LiteRtTarget(backend="litert", soc=soc)
    return compile_bundle(bundle, target, target_key(target, "x86_64"), Layout(folder))


@pytest.fixture(scope="module")
def for_qualcomm(built: StoredBundle, tmp_path_factory: pytest.TempPathFactory) -> StoredCompiled:
    pytest.importorskip("onnxruntime_qnn")
    return compiled_for("SM8750", built, tmp_path_factory.mktemp("qualcomm"))


@pytest.fixture(scope="module")
def for_cpu(built: StoredBundle, tmp_path_factory: pytest.TempPathFactory) -> StoredCompiled:
    return compiled_for(None, built, tmp_path_factory.mktemp("cpu"))


def product_of(compiled: StoredCompiled) -> Path:
    (graph,) = compiled.artifact.graphs
    return compiled.path(graph.file)


@pytest.fixture
def with_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the Python path of this process and of those that it starts."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return folder


def half() -> ModelProto:
    """A graph that splits an image and reads one part, as a VAE's encoder does."""
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2), helper.make_node("Sigmoid", ["a"], ["y"])]
    return model_of(nodes, {"x": (1, 8, 8, 8)}, {}, (1, 4, 8, 8))


def test_for_a_qualcomm_chip_a_graph_is_one_part_that_the_emulator_runs_as_litert_s_cpu_does(
    built: StoredBundle, exact: Feed, for_qualcomm: StoredCompiled, for_cpu: StoredCompiled, tmp_path: Path
) -> None:
    feed = exact | {name: quantize(exact[name], encoding) for name, encoding in ENCODINGS.items()}
    assert_alike(built, for_qualcomm, for_cpu, feed, tmp_path)


@pytest.mark.slow
def test_for_a_qualcomm_chip_a_graph_that_reads_half_of_its_input_is_one_part_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn")
    model = half()
    feed = seeded_feed(model)
    bundle = write_bundle(tmp_path / "bundle", quantized_by_feed(model, feed))
    assert_alike(bundle, compiled_for("SM8750", bundle, tmp_path), compiled_for(None, bundle, tmp_path), feed, tmp_path)


def assert_alike(bundle: StoredBundle, for_qualcomm: StoredCompiled, for_cpu: StoredCompiled, feed: Feed, folder: Path) -> None:
    """Assert that the chip's product is one part, and that it computes on the emulator what that for the CPU does."""
    product = product_of(for_qualcomm)
    assert operators_of(product) == [DISPATCH]
    write_for_emulator(load(bundle.folder / "shared/unet.onnx"), product, folder / "context.onnx")
    named = {name_in_context(name): value for name, value in feed.items()}
    (emulated,) = run_on_emulator(folder / "context.onnx", "v79", [named], timeout_s=60)
    assert sqnr_db(run_tflite(product_of(for_cpu), feed), emulated) > 65


def test_times_of_litert_s_cpu_are_marked(for_cpu: StoredCompiled) -> None:
    assert for_cpu.artifact.caveats == (Caveat.PLAIN_KERNELS,)


def test_the_manifest_names_chip_and_sdk_and_what_compiling_took(for_qualcomm: StoredCompiled) -> None:
    compiled = for_qualcomm.artifact
    (cost,) = compiled.costs.values()
    assert (compiled.target, compiled.tool_versions["soc"]) == ("litert-sm8750", "SM8750")
    assert compiled.tool_versions["sdk"].startswith("onnxruntime-qnn ")
    assert cost.seconds > 0
    assert cost.peak_memory_bytes > 50 * 2**20


@pytest.mark.parametrize(
    ("soc", "words"),
    [
        ("MT6991", ("MediaTek", "ai-edge-litert-sdk-mediatek")),
        ("E9965", ("ai-edge-litert-sdk-samsung-nightly",)),
        ("Tensor_G5", ("ai-edge-litert-sdk-google-tensor",)),
        ("E9955", ("ai-edge-litert", "E9955", litert_version(), "E9965")),
    ],
)
def test_what_is_missing_for_a_chip_is_said_in_one_sentence(
    soc: str, words: tuple[str, ...], built: StoredBundle, tmp_path: Path
) -> None:
    available = availability(LiteRtTarget(backend="litert", soc=soc))
    reads(available.missing, *words)
    assert available.hint
    with pytest.raises(MissingDependencyError) as caught:
        compiled_for(soc, built, tmp_path)
    reads(caught.value.message, soc, *words)


def test_a_vendor_s_sdk_that_is_present_is_used(with_sdk: Path, built: StoredBundle, tmp_path: Path) -> None:
    neuron_stub.write_sdk(with_sdk, version=litert_version())
    assert availability(LiteRtTarget(backend="litert", soc="MT6991")).is_ready
    compiled = compiled_for("MT6991", built, tmp_path)
    assert operators_of(product_of(compiled)) == [DISPATCH]
    assert b"a network of the stub" in product_of(compiled).read_bytes()
    assert compiled.artifact.tool_versions["sdk"] == f"{neuron_stub.PACKAGE} {litert_version()}"


def test_an_sdk_whose_download_has_failed_is_recognised(with_sdk: Path) -> None:
    neuron_stub.write_sdk(with_sdk, version=litert_version(), is_empty=True)
    missing = availability(LiteRtTarget(backend="litert", soc="MT6991")).missing
    reads(missing, neuron_stub.LIBRARY, neuron_stub.PACKAGE, litert_version())


def test_an_sdk_of_another_release_is_recognised(with_sdk: Path) -> None:
    neuron_stub.write_sdk(with_sdk, version="1.4.0", is_empty=True)
    missing = availability(LiteRtTarget(backend="litert", soc="MT6991")).missing
    assert (missing or "").endswith("found 1.4.0")


def test_a_compiler_that_fails_is_quoted_though_its_exit_code_says_nothing(
    with_sdk: Path, built: StoredBundle, tmp_path: Path
) -> None:
    neuron_stub.write_sdk(with_sdk, version=litert_version(), finish=1)
    with raising(BuildError, "LiteRT", "MT6991", "shared/unet.onnx", "NeuronCompilation_finish", 1):
        compiled_for("MT6991", built, tmp_path)
    assert list(tmp_path.glob("compiled/*")) == []


def test_operators_that_the_npu_leaves_are_named() -> None:
    refuse_partial_compile("MT6991", "g", ["GATHER"], 1)
    with raising(BuildError, "MT6991", "g", 2, "EXP", 1, "POW"):
        refuse_partial_compile("MT6991", "g", ["EXP", "POW", "GATHER", "EXP"], 2)


def test_the_linter_knows_every_form() -> None:
    assert {*FORMS} - {REQUANTIZE, GROUP_NORM} | {"InstanceNormalization"} == OPERATORS
