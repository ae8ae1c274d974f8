"""Autoencoder: emoji and photo crops -> a diffusers AutoencoderKL, 64x64x3 <-> 16x16x4, whose latents are standardised."""

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from quadbench.zoo.training import corpus, loop

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "sample_size": 64,
}
BATCH, STEPS, LEARNING_RATE, SEED = 16, 2000, 1e-3, 0
KL_WEIGHT = 1e-6


def to_tensor(images: list[np.ndarray]) -> torch.Tensor:
    """uint8 (N, 64, 64, 3) -> float (N, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train(npm_folder: Path, photo_folder: Path, folder: Path, *, minutes: float) -> AutoencoderKL:
    """Train on both styles (three quarters of a batch) and photo crops (a quarter): L1 + L2 + gradient L1 + KL."""
    concepts, _ = corpus.split(corpus.load_concepts(npm_folder))
    emoji = [image for concept in concepts for image in concept.images.values()]
    photos = list(corpus.load_photos(photo_folder, held_out=False).values())
    torch.manual_seed(SEED)
    vae = AutoencoderKL(**CONFIG)

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        images = list(loop.pick(emoji, 3 * BATCH // 4, generator))
        images = [image if rng.random() < 0.5 else image[:, ::-1] for image in images]
        images += [corpus.crop_scene(rng.choice(photos), rng) for _ in range(BATCH // 4)]
        x = to_tensor([np.ascontiguousarray(image) for image in images])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            y = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        reconstruction = F.l1_loss(y, x) + F.mse_loss(y, x)
        edges = sum(F.l1_loss(torch.diff(y, dim=dim), torch.diff(x, dim=dim)) for dim in (2, 3))
        return reconstruction + edges + KL_WEIGHT * posterior.kl().mean()

    ema = loop.train(
        {"vae": vae}, loss_of_batch, folder=folder, steps=STEPS, learning_rate=LEARNING_RATE, seed=SEED, minutes=minutes
    )
    vae.load_state_dict(ema["vae"], strict=False)
    latents = encode(vae.eval(), emoji)
    standardise(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    return vae


@torch.no_grad()
def encode(vae: AutoencoderKL, images: list[np.ndarray]) -> torch.Tensor:
    """Posterior means (N, 4, 16, 16) in float32."""
    batches = [to_tensor(images[i : i + 64]) for i in range(0, len(images), 64)]
    return torch.cat([vae.encode(batch).latent_dist.mean for batch in batches])


def encode_mirrored(vae: AutoencoderKL, images: list[np.ndarray]) -> torch.Tensor:
    """(2, N, 4, 16, 16): of the pictures, and of their mirror images."""
    return torch.stack([encode(vae, images), encode(vae, [image[:, ::-1].copy() for image in images])])


@torch.no_grad()
def standardise(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Fold (z - mean) / std into the 1x1 convolutions around the latents: exact, free, and the scaling factor becomes 1.

    Stable Diffusion scales all channels by one number (Rombach et al. 2022, D.1); a small model profits from each channel
    being centred as well.
    """
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
