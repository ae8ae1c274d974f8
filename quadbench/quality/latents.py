"""Latents: a bundle's graphs, run here on its items -> how far the quantized U-Nets are from the float one, before any pixel."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from quadbench.artifacts import LORA_PREFIX, Bundle, Component, Graph, Stored, TaskAssets, TaskItem, Variant
from quadbench.artifacts.parts import adapters_of, factors_of, with_own_graph
from quadbench.artifacts.pixels import read_pixels
from quadbench.artifacts.scores import Better, Compared, Metric, Score
from quadbench.quad.adapter_file import mixed_inputs
from quadbench.quad.model.initializers import opened
from quadbench.quad.samplers.table import SamplerTable, read_table, run_table
from quadbench.quad.tasks.runner import Condition, Denoiser, Feed, GraphSession, token_feed
from quadbench.quality.compared import REFERENCE, refuse_random
from quadbench.quality.fidelity import Values, as_batch, cosine, sqnr_db

log = logging.getLogger(__name__)
_QUANTIZED = (Variant.SHARED, Variant.PER_GRAPH)
EPS_SQNR = Metric(
    name="eps_sqnr",
    title="SQNR of eps",
    unit="dB",
    better=Better.HIGHER,
    definition="10 log10(sum eps^2 / sum (eps~ - eps)^2) over all U-Net runs; the quantized U-Net is fed what the float one was.",
)
LATENT_SQNR = Metric(
    name="latent_sqnr",
    title="SQNR of latents",
    unit="dB",
    better=Better.HIGHER,
    definition="The same of the latents that reach the decoder; each variant's own encoders, U-Net and trajectory.",
)
LATENT_COSINE = Metric(
    name="latent_cosine",
    title="Cosine of latents",
    unit="",
    better=Better.HIGHER,
    definition="Cosine of these latents, each as one vector, mean over items.",
)


def compare_latents(bundle: Stored[Bundle]) -> tuple[Compared, ...]:
    """Score every task under every quantized variant that the bundle has, on ONNX Runtime's CPU provider of this machine.

    Raises:
        UserError: the bundle's weights are random.
    """
    refuse_random(bundle.artifact)
    return tuple(compared for task in bundle.artifact.tasks for compared in _of_task(bundle, task))


@dataclass(frozen=True, kw_only=True)
class LatentTrajectory:
    """The trajectory of one item: the U-Net's inputs but for LoRA, its eps, and the last latent, each (1, 4, h, w)."""

    feeds: list[Feed]
    eps: list[Values]
    latent: Values


@dataclass(frozen=True, kw_only=True)
class TaskModel:
    """A task under one variant: the graphs before the decoder, the U-Net's LoRA inputs, the sampler and its noise."""

    task: TaskAssets
    bundle: Stored[Bundle]
    table: SamplerTable
    tensors: Mapping[str, torch.Tensor]
    text_encoder: GraphSession
    vae_encoder: GraphSession | None
    unet: GraphSession
    lora: Feed

    @classmethod
    def load(cls, bundle: Stored[Bundle], task: TaskAssets, variant: Variant) -> "TaskModel":
        """Read the task's files and graphs."""
        encoders = Variant.FLOAT if variant is Variant.FLOAT else Variant.SHARED  # per-graph has no encoders of its own
        unet = _unet(bundle, variant, task)
        return cls(
            task=task,
            bundle=bundle,
            table=read_table(bundle.path(task.table)),
            tensors={name: torch.from_numpy(values) for name, values in load_file(bundle.path(task.tensors)).items()},
            text_encoder=_session(bundle, _graph(bundle, encoders, Component.TEXT_ENCODER)),
            vae_encoder=None if _has_no_images(task) else _session(bundle, _graph(bundle, encoders, Component.VAE_ENCODER)),
            unet=_session(bundle, unet),
            lora=_lora_feed(bundle, task, unet),
        )

    def predict(self, feed: Feed) -> torch.Tensor:
        """Return eps (1, 4, h, w) of the U-Net with the task's adapter."""
        return self.unet(feed | self.lora)

    def run(self, item: TaskItem) -> LatentTrajectory:
        """Run the task's sampler on one item."""
        noise = self.tensors[f"noise.{item.name}"]  # (1 + steps, 4, h, w)
        condition = Condition(
            time_features=self.tensors["time_features"],
            text=self.text_encoder(token_feed(item.input_ids)),
            negative_text=self.text_encoder(token_feed(item.negative_input_ids)),
            lora={},
            guidance=self.task.guidance,
        )
        denoiser = Denoiser(unet=self.predict, condition=condition, record=True)
        mask = _mask(self.bundle.path(item.mask), noise.shape[2:]) if item.mask else None
        latent = run_table(self.table, denoiser, latent=self._latent(item, noise), noise=noise, mask=mask)
        return LatentTrajectory(feeds=denoiser.feeds, eps=[eps.numpy() for eps in denoiser.eps], latent=latent.numpy())

    def _latent(self, item: TaskItem, noise: torch.Tensor) -> torch.Tensor:
        """Return the latent (1, 4, h, w) of the item's image; zeros if it has none."""
        if item.image is None or self.vae_encoder is None:
            return torch.zeros_like(noise[:1])
        return self.vae_encoder({"image": (as_batch(read_pixels(self.bundle.path(item.image))) * 2 - 1).numpy()})


