"""Fit: what of a recipe a device or a target cannot run is said at its line, before anything is built."""

from pathlib import Path

import pytest
from support.sentences import reads

from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.recipe.recipe import load_recipe, recipe_file
from quadbench.rollout.forecast import device_problems

RECIPE = recipe_file("quickstart").read_text()
IN_8_BITS = "activations: {scheme: w8a8}"
EXPECTED = "runs graphs with LiteRT, which needs 16 bits for all activations; expected {scheme: w8a16}, found {scheme: "


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with activations in 8 bits."""
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE.replace("activations: {scheme: w8a16}", IN_8_BITS))
    return path


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["run", "--devices", "virtual:s25,virtual:tabs11?target=litert"], "virtual:tabs11?target=litert"),
        (["run", "--devices", "tabs11?target=litert", "--dry-run"], "tabs11?target=litert"),
        (["compile", "--target", "litert-mt6991"], "litert-mt6991"),
    ],
)
def test_activations_in_8_bits_are_refused_for_litert_at_the_recipe_s_line(
    words: list[str], name: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = words
    results = tmp_path / "results"
    assert main([command, str(recipe), *options, "--results", str(results)]) == 2
    reads(
        capsys.readouterr().err,
        f"{recipe}:{line_of(recipe, IN_8_BITS)}",
        "precision.activations",
        name,
        "LiteRT",
        16,
        "w8a16",
        "w8a8",
    )
    assert not results.exists()


def test_what_devices_of_a_profile_have_of_their_own_counts_and_is_named(tmp_path: Path) -> None:
    precision = "{weights: int8, activations: {scheme: mixed, int8_percent: 30}, lora: int16}"
    (tmp_path / "mine.yaml").write_text(f"{RECIPE}\ndevices:\n  tabs11: {{precision: {precision}}}\n")
    (problem,) = device_problems(
        load_recipe(tmp_path / "mine.yaml"), parse_addresses(["virtual:s25?target=litert", "virtual:tabs11?target=litert"])
    )
    assert problem.location == ("devices", "tabs11", "precision", "activations")
    reads(problem.reason, "virtual:tabs11?target=litert", "LiteRT", 16, "w8a16")


def test_onnx_runtime_runs_every_precision(recipe: Path) -> None:
    assert list(device_problems(load_recipe(recipe), parse_addresses(["virtual:s25", "local", "hub:s25", "R3XSERIAL"]))) == []
