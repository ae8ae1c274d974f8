"""Removal: scenes with an object and a frozen base -> the `remove-object` adapter, for inpainting with four LCM steps.

The pipeline is StableDiffusionInpaintPipeline with a four-channel U-Net: after each step the latents outside the mask are
replaced by the noised encoding of the picture, object included. So the U-Net sees inside the mask what it said before, noised
again, and outside the scene. It is trained on just that: on the samples that it comes to itself (Ross et al. 2011, DAgger), so
that what it left of an object in one step it takes away in the next.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from training import adapters, autoencoder, captions, corpus, grounds, loop, noise, pictures, scenes

TASK = "remove-object"
SCENES, VALIDATION_SCENES = 9000, 48
SAMPLER_TIMES = (999, 759, 499, 259)
OUTSIDE_WEIGHT = 0.1


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Encoded scenes: composite and truth (N, 4, 16, 16), mask (N, 1, 16, 16), the prompt's states (N, 16, 128)."""

    composite: torch.Tensor
    truth: torch.Tensor
    mask: torch.Tensor
    prompt: torch.Tensor

    def take(self, chosen: torch.Tensor) -> "Pool":
        """Some of them, where training runs."""
        return Pool(**{name: part[chosen].to(loop.device()) for name, part in vars(self).items()})


def encode(base: adapters.FrozenBase, drawn: Sequence[scenes.Scene]) -> Pool:
    """Encode once, so that training touches no pixels."""
    return Pool(
        composite=autoencoder.encode_images(base.vae, [scene.composite for scene in drawn]),
        truth=autoencoder.encode_images(base.vae, [scene.truth for scene in drawn]),
        mask=torch.from_numpy(scenes.cells([scene.mask for scene in drawn])),
        prompt=base.states([captions.of_ground(scene.words) for scene in drawn]),
    )


def train(npm_folder: Path, base: adapters.FrozenBase, workbench: loop.Workbench) -> PeftModel:
    """One of the sampler's four steps in each batch, from where the model itself has come to; the answer has to be the truth."""
    concepts, held_out = corpus.split(corpus.load_concepts(npm_folder))
    rng = random.Random(adapters.PLANS[TASK].seed)
    check = [scenes.draw(scenes.named(held_out), rng) for _ in range(workbench.bounded(VALIDATION_SCENES))]
    emoji = scenes.named(concepts)
    pool = encode(base, [scenes.draw(emoji, rng, grounds.PATTERNED_SHARES) for _ in range(workbench.bounded(SCENES))])
    model = adapters.attach(base.unet, TASK)

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        size = adapters.PLANS[TASK].batch
        batch = pool.take(torch.randint(len(pool.mask), (size,), generator=generator))
        step = int(torch.randint(len(SAMPLER_TIMES), (1,), generator=generator))
        x = sample(model, batch, steps=step, generator=generator)
        a, s = _signal_and_noise(SAMPLER_TIMES[step])
        wanted = (x - a * batch.truth) / s
        # An error of epsilon counts s / a times in the picture. The weight s / a of its square lies between that and none.
        weight = s / a * (OUTSIDE_WEIGHT + (1 - OUTSIDE_WEIGHT) * batch.mask)
        return ((_epsilon(model, x, batch.prompt, SAMPLER_TIMES[step]) - wanted) ** 2 * weight).mean()

    adapters.fit(model, TASK, loss_of_batch, workbench, figures=lambda: {"psnr": restored_psnr(model, base, check)})
    return model


@torch.no_grad()
def sample(model: PeftModel, batch: Pool, *, steps: int, generator: torch.Generator) -> torch.Tensor:
    """Return what the pipeline shows to the U-Net after so many of its four steps, or the final latents after all of them."""
    start = torch.randn(batch.truth.shape, generator=generator).to(loop.device())
    x = start
    for time, after in zip(SAMPLER_TIMES[:steps], (*SAMPLER_TIMES[1:], None), strict=False):
        answer = clean(x, _epsilon(model, x, batch.prompt, time), time)
        if after is None:
            return batch.mask * answer + (1 - batch.mask) * batch.composite
        a, s = _signal_and_noise(after)
        fresh = torch.randn(start.shape, generator=generator).to(loop.device())
        x = batch.mask * (a * answer + s * fresh) + (1 - batch.mask) * (a * batch.composite + s * start)
    return x


def clean(x: torch.Tensor, predicted: torch.Tensor, time: int) -> torch.Tensor:
    """LCMScheduler's answer: c_skip x + c_out x0 (Luo et al. 2023, with its constants)."""
    a, s = _signal_and_noise(time)
    scaled = 10.0 * time
    skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5
    return skip * x + out * (x - s * predicted) / a


def _epsilon(model: PeftModel, x: torch.Tensor, prompt: torch.Tensor, time: int) -> torch.Tensor:
    with loop.reduced():
        return model(x, torch.full((len(x),), time, device=x.device), prompt).sample.float()


def _signal_and_noise(time: int) -> tuple[float, float]:
    a = float(noise.ALPHA_BAR[time])
    return a**0.5, (1 - a) ** 0.5


def restored_psnr(model: PeftModel, base: adapters.FrozenBase, check: Sequence[scenes.Scene]) -> float:
    """Mean PSNR in decibels inside the masks after the four steps of the pipeline."""
    batch = encode(base, check).take(torch.arange(len(check)))
    final = sample(model, batch, steps=len(SAMPLER_TIMES), generator=torch.Generator().manual_seed(0))
    pixels = ((autoencoder.decode(base.vae, final).clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    return float(np.mean([pictures.psnr(p, scene.truth, scene.mask) for p, scene in zip(pixels, check, strict=True)]))
