"""Tests of the repository itself: what it ships loads, what its pages say is so."""

import argparse
import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from quadbench.cli import PIPE_CLOSED, build_parser, main
from quadbench.errors import QuadbenchError
from quadbench.recipe.recipe import load_recipe
from quadbench.target.profile import load_profile

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PROFILES = sorted((ROOT / "device_profiles").rglob("*.yaml"))
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
COMMANDS = (DOCS / "commands.md").read_text()
DESIGN = (DOCS / "design.md").read_text()
PAGES = sorted(DOCS.rglob("*.md"))
OTHER_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md", "android_harness/README.md")]
MEASURED = [page for page in PAGES if page.parent.name == "archive" and page.stem != "index"]
MOST_TERMS = 35  # of the glossary: what is standard in the field does not stand in it
MAKEFILE = (ROOT / "Makefile").read_text()
# In two parts, or this file would be found.
WORKPLACE = (b"/wor" + b"k/", b"../sha" + b"red/", b"/tmp/bash" + b"_jobs")


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


def links(page: Path) -> list[tuple[Path, str]]:
    """The file and the anchor, which may be empty, of every link of a page that leads to a file."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    pairs = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in pairs]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def modules_in(package: str) -> set[str]:
    """The modules of a package, files as `name.py`, packages as `name/`."""
    folder = ROOT / package
    return {path.name for path in folder.glob("*.py")} | {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}


def strings_of(code: str) -> Iterator[str]:
    """Every string of a module, what an f-string fills in as `…`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


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


def test_every_command_has_help_and_stands_in_its_page():
    parsers = dict(commands(build_parser()))
    assert {"run", "devices", "doctor", "report", "recipe check", "recipe schema", "harness build"} <= set(parsers)
    for name, parser in parsers.items():
        assert parser.description, name
        assert f"`quadbench {name}" in COMMANDS, name


@pytest.mark.parametrize("page", ["commands", "troubleshooting"])
def test_every_exit_code_stands_in_its_pages(page):
    codes = {error.exit_code for error in error_classes()} | {0, 129, 130, 143, PIPE_CLOSED}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", (DOCS / f"{page}.md").read_text(), re.MULTILINE)}
    assert listed == (codes if page == "commands" else codes - {0})


def test_every_key_of_a_recipe_stands_in_its_page():
    page = (ROOT / "docs" / "recipe.md").read_text()
    recipes = [load_recipe(path) for path in RECIPES]
    models = [model for recipe in recipes for model in (recipe, *recipe.tasks, recipe.measure)]
    for key in {key for model in models for key in type(model).model_fields}:
        assert re.search(rf"`(quad\.)?{key}[`.]", page), key


def test_the_page_of_recipes_opens_with_a_whole_one_that_is_valid(tmp_path, capsys):
    opening = (DOCS / "recipe.md").read_text().partition("\n## ")[0]
    recipe = re.search(r"^```yaml\n(.*?)^```", opening, re.MULTILINE | re.DOTALL)
    assert recipe
    (tmp_path / "mine.yaml").write_text(recipe[1])
    assert main(["recipe", "check", str(tmp_path / "mine.yaml")]) == 0
    assert capsys.readouterr().out.startswith("mine: valid; 1 adapter, 1 task")


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target.name}#{anchor}"


def test_every_page_is_linked_from_the_index():
    pages = set(DOCS.glob("*.md")) | {DOCS / "measured" / "index.md"}
    assert {target for target, _ in links(DOCS / "index.md")} >= pages - {DOCS / "index.md"}


def test_every_page_is_in_the_site_s_navigation_once():
    parts = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = [page for part in parts for page in ([part] if isinstance(part, str) else next(iter(part.values())))]
    assert sorted(named) == sorted([*(page.name for page in DOCS.glob("*.md")), "measured/index.md"])


def test_every_log_is_linked_from_what_was_measured():
    assert {target for target, _ in links(DOCS / "measured" / "index.md")} >= set(MEASURED)


def test_every_page_is_within_three_clicks_of_the_readme():
    reached = {ROOT / "README.md"}
    for _ in range(3):
        reached |= {target for page in reached if page.suffix == ".md" for target, _ in links(page)}
    assert reached >= set(PAGES)


def test_the_readme_leads_to_phones_figures_chips_and_measurements():
    targets = {target for target, _ in links(ROOT / "README.md")}
    for name in ("phones", "report", "adding-a-device", "compilers", "measured/index", "index"):
        assert DOCS / f"{name}.md" in targets, name


