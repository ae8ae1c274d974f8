"""What people install: the wheel, the sdist, the image; what quadbench finds of its own once it is installed."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import quadbench
from quadbench import host
from quadbench.cli import main
from quadbench.cli.commands import COMMANDS
from quadbench.errors import UserError

ROOT = Path(__file__).parents[1]
CONTAINERFILE = (ROOT / "Containerfile").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OF_A_WHEEL = (
    "quadbench/py.typed",
    "quadbench/zoo/emoji-ldm/unet/diffusion_pytorch_model.safetensors",
    "quadbench/shipped/android_harness/CMakeLists.txt",
    "quadbench/shipped/android_harness/src/main.cpp",
    "quadbench/shipped/device_profiles/s25.yaml",
    "quadbench/shipped/recipes/quickstart.yaml",
    "quadbench/shipped/recipes/scale-inputs/0.png",
)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([ROOT / "scripts" / "dist.sh", folder], check=True, capture_output=True, cwd=ROOT)
    return folder


def wheel_of(folder: Path) -> Path:
    return folder / f"quadbench-{VERSION}-py3-none-any.whl"


def test_folders_lie_beside_the_package_in_a_checkout_and_in_it_once_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.shipped_folder("recipes") == ROOT / "recipes"
    monkeypatch.setattr(host, "_PACKAGE", tmp_path / "quadbench")
    assert host.shipped_folder("recipes") == tmp_path / "recipes"
    (tmp_path / "quadbench/shipped/recipes").mkdir(parents=True)
    assert host.shipped_folder("recipes") == tmp_path / "quadbench/shipped/recipes"


def test_an_installed_quadbench_takes_no_commit_from_the_checkout_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setattr(host, "_PACKAGE", tmp_path / "venv/site-packages/quadbench")
    assert host.checkout_commit() is None


def test_version_names_the_commit_of_a_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    commit = host.checkout_commit()
    assert capsys.readouterr().out.strip().endswith(f" (commit {commit})" if commit else "")


def test_public_names_are_those_that_the_page_documents() -> None:
    page = (ROOT / "docs/api.md").read_text()
    assert quadbench.__all__ == ["figures", "load"]
    assert set(re.findall(r"quadbench\.(load|figures)\(", page)) == set(quadbench.__all__)


def test_recipes_that_come_along_are_listed_with_their_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_a_copied_recipe_is_valid_in_another_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    assert main(["recipe", "new", name, "--output", str(file)]) == 0
    assert "recipes/" not in file.read_text().partition("\n")[0]
    assert main(["recipe", "check", str(file)]) == 0
    assert "mine: valid" in capsys.readouterr().out
    before = file.read_bytes()
    assert main(["recipe", "new", name, "--output", str(file)]) != 0
    assert file.read_bytes() == before


@pytest.mark.parametrize("words", [["quikstart"], ["../recipes/quickstart"], ["/etc/passwd"], [], ["--foundation", "emoji-ldm"]])
def test_what_cannot_be_copied_is_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "new", *words, "--output", str(tmp_path / "x.yaml")]) == UserError.exit_code
    said = capsys.readouterr().err
    assert "quickstart" in said
    assert not list(tmp_path.iterdir())


def test_a_shell_completes_names_of_files_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for name in (
        "run_pos_0",
        "lint_pos_0",
        "run___results",
    ):
        assert f"_shtab_quadbench_{name}_COMPGEN=_shtab_compgen_files" in script


def test_a_shell_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    (commands,) = re.findall(r"^_shtab_quadbench_subparsers=\((.*)\)$", script, re.MULTILINE)
    assert set(commands.replace("'", "").split()) == set(COMMANDS)
    assert re.search(r"_shtab_quadbench_run_option_strings=\(.*--devices\b", script)


def test_the_image_has_the_packages_that_set_up_installs() -> None:
    of_setup = re.findall(r"^(?:virtual|harness)=\((.*?)\)", (ROOT / "scripts/setup.sh").read_text(), re.MULTILINE)
    of_image = re.search(r"--no-install-recommends \\\n(.*?)\\\n", CONTAINERFILE, re.DOTALL)
    assert len(of_setup) == 2
    assert of_image
    assert set(" ".join(of_setup).split()) <= set(of_image[1].split())


@pytest.mark.slow
def test_two_builds_give_equal_bytes_and_the_wheel_is_whole(dist: Path, tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "dist.sh", tmp_path], check=True, capture_output=True, cwd=ROOT)
    names = sorted(path.name for path in dist.iterdir())
    assert names == [f"quadbench-{VERSION}-py3-none-any.whl", f"quadbench-{VERSION}.tar.gz"]
    for name in names:
        first, second = ((folder / name).read_bytes() for folder in (dist, tmp_path))
        assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()
    with zipfile.ZipFile(wheel_of(dist)) as wheel:
        inside = set(wheel.namelist())
    assert inside >= set(OF_A_WHEEL)
    licences = {name.partition("/licenses/")[2] for name in inside}
    assert licences >= {"LICENSE", "quadbench/zoo/NOTICE.md", "quadbench/quad/model/geometries/NOTICE.md"}
    assert not [name for name in inside if "/tests/" in name or "__pycache__" in name]
    with tarfile.open(dist / f"quadbench-{VERSION}.tar.gz") as sdist:
        assert {f"quadbench-{VERSION}/recipes/quickstart.yaml", f"quadbench-{VERSION}/tests/conftest.py"} <= set(sdist.getnames())


@pytest.mark.slow
def test_an_installed_sdist_has_its_recipes(dist: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    sdist = dist / f"quadbench-{VERSION}.tar.gz"
    subprocess.run([tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", "--no-compile", sdist], check=True)
    command = [tmp_path / "venv/bin/quadbench", "recipe", "check", "quickstart"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_an_installed_wheel_runs_the_quickstart_where_there_is_no_checkout(dist: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel_of(dist)}[quad]"]
    subprocess.run(install, check=True, env=environment)
    (tmp_path / "desk").mkdir()
    command = [tmp_path / "venv/bin/quadbench", "run", "quickstart", "--devices", "local", "--json"]
    result = subprocess.run(command, cwd=tmp_path / "desk", env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert Path(tmp_path / "desk", answer["report"]).is_file()
    version = subprocess.run([command[0], "--version"], env=environment, capture_output=True, text=True, check=True)
    assert version.stdout == f"quadbench {VERSION}\n"


def steps(containerfile: str) -> list[str]:
    """Return the commands of an image's RUN and COPY lines, those after USER as that user."""
    commands, user = [], "root"
    for line in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", containerfile, flags=re.MULTILINE)).splitlines():
        word, _, rest = line.partition(" ")
        if word == "USER":
            user = rest.strip()
        elif word in ("RUN", "COPY"):
            command = rest if word == "RUN" else f"cp {rest}"
            commands.append(command if user == "root" else f"su {user} -c '{command}'")
        else:
            assert word in ("", "FROM", "WORKDIR", "ENV", "ENTRYPOINT", "CMD"), line
    return commands


