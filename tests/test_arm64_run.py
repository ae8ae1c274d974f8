"""The main job on a virtual phone with a phone's ABI: harness and kit for arm64 are pushed, and the pictures are those of x86."""

import html
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import RESULTS
from PIL import Image

pytest.importorskip("torch")

from support.sentences import says
from support.tiny_model import copy_with_one_task
from test_pipeline import Watcher

from quadbench import pipeline
from quadbench.artifacts import Caveat, Status, Variant
from quadbench.artifacts.kit import Role
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.virtual import arm64_emulator
from quadbench.errors import MissingDependencyError
from quadbench.kits.store import find_kit, list_kits
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.target.abi import Abi

ADDRESS = "virtual:s25?abi=arm64-v8a"


@pytest.fixture
def recipe(tiny_recipe: Path, tmp_path: Path) -> Recipe:
    """One task of the tiny model in two steps and one thread, one image."""
    return load_recipe(copy_with_one_task(tiny_recipe, tmp_path / "tiny", iterations=1, switches=0, timeout_s=900))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A results folder with the kit for arm64 Linux; what is built lies in the checkout's."""
    shared, layout = Layout(RESULTS), Layout(tmp_path / "results")
    try:
        arm64_emulator(ADDRESS)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    if not any(kit.artifact.abi is Abi.ARM64_LINUX for kit in list_kits(shared)):
        pytest.skip(f"no kit for arm64 Linux in '{RESULTS}': quadbench runtime fetch onnxruntime-linux")
    shutil.copytree(shared.kits, layout.kits)
    shared.programs.mkdir(parents=True, exist_ok=True)
    layout.programs.symlink_to(shared.programs)
    return layout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_virtual_phone_that_runs_programs_for_arm64_paints_the_pictures_of_this_machine(recipe: Recipe, layout: Layout) -> None:
    outcome = pipeline.run(recipe, parse_addresses(["local", ADDRESS]), layout=layout, observer=Watcher())
    records = {(record.device.address, record.variant): record for record in outcome.result.records}
    assert {key: record.reason for key, record in records.items() if record.status is not Status.OK} == {}
    for variant in (Variant.FLOAT, Variant.SHARED):
        here, there = records["local", variant], records[ADDRESS, variant]
        assert there.images.keys() == here.images.keys() != set()
        for name, path in there.images.items():
            assert np.abs(_pixels(layout, path) - _pixels(layout, here.images[name])).max() <= 1
        assert {Caveat.VIRTUAL_DEVICE, Caveat.EMULATED_CPU} <= set(there.caveats)
        assert Caveat.EMULATED_CPU not in here.caveats
        kit = find_kit(there.versions["kit"], layout).artifact
        (runtime,) = kit.libraries_with_role(Role.RUNTIME)
        assert there.versions[f"kit.{runtime.name}"] == runtime.file.sha256
        assert not any(name.startswith("kit") for name in here.versions)
    assert records[ADDRESS, Variant.SHARED].target == "onnxruntime-cpu-aarch64"
    says(html.unescape(outcome.report.read_text()), "an emulator's time")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_litert_of_a_kit_for_arm64_paints_the_pictures_of_this_machine_s_litert(recipe: Recipe, layout: Layout) -> None:
    pytest.importorskip("ai_edge_litert")
    if not any(kit.artifact.libraries_with_role(Role.LITERT) for kit in list_kits(layout)):
        pytest.skip(f"no kit with LiteRT in '{RESULTS}': quadbench runtime fetch onnxruntime-linux litert-linux")
    here, there = "virtual:s25?target=litert", "virtual:tabs11?abi=arm64-v8a&target=litert"
    records = pipeline.run(recipe, parse_addresses([here, there]), layout=layout, observer=Watcher()).result.records
    assert {record.reason for record in records if record.status is not Status.OK} == set()
    shared = {record.device.address: record for record in records if record.variant is Variant.SHARED}
    assert {address: record.target for address, record in shared.items()} == {
        here: "litert-cpu-x86_64",
        there: "litert-cpu-aarch64",
    }
    assert "kit.libLiteRt.so" in shared[there].versions
    for name, path in shared[there].images.items():
        assert np.abs(_pixels(layout, path) - _pixels(layout, shared[here].images[name])).max() <= 1


def _pixels(layout: Layout, path: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.asarray(Image.open(layout.file(path))).astype(np.int16)
