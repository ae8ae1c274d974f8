"""Analyse: Recipe -> Sensitivity, without building anything."""

from collections.abc import Callable
from typing import Literal

import torch

from quadbench.artifacts import Component
from quadbench.errors import UserError
from quadbench.quad.adapters import graph_tensors, shared_ranks
from quadbench.quad.build import load_sources
from quadbench.quad.graphs import export_component, export_unet, lora_shapes
from quadbench.quad.items import task_items
from quadbench.quad.runner import GraphSession, as_feed
from quadbench.quad.sensitivity import Sensitivity, sensitivity
from quadbench.quad.tasks import Encoders, prepare_task, visit
from quadbench.recipe import Recipe


def analyse(
    recipe: Recipe, *, lora: Literal["int16", "int8"] | None = None, notify: Callable[[str], None] = lambda _step: None
) -> Sensitivity:
    """How sensitive each adapter of a recipe is to the rounding of its own weights; `lora` None takes the recipe's bits.

    Raises:
        UserError: the recipe has no adapter, or something that it names is missing or does not fit.
    """
    if not recipe.adapters:
        raise UserError(f"recipe '{recipe.name}' has no adapters; sensitivity is that of adapters")
    foundation, adapters = load_sources(recipe)
    samples = recipe.quad.calibration.samples
    items = {task.name: task_items(task, foundation, calibration_samples=samples) for task in recipe.tasks}
    with torch.no_grad():
        notify("export")
        encoders = Encoders(
            foundation=foundation,
            text_encoder=GraphSession(export_component(foundation, Component.TEXT_ENCODER)),
            vae_encoder=GraphSession(export_component(foundation, Component.VAE_ENCODER)),
        )
        model = export_unet(foundation, foundation.unet, shared_ranks(adapters.values()))
        unet, shapes = GraphSession(model), lora_shapes(model)
        feeds = {name: as_feed(graph_tensors(a, shapes)) for name, a in [(None, None), *adapters.items()]}
        notify("trajectories")
        tasks = [prepare_task(task, items[task.name], encoders, unet, feeds[task.adapter]) for task in recipe.tasks]
        visits = {task.task.name: visit(task, encoders, unet, feeds[task.task.adapter]) for task in tasks}
        notify("scores")
        dtype = lora or recipe.precision.lora
        return sensitivity(adapters.values(), tasks, visits, encoders, unet=unet, shapes=shapes, dtype=dtype)