def _of_task(bundle: Stored[Bundle], task: TaskAssets) -> Iterator[Compared]:
    float_model = TaskModel.load(bundle, task, Variant.FLOAT)
    exact = [float_model.run(item) for item in task.items]
    for variant in _QUANTIZED:
        if variant is Variant.SHARED or task.name in with_own_graph(bundle.artifact):
            model = TaskModel.load(bundle, task, variant)
            log.info("quality: latents of %s, %s, %d items", task.name, variant, len(task.items))
            scores = _scores(exact, [model.run(item) for item in task.items], model)
            yield Compared(task=task.name, device=None, made=variant.value, against=REFERENCE, scores=scores)


def _scores(exact: Sequence[LatentTrajectory], quantized: Sequence[LatentTrajectory], model: TaskModel) -> tuple[Score, ...]:
    eps = [value for trajectory in exact for value in trajectory.eps]
    eps_quantized = [model.predict(feed).numpy() for trajectory in exact for feed in trajectory.feeds]
    latents, latents_quantized = [t.latent for t in exact], [t.latent for t in quantized]
    cosines = [cosine(a, b) for a, b in zip(latents, latents_quantized, strict=True)]
    return (
        _sqnr_score(EPS_SQNR, eps, eps_quantized),
        _sqnr_score(LATENT_SQNR, latents, latents_quantized),
        Score(metric=LATENT_COSINE, value=_mean(cosines), n=len(cosines)),
    )


def _mean(cosines: Sequence[float]) -> float | str:
    mean = float(np.mean(cosines))
    return mean if math.isfinite(mean) else "undefined: a latent is zero"


def _sqnr_score(metric: Metric, exact: Sequence[Values], quantized: Sequence[Values]) -> Score:
    value = sqnr_db(exact, quantized)
    return Score(metric=metric, value=value if math.isfinite(value) else "nothing differs", n=len(exact))


def _mask(path: Path, size: Sequence[int]) -> torch.Tensor:
    """Read the mask as (1, 1, h, w), reduced by nearest neighbour as the harness does it; 1 is to be replaced."""
    grey = as_batch(read_pixels(path))[:, :1]
    return torch.nn.functional.interpolate((grey >= 0.5).float(), size=tuple(size))


def _lora_feed(bundle: Stored[Bundle], task: TaskAssets, unet: Graph) -> Feed:
    """Return the task's adapters in the dtype of the graph; zeros if the task has none, nothing where they are merged."""
    inputs = [spec for spec in unet.inputs if spec.name.startswith(LORA_PREFIX)]
    if not inputs:
        return {}
    files = adapters_of(bundle.artifact, unet.variant, [task])
    return mixed_inputs([(bundle.path(files[name].file), factor) for name, factor in factors_of(task, files).items()], inputs)


def _has_no_images(task: TaskAssets) -> bool:
    return all(item.image is None for item in task.items)


def _unet(bundle: Stored[Bundle], variant: Variant, task: TaskAssets) -> Graph:
    return _graph(bundle, variant, Component.UNET, task.name if variant is Variant.PER_GRAPH else None)


def _graph(bundle: Stored[Bundle], variant: Variant, component: Component, task: str | None = None) -> Graph:
    return next(g for g in bundle.artifact.graphs if (g.variant, g.component, g.task) == (variant, component, task))


def _session(bundle: Stored[Bundle], graph: Graph) -> GraphSession:
    return GraphSession(opened(bundle.path(graph.file), bundle.path(graph.data) if graph.data else None))
