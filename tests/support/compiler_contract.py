"""What every compiler does, whatever its backend; a test class gives the fixture `target`."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from quadbench.artifacts import Bundle, CompiledBundle
from quadbench.compile import Compiled, compile_bundle
from quadbench.compile.availability import availability
from quadbench.errors import BuildError
from quadbench.results.digests import folder_digests, sha256_of
from quadbench.results.manifest import MANIFEST, file_ref, read_manifest
from quadbench.target.targets import Target, target_key
from support.lora_graph import quantized_model, write_bundle

Built = tuple[Bundle, Path]


def compile_for(target: Target, built: Built, root: Path) -> Compiled:
    return compile_bundle(*built, target, target_key(target, "x86_64"), root)


class CompilerContract:
    @pytest.fixture(scope="class")
    @classmethod
    def built(cls, tmp_path_factory: pytest.TempPathFactory) -> Built:
        """A bundle of one quantized graph and its float twin. Not to be changed."""
        folder = tmp_path_factory.mktemp("bundles") / "made"
        return write_bundle(folder, quantized_model()), folder

    @pytest.fixture(scope="class")
    @classmethod
    def compiled(cls, target: Target, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
        return compile_for(target, built, tmp_path_factory.mktemp("compiled"))

    @pytest.fixture
    def refused(self, tmp_path: Path) -> Built:
        """A bundle whose graph holds an operation that nobody has."""
        model = quantized_model()
        model.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
        model.graph.node[-1].op_type, model.graph.node[-1].domain = "NobodyKnows", "nobody"
        return write_bundle(tmp_path / "bundles" / "refused", model), tmp_path / "bundles" / "refused"

    def test_it_is_available_where_it_runs(self, target: Target) -> None:
        assert availability(target).is_ready
        assert availability(target).version

    def test_quantized_graphs_are_compiled_and_float_ones_are_not(self, built: Built, compiled: Compiled) -> None:
        wanted = [(g.variant, g.component, g.task) for g in built[0].graphs if g.variant.is_quantized]
        assert [(g.variant, g.component, g.task) for g in compiled.compiled.graphs] == wanted

    def test_a_product_is_described_as_it_is(self, compiled: Compiled) -> None:
        (graph,) = compiled.compiled.graphs
        assert graph.file == file_ref(compiled.folder, compiled.folder / graph.file.path)
        assert graph.file.size_bytes > 0
        assert Path(graph.file.path).with_suffix("") == Path("shared/unet")

    def test_inputs_and_outputs_stay_as_they_were(self, built: Built, compiled: Compiled) -> None:
        (source, _), (graph,) = built[0].graphs, compiled.compiled.graphs
        assert (graph.inputs, graph.outputs) == (source.inputs, source.outputs)

    def test_the_folder_holds_what_the_manifest_names_and_nothing_else(self, compiled: Compiled) -> None:
        (graph,) = compiled.compiled.graphs
        assert folder_digests(compiled.folder).keys() == {MANIFEST, graph.file.path}
        assert read_manifest(compiled.folder, CompiledBundle) == compiled.compiled

    def test_the_manifest_says_what_compiled_it_wherever_it_lay(self, target: Target, built: Built, compiled: Compiled) -> None:
        said = compiled.compiled.tool_versions.values()
        assert availability(target).version in said
        assert not any(str(place) in text for text in said for place in (built[1], compiled.folder))

    def test_the_bundle_stays_as_it_was(self, built: Built, compiled: Compiled) -> None:
        bundle, folder = built
        assert sha256_of(folder / bundle.graphs[0].file.path) == bundle.graphs[0].file.sha256
        assert folder_digests(folder).keys() == {MANIFEST, "profile.json", *(graph.file.path for graph in bundle.graphs)}

    def test_the_same_graphs_are_not_compiled_again(self, target: Target, built: Built, compiled: Compiled) -> None:
        again = compile_for(target, (replace(built[0], digest="another adapter"), built[1]), compiled.folder.parent)
        assert again.is_reused
        assert again.compiled == compiled.compiled

    def test_a_graph_that_it_refuses_is_named_and_no_product_is_left(
        self, target: Target, refused: Built, tmp_path: Path
    ) -> None:
        with pytest.raises(BuildError, match=r"(?s)shared/unet\.onnx.*NobodyKnows"):
            compile_for(target, refused, tmp_path / "compiled")
        assert [path for path in tmp_path.glob("compiled/**/*") if path.suffix != ".log"] == []
