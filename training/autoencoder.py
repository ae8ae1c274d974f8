"""Autoencoder: a mix of pictures -> a diffusers AutoencoderKL, 64x64x3 <-> 16x16x4, whose latents are standardised."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from training import corpus, loop, pictures

# A group's mean and deviation are lost behind its normalization, and with them much of a plain ground's colour: few, large groups
# keep more of it. After 500 steps on crops, scenes came back with 18.3 dB with 16 groups, 18.7 with 4 and 18.8 with 1.
CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
}
# Crops of 32x32 cost a quarter. In three minutes of one core held-out emoji came to 24.0 dB on crops (1697 steps), to 21.4 dB on
# whole pictures (363 steps, without COLOUR_WEIGHT). Whole ones at the end are for attention and the normalization's statistics.
PLANS = {
    "crops": loop.TrainingPlan(steps=30000, batch=8, learning_rate=1e-3, seed=0, warmup=200, last_rate=0.1),
    "whole": loop.TrainingPlan(steps=5000, batch=8, learning_rate=2e-4, seed=12, last_rate=0.0),
}
CROP_SIZES = {"crops": 32, "whole": 64}
EDGE_WEIGHT, COLOUR_WEIGHT, BLOCK = 0.5, 1.0, 8
# Noise on the latents in training, relative to their deviation, and the deviation that the encoder's posterior is given. With a
# learned one and a KL term instead, the posterior of one channel in four stayed as wide as the prior after 700 steps.
NOISE = 0.05
CHECKS = 48  # scenes and photo crops of held-out material that each checkpoint is judged by


def train(npm_folder: Path, photo_folder: Path, workbench: loop.Workbench) -> AutoencoderKL:
    """Train on the mix of pictures, with a little noise on the latents.

    The loss is L1 + L2, of gradients half of the L1, and the L1 of means over 8x8 pixels. Without the last, graded grounds came
    back with 22 dB after 677 steps, and with 34 dB but for their mean colour.
    """
    concepts, held_out = corpus.split(corpus.load_concepts(npm_folder))
    photos = [list(corpus.load_photos(photo_folder, held_out=flag).values()) for flag in (False, True)]
    scene_count, crop_count = workbench.bounded(pictures.SCENES), workbench.bounded(pictures.PHOTO_CROPS)
    mix = pictures.cached(
        workbench.folder / "pictures.pt",
        lambda: pictures.mix(workbench.few(concepts), photos[0], scene_count=scene_count, crop_count=crop_count),
    )
    checks = pictures.mix(held_out, photos[1], scene_count=CHECKS, crop_count=CHECKS)
    vae = build().to(loop.device())
    for stage, plan in PLANS.items():
        loss = _loss(vae, mix, plan.batch, CROP_SIZES[stage])
        loop.train({"vae": vae}, loss, plan, workbench.stage(stage), figures=lambda: psnr_by_kind(vae, checks))
    latents = encode(vae.eval(), mix.kinds["emoji"])
    standardise(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    return vae


def build() -> AutoencoderKL:
    """An untrained one."""
    torch.manual_seed(PLANS["crops"].seed)
    return AutoencoderKL(**CONFIG)


def _loss(vae: AutoencoderKL, mix: pictures.Mix, batch: int, size: int) -> loop.LossFunction:
    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        top, left = torch.randint(corpus.SIZE - size + 1, (2,), generator=generator).tolist()
        x = mix.draw(batch, generator)[:, :, top : top + size, left : left + size].to(loop.device())
        noise = torch.randn((len(x), 4, size // 4, size // 4), generator=generator).to(x.device)
        with loop.reduced():
            z = vae.encode(x).latent_dist.mean
            y = vae.decode(z + NOISE * z.detach().std((0, 2, 3), keepdim=True) * noise).sample.float()
        edges = sum(F.l1_loss(torch.diff(y, dim=dim), torch.diff(x, dim=dim)) for dim in (2, 3))
        colours = F.l1_loss(F.avg_pool2d(y, BLOCK), F.avg_pool2d(x, BLOCK))
        return F.l1_loss(y, x) + F.mse_loss(y, x) + EDGE_WEIGHT * edges + COLOUR_WEIGHT * colours

    return loss_of_batch


def psnr_by_kind(vae: AutoencoderKL, checks: pictures.Mix) -> loop.Figures:
    """Mean PSNR in decibels of the pictures that the autoencoder gives back, for each kind."""
    return {kind: psnr(vae, pixels) for kind, pixels in checks.kinds.items()}


def psnr(vae: AutoencoderKL, pixels: torch.Tensor) -> float:
    """The same of uint8 pictures (N, 64, 64, 3)."""
    error = decode(vae, encode(vae, pixels)).clamp(-1, 1) - pictures.to_tensor(pixels)
    return float(-10 * torch.log10(((error / 2) ** 2).mean((1, 2, 3)).clamp(min=1e-9)).mean())


def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 64, 64, 3) -> posterior means (N, 4, 16, 16) in float32."""
    return _in_batches(lambda batch: vae.encode(pictures.to_tensor(batch)).latent_dist.mean, pixels)


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """(N, 4, 16, 16) -> (N, 3, 64, 64), in [-1, 1] but for overshoots."""
    return _in_batches(lambda batch: vae.decode(batch).sample, latents)


@torch.no_grad()
def _in_batches(function: Callable[[torch.Tensor], torch.Tensor], items: torch.Tensor) -> torch.Tensor:
    """On the device where training runs, but to and from the CPU's memory."""
    return torch.cat([function(batch.to(loop.device())).cpu() for batch in items.split(64)])


def encode_images(vae: AutoencoderKL, images: list[np.ndarray]) -> torch.Tensor:
    """The same of a list of uint8 pictures (64, 64, 3)."""
    return encode(vae, torch.from_numpy(np.stack(images)))


def encode_mirrored(vae: AutoencoderKL, images: list[np.ndarray]) -> torch.Tensor:
    """(2, N, 4, 16, 16): of the pictures, and of their mirror images."""
    pixels = torch.from_numpy(np.stack(images))
    return torch.stack([encode(vae, pixels), encode(vae, pixels.flip(2))])


@torch.no_grad()
def standardise(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Fold (z - mean) / std into the 1x1 convolutions around the latents: exact, free, and the scaling factor becomes 1.

    The posterior's deviation, which no loss has trained, becomes NOISE everywhere.
    Stable Diffusion scales all channels by one number (Rombach et al. 2022, D.1); a small model profits from each channel
    being centred as well.
    """
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.weight[channels:], quant.bias[channels:] = 0.0, 2 * math.log(NOISE)
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
