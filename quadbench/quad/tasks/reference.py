"""Reference: a task's items -> the images of diffusers and PEFT in float32, to which all others are compared.

If diffusers has the scheduler (LCM, ED), the image comes from its own pipeline. OLSS it does not have: there its components run
under the fitted table. Adapters are loaded by PEFT or diffusers, never by the code that is checked. An inpainted image is then
composited with its input, as diffusers' `apply_overlay` does it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import (
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from torch import nn

from quadbench.artifacts.pixels import Pixels, composite
from quadbench.quad.model.foundation import Foundation
from quadbench.quad.samplers.table import SamplerTable, run_table
from quadbench.quad.sources import AdapterSource
from quadbench.quad.tasks.items import Item
from quadbench.quad.tasks.reference_adapter import with_adapters
from quadbench.recipe import ImageToImageTask, InpaintTask, OlssSampler, Task, TextToImageTask

_SCHEDULERS = {"lcm": (LCMScheduler, {}), "ed": (EulerDiscreteScheduler, {"timestep_spacing": "leading"})}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A task with its U-Net in torch, to render its items by."""

    foundation: Foundation
    task: Task
    table: SamplerTable
    unet: nn.Module

    def render(self, item: Item) -> Image.Image:
        """Return the item's image, 8-bit RGB."""
        with torch.no_grad():
            is_olss = isinstance(self.task.sampler, OlssSampler)
            decoded = _to_pixels(self._run_components(item) if is_olss else self._run_pipeline(item))
        if item.blend is None or item.image is None:
            return Image.fromarray(decoded)
        return Image.fromarray(composite(decoded, _to_pixels(item.image), item.blend))

    def latent(self, item: Item) -> torch.Tensor | None:
        """Return the posterior mean of the item's image times the scaling factor; a pipeline would draw from the posterior."""
        vae = self.foundation.vae
        return None if item.image is None else vae.encode(item.image).latent_dist.mean * vae.config.scaling_factor

    def _run_components(self, item: Item) -> torch.Tensor:
        """Run text encoder, U-Net under the table, and decoder: an image (1, 3, H, W)."""
        foundation, guidance = self.foundation, self.task.guidance
        text = foundation.text_encoder(torch.tensor([item.input_ids]))[0]
        negative = foundation.text_encoder(torch.tensor([item.negative_input_ids]))[0]

        def denoise(step: int, sample: torch.Tensor) -> torch.Tensor:
            timestep = torch.tensor(self.table.timesteps[step])
            conditioned = self.unet(sample, timestep, text).sample
            if guidance == 1.0:
                return conditioned
            free = self.unet(sample, timestep, negative).sample
            return free + guidance * (conditioned - free)

        noise = item.noise(foundation, len(self.table.steps))
        latent = self.latent(item)
        final = run_table(
            self.table,
            denoise,
            latent=torch.zeros_like(noise[:1]) if latent is None else latent,
            noise=noise,
            mask=item.latent_mask(foundation.latent_size),
        )
        return foundation.vae.decode(final / foundation.vae.config.scaling_factor).sample

    def _run_pipeline(self, item: Item) -> torch.Tensor:
        """Run diffusers' pipeline for the task's kind: an image (1, 3, H, W)."""
        task, steps = self.task, self.task.sampler.steps
        kwargs = {
            "prompt": item.prompt,
            "num_inference_steps": steps,
            "guidance_scale": task.guidance,
            "generator": torch.Generator().manual_seed(item.seed),
            "output_type": "pt",
        }
        pipeline = self._pipeline()
        match task:
            case TextToImageTask():
                image = pipeline(**kwargs)
            case ImageToImageTask():
                image = pipeline(image=self.latent(item), strength=task.strength, **kwargs)
            case InpaintTask():
                latent = self.latent(item)  # a plain U-Net never sees the masked image; given here, it is not computed
                image = pipeline(
                    image=latent, mask_image=item.mask, masked_image_latents=latent, strength=task.strength, **kwargs
                )
        return image.images * 2 - 1

    def _pipeline(self) -> Any:
        """Return diffusers' pipeline for the task's kind and scheduler."""
        kind = {
            TextToImageTask: StableDiffusionPipeline,
            ImageToImageTask: StableDiffusionImg2ImgPipeline,
            InpaintTask: StableDiffusionInpaintPipeline,
        }[type(self.task)]
        scheduler, options = _SCHEDULERS[self.task.sampler.scheme]
        pipeline = kind(
            vae=self.foundation.vae,
            text_encoder=self.foundation.text_encoder,
            tokenizer=self.foundation.tokenizer,
            unet=self.unet,
            scheduler=scheduler.from_config(self.foundation.scheduler_config, **options),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def reference_for(foundation: Foundation, task: Task, table: SamplerTable, adapters: Mapping[str, AdapterSource]) -> Reference:
    """Return a reference whose adapters are loaded by PEFT or diffusers, from their own files, with the task's weights."""
    unet = with_adapters(foundation.unet, adapters, task.adapter)
    return Reference(foundation=foundation, task=task, table=table, unet=unet.eval().requires_grad_(False))


def _to_pixels(image: torch.Tensor) -> Pixels:
    """Turn an image (1, 3, H, W) in [-1, 1] into 8-bit RGB (H, W, 3), rounded as diffusers does."""
    unit = ((image[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    return (unit * 255).round().astype(np.uint8)
