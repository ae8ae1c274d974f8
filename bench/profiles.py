"""Shared profiles: every adapter under the ranges of every other and under pooled ones, before and after distillation.

    nice python bench/profiles.py run --out FILE.jsonl [--recipe use-cases] [--lora int8 int16] [--gauge off on]
                                      [--anchors restyle unified] [--adapters restyle] [--seeds 3] [--steps 50]
    python bench/profiles.py show FILE.jsonl...

One graph serves all adapters of the recipe. Its activations are calibrated on the inputs of all of their tasks, each under its
adapter and under none, whatever the anchor. Judged are the first evaluation inputs that calibrate nothing, by the graph in ONNX
Runtime: SQNR of eps along the float U-Net's own trajectories, and PSNR of pictures against the float U-Net's (text encoder and
VAE are float in both; of pictures with a mask, what it replaces). `--seeds 0` trains nothing. `run` appends a line for each
profile, adapter and seed, and skips those that FILE holds. `--copies` has three copies of `restyle` share the graph as well:
`skewed` (down/8, up*8: the same function), `tenfold` (one rank index of down ten times as large, of up a tenth: the same
function, a tenfold range) and `doubled` (down*2 and up*2: another function).
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import torch
from fairness import Judged, judged_items, sqnr_db

from quadbench.artifacts import Component
from quadbench.quad.adapters.adapter import Adapter, LoraPair
from quadbench.quad.adapters.lora_profile import LoraProfile, clip_rate, lora_profile, site_fits
from quadbench.quad.distill import (
    TRAINING_SEEDS,
    VALIDATION_EXAMPLES,
    VALIDATION_SEEDS,
    Example,
    Student,
    TrainingSettings,
    distill,
    examples,
    split_items,
)
from quadbench.quad.divergence import spread
from quadbench.quad.held_out_inputs import integers_as_run
from quadbench.quad.items import Item, Unet
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, calibrate, prepare
from quadbench.quad.quantize.fake_quant import FakeQuantGraph
from quadbench.quad.quantize.quantizer import CalibratedGraph, write_qdq
from quadbench.quad.runner import Denoiser, Feed, GraphSession
from quadbench.quad.samplers.table import run_table
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.recipe.settings import Distill
from quadbench.statistics.intervals import half_width
from quadbench.statistics.launch_comparison import CONFIDENCE, compare_paired

COPIED, UNIFIED = "restyle", "unified"
ITEMS, FEEDS = 8, 4  # inputs that judge an adapter, and U-Net runs of each, spread evenly over its trajectory


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An adapter under a profile, untrained where `seed` is None."""

    lora: str
    anchor: str
    gauge: bool
    adapter: str
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Line(Cell):
    """What came of it: SQNR of eps and PSNR of the picture of each input, in dB, and the share of weights that clip untrained."""

    steps: int
    clip_rate: float
    sqnr_db: tuple[float, ...]
    psnr_db: tuple[float, ...]

    @property
    def cell(self) -> Cell:
        return Cell(lora=self.lora, anchor=self.anchor, gauge=self.gauge, adapter=self.adapter, seed=self.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="measure, and append to a file")
    run.add_argument("--out", type=Path, required=True, metavar="FILE")
    run.add_argument("--recipe", default="use-cases")
    run.add_argument("--copies", action="store_true", help="three copies of `restyle` share the graph, too")
    run.add_argument("--lora", choices=("int16", "int8"), nargs="+", default=["int8", "int16"])
    run.add_argument("--gauge", choices=("off", "on"), nargs="+", default=["off", "on"])
    run.add_argument("--anchors", nargs="+", help=f"adapters, or '{UNIFIED}' (default: all)")
    run.add_argument("--adapters", nargs="+", help="only these are judged (default: all)")
    run.add_argument("--seeds", type=int, default=3, help="of the training (default: 3)")
    run.add_argument("--steps", type=int, default=50)
    show = actions.add_parser("show", help="print tables of files")
    show.add_argument("files", type=Path, nargs="+", metavar="FILE")
    show.add_argument("--chosen", default="restyle", help="the anchor that sensitivity chooses (default: restyle)")
    options = parser.parse_args()
    if options.action == "show":
        print(tables([line for file in options.files for line in read(file)], options.chosen))  # noqa: T201
        return
    torch.set_num_threads(1)
    recipe = with_adapters(load_recipe(options.recipe))
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        study = Study(recipe, prepare(recipe, BuildSteps(), Path(scratch)), copies=options.copies)
        for cell in cells(options, list(study.subjects)):
            if cell not in {line.cell for line in read(options.out)}:
                line = study.line(cell, options.steps)
                with options.out.open("a") as out:
                    out.write(json.dumps(asdict(line)) + "\n")


