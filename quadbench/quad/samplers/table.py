"""Sampler tables: coefficients of samplers that are linear in past samples and predictions, and the loop that runs them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter

from quadbench.errors import UserError

Denoise = Callable[[int, torch.Tensor], torch.Tensor]  # (step, scaled sample) -> prediction


@dataclass(frozen=True, kw_only=True)
class Blend:
    """The weights of a sample that is a sum: `latent` times the input's latent plus `noise` times the initial noise."""

    latent: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """The coefficients of a sampler step. The next sample sums the first sample (times `x_start`), the current sample (`x`), all
    predictions so far (`eps`, even if the U-Net predicts something else than noise) and new noise (`noise`). The U-Net gets the
    current sample times `input_scale`.
    """

    input_scale: float = 1.0
    x_start: float = 0.0
    x: float = 0.0
    eps: tuple[float, ...]
    noise: float = 0.0
    known: Blend  # for inpainting: the region outside the mask after this step


@dataclass(frozen=True, kw_only=True)
class SamplerTable:
    """A sampler as data: its time steps, the weights of latent and noise in the first sample, and each step's coefficients."""

    scheme: str
    timesteps: tuple[float, ...]
    start: Blend
    steps: tuple[Step, ...]
    fit_error: float | None = None


def read_table(path: Path) -> SamplerTable:
    """Read the sampler table of a task in a bundle."""
    return TypeAdapter(SamplerTable).validate_json(path.read_bytes())


def run_table(
    table: SamplerTable,
    denoise: Denoise,
    *,
    latent: torch.Tensor,
    noise: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run the sampler on a latent (1, 4, h, w) and noise (1 + steps, 4, h, w), and return the final latent. With a mask
    (1, 1, h, w), each step restores the given latent, noised to the step's level, where the mask is 0.
    """
    x_start = x = table.start.latent * latent + table.start.noise * noise[:1]
    seen: list[torch.Tensor] = []
    for i, step in enumerate(table.steps):
        seen.append(denoise(i, step.input_scale * x))
        mixed = sum((c * eps for c, eps in zip(step.eps, seen, strict=True) if c), torch.zeros_like(x))
        x = step.x_start * x_start + step.x * x + step.noise * noise[i + 1 : i + 2] + mixed
        if mask is not None:
            x = mask * x + (1 - mask) * (step.known.latent * latent + step.known.noise * noise[:1])
    return x


def is_noise_alone(strength: float, *, is_image_to_image: bool) -> bool:
    """Return whether a run starts from pure noise, as in diffusers: text-to-image and inpainting do so at strength 1.
    Image-to-image never does. Even at strength 1, its first sample mixes the image's latent with noise.
    """
    return strength == 1.0 and not is_image_to_image


def first_sample(alpha: float, strength: float, *, is_image_to_image: bool) -> Blend:
    """Return the weights of latent and noise in a run's first sample, given the alpha-bar of the first time step."""
    if is_noise_alone(strength, is_image_to_image=is_image_to_image):
        return Blend(latent=0.0, noise=1.0)
    return Blend(latent=math.sqrt(alpha), noise=math.sqrt(1 - alpha))


def last_only(i: int, coefficient: float) -> tuple[float, ...]:
    """Return the `eps` coefficients of step i of a sampler that uses only the newest prediction: i zeros, then `coefficient`."""
    return (0.0,) * i + (coefficient,)


def executed_steps(steps: int, strength: float) -> int:
    """Return how many of `steps` sampler steps run at a strength above 0, up to 1: `steps` * `strength`, rounded down."""
    executed = min(int(steps * strength), steps)
    if executed < 1:
        raise UserError(f"strength {strength:g} leaves none of {steps} steps", hint="use more steps or a greater strength")
    return executed
