"""Compiler contract: the tests that every compiler passes, whatever its backend; a test class gives the fixture `target`."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from quadbench.artifacts import CompiledBundle, StoredBundle, StoredCompiled
from quadbench.compile import compile_bundle
from quadbench.compile.availability import availability
from quadbench.errors import BuildError
from quadbench.results.digests import folder_digests, sha256_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import CHECKSUM, MANIFEST, file_ref, read_manifest
from quadbench.target.targets import Target, target_key
from support.bundles import write_bundle
from support.lora_graph import quantized_model
from support.sentences import raising


def compile_for(target: Target, bundle: StoredBundle, layout: Layout) -> StoredCompiled:
    """Compile a bundle under the target's own name."""
    return compile_bundle(bundle, target, target_key(target, "x86_64"), layout)


class CompilerContract:
    """The tests; each class of them compiles one bundle once."""

    @pytest.fixture(scope="class")
    @classmethod
    def layout(cls, tmp_path_factory: pytest.TempPathFactory) -> Layout:
        return Layout(tmp_path_factory.mktemp("results"))

    @pytest.fixture(scope="class")
    @classmethod
    def bundle(cls, layout: Layout) -> StoredBundle:
        """A bundle of one quantized graph and its float twin. Not to be changed."""
        return write_bundle(layout.bundle("d"), quantized_model())

    @pytest.fixture(scope="class")
    @classmethod
    def compiled(cls, target: Target, bundle: StoredBundle, layout: Layout) -> StoredCompiled:
        return compile_for(target, bundle, layout)

    @pytest.fixture
    def refused(self, tmp_path: Path) -> StoredBundle:
        """A bundle whose graph holds an operation that nobody has."""
        model = quantized_model()
        model.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
        model.graph.node[-1].op_type, model.graph.node[-1].domain = "NobodyKnows", "nobody"
        return write_bundle(tmp_path / "bundles" / "refused", model)

    def test_it_is_available_where_it_runs(self, target: Target) -> None:
        assert availability(target).is_ready
        assert availability(target).version

    def test_quantized_graphs_are_compiled_and_float_ones_are_not(self, bundle: StoredBundle, compiled: StoredCompiled) -> None:
        wanted = [(g.variant, g.component, g.task) for g in bundle.artifact.graphs if g.variant.is_quantized]
        assert [(g.variant, g.component, g.task) for g in compiled.artifact.graphs] == wanted

    def test_a_product_is_described_as_it_is(self, compiled: StoredCompiled) -> None:
        (graph,) = compiled.artifact.graphs
        assert graph.file == file_ref(compiled.folder, compiled.path(graph.file))
        assert graph.file.size_bytes > 0
        assert Path(graph.file.path).with_suffix("") == Path("shared/unet")

    def test_inputs_and_outputs_stay_as_they_were(self, bundle: StoredBundle, compiled: StoredCompiled) -> None:
        (source, _), (graph,) = bundle.artifact.graphs, compiled.artifact.graphs
        assert (graph.inputs, graph.outputs) == (source.inputs, source.outputs)

    def test_the_folder_holds_what_the_manifest_names_and_nothing_else(self, compiled: StoredCompiled) -> None:
        (graph,) = compiled.artifact.graphs
        assert folder_digests(compiled.folder).keys() == {MANIFEST, CHECKSUM, graph.file.path}
        assert read_manifest(compiled.folder, CompiledBundle).artifact == compiled.artifact

    def test_the_manifest_says_what_compiled_it_wherever_it_lay(
        self, target: Target, bundle: StoredBundle, compiled: StoredCompiled
    ) -> None:
        said = compiled.artifact.tool_versions.values()
        assert availability(target).version in said
        assert not any(str(place) in text for text in said for place in (bundle.folder, compiled.folder))

    def test_the_bundle_stays_as_it_was(self, bundle: StoredBundle, compiled: StoredCompiled) -> None:
        graphs = bundle.artifact.graphs
        assert sha256_of(bundle.path(graphs[0].file)) == graphs[0].file.sha256
        files = {MANIFEST, CHECKSUM, "profile.json", *(graph.file.path for graph in graphs)}
        assert folder_digests(bundle.folder).keys() == files

    def test_the_same_graphs_are_not_compiled_again(
        self, target: Target, bundle: StoredBundle, compiled: StoredCompiled, layout: Layout
    ) -> None:
        other = replace(bundle, artifact=replace(bundle.artifact, digest="another adapter"))
        assert compile_for(target, other, layout) == replace(compiled, is_reused=True)

    def test_a_graph_that_it_refuses_is_named_and_no_product_is_left(
        self, target: Target, refused: StoredBundle, tmp_path: Path
    ) -> None:
        with raising(BuildError, "shared/unet.onnx", "NobodyKnows", snapshot=False):  # a compiler's traceback has our lines
            compile_for(target, refused, Layout(tmp_path))
        assert [path for path in tmp_path.glob("compiled/**/*") if path.suffix != ".log"] == []