def cells(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Cell]:
    """Yield what to measure, a profile after the other, as each has a graph of its own."""
    for gauge, lora, anchor in product(options.gauge, options.lora, options.anchors or [*names, UNIFIED]):
        for adapter, seed in product(options.adapters or names, (None, *range(options.seeds))):
            yield Cell(lora=lora, anchor=anchor, gauge=gauge == "on", adapter=adapter, seed=seed)


def with_adapters(recipe: Recipe) -> Recipe:
    """Return the recipe without the tasks that take no adapter."""
    return recipe.model_copy(update={"tasks": tuple(task for task in recipe.tasks if task.adapter)})


@dataclass(frozen=True, kw_only=True)
class Exact:
    """An input as the float U-Net takes it: its eps along the trajectory, and its picture."""

    eps: Judged
    picture: torch.Tensor


class Subject:
    """An adapter that is judged, its task's own or a copy: `prepared` has it under the name that its task knows."""

    def __init__(self, adapter: Adapter, name: str, prepared: PreparedRecipe) -> None:
        self.adapter, self.name = adapter, name
        self.prepared = replace(prepared, adapters=prepared.adapters | {name: replace(adapter, name=name)})
        task = next(task for task in prepared.tasks if name in task.task.adapter)
        known = {item.name for item in task.items.calibration}  # a prompt may do both
        self.items = [item for item in task.items.evaluation if item.name not in known][:ITEMS]
        self.task = replace(task, items=replace(task.items, evaluation=tuple(self.items)))

    @cached_property
    def judged(self) -> list[Exact]:
        """The inputs that judge, in the order of `items`."""
        lora, eps = self.prepared.feed(self.adapter), judged_items(self.prepared, self.task, ITEMS, FEEDS)
        pictures = (self.picture(item, self.prepared.unet, lora) for item in self.items)
        return [Exact(eps=one, picture=picture) for one, picture in zip(eps, pictures, strict=True)]

    @cached_property
    def examples(self) -> tuple[list[Example], list[Example]]:
        """The examples that train the adapter and those that validate, as a build takes them."""
        exact = self.prepared.adapters[self.name]
        items = split_items(self.prepared, exact)
        training = examples(self.prepared, exact, items.training, seeds=TRAINING_SEEDS, noised=False)
        validation = examples(self.prepared, exact, items.validation, seeds=VALIDATION_SEEDS, noised=False)
        return training, [validation[i] for i in spread(len(validation), VALIDATION_EXAMPLES)]

    def picture(self, item: Item, unet: Unet, lora: Feed) -> torch.Tensor:
        """Return the task's picture of an item from 0 to 1, (3, H, W), or the (3, pixels) of it that its mask replaces."""
        encoders, table, size = self.prepared.encoders, self.task.table, self.prepared.foundation.sizes.latent
        latent = run_table(
            table,
            Denoiser(unet=unet, condition=encoders.condition(item, self.task.embedded, lora, self.task.task.guidance)),
            latent=encoders.latent(item),
            noise=item.noise(self.prepared.foundation, len(table.steps)),
            mask=item.latent_mask(size),
        )
        image = (self._decoder({"latent": latent.numpy()}).clamp(-1, 1)[0] + 1) / 2
        return image if item.mask is None else image[:, item.mask[0, 0] > 0]

    @cached_property
    def _decoder(self) -> GraphSession:
        return GraphSession(self.prepared.models[Component.VAE_DECODER])


