"""Baselines: a recipe as it was prepared -> a quantized U-Net for each task, its adapter merged, for the per-graph variant."""

from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto

from quadbench.quad.adapters import Adapter, merge, mixed
from quadbench.quad.feeds import calibrated, per_graph_feeds
from quadbench.quad.model.components import copy_of_modules
from quadbench.quad.model.foundation import Foundation
from quadbench.quad.model.graphs import export_unet
from quadbench.quad.model.initializers import discard
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.quantizer import Quantized, quantized
from quadbench.recipe import Recipe


def per_graph_unets(recipe: Recipe, prepared: Prepared, scratch: Path, *, anchor: str | None) -> Iterator[tuple[str, Quantized]]:
    """Yield each task's name and its U-Net, calibrated as the shared one is.

    Large weights lie below `scratch` until the next U-Net is asked for.
    """
    for task in recipe.tasks:
        model = merged_unet(prepared.foundation, mixed(prepared.adapters, task.adapter), scratch)
        own = calibrated(recipe, model, per_graph_feeds(recipe, prepared, task, anchor=anchor))
        yield task.name, quantized(own, int8_percent=recipe.precision.activations.int8_percent)
        discard(model)


def merged_unet(foundation: Foundation, adapter: Adapter | None, scratch: Path) -> ModelProto:
    """Return the float U-Net with an adapter in its own weights, and without LoRA inputs."""
    unet = copy_of_modules(foundation.unet)
    if adapter is not None:
        merge(adapter, unet)
    model = export_unet(foundation, unet, {}, scratch)
    foundation.release()
    return model
