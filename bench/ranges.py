"""Rules for activation ranges against each other: SQNR of the shared graph's eps on inputs that calibration has not seen.

    nice python bench/ranges.py [--recipe use-cases] [--seed 0] [--items 4] [--feeds 6]

Prints a Markdown table, a row for each width, number of calibration inputs and rule: over all tasks and items the mean, and for
each task the worst item. The graph is calibrated jointly, as a build does it; items are judged as in fairness.py. A number of
inputs below the recipe's takes the first ones.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fairness import Bench, Judged, judged_items, sqnr_db, with_policy, with_seed

from quadbench.artifacts import Component
from quadbench.quad.adapters.lora_profile import lora_profile
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, calibration_feeds, prepare
from quadbench.quad.quantize.calibration import RangeRule, least_error, percentile
from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq
from quadbench.quad.runner import GraphSession
from quadbench.recipe.recipe import load_recipe


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rule at a width, with the name that the table gives it."""

    name: str
    dtype: str
    rule: RangeRule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="use-cases", help="a recipe (default: use-cases)")
    parser.add_argument("--seed", type=int, default=0, help="moves the noise of calibration and evaluation (default: 0)")
    parser.add_argument("--items", type=int, default=4, help="at most so many inputs of a task (default: 4)")
    parser.add_argument("--feeds", type=int, default=6, help="at most so many U-Net runs of an input, spread evenly (default: 6)")
    options = parser.parse_args()
    recipe = with_policy(with_seed(load_recipe(options.recipe), options.seed), "joint")
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        prepared = prepare(recipe, BuildSteps(), Path(scratch))
        lora = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype=recipe.precision.lora)
        bench = Bench(prepared=prepared, lora=lora, headrooms=(), percent=0)
        judged = {t.task.name: list(judged_items(prepared, t, options.items, options.feeds)) for t in prepared.tasks}
        print(f"| bits | inputs | rule | mean | {' | '.join(judged)} |")  # noqa: T201
        print("|---|---|---|---|" + "---|" * len(judged))  # noqa: T201
        samples = recipe.quad.calibration.samples
        for count in dict.fromkeys((samples, max(1, samples // 2), 1)):
            feeds = calibration_feeds(recipe, first_inputs(prepared, count), lora)[Component.UNET]
            observed = ObservedGraph(prepared.models[Component.UNET], feeds)
            for case in cases(is_whole=count == samples):
                print(row(bench, observed, case, count, judged), flush=True)  # noqa: T201


def first_inputs(prepared: PreparedRecipe, count: int) -> PreparedRecipe:
    """Return the recipe with the first of each task's calibration inputs alone."""
    visits = {}
    for task in prepared.tasks:
        visit = prepared.visits[task.task.name]
        feeds = visit.feeds[: len(visit.feeds) * count // len(task.items.calibration)]
        visits[task.task.name] = replace(visit, feeds=feeds, latents=visit.latents[:count])
    return replace(prepared, visits=visits)


def cases(*, is_whole: bool) -> Iterator[Case]:
    """Yield all rules for all inputs, and headroom alone for fewer."""
    for headroom in (1.0, 1.25, 1.5, 2.0, 4.0):
        yield Case(name=f"min-max x {headroom:g}", dtype="uint16", rule=RangeRule(headroom=headroom))
    if not is_whole:
        return
    for percent, headroom in ((99.999, 1.0), (99.99, 1.0), (99.99, 2.0)):
        rule = RangeRule(estimator=partial(percentile, percent=percent), headroom=headroom)
        yield Case(name=f"percentile {percent:g} x {headroom:g}", dtype="uint16", rule=rule)
    yield Case(name="mse x 1", dtype="uint16", rule=RangeRule(estimator=least_error))
    for headroom in (1.0, 1.1):
        estimators = {"min-max": None, "mse": least_error}
        estimators |= {f"percentile {percent:g}": partial(percentile, percent=percent) for percent in (99.9, 99.99, 99.999)}
        for name, estimator in estimators.items():
            yield Case(name=f"{name} x {headroom:g}", dtype="uint8", rule=RangeRule(estimator=estimator, headroom=headroom))


def row(bench: Bench, observed: ObservedGraph, case: Case, count: int, judged: dict[str, Sequence[Judged]]) -> str:
    is_narrow = case.dtype == "uint8"
    calibrated = CalibratedGraph(observed, {"uint16": case.rule, "uint8": case.rule})
    written = write_qdq(calibrated, int8_percent=100 if is_narrow else 0, lora=bench.lora.encodings)
    graph = GraphSession(written.model)
    adapters = {task.task.name: task.task.adapter for task in bench.prepared.tasks}
    weights = {task: bench.integers(adapter) for task, adapter in adapters.items()}
    of_task = {task: [sqnr_db(one, graph, weights[task]) for one in items] for task, items in judged.items()}
    mean = np.mean([value for values in of_task.values() for value in values])
    worst = " | ".join(f"{min(values):.1f}" for values in of_task.values())
    return f"| {8 if is_narrow else 16} | {count} | {case.name} | {mean:.2f} | {worst} |"


if __name__ == "__main__":
    main()