class Study:
    """All adapters that share a graph, and the graph of the profile that was asked for last."""

    def __init__(self, recipe: Recipe, prepared: PreparedRecipe, *, copies: bool) -> None:
        self.recipe, self.prepared = recipe, prepared
        own = {name: Subject(adapter, name, prepared) for name, adapter in prepared.adapters.items()}
        made = unlike(prepared.adapters[COPIED]) if copies else []
        self.subjects = own | {adapter.name: Subject(adapter, COPIED, prepared) for adapter in made}
        self._calibrated: dict[str, CalibratedGraph] = {}
        self._profile: tuple[tuple[str, str, bool], LoraProfile, GraphSession, Student] | None = None

    def line(self, cell: Cell, steps: int) -> Line:
        """Measure a cell, and train before where it has a seed."""
        lora, graph, student = self.profile(cell)
        subject, adapter, trained_steps = self.subjects[cell.adapter], lora.adapters[cell.adapter], 0
        if cell.seed is not None:
            training, validation = subject.examples
            settings = TrainingSettings(**Distill(steps=steps).model_dump(exclude={"adapters"}) | {"seed": cell.seed})
            distilled = distill(adapter, student, training=training, validation=validation, settings=settings)
            adapter, trained_steps = distilled.adapter, distilled.steps
        integers = integers_as_run(replace(lora, adapters={cell.adapter: adapter}), {cell.adapter: 1.0}, self.prepared.shapes)
        sqnrs, psnrs = [], []
        for item, exact in zip(subject.items, subject.judged, strict=True):
            sqnrs.append(sqnr_db(exact.eps, graph, integers))
            error = (subject.picture(item, graph, integers) - exact.picture).square().mean()
            psnrs.append(-10 * math.log10(max(float(error), 1e-10)))
        return Line(
            **asdict(cell),
            steps=trained_steps,
            clip_rate=clip_rate(site_fits(lora.adapters[cell.adapter], lora.encodings)),
            sqnr_db=tuple(sqnrs),
            psnr_db=tuple(psnrs),
        )

    def profile(self, cell: Cell) -> tuple[LoraProfile, GraphSession, Student]:
        """Return a cell's LoRA profile and the graph that was written with it, twice: as it runs and as it trains."""
        key = (cell.lora, cell.anchor, cell.gauge)
        if self._profile is None or self._profile[0] != key:
            anchor = None if cell.anchor == UNIFIED else cell.anchor
            adapters = [subject.adapter for subject in self.subjects.values()]
            lora = lora_profile(adapters, anchor=anchor, gauge=cell.gauge, headroom=1.0, dtype=cell.lora)
            # Only the gauge changes what calibration sees, of the products of `down`; without it all anchors share one.
            model = write_qdq(self.calibration(lora, cell.anchor if cell.gauge else ""), lora=lora.encodings).model
            student = Student(graph=FakeQuantGraph(model), shapes=self.prepared.shapes, encodings=lora.encodings)
            self._profile = (key, lora, GraphSession(model), student)
        return self._profile[1:]

    def calibration(self, lora: LoraProfile, key: str) -> CalibratedGraph:
        """Calibrate the graph on the inputs of all tasks, each under its adapter and under none; once for each key."""
        if key not in self._calibrated:
            feeds = []
            for name, subject in self.subjects.items():
                for adapter in (lora.adapters[name], *((None,) if name == subject.name else ())):
                    weights = self.prepared.feed(adapter)
                    feeds += [feed | weights for feed in self.prepared.visits[subject.task.task.name].feeds]
            self._calibrated[key] = calibrate(self.recipe, self.prepared.models[Component.UNET], feeds)
        return self._calibrated[key]


def unlike(adapter: Adapter) -> list[Adapter]:
    """Return three copies that are unlike the adapter."""

    def changed(name: str, down: float, up: float, *, only_first: bool = False) -> Adapter:
        pairs = {}
        for site, pair in adapter.pairs.items():
            d, u = torch.ones(pair.rank), torch.ones(pair.rank)
            chosen = slice(0, 1) if only_first else slice(None)
            d[chosen], u[chosen] = down, up
            pairs[site] = LoraPair(
                down=pair.down * d.view(-1, *(1,) * (pair.down.ndim - 1)),
                up=pair.up * u.view(1, -1, *(1,) * (pair.up.ndim - 2)),
            )
        return Adapter(name=name, pairs=pairs)

    return [changed("skewed", 1 / 8, 8.0), changed("tenfold", 10.0, 0.1, only_first=True), changed("doubled", 2.0, 2.0)]


def read(path: Path) -> list[Line]:
    """Return the lines of a file; none where it does not exist."""
    return [Line(**json.loads(text)) for text in path.read_text().splitlines()] if path.exists() else []


