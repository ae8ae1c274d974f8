"""The main job by LiteRT on an NPU: a kit brings LiteRT and a vendor's dispatch library, of which a stub is the NPU here."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert")

from support import neuron_stub
from support.dispatch_stub import write_dispatch
from support.sentences import raising, says
from support.tiny_model import copy_with_one_task
from test_pipeline import Watcher

from quadbench import pipeline
from quadbench.artifacts import RunRecord, Status, Variant
from quadbench.compile.litert_sdk import litert_version
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import MissingDependencyError
from quadbench.harness.runtime_library import LITERT_LIBRARY, litert_library, runtime_library
from quadbench.kits import store
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.target.abi import Abi, host_abi
from quadbench.target.profile import PROFILES_VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ADDRESS = "virtual:npu"
DISPATCH = "libLiteRtDispatch_MediaTek.so"
PROFILE = """\
schema_version: 1
name: npu
title: A stub of an NPU
match: {ro.product.model: NPU}
soc: {vendor: mediatek, model: MT6991, title: a stub, ram_mb: 1024}
target: {backend: litert, soc: MT6991}
virtual_target: {backend: litert, soc: MT6991}
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A device profile and a stub of MediaTek's SDK, for this process and those that it starts."""
    folder = tmp_path_factory.mktemp("scene")
    neuron_stub.write_sdk(folder / "packages", version=litert_version())
    (folder / "profiles").mkdir()
    (folder / "profiles/npu.yaml").write_text(PROFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "packages")
        paths = [str(folder / "packages"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv(PROFILES_VARIABLE, str(folder / "profiles"))
        yield


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(copy_with_one_task(tiny_recipe, tmp_path_factory.mktemp("recipe") / "tiny", switches=0))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("npu"))


@pytest.fixture(scope="module")
def records(scene: None, recipe: Recipe, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Sequence[RunRecord]:
    """What a run measured with a kit of this machine's runtimes and the stub."""
    dispatch = write_dispatch(tmp_path_factory.mktemp("libraries") / DISPATCH, litert_library())
    store.add_kit([runtime_library(), litert_library(), dispatch], host_abi("x86_64"), layout)
    return pipeline.run(recipe, parse_addresses([ADDRESS]), layout=layout, observer=Watcher()).result.records


def test_a_device_whose_kit_has_a_dispatch_library_runs_what_the_vendor_s_compiler_has_made(records: Sequence[RunRecord]) -> None:
    (shared,) = (record for record in records if record.status is not Status.OK)
    assert shared.variant is Variant.SHARED
    says(
        shared.reason, "fast and wrong: mean PSNR against the reference is"
    )  # it ran to its end; what a stub computes is made up
    assert shared.target == "litert-mt6991"
    assert shared.settings["engine"] == "litert"
    assert {f"kit.{name}" for name in (LITERT_LIBRARY, DISPATCH)} <= shared.versions.keys()
    assert any(DISPATCH in name for name in shared.versions if name.startswith("library"))


def test_a_dispatch_library_of_another_release_is_named_in_litert_s_words(
    records: Sequence[RunRecord], recipe: Recipe, layout: Layout, tmp_path: Path
) -> None:
    dispatch = write_dispatch(tmp_path / DISPATCH, litert_library(), version=2)
    other = Layout(tmp_path / "results")
    other.root.mkdir()
    for name in ("bundles", "harness"):
        (other.root / name).symlink_to(layout.root / name)
    store.add_kit([runtime_library(), litert_library(), dispatch], host_abi("x86_64"), other)
    records = pipeline.run(recipe, parse_addresses([ADDRESS]), layout=other, observer=Watcher()).result.records
    reason = next(record.reason for record in records if record.variant is Variant.SHARED)
    says(reason, "LiteRtRunCompiledModel", 3)


def test_a_run_for_an_npu_without_its_dispatch_library_is_refused_before_anything_is_built(
    scene: None, recipe: Recipe, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "results")
    store.add_kit([runtime_library(), litert_library()], Abi.X86_64_LINUX, layout)
    with raising(MissingDependencyError, "MediaTek", DISPATCH) as caught:
        pipeline.run(recipe, parse_addresses([ADDRESS]), layout=layout, observer=Watcher())
    says(caught.value.hint, "LiteRT", DISPATCH, "quadbench runtime add")
    assert not layout.bundles.exists()
