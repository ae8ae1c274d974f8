"""The shared graph against per-graph ones, calibrated alike: SQNR of eps on inputs that calibration has not seen, for each task.

    nice python bench/fairness.py run --out FILE.jsonl [--recipe use-cases] [--seeds 1] [--headroom 1 1.5] [--items 8]
    python bench/fairness.py show FILE.jsonl...

Two policies, the same for both variants:

- `joint`: the inputs of all tasks. The shared graph is one graph for all tasks, as a build makes it.
- `own-task`: those of one task alone. There is a shared graph for each task, calibrated on this task under its adapter. Nobody
  would ship these; they show what LoRA inputs alone make of the figures.

Both variants are judged on the evaluation inputs, along the float U-Net's own trajectories, against the float U-Net. `run`
appends a line for each seed, headroom, policy, task and item, and skips seeds that FILE holds; a seed moves the noise of
calibration and evaluation. `show` prints a table for each headroom. The difference is shared - per-graph, item by item, as its
mean over inputs with its interval at 95 %, by `paired`; the mean over its seeds stands for an input.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quadbench.artifacts import Component
from quadbench.quad.adapters.adapter import mix_adapters
from quadbench.quad.adapters.lora_profile import LoraProfile, lora_profile
from quadbench.quad.divergence import spread
from quadbench.quad.held_out_inputs import integers_as_run
from quadbench.quad.items import PreparedTask, run_calibration
from quadbench.quad.prepare import (
    BuildSteps,
    PreparedRecipe,
    calibration_feeds,
    merged_unet,
    per_graph_feeds,
    prepare,
    range_rules,
)
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq
from quadbench.quad.runner import Feed, GraphSession
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.recipe.settings import JointCalibration, OwnTaskCalibration
from quadbench.statistics.launch_comparison import compare_paired

SEED_STRIDE = 1000  # beyond the items of a task, which use the seeds that follow its own
POLICIES = ("joint", "own-task")


@dataclass(frozen=True, kw_only=True)
class Line:
    """The SQNR of eps over one item's trajectory in either variant, in dB."""

    seed: int
    headroom: float
    policy: str
    task: str
    item: str
    shared_db: float
    per_graph_db: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An item that calibration has not seen: the U-Net's inputs without LoRA, and the float U-Net's eps for each."""

    item: str
    feeds: list[Feed]
    exact: list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="measure, and append to a file")
    run.add_argument("--out", type=Path, required=True, metavar="FILE", help="the lines are appended here")
    run.add_argument("--recipe", default="use-cases", help="a recipe (default: use-cases)")
    run.add_argument("--seeds", type=int, default=1, help="so many seeds, from 0 (default: 1)")
    run.add_argument("--headroom", type=float, nargs="+", help="of activation ranges, one or more (default: the recipe's)")
    run.add_argument("--items", type=int, default=8, help="at most so many inputs of a task (default: 8)")
    run.add_argument("--feeds", type=int, default=16, help="at most so many U-Net runs of an input, spread evenly (default: 16)")
    show = actions.add_parser("show", help="print the tables of files")
    show.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args()
    if options.action == "show":
        print(tables([line for file in options.files for line in read(file)]))  # noqa: T201
        return
    recipe = load_recipe(options.recipe)
    headrooms = options.headroom or [recipe.quad.calibration.ranges.int16.headroom]
    done = {line.seed for line in read(options.out)}
    for seed in (seed for seed in range(options.seeds) if seed not in done):
        with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
            lines = list(measure(with_seed(recipe, seed), seed, headrooms, options.items, options.feeds, Path(scratch)))
        with options.out.open("a") as out:
            out.writelines(json.dumps(asdict(line)) + "\n" for line in lines)


def read(path: Path) -> list[Line]:
    return [Line(**json.loads(text)) for text in path.read_text().splitlines()] if path.is_file() else []


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    tasks = tuple(task.model_copy(update={"seed": task.seed + SEED_STRIDE * seed}) for task in recipe.tasks)
    return recipe.model_copy(update={"tasks": tasks})


def measure(recipe: Recipe, seed: int, headrooms: Sequence[float], items: int, feeds: int, scratch: Path) -> Iterator[Line]:
    prepared = prepare(recipe, BuildSteps(), scratch)
    lora = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype=recipe.precision.lora)
    bench = Bench(prepared=prepared, lora=lora, headrooms=headrooms, percent=recipe.precision.activations.int8_percent)
    shared_by_all = bench.shared(with_policy(recipe, "joint"))
    for prepared_task in prepared.tasks:
        task = prepared_task.task
        judged = list(judged_items(prepared, prepared_task, items, feeds))
        merged = merged_unet(prepared, mix_adapters(prepared.adapters, task.adapter), scratch)
        for policy in POLICIES:
            own_recipe = with_policy(recipe, policy)
            alone = own_recipe.model_copy(update={"tasks": (task,)})
            shared = shared_by_all if policy == "joint" else bench.shared(alone)
            own = bench.quantized(own_recipe, ObservedGraph(merged, per_graph_feeds(own_recipe, prepared, task, anchor=None)))
            lora_inputs = bench.integers(task.adapter)
            for headroom, one in product(headrooms, judged):
                yield Line(
                    seed=seed,
                    headroom=headroom,
                    policy=policy,
                    task=task.name,
                    item=one.item,
                    shared_db=sqnr_db(one, shared[headroom], lora_inputs),
                    per_graph_db=sqnr_db(one, own[headroom], {}),
                )


def with_policy(recipe: Recipe, policy: str) -> Recipe:
    scheme, old = JointCalibration if policy == "joint" else OwnTaskCalibration, recipe.quad.calibration
    calibration = scheme(scheme=policy, samples=old.samples, ranges=old.ranges)
    return recipe.model_copy(update={"quad": recipe.quad.model_copy(update={"calibration": calibration})})


def judged_items(prepared: PreparedRecipe, task: PreparedTask, items: int, feeds: int) -> Iterator[Judged]:
    weights = prepared.feed(mix_adapters(prepared.adapters, task.task.adapter))
    for item in task.items.evaluation[:items]:
        alone = replace(task, items=replace(task.items, calibration=(item,)))
        visited = run_calibration(alone, prepared.encoders, prepared.unet, weights).feeds
        chosen = [visited[i] for i in spread(len(visited), feeds)]
        yield Judged(item=item.name, feeds=chosen, exact=[prepared.unet(feed | weights).numpy() for feed in chosen])


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all graphs of a seed are made of; `headrooms` are those that each graph is written with."""

    prepared: PreparedRecipe
    lora: LoraProfile
    headrooms: Sequence[float]
    percent: int  # of parameters in 8 bits

    def shared(self, recipe: Recipe) -> dict[float, GraphSession]:
        """Return the shared graph by headroom, calibrated for the recipe's tasks."""
        feeds = calibration_feeds(recipe, self.prepared, self.lora)[Component.UNET]
        observed = ObservedGraph(self.prepared.models[Component.UNET], feeds)
        return self.quantized(recipe, observed, lora=self.lora.encodings)

    def quantized(
        self, recipe: Recipe, observed: ObservedGraph, lora: Mapping[str, Encoding] | None = None
    ) -> dict[float, GraphSession]:
        """Return a graph by headroom."""
        rules = range_rules(recipe.quad.calibration.ranges)
        graphs = {}
        for headroom in self.headrooms:
            own_rules = {dtype: replace(rule, headroom=headroom) for dtype, rule in rules.items()}
            written = write_qdq(CalibratedGraph(observed, own_rules), int8_percent=self.percent, lora=lora)
            graphs[headroom] = GraphSession(written.model)
        return graphs

    def integers(self, weights: Mapping[str, float]) -> Feed:
        """Return a task's LoRA inputs as the shared graph takes them."""
        return integers_as_run(self.lora, weights, self.prepared.shapes)


