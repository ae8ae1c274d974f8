"""The main job in LiteRT: written by quadbench, run by the native harness on a virtual device, beside ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert")

from support.harness_launch import launch
from support.harness_scene import Plan
from support.sentences import says
from support.tiny_model import copy_with_one_task
from test_pipeline import Watcher

from quadbench import pipeline
from quadbench.artifacts import RunRecord, Status, Variant
from quadbench.devices.addresses import parse_addresses
from quadbench.harness.runtime_library import LITERT_LIBRARY, litert_library
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout.equipment import host_libraries
from quadbench.target.profile import load_profile
from quadbench.target.targets import LiteRtTarget

ONNX_RUNTIME, LITERT = "virtual:s25", "virtual:tabs11?target=litert"
LEAST_DB = 30.0


@pytest.fixture(scope="module")
def records(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[RunRecord]:
    """What a run on a device of each runtime measured."""
    folder = tmp_path_factory.mktemp("litert")
    recipe = load_recipe(copy_with_one_task(tiny_recipe, folder / "tiny", switches=0))
    outcome = pipeline.run(recipe, parse_addresses([ONNX_RUNTIME, LITERT]), layout=Layout(folder / "results"), observer=Watcher())
    return outcome.result.records


@pytest.mark.slow
def test_one_run_measures_two_runtimes_and_their_pictures_are_those_of_the_reference(records: Sequence[RunRecord]) -> None:
    assert {record.reason for record in records if record.status is not Status.OK} == set()
    shared = {record.device.address: record for record in records if record.variant is Variant.SHARED}
    assert {address: record.settings.get("engine") for address, record in shared.items()} == {
        ONNX_RUNTIME: None,
        LITERT: "litert",
    }
    loaded = {address: any(LITERT_LIBRARY in name for name in record.versions) for address, record in shared.items()}
    assert loaded == {ONNX_RUNTIME: False, LITERT: True}
    psnr_db = [s.value for s in shared[LITERT].samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]
    assert sum(psnr_db) / len(psnr_db) > LEAST_DB


@pytest.mark.slow
def test_float_graphs_are_onnx_runtime_s_where_litert_is_the_target(records: Sequence[RunRecord]) -> None:
    of_float = [record for record in records if record.variant is Variant.FLOAT and record.device.address == LITERT]
    assert of_float
    assert not any(LITERT_LIBRARY in name for record in of_float for name in record.versions)


def test_an_address_asks_for_the_npu_of_a_phone_and_for_the_cpu_of_a_virtual_device() -> None:
    profile = load_profile("tabs11").with_target("litert")
    assert profile.target == LiteRtTarget(backend="litert", soc="MT6991")
    assert profile.virtual_target == LiteRtTarget(backend="litert")


def test_a_device_takes_litert_beside_onnx_runtime() -> None:
    first, second = host_libraries(LiteRtTarget(backend="litert"))
    assert "onnxruntime" in first.path.name
    assert second.path == litert_library()


def test_a_library_that_is_not_litert_is_refused_by_the_harness(harness: Path, plan: Plan) -> None:
    plan["runtime"] |= {"engine": "litert"}  # the library is still ONNX Runtime's
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "LiteRT", "2.3", "LiteRtCreateEnvironment")


def test_a_graph_that_is_no_tflite_file_is_refused_by_the_harness(harness: Path, plan: Plan) -> None:
    plan["runtime"] |= {"engine": "litert", "library": str(litert_library())}
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "text_encoder", "LiteRT")


def test_an_unknown_engine_is_refused_by_the_harness(harness: Path, plan: Plan) -> None:
    plan["runtime"] |= {"engine": "tflite"}
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    assert "runtime.engine" in heard.error()


def test_a_dispatch_library_is_litert_s_alone(harness: Path, plan: Plan) -> None:
    plan["runtime"] |= {"dispatch": "libLiteRtDispatch_MediaTek.so"}
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "runtime.engine", "litert")
