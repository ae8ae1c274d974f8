"""Tests of the repository itself: what it ships loads, what its pages say is so."""

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quadbench.cli import build_parser
from quadbench.errors import QuadbenchError
from quadbench.recipe import load_recipe
from quadbench.target.profile import load_profile

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PROFILES = sorted((ROOT / "device_profiles").rglob("*.yaml"))
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
# In two parts, or this file would be found.
WORKPLACE = re.compile("|".join(("/wor" + "k/", r"\.\./sha" + "red/", "/tmp/bash" + "_jobs")))


def commands(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that can be called, with its parser."""
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if prefix and not subparsers:
        yield prefix, parser
    for action in subparsers:
        for name, child in action.choices.items():
            yield from commands(child, f"{prefix} {name}".strip())


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def error_classes(base: type[QuadbenchError] = QuadbenchError) -> Iterator[type[QuadbenchError]]:
    yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def test_there_are_recipes_and_profiles():
    assert RECIPES
    assert PROFILES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_opens_with_its_command_line(path):
    assert load_recipe(path).name == path.stem
    assert path.read_text().startswith(f"# quadbench run recipes/{path.name} --devices ")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_loads_and_says_what_was_not_seen(path):
    profile = load_profile(path)
    assert profile.name == path.stem
    assert profile.notes


def test_the_readme_s_two_commands_are_targets():
    for target in ("demo", "test"):
        assert f"    make {target} " in README
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_every_target_has_help():
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    explained = set(re.findall(r"^([a-z][a-z-]*):.*## \w+", MAKEFILE, re.MULTILINE))
    assert targets == explained
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == targets


def test_every_command_has_help_and_stands_in_the_readme():
    found = dict(commands(build_parser()))
    assert {"run", "devices", "doctor", "report", "recipe check", "recipe schema", "harness build"} <= set(found)
    for name, parser in found.items():
        assert parser.description, name
        assert f"`quadbench {name}" in README, name


def test_every_exit_code_stands_in_the_readme():
    codes = {error.exit_code for error in error_classes()} | {0, 130}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == codes


def test_every_key_of_a_recipe_stands_in_its_page():
    page = (ROOT / "docs" / "recipe.md").read_text()
    models = [model for path in RECIPES for model in (load_recipe(path), *load_recipe(path).tasks, load_recipe(path).measure)]
    for key in {key for model in models for key in type(model).model_fields}:
        assert re.search(rf"`(quad\.)?{key}[`.]", page), key


def test_links_of_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_no_file_names_a_place_on_the_machine_where_it_was_written():
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        assert not WORKPLACE.search(text), path
