"""What an adapter costs in exactness where a device merges it: eps and pictures, rounded once and rounded twice, for each task.

    nice python bench/merging.py --results DIR [RECIPE] [--items 8]

Builds the recipe once with the baselines per-graph and merged-at-load, and runs evaluation inputs on ONNX Runtime's CPU provider:
in float, shared, per-graph, and merged as a device does it. `twice` is merged without the residual of the base's weights, so that
INT8 weights are the sum's only source and it is rounded a second time. Prints for each task the SQNR of eps, the U-Net being fed
what the float one was, and the PSNR of pictures against the float graphs', mean and worst, in dB.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from parity import decoder_of, picture_of

from quadbench.artifacts import Component, StoredBundle, TaskAssets, Variant
from quadbench.artifacts.pixels import psnr_db
from quadbench.quad.build import build
from quadbench.quad.cache import find_bundle
from quadbench.quad.model.initializers import open_graph
from quadbench.quad.quantize.merging import RESIDUAL, merge_adapter
from quadbench.quad.runner import GraphSession
from quadbench.quality.metrics import sqnr_db
from quadbench.quality.trajectories import TaskModel
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout

BASELINES = ("per-graph", "merged-at-load")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="use-cases")
    parser.add_argument("--items", type=int, default=8, help="at most so many inputs of a task (default: 8)")
    parser.add_argument("--results", type=Path, required=True, help="folder in which the bundle is built, or was before")
    options = parser.parse_args()
    recipe, layout = load_recipe(options.recipe).model_copy(update={"baselines": BASELINES}), Layout(options.results)
    bundle = find_bundle(recipe, layout) or build(recipe, layout, notify=print)
    print("| task | way | eps | PSNR, mean | worst |\n|---|---|---|---|---|")  # noqa: T201
    with torch.no_grad():
        for task in bundle.artifact.tasks:
            for way, values in compare(bundle, replace(task, items=task.items[: options.items])):
                print(f"| `{task.name}` | {way} | {' | '.join(f'{value:.2f}' for value in values)} |", flush=True)  # noqa: T201


def compare(bundle: StoredBundle, task: TaskAssets) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield each way with the SQNR of eps, and the mean and the least PSNR of the items' pictures, in dB."""
    exact, decoders = (
        TaskModel.load(bundle, task, Variant.FLOAT),
        [decoder_of(bundle, v) for v in (Variant.FLOAT, Variant.SHARED)],
    )
    runs = [exact.run(item) for item in task.items]
    pictures = [picture_of(exact, decoders[0], item) for item in task.items]
    for way, model in ways_of(bundle, task):
        eps = [model.predict(feed).numpy() for run in runs for feed in run.feeds]
        pairs = zip(pictures, task.items, strict=True)
        likeness = [psnr_db(picture, picture_of(model, decoders[1], item)) for picture, item in pairs]
        yield way, (sqnr_db([value for run in runs for value in run.eps], eps), float(np.mean(likeness)), min(likeness))


def ways_of(bundle: StoredBundle, task: TaskAssets) -> Iterator[tuple[str, TaskModel]]:
    """Yield the task's quantized U-Nets by what the table calls them."""
    shared = TaskModel.load(bundle, task, Variant.SHARED)
    yield "shared", shared
    yield "per-graph", TaskModel.load(bundle, task, Variant.PER_GRAPH)
    graph = next(g for g in bundle.artifact.graphs if g.variant is Variant.MERGED_AT_LOAD and g.component is Component.UNET)
    assert graph.data
    assert graph.merge
    unet, merge = (open_graph(bundle.path(file), bundle.path(graph.data)) for file in (graph.file, graph.merge))
    for way, merging in (("merged, once", merge), ("merged, twice", without_residuals(merge))):
        yield way, replace(shared, unet=GraphSession(merge_adapter(unet, merging, shared.lora)), lora={})


def without_residuals(merge: onnx.ModelProto) -> onnx.ModelProto:
    """Return the merge graph of a base whose rounding took nothing away."""
    plain = onnx.ModelProto()
    plain.CopyFrom(merge)
    for constant in plain.graph.initializer:
        if constant.name.endswith(RESIDUAL):
            constant.CopyFrom(numpy_helper.from_array(np.zeros(constant.dims, np.int8), constant.name))
    return plain


if __name__ == "__main__":
    main()
