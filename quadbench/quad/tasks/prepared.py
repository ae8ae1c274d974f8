"""Prepared: a recipe's task -> its sampler table, its items, and the U-Net inputs that its own trajectories visit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from quadbench.errors import UserError
from quadbench.quad.model.foundation import Foundation, time_features
from quadbench.quad.samplers.ed import ed_table
from quadbench.quad.samplers.lcm import lcm_table
from quadbench.quad.samplers.olss import SamplerInput, ddim_table, olss_table
from quadbench.quad.samplers.table import SamplerTable, run_table
from quadbench.quad.tasks.items import Item, Items
from quadbench.quad.tasks.runner import Condition, Denoiser, Feed, GraphSession, token_feed
from quadbench.recipe import EdSampler, ImageToImageTask, LcmSampler, OlssSampler, Task, TextToImageTask, mix_name

Unet = Callable[[Feed], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """A task with all that its runs need beside the graphs."""

    task: Task
    table: SamplerTable
    features: torch.Tensor  # (steps, C)
    items: Items

    def tensors(self, foundation: Foundation) -> dict[str, torch.Tensor]:
        """Return the tensors of `tasks/<task>.safetensors`: time features, and noise for each item that is evaluated."""
        steps = len(self.table.steps)
        noise = {f"noise.{item.name}": item.noise(foundation, steps) for item in self.items.evaluation}
        return {"time_features": self.features.contiguous(), **noise}


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The float graphs that run before the U-Net: text encoder and VAE encoder."""

    foundation: Foundation
    text_encoder: GraphSession
    vae_encoder: GraphSession

    def condition(self, item: Item, features: torch.Tensor, lora: Feed, guidance: float) -> Condition:
        """Return the U-Net's inputs beside the sample, for an item."""
        return Condition(
            time_features=features,
            text=self.text_encoder(token_feed(item.input_ids)),
            negative_text=self.text_encoder(token_feed(item.negative_input_ids)),
            lora=lora,
            guidance=guidance,
        )

    def latent(self, item: Item) -> torch.Tensor:
        """Return the latent (1, 4, h, w) of the item's image; zeros if it has none."""
        size = self.foundation.latent_size
        if item.image is None:
            return torch.zeros(1, self.foundation.latent_channels, size, size)
        return self.vae_encoder({"image": item.image.numpy()})


def prepare_task(task: Task, items: Items, encoders: Encoders, unet: Unet, lora: Feed) -> PreparedTask:
    """Make the task's table. OLSS is fitted to the float U-Net with the task's adapter and guidance, on the calibration items.

    Raises:
        UserError: the U-Net predicts NaN or Inf.
    """
    foundation = encoders.foundation
    table = known_table(task, foundation) or _fitted_table(task, encoders, unet, lora, items.calibration)
    features = time_features(foundation, list(table.timesteps))
    return PreparedTask(task=task, table=table, features=features, items=items)


def known_table(task: Task, foundation: Foundation) -> SamplerTable | None:
    """Return the table that follows from a task's sampler; None where it is fitted to the task."""
    match task.sampler:
        case OlssSampler():
            return None
        case LcmSampler(steps=steps):
            return lcm_table(foundation.alphas_cumprod, steps=steps, **start_of(task))
        case EdSampler(steps=steps):
            return ed_table(foundation.alphas_cumprod, steps=steps, **start_of(task))


class Start(TypedDict):
    """The keys that the tables take to know where a run starts."""

    strength: float
    is_image_to_image: bool


def start_of(task: Task) -> Start:
    """Return the task's strength, which is 1 without an image to start from, and whether its image is mixed in even then."""
    strength = 1.0 if isinstance(task, TextToImageTask) else task.strength
    return {"strength": strength, "is_image_to_image": isinstance(task, ImageToImageTask)}


def _fitted_table(task: Task, encoders: Encoders, unet: Unet, lora: Feed, items: Sequence[Item]) -> SamplerTable:
    """Fit an OLSS table of the sampler's steps."""
    foundation = encoders.foundation
    teacher = ddim_table(foundation.alphas_cumprod, **start_of(task))
    features = time_features(foundation, list(teacher.timesteps))
    inputs = [
        SamplerInput(
            denoise=Denoiser(unet=_finite(task, unet), condition=encoders.condition(item, features, lora, task.guidance)),
            latent=encoders.latent(item),
            noise=item.noise(foundation, 0),
            mask=item.latent_mask(foundation.latent_size),
        )
        for item in items
    ]
    return olss_table(teacher, inputs, steps=task.sampler.steps)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """The run of a task's calibration items: the U-Net's inputs without LoRA, its eps for each, and the latents that reached the
    decoder.
    """

    feeds: list[Feed]
    eps: list[torch.Tensor]
    latents: list[torch.Tensor]


def visit(prepared: PreparedTask, encoders: Encoders, unet: Unet, lora: Feed) -> Visit:
    """Run the task's own sampler on its calibration items and keep the inputs of U-Net and decoder.

    Raises:
        UserError: the U-Net predicts NaN or Inf.
    """
    feeds, eps, latents = [], [], []
    unet = _finite(prepared.task, unet)
    for item in prepared.items.calibration:
        condition = encoders.condition(item, prepared.features, lora, prepared.task.guidance)
        denoiser = Denoiser(unet=unet, condition=condition, record=True)
        latent, mask = encoders.latent(item), item.latent_mask(encoders.foundation.latent_size)
        noise = item.noise(encoders.foundation, len(prepared.table.steps))
        latents.append(run_table(prepared.table, denoiser, latent=latent, noise=noise, mask=mask))
        feeds.extend(denoiser.feeds)
        eps.extend(denoiser.eps)
    return Visit(feeds=feeds, eps=eps, latents=latents)


def _finite(task: Task, unet: Unet) -> Unet:
    """Return the U-Net with its predictions checked: one that is no number would spoil every range that is taken after it."""

    def predict(feed: Feed) -> torch.Tensor:
        eps = unet(feed)
        if not torch.isfinite(eps).all():
            of = f"with adapter '{mix_name(task.adapter)}'" if task.adapter else "without adapter"
            raise UserError(
                f"task '{task.name}': the U-Net {of} predicts NaN or Inf in float32",
                hint="weights or guidance are too large; `quadbench adapter inspect` shows an adapter's greatest",
            )
        return eps

    return predict