def test_the_readme_is_short():
    assert len([word for word in README.split() if any(map(str.isalnum, word))]) <= 600


@pytest.mark.parametrize("page", MEASURED, ids=lambda page: page.stem)
def test_a_page_of_measurements_says_how_and_when(page):
    text = page.read_text()
    assert "**How**" in text
    assert re.search(r"\*\*When\*\*.*\d{4}-\d\d-\d\d", text)


def test_the_layers_in_the_design_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "imports point down")
    line = " > ".join(f"({layer})" if "|" in layer else layer for layer in layers)
    assert " ".join(DESIGN.split()).count(f"`{line}`") == 1


def test_the_page_of_dependencies_names_those_of_the_project_and_what_each_is_for():
    """Where it does not: python scripts/dependencies.py, then say in the page what the new one is for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (DOCS / "dependencies.md").read_text()
    rooms = {
        room: re.findall(r"^\| `(\S+)` \| \w", text, re.MULTILINE)
        for room, text in re.findall(r"^## `(\S+)`(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    }
    for room, lines in {"core": project["dependencies"], **project["optional-dependencies"]}.items():
        names = [re.split(r"[\[<>=; ]", line)[0] for line in lines if not line.startswith("quadbench[")]
        assert rooms.pop(room, []) == sorted(names, key=str.lower), room  # `all` has no packages of its own
    assert rooms == {}


def test_every_room_stands_in_the_house():
    house = re.search(r"^    quadbench/$(.*?)^    android_harness/", DESIGN, re.MULTILINE | re.DOTALL)
    assert house
    rooms = re.findall(r"^      ([a-z_]+(?:/|\.py)) .*\n((?:        .*\n)*)", house[1], re.MULTILINE)
    assert {room for room, _ in rooms} == {room for room in modules_in("quadbench") if not room.startswith("__")}
    wings = {room: set(re.findall(r"^        ([a-z_]+/) ", text, re.MULTILINE)) for room, text in rooms}
    for room in ("quad/", "devices/"):
        assert wings.pop(room) == {wing for wing in modules_in(f"quadbench/{room}") if wing.endswith("/")}
    assert not any(wings.values())


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_that_a_page_names_exists(page):
    text = page.read_text()
    for name in {*re.findall(r"`((?:[\w-]+/)*\w+\.py)`", text), *re.findall(r"\b((?:bench|tests)/[\w/]+\.py)\b", text)}:
        is_example = Path(name).stem == "NAME"
        assert is_example or (ROOT / name).exists() or list((ROOT / "quadbench").rglob(name)), name
    for module, names in re.findall(r"from (quadbench[\w.]*) import ([\w, ]+)", text):
        place = ROOT / module.replace(".", "/")
        source = (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
        for name in names.split(", "):
            assert (place / name).is_dir() or re.search(rf"\b{name}\b", source), f"{module}.{name}"


def test_every_page_that_the_code_names_exists():
    for folder in ("quadbench", "bench", "android_harness/src", "recipes", "device_profiles"):
        for path in (path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".hpp", ".cpp", ".yaml"}):
            for name in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
                assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_every_term_of_the_glossary_stands_in_it_once():
    glossary = re.search(r"^## Glossary$(.*)", DESIGN, re.MULTILINE | re.DOTALL)
    assert glossary
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", glossary[1], re.MULTILINE)
    terms = [words.lower() for words, _ in rows]
    assert terms == sorted(set(terms))
    assert 20 < len(terms) <= MOST_TERMS
    assert all(meaning.endswith(".") for _, meaning in rows)


def test_messages_in_troubleshooting_are_those_of_the_code():
    page = (DOCS / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`|]+)` \|", page, re.MULTILINE)
    assert messages
    modules, strings = (
        [path.read_text() for path in (ROOT / "quadbench").rglob("*.py")],
        cache(lambda code: list(strings_of(code))),
    )
    for message in (message.strip("…") for message in messages):
        start = message.split("…")[0][:12]  # modules that have it as it is are looked into first
        likely = sorted(modules, key=lambda code: start not in code)
        assert any(message in string for code in likely for string in strings(code)), message


def test_no_file_names_a_place_on_the_machine_where_it_was_written():
    for path in tracked_files():
        content = path.read_bytes()
        assert not any(place in content for place in WORKPLACE), path
