"""Compile: the tiny bundle is compiled for ONNX Runtime, once; test_compilers has the tests that every compiler passes."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch")  # the tiny bundle is built here

from support.bundles import write_bundle
from support.lora_graph import quantized_model
from support.sentences import raising

from quadbench.artifacts import Graph, StoredBundle, StoredCompiled, Variant
from quadbench.compile import compile_bundle, find_compiled
from quadbench.errors import ArtifactError
from quadbench.results import digests
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref
from quadbench.target.targets import OnnxRuntimeTarget

TARGET, KEY = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu"), "onnxruntime-cpu-x86_64"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def compiled(tiny_bundle: StoredBundle, layout: Layout) -> StoredCompiled:
    return compile_bundle(tiny_bundle, TARGET, KEY, layout)


def _run(path: Path, graph: Graph) -> np.ndarray:
    rng = np.random.default_rng(0)
    feed = {
        spec.name: rng.standard_normal(spec.shape).astype(np.float32)
        if spec.dtype == "float32"
        else rng.integers(0, 900, spec.shape).astype(spec.dtype)
        for spec in graph.inputs
    }
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # node by node, as the graph says
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feed)[0]


def test_every_quantized_graph_is_compiled_and_no_other(tiny_bundle: StoredBundle, compiled: StoredCompiled) -> None:
    wanted = [(g.variant, g.component, g.task) for g in tiny_bundle.artifact.graphs if g.variant.is_quantized]
    assert [(g.variant, g.component, g.task) for g in compiled.artifact.graphs] == wanted


def test_compiled_graphs_compute_what_the_bundles_graphs_do(tiny_bundle: StoredBundle, compiled: StoredCompiled) -> None:
    sources = {graph.file.path: graph for graph in tiny_bundle.artifact.graphs}
    one_of_each = {(graph.variant, graph.component): graph for graph in compiled.artifact.graphs}
    assert {Variant.SHARED, Variant.PER_GRAPH} == {variant for variant, _ in one_of_each}
    for graph in one_of_each.values():
        source = sources[graph.file.path]
        assert graph.inputs == source.inputs
        expected = _run(tiny_bundle.path(source.file), source)
        np.testing.assert_allclose(_run(compiled.path(graph.file), graph), expected, atol=1e-4 * np.ptp(expected))


def test_weights_stay_eight_bits(tiny_bundle: StoredBundle, compiled: StoredCompiled) -> None:
    sources = {graph.file.path: graph.file.size_bytes for graph in tiny_bundle.artifact.graphs}
    assert all(graph.file.size_bytes < 1.5 * sources[graph.file.path] for graph in compiled.artifact.graphs)


def test_the_same_graphs_are_not_compiled_again(tiny_bundle: StoredBundle, compiled: StoredCompiled, layout: Layout) -> None:
    other = replace(tiny_bundle, artifact=replace(tiny_bundle.artifact, digest="another adapter"))
    assert compile_bundle(other, TARGET, KEY, layout) == replace(compiled, is_reused=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of quadbench's own code, from which digests are taken."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.png")
    package = Path(shutil.copytree(digests.PACKAGE, tmp_path / "quadbench", symlinks=True, ignore=ignored))
    monkeypatch.setattr(digests, "PACKAGE", package)
    digests.code_digests.cache_clear()
    yield package
    digests.code_digests.cache_clear()


def test_graphs_are_compiled_again_where_code_that_the_compiler_runs_has_changed(package: Path, tmp_path: Path) -> None:
    bundle, layout = write_bundle(tmp_path / "bundle", quantized_model()), Layout(tmp_path)
    before = compile_bundle(bundle, TARGET, KEY, layout)
    for source, is_reused in (("quality/image_scores.py", True), ("results/manifest.py", False)):
        (package / source).write_text((package / source).read_text() + "# changed\n")
        digests.code_digests.cache_clear()
        after = compile_bundle(bundle, TARGET, KEY, layout)
        assert after.is_reused == is_reused, source
        assert (after.artifact.digest == before.artifact.digest) == is_reused, source


def test_a_product_that_was_changed_is_refused_with_what_to_do(tmp_path: Path) -> None:
    bundle, layout = write_bundle(tmp_path / "bundle", quantized_model()), Layout(tmp_path)
    product = compile_bundle(bundle, TARGET, KEY, layout)
    path = product.folder / "shared/unet.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for use in (compile_bundle, find_compiled):
        with raising(ArtifactError, "shared/unet.onnx"):
            use(bundle, TARGET, KEY, layout)
    shutil.rmtree(product.folder)
    assert not compile_bundle(bundle, TARGET, KEY, layout).is_reused


def test_a_file_that_is_no_graph_is_named_and_nothing_is_left(tiny_bundle: StoredBundle, tmp_path: Path) -> None:
    spoilt = replace(tiny_bundle, folder=Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle")))
    path = spoilt.folder / "shared/vae_decoder.onnx"
    path.write_bytes(b"not a graph")
    graphs = [
        g if spoilt.path(g.file) != path else replace(g, file=file_ref(spoilt.folder, path)) for g in spoilt.artifact.graphs
    ]
    spoilt = replace(spoilt, artifact=replace(spoilt.artifact, graphs=tuple(graphs)))
    with raising(ArtifactError, "shared/vae_decoder.onnx"):
        compile_bundle(spoilt, TARGET, KEY, Layout(tmp_path))
    assert list(tmp_path.glob("compiled/*")) == []


def test_a_graph_that_was_changed_is_not_compiled_and_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", quantized_model())
    path = bundle.folder / "shared/unet.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with raising(ArtifactError, "shared/unet.onnx"):
        compile_bundle(bundle, TARGET, KEY, Layout(tmp_path))
    assert not Layout(tmp_path).compiled_bundles.exists()
    path.write_bytes(content)
    assert not compile_bundle(bundle, TARGET, KEY, Layout(tmp_path)).is_reused
