"""Where the shared graph and per-graph ones differ: the rounding of weights alone, with float activations, for each task.

    nice python bench/rounding.py [--recipe use-cases] [--items 8] [--feeds 8]

A per-graph U-Net rounds base and adapter together, in 8 bits; the shared one rounds the base in 8 bits and the adapter's factors
apart from it. Both are judged as in fairness.py. `base` is the float adapter on the rounded base: what rounding the factors adds
is the difference from `shared`. The quotient is the energy of the merged weights' rounding errors over the base's, at the sites
of the adapter: above 1, the adapter's values make the scales of the merged weights coarser.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from fairness import Bench, Judged, judged_items, sqnr_db

from quadbench.artifacts import Component
from quadbench.quad.adapters import Adapter, merge
from quadbench.quad.adapters.lora_profile import lora_profile
from quadbench.quad.baselines import merged_unet
from quadbench.quad.model.components import copy_of_modules
from quadbench.quad.model.initializers import discard
from quadbench.quad.prepare import prepare
from quadbench.quad.quantize import encodings
from quadbench.quad.quantize.qdq import quantize_graph
from quadbench.quad.steps import Steps
from quadbench.quad.tasks.runner import Feed, GraphSession
from quadbench.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="use-cases", help="a recipe (default: use-cases)")
    parser.add_argument("--items", type=int, default=8, help="at most so many inputs of a task (default: 8)")
    parser.add_argument("--feeds", type=int, default=8, help="at most so many U-Net runs of an input, spread evenly (default: 8)")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    print("| task | per-graph | shared | difference | base | quotient |\n|---|---|---|---|---|---|")  # noqa: T201
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        prepared = prepare(recipe, Steps(), Path(scratch))
        lora = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype=recipe.precision.lora)
        bench = Bench(prepared=prepared, lora=lora, headrooms=(), percent=0)
        base = prepared.models[Component.UNET]
        rounded = {"shared": quantize_graph(base, {}, lora.encodings), "base": quantize_graph(base, {})}
        shared = {name: GraphSession(graph) for name, graph in rounded.items()}
        for task in prepared.tasks:
            judged = list(judged_items(prepared, task, options.items, options.feeds))
            adapter = prepared.adapters[task.task.adapter] if task.task.adapter else None
            merged = merged_unet(prepared.foundation, adapter, Path(scratch))
            inputs = {"shared": bench.integers(task.task.adapter), "base": prepared.feed(adapter)}
            own = mean_db(judged, GraphSession(quantize_graph(merged, {})), {})
            ours = {name: mean_db(judged, graph, inputs[name]) for name, graph in shared.items()}
            cells = (own, ours["shared"], ours["shared"] - own, ours["base"], quotient(prepared.foundation.unet, adapter))
            print(f"| `{task.task.name}` | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)  # noqa: T201
            discard(merged)


def mean_db(judged: list[Judged], graph: GraphSession, lora: Feed) -> float:
    return float(np.mean([sqnr_db(one, graph, lora) for one in judged]))


def quotient(unet: torch.nn.Module, adapter: Adapter | None) -> float:
    """Return the energy of the merged weights' rounding errors over that of the base's, where they differ."""
    if adapter is None:
        return 1.0
    merged = copy_of_modules(unet)
    merge(adapter, merged)
    before, after = unet.state_dict(), merged.state_dict()
    changed = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    errors = [sum(rounding_error(side[name].numpy()) for name in changed) for side in (before, after)]
    return errors[1] / errors[0]


def rounding_error(weight: np.ndarray) -> float:
    integers, scales = encodings.quantize_channels(weight, 0)
    return float(np.square(weight - integers * scales.reshape(-1, *[1] * (weight.ndim - 1))).sum())


if __name__ == "__main__":
    main()
