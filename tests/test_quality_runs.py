"""Scoring what a run painted: against references and truth, from a stored run on the command line, and step by step."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

import onnx  # noqa: E402
from support.night_series import TASK, night  # noqa: E402
from support.scores import PIXELS, only  # noqa: E402
from support.sentences import raising, reads, says  # noqa: E402
from support.synthetic_run import failed, make_run  # noqa: E402
from support.watcher import Silent  # noqa: E402

from quadbench import quality as quality_of_runs  # noqa: E402
from quadbench.artifacts import Caveat, Component, StoredBundle, Variant  # noqa: E402
from quadbench.artifacts.night_record import Measurement, Point, Subject  # noqa: E402
from quadbench.artifacts.picture_metrics import PICTURE_METRICS  # noqa: E402
from quadbench.artifacts.pixels import composite, max_abs_difference, read_pixels  # noqa: E402
from quadbench.artifacts.run_record import ImageComparison, RunScores, Score  # noqa: E402
from quadbench.cli import main  # noqa: E402
from quadbench.errors import ArtifactError, UserError  # noqa: E402
from quadbench.nightly.launcher import LocalLauncher  # noqa: E402
from quadbench.nightly.night_file import Limits  # noqa: E402
from quadbench.nightly.night_plan import PlannedCase  # noqa: E402
from quadbench.nightly.perform import NightPictures  # noqa: E402
from quadbench.quad.runner import GraphSession  # noqa: E402
from quadbench.quality import score_run  # noqa: E402
from quadbench.quality.image_scores import score_run_images  # noqa: E402
from quadbench.quality.metrics import METRICS  # noqa: E402
from quadbench.quality.trajectories import EPS_SQNR, TaskModel  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.results.records import open_records  # noqa: E402
from quadbench.results.stored_runs import RunFile, load_run, save_run  # noqa: E402
from quadbench.study.run_comparison import SideSpec  # noqa: E402


def find(compared: tuple[ImageComparison, ...], task: str, maker: str, against: str) -> ImageComparison:
    return next(c for c in compared if (c.task, c.made, c.against) == (task, maker, against))


def test_a_run_is_compared_with_reference_and_truth(tmp_path):
    result = make_run(tmp_path)
    compared = score_run_images(result, Layout(tmp_path), metrics=PIXELS)
    assert [(c.made, c.against) for c in compared if c.task == "remove-object"] == [
        ("reference", "truth"),
        ("shared", "reference"),
        ("shared", "truth"),
        ("per-graph", "reference"),
        ("per-graph", "truth"),
    ]
    assert [(c.made, c.against) for c in compared if c.task == "draw"] == [("shared", "reference"), ("per-graph", "reference")]
    assert find(compared, "draw", "shared", "reference").device == "virtual:s25"


@pytest.mark.parametrize(
    ("variants", "scored"),
    [
        ((Variant.FLOAT,), {"float"}),  # as a case of a night with `changes: {variant: float}`
        ((Variant.FLOAT, Variant.SHARED), {"shared"}),  # the check of parity
        ((Variant.RESIDENT, Variant.MERGED_AT_LOAD), {"resident", "merged-at-load"}),
    ],
)
def test_each_variant_that_was_measured_is_scored(tmp_path, variants, scored):
    compared = score_run_images(make_run(tmp_path, variants=variants), Layout(tmp_path), metrics=["ssim"])
    assert {c.made for c in compared if c.made != "reference"} == scored
    assert all(isinstance(only(c.scores).value, float) for c in compared)


def test_a_run_s_images_are_those_of_its_sound_launches(tmp_path):
    def change(record):
        return failed(record, "killed") if record.variant is Variant.SHARED and record.launch == 1 else record

    result = make_run(tmp_path, change=change)
    record = next(r for r in result.records if r.variant is Variant.SHARED and r.images)
    black = np.zeros_like(read_pixels(tmp_path / record.images["draw/000"]))
    Image.fromarray(black).save(tmp_path / record.images["draw/000"])
    score = only(find(score_run_images(result, Layout(tmp_path), metrics=["psnr"]), "draw", "shared", "reference").scores)
    assert score.n == 2
    assert score.worst_item == "000"


def test_a_variant_without_images_is_unavailable(tmp_path):
    result = make_run(tmp_path, change=lambda r: failed(r, "killed") if r.variant is Variant.SHARED else r)
    score = only(find(score_run_images(result, Layout(tmp_path), metrics=["psnr"]), "draw", "shared", "reference").scores)
    assert (score.value, score.n) == ("no images", 0)


def test_random_weights_have_no_quality(tmp_path):
    trained = make_run(tmp_path)
    untrained = replace(trained.bundle, caveats=(Caveat.RANDOM_WEIGHTS,))
    result = replace(trained, stored=replace(trained.stored, artifact=untrained))
    with raising(UserError):
        score_run_images(result, Layout(tmp_path), metrics=PIXELS)


def test_a_missing_image_of_a_run_is_named(tmp_path):
    result = make_run(tmp_path)
    path = tmp_path / result.records[1].images["draw/001"]
    path.unlink()
    with raising(ArtifactError, path):
        score_run_images(result, Layout(tmp_path), metrics=PIXELS)


@pytest.fixture
def stored_run(tiny_bundle: StoredBundle, tmp_path: Path) -> Layout:
    """A results folder with one run of the tiny bundle, whose images are its references, one step brighter where they can be."""
    return stored_below(tmp_path, tiny_bundle)


@pytest.fixture(scope="module")
def scored_run(tiny_bundle: StoredBundle, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Such a folder, whose run's images and latents are scored."""
    layout = stored_below(tmp_path_factory.mktemp("scored"), tiny_bundle)
    score_run(layout, metrics=["psnr"], with_latents=True)
    return layout


