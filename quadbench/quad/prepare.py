"""Prepare: Recipe -> the start of every analysis and build: float graphs, tasks with their tables and what they visit."""

import logging
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from quadbench.artifacts import Component
from quadbench.quad.adapters import Adapter, BaseSites, graph_tensors, load_adapter, random_adapter, shared_ranks, sites_of_unet
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
    adapters: dict[str, Adapter]
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


def prepare(recipe: Recipe, steps: Steps, scratch: Path) -> Prepared:
    """Read everything that the recipe names, trace the graphs, make the sampler tables and run each task's calibration items.

    Large weights lie in files below `scratch` as long as the result is used.

    Raises:
        UserError: something that the recipe names is missing or does not fit; AdapterError where it is an adapter.
    """
    foundation = open_foundation(recipe.foundation)
    samples = recipe.quad.calibration.samples
    items = {task.name: task_items(task, foundation, calibration_samples=samples) for task in recipe.tasks}
    adapters = _open_adapters(recipe, foundation)
    with steps("export"):
        graphs = export_graphs(foundation, shared_ranks(adapters.values()), scratch)
        models, shapes = graphs.models, graphs.lora_shapes
        encoders = Encoders(
            foundation=foundation,
            text_encoder=GraphSession(models[Component.TEXT_ENCODER]),
            vae_encoder=GraphSession(models[Component.VAE_ENCODER]),
        )
        unet = GraphSession(models[Component.UNET])
    feeds = {name: as_feed(graph_tensors(adapter, shapes)) for name, adapter in [(None, None), *adapters.items()]}
    with steps("sampler tables"):
        tasks = [prepare_task(task, items[task.name], encoders, unet, feeds[task.adapter]) for task in recipe.tasks]
    with steps("trajectories"):
        visits = {task.task.name: visit(task, encoders, unet, feeds[task.task.adapter]) for task in tasks}
    return Prepared(
        foundation=foundation,
        adapters=adapters,
        models=models,
        shapes=shapes,
        encoders=encoders,
        unet=unet,
        tasks=tasks,
        visits=visits,
    )


def sites_of(recipe: Recipe) -> BaseSites:
    """Return the sites of the recipe's foundation model."""
    return sites_of_unet(open_foundation(recipe.foundation).skeleton)


def _open_adapters(recipe: Recipe, foundation: Foundation) -> dict[str, Adapter]:
    """Read every adapter, and check that it fits the foundation model."""
    base = sites_of_unet(foundation.skeleton)
    return {name: _open_adapter(name, spec, foundation, base) for name, spec in recipe.adapters.items()}


def _open_adapter(name: str, spec: AdapterSpec, foundation: Foundation, base: BaseSites) -> Adapter:
    if isinstance(spec, RandomAdapter):
        return random_adapter(name, foundation.skeleton, rank=spec.rank, kinds=spec.sites, seed=spec.seed)
    source = adapter_source(spec)
    assert source is not None
    adapter = load_adapter(name, source.path, base, expected=source.format, unet_only=source.unet_only)
    if adapter.left_out:
        log.warning("adapter '%s': %s", name, adapter.left_out)
    return adapter
