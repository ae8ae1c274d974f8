"""Distillation judged on images that had no part in it: SQNR of eps before and after, for each adapter and seed.

    nice python bench/distillation.py run --out FILE.jsonl [--recipe quickstart] [--adapters restyle] [--seeds 3]
                                          [--diffusion-weight 0.1] [--learning-rate 0.0001] [--samples 8]
    python bench/distillation.py show FILE.jsonl...

The base, its encodings and the training are those that a build of the recipe with `quad.distill: {}` makes. Judged are the first
evaluation inputs of the adapter's tasks, along the float U-Net's own trajectories. `run` appends a line for each adapter and
seed, and skips those that FILE holds already.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from quadbench.artifacts import Component
from quadbench.quad.adapters.adapter import Adapter, graph_tensors
from quadbench.quad.adapters.lora_profile import LoraProfile, lora_profile
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
    sqnr_db,
)
from quadbench.quad.divergence import spread
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, calibrate, calibration_feeds, prepare
from quadbench.quad.quantize.fake_quant import FakeQuantGraph
from quadbench.quad.quantize.quantizer import write_qdq
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.recipe.settings import Distill


@dataclass(frozen=True, kw_only=True)
class Line:
    """One training of one adapter. SQNR of eps in dB: what came in and what came out, on validation and on new images."""

    adapter: str
    seed: int
    samples: int
    diffusion_weight: float
    learning_rate: float
    steps: int
    seconds: float
    validation_db: tuple[float, float]
    new_db: tuple[float, float]
    trained_db: tuple[float, float]  # on the images that trained it, with a seed that did not

    @property
    def setting(self) -> tuple[str, int, float, float]:
        """All that lines of one table row have in common."""
        return self.adapter, self.samples, self.diffusion_weight, self.learning_rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="measure, and append to a file")
    run.add_argument("--out", type=Path, required=True, metavar="FILE")
    run.add_argument("--recipe", default="quickstart")
    run.add_argument("--adapters", nargs="+", help="only these (default: all)")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--diffusion-weight", type=float, default=0.0)
    run.add_argument("--learning-rate", type=float, default=Distill().learning_rate)
    run.add_argument("--samples", type=int, default=4, help="of each task, for calibration and training (default: 4)")
    run.add_argument("--items", type=int, default=4, help="evaluation inputs that judge (default: 4)")
    run.add_argument("--steps", type=int, default=Distill().steps)
    run.add_argument("--threads", type=int, default=1)
    show = actions.add_parser("show", help="print a table of files")
    show.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args()
    if options.action == "show":
        print(table([line for file in options.files for line in read(file)]))  # noqa: T201
        return
    torch.set_num_threads(options.threads)
    done = {(line.seed, line.setting) for line in read(options.out)}
    asked = Distill(diffusion_weight=options.diffusion_weight, learning_rate=options.learning_rate, steps=options.steps)
    settings = TrainingSettings(**asked.model_dump(exclude={"adapters"}))
    recipe = load_recipe(options.recipe, {"quad.calibration.samples": options.samples})
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        study = Study.of(recipe, Path(scratch), settings, options.items)
    for seed in options.seeds:
        for name in options.adapters or study.prepared.adapters:
            if (seed, (name, options.samples, options.diffusion_weight, options.learning_rate)) in done:
                continue
            line = study.line(name, seed)
            with options.out.open("a") as out:
                out.write(json.dumps(asdict(line)) + "\n")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A recipe's shared graph as a student, with all that its adapters are trained and judged by."""

    recipe: Recipe
    prepared: PreparedRecipe
    lora: LoraProfile
    student: Student
    settings: TrainingSettings
    items: int

    @classmethod
    def of(cls, recipe: Recipe, scratch: Path, settings: TrainingSettings, items: int) -> "Study":
        prepared = prepare(recipe, BuildSteps(), scratch)
        lora = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype=recipe.precision.lora)
        feeds = calibration_feeds(recipe, prepared, lora)[Component.UNET]
        model = write_qdq(calibrate(recipe, prepared.models[Component.UNET], feeds), lora=lora.encodings).model
        student = Student(graph=FakeQuantGraph(model), shapes=prepared.shapes, encodings=lora.encodings)
        return cls(recipe=recipe, prepared=prepared, lora=lora, student=student, settings=settings, items=items)

    def line(self, name: str, seed: int) -> Line:
        began, exact, settings = time.monotonic(), self.prepared.adapters[name], replace(self.settings, seed=seed)
        with torch.no_grad():
            items = split_items(self.prepared, exact)
            noised = settings.diffusion_weight > 0
            training = examples(self.prepared, exact, items.training, seeds=TRAINING_SEEDS, noised=noised)
            validation = few(examples(self.prepared, exact, items.validation, seeds=VALIDATION_SEEDS, noised=False))
            trained = few(examples(self.prepared, exact, items.training, seeds=VALIDATION_SEEDS, noised=False))
            own = {
                task.task.name: task.items.evaluation[: self.items] for task in self.prepared.tasks if name in task.task.adapter
            }
            new = examples(self.prepared, exact, own, seeds=(0,), noised=False)
        came_in = self.lora.adapters[name]
        result = distill(came_in, self.student, training=training, validation=validation, settings=settings)
        return Line(
            adapter=name,
            seed=seed,
            samples=self.recipe.quad.calibration.samples,
            diffusion_weight=settings.diffusion_weight,
            learning_rate=settings.learning_rate,
            steps=result.steps,
            seconds=round(time.monotonic() - began, 1),
            validation_db=(result.before_db, result.after_db),
            new_db=(self.reached(came_in, new), self.reached(result.adapter, new)),
            trained_db=(self.reached(came_in, trained), self.reached(result.adapter, trained)),
        )

    def reached(self, adapter: Adapter, judged: Sequence[Example]) -> float:
        limits = {name: e.scale * e.limit for name, e in self.lora.encodings.items()}
        tensors = graph_tensors(adapter, self.prepared.shapes)
        return sqnr_db(self.student.graph, {name: t.clamp(-limits[name], limits[name]) for name, t in tensors.items()}, judged)


def few(judged: Sequence[Example]) -> list[Example]:
    return [judged[i] for i in spread(len(judged), VALIDATION_EXAMPLES)]


def read(path: Path) -> list[Line]:
    return [Line(**json.loads(text)) for text in path.read_text().splitlines()] if path.is_file() else []


def table(lines: list[Line]) -> str:
    """Return Markdown with a row for each adapter and setting; ± is the deviation over seeds."""
    settings = ("inputs", "diffusion weight", "learning rate")
    columns = (*settings, "seeds", "images that trained", "validation", "new images", "gain there", "steps")
    rows = ["| " + " | ".join(("adapter", *columns)) + " |", "|---|" + "---:|" * len(columns)]
    for setting in dict.fromkeys(line.setting for line in lines):
        own = [line for line in lines if line.setting == setting]
        adapter, *numbers = setting
        cells = (f"`{adapter}`", *(f"{number:g}" for number in numbers), f"{len(own)}", *_cells(own))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cells(lines: list[Line]) -> Iterator[str]:
    for name in ("trained_db", "validation_db", "new_db"):
        before, after = zip(*(getattr(line, name) for line in lines), strict=True)
        yield f"{np.mean(before):.1f} → {_with_deviation(after)}"
    yield _with_deviation([line.new_db[1] - line.new_db[0] for line in lines])
    yield f"{min(line.steps for line in lines)} to {max(line.steps for line in lines)}"


def _with_deviation(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
