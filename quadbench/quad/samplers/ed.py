"""ED: Euler sampling (Karras et al. 2022, arXiv 2206.00364, alg. 2 without churn), as in diffusers' EulerDiscreteScheduler."""

import math

import numpy as np
import torch

from quadbench.quad.samplers.table import STEPS_OFFSET, Blend, SamplerTable, Step, executed_steps, is_noise_alone, last_only


def ed_table(
    alphas_cumprod: torch.Tensor,
    *,
    steps: int,
    strength: float = 1.0,
    is_image_to_image: bool = False,
) -> SamplerTable:
    """Return the Euler sampler's table with `leading` time steps, as in Stable Diffusion. Samples are x_0 + sigma * noise."""
    all_sigmas = torch.sqrt((1 - alphas_cumprod) / alphas_cumprod).numpy()
    spacing = len(alphas_cumprod) // steps
    timesteps = (np.arange(steps) * spacing).round()[::-1].astype(np.float64) + STEPS_OFFSET
    timesteps = timesteps[steps - executed_steps(steps, strength) :]
    sigmas = [*(float(s) for s in np.interp(timesteps, np.arange(len(all_sigmas)), all_sigmas)), 0.0]
    table_steps = tuple(
        Step(
            input_scale=1 / math.sqrt(sigmas[i] ** 2 + 1),
            x=1.0,
            eps=last_only(i, sigmas[i + 1] - sigmas[i]),
            known=Blend(latent=1.0, noise=sigmas[i + 1]),
        )
        for i in range(len(timesteps))
    )
    start = Blend(latent=1.0, noise=sigmas[0])
    if is_noise_alone(strength, is_image_to_image=is_image_to_image):
        start = Blend(latent=0.0, noise=math.sqrt(sigmas[0] ** 2 + 1))  # diffusers' init_noise_sigma for `leading` time steps
    return SamplerTable(scheme="ed", timesteps=tuple(float(t) for t in timesteps), start=start, steps=table_steps)
