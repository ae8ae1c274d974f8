"""Held-out inputs: measuring the SQNR and the activation clipping of quantized U-Nets on evaluation inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from quadbench.artifacts import TensorSpec, Variant
from quadbench.artifacts.bundle import Clipping, HeldOutScores, StepSqnr, TrajectorySqnr
from quadbench.quad.adapters.adapter import mix_adapters, own_tensors
from quadbench.quad.adapters.lora_profile import LoraProfile, adapter_integers
from quadbench.quad.divergence import energies, ratio_db, spread
from quadbench.quad.items import PreparedTask
from quadbench.quad.prepare import PreparedRecipe
from quadbench.quad.quantize.calibration import clipping_of
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.merging import MergeableUnet, merge_adapter
from quadbench.quad.quantize.quantizer import QuantizedGraph
from quadbench.quad.runner import Feed, GraphSession, stack_loras
from quadbench.quad.sensitivity import UnetSample, samples_of

INPUTS = 3  # evaluation inputs per task, evenly spread; more would slow down builds


@dataclass(frozen=True, kw_only=True)
class _FloatRun:
    """A float U-Net's run over a task's held-out inputs: the U-Net's inputs without LoRA, and its noise predictions `exact`."""

    task: PreparedTask
    samples: list[UnetSample]
    exact: list[np.ndarray]


class HeldOutInputs:
    """Up to INPUTS evaluation inputs per task, with float predictions. Methods measure SQNR and clipping of quantized U-Nets."""

    def __init__(self, prepared: PreparedRecipe) -> None:
        self.prepared = prepared
        self.trajectories: list[TrajectorySqnr] = []
        self.clippings: list[Clipping] = []
        self._runs: dict[str, _FloatRun] = {}
        for task in prepared.tasks:  # each with its own sampler and its untrained adapter
            items, adapter = task.items.evaluation, mix_adapters(prepared.adapters, task.task.adapter)
            chosen = tuple(items[i] for i in spread(len(items), INPUTS))
            judged = replace(task, items=replace(task.items, calibration=chosen))
            visited = prepared.run(judged, adapter)
            exact = [eps.numpy() for eps in visited.eps]
            samples = samples_of(judged, visited, most=len(exact))
            self._runs[task.task.name] = _FloatRun(task=judged, samples=samples, exact=exact)

    @property
    def evaluation(self) -> HeldOutScores:
        """Return the HeldOutScores of all evaluated U-Nets: SQNR per task and sampler step, and clipping of activations."""
        return HeldOutScores(inputs=INPUTS, trajectories=tuple(self.trajectories), clippings=tuple(self.clippings))

    def evaluate_shared(self, model: onnx.ModelProto, written: QuantizedGraph, lora: LoraProfile) -> None:
        """Measure the U-Net that all tasks share, quantized from `model`. Append to `trajectories` (per task) and `clippings`."""
        unet, feeds = GraphSession(written.model), []
        for run in self._runs.values():
            adapter = run.task.task.adapter
            integers = integers_as_run(lora, adapter, self.prepared.shapes)
            self._add_trajectory(run, Variant.SHARED, unet, integers)
            weights = self.prepared.feed(mix_adapters(lora.adapters, adapter))
            feeds += [sample.feed | weights for sample in run.samples]
        self._add_clipping(Variant.SHARED, None, model, written.activations, feeds)

    def evaluate_own(self, task: str, model: onnx.ModelProto, written: QuantizedGraph) -> None:
        """Measure a U-Net with a task's adapter merged, quantized from `model`. Append to `trajectories` and `clippings`."""
        run = self._runs[task]
        self._add_trajectory(run, Variant.PER_GRAPH, GraphSession(written.model))
        self._add_clipping(Variant.PER_GRAPH, task, model, written.activations, [sample.feed for sample in run.samples])

    def evaluate_merged(self, written: MergeableUnet, lora: LoraProfile) -> None:
        """Merge each task's adapter into a quantized U-Net, as devices do at load time. Append each SQNR to `trajectories`."""
        for run in self._runs.values():
            integers = integers_as_run(lora, run.task.task.adapter, self.prepared.shapes)
            unet = merge_adapter(written.unet, written.merge, integers) if run.task.task.adapter else written.unet
            self._add_trajectory(run, Variant.MERGED_AT_LOAD, GraphSession(unet))

    def _add_trajectory(self, run: _FloatRun, variant: Variant, unet: GraphSession, lora: Feed | None = None) -> None:
        steps, other = [sample.step for sample in run.samples], (unet(s.feed | (lora or {})).numpy() for s in run.samples)
        sqnr_db, by_step = along_trajectory(run.task.table.timesteps, steps, run.exact, other)
        name, inputs = run.task.task.name, len(run.task.items.calibration)
        of_task = TrajectorySqnr(task=name, variant=variant.value, inputs=inputs, sqnr_db=sqnr_db, steps=by_step)
        self.trajectories.append(of_task)

    def _add_clipping(
        self, variant: Variant, task: str | None, model: onnx.ModelProto, encodings: Mapping[str, Encoding], feeds: Sequence[Feed]
    ) -> None:
        if encodings:  # activations that stay float do not clip
            self.clippings.append(clipping_of(model, encodings, feeds, variant=variant.value, task=task))


def integers_as_run(lora: LoraProfile, weights: Mapping[str, float], shapes: Mapping[str, tuple[int, ...]]) -> Feed:
    """Scale a task's quantized adapters by `weights` and concatenate them along the rank axis, as devices do. Return a dict from
    LoRA input name to integer array. Values that were clipped during quantization stay clipped at any weight.
    """
    inputs = [TensorSpec(name=name, shape=shape, dtype=lora.encodings[name].dtype) for name, shape in shapes.items()]
    files = {name: adapter_integers(own_tensors(lora.adapters[name]), lora.encodings) for name in weights}
    return stack_loras([(name, files[name], weight / lora.adapters[name].weight) for name, weight in weights.items()], inputs)


def along_trajectory(
    timesteps: Sequence[float], steps: Iterable[int], exact: Iterable[np.ndarray], other: Iterable[np.ndarray]
) -> tuple[float | None, tuple[StepSqnr, ...]]:
    """Compare U-Net outputs `other` at sampler steps `steps` with `exact`. Return (SQNR in dB or None, tuple of StepSqnr)."""
    by_step: dict[int, tuple[float, float]] = {}
    for step, right, near in zip(steps, exact, other, strict=True):
        signal_so_far, noise_so_far = by_step.get(step, (0.0, 0.0))
        signal, noise = energies(right, near)
        by_step[step] = (signal_so_far + signal, noise_so_far + noise)
    rows = (StepSqnr(step=step, timestep=float(timesteps[step]), sqnr_db=ratio_db(*both)) for step, both in by_step.items())
    return ratio_db(*(sum(part) for part in zip(*by_step.values(), strict=True))), tuple(rows)
