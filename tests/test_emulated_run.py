"""The main job on Qualcomm's HTP emulator: compiled for the NPU, run by the native harness on a virtual device."""

import html
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime_qnn")

from support.sentences import says
from support.tiny_model import copy_with_one_task
from test_pipeline import Watcher

from quadbench import pipeline
from quadbench.artifacts import Caveat, RunRecord, Status, Variant
from quadbench.devices.addresses import parse_addresses
from quadbench.quality import score_run
from quadbench.quality.trajectories import CPU_TO_FLOAT, HTP_TO_CPU, HTP_TO_FLOAT
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout

LEAST_DB = 30.0


def _psnr_db(record: RunRecord) -> list[float]:
    return [s.value for s in record.samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]


@pytest.fixture
def recipe(tiny_recipe: Path, tmp_path: Path) -> Recipe:
    """One task of the tiny model in two steps, with its adapter alone: an image takes the emulator seconds."""
    return load_recipe(copy_with_one_task(tiny_recipe, tmp_path / "tiny", switches=0, timeout_s=1500))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pictures_from_the_emulator_are_those_of_the_reference_and_its_times_are_nowhere(recipe: Recipe, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")
    outcome = pipeline.run(recipe, parse_addresses(["virtual:s25?target=qnn"]), layout=layout, observer=Watcher())
    records = outcome.result.records
    assert {record.variant: record.reason for record in records if record.status is not Status.OK} == {}
    assert {record.target for record in records} == {"qnn-v79-69"}
    assert {record.variant for record in records if Caveat.EMULATED_NPU in record.caveats} == {Variant.SHARED}
    psnr_db = [value for record in records if record.variant is Variant.SHARED for value in _psnr_db(record)]
    assert sum(psnr_db) / len(psnr_db) > LEAST_DB
    says(html.unescape(outcome.report.read_text()), "an emulator's time")
    (judged,) = score_run(layout, metrics=["psnr"], with_emulator=True).emulated.values()
    assert [(one.variant, len(one.steps)) for one in judged.trajectories] == [
        (HTP_TO_CPU, 2),
        (HTP_TO_FLOAT, 2),
        (CPU_TO_FLOAT, 2),
    ]
    assert all(one.worst and one.worst.sqnr_db and one.worst.sqnr_db > LEAST_DB for one in judged.trajectories)