def tables(lines: list[Line], chosen: str) -> str:
    """Return Markdown: every adapter under every anchor, untrained and trained, and what each anchor costs the others."""
    parts = []
    for lora, gauge in dict.fromkeys((line.lora, line.gauge) for line in lines):
        own = [line for line in lines if (line.lora, line.gauge) == (lora, gauge)]
        parts.append(f"## LoRA in {lora.upper()}, gauge {'on' if gauge else 'off'}")
        clipped = {(line.anchor, line.adapter): line.clip_rate for line in own if line.seed is None}
        for title, field in (("SQNR of eps, dB", "sqnr_db"), ("PSNR of pictures, dB", "psnr_db")):
            values = {(line.anchor, line.adapter): getattr(line, field) for line in own if line.seed is None}
            parts.append(f"{title}, untrained\n\n{grid(values)}\n\nCosts, dB\n\n{costs(values, clipped, chosen)}")
            parts.append(f"{title}, trained\n\n{trained(own, field)}")
    return "\n\n".join(parts)


Values = dict[tuple[str, str], tuple[float, ...]]  # (anchor, adapter) -> a figure of each input


def grid(values: Values) -> str:
    """A row for each adapter, a column for each anchor."""
    anchors, adapters = (list(dict.fromkeys(key[i] for key in values)) for i in (0, 1))
    rows = [f"| adapter | {' | '.join(anchors)} |", "|---" * (len(anchors) + 1) + "|"]
    for adapter in adapters:
        cells = [interval(values[anchor, adapter]) if (anchor, adapter) in values else "" for anchor in anchors]
        rows.append(f"| `{adapter}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def costs(values: Values, clipped: dict[tuple[str, str], float], chosen: str) -> str:
    """What an anchor costs the other adapters, against ranges of their own; `chosen` beside it, for adapters that are neither."""
    columns = ("anchor", "clipped, %", "mean cost", "most", f"{chosen} is ahead by", "inputs", "told apart")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    adapters = list(dict.fromkeys(adapter for _, adapter in values))
    for anchor in dict.fromkeys(anchor for anchor, _ in values):
        others = [a for a in adapters if a != anchor and {(a, a), (anchor, a)} <= values.keys()]
        means = {a: float(np.subtract(values[a, a], values[anchor, a]).mean()) for a in others}
        if not means:
            continue
        most = max(means, key=means.__getitem__)
        share = 100 * np.mean([clipped[anchor, a] for a in means])
        row = f"| {anchor} | {share:.2f} | {np.mean(list(means.values())):.1f} | {means[most]:.1f} (`{most}`) |"
        common = [a for a in others if a != chosen and (chosen, a) in values]
        ahead = [d for a in common for d in np.subtract(values[chosen, a], values[anchor, a]).tolist()]
        if anchor == chosen or not ahead:
            rows.append(f"{row} | | |")
            continue
        of = compare_paired(ahead)
        rows.append(
            f"{row} {of.mean:+.1f}, {of.low:+.1f} to {of.high:+.1f} | {of.pairs} | {'yes' if of.is_told_apart else 'no'} |"
        )
    return "\n".join(rows)


def trained(lines: Sequence[Line], field: str) -> str:
    """A row for each adapter that was trained under an anchor; of an input's seeds the mean counts."""
    rows = ["| anchor | adapter | seeds | before | after | gain | of each seed | own ranges, untrained |", "|---" * 8 + "|"]
    by_pair: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        by_pair.setdefault((line.anchor, line.adapter), []).append(line)
    for (anchor, adapter), own in by_pair.items():
        before = [getattr(line, field) for line in own if line.seed is None]
        after = [getattr(line, field) for line in own if line.seed is not None]
        if before and after:
            gains = np.subtract(after, before[0])  # (seeds, inputs)
            bound = next((getattr(line, field) for line in by_pair.get((adapter, adapter), []) if line.seed is None), None)
            cells = (
                interval(before[0]),
                interval(np.mean(after, 0)),
                interval(gains.mean(0), sign="+"),
                ", ".join(f"{gain:+.1f}" for gain in gains.mean(1)),
                interval(bound) if bound else "",
            )
            rows.append(f"| {anchor} | `{adapter}` | {len(after)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def interval(values: Sequence[float] | np.ndarray, sign: str = "") -> str:
    """Return the mean ± half of its 95 % interval over inputs (Student's t), and the least of them in brackets."""
    half = half_width(list(values), CONFIDENCE)
    error = "" if half is None else f" ± {half:.1f}"
    return f"{np.mean(values):{sign}.1f}{error} ({min(values):{sign}.1f})"


if __name__ == "__main__":
    main()
