"""Initializers outside their graph: the same bundle as with weights inside, and a float graph that runs from its two files."""

import gc
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import external_data_helper, helper, numpy_helper  # noqa: E402
from onnx.external_data_helper import uses_external_data  # noqa: E402
from support.sentences import raising  # noqa: E402
from test_pipeline import Watcher  # noqa: E402

from quadbench import pipeline  # noqa: E402
from quadbench.artifacts import Component, Graph, Status, StoredBundle, Variant  # noqa: E402
from quadbench.artifacts.run_record import file_refs  # noqa: E402
from quadbench.devices.addresses import parse_addresses  # noqa: E402
from quadbench.errors import ArtifactError  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.model import float_graphs  # noqa: E402
from quadbench.quad.model.float_graphs import export_graph  # noqa: E402
from quadbench.quad.model.initializers import discard, file_of, open_graph, open_session, transpose, value, with_weights_file  # noqa: E402
from quadbench.quad.quantize.calibration import observe_ranges  # noqa: E402
from quadbench.quad.quantize.qdq import activation_encodings, quantize_graph  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.results.digests import sha256_of  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.results.manifest import CHECKSUM, MANIFEST  # noqa: E402


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def outside_bundle(tiny_recipe: Path, layout: Layout) -> StoredBundle:
    """The tiny model's bundle, its weights treated as if they were large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float_graphs, "INLINE_LIMIT_BYTES", 1024)
        recipe = load_recipe(tiny_recipe).model_copy(update={"baselines": ()})
        return build(recipe, layout)


def _graphs(bundle: StoredBundle, variant: Variant) -> dict[Component, Graph]:
    return {graph.component: graph for graph in bundle.artifact.graphs if graph.variant is variant}


@pytest.mark.slow
def test_quantized_graphs_are_the_same_wherever_the_float_weights_lie(
    outside_bundle: StoredBundle, tiny_bundle: StoredBundle
) -> None:
    outside, inside = (
        {component: graph.file.sha256 for component, graph in _graphs(bundle, Variant.SHARED).items()}
        for bundle in (outside_bundle, tiny_bundle)
    )
    assert outside == inside


@pytest.mark.slow
def test_float_graphs_refer_to_their_weights_by_sha256(outside_bundle: StoredBundle) -> None:
    for graph in _graphs(outside_bundle, Variant.FLOAT).values():
        assert graph.data
        model = onnx.load(outside_bundle.path(graph.file), load_external_data=False)
        named = {entry.value for i in model.graph.initializer for entry in i.external_data if entry.key == "location"}
        assert named == {graph.data.sha256} == {sha256_of(outside_bundle.path(graph.data))}
        onnx.checker.check_model(str(outside_bundle.path(graph.file)))


@pytest.mark.slow
def test_nothing_but_the_bundle_is_left(outside_bundle: StoredBundle) -> None:
    folder = outside_bundle.folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    listed = {file.path for file in file_refs(outside_bundle.artifact)} | {MANIFEST, CHECKSUM}
    assert listed == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_float_graph_of_two_files_runs_on_a_device(outside_bundle: StoredBundle, tiny_recipe: Path, layout: Layout) -> None:
    recipe = load_recipe(tiny_recipe).model_copy(update={"baselines": ()})
    outcome = pipeline.run(recipe, parse_addresses(["local"]), layout=layout, observer=Watcher())
    assert outcome.result.bundle == outside_bundle.artifact
    assert [(r.status, r.reason) for r in outcome.result.records if r.variant is Variant.FLOAT] == [(Status.OK, None)]


def _linear(scratch: Path) -> onnx.ModelProto:
    """A graph of one layer whose weights lie in a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float_graphs, "INLINE_LIMIT_BYTES", 0)
        return export_graph(torch.nn.Linear(32, 16), [torch.zeros(1, 32)], input_names=["x"], output_names=["y"], scratch=scratch)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The same, not to be changed, nor its file."""
    return _linear(tmp_path_factory.mktemp("linear"))


def test_mapped_weights_are_the_module_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_graphs, "INLINE_LIMIT_BYTES", 0)
    module = torch.nn.Linear(32, 16)
    model = export_graph(module, [torch.zeros(1, 32)], input_names=["x"], output_names=["y"], scratch=tmp_path)
    held = {i.name: value(i) for i in model.graph.initializer}
    assert sorted(array.shape for array in held.values()) == [(16,), (16, 32)]
    assert any(np.array_equal(array, module.weight.detach().numpy()) for array in held.values())
    x = torch.randn(1, 32)
    output = open_session(model).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(output, module(x).detach().numpy(), atol=1e-5)


def test_a_stored_graph_is_opened_without_its_weights_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_graphs, "INLINE_LIMIT_BYTES", 0)
    module = torch.nn.Linear(32, 16)
    model = export_graph(module, [torch.zeros(1, 32)], input_names=["x"], output_names=["y"], scratch=tmp_path)
    weights = file_of(model)
    assert weights
    stored = tmp_path / "stored"
    stored.mkdir()
    weights.rename(stored / "weights")
    onnx.save(with_weights_file(model, "weights"), stored / "unet.onnx")
    again = open_graph(stored / "unet.onnx", stored / "weights")
    assert file_of(again) == stored / "weights"
    x = torch.randn(1, 32)
    np.testing.assert_allclose(open_session(again).run(None, {"x": x.numpy()})[0], module(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("location", ["secret", "../secret", "/secret", "weights/../secret"])
@pytest.mark.parametrize("weights", ["weights", None])
def test_a_graph_that_refers_to_another_file_than_its_weights_is_refused(
    linear: onnx.ModelProto, tmp_path: Path, location: str, weights: str | None
) -> None:
    onnx.save(with_weights_file(linear, location), tmp_path / "unet.onnx")
    with raising(ArtifactError, location):
        open_graph(tmp_path / "unet.onnx", tmp_path / weights if weights else None)


def _elsewhere() -> onnx.TensorProto:
    """A tensor whose values lie in the file `secret`."""
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "y")
    external_data_helper.set_external_data(tensor, location="secret")
    tensor.ClearField("raw_data")
    return tensor


def _constant() -> onnx.ModelProto:
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])
    node = helper.make_node("Constant", [], ["y"], value=_elsewhere())
    return helper.make_model(helper.make_graph([node], "g", [], [output]))


def _branch() -> onnx.ModelProto:
    model = _constant()
    inner = helper.make_node("If", ["condition"], ["y"], then_branch=model.graph, else_branch=model.graph)
    del model.graph.node[:]
    model.graph.node.append(inner)
    return model


def _default_of_a_function() -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, ref_attr_name="v")
    default = helper.make_attribute("v", _elsewhere())
    function = helper.make_function("f", "F", [], ["y"], [node], [helper.make_opsetid("", 21)], attribute_protos=[default])
    graph = helper.make_graph([helper.make_node("F", [], ["y"], domain="f")], "g", [], [])
    return helper.make_model(graph, functions=[function])


@pytest.mark.parametrize("model", [_constant(), _branch(), _default_of_a_function()])
def test_no_tensor_of_a_graph_lies_in_another_file(tmp_path: Path, model: onnx.ModelProto) -> None:
    (tmp_path / "graph.json").write_bytes(model.SerializeToString())  # a protobuf, whatever its name
    for weights in (None, tmp_path / "weights"):
        with raising(ArtifactError, "secret"):
            open_graph(tmp_path / "graph.json", weights)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ([("offset", "-5")], ("-5",)),
        ([("offset", "x")], ("x",)),
        ([("offset", "9" * 5000)], ()),
        ([("offset", "4")], (16, 12)),
        ([("length", "5")], (5, 12)),
        ([("basepath", "/etc")], ("basepath",)),
        ([("nonsense", "1")], ("nonsense",)),
        ([("location", "secret")], ("location",)),
    ],
)
def test_a_graph_whose_tensors_lie_nowhere_in_its_file_is_refused(
    tmp_path: Path, place: list[tuple[str, str]], said: tuple[object, ...]
) -> None:
    (tmp_path / "secret").write_bytes(bytes(12))
    model = _constant()
    onnx.save(model, tmp_path / "graph.onnx")
    assert file_of(open_graph(tmp_path / "graph.onnx", tmp_path / "secret")) is None  # it is no initializer
    for key, text in place:
        model.graph.node[0].attribute[0].t.external_data.add(key=key, value=text)
    onnx.save(model, tmp_path / "graph.onnx")
    with raising(ArtifactError, "graph.onnx", "y", *said):
        open_graph(tmp_path / "graph.onnx", tmp_path / "secret")


@pytest.mark.parametrize(("kind", "shape", "said"), [(999, [3], 999), (1, [-1, -3], "")])
def test_a_tensor_of_no_size_is_refused(tmp_path: Path, kind: int, shape: list[int], said: object) -> None:
    model = _constant()
    tensor = model.graph.node[0].attribute[0].t
    tensor.data_type = kind
    tensor.dims[:] = shape
    (tmp_path / "secret").write_bytes(bytes(12))
    onnx.save(model, tmp_path / "graph.onnx")
    with raising(ArtifactError, "y", said):
        open_graph(tmp_path / "graph.onnx", tmp_path / "secret")


def test_a_graph_that_is_cut_off_or_gone_is_refused(tmp_path: Path) -> None:
    content = _constant().SerializeToString()
    (tmp_path / "graph.onnx").write_bytes(content[: len(content) // 2])
    for name in ("graph.onnx", "gone.onnx"):
        with raising(ArtifactError, name):
            open_graph(tmp_path / name, None)


def test_weights_are_those_of_the_file_that_is_named(tmp_path: Path) -> None:
    model = _linear(tmp_path)
    checked = tmp_path / "checked/weights"
    checked.parent.mkdir()
    (file_of(model) or tmp_path).rename(checked)
    onnx.save(with_weights_file(model, "weights"), tmp_path / "unet.onnx")
    (tmp_path / "weights").write_bytes(bytes(checked.stat().st_size))
    assert file_of(open_graph(tmp_path / "unet.onnx", checked)) == checked


@pytest.mark.parametrize("inline_limit_bytes", [0, 2**20])
def test_a_matrix_is_turned_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline_limit_bytes: int) -> None:
    monkeypatch.setattr(float_graphs, "INLINE_LIMIT_BYTES", inline_limit_bytes)
    model = export_graph(torch.nn.Linear(32, 16), [torch.zeros(1, 32)], input_names=["x"], output_names=["y"], scratch=tmp_path)
    matrix = next(i for i in model.graph.initializer if len(i.dims) == 2)
    before = np.array(value(matrix))
    transpose(matrix)
    assert np.array_equal(value(matrix), before.T)


def test_a_quantized_graph_holds_all_of_its_constants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_graphs, "INLINE_LIMIT_BYTES", 0)
    model = export_graph(_Reordered(), [torch.zeros(1, 64)], input_names=["x"], output_names=["y"], scratch=tmp_path)
    assert any(i.data_type == onnx.TensorProto.INT64 and uses_external_data(i) for i in model.graph.initializer)
    x = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    quantized = quantize_graph(model, activation_encodings(model, observe_ranges(model, [{"x": x}]), dtype="uint16"))
    assert file_of(quantized) is None
    np.testing.assert_allclose(open_session(quantized).run(None, {"x": x})[0], x[:, ::-1] * 2, atol=1e-3)


class _Reordered(torch.nn.Module):
    """A module whose order of columns is a constant of 64 integers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(63, -1, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.index_select(1, self.order) * 2


def test_discarded_weights_leave_no_file(tmp_path: Path) -> None:
    model = _linear(tmp_path)
    assert file_of(model)
    discard(model)
    assert not list(tmp_path.iterdir())


def test_discarding_weights_removes_nothing_that_lies_beside_them(tmp_path: Path) -> None:
    model = _linear(tmp_path)
    other = (file_of(model) or tmp_path).with_name("other")
    other.touch()
    with pytest.raises(OSError, match="not empty"):
        discard(model)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]


def test_a_module_is_not_kept_after_it_was_traced(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.Linear(16, 8))
    held = [weakref.ref(parameter) for parameter in module.parameters()]
    export_graph(module, [torch.zeros(1, 32)], input_names=["x"], output_names=["y"], scratch=tmp_path)
    del module
    gc.collect()
    assert [reference() for reference in held] == [None] * 4
