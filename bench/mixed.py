"""Orders in which layers take 8 bits, against each other: SQNR of eps on inputs that calibration has not seen, for each share.

    nice python bench/mixed.py [--recipe quickstart] [--percent 20 40 60 80 90] [--items 8] [--feeds 3]

Each order puts layers of the shared U-Net in 8 bits until the share of its parameters is met as nearly as whole layers allow:
`noise` the least noisy first, `per-parameter` and `per-work` the least noise for a layer's parameters or multiply-accumulates,
`random` as drawn once. `all layers` leaves what lies between layers in 16 bits; `w8a8` leaves nothing.
"""

import argparse
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from fairness import Bench, Judged, judged_items, sqnr_db

from quadbench.artifacts import Component
from quadbench.quad.adapters.lora_profile import lora_profile
from quadbench.quad.prepare import BuildSteps, calibrate, calibration_feeds, prepare
from quadbench.quad.quantize.qdq import quantize_graph
from quadbench.quad.quantize.quantizer import CalibratedGraph, LayerNoise, base_layers, int8_share, least_noisy
from quadbench.quad.runner import GraphSession
from quadbench.recipe.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--percent", type=int, nargs="+", default=[20, 40, 60, 80, 90])
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--feeds", type=int, default=3)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(recipe, BuildSteps(), Path(scratch))
        adapters = list(prepared.adapters.values())
        lora = lora_profile(adapters, anchor=None, gauge=True, headroom=1.0, dtype=recipe.precision.lora)
        feeds = calibration_feeds(recipe, prepared, lora)[Component.UNET]
        own = calibrate(recipe, prepared.models[Component.UNET], feeds)
        bench = Bench(prepared=prepared, lora=lora, headrooms=(), percent=0)
        judged = [list(judged_items(prepared, task, options.items, options.feeds)) for task in prepared.tasks]
        for line in table(bench, own, options.percent, judged):
            print(line, flush=True)  # noqa: T201


def table(bench: Bench, own: CalibratedGraph, percents: Sequence[int], judged: Sequence[Sequence[Judged]]) -> Iterator[str]:
    tasks = " | ".join(task.task.name for task in bench.prepared.tasks)
    yield f"| % asked for | order | layers, % | parameters, % | work, % | {tasks} |"
    yield f"| 0 | | {cells(bench, own, (), judged)} |"
    for percent in percents:
        for name, noise in orders(own).items():
            yield f"| {percent} | {name} | {cells(bench, own, least_noisy(noise, percent), judged)} |"
    yield f"| 100 | all layers | {cells(bench, own, tensors(own.noise), judged)} |"
    yield f"| 100 | w8a8 | {cells(bench, own, set(own.sources.values()), judged)} |"


def orders(own: CalibratedGraph) -> dict[str, list[LayerNoise]]:
    def cost(row: LayerNoise) -> float:
        return row.per_parameter * row.layer.parameters

    by_layer = {row.layer: row for row in own.noise}
    layers = base_layers(own.model, own.sources)
    return {
        "noise": sorted(own.noise, key=cost),
        "per-parameter": list(own.noise),
        "per-work": sorted(own.noise, key=lambda row: cost(row) / row.layer.multiply_accumulates),
        "random": [by_layer[layers[i]] for i in np.random.default_rng(0).permutation(len(layers))],
    }


def tensors(noise: Sequence[LayerNoise]) -> set[str]:
    return {name for row in noise for name in (row.layer.data, row.layer.result)}


def cells(bench: Bench, own: CalibratedGraph, chosen: Collection[str], judged: Sequence[Sequence[Judged]]) -> str:
    """Return what of the U-Net is in 8 bits where `chosen` tensors are, and each task's mean SQNR over its inputs."""
    lora = bench.lora.encodings
    wide, narrow = own.encodings("uint16", lora), own.encodings("uint8", lora)
    encodings = {tensor: (narrow if own.sources[tensor] in chosen else wide)[tensor] for tensor in wide}
    graph, int8 = GraphSession(quantize_graph(own.model, encodings, lora)), int8_share(own.model, own.sources, encodings, lora)
    shares = [f"{share.percent:.1f}" for share in (int8.layers, int8.parameters, int8.multiply_accumulates)]
    inputs = [bench.integers(task.task.adapter) for task in bench.prepared.tasks]
    means = [
        np.mean([sqnr_db(one, graph, own_inputs) for one in of_task]) for own_inputs, of_task in zip(inputs, judged, strict=True)
    ]
    return " | ".join([*shares, *(f"{mean:.2f}" for mean in means)])


if __name__ == "__main__":
    main()