def sqnr_db(judged: Judged, graph: GraphSession, lora: Feed) -> float:
    pairs = [(exact, graph(feed | lora).numpy()) for feed, exact in zip(judged.feeds, judged.exact, strict=True)]
    signal = sum(float(np.square(exact).sum()) for exact, _ in pairs)
    return 10 * float(np.log10(signal / sum(float(np.square(other - exact).sum()) for exact, other in pairs)))


def tables(lines: Sequence[Line]) -> str:
    by_headroom = groups(lines, lambda line: line.headroom)
    return "\n\n".join(f"headroom {headroom:g}\n\n{table(own)}" for headroom, own in sorted(by_headroom.items()))


def table(lines: Sequence[Line]) -> str:
    columns = ("task", "policy", "items", "shared, mean", "worst", "per-graph, mean", "worst", "difference", "95 %")
    rows = [row(*key, own) for key, own in groups(lines, lambda line: (line.policy, line.task)).items()]
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows])


def groups(lines: Sequence[Line], key: Callable[[Line], Any]) -> dict[Any, list[Line]]:
    grouped: dict[Any, list[Line]] = {}
    for line in lines:
        grouped.setdefault(key(line), []).append(line)
    return grouped


def row(policy: str, task: str, lines: Sequence[Line]) -> str:
    means = [np.array([getattr(line, side) for line in lines]) for side in ("shared_db", "per_graph_db")]
    cells = " | ".join(f"{values.mean():.1f} | {values.min():.1f}" for values in means)
    return f"| `{task}` | {policy} | {len(lines)} | {cells} | {interval(lines)} |"


def interval(lines: Sequence[Line]) -> str:
    """Return the mean difference and the ends of its 95 % interval; an input counts once, with the mean of its lines."""
    by_input = groups(lines, lambda line: line.item).values()
    means = np.array([np.mean([line.shared_db - line.per_graph_db for line in own]) for own in by_input])
    told = compare_paired(list(means))
    return f"{told.mean:+.2f} | {told.low:+.2f} to {told.high:+.2f}"


if __name__ == "__main__":
    main()
