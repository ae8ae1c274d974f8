"""A whole sweep on the tiny model, everything real, on this machine."""

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from support.sentences import says

from quadbench.cli import main
from quadbench.quad.build import build
from quadbench.quad.prepare import BuildCache
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout


@pytest.mark.slow
def test_a_sweep_runs_scores_and_writes_every_value(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overs = ["--over", "precision.activations.int8=0,50", "--over", "tasks.imagine.sampler.steps=2,3"]
    assert main(["sweep", str(tiny_recipe), *overs, "--devices", "local", "--results", str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    points = {(*point["setting"].values(), point["task"]): point for point in answer["points"]}
    assert points.keys() == {(a, b, task) for a in ("0", "50") for b in ("2", "3") for task in ("change", "fill", "imagine")}
    figures = {key: {figure["key"] for figure in point["figures"]} for key, point in points.items()}
    assert all({"psnr", "eps_sqnr", "latent_sqnr", "unet_step", "end_to_end"} <= keys for keys in figures.values())
    assert all("psnr_teacher" in keys for (*_, task), keys in figures.items() if task == "imagine")
    folder = Path(answer["folder"])
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "sweep.html"}


@pytest.mark.slow
def test_a_sweep_that_keeps_going_names_the_value_that_failed(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = min(os.sched_getaffinity(0))
    recipe = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "recipe")) / tiny_recipe.name
    recipe.write_text(recipe.read_text().replace("{threads: 1}", f"{{threads: 1, cores: [{core}]}}"))
    over = f"runtime.cores.0={core},999"
    words = ["sweep", str(recipe), "--over", over, "--devices", "local", "--results", str(tmp_path / "results")]
    assert main(words) == 2
    says(capsys.readouterr().err, "runtime.cores", 999)
    (kept,) = (tmp_path / "results").glob("sweeps/*/sweep.json")
    assert list(json.loads(kept.read_text())["left_out"]) == ["runtime.cores.0=999"]
    assert main([*words, "--keep-going", "--json"]) == 2
    output = capsys.readouterr()
    assert {point["setting"]["runtime.cores.0"] for point in json.loads(output.out)["points"]} == {f"{core}"}
    says(output.err, "runtime.cores.0=999", 999)


@pytest.mark.slow
def test_builds_that_share_do_once_what_they_share_and_come_out_the_same(tiny_recipe: Path, tmp_path: Path) -> None:
    recipes = [load_recipe(tiny_recipe, {"precision.lora": lora}) for lora in ("int16", "int8")]
    intermediates, steps = BuildCache(tmp_path), [[], []]
    together = [
        build(recipe, Layout(tmp_path / "a"), notify=names.append, intermediates=intermediates).artifact
        for recipe, names in zip(recipes, steps, strict=True)
    ]
    alone = build(recipes[1], Layout(tmp_path / "b")).artifact
    assert set(steps[0]) - set(steps[1]) == {"export", "sampler tables", "trajectories"}
    assert [graph.file for graph in together[1].graphs] == [graph.file for graph in alone.graphs]
    assert [task.items for task in together[1].tasks] == [task.items for task in alone.tasks]