def test_steps_are_read_from_the_image() -> None:
    said = steps("# so\nFROM x\nRUN a \\\n  && b\nCOPY c d\nUSER u\nRUN e\n")
    assert said == ["a    && b", "cp c d", "su u -c 'e'"]
    with pytest.raises(AssertionError, match="ADD"):
        steps("ADD a b\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("debootstrap"), reason="needs root and debootstrap")
def test_the_image_s_steps_end_in_a_report(dist: Path, tmp_path: Path) -> None:
    """In a root folder of the Debian that the image is from. No container engine is needed, and none is tried."""
    suite = re.search(r"^FROM debian:(\w+)-slim$", CONTAINERFILE, re.MULTILINE)
    assert suite
    lines = ["set -e", f"mkdir dist; cp {wheel_of(dist)} dist/", *steps(CONTAINERFILE)]
    lines.append("su quadbench -c 'cd /work && /opt/quadbench/bin/quadbench run quickstart --devices local --json' >/root/answer")
    environment = os.environ | {"ROOTS": str(tmp_path), "WITH": f"{dist} {os.environ.get('WITH', '')}"}
    command = [ROOT / "scripts" / "host_root.sh", suite[1], "bash", "-c", "\n".join(lines)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-4000:]
    answer = json.loads((tmp_path / suite[1] / "root/answer").read_text())
    assert (tmp_path / suite[1] / "work" / answer["report"]).is_file()
    shutil.rmtree(tmp_path / suite[1])
