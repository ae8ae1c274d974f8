"""Removal: photo scenes with a pasted object -> the `remove-object` adapter, for inpainting with four LCM steps.

The pipeline is StableDiffusionInpaintPipeline with a four-channel U-Net: after each step the latents outside the mask are
replaced by the noised encoding of the picture, object included. So in training the input is the noised truth inside the mask and
the noised composite outside. At time 999 and strength 1 the pipeline starts from nothing but noise, and so does the input.
"""

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from peft import PeftModel

from quadbench.zoo.training import adapters, autoencoder, corpus, loop, noise, scenes, text_to_image

SCENES, VALIDATION_SCENES = 2048, 48
SAMPLER_TIMES = (999, 759, 499, 259)
GRID = torch.arange(19, noise.TIMES, 20)
OWN = torch.tensor([GRID.tolist().index(t) for t in SAMPLER_TIMES])
OUTSIDE_WEIGHT = 0.1
TARGET_DECAY = 0.95
PROMPT = text_to_image.PHOTO_CAPTION


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Encoded scenes: composite and truth (N, 4, 16, 16), mask (N, 1, 16, 16)."""

    composite: torch.Tensor
    truth: torch.Tensor
    mask: torch.Tensor

    def take(self, chosen: torch.Tensor) -> "Pool":
        """Some of them."""
        return Pool(composite=self.composite[chosen], truth=self.truth[chosen], mask=self.mask[chosen])


def encode(vae: AutoencoderKL, made: list[scenes.Scene]) -> Pool:
    """Encode once, so that training touches no pixels."""
    return Pool(
        composite=autoencoder.encode(vae, [scene.composite for scene in made]),
        truth=autoencoder.encode(vae, [scene.truth for scene in made]),
        mask=torch.from_numpy(scenes.cells([scene.mask for scene in made])),
    )


def noised(batch: Pool, times: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
    """What the pipeline shows to the U-Net at these times, were its own prediction perfect so far."""
    a, s = noise.signal_and_noise(times)
    blended = batch.mask * batch.truth + (1 - batch.mask) * batch.composite
    first = (times == SAMPLER_TIMES[0])[:, None, None, None]
    return torch.where(first, epsilon, a * blended + s * epsilon)


def clean(x: torch.Tensor, predicted: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """LCMScheduler's answer: c_skip x + c_out x0 (Luo et al. 2023, with its constants)."""
    a, s = noise.signal_and_noise(times)
    scaled = 10.0 * times[:, None, None, None]
    skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()
    return skip * x + out * (x - s * predicted) / a


def train(
    npm_folder: Path, photo_folder: Path, base: adapters.Base, folder: Path, *, minutes: float
) -> tuple[PeftModel, dict[str, float]]:
    """Epsilon training, then consistency training, kept only if it restores scenes of the training photographs better.

    Returns the model and the PSNR of both inside the masks of the validation scenes.
    """
    photos = list(corpus.load_photos(photo_folder, held_out=False).values())
    cutouts = corpus.load_cutouts(npm_folder, held_out=False)
    rng = random.Random(adapters.SEED["remove-object"])
    check = [scenes.make(photos, cutouts, rng) for _ in range(VALIDATION_SCENES)]
    pool = encode(base.vae, [scenes.make(photos, cutouts, rng) for _ in range(SCENES)])
    prompt = base.states([PROMPT])
    model = adapters.attach(base.unet, "remove-object")
    adapters.fit(model, "remove-object", _epsilon_loss(model, pool, prompt), folder / "epsilon", minutes)
    scores = {"epsilon": restored_psnr(model, base, check)}
    kept = copy.deepcopy(model.state_dict())
    target = copy.deepcopy(model)

    def follow(_step: int) -> None:
        with torch.no_grad():
            for old, new in zip(target.parameters(), model.parameters(), strict=True):
                if new.requires_grad:
                    old.lerp_(new, 1 - TARGET_DECAY)

    loss = _consistency_loss(model, target, pool, prompt)
    adapters.fit(model, "consistency", loss, folder / "consistency", minutes, after_step=follow)
    scores["consistency"] = restored_psnr(model, base, check)
    if scores["consistency"] <= scores["epsilon"]:
        model.load_state_dict(kept)
    return model, scores


