"""The page about Python shows code that runs."""

import ast
import re
from pathlib import Path

import pytest
from support.bundles import write_recipe_bundle
from support.scripted_harness import World
from support.stored_run import store_run

from quadbench.recipe.recipe import load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
NOT_HERE = ("# takes minutes\n", "# needs adb\n")  # of these only the imports are run


def test_the_examples_of_the_page_run_one_after_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = store_run(world)
    write_recipe_bundle(load_recipe("quickstart"), layout)
    world.device.close()
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(BLOCKS):
        tree = ast.parse(block)
        if block.startswith(NOT_HERE):
            tree.body = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
        exec(compile(tree, f"{PAGE.name}, block {number}", "exec"), names)
    said = capsys.readouterr().out
    for comment in re.findall(r"print\(.*\)  +# (\[.*\]|int8 12|True|local x86_64-linux)$", "".join(BLOCKS), re.MULTILINE):
        assert comment in said


def test_all_attributes_of_blocks_that_are_not_run_are_there() -> None:
    """Of `pipeline.NAME` and the like; their arguments are not checked."""
    for block in (block for block in BLOCKS if block.startswith(NOT_HERE)):
        for module, name in re.findall(r"\b(pipeline)\.(\w+)", block):
            assert hasattr(__import__(f"quadbench.{module}", fromlist=[name]), name), name
