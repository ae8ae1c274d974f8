"""Analyse: Recipe -> Sensitivity, without building anything."""

import tempfile
from pathlib import Path
from typing import Literal

import torch

from quadbench.errors import UserError
from quadbench.quad.prepare import prepare
from quadbench.quad.sensitivity import Sensitivity, sensitivity
from quadbench.quad.steps import Notify, Steps, silent
from quadbench.recipe import Recipe


def analyse(recipe: Recipe, *, lora: Literal["int16", "int8"] | None = None, notify: Notify = silent) -> Sensitivity:
    """Score how sensitive each adapter of a recipe is to the rounding of its own weights; `lora` None takes the recipe's bits.

    Raises:
        UserError: the recipe has no adapter, or something that it names is missing or does not fit.
    """
    if not recipe.adapters:
        raise UserError(f"recipe '{recipe.name}' has no adapters; sensitivity is that of adapters")
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(recipe, Steps(notify), Path(scratch))
        notify("scores")
        return sensitivity(prepared, dtype=lora or recipe.precision.lora)
