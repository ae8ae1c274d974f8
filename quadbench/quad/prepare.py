"""Prepare: Recipe -> the start of every analysis and build: float graphs, tasks with their tables and what they visit."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from quadbench.artifacts import Component
from quadbench.quad.adapters import (
    Adapter,
    BaseSites,
    graph_tensors,
    load_adapter,
    mixed,
    random_adapter,
    shared_ranks,
    sites_of_unet,
)
from quadbench.quad.model.foundation import Foundation, open_foundation
from quadbench.quad.model.graphs import export_graphs
from quadbench.quad.sources import adapter_source
from quadbench.quad.steps import Steps
from quadbench.quad.tasks.items import task_items
from quadbench.quad.tasks.prepared import Encoders, PreparedTask, Visit, prepare_task, visit
from quadbench.quad.tasks.runner import Feed, GraphSession, as_feed
from quadbench.recipe import Adapter as AdapterSpec
from quadbench.recipe import RandomAdapter, Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A recipe's models and adapters in float, and its tasks run once."""

    foundation: Foundation
    adapters: dict[str, Adapter]  # each at the weight of the greatest magnitude that a task gives it
    models: dict[Component, ModelProto]
    shapes: dict[str, tuple[int, ...]]  # of the U-Net's LoRA inputs
    encoders: Encoders
    unet: GraphSession
    tasks: list[PreparedTask]
    visits: dict[str, Visit]  # by task

    def release(self) -> None:
        """Give back the memory of the float graphs; a run of one loads it again."""
        for session in (self.unet, self.encoders.text_encoder, self.encoders.vae_encoder):
            session.release()

    def feed(self, adapter: Adapter | None) -> Feed:
        """Return an adapter's float graph inputs; None is no adapter."""
        return as_feed(graph_tensors(adapter, self.shapes))


def prepare(recipe: Recipe, steps: Steps, scratch: Path, like: Prepared | None = None) -> Prepared:
    """Read everything that the recipe names, trace the graphs, make the sampler tables and run each task's calibration items.

    `like` is what was prepared of a recipe that differs in samplers and bits alone: its models are taken, and its tasks where
    they are the same. Large weights lie in files below `scratch` as long as the result is used.

    Raises:
        UserError: something that the recipe names is missing or does not fit; AdapterError where it is an adapter.
    """
    foundation = like.foundation if like else open_foundation(recipe.foundation)
    samples = recipe.quad.calibration.samples
    items = {task.name: task_items(task, foundation, calibration_samples=samples) for task in recipe.tasks}
    models = like or _traced(recipe, foundation, steps, scratch)
    encoders, unet = models.encoders, models.unet
    feeds = {task.name: models.feed(mixed(models.adapters, task.adapter)) for task in recipe.tasks}
    there = {task.task.name: task for task in models.tasks if task.task in recipe.tasks}
    with steps("sampler tables"):
        new = (task for task in recipe.tasks if task.name not in there)
        tasks = there | {task.name: prepare_task(task, items[task.name], encoders, unet, feeds[task.name]) for task in new}
    with steps("trajectories"):
        visits = {
            name: models.visits[name] if name in there else visit(task, encoders, unet, feeds[name])
            for name, task in tasks.items()
        }
    names = [task.name for task in recipe.tasks]
    return replace(models, tasks=[tasks[name] for name in names], visits={name: visits[name] for name in names})


def _traced(recipe: Recipe, foundation: Foundation, steps: Steps, scratch: Path) -> Prepared:
    """Return the recipe's models and adapters, and none of its tasks yet."""
    adapters = _open_adapters(recipe, foundation)
    mixes = [mixed(adapters, task.adapter) for task in recipe.tasks]
    with steps("export"):
        graphs = export_graphs(foundation, shared_ranks([*adapters.values(), *filter(None, mixes)]), scratch)
        models = graphs.models
        encoders = Encoders(
            foundation=foundation,
            text_encoder=GraphSession(models[Component.TEXT_ENCODER]),
            vae_encoder=GraphSession(models[Component.VAE_ENCODER]),
        )
        unet = GraphSession(models[Component.UNET])
    return Prepared(
        foundation=foundation,
        adapters=adapters,
        models=models,
        shapes=graphs.lora_shapes,
        encoders=encoders,
        unet=unet,
        tasks=[],
        visits={},
    )


def sites_of(recipe: Recipe) -> BaseSites:
    """Return the sites of the recipe's foundation model."""
    return sites_of_unet(open_foundation(recipe.foundation).skeleton)


def _open_adapters(recipe: Recipe, foundation: Foundation) -> dict[str, Adapter]:
    """Read every adapter, and check that it fits the foundation model."""
    base = sites_of_unet(foundation.skeleton)
    return {
        name: _open_adapter(name, spec, foundation, base).at(greatest_weight(recipe, name))
        for name, spec in recipe.adapters.items()
    }


def greatest_weight(recipe: Recipe, adapter: str) -> float:
    """Return the weight of the greatest magnitude that a task gives an adapter; 1 where none gives it any."""
    return max((task.adapter.get(adapter, 0.0) for task in recipe.tasks), key=abs, default=0.0) or 1.0


def _open_adapter(name: str, spec: AdapterSpec, foundation: Foundation, base: BaseSites) -> Adapter:
    if isinstance(spec, RandomAdapter):
        return random_adapter(name, foundation.skeleton, rank=spec.rank, kinds=spec.sites, seed=spec.seed)
    source = adapter_source(spec)
    assert source is not None
    adapter = load_adapter(name, source.path, base, expected=source.format, unet_only=source.unet_only)
    if adapter.left_out:
        log.warning("adapter '%s': %s", name, adapter.left_out)
    return adapter
