"""Calibration inputs: what each scheme gives the shared graph and each per-graph U-Net of one recipe."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from quadbench.artifacts import Component  # noqa: E402
from quadbench.quad.adapters.lora_profile import LoraProfile, lora_profile  # noqa: E402
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, calibration_feeds, per_graph_feeds, prepare  # noqa: E402
from quadbench.quad.runner import Feed  # noqa: E402
from quadbench.recipe import Recipe  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.recipe.settings import AnchorCalibration, JointCalibration, OwnTaskCalibration  # noqa: E402

SCHEMES = {"joint": JointCalibration, "own-task": OwnTaskCalibration, "anchor": AnchorCalibration}
ANCHOR = "first"
Calibrate = Callable[[str], Recipe]


@pytest.fixture(scope="module")
def prepared(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedRecipe:
    with torch.no_grad():
        return prepare(load_recipe(tiny_recipe), BuildSteps(), tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def lora(prepared: PreparedRecipe) -> LoraProfile:
    return lora_profile(list(prepared.adapters.values()), anchor=ANCHOR, gauge=True, headroom=1.0, dtype="int16")


@pytest.fixture
def recipe_with(tiny_recipe: Path) -> Calibrate:
    """Return a function: a scheme -> the tiny recipe calibrated so."""
    recipe = load_recipe(tiny_recipe)

    def calibrated(scheme: str) -> Recipe:
        calibration = SCHEMES[scheme](scheme=scheme, samples=1)
        return recipe.model_copy(update={"quad": recipe.quad.model_copy(update={"calibration": calibration})})

    return calibrated


def _samples(feeds: list[Feed]) -> Counter[bytes]:
    """Count the U-Net inputs by their latents."""
    return Counter(feed["sample"].tobytes() for feed in feeds)


def _adapters(feeds: list[Feed], prepared: PreparedRecipe, lora: LoraProfile) -> set[str | None]:
    """Return the adapters that feeds carry."""
    weights = {name: prepared.feed(lora.adapters[name] if name else None) for name in (None, *lora.adapters)}
    return {name for name, own in weights.items() for feed in feeds if all(np.array_equal(feed[k], own[k]) for k in own)}


@pytest.mark.slow
def test_joint_calibration_gives_either_variant_the_same_inputs(
    prepared: PreparedRecipe, lora: LoraProfile, recipe_with: Calibrate
) -> None:
    recipe = recipe_with("joint")
    shared = calibration_feeds(recipe, prepared, lora)[Component.UNET]
    for task in recipe.tasks:
        assert set(_samples(per_graph_feeds(recipe, prepared, task, anchor=ANCHOR))) == set(_samples(shared))


@pytest.mark.slow
def test_joint_calibration_runs_the_shared_graph_with_every_adapter_and_without(
    prepared: PreparedRecipe, lora: LoraProfile, recipe_with: Calibrate
) -> None:
    shared = calibration_feeds(recipe_with("joint"), prepared, lora)[Component.UNET]
    assert _adapters(shared, prepared, lora) == {None, "first", "second"}


@pytest.mark.slow
def test_own_task_gives_a_graph_the_inputs_of_what_it_serves(
    prepared: PreparedRecipe, lora: LoraProfile, recipe_with: Calibrate
) -> None:
    recipe = recipe_with("own-task")
    shared = calibration_feeds(recipe, prepared, lora)[Component.UNET]
    own = {task.name: per_graph_feeds(recipe, prepared, task, anchor=ANCHOR) for task in recipe.tasks}
    assert all(_samples(feeds) == _samples(prepared.visits[name].feeds) for name, feeds in own.items())
    assert _samples(shared) == sum((_samples(feeds) for feeds in own.values()), Counter())


@pytest.mark.slow
def test_the_anchors_inputs_calibrate_either_variant(prepared: PreparedRecipe, lora: LoraProfile, recipe_with: Calibrate) -> None:
    recipe = recipe_with("anchor")
    shared = calibration_feeds(recipe, prepared, lora)[Component.UNET]
    assert _adapters(shared, prepared, lora) == {ANCHOR}
    for task in recipe.tasks:
        assert _samples(per_graph_feeds(recipe, prepared, task, anchor=ANCHOR)) == _samples(shared)
