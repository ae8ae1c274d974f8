"""`quadbench nightly` says what is wrong with a file, a name or a word with exit code 1, before anything is measured."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bundles import write_recipe_bundle

from quadbench.cli import main
from quadbench.nightly.ending import ERROR, exit_code
from quadbench.nightly.night_file import load_night_file
from quadbench.nightly.plan import device_of, planned
from quadbench.recipe import load_recipe
from quadbench.results.engine import open_engine
from quadbench.results.frozen import freeze
from quadbench.results.layout import Layout
from quadbench.results.nights import Nights

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
        ({"cases": []}, "cases: expected at least 1"),
        ({"cases": [{"name": "a", "source": "quickstart", "devices": []}]}, "devices: expected at least 1"),
        ({"devices": ["s25*2"]}, "'s25*2' fits any of several devices, and a history is that of one"),
        ({"devices": ["chip=SM8750"]}, "'chip=SM8750' fits any of several devices"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: str
) -> None:
    assert nightly(tmp_path, written(tmp_path, **changes)) == ERROR
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "results" / "quadbench.sqlite").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["perform", "night.yaml"], "'perform night.yaml' is nothing to perform"),
        (["freeze", "../out", "quickstart"], "no bundle can be frozen under the name"),
        (["freeze", "reference", "nothing-of-the-kind"], "unknown recipe 'nothing-of-the-kind'"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_words_that_mean_nothing_are_refused_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert nightly(tmp_path, *words) == ERROR
    assert said in capsys.readouterr().err


def test_a_wrong_command_line_is_no_regression(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nightly", "night.yaml", "--nonsense"])
    assert ended.value.code == ERROR
    assert "--nonsense" in capsys.readouterr().err


def test_a_night_none_of_whose_cases_can_be_is_an_error_that_names_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nightly(tmp_path, written(tmp_path), "--night", "one") == ERROR
    said = " ".join(capsys.readouterr().err.split())
    assert "case 'restyle': unknown frozen bundle 'reference'" in said
    assert not (tmp_path / "results" / "quadbench.sqlite").exists()


def test_a_case_without_its_yardstick_is_missing_and_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path / "results")
    freeze("reference", write_recipe_bundle(load_recipe("quickstart"), layout), layout)
    cases = [FILE["cases"][0], {"name": "other", "source": "quickstart", "yardstick": "lost"}]  # type: ignore[index]
    assert nightly(tmp_path, written(tmp_path, cases=cases, devices=["s25@NOWHERE"]), "--night", "one", "--json") == 4
    assert json.loads(capsys.readouterr().out)["outcome"] == "MISSING"
    engine = open_engine(layout.database)
    causes = {ruling.case: ruling.cause for ruling in Nights(engine).rulings("phones-one")}
    engine.dispose()
    assert "unknown frozen bundle 'lost'" in causes["other"]
    assert "NOWHERE" in causes["restyle"]


def test_a_results_folder_that_cannot_be_is_an_error_and_no_ruling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path / "results")
    freeze("reference", write_recipe_bundle(load_recipe("quickstart"), layout), layout)
    (layout.root / "nights").touch()
    assert nightly(tmp_path, written(tmp_path)) == ERROR
    assert "nights" in capsys.readouterr().err


def test_tasks_that_the_yardstick_lacks_are_named_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    whole, layout = load_recipe("quickstart"), Layout(tmp_path / "results")
    first, *others = whole.tasks
    freeze("reference", write_recipe_bundle(whole.model_copy(update={"tasks": (first,)}), layout), layout)
    assert nightly(tmp_path, written(tmp_path, devices=["s25@NOWHERE"])) == 4
    said = " ".join(capsys.readouterr().err.split())
    names = ", ".join(task.name for task in others)
    assert f"case 'restyle': not measured, as the yardstick has no such tasks: {names}" in said


def test_a_night_that_begins_in_the_evening_is_that_of_the_next_morning(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")
    freeze("reference", write_recipe_bundle(load_recipe("quickstart"), layout), layout)
    assert nightly(tmp_path, written(tmp_path, devices=["s25@NOWHERE"])) == 4
    engine = open_engine(tmp_path / "results" / "quadbench.sqlite")
    (night_id,) = Nights(engine).night_ids()
    engine.dispose()
    days = (datetime.fromisoformat(night_id.removeprefix("phones-")).date() - datetime.now(UTC).astimezone().date()).days
    assert days in (0, 1)


@pytest.mark.parametrize(("more", "said"), [([], "OnCalendar=*-*-* 03:30:00"), (["--cron"], "30 3 * * *")])
def test_a_schedule_performs_the_file_every_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert nightly(tmp_path, "schedule", written(tmp_path), "--at", "03:30", *more) == 0
    printed = capsys.readouterr().out
    assert said in printed
    assert str(tmp_path / "night.yaml") in printed


@pytest.mark.parametrize(
    ("word", "device"),
    [
        ("s25@R5CX", "R5CX"),
        ("R5CX", "R5CX"),
        ("local", "local@"),
        ("virtual:s25", "virtual-s25@"),
        ("virtual:nothing", "virtual:"),
    ],
)
def test_a_device_that_was_never_there_has_the_name_under_which_it_would_be_leased(word: str, device: str) -> None:
    assert device_of(word, ()).startswith(device)


def test_a_plan_has_each_case_with_each_of_its_words_once(tmp_path: Path) -> None:
    path = written(tmp_path, devices=["local", "local", "virtual:s25"])
    plan = planned(load_night_file(path), tmp_path, Layout(tmp_path))
    assert plan.pairs == (("restyle", "local"), ("restyle", "virtual:s25"))
    assert plan.blocks == 3
    assert list(plan.faults) == ["restyle"]
    assert exit_code(()) == 0
