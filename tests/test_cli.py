"""The command line: exit codes, messages, output for machines. What a whole run does stands in test_pipeline."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.table import Table
from support.sentences import reads, says

from quadbench.cli import main
from quadbench.cli.commands import COMMANDS, GROUPS
from quadbench.cli.console import print_json, print_text, stdout_console
from quadbench.cli.options import sentence
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import FarmJobs
from quadbench.host import IS_LINUX
from quadbench.recipe.recipe import load_recipe
from quadbench.results.engine import DATABASE_VARIABLE, open_engine
from quadbench.zoo import adapter_folder

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
MISTAKES = """\
schema_version: 1
name: mistaken
foundation: {source: builtin, name: emoji-ldm}
adapters: {}
tasks:
  - name: restyle
    kind: image-to-image
    adapter: null
    sampler: {scheme: lcm, steps: many}
    strenght: 0.7
    inputs: {source: builtin, name: restyle}
precision: {weights: int8, activations: {scheme: w8a16}, lora: int16}
quad: {profile: {scheme: unified}, calibration: {scheme: joint}}
"""


@pytest.fixture(autouse=True)
def no_phone_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_every_mistake_of_a_recipe_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(MISTAKES)
    assert main(["recipe", "check", str(recipe)]) == 2
    error = _error(capsys)
    assert f"{recipe}:9: tasks[0].sampler.steps" in error
    assert f"{recipe}:10: tasks[0].strenght" in error
    assert "strength" in error
    assert list(tmp_path.iterdir()) == [recipe]


def test_an_unknown_recipe_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "check", "quickstrat"]) == 2
    says(_error(capsys), "quickstart")


def test_a_right_recipe_is_said_to_be_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "check", "quickstart"]) == 0
    says(capsys.readouterr().out, "quickstart", 2)


def test_a_new_recipe_is_complete_and_valid_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(adapter_folder("sticker"), tmp_path / "My Sticker")
    words = ["recipe", "new", "--foundation", "emoji-ldm", "--adapter", "My Sticker"]
    assert main(words) == 0
    assert "written: mine.yaml" in capsys.readouterr().out
    text = Path("mine.yaml").read_text()
    says(text)
    assert main(["recipe", "check", "mine.yaml"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("mine: valid; 1 adapter, 1 task, digest ")
    says(shown, "quadbench run", "mine.yaml")
    assert main(words) == 2
    says(_error(capsys), "mine.yaml")
    assert Path("mine.yaml").read_text() == text
    assert main([*words[:3], "nowhere", *words[4:], "--output", "other.yaml"]) == 2
    says(_error(capsys), "nowhere")
    assert not Path("other.yaml").exists()


def test_adapters_of_one_name_from_two_folders_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        shutil.copytree(adapter_folder("sticker"), tmp_path / folder / "style")
    words = ["recipe", "new", "--foundation", "emoji-ldm", "--adapter"]
    assert main([*words, "one/style", "two/style"]) == 0
    adapters = load_recipe("mine.yaml").adapters
    assert {name: str(adapter.path) for name, adapter in adapters.items()} == {"style": "one/style", "style-2": "two/style"}
    assert main([*words, "one/style", "two/../one/style", "--output", "other.yaml"]) == 2
    says(_error(capsys))


def test_the_schema_is_json_that_editors_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "foundation" in schema["properties"]


def test_a_phone_that_is_not_attached_is_answered_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--devices", "s25", "--results", str(tmp_path / "results")]) == 5
    error = _error(capsys)
    says(error, "s25")
    assert "virtual:s25" in error


def test_an_unknown_profile_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--devices", "virtual:s52", "--results", str(tmp_path / "results")]) == 2
    says(_error(capsys), "s25")


@pytest.mark.parametrize(
    ("device", "said"),
    [("local?target=qnn", ("local?target=qnn",)), ("a,b", ("--device", "a,b"))],
)
def test_what_is_no_device_to_be_tried_is_wrong_input(
    device: str, said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--device", device]) == 2
    says(_error(capsys), *said)


def test_an_unknown_profile_of_a_recipe_stands_at_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{QUICKSTART.read_text()}\ndevices:\n  s52: {{}}\n")
    line = len(recipe.read_text().splitlines())
    for words in (["recipe", "check", str(recipe)], ["run", str(recipe), "--devices", "local"]):
        assert main([*words, "--results", str(tmp_path / "results")]) == 2
        says(_error(capsys), f"{recipe}:{line}", "devices.s52", "s25")


def test_cores_that_are_not_there_or_stand_twice_are_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    for cores, said in (
        ("[0, 0]", ("runtime.cores", 0)),
        ("[1023]", (1023, "local")),
    ):
        recipe.write_text(f"{QUICKSTART.read_text()}\nruntime: {{cores: {cores}}}\n")
        assert main(["run", str(recipe), "--devices", "local", "--results", str(tmp_path / "results")]) == 2
        says(_error(capsys), *said)
    assert not list((tmp_path / "results").glob("bundles/*"))


def test_json_has_null_for_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"sqnr_db": float("inf"), "sites": ({"mse": float("nan")}, 1.5)})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"sqnr_db": None, "sites": [{"mse": None}, 1.5]}


def test_errors_are_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "check", "absent", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 2
    says(answer["error"], "absent")


def test_a_report_without_a_run_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(tmp_path)]) == 3
    says(_error(capsys))


def test_a_missing_adapter_stops_before_anything_is_written(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "model"))
    shutil.rmtree(folder / "adapters/second")
    results = tmp_path / "results"
    assert main(["run", str(folder / "recipe.yaml"), "--results", str(results)]) == 2
    error = _error(capsys)
    assert "adapter 'second'" in error
    says(error)
    assert not list((results / "bundles").glob("*"))


def test_devices_lists_virtual_ones_and_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json"]) == 0
    addresses = {row["address"] for row in json.loads(capsys.readouterr().out)}
    assert {"virtual:s25", "virtual:tabs11", "local"} <= addresses


def test_doctor_finds_what_the_main_job_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    of_virtual_devices = {"adb", "adbd", "bwrap"} if IS_LINUX else {"Linux"}
    assert {"torch", "adb", *({"compiler"} if IS_LINUX else ()), *of_virtual_devices} <= checks.keys()


def test_help_shows_the_groups_and_every_command_in_a_line_of_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "exit codes:" in lines
    for title, commands in GROUPS.items():
        start = lines.index(f"{title}:") + 1
        assert dict(line.split(maxsplit=1) for line in lines[start : start + len(commands)]) == commands


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: quadbench {command} [-h]")
    assert sentence(COMMANDS[command]) in " ".join(output.split())


def test_a_misspelt_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["reprot"])
    assert ended.value.code == 2
    error = _error(capsys)
    assert "invalid choice: 'reprot'" in error
    assert all(f"'{command}'" in error for command in COMMANDS)


def _imported_by(*words: str) -> set[str]:
    """Return the modules that a fresh `quadbench` has imported when it ends with exit code 0."""
    return _imported_by_all([words])


def _imported_by_all(commands: Sequence[Sequence[str]]) -> set[str]:
    """Return the modules that a fresh `quadbench` has imported after all of these commands."""
    code = (
        f"import sys\nfrom quadbench.cli import main\nfor words in {[list(words) for words in commands]!r}:\n"
        "    try:\n        main(words)\n    except SystemExit as ended:\n        assert ended.code in (0, None)\n"
        "print('\\nmodules:', *sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(output.rpartition("modules:")[2].split())


LARGE = {"onnxruntime", "torch", "sqlalchemy", "jinja2"}
LARGER = LARGE | {"numpy", "onnx", "pydantic"}


@pytest.mark.parametrize(
    ("words", "needed", "unwanted"),
    [
        (["--version"], {"quadbench.cli"}, LARGER | {"rich", "yaml", "PIL"}),
        (["--help"], {"quadbench.cli"}, LARGER | {"rich", "yaml", "PIL"}),
        (["harness", "--help"], {"quadbench.cli.harness", "quadbench.cli.options", "quadbench.results.layout"}, LARGER),
        (["recipe", "schema"], {"quadbench.cli.recipe"}, LARGE | {"numpy"}),
        (["recipe", "check", "quickstart"], {"quadbench.cli.recipe"}, LARGE),  # it reads the recipe's pictures, with numpy
    ],
)
def test_a_command_imports_itself_and_nothing_large(words: list[str], needed: set[str], unwanted: set[str]) -> None:
    imported = _imported_by(*words)
    assert needed <= imported
    assert not imported & unwanted
    assert imported & {f"quadbench.cli.{command}" for command in COMMANDS} <= needed


def test_a_look_at_a_farm_imports_nothing_that_runs_or_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(DATABASE_VARIABLE, str(tmp_path / "farm.sqlite"))
    monkeypatch.delenv("CONDOR_CONFIG", raising=False)
    engine = open_engine(tmp_path / "farm.sqlite")
    FarmJobs(engine).submit("run-a", [NewJob(kind=JobKind.BUILD, needs="x")], "ana", "0.1.0", lambda _: None)
    engine.dispose()
    words = [("status",), ("jobs",), ("logs", "1"), ("check",), ("cancel", "1"), ("drain", "lab-1"), ("token", "ana")]
    imported = _imported_by_all([("farm", *some) for some in words])
    assert {"quadbench.cli.farm", "quadbench.farm.dag", "sqlalchemy.dialects.sqlite"} <= imported
    assert not imported & {"numpy", "onnxruntime", "onnx", "torch", "pandas", "PIL", "jinja2", "psycopg"}
    assert not {name for name in imported if name.startswith(("quadbench.pipeline", "quadbench.devices", "quadbench.quad"))}


def test_plugins_of_other_packages_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged-1.0.dist-info").mkdir()
    (tmp_path / "plugged-1.0.dist-info" / "entry_points.txt").write_text("[pydantic]\nown = plugged:own\n")
    (tmp_path / "plugged-1.0.dist-info" / "METADATA").write_text("Name: plugged\nVersion: 1.0\n")
    (tmp_path / "plugged.py").write_text("own = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("PYDANTIC_DISABLE_PLUGINS", raising=False)
    imported = _imported_by("recipe", "schema")
    assert "pydantic" in imported
    assert "plugged" not in imported


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_no_other_command(command: str) -> None:
    source = Path(find_spec(f"quadbench.cli.{command}").origin).read_text()
    names = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert not names & {f"quadbench.cli.{other}" for other in COMMANDS}


def test_a_table_in_a_file_is_as_wide_as_it_is_and_no_word_of_it_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    row = " ".join(["shared"] * 20)
    stdout_console().print(row)
    assert capsys.readouterr().out == f"{row}\n"


@pytest.mark.parametrize(
    "words", [["targets"], ["recipe", "schema"], pytest.param(["targets", "--json"], marks=pytest.mark.slow)]
)
def test_output_that_cannot_be_written_is_told_and_no_fault_of_the_results_folder(words: list[str]) -> None:
    command = [sys.executable, "-m", "quadbench", *words]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 3
    reads(result.stderr, "No space left on device")


def test_a_pipe_that_nobody_reads_any_more_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as left:  # noqa: PTH123
        result = subprocess.run([sys.executable, "-m", "quadbench", "targets"], stdout=left, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize(("name", "before"), [("HF_HUB_OFFLINE", "0"), ("ORT_DISABLE_TELEMETRY", "")])
def test_libraries_are_kept_from_the_network(
    name: str, before: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, before)
    if not before:
        monkeypatch.delenv(name)
    assert main(["recipe", "schema"]) == 0
    assert os.environ[name] == "1"


@pytest.mark.parametrize("words", [["report", "--json", "--nope"], ["--json"], ["recipe", "check", "--js"], ["reprot", "--json"]])
def test_a_wrong_command_line_is_json_for_machines_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["exit_code"] == 2
    assert json.loads(shown.out)["error"] in shown.err


def test_a_wrong_command_line_cannot_colour_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "x", "\x1b[31;1my\x1b]0;z"])
    assert "\x1b" not in capsys.readouterr().err


def test_an_unexpected_error_is_json_for_machines_and_a_traceback_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("quadbench.cli.doctor.examine", broken)
    with pytest.raises(ZeroDivisionError):
        main(["doctor", "--json"])
    reads(json.loads(capsys.readouterr().out), "exit_code", "ZeroDivisionError")


@pytest.mark.parametrize("columns", ["0", "-1", "abc", "1", "9" * 4000])
def test_a_width_in_which_no_table_has_room_says_nothing(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["devices"]) == 0
    assert "virtual:s25" in capsys.readouterr().out


def test_nothing_that_is_printed_is_a_code_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="\x1b[2Ja", header_style="bold")
    table.add_column("\x1b]0;b\x07")
    table.add_row("\x1b[2J[bold]c")
    console = stdout_console()
    console.print(table)
    console.print("\x1b[2Jd")
    print_text("\x1b[2Je")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[2J[bold]c" in shown