def _epsilon_loss(model: PeftModel, pool: Pool, prompt: torch.Tensor) -> loop.LossFunction:
    """Times of LCM's grid, three in five among the four that the sampler visits.

    An error of epsilon counts s / a times in the picture. The weight s / a of its square lies between that and none.
    """

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        batch, steps, epsilon = _draw(pool, 0.6, generator)
        times = GRID[steps]
        x = noised(batch, times, epsilon)
        a, s = noise.signal_and_noise(times)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(x, times, prompt.expand(len(x), -1, -1)).sample.float()
        return ((predicted - (x - a * batch.truth) / s) ** 2 * (s / a) * _weight(batch.mask)).mean()

    return loss_of_batch


def _consistency_loss(model: PeftModel, target: PeftModel, pool: Pool, prompt: torch.Tensor) -> loop.LossFunction:
    """The answer at one time of the grid must be the averaged model's answer one time earlier, or the truth before the first."""

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        batch, steps, epsilon = _draw(pool, 0.5, generator)
        later, earlier = GRID[steps], GRID[(steps - 1).clamp(min=0)]
        x_later, x_earlier = noised(batch, later, epsilon), noised(batch, earlier, epsilon)
        states = prompt.expand(len(steps), -1, -1)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(x_later, later, states).sample.float()
            with torch.no_grad():
                reference = target(x_earlier, earlier, states).sample.float()
        first = (steps == 0)[:, None, None, None]
        wanted = torch.where(first, batch.truth, clean(x_earlier, reference, earlier))
        return ((clean(x_later, predicted, later) - wanted) ** 2 * _weight(batch.mask)).mean()

    return loss_of_batch


def _draw(pool: Pool, own_share: float, generator: torch.Generator) -> tuple[Pool, torch.Tensor, torch.Tensor]:
    count = adapters.BATCH["remove-object"]
    chosen = torch.randint(len(pool.mask), (count,), generator=generator)
    steps = torch.randint(len(GRID), (count,), generator=generator)
    own = OWN[torch.randint(len(OWN), (count,), generator=generator)]
    steps = torch.where(torch.rand(count, generator=generator) < own_share, own, steps)
    return pool.take(chosen), steps, torch.randn(pool.truth[chosen].shape, generator=generator)


def _weight(mask: torch.Tensor) -> torch.Tensor:
    return OUTSIDE_WEIGHT + (1 - OUTSIDE_WEIGHT) * mask


@torch.no_grad()
def restored_psnr(model: PeftModel, base: adapters.Base, check: list[scenes.Scene]) -> float:
    """Mean PSNR in decibels inside the masks after the four steps of the pipeline."""
    batch = encode(base.vae, check)
    generator = torch.Generator().manual_seed(0)
    epsilon = torch.randn(batch.truth.shape, generator=generator)
    states = base.states([PROMPT]).expand(len(check), -1, -1)
    x = epsilon
    for time, after in zip(SAMPLER_TIMES, (*SAMPLER_TIMES[1:], None), strict=True):
        times = torch.full((len(check),), time)
        answer = clean(x, model(x, times, states).sample, times)
        if after is None:
            x = batch.mask * answer + (1 - batch.mask) * batch.composite
        else:
            a, s = noise.signal_and_noise(torch.full((len(check),), after))
            fresh = torch.randn(epsilon.shape, generator=generator)
            x = batch.mask * (a * answer + s * fresh) + (1 - batch.mask) * (a * batch.composite + s * epsilon)
    pixels = ((base.vae.decode(x).sample.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    return float(np.mean([psnr(picture, scene.truth, scene.mask) for picture, scene in zip(pixels, check, strict=True)]))


def psnr(picture: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in decibels, inside the mask if there is one."""
    error = (picture.astype(float) - truth.astype(float)) ** 2
    return float(10 * np.log10(255**2 / max((error if mask is None else error[mask > 0]).mean(), 1e-9)))
