"""Foundation: a diffusers folder -> its modules in float32, ready to be traced."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from quadbench.errors import UserError

log = logging.getLogger(__name__)
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """A latent diffusion model in the shape of Stable Diffusion 1.x, in evaluation mode and without gradients."""

    folder: Path
    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: CLIPTokenizer
    alphas_cumprod: torch.Tensor  # (1000,) float64
    scheduler_config: dict[str, object]
    image_size: int
    latent_channels: int
    latent_size: int

    def tokenize(self, prompt: str) -> tuple[int, ...]:
        """Token ids, padded or cut to the text encoder's length T."""
        encoded = self.tokenizer(prompt, padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length)
        return tuple(int(i) for i in encoded["input_ids"])


def load_foundation(folder: Path) -> Foundation:
    """Read a diffusers folder; weights are safetensors, pickles are not opened.

    Raises:
        UserError: the folder lacks a part, or the U-Net is of a kind that the graph does not take.
    """
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"foundation model '{folder}' lacks {', '.join(missing)}; expected a Stable Diffusion 1.x folder",
            hint="save it with diffusers: StableDiffusionPipeline.save_pretrained(folder, safe_serialization=True)",
        )
    load = {"torch_dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    try:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", **load)
        vae = AutoencoderKL.from_pretrained(folder / "vae", **load)
        text_encoder = CLIPTextModel.from_pretrained(
            folder / "text_encoder", dtype=torch.float32, use_safetensors=True, local_files_only=True, attn_implementation="eager"
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    except (OSError, ValueError) as error:
        raise UserError(f"foundation model '{folder}' cannot be read: {error}") from error
    _check(folder, unet, scheduler)
    for module in (unet, vae, text_encoder):
        module.eval().requires_grad_(False)
    return Foundation(
        folder=folder,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        alphas_cumprod=scheduler.alphas_cumprod.double(),
        scheduler_config=dict(scheduler.config),
        image_size=unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1),
        latent_channels=unet.config.in_channels,
        latent_size=unet.config.sample_size,
    )


def _check(folder: Path, unet: nn.Module, scheduler: DDIMScheduler) -> None:
    if scheduler.config.prediction_type != "epsilon":
        found = scheduler.config.prediction_type
        raise UserError(f"foundation model '{folder}' predicts '{found}'; the sampler tables take 'epsilon'")
    if unet.config.in_channels != unet.config.out_channels:
        shape = f"{unet.config.in_channels} input and {unet.config.out_channels} output channels"
        raise UserError(
            f"the U-Net of '{folder}' has {shape}; expected as many of either",
            hint="inpainting works by blending latents, so a plain text-to-image U-Net serves it",
        )
    if unet.config.addition_embed_type or unet.config.class_embed_type or unet.config.time_cond_proj_dim:
        raise UserError(f"the U-Net of '{folder}' takes conditions besides text and time, which the graph has no inputs for")


def time_features(foundation: Foundation, timesteps: list[float]) -> torch.Tensor:
    """The U-Net's own sinusoids of the time steps, (steps, C) float32."""
    return foundation.unet.time_proj(torch.tensor(timesteps, dtype=torch.float32)).float()
