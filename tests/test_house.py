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
    house.crowded_top,
    house.riddles,
    house.other_raises,
    house.no_names,
)
BREACHES: dict[Rule, str] = {
    house.double_classes: "class A: ...\n\n\nclass B:\n    class A: ...\n",
    house.long_parameter_lists: "def f(self, a, b, c, d, *, e, f, g, h, i): ...\n",
    house.long_functions: "def f():\n" + "    pass\n" * 40,
    house.long_files: "a = 0\n" * 351,
    house.riddles: 'def f():\n    """Whether it is so."""\n',
    house.other_raises: 'def f():\n    """Do it. Raises: UserError."""\n',
    house.no_names: "def f():\n    for made in ():\n        pass\n",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    assert rule(PACKAGE) == []


@pytest.mark.parametrize("rule", BREACHES, ids=lambda rule: rule.__name__)
def test_the_rule_sees_a_breach(rule: Rule, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(BREACHES[rule])
    assert len(rule(tmp_path)) == 1
    assert rule(tmp_path)[0]


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


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("rollout.py", "import torch", "torch stays in"),
        ("observer.py", "import torch.nn", "torch stays in"),
        ("spec/document.py", "from torch import nn", "torch stays in"),
        ("recipe/published/__init__.py", "import diffusers", "torch stays in"),
        ("measure/a_new_module.py", "import torch", "torch stays in"),
        ("results/layout.py", "import quadbench.pipeline", "imports point down"),
        ("quad/sources.py", "import quadbench.deploy", "imports point down"),
        ("quad/sources.py", "import torch", "reuse does without torch"),
    ],
)
def test_the_import_contracts_see_a_breach(checkout: Path, module: str, line: str, contract: str) -> None:
    path = checkout / "quadbench" / module
    text = path.read_text() if path.exists() else None
    path.write_text(f"{text or ''}\n{line}\n")
    try:
        code, words = contracts(checkout)
    finally:
        path.unlink() if text is None else path.write_text(text)
    assert code != 0
    assert re.search(rf"^{contract}.* BROKEN", words, re.MULTILINE), words
