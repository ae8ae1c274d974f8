"""Baselines: a recipe as it was prepared -> a quantized U-Net for each task, its adapter merged, for the per-graph variant."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from quadbench.quad.adapters import Adapter, merge, mixed
from quadbench.quad.feeds import calibrated, per_graph_feeds
from quadbench.quad.model.components import copy_of_modules
from quadbench.quad.model.foundation import Foundation
from quadbench.quad.model.graphs import export_unet
from quadbench.quad.model.initializers import discard
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.quantizer import Quantized, quantized, weights_quantized
from quadbench.recipe import FloatActivations, Recipe


@dataclass(frozen=True, kw_only=True)
class OwnUnet:
    """A task's own U-Net, its adapter merged: in float, and as it was quantized."""

    task: str
    exact: ModelProto
    written: Quantized


def per_graph_unets(recipe: Recipe, prepared: Prepared, scratch: Path, *, anchor: str | None) -> Iterator[OwnUnet]:
    """Yield each task's U-Net, calibrated as the shared one is.

    Large weights lie below `scratch` until the next U-Net is asked for.
    """
    for task in recipe.tasks:
        model = merged_unet(prepared.foundation, mixed(prepared.adapters, task.adapter), scratch)
        match recipe.precision.activations:
            case FloatActivations():
                written = weights_quantized(model)
            case activations:
                own = calibrated(recipe, model, per_graph_feeds(recipe, prepared, task, anchor=anchor))
                written = quantized(own, int8_percent=activations.int8_percent)
        yield OwnUnet(task=task.name, exact=model, written=written)
        discard(model)


def merged_unet(foundation: Foundation, adapter: Adapter | None, scratch: Path) -> ModelProto:
    """Return the float U-Net with an adapter in its own weights, and without LoRA inputs."""
    unet = copy_of_modules(foundation.unet)
    if adapter is not None:
        merge(adapter, unet)
    model = export_unet(foundation, unet, {}, scratch)
    foundation.release()
    return model
