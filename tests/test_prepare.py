"""A task's preparation refuses predictions that would spoil all that is taken from them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import TypeAdapter

torch = pytest.importorskip("torch")

from support.sentences import raising  # noqa: E402

from quadbench.errors import UserError  # noqa: E402
from quadbench.quad.items import Encoders, Unet, prepare_task, run_calibration, task_items  # noqa: E402
from quadbench.quad.model.foundation import load_foundation  # noqa: E402
from quadbench.quad.prepare import greatest_weight  # noqa: E402
from quadbench.recipe import Task  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402


def prepare(recipe: Path, scheme: str, unet: Unet) -> None:
    """Make a task's table and run its calibration, with functions in place of graphs."""
    sampler = {"scheme": scheme, "steps": 2}
    spec = {"name": "it", "kind": "text-to-image", "adapter": None, "sampler": sampler, "prompts": ("noto apple",)}
    task: Task = TypeAdapter(Task).validate_python(spec)
    foundation = load_foundation(recipe.parent / "model")
    encoders = Encoders(
        foundation=foundation,
        text_encoder=SimpleNamespace(outputs=lambda _feed: {"encoder_hidden_states": np.zeros((1, 16, 16), np.float32)}),  # type: ignore[arg-type]
        vae_encoder=lambda _feed: torch.zeros(1, 4, 8, 8),  # type: ignore[arg-type]
    )
    items = task_items(task, foundation, calibration_samples=1)
    run_calibration(prepare_task(task, items, encoders, unet, {}), encoders, unet, {})


@pytest.mark.parametrize("scheme", ["olss", "lcm", "ed"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_no_numbers_are_refused_with_the_task_s_name(tiny_recipe: Path, scheme: str, value: float) -> None:
    with raising(UserError, "it", "float32"):
        prepare(tiny_recipe, scheme, lambda _feed: torch.full((1, 4, 8, 8), value))


@pytest.mark.parametrize("scheme", ["olss", "lcm", "ed"])
def test_predictions_that_are_numbers_pass(tiny_recipe: Path, scheme: str) -> None:
    prepare(tiny_recipe, scheme, lambda feed: 0.1 * torch.from_numpy(feed["sample"]))


@pytest.mark.parametrize(("weights", "greatest"), [((-2.0, 0.5), -2.0), ((0.5, 2.0), 2.0), ((0.0, 0.0), 1.0)])
def test_an_adapter_is_prepared_at_the_weight_of_the_greatest_magnitude_with_its_sign(
    tiny_recipe: Path, weights: tuple[float, float], greatest: float
) -> None:
    changes = {f"tasks.{i}.adapter": {"first": weight} for i, weight in enumerate(weights)}
    assert greatest_weight(load_recipe(tiny_recipe, changes), "first") == greatest
