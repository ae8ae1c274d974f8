"""Distill: an adapter, a quantized graph and examples -> the adapter trained to lose less under the graph's frozen encodings.

The student is the graph itself, fake-quantized; the teacher is the float U-Net with the adapter as it came (QUAD, arXiv
2603.29535, section 3.4). Only LoRA weights train.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch

from quadbench.quad.adapters import Adapter, LoraPair, graph_tensors
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.divergence import spread
from quadbench.quad.model.lora import input_names
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.fake_quant import FakeQuantGraph
from quadbench.quad.tasks.examples import Example, divided, examples
from quadbench.quad.training import Evaluation, Settings, Training

TRAINING_SEEDS, VALIDATION_SEEDS = (1, 2, 3, 4), (5,)  # by which those of the calibration items are moved
VALIDATION_EXAMPLES = 32


@dataclass(frozen=True, kw_only=True)
class Student:
    """The quantized U-Net whose adapters are trained, with the shapes and the encodings of its LoRA inputs."""

    graph: FakeQuantGraph
    shapes: Mapping[str, tuple[int, ...]]
    encodings: Mapping[str, Encoding]


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """The adapter with the best validation, which may be the untrained one; `evaluations[0]` is the untrained one's."""

    adapter: Adapter
    evaluations: tuple[Evaluation, ...]
    steps: int
    seconds: float

    @property
    def before_db(self) -> float:
        """Return the SQNR of the adapter that came in."""
        return self.evaluations[0].sqnr_db

    @property
    def after_db(self) -> float:
        """Return the SQNR of the adapter that came out."""
        return max(evaluation.sqnr_db for evaluation in self.evaluations)


def distill_adapters(
    prepared: Prepared,
    lora: LoraProfile,
    unet: onnx.ModelProto,
    *,
    names: Sequence[str],
    settings: Settings,
    checkpoints: Mapping[str, Path],
    notify: Callable[[str], None],
) -> dict[str, Distilled]:
    """Train adapters one after the other under the quantized U-Net and the LoRA profile that it was written with.

    What stops a training and chooses its best is measured on items that it does not train on.
    """
    student = Student(graph=FakeQuantGraph(unet), shapes=prepared.shapes, encodings=lora.encodings)
    distilled = {}
    for name in names:
        exact = prepared.adapters[name]
        items = divided(prepared, exact)
        validation = examples(prepared, exact, items.validation, seeds=VALIDATION_SEEDS, noised=False)
        distilled[name] = distill(
            lora.adapters[name],
            student,
            training=examples(prepared, exact, items.training, seeds=TRAINING_SEEDS, noised=settings.diffusion_weight > 0),
            validation=[validation[i] for i in spread(len(validation), VALIDATION_EXAMPLES)],
            settings=settings,
            checkpoint=checkpoints[name],
            notify=_named(notify, f"distill {name}"),
        )
    return distilled


def distill(
    adapter: Adapter,
    student: Student,
    *,
    training: Sequence[Example],
    validation: Sequence[Example],
    settings: Settings,
    checkpoint: Path | None = None,
    notify: Callable[[str], None] = lambda _progress: None,
) -> Distilled:
    """Train until `settings.steps`, or until validation has not improved for `patience` evaluations.

    If `checkpoint` is a file that an interrupted call with the same arguments left, go on from there.
    """
    limits = {name: student.encodings[name].scale * student.encodings[name].limit for name in student.shapes}
    tensors = graph_tensors(adapter, student.shapes)
    clipped = {name: tensor.clamp(-limits[name], limits[name]) for name, tensor in tensors.items()}
    units = {name: float(tensor.abs().max()) or 1.0 for name, tensor in clipped.items()}
    run = Training(
        graph=student.graph,
        units=units,
        limits={name: limits[name] / unit for name, unit in units.items()},
        settings=settings,
        weights={name: tensor / units[name] for name, tensor in clipped.items()},
        trained=_own_inputs(adapter),
        notify=notify,
    )
    with torch.enable_grad():
        if checkpoint is not None and checkpoint.is_file():
            run.load(checkpoint)
        run.fit(training, validation, checkpoint)
    return Distilled(
        adapter=_with_weights(adapter, {name: run.best[name] * units[name] for name in student.shapes}),
        evaluations=tuple(run.evaluations),
        steps=run.step,
        seconds=run.seconds,
    )


def _named(notify: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda progress: notify(f"{name}: {progress}")


def _own_inputs(adapter: Adapter) -> tuple[str, ...]:
    """Return the LoRA inputs of the adapter's own sites; the others stay zero, and so does padding, whose gradient is zero."""
    return tuple(name for site in adapter.pairs for name in input_names(site))


def _with_weights(adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> Adapter:
    """Return the adapter with trained weights, by graph input, whose padding is cut off."""
    pairs = {}
    for site, pair in adapter.pairs.items():
        down, up = (weights[name].detach() for name in input_names(site))
        pairs[site] = LoraPair(down=down[: pair.rank], up=up[:, : pair.rank])
    return replace(adapter, pairs=pairs)
