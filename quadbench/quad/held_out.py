"""Held out: evaluation inputs, run in float -> how far quantized U-Nets are from the float one at each step, and what clips."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import torch

from quadbench.artifacts import Variant
from quadbench.artifacts.held_out import Clipping, HeldOut, StepSqnr, TrajectorySqnr
from quadbench.quad.adapters import graph_tensors, mixed
from quadbench.quad.adapters.lora_profile import LoraProfile, adapter_integers
from quadbench.quad.divergence import spread
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.clipping import clipping_of
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.quantizer import Quantized
from quadbench.quad.sensitivity import UnetSample, samples_of
from quadbench.quad.tasks.prepared import PreparedTask, visit
from quadbench.quad.tasks.runner import Feed, GraphSession

INPUTS = 3  # of each task, spread evenly: what a build can afford

Predict = Callable[[Feed], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class _FloatRun:
    """A task's held-out inputs as the float U-Net went through them: its inputs without LoRA, and its eps for each."""

    task: PreparedTask
    samples: list[UnetSample]
    exact: list[np.ndarray]


class HeldOutInputs:
    """The held-out inputs of all tasks, run once, and what quantized U-Nets made of them so far."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.trajectories: list[TrajectorySqnr] = []
        self.clippings: list[Clipping] = []
        self._runs = {task.task.name: _float_run(prepared, task) for task in prepared.tasks}

    @property
    def judged(self) -> HeldOut:
        """Return what was seen of the U-Nets that were judged."""
        return HeldOut(inputs=INPUTS, trajectories=tuple(self.trajectories), clippings=tuple(self.clippings))

    def judge_shared(self, model: onnx.ModelProto, written: Quantized, lora: LoraProfile) -> None:
        """Judge the U-Net that all tasks share, written from the float graph `model`, each task under its own adapter."""
        unet, feeds = GraphSession(written.model), []
        for run in self._runs.values():
            adapter = run.task.task.adapter
            integers = self._integers(lora, adapter)
            self._add_trajectory(run, Variant.SHARED, partial(_with_lora, unet, integers))
            weights = self.prepared.feed(mixed(lora.adapters, adapter))
            feeds += [sample.feed | weights for sample in run.samples]
        self._add_clipping(Variant.SHARED, None, model, written.activations, feeds)

    def judge_own(self, task: str, model: onnx.ModelProto, written: Quantized) -> None:
        """Judge a task's own U-Net, written from the float graph `model`, its adapter merged in both."""
        run = self._runs[task]
        self._add_trajectory(run, Variant.PER_GRAPH, GraphSession(written.model))
        self._add_clipping(Variant.PER_GRAPH, task, model, written.activations, [sample.feed for sample in run.samples])

    def _integers(self, lora: LoraProfile, weights: Mapping[str, float]) -> Feed:
        return adapter_integers(graph_tensors(mixed(lora.adapters, weights), self.prepared.shapes), lora.encodings)

    def _add_trajectory(self, run: _FloatRun, variant: Variant, predict: Predict) -> None:
        energies: dict[int, tuple[float, float]] = {}
        for sample, exact in zip(run.samples, run.exact, strict=True):
            noise = predict(sample.feed).numpy().astype(np.float64) - exact
            signal_so_far, noise_so_far = energies.get(sample.step, (0.0, 0.0))
            signal = float(np.square(exact, dtype=np.float64).sum())
            energies[sample.step] = (signal_so_far + signal, noise_so_far + float(np.square(noise).sum()))
        timesteps = run.task.table.timesteps
        self.trajectories.append(
            TrajectorySqnr(
                task=run.task.task.name,
                variant=variant.value,
                inputs=len(run.task.items.calibration),
                sqnr_db=_db(*(sum(part) for part in zip(*energies.values(), strict=True))),
                steps=tuple(
                    StepSqnr(step=step, timestep=float(timesteps[step]), sqnr_db=_db(*both)) for step, both in energies.items()
                ),
            )
        )

    def _add_clipping(
        self, variant: Variant, task: str | None, model: onnx.ModelProto, encodings: Mapping[str, Encoding], feeds: Sequence[Feed]
    ) -> None:
        if encodings:  # activations that stay float do not clip
            self.clippings.append(clipping_of(model, encodings, feeds, variant=variant.value, task=task))


def _float_run(prepared: Prepared, task: PreparedTask) -> _FloatRun:
    """Run a task's held-out inputs by its own sampler, with its adapter as it came."""
    items, adapter = task.items.evaluation, task.task.adapter
    chosen = tuple(items[i] for i in spread(len(items), INPUTS))
    judged = replace(task, items=replace(task.items, calibration=chosen))
    exact: list[np.ndarray] = []

    def predict(feed: Feed) -> torch.Tensor:
        eps = prepared.unet(feed)
        exact.append(eps.numpy())
        return eps

    lora = prepared.feed(mixed(prepared.adapters, adapter))
    visited = visit(judged, prepared.encoders, predict, lora)
    return _FloatRun(task=judged, samples=samples_of(judged, visited, most=len(exact)), exact=exact)


def _with_lora(unet: GraphSession, lora: Feed, feed: Feed) -> torch.Tensor:
    return unet(feed | lora)


def _db(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
