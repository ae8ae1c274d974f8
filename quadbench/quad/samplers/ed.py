"""ED: Euler sampling (Karras et al. 2022, arXiv 2206.00364, alg. 2 without churn), as in diffusers' EulerDiscreteScheduler and,
for models of flow matching, FlowMatchEulerDiscreteScheduler.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from quadbench.quad.samplers.schedule import Schedule, spaced_timesteps
from quadbench.quad.samplers.table import Blend, SamplerTable, Step, executed_steps, is_noise_alone, last_only
from quadbench.recipe.tasks import Spacing

_LEAST_ALPHA = 2.0**-24  # diffusers' in place of 0, as noise levels of Euler sampling are finite


def ed_table(
    schedule: Schedule,
    *,
    steps: int,
    spacing: Spacing | None = None,
    timesteps: Sequence[float] = (),
    strength: float = 1.0,
    is_image_to_image: bool = False,
) -> SamplerTable:
    """Return the Euler sampler's table. Samples are x_0 + sigma * noise. Its time steps are `timesteps`, else `steps` with
    `spacing`, else `steps` with the model's own spacing.
    """
    if schedule.prediction == "flow_prediction":
        return flow_table(schedule, steps=steps, strength=strength, is_image_to_image=is_image_to_image)
    spacing = spacing or schedule.spacing
    visited = [*timesteps] or spaced_timesteps(steps, spacing, schedule.train_steps)
    visited = visited[len(visited) - executed_steps(len(visited), strength) :]
    schedule.alpha(visited[0])  # refuses a start without signal
    alphas = torch.tensor(schedule.alphas, dtype=torch.float64)
    alphas[alphas == 0] = _LEAST_ALPHA
    all_sigmas = torch.sqrt((1 - alphas) / alphas).numpy()
    sigmas = [*np.interp(visited, np.arange(len(all_sigmas)), all_sigmas).tolist(), 0.0]
    table_steps = []
    for i, sigma in enumerate(sigmas[:-1]):
        input_scale = 1 / math.sqrt(sigma**2 + 1)
        x, eps = schedule.of_prediction(1 / (sigma**2 + 1), x=1.0, eps=sigmas[i + 1] - sigma, input_scale=input_scale)
        known = Blend(latent=1.0, noise=sigmas[i + 1])
        table_steps.append(Step(input_scale=input_scale, x=x, eps=last_only(i, eps), known=known))
    start = Blend(latent=1.0, noise=sigmas[0])
    if is_noise_alone(strength, is_image_to_image=is_image_to_image):  # diffusers' init_noise_sigma
        start = Blend(latent=0.0, noise=math.sqrt(sigmas[0] ** 2 + 1) if spacing == "leading" else sigmas[0])
    return SamplerTable(scheme="ed", timesteps=tuple(map(float, visited)), start=start, steps=tuple(table_steps))


def flow_table(schedule: Schedule, *, steps: int, strength: float = 1.0, is_image_to_image: bool = False) -> SamplerTable:
    """Return the Euler table of a model of flow matching, whose samples are (1 - s) x_0 + s noise and whose predictions are
    noise - x_0. Like diffusers, shift the ends of the noise levels s once and all of them again.
    """
    shift, count = schedule.shift, schedule.train_steps

    def shifted(s: float) -> float:
        return shift * s / (1 + (shift - 1) * s)

    levels = [shifted(float(s)) for s in np.linspace(1.0, shifted(1 / count), steps)]
    levels = [*levels[steps - executed_steps(steps, strength) :], 0.0]
    table_steps = tuple(
        Step(x=1.0, eps=last_only(i, after - s), known=Blend(latent=1 - after, noise=after))
        for i, (s, after) in enumerate(pairwise(levels))
    )
    start = Blend(latent=1 - levels[0], noise=levels[0])
    if is_noise_alone(strength, is_image_to_image=is_image_to_image):
        start = Blend(latent=0.0, noise=1.0)
    timesteps = tuple(float(np.float32(s * count)) for s in levels[:-1])
    return SamplerTable(scheme="ed", timesteps=timesteps, start=start, steps=table_steps)