def stored_below(folder: Path, tiny_bundle: StoredBundle) -> Layout:
    layout, name = Layout(folder / "results"), tiny_bundle.folder.name
    shutil.copytree(tiny_bundle.folder, layout.bundles / name)
    images = {}
    for task in tiny_bundle.artifact.tasks:
        for item in task.items:
            path = layout.run("r1") / "local" / task.name / f"{item.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            reference = read_pixels(tiny_bundle.path(item.reference))
            Image.fromarray(reference + (reference < 255)).save(path)
            images[f"{task.name}/{item.name}"] = layout.relative(path)
    template = make_run(folder / "synthetic", variants=(Variant.SHARED,)).records[0]
    save_run(layout, RunFile(run_id="r1", bundle=name, deployments=(), is_ended=True))
    with open_records(layout.database) as records:
        records.store(replace(template, run_id="r1", samples=(), images=images))
    return layout


def test_the_command_scores_a_stored_run_and_keeps_the_scores(stored_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", "r1", "--metrics", "psnr,ssim", "--results", str(stored_run.root), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {row["task"] for row in printed["compared"]} == {"change", "fill", "imagine"}
    assert all(row["scores"][0]["value"] > 45 for row in printed["compared"])
    kept = load_run(stored_run, "r1").scores
    assert kept is not None
    assert [c.task for c in kept.compared] == [row["task"] for row in printed["compared"]]
    assert kept.compared[0].scores[0].metric == METRICS["psnr"].metric


def test_the_command_prints_values_and_why_others_are_absent(stored_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", "--metrics", "psnr,lpips", "--results", str(stored_run.root)]) == 0
    printed = capsys.readouterr().out
    says(printed, "virtual:s25")
    assert re.search(r"PSNR, dB ↑ +\d\d\.\d +\d", printed)
    says(printed, "--weights", "lpips=PATH@sha256:HEX")


def test_a_run_without_an_htp_has_nothing_for_the_emulator(stored_run: Layout) -> None:
    with raising(UserError, "r1"):
        score_run(stored_run, metrics=["psnr"], with_emulator=True)


def test_scores_of_images_are_kept_where_what_follows_them_fails(stored_run: Layout) -> None:
    with raising(UserError):
        score_run(stored_run, metrics=["psnr"], with_emulator=True)
    kept = load_run(stored_run, "r1").scores
    assert kept is not None
    assert {one.task for one in kept.compared} == {"change", "fill", "imagine"}


def test_what_the_emulator_gave_is_kept_where_latents_fail(stored_run: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ArtifactError("a graph is damaged")

    emulated, saved = object(), list[RunScores]()
    monkeypatch.setattr(quality_of_runs, "emulated_trajectories", lambda *_: emulated)
    monkeypatch.setattr(quality_of_runs, "compare_latents", failing)
    monkeypatch.setattr(quality_of_runs, "save_scores", lambda _layout, _run_id, scores: saved.append(scores))
    with raising(ArtifactError):
        score_run(stored_run, metrics=["psnr"], with_emulator=True, with_latents=True)
    assert [one.emulated for one in saved] == [{}, emulated]


def test_whole_scores_are_not_replaced_by_a_part(scored_run: Layout) -> None:
    whole = load_run(scored_run, "r1").scores
    with raising(UserError):
        score_run(scored_run, metrics=["ssim"], with_emulator=True)
    assert load_run(scored_run, "r1").scores == whole


def test_figures_for_elsewhere_are_printed_and_nothing_is_written(stored_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in stored_run.root.rglob("*")}
    assert main(["report", "--format", "csv", "--results", str(stored_run.root)]) == 0
    assert capsys.readouterr().out.startswith("run_id,")
    assert {path: path.stat().st_mtime_ns for path in stored_run.root.rglob("*")} == before


def _case(measured: Measurement, chosen: SideSpec, quality: tuple[str, ...]) -> PlannedCase:
    return PlannedCase(
        name=measured.case,
        yardstick=chosen,
        side=chosen,
        words=(measured.address,),
        limits=Limits(),
        owner=None,
        quality=quality,
    )


def test_the_pictures_of_a_night_are_scored_on_the_device_that_painted_them(
    tiny_bundle: StoredBundle, stored_run: Layout
) -> None:
    points = tuple(Point(task=task, key="end_to_end", value=1e9) for task in ("change", "imagine"))
    subject = Subject(bundle=tiny_bundle.artifact.digest)
    measured = replace(night(0, 1.5, subject=subject), runs=("r0", "r1"), points=points)
    case = _case(measured, SideSpec(source="tiny", changes={}, bundle=tiny_bundle), ("ssim", "kid"))
    pictures = NightPictures(launcher=LocalLauncher(layout=stored_run, observer=Silent()), layout=stored_run)
    scores = pictures.scores(measured, "virtual:s25", case)
    assert {(one.task, one.key) for one in scores if one.key == "ssim"} == {("change", "ssim"), ("imagine", "ssim")}
    assert all(0.9 < one.value < 1 for one in scores if one.key == "ssim")
    with_scores = replace(measured, points=(*points, *scores))
    assert pictures.missing_scores(with_scores, case).keys() <= {("change", "kid"), ("imagine", "kid")}
    assert pictures.scores(measured, "virtual:another", case) == ()
    reads(set(pictures.missing_scores(measured, case).values()))


def test_a_score_of_none_is_kept_and_what_cannot_be_followed_is_missing_with_the_reason(tmp_path: Path) -> None:
    measured = replace(night(0, 1.5), runs=("r0", "r1"))
    values = {"st_lpips": 0.0, "kid": -0.001, "ssim": 0.0}
    scores = tuple(Score(metric=PICTURE_METRICS[name], value=value, n=2) for name, value in values.items())
    compared = ImageComparison(task=TASK, device="virtual:s25", made="shared", against="reference", scores=scores)
    case = _case(measured, SideSpec(source="tiny", changes={}), tuple(values))
    layout = Layout(tmp_path)
    launcher = LocalLauncher(layout=layout, observer=Silent())
    pictures = NightPictures(launcher=launcher, layout=layout, _runs={"r1": RunScores(compared=(compared,))})
    kept = pictures.scores(measured, "virtual:s25", case)
    assert {point.key: point.value for point in kept} == {"st_lpips": 0.0, "kid": -0.001}
    lacking = pictures.missing_scores(replace(measured, points=(*measured.points, *kept)), case)
    reads(lacking, TASK, 0)


@pytest.mark.parametrize("command", ["report", "quality"])
def test_a_reference_that_was_changed_is_neither_shown_nor_scored(
    command: str, stored_run: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(stored_run.bundles.rglob("reference/change/*.png"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert main([command, "--results", str(stored_run.root)]) == 3
    says(capsys.readouterr().err)


def test_damaged_scores_are_named(stored_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run.scores("r1").write_text("{}")
    assert main(["quality", "--metrics", "psnr", "--results", str(stored_run.root)]) == 3
    says(capsys.readouterr().err, "quality.json", "schema_version", 1)


def test_float_trajectories_end_in_the_reference_images(tiny_bundle: StoredBundle) -> None:
    bundle = tiny_bundle.artifact
    decoder = next(g for g in bundle.graphs if (g.variant, g.component) == (Variant.FLOAT, Component.VAE_DECODER))
    decode = GraphSession(onnx.load(tiny_bundle.path(decoder.file)))
    for task in bundle.tasks:
        model = TaskModel.load(tiny_bundle, task, Variant.FLOAT)
        for item in task.items:
            decoded = decode({"latent": model.run(item).latent})[0].permute(1, 2, 0).numpy()
            painted = (np.clip((decoded + 1) / 2, 0, 1) * 255).round().astype(np.uint8)
            if item.blend:
                assert item.image is not None
                with Image.open(tiny_bundle.path(item.blend)) as blend:
                    painted = composite(painted, read_pixels(tiny_bundle.path(item.image)), blend)
            assert max_abs_difference(painted, read_pixels(tiny_bundle.path(item.reference))) <= 2, f"{task.name}/{item.name}"


def test_latents_are_compared_for_every_task_and_variant(tiny_bundle: StoredBundle, scored_run: Layout) -> None:
    bundle, scores = tiny_bundle.artifact, load_run(scored_run, "r1").scores
    assert scores is not None
    compared = [one for one in scores.compared if one.scores[0].metric == EPS_SQNR]
    assert [(c.task, c.made) for c in compared] == [(t.name, v) for t in bundle.tasks for v in ("shared", "per-graph")]
    for one in compared:
        task = next(t for t in bundle.tasks if t.name == one.task)
        eps, latents, cosine = one.scores
        assert eps.n == len(task.items) * task.steps * (1 if task.guidance == 1 else 2)
        assert isinstance(eps.value, float)
        assert eps.value > 15
        assert isinstance(latents.value, float)
        assert latents.value > 10
        assert cosine.value == pytest.approx(1.0, abs=0.05)
