"""The house rules hold, and each of them sees a breach."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import house

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "quadbench"
Rule = Callable[[Path], list[str]]

RULES = (
    house.double_classes,
    house.long_parameter_lists,
    house.long_functions,
    house.long_files,
    house.slips,
    house.double_files,
    house.long_imports,
    house.crowded_top,
    house.open_folders,
    house.unlisted_files,
    house.riddles,
    house.other_raises,
    house.no_names,
)
BREACHES: dict[Rule, str] = {
    house.double_classes: "class A: ...\n\n\nclass B:\n    class A: ...\n",
    house.long_parameter_lists: "def f(self, a, b, c, d, *, e, f, g, h, i): ...\n",
    house.long_functions: "def f():\n" + "    pass\n" * house.MOST_FUNCTION_LINES,
    house.long_files: "a = 0\n" * (house.MOST_FILE_LINES + 1),
    house.riddles: 'def f():\n    """Whether it is so."""\n',
    house.other_raises: 'def f():\n    """Do it. Raises: UserError."""\n',
    house.no_names: "def f():\n    for made in ():\n        pass\n",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    assert rule(PACKAGE) == []


@pytest.mark.parametrize("rule", BREACHES, ids=lambda rule: rule.__name__)
def test_the_rule_sees_a_breach(rule: Rule, tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "module.py").write_text(BREACHES[rule])
    assert len(rule(tmp_path)) == 1
    assert rule(tmp_path)[0]


def test_a_small_module_needs_two_importers_and_a_file_name_stands_once(tmp_path: Path) -> None:
    for room in ("one", "two"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "module.py").write_text("import quadbench.one.module\n")
    assert len(house.slips(tmp_path)) == 2
    assert house.double_files(tmp_path) == ["module.py: one/module.py, two/module.py"]
    for user in ("a", "b"):
        (tmp_path / f"two/{user}.py").write_text("from quadbench.one import module\n" + "a = 0\n" * house.LEAST_FILE_LINES)
    assert [breach.split()[0] for breach in house.slips(tmp_path)] == ["two/module.py"]


def test_a_room_of_imports_is_seen(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room/module.py").write_text("import ast\n" * 7 + "a = 0\n" * 93)
    assert house.long_imports(tmp_path) == ["room: 7.0%"]
    (tmp_path / "room/other.py").write_text("a = 0\n" * 20)
    assert house.long_imports(tmp_path) == []


def test_the_rule_sees_a_folder_that_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    assert house.open_folders(tmp_path) == []
    (tmp_path / "room").mkdir()
    (tmp_path / "room/module.py").touch()
    assert house.open_folders(tmp_path) == ["room"]


def test_the_rule_sees_a_file_that_its_package_does_not_list_and_one_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "room/inner").mkdir(parents=True)
    for name in ("room/module.py", "room/inner/__init__.py"):
        (tmp_path / name).touch()
    (tmp_path / "room/__init__.py").write_text('"""A room.\n\nmodule.py  one thing\ninner/     more\n"""\n')
    assert house.unlisted_files(tmp_path) == []
    (tmp_path / "room/module.py").rename(tmp_path / "room/other.py")
    assert house.unlisted_files(tmp_path) == ["room/__init__.py: module.py, other.py"]


def test_what_a_host_that_only_measures_imports_brings_neither_torch_nor_onnx() -> None:
    builders = ("quad", "quality", "__main__.py")
    paths = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    modules = [".".join(("quadbench", *path.with_suffix("").parts)) for path in paths if not path.as_posix().startswith(builders)]
    assert len(modules) > 100
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "diffusers", "transformers", "peft"} & set(result.stdout.split())


def test_the_rule_sees_a_crowded_top(tmp_path: Path) -> None:
    for number in range(house.MOST_ENTRIES):
        (tmp_path / f"room{number}.py").touch()
    assert house.crowded_top(tmp_path) == []
    (tmp_path / "one_more").mkdir()
    assert len(house.crowded_top(tmp_path)) == 1


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that the import contracts are about."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    shutil.copytree(
        PACKAGE, folder / "quadbench", ignore=lambda _, names: [n for n in names if "." in n and not n.endswith(".py")]
    )
    return folder


def contracts(checkout: Path) -> tuple[int, str]:
    """The exit code and the words of the program that `make check` asks."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=checkout, env={"PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout


def test_the_import_contracts_hold(checkout: Path) -> None:
    code, words = contracts(checkout)
    assert code == 0, words
    assert "0 broken" in words


def test_the_import_contracts_see_every_breach(checkout: Path) -> None:
    breaches = {
        ("rollout/equipment.py", "import torch"): "torch stays in",
        ("observer.py", "import torch.nn"): "torch stays in",
        ("spec/yaml_document.py", "from torch import nn"): "torch stays in",
        ("recipe/published/__init__.py", "import diffusers"): "torch stays in",
        ("measure/a_new_module.py", "import torch"): "torch stays in",
        ("artifacts/pixels.py", "import accelerate"): "torch stays in",
        ("results/layout.py", "import quadbench.pipeline"): "imports point down",
        ("quad/model_files.py", "import quadbench.deploy"): "imports point down",
        ("quad/model_files.py", "import torch"): "reuse does without torch",
    }
    for module, line in breaches:
        with (checkout / "quadbench" / module).open("a") as file:
            file.write(f"\n{line}\n")
    code, words = contracts(checkout)
    assert code != 0
    parts = re.split(r"\n(?=.+\n---+\n)", words)  # a contract's name is underlined above what breaks it
    for (module, line), contract in breaches.items():
        importer = ".".join(("quadbench", *Path(module.removesuffix("/__init__.py")).with_suffix("").parts))
        found = f"{importer} -> {line.split()[1].removesuffix('.nn')} ("
        assert any(part.startswith(contract) and found in part for part in parts), words
