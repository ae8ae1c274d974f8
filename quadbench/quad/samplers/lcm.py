"""LCM: latent consistency sampling (Luo et al. 2023, arXiv 2310.04378), equal to diffusers' LCMScheduler."""

import math

import numpy as np
import torch

from quadbench.quad.samplers.table import Blend, SamplerTable, Step, executed_steps, first_sample, last_only
from quadbench.recipe.tasks import LCM_STEPS

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


def lcm_table(
    alphas_cumprod: torch.Tensor, *, steps: int, strength: float = 1.0, is_image_to_image: bool = False
) -> SamplerTable:
    """Return the LCM table: time steps spread evenly over the 50 used in distillation. All steps but the last add noise."""
    grid = np.arange(1, LCM_STEPS + 1) * (len(alphas_cumprod) // LCM_STEPS) - 1
    chosen = np.floor(np.linspace(0, len(grid), num=steps, endpoint=False)).astype(int)
    timesteps = [int(t) for t in grid[::-1][chosen]][steps - executed_steps(steps, strength) :]  # the latest first
    alphas = [float(alphas_cumprod[t]) for t in timesteps]
    table_steps = []
    for i, (t, a) in enumerate(zip(timesteps, alphas, strict=True)):
        scaled = TIMESTEP_SCALING * t
        c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        c_out = scaled / math.sqrt(scaled**2 + SIGMA_DATA**2)
        is_last = i == len(timesteps) - 1
        a_next = 1.0 if is_last else alphas[i + 1]
        table_steps.append(
            Step(
                x=math.sqrt(a_next) * (c_out / math.sqrt(a) + c_skip),
                eps=last_only(i, -math.sqrt(a_next) * c_out * math.sqrt(1 - a) / math.sqrt(a)),
                noise=math.sqrt(1 - a_next),
                known=Blend(latent=math.sqrt(a_next), noise=math.sqrt(1 - a_next)),
            )
        )
    start = first_sample(alphas[0], strength, is_image_to_image=is_image_to_image)
    return SamplerTable(scheme="lcm", timesteps=tuple(float(t) for t in timesteps), start=start, steps=tuple(table_steps))
