"""Per-graph U-Nets in other files: a base and patches, and one context binary with equal weights once."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from support.sentences import raising

onnx = pytest.importorskip("onnx")

from support.bundles import write_bundle, write_graph  # noqa: E402
from support.harness_model import TinyModel, as_floats, draw_adapter, merged  # noqa: E402
from support.watcher import Silent  # noqa: E402

from quadbench import pipeline  # noqa: E402
from quadbench.artifacts import Status, StoredArtifact, StoredBundle, Variant  # noqa: E402
from quadbench.compile import compile_bundle  # noqa: E402
from quadbench.compile.repacking import BLOCK_BYTES, CHUNK_BYTES, base_of, write_patch  # noqa: E402
from quadbench.devices.addresses import parse_addresses  # noqa: E402
from quadbench.errors import BuildError  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.report.kpi import kpi_rows  # noqa: E402
from quadbench.report.serving_modes import serving_modes  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.target.targets import AiHubTarget, OnnxRuntimeTarget, Target  # noqa: E402

CPU = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
HUB = AiHubTarget(backend="ai_hub", device="Samsung Galaxy S25 (Family)", runtime="qnn_context_binary")
TASKS = ("one", "two", "three")


def patched(base: np.ndarray, patch: Path) -> np.ndarray:
    """Return what a patch makes of the bytes `base`, by what docs/formats.md says of patches."""
    with safe_open(patch, "np") as file:
        size, shifts, names = int(file.metadata()["bytes"]), file.get_tensor("shifts"), sorted(set(file.keys()) - {"shifts"})
        difference = b"".join(zlib.decompress(file.get_tensor(name).tobytes()) for name in names)
    at = np.arange(size)
    at += shifts[at // BLOCK_BYTES]
    inside = (at >= 0) & (at < base.size)
    below = np.where(inside, base[at.clip(0, base.size - 1)], 0).astype(np.uint8)
    return below + np.frombuffer(difference, np.uint8)


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize(
    ("base", "wanted"), [(5, 1000), (1000, 5), (1000, 1000), (1000, 1700), (1700, 1000), (CHUNK_BYTES + 5, CHUNK_BYTES + 9)]
)
def test_a_patch_makes_any_file_of_any_other(tmp_path: Path, base: int, wanted: int) -> None:
    write_patch(noise(base, 1), noise(wanted, 2), tmp_path / "patch")
    assert np.array_equal(patched(noise(base, 1), tmp_path / "patch"), noise(wanted, 2))


def test_a_patch_of_weights_that_move_by_a_step_is_a_fraction_of_them(tmp_path: Path) -> None:
    weights = noise(2**20, 3)
    touched = weights.copy()
    touched[: 2**19] += np.random.default_rng(4).integers(0, 3, 2**19, np.uint8)
    write_patch(weights, touched, tmp_path / "patch")
    entropy_bytes = 2**19 * np.log2(3) / 8
    assert entropy_bytes < (tmp_path / "patch").stat().st_size < 1.25 * entropy_bytes


@pytest.mark.parametrize("moved", [-1300, 256, 70_001])
def test_weights_that_a_compiler_moved_cost_a_patch_nothing(tmp_path: Path, moved: int) -> None:
    weights = noise(2**20, 3)
    head = noise(max(0, moved), 5)
    wanted = np.concatenate([head, weights[max(0, -moved) :]])
    write_patch(weights, wanted, tmp_path / "patch")
    assert np.array_equal(patched(weights, tmp_path / "patch"), wanted)
    assert (tmp_path / "patch").stat().st_size < len(head) + 2 * BLOCK_BYTES


def test_the_base_is_the_file_that_differs_least_from_the_others() -> None:
    plain = noise(100_000)
    others = [plain.copy() for _ in range(3)]
    for i, other in enumerate(others):
        other[i * 20_000 : i * 20_000 + 15_000] += noise(15_000, i) % 3
    assert base_of([others[0], others[1], plain, others[2]]) == 2


def bundle_of_tasks(folder: Path, *variants: Variant) -> StoredBundle:
    """Return a bundle with a U-Net for each task, and the same again for other ways to keep them."""
    stored = write_bundle(folder, onnx.load(TinyModel().write_unet(folder.parent / "base.onnx", lora="int16")))
    graphs = list(stored.artifact.graphs)
    for seed, task in enumerate(TASKS):
        own = merged(TinyModel(), as_floats(draw_adapter(seed, "int16"))).write_unet(folder.parent / f"{task}.onnx", lora=None)
        graph = write_graph(folder, onnx.load(own), variant=Variant.PER_GRAPH, task=task)
        graphs += [graph, *(replace(graph, variant=variant) for variant in variants)]
    return StoredArtifact(artifact=replace(stored.artifact, graphs=tuple(graphs)), folder=folder)


def test_a_compiled_bundle_has_one_graph_and_a_patch_for_each_other(tmp_path: Path) -> None:
    bundle = bundle_of_tasks(tmp_path / "bundle", Variant.PATCHED)
    compiled = compile_bundle(bundle, CPU, "cpu", Layout(tmp_path / "results"))
    graphs = [graph for graph in compiled.artifact.graphs if graph.variant is Variant.PATCHED]
    own = {graph.task: graph for graph in compiled.artifact.graphs if graph.variant is Variant.PER_GRAPH}
    assert [graph.task for graph in graphs] == list(TASKS)
    (base,) = {graph.file for graph in graphs}
    assert [graph.task for graph in graphs if graph.patch is None] == [next(t for t, g in own.items() if g.file == base)]
    for graph in graphs:
        if graph.patch:
            found = patched(np.fromfile(compiled.path(base), np.uint8), compiled.path(graph.patch))
            assert found.tobytes() == compiled.path(own[graph.task].file).read_bytes()
    assert sum(path.startswith("patched/") for path in compiled.artifact.costs) == len(TASKS) - 1


@pytest.mark.slow
def test_patched_graphs_are_run_and_reported_as_a_way_of_their_own(tiny_recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    recipe = load_recipe(tiny_recipe, {"baselines": ["per-graph", "patched"]})
    layout = Layout(tmp_path / "results")
    result = pipeline.run(recipe, parse_addresses(["local"]), layout=layout, observer=Silent()).result
    records = {record.variant: record for record in result.records}
    assert {record.status for record in records.values()} == {Status.OK}
    own, patched = records[Variant.PER_GRAPH], records[Variant.PATCHED]
    for name in own.images:
        assert (layout.root / own.images[name]).read_bytes() == (layout.root / patched.images[name]).read_bytes()
    (ways,) = serving_modes(result, kpi_rows(result))
    files = {row[1]: row[ways.table.fields.index("files_mb")] for row in ways.table.values}
    assert files["patched"] < files["per-graph"]


@pytest.mark.parametrize(("variant", "target"), [(Variant.CONTEXT_SHARED, CPU), (Variant.PATCHED, HUB)])
def test_a_way_that_a_target_cannot_serve_is_refused(tmp_path: Path, variant: Variant, target: Target) -> None:
    bundle = bundle_of_tasks(tmp_path / "bundle", variant)
    with raising(BuildError, "'key'", variant):
        compile_bundle(bundle, target, "key", Layout(tmp_path / "results"))
