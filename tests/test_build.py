"""Recipe -> Bundle: its content, its fidelity, and that the same inputs build nothing twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from support.sentences import raising, reads  # noqa: E402

from quadbench.artifacts import Bundle, Caveat, Component, Graph, StoredBundle, TensorSpec, Variant  # noqa: E402
from quadbench.artifacts.pixels import blend_mask  # noqa: E402
from quadbench.artifacts.run_record import file_refs  # noqa: E402
from quadbench.errors import AdapterError, ArtifactError, UserError  # noqa: E402
from quadbench.quad.adapters.adapter import graph_tensors, own_tensors  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter  # noqa: E402
from quadbench.quad.build import build, doubts_of  # noqa: E402
from quadbench.quad.cache import find_bundle  # noqa: E402
from quadbench.quad.prepare import sites_of  # noqa: E402
from quadbench.quad.runner import mixed_inputs  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.recipe.settings import OwnTaskCalibration  # noqa: E402
from quadbench.results.digests import sha256_of  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.results.manifest import CHECKSUM, MANIFEST  # noqa: E402


def _graph(bundle: Bundle, variant: Variant, component: Component, task: str | None = None) -> Graph:
    return next(g for g in bundle.graphs if (g.variant, g.component, g.task) == (variant, component, task))


def _eps(bundle: StoredBundle, variant: Variant, task: str | None, lora: dict[str, np.ndarray]) -> np.ndarray:
    graph = _graph(bundle.artifact, variant, Component.UNET, task)
    rng = np.random.default_rng(0)
    data = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in graph.inputs if not i.name.startswith("lora.")}
    tensors = next(task.tensors for task in bundle.artifact.tasks if task.name == "fill")
    data["time_features"] = load_file(bundle.path(tensors))["time_features"][:1]
    session = onnxruntime.InferenceSession(bundle.path(graph.file), providers=["CPUExecutionProvider"])
    return session.run(None, data | lora)[0]


def _adapter(bundle: StoredBundle, name: str, variant: Variant) -> dict[str, np.ndarray]:
    inputs = _graph(bundle.artifact, variant, Component.UNET).inputs
    return mixed_inputs([(_adapter_path(bundle, name, variant), 1.0)], [spec for spec in inputs if spec.name.startswith("lora.")])


def _adapter_path(bundle: StoredBundle, name: str, variant: Variant) -> Path:
    return bundle.path(next(a for a in bundle.artifact.adapters if a.name == name and a.variant is variant).file)


def _sqnr_db(exact: np.ndarray, quantized: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(quantized - exact).sum()))


def test_every_file_of_the_bundle_is_what_its_manifest_says(tiny_bundle: StoredBundle) -> None:
    folder, files = tiny_bundle.folder, file_refs(tiny_bundle.artifact)
    assert {file.path for file in files} == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {
        MANIFEST,
        CHECKSUM,
    }
    assert all(sha256_of(tiny_bundle.path(file)) == file.sha256 for file in files)


def test_lora_inputs_are_sorted_int16_with_a_scale_and_required(tiny_bundle: StoredBundle) -> None:
    graph = _graph(tiny_bundle.artifact, Variant.SHARED, Component.UNET)
    lora = [spec for spec in graph.inputs if spec.name.startswith("lora.")]
    assert [spec.name for spec in lora] == sorted(spec.name for spec in lora)
    assert {spec.dtype for spec in lora} == {"int16"}
    assert all(spec.scale and spec.scale > 0 for spec in lora)
    model = onnx.load(tiny_bundle.path(graph.file))
    assert not {spec.name for spec in lora} & {initializer.name for initializer in model.graph.initializer}


def test_an_adapters_files_hold_its_own_sites_and_ranks_and_no_padding(tiny_bundle: StoredBundle, tiny_recipe: Path) -> None:
    unet = sites_of(load_recipe(tiny_recipe))
    graph_rows = {i.name: i.shape for i in _graph(tiny_bundle.artifact, Variant.SHARED, Component.UNET).inputs}
    ranks = set()
    for name in ("first", "second"):
        adapter = load_adapter(name, tiny_recipe.parent / "adapters" / name, unet)
        own = {key: tuple(tensor.shape) for key, tensor in own_tensors(adapter).items()}
        for variant, dtype in ((Variant.SHARED, np.int16), (Variant.FLOAT, np.float32)):
            tensors = load_file(_adapter_path(tiny_bundle, name, variant))
            assert {key: tensor.shape for key, tensor in tensors.items()} == own
            assert {tensor.dtype.type for tensor in tensors.values()} == {dtype}
        ranks |= {own[key] == graph_rows[key] for key in own}
    assert ranks == {True, False}  # some fill the graph's ranks, some do not


def test_an_adapters_file_is_padded_to_the_graphs_ranks_and_sites(tiny_bundle: StoredBundle, tiny_recipe: Path) -> None:
    inputs = [i for i in _graph(tiny_bundle.artifact, Variant.FLOAT, Component.UNET).inputs if i.name.startswith("lora.")]
    adapter = load_adapter("first", tiny_recipe.parent / "adapters/first", sites_of(load_recipe(tiny_recipe)))
    expected = graph_tensors(adapter, {spec.name: spec.shape for spec in inputs})
    padded = mixed_inputs([(_adapter_path(tiny_bundle, "first", Variant.FLOAT), 1.0)], inputs)
    assert {name: tensor.tolist() for name, tensor in padded.items()} == {name: t.tolist() for name, t in expected.items()}


def test_an_adapters_file_that_was_padded_by_an_older_quadbench_is_read(tiny_bundle: StoredBundle, tmp_path: Path) -> None:
    inputs = [i for i in _graph(tiny_bundle.artifact, Variant.SHARED, Component.UNET).inputs if i.name.startswith("lora.")]
    padded = mixed_inputs([(_adapter_path(tiny_bundle, "first", Variant.SHARED), 1.0)], inputs)
    save_file(padded, tmp_path / "padded.safetensors")
    again = mixed_inputs([(tmp_path / "padded.safetensors", 1.0)], inputs)
    assert {name: tensor.tolist() for name, tensor in again.items()} == {name: t.tolist() for name, t in padded.items()}


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "expected"),
    [
        ("lora.s.down", (4, 5), "int16", ("int16", 3, 5)),
        ("lora.s.down", (2, 4), "int16", ("int16", 3, 5)),
        ("lora.s.up", (6, 0), "int16", ("int16", 6, 3)),
        ("lora.s.up", (6,), "int16", ("int16", 6, 3)),
        ("lora.s.up", (6, 3), "int8", ("int16", 6, 3)),
        ("lora.t.up", (6, 3), "int16", ()),
    ],
)
def test_an_adapters_file_with_another_tensor_than_the_graph_takes_is_refused(
    name: str, shape: tuple[int, ...], dtype: str, expected: tuple[object, ...], tmp_path: Path
) -> None:
    save_file({name: np.ones(shape, dtype)}, tmp_path / "odd.safetensors")
    inputs = [TensorSpec(name=f"lora.s.{side}", shape=own, dtype="int16") for side, own in (("down", (3, 5)), ("up", (6, 3)))]
    with raising(ArtifactError, name, *expected) as refusal:
        mixed_inputs([(tmp_path / "odd.safetensors", 1.0)], inputs)
    reads(refusal.value.hint)


def test_adapters_say_which_base_and_profile_they_were_made_for(tiny_bundle: StoredBundle) -> None:
    bundle = tiny_bundle.artifact
    assert bundle.base.graph == _graph(bundle, Variant.SHARED, Component.UNET).file.sha256
    assert bundle.base.profile == json.loads(tiny_bundle.path(bundle.profile).read_text())["digest"]
    for adapter in bundle.adapters:
        with safe_open(tiny_bundle.path(adapter.file), framework="np") as file:
            assert file.metadata() == {"base_graph": bundle.base.graph, "base_profile": bundle.base.profile}


def test_weights_are_int8_and_activations_16_bits(tiny_bundle: StoredBundle) -> None:
    model = onnx.load(tiny_bundle.path(_graph(tiny_bundle.artifact, Variant.SHARED, Component.UNET).file))
    types = {i.name: i.data_type for i in model.graph.initializer}
    zero_points = {types[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert zero_points == {onnx.TensorProto.UINT16, onnx.TensorProto.INT16}  # INT16: second factors of products, for HTP
    large = [i for i in model.graph.initializer if int(np.prod(i.dims)) > 256]
    assert large
    assert {i.data_type for i in large} <= {onnx.TensorProto.INT8}


@pytest.mark.parametrize("adapter", ["first", "second", None])
def test_the_quantized_shared_graph_is_near_the_float_one(tiny_bundle: StoredBundle, adapter: str | None) -> None:
    floats = _adapter(tiny_bundle, adapter or "first", Variant.FLOAT)
    integers = _adapter(tiny_bundle, adapter or "first", Variant.SHARED)
    if adapter is None:
        floats, integers = ({key: np.zeros_like(t) for key, t in tensors.items()} for tensors in (floats, integers))
    exact = _eps(tiny_bundle, Variant.FLOAT, None, floats)
    assert _sqnr_db(exact, _eps(tiny_bundle, Variant.SHARED, None, integers)) > 25


def test_the_per_graph_baseline_computes_what_its_adapter_does(tiny_bundle: StoredBundle) -> None:
    exact = _eps(tiny_bundle, Variant.FLOAT, None, _adapter(tiny_bundle, "second", Variant.FLOAT))
    assert _sqnr_db(exact, _eps(tiny_bundle, Variant.PER_GRAPH, "fill", {})) > 25
    assert _sqnr_db(exact, _eps(tiny_bundle, Variant.PER_GRAPH, "imagine", {})) < 25


def test_calibration_inputs_are_not_evaluated(tiny_bundle: StoredBundle) -> None:
    tasks = {task.name: [item.name for item in task.items] for task in tiny_bundle.artifact.tasks}
    assert tasks == {"change": ["000", "001"], "fill": ["000", "001"], "imagine": ["000", "001"]}


def test_inputs_of_every_kind_are_in_the_bundle_as_the_harness_reads_them(tiny_bundle: StoredBundle, tiny_recipe: Path) -> None:
    items = next(task.items for task in tiny_bundle.artifact.tasks if task.name == "fill")
    for i, item in enumerate(items):
        assert item.blend
        with (
            Image.open(tiny_recipe.parent / "inputs" / f"{i}.mask.png") as given,
            Image.open(tiny_bundle.path(item.blend)) as kept,
        ):
            assert blend_mask(np.array(given.convert("L")) > 0).tobytes() == kept.tobytes()
        for file, name, mode in ((item.image, f"{i}.png", "RGB"), (item.mask, f"{i}.mask.png", "L")):
            with Image.open(tiny_recipe.parent / "inputs" / name) as given, Image.open(tiny_bundle.path(file)) as kept:
                assert kept.mode == mode
                assert np.array_equal(np.array(given.convert(mode)), np.array(kept))


def test_a_comparison_of_graphs_that_saw_unlike_inputs_is_doubted(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    own = OwnTaskCalibration(scheme="own-task", samples=1)
    uneven = recipe.model_copy(update={"quad": recipe.quad.model_copy(update={"calibration": own})})
    assert doubts_of(uneven) == (Caveat.UNEVEN_CALIBRATION,)
    assert doubts_of(recipe) == doubts_of(uneven.model_copy(update={"baselines": ()})) == ()


def test_olss_keeps_its_fit_error(tiny_bundle: StoredBundle) -> None:
    task = tiny_bundle.artifact.tasks[0]
    assert task.scheme == "olss"
    assert task.fit_error is not None
    assert json.loads(tiny_bundle.path(task.table).read_text())["fit_error"] == task.fit_error


def test_the_same_inputs_find_the_bundle_and_changed_ones_do_not(
    tiny_recipe: Path, tiny_bundle: StoredBundle, tmp_path: Path
) -> None:
    layout = Layout(tiny_bundle.folder.parent.parent)
    stored = find_bundle(load_recipe(tiny_recipe), layout)
    assert stored
    assert stored.artifact == tiny_bundle.artifact
    assert stored.is_reused
    moved = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "moved")) / "recipe.yaml"
    assert find_bundle(load_recipe(moved), layout), "where the inputs lie does not matter"
    moved.write_text(moved.read_text().replace("iterations: 2", "iterations: 3"))
    assert find_bundle(load_recipe(moved), layout), "how it is measured does not matter"
    moved.write_text(moved.read_text().replace("guidance: 2.0", "guidance: 2.5", 1))
    assert find_bundle(load_recipe(moved), layout) is None


def test_a_build_that_fails_leaves_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "spoilt"))
    weights = folder / "adapters/second/adapter_model.safetensors"
    save_file({name: np.full_like(tensor, np.nan) for name, tensor in load_file(weights).items()}, weights)
    layout = Layout(tmp_path / "results")
    with raising(AdapterError, "second"):
        build(load_recipe(folder / "recipe.yaml"), layout)
    assert not layout.bundles.exists() or not list(layout.bundles.iterdir())


@pytest.mark.slow
def test_an_interrupted_build_leaves_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    def interrupt(step: str) -> None:
        if step == "quantize":
            raise KeyboardInterrupt

    layout = Layout(tmp_path / "results")
    with pytest.raises(KeyboardInterrupt):
        build(load_recipe(tiny_recipe), layout, notify=interrupt)
    assert not list(layout.bundles.iterdir())


def test_too_few_inputs_are_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "few"))
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("samples: 1", "samples: 3"))
    with raising(UserError, "change", 3):
        build(load_recipe(recipe), Layout(tmp_path / "results"))
