"""The main job on Qualcomm's HTP emulator: compiled for the NPU, run by the native harness on a virtual device."""

import html
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime_qnn")

from test_pipeline import Watcher

from quadbench import pipeline
from quadbench.artifacts import Bundle, Caveat, RunRecord, Status, Variant
from quadbench.recipe import load_recipe

LEAST_DB = 30.0


def _psnr_db(record: RunRecord) -> list[float]:
    return [s.value for s in record.samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pictures_from_the_emulator_are_those_of_the_reference_and_its_times_are_nowhere(
    tiny_recipe: Path, tiny_bundle: tuple[Bundle, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle[1].parent, tmp_path / "bundles")
    recipe = load_recipe(tiny_recipe)
    recipe = recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"timeout_s": 1500.0, "switches": 0})})
    outcome = pipeline.run(recipe, ["virtual:s25?target=qnn"], results=tmp_path, observer=Watcher())
    records = outcome.result.records
    assert {record.variant: record.reason for record in records if record.status is not Status.OK} == {}
    assert {record.target for record in records} == {"qnn-v79-69"}
    assert {record.variant for record in records if Caveat.EMULATED_NPU in record.caveats} == {Variant.SHARED, Variant.PER_GRAPH}
    psnr_db = [value for record in records if record.variant is Variant.SHARED for value in _psnr_db(record)]
    assert sum(psnr_db) / len(psnr_db) > LEAST_DB
    assert "an emulator's time" in html.unescape(outcome.report.read_text())
