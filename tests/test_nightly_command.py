"""`quadbench nightly` says what is wrong with a file, a name or a word with exit code 1, before anything is measured."""

import json
import re
import shutil
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bundles import write_recipe_bundle
from support.sentences import says

from quadbench.cli import main
from quadbench.cli import nightly as cli_nightly
from quadbench.nightly.night_plan import device_of, plan_night
from quadbench.nightly.night_report import ERROR
from quadbench.recipe.recipe import load_recipe
from quadbench.results.bundles import freeze
from quadbench.results.engine import open_engine
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore

FILE = {
    "schema_version": 1,
    "name": "phones",
    "devices": ["local"],
    "yardstick": "reference",
    "cases": [{"name": "restyle", "source": "quickstart"}],
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "night.yaml"
    path.write_text(json.dumps(FILE | changes))
    return path


def nightly(folder: Path, *words: object) -> int:
    return main(["nightly", *map(str, words), "--results", str(folder / "results")])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cases": []}, 1),
        ({"cases": [{"name": "a", "source": "quickstart", "devices": []}]}, 1),
        ({"devices": ["chip=SM8750"]}, "chip=SM8750"),
        ({"name": "a\tb"}, ""),
        ({"devices": [" local"]}, "devices[0]"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: object
) -> None:
    assert nightly(tmp_path, "run", written(tmp_path, **changes)) == ERROR
    says(capsys.readouterr().err, said)
    assert not (tmp_path / "results" / "quadbench.sqlite").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["freeze", "../out", "quickstart"], ""),
        (["freeze", "reference", "nothing-of-the-kind"], "nothing-of-the-kind"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_words_that_mean_nothing_are_refused_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert nightly(tmp_path, *words) == ERROR
    says(capsys.readouterr().err, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["night.yaml"], "invalid choice: 'night.yaml' (choose from 'run', 'freeze')"),
        (["run", "night.yaml", "--nonsense"], "--nonsense"),
        (["run", "night.yaml", "--at", "01:00"], "--at"),
        (["freeze", "reference", "quickstart", "--dry-run"], "--dry-run"),
        (["freeze", "reference", "quickstart", "--budget", "6h"], "--budget"),
    ],
)
def test_a_wrong_command_line_is_no_regression(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nightly", *words])
    assert ended.value.code == ERROR
    assert said in capsys.readouterr().err


def test_a_night_without_its_yardstick_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nightly(tmp_path, "run", written(tmp_path), "--night", "one") == ERROR
    said = " ".join(capsys.readouterr().err.split())
    says(said, "reference")
    assert not (tmp_path / "results" / "quadbench.sqlite").exists()


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a results folder in which `reference` is frozen. What lies there is not to be changed."""
    folder = tmp_path_factory.mktemp("frozen")
    layout = Layout(folder / "results")
    freeze("reference", write_recipe_bundle(load_recipe("quickstart"), layout), layout)
    return folder


@pytest.fixture
def layout(frozen: Path, tmp_path: Path) -> Layout:
    """A copy of that results folder."""
    return Layout(shutil.copytree(frozen / "results", tmp_path / "results"))


def case(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "source": "quickstart", **more}


MISTAKES = {
    "yardstick": ({"yardstick": "refrence"}, "yardstick: unknown frozen bundle 'refrence'", "did you mean 'reference'?"),
    "wish": ({"cases": [case("a", devices=["s25*2"])]}, "cases[0].devices[0]: 's25*2' matches several devices", ""),
    "scores": ({"cases": [case("a", limits={"quality": 0.1})]}, "cases[0].limits.quality: `quality` lists no metric", ""),
    "scores of all": ({"limits": {"quality": 0.1}}, "limits.quality: `quality` lists no metric", ""),
}


@pytest.mark.parametrize(("changes", "said", "more"), MISTAKES.values(), ids=MISTAKES)
def test_what_a_file_names_and_what_is_not_there_is_refused_at_its_line_before_anything_runs(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: str, more: str
) -> None:
    assert nightly(tmp_path, "run", written(tmp_path, **({"devices": ["s25@NOWHERE"]} | changes))) == ERROR
    err = " ".join(capsys.readouterr().err.split())
    assert f"night.yaml:1: {said}" in err
    assert more in err
    assert not layout.database.exists()


def test_what_cases_name_and_what_is_not_there_is_refused(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"yardstick": "lost"}, "yardstick: unknown frozen bundle 'lost'"),
        ({"source": "quickstrt"}, "source: unknown recipe 'quickstrt'; known: .* did you mean 'quickstart'"),
        ({"source": "no/such.yaml"}, r"source: 'no/such\.yaml' cannot be read"),
        ({"changes": {"nonsense": "1"}}, "changes: .* with nonsense=1: unknown key"),
        ({"changes": {"measure.iterations": "x"}}, "changes: .* with measure.iterations=x: expected a whole number"),
        ({"changes": {"variant": "merged-at-load"}}, "changes: .* no graphs of merged-at-load"),
        ({"changes": {"kit": "91ab"}}, "changes: unknown runtime kit"),
        ({"changes": {"harness": "/no"}}, "changes: the harness '/no' is not a file"),
    ]
    cases = [case(f"a{number}", **words) for number, (words, _) in enumerate(wrong)]
    assert nightly(tmp_path, "run", written(tmp_path, devices=["s25@NOWHERE"], cases=cases)) == ERROR
    err = " ".join(capsys.readouterr().err.split())
    told = dict(re.findall(r"night\.yaml:1: cases\[(\d+)\]\.(.*?)(?= \S*night\.yaml:1: |$)", err))
    for number, (words, said) in enumerate(wrong):
        assert re.match(said, told[str(number)]), (words, err)
    assert not layout.database.exists()


def test_words_for_devices_that_cannot_be_or_are_of_one_device_are_refused(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "virtual:s52": "unknown device profile 's52'; known: .* did you mean 's25'",
        "s52@R5CX": "unknown device profile 's52'",
        "virtual:s25?scenario=cold": "unknown scenario 'cold'",
        "hub:s25": "'hub:s25' is at Qualcomm AI Hub",
        "local?x": r"'local\?x' is not a device address",
    }
    assert nightly(tmp_path, "run", written(tmp_path, devices=list(words))) == ERROR
    err = " ".join(capsys.readouterr().err.split())
    told = dict(re.findall(r"night\.yaml:1: devices\[(\d+)\]: (.*?)(?= \S*night\.yaml:1: |$)", err))
    for number, (word, said) in enumerate(words.items()):
        assert re.match(said, told[str(number)]), (word, err)
    assert nightly(tmp_path, "run", written(tmp_path, devices=["local", "R5CX", "local", "s25@R5CX"])) == ERROR
    err = " ".join(capsys.readouterr().err.split())
    says(err, "night.yaml:1: devices[2]", "local", "night.yaml:1: devices[3]", "s25@R5CX")
    assert not layout.database.exists()


def test_all_mistakes_of_a_file_are_said_at_once_each_at_its_line(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "night.yaml"
    lines = ["schema_version: 1", "name: phones", "devices: [virtual:s52]", "yardstick: lost", "cases:"]
    lines += ["- {name: a, source: nothing}", "- name: b", "  source: quickstart", "  changes:", "    nonsense: 1"]
    path.write_text("\n".join(lines).replace("nonsense: 1", "nonsense: '1'"))
    assert nightly(tmp_path, "run", path) == ERROR
    err = capsys.readouterr().err
    assert re.findall(r"night\.yaml:([0-9]+): ([a-z0-9.\[\]]+):", err) == [
        *(("3", "devices[0]"), ("4", "yardstick"), ("6", "cases[0].source"), ("9", "cases[1].changes"))
    ]


@pytest.mark.parametrize(
    ("source", "key"),
    [("quickstart", "switch"), ("sd15-scale", "psnr_db")],
)
def test_a_limit_of_a_figure_that_a_case_can_never_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, key: str
) -> None:
    recipe, layout = load_recipe(source), Layout(tmp_path / "results")
    freeze("reference", write_recipe_bundle(recipe.model_copy(update={"tasks": recipe.tasks[:1]}), layout), layout)
    limited = case("a", source=source, limits={key: 0.1, "ram": 0.1})
    assert nightly(tmp_path, "run", written(tmp_path, cases=[limited])) == ERROR
    says(capsys.readouterr().err, f"cases[0].limits.{key}")
    all_others = {"limits": {key: 0.1}, "cases": [case("a", source=source), case("b", source=source, limits={"ram": 0.1})]}
    assert nightly(tmp_path, "run", written(tmp_path, **all_others)) == ERROR
    says(capsys.readouterr().err, "night.yaml:1", f"limits.{key}")


def test_what_is_there_and_broken_is_missing_and_costs_no_other(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("schema_version: 1\nname: [")
    path = written(tmp_path, cases=[case("restyle"), case("other", source="broken.yaml")], devices=["s25@NOWHERE"])
    assert nightly(tmp_path, "run", path, "--night", "one", "--json") == 4
    assert json.loads(capsys.readouterr().out)["outcome"] == "MISSING"
    engine = open_engine(layout.database)
    causes = {ruling.case: ruling.cause for ruling in NightStore(engine).rulings("phones-one")}
    engine.dispose()
    assert "not YAML" in causes["other"]
    assert "NOWHERE" in causes["restyle"]


def test_a_dry_run_says_what_would_be_measured_and_what_is_broken_and_measures_nothing(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, cases=[case("restyle", owner="ana@lab", changes={"measure.iterations": "7"})])
    assert nightly(tmp_path, "run", path, "--dry-run", "--night", "one") == 0
    out = " ".join(capsys.readouterr().out.split())
    says(out, "restyle", "quickstart", "measure.iterations=7", "ana@lab", "phones-one", 1, 3)
    (tmp_path / "broken.yaml").write_text("schema_version: 1\nname: [")
    path = written(tmp_path, cases=[case("restyle"), case("other", source="broken.yaml")])
    assert nightly(tmp_path, "run", path, "--dry-run", "--json") == ERROR
    told, err = capsys.readouterr()
    assert [one["name"] for one in json.loads(told)["cases"]] == ["restyle"]
    assert list(json.loads(told)["faults"]) == ["other"]
    says(err, "other")
    assert not layout.database.exists()


def test_a_results_folder_that_is_lost_in_the_night_is_no_inconclusive_ruling(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_nightly, "perform", lambda *_, **__: layout.root.rename(tmp_path / "elsewhere") and 0)
    assert nightly(tmp_path, "run", written(tmp_path)) == ERROR
    says(capsys.readouterr().err)


def test_words_of_a_farm_are_the_farm_s_to_know(tmp_path: Path, layout: Layout) -> None:
    path = written(tmp_path, devices=["virtual:s52", "local@h1", "local@h2"])
    assert plan_night(path, layout, on_farm=True).pairs[-1] == ("restyle", "local@h2")


def test_a_results_folder_that_cannot_be_is_an_error_and_no_ruling(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    (layout.root / "nights").touch()
    assert nightly(tmp_path, "run", written(tmp_path)) == ERROR
    assert "nights" in capsys.readouterr().err


def test_tasks_that_the_yardstick_lacks_are_named_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    whole, layout = load_recipe("quickstart"), Layout(tmp_path / "results")
    first, *others = whole.tasks
    freeze("reference", write_recipe_bundle(whole.model_copy(update={"tasks": (first,)}), layout), layout)
    assert nightly(tmp_path, "run", written(tmp_path, devices=["s25@NOWHERE"])) == 4
    said = " ".join(capsys.readouterr().err.split())
    names = ", ".join(task.name for task in others)
    says(said, "restyle", names)


def test_a_night_that_begins_in_the_evening_is_that_of_the_next_morning(tmp_path: Path, layout: Layout) -> None:
    assert nightly(tmp_path, "run", written(tmp_path, devices=["s25@NOWHERE"])) == 4
    engine = open_engine(layout.database)
    (night_id,) = NightStore(engine).night_ids()
    engine.dispose()
    days = (datetime.fromisoformat(night_id.removeprefix("phones-")).date() - datetime.now(UTC).astimezone().date()).days
    assert days in (0, 1)


def test_the_command_that_goes_on_with_a_night_has_its_date_and_its_farm(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("QUADBENCH_DATABASE", "")  # put back at the end: --farm sets it
    monkeypatch.setattr(cli_nightly, "perform", interrupted)
    monkeypatch.setattr(cli_nightly, "_launcher", lambda *_: nullcontext())
    path, farm = written(tmp_path), f"{tmp_path}/farm.sqlite"
    assert nightly(tmp_path, "run", path, "--farm", f"sqlite:///{farm}", "--budget", "6h") == 130
    err = "".join(capsys.readouterr().err.split())
    assert re.search(r"--night\d{4}-\d\d-\d\d--farm" + re.escape(f"{farm}--budget6h"), err)


@pytest.mark.parametrize(
    ("word", "device"),
    [
        ("s25@R5CX", "R5CX"),
        ("R5CX", "R5CX"),
        ("left", "R5CX"),
        ("local", "local@"),
        ("virtual:s25", "virtual-s25@"),
        ("virtual:nothing", ""),
    ],
)
def test_a_device_that_was_never_there_has_the_name_under_which_it_would_be_leased(word: str, device: str) -> None:
    says(device_of(word, (), {"left": "R5CX"}), device)


def test_a_plan_has_each_case_with_each_of_its_words(tmp_path: Path, layout: Layout) -> None:
    plan = plan_night(written(tmp_path, devices=["local", "virtual:s25"]), layout)
    assert plan.pairs == (("restyle", "local"), ("restyle", "virtual:s25"))
    assert (plan.blocks, plan.faults) == (3, {})
