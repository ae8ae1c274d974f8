"""Where the shared graph and per-graph ones differ: the rounding of weights alone, with float activations, for each task.

    nice python bench/rounding.py [--recipe use-cases] [--items 8] [--feeds 8] [--draws 16]

A per-graph U-Net rounds base and adapter together, in 8 bits; the shared one rounds the base in 8 bits and the adapter's factors
apart from it. Both are judged as in fairness.py. `base` is the float adapter on the rounded base: what rounding the factors adds
is the difference from `shared`. The quotient is the energy of the merged weights' rounding errors over the base's, at the sites
of the adapter: above 1, the adapter's values make the scales of the merged weights coarser.

With `--draws` both are rounded in so many other ways too, each with every channel's scale up to 5 % coarser. A draw has the same
factors in every graph, so that graphs of the same weights stay the same.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import torch
from fairness import Bench, Judged, judged_items, sqnr_db

from quadbench.artifacts import Component
from quadbench.quad.adapters.adapter import Adapter, merge, mix_adapters
from quadbench.quad.adapters.lora_profile import lora_profile
from quadbench.quad.model.float_graphs import copy_of_modules
from quadbench.quad.prepare import BuildSteps, merged_unet, prepare
from quadbench.quad.quantize import encodings
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.qdq import quantize_graph
from quadbench.quad.runner import Feed, GraphSession
from quadbench.recipe.recipe import load_recipe

COARSEST = 1.05


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A task, its inputs, the float U-Net with its adapter merged, and what the shared graphs are fed of the adapter."""

    name: str
    judged: Sequence[Judged]
    merged: onnx.ModelProto
    integers: Feed
    floats: Feed
    quotient: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="use-cases", help="a recipe (default: use-cases)")
    parser.add_argument("--items", type=int, default=8, help="at most so many inputs of a task (default: 8)")
    parser.add_argument("--feeds", type=int, default=8, help="at most so many U-Net runs of an input, spread evenly (default: 8)")
    parser.add_argument("--draws", type=int, default=0, help="so many other ways to round the weights (default: 0)")
    options = parser.parse_args()
    if options.draws < 0 or options.draws == 1:
        parser.error(f"--draws {options.draws}: expected 0, or 2 and more, as a deviation takes two")
    recipe = load_recipe(options.recipe)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        prepared = prepare(recipe, BuildSteps(), Path(scratch))
        lora = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype=recipe.precision.lora)
        bench = Bench(prepared=prepared, lora=lora, headrooms=(), percent=0)
        contests = list(contests_of(bench, Path(scratch), options))
        base = prepared.models[Component.UNET]
        print("| task | per-graph | shared | difference | base | quotient |\n|---|---|---|---|---|---|")  # noqa: T201
        for one, (own, shared, float_factors) in zip(contests, figures(contests, base, lora.encodings), strict=True):
            row = (own, shared, shared - own, float_factors, one.quotient)
            print(f"| `{one.name}` | {' | '.join(f'{cell:.2f}' for cell in row)} |", flush=True)  # noqa: T201
        draws = []
        for number in range(options.draws):
            draws.append([(own, shared) for own, shared, _ in figures(contests, base, lora.encodings, seed=number)])
            print(f"draw {number + 1} of {options.draws}", flush=True)  # noqa: T201
        if draws:
            print(table_of_draws([one.name for one in contests], np.array(draws)))  # noqa: T201


def contests_of(bench: Bench, scratch: Path, options: argparse.Namespace) -> Iterator[Contest]:
    prepared = bench.prepared
    for task in prepared.tasks:
        adapter = mix_adapters(prepared.adapters, task.task.adapter)
        yield Contest(
            name=task.task.name,
            judged=list(judged_items(prepared, task, options.items, options.feeds)),
            merged=merged_unet(prepared, adapter, scratch),
            integers=bench.integers(task.task.adapter),
            floats=prepared.feed(adapter),
            quotient=quotient(prepared.foundation.unet, adapter),
        )


def figures(
    contests: Sequence[Contest], base: onnx.ModelProto, lora: Mapping[str, Encoding], *, seed: int | None = None
) -> Iterator[tuple[float, float, float]]:
    """The SQNR in dB of each task: per-graph, shared, and with float factors on the rounded base."""

    def session(model: onnx.ModelProto, encoded: Mapping[str, Encoding]) -> GraphSession:
        with nullcontext() if seed is None else other_rounding(seed):
            return GraphSession(quantize_graph(model, {}, encoded))

    shared, rounded = session(base, lora), session(base, {})
    for one in contests:
        own = mean_db(one.judged, session(one.merged, {}), {})
        yield own, mean_db(one.judged, shared, one.integers), mean_db(one.judged, rounded, one.floats)


@contextmanager
def other_rounding(seed: int) -> Iterator[None]:
    """Give every channel of the weights a scale up to 5 % coarser, by the same factors in graphs that list them in one order."""
    rounded, rng = encodings.quantize_channels, np.random.default_rng(seed)

    def rounded_coarser(
        values: np.ndarray, axis: int, *, least_scales: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        _, scales = rounded(values, axis, least_scales=least_scales)
        return rounded(values, axis, least_scales=scales * rng.uniform(1, COARSEST, scales.shape))

    with mock.patch.object(encodings, "quantize_channels", rounded_coarser):
        yield


def table_of_draws(names: Sequence[str], draws: np.ndarray) -> str:
    """Mean ± standard deviation over draws (draws, tasks, 2), and in how many of them the shared graph is ahead."""
    rows = ["| task | per-graph | shared | difference | least | most | ahead in |", "|---|---|---|---|---|---|---|"]
    for name, sides in zip(names, draws.swapaxes(0, 1), strict=True):
        difference = sides[:, 1] - sides[:, 0]
        cells = [f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in (sides[:, 0], sides[:, 1], difference)]
        ends = f"{difference.min():+.2f} | {difference.max():+.2f} | {(difference > 0).sum()} of {len(difference)}"
        rows.append(f"| `{name}` | {' | '.join(cells)} | {ends} |")
    return "\n".join(rows)


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
