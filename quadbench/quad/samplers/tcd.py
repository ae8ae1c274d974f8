"""TCD: trajectory consistency sampling (Zheng et al. 2024, arXiv 2402.19159), equal to diffusers' TCDScheduler."""

import math
from collections.abc import Sequence

import numpy as np

from quadbench.quad.samplers.schedule import Schedule, lcm_timesteps
from quadbench.quad.samplers.table import Blend, SamplerTable, Step, executed_steps, first_sample, last_only


def tcd_table(
    schedule: Schedule,
    *,
    steps: int,
    eta: float,
    timesteps: Sequence[float] = (),
    strength: float = 1.0,
    is_image_to_image: bool = False,
) -> SamplerTable:
    """Return the TCD table. Each step goes to a time s, (1 - `eta`) times that of the next step, and adds noise up to that one.
    Its time steps are `timesteps`, else `steps` of those that consistency models are trained on.
    """
    visited = [round(t) for t in timesteps or lcm_timesteps(steps, schedule.train_steps)]
    visited = visited[len(visited) - executed_steps(len(visited), strength) :]
    alphas = [schedule.alpha(t) for t in visited]
    table_steps = []
    for i, a in enumerate(alphas):
        is_last = i == len(visited) - 1
        after = 0 if is_last else visited[i + 1]
        a_s = schedule.alphas[int(np.float32(1 - eta) * np.float32(after))]  # diffusers computes s in float32
        left = 1.0 if is_last or eta == 0 else schedule.alphas[after] / a_s  # of the energy, beside new noise
        x, eps = schedule.of_prediction(
            a,
            x=math.sqrt(left * a_s / a),
            eps=math.sqrt(left) * (math.sqrt(1 - a_s) - math.sqrt(a_s / a) * math.sqrt(1 - a)),
        )
        kept = 1.0 if is_last else alphas[i + 1]
        known = Blend(latent=math.sqrt(kept), noise=math.sqrt(1 - kept))
        table_steps.append(Step(x=x, eps=last_only(i, eps), noise=math.sqrt(1 - left), known=known))
    start = first_sample(alphas[0], strength, is_image_to_image=is_image_to_image)
    return SamplerTable(scheme="tcd", timesteps=tuple(map(float, visited)), start=start, steps=tuple(table_steps))
