"""quadbench without its extras: every command works or names the package that is missing and the command that installs it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.stored_run import RUN, stored_below
from test_repo import commands

from quadbench.cli import build_parser
from quadbench.errors import MissingDependencyError, extra_hint

ROOT = Path(__file__).parents[1]
DRIVER = """
import contextlib, io, json, sys, traceback
from quadbench.cli import main
answers = {}
for line in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line.split())
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            code = traceback.format_exc()
    answers[line] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(answers))
"""
# fmt: off
LINES = (
    "run quickstart --devices local", "run quickstart --devices virtual:s25", "run quickstart --devices local --dry-run",
    f"compare {RUN} --b variant=per-graph", "compare quickstart quickstart --devices local",
    "sweep quickstart --over steps=2,4 --devices local", "nightly run night.yaml", "nightly freeze night.yaml", "history", "runs",
    f"show {RUN}", f"report {RUN}", "serve --port 0", f"quality {RUN}", "quality --images . --reference .",
    f"samples {RUN} -o samples.csv", "prune --keep 3 --dry-run",
    "store status", "store collect", "store send bundle b0", "store fetch bundle b0",
    "recipe check quickstart", "recipe new quickstart", "recipe new --foundation emoji-ldm --adapter missing.safetensors",
    "recipe list", "recipe schema", "compile quickstart --target local", "lint results/bundles/b0", "sensitivity quickstart",
    "adapter inspect missing.safetensors", "adapter convert missing.safetensors --rank 4 --recipe quickstart --output new",
    "adapter admit missing.safetensors --recipe quickstart --like restyle",
    "devices", "reserve s25 --for 1h", "release s25", "who", "targets", "doctor", "doctor --all", "completion bash",
    "farm init", "farm status", "farm jobs", "farm check", "farm host --help", "farm drain lab-1", "farm token ana", "farm unit",
    "farm attempt 1", "farm submit quickstart --devices local", "farm cancel 1", "farm logs 1", "farm fetch 1",
    "harness build --abi arm64-v8a",
    "runtime list", "runtime show k", "runtime remove k", "runtime add missing.aar", "runtime fetch unknown",
)
# fmt: on


@pytest.fixture(scope="module")
def base_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to quadbench's base dependencies alone, in place of site-packages."""
    folder = tmp_path_factory.mktemp("base")
    for package in (distribution("quadbench"), *_needed_by("quadbench", {})):
        for name in {path.parts[0] for path in package.files or () if path.parts[0] not in ("..", "__pycache__")}:
            place = Path(str(package.locate_file(name)))
            if place.exists() and place.suffix != ".pth" and not (folder / name).exists():
                (folder / name).symlink_to(place)
    return folder


def _needed_by(name: str, found: dict[str, Distribution], extras: tuple[str, ...] = ("",)) -> list[Distribution]:
    """Return the packages that a package needs, as pip would install them."""
    for requirement in map(Requirement, distribution(name).requires or ()):
        wanted = not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and requirement.name not in found:
            found[requirement.name] = distribution(requirement.name)
            _needed_by(requirement.name, found, ("", *requirement.extras))
    return list(found.values())


@pytest.fixture(scope="module")
def answers(base_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What each command line answered beside a stored run: its exit code or traceback, stdout, stderr."""
    desk = tmp_path_factory.mktemp("desk")
    stored_below(desk)
    (desk / "night.yaml").write_text("schema_version: 1\n")
    environment = {**os.environ, "PYTHONPATH": f"{base_packages}{os.pathsep}{ROOT}", "HOME": str(desk)}
    command = [sys.executable, "-S", "-c", DRIVER, json.dumps(LINES)]
    result = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_each_command_is_tried() -> None:
    left_out = {name for name in dict(commands(build_parser())) if not any(f"{line} ".startswith(f"{name} ") for line in LINES)}
    assert left_out == set()


@pytest.mark.parametrize("line", LINES)
def test_no_command_ends_in_a_traceback(line: str, answers: dict[str, list]) -> None:
    code, _, said = answers[line]
    assert isinstance(code, int), code
    assert "Traceback" not in said
    if code == MissingDependencyError.exit_code and not line.startswith("doctor"):
        assert said.count("error: ") == 1
        assert re.search(r"(needs|not installed|is not found|is not set|missing)", said)
        assert "Hint: " in said


@pytest.mark.parametrize(
    "line", ["run quickstart --devices local", "compile quickstart --target local", "sensitivity quickstart"]
)
def test_what_builds_names_the_extra(line: str, answers: dict[str, list]) -> None:
    code, _, said = answers[line]
    assert code == MissingDependencyError.exit_code
    assert f"Hint: {extra_hint('quad')}" in " ".join(said.split())


@pytest.mark.parametrize(
    "line", [f"show {RUN}", f"report {RUN}", f"compare {RUN} --b variant=per-graph", "runs", "recipe check quickstart", "targets"]
)
def test_what_reads_works(line: str, answers: dict[str, list]) -> None:
    code, said, _ = answers[line]
    assert (code, bool(said)) == (0, True)


@pytest.mark.parametrize(
    ("marker", "command"),
    [
        ("pipx_metadata.json", "pipx inject quadbench "),
        ("uv-receipt.toml", "uv pip install --python "),
        ("other", f"{sys.executable} -m pip install "),
    ],
)
def test_an_extra_is_installed_by_what_installed_quadbench(marker: str, command: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / marker).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    assert extra_hint("quad").startswith(command)
    assert extra_hint("quad").endswith("'quadbench[quad]'")


def test_a_pip_that_is_not_ours_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert extra_hint("quad") == f"{sys.executable} -m pip install 'quadbench[quad]'"


def test_all_has_every_other_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = (Requirement(line) for line in extras["all"] if line.startswith("quadbench"))
    assert everything.extras == set(extras) - {"all", "dev"}
