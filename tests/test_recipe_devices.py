"""Settings for devices: what one profile's devices run otherwise is checked, built once for all alike, and shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.sentences import raising, reads, says
from support.synthetic_run import S25, TABS11, make_run
from support.watcher import Silent

from quadbench.artifacts import RunRecord, RunResult
from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import SpecError, UserError
from quadbench.quad.bundle_search import latest_bundle
from quadbench.quad.cache import RecipeDigests, digests_of
from quadbench.quad.inputs import check_devices
from quadbench.recipe import recipe_digest
from quadbench.recipe.published import published_table
from quadbench.recipe.recipe import RECIPES_FOLDER, load_recipe
from quadbench.report.html import render_html
from quadbench.report.kpi import kpi_rows
from quadbench.report.scores import quality_rows
from quadbench.report.tables import MeasuredRun, published_figures
from quadbench.report.view import report_view, run_summary
from quadbench.results.layout import Layout
from quadbench.study.run_sweep import SweepAxis, vary_recipe

TABLE_2: dict[str, Any] = yaml.safe_load((RECIPES_FOLDER / "paper-table2.yaml").read_text())
W8A8 = {"weights": "int8", "activations": {"scheme": "w8a8"}, "lora": "int8"}


def _written(folder: Path, devices: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(TABLE_2 | {"devices": devices}, sort_keys=False))
    return path


def test_the_papers_table_2_has_its_samplers_on_each_device() -> None:
    recipe = load_recipe("paper-table2")
    of_device = {
        name: [(task.sampler.scheme, task.sampler.steps) for task in recipe.for_device(name).tasks] for name in ("s25", "tabs11")
    }
    assert of_device == {"s25": [("olss", 8), ("lcm", 4)], "tabs11": [("olss", 8), ("ed", 4)]}
    assert recipe_digest(recipe.for_device("tabs11")) == recipe_digest(recipe.for_device("s25-exynos"))
    assert recipe.for_device("s25") == recipe.for_device(None) == recipe.model_copy(update={"devices": {}})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"samplers": {"object-remval": {"scheme": "ed", "steps": 4}}},
            ("object-remval", "object-removal"),
        ),
        ({"sampler": {}}, ("samplers",)),
        ({"samplers": {"object-removal": {"scheme": "edd", "steps": 4}}}, ("lcm", "olss", "edd")),
        ({"samplers": {"prompt-guided-image-transformation": {"scheme": "ed", "steps": 1}}}, ("0.25", 1)),
        ({"precision": W8A8 | {"lora": "int4"}}, ("int16", "int8", "int4")),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_at_its_key(
    tmp_path: Path, settings: dict[str, Any], problem: tuple[object, ...]
) -> None:
    with pytest.raises(SpecError) as refused:
        load_recipe(_written(tmp_path, {"tabs11": settings}))
    assert "devices.tabs11." in str(refused.value)
    says(str(refused.value), *problem)


def test_a_profile_that_there_is_none_of_is_refused_with_the_one_meant(tmp_path: Path) -> None:
    with raising(UserError, "tabs12", "tabs11"):
        check_devices(load_recipe(_written(tmp_path, {"tabs12": {}})))


@pytest.mark.parametrize("words", [["compare"], ["sensitivity"], ["adapter", "inspect", "nowhere", "--recipe"]])
def test_no_command_takes_a_recipe_with_a_profile_that_there_is_none_of(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(_written(tmp_path, {"tabs12": {}}))
    more = [recipe] if words == ["compare"] else []
    assert main([*words, recipe, *more, "--results", str(tmp_path / "results")]) == 2
    says(capsys.readouterr().err, "tabs11")


def test_a_sweep_over_what_a_device_has_for_itself_is_refused(tmp_path: Path) -> None:
    recipe = str(_written(tmp_path, {"tabs11": {"precision": W8A8}}))
    with raising(UserError, "devices.tabs11"):
        vary_recipe(recipe, [SweepAxis(key="precision.lora", values=("int16", "int8"))])
    own = vary_recipe(recipe, [SweepAxis(key="devices.tabs11.precision.lora", values=("int16", "int8"))])
    assert [each.recipe.for_device("tabs11").precision.lora for each in own] == ["int16", "int8"]
    assert len(vary_recipe(recipe, [SweepAxis(key="tasks.1.sampler.steps", values=("2", "4"))])) == 2


@pytest.fixture
def unlike(tmp_path: Path) -> RunResult:
    """A run in which the tablet has other steps for one task, and 8 bits."""
    result = make_run(tmp_path, devices=(S25, TABS11))
    tasks = tuple(replace(t, name="object-removal") if t.name == "restyle" else t for t in result.bundle.tasks)
    first = replace(result.bundle, tasks=tasks)
    other = replace(first, digest="d4" * 32, precision="w8a8", tasks=(replace(tasks[0], scheme="ed", steps=4), *tasks[1:]))
    stored = {
        b.digest: replace(result.stored, artifact=b, folder=result.stored.folder.with_name(b.digest[:4])) for b in (first, other)
    }

    def renamed(record: RunRecord) -> RunRecord:
        samples = tuple(replace(s, task="object-removal") if s.task == "restyle" else s for s in record.samples)
        return replace(record, samples=samples)

    return replace(
        result,
        stored=stored[first.digest],
        others={"tabs11": stored[other.digest]},
        records=tuple(map(renamed, result.records)),
        published="quad-table-2",
    )


def test_a_report_says_what_each_device_ran(unlike: RunResult, tmp_path: Path) -> None:
    view = report_view(unlike, Layout(tmp_path))
    assert view.ran
    assert view.ran.columns[3] == "object-removal"
    assert [(row[0], row[1], row[3]) for row in view.ran.rows] == [
        (S25.address, "w8a16", "olss, 8 steps"),
        (TABS11.address, "w8a8", "ed, 4 steps"),
    ]
    assert [(fact.value[:4], fact.where) for fact in view.digests if fact.name == "Bundle"] == [
        ("b0b0", S25.address),
        ("d4d4", TABS11.address),
    ]
    says(render_html(unlike, Layout(tmp_path)))
    summary = run_summary(view, "report.html")
    assert [one.samplers["object-removal"] for one in summary.devices.values()] == ["olss, 8 steps", "ed, 4 steps"]


def test_a_figure_beside_the_papers_says_where_its_sampler_is_another(unlike: RunResult) -> None:
    run = MeasuredRun(result=unlike, kpis=kpi_rows(unlike), quality=quality_rows(unlike))
    figures = published_figures([run], published_table("quad-table-2"))
    other = {f.row: f.other_sampler for f in figures if f.address and f.row.startswith("object-removal")}
    reads(other, "object-removal", "s25", "lcm", 4, "tabs11", "olss", 8)


def test_builds_that_differ_in_samplers_share_models_and_have_their_own_tasks() -> None:
    pytest.importorskip("torch")
    from quadbench.quad.prepare import BuildCache

    intermediates, given = BuildCache(Path()), []

    def prepared(floats: str) -> Any:
        def make(like: Any) -> Any:
            given.append(like)
            return f"prepared for {floats}"

        digests = RecipeDigests(bundle=floats, floats=floats, ranges=floats, models="one model", foundation="")
        return intermediates.prepared(digests, make)

    assert [prepared(floats) for floats in ("lcm", "ed", "lcm")] == [f"prepared for {name}" for name in ("lcm", "ed", "lcm")]
    reads(given, "lcm")


def test_only_samplers_and_bits_leave_the_models_digest_as_it_is() -> None:
    recipe = load_recipe("paper-table2")
    one, other = (digests_of(recipe.for_device(profile)) for profile in ("s25", "tabs11"))
    assert one.models == other.models
    assert one.floats != other.floats
    seeded = digests_of(recipe.model_copy(update={"tasks": tuple(t.model_copy(update={"seed": 7}) for t in recipe.tasks)}))
    assert seeded.models != one.models
    assert digests_of(recipe).bundle == one.bundle  # what it says of other devices does not count


@pytest.mark.slow
def test_each_device_runs_the_bundle_of_its_settings(tiny_recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from quadbench import pipeline
    from quadbench.quality import score_run
    from quadbench.rollout.forecast import forecast

    layout = Layout(tmp_path / "results")
    settings = {"samplers": {"imagine": {"scheme": "ed", "steps": 2}}}
    recipe = load_recipe(tiny_recipe, {"devices": {"tabs11": settings, "s25": settings}, "baselines": []})
    outcome = pipeline.run(recipe, parse_addresses(["local", "virtual:tabs11"]), layout=layout, observer=Silent())
    assert outcome.is_ok
    result = outcome.result
    ran = {record.device.address: record.bundle_digest for record in result.records}
    assert ran == {"local": result.bundle.digest, "virtual:tabs11": result.others["tabs11"].artifact.digest}
    steps = {each.artifact.digest: next(t.steps for t in each.artifact.tasks if t.name == "imagine") for each in result.bundles}
    assert [steps[digest] for digest in ran.values()] == [3, 2]
    assert "export" not in result.others["tabs11"].artifact.build_seconds  # the models were traced once
    forecasts = forecast(recipe, parse_addresses(["local", "virtual:tabs11", "virtual:s25"]), layout=layout)
    assert [one.bundle for one in forecasts] == [*ran.values(), ran["virtual:tabs11"]]
    scores = score_run(layout, result.run_id, metrics=["psnr"], with_latents=True)
    assert {one.device for one in scores.compared if one.scores[0].metric.name == "eps_sqnr"} == ran.keys()
    with raising(UserError, "the latest run has 2 bundles"):
        latest_bundle(layout)
