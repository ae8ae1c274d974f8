"""LCM: latent consistency sampling (Luo et al. 2023, arXiv 2310.04378), equal to diffusers' LCMScheduler."""

import math
from collections.abc import Sequence

from quadbench.quad.samplers.schedule import Schedule, lcm_timesteps
from quadbench.quad.samplers.table import Blend, SamplerTable, Step, executed_steps, first_sample, last_only

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


def lcm_table(
    schedule: Schedule,
    *,
    steps: int,
    timesteps: Sequence[float] = (),
    strength: float = 1.0,
    is_image_to_image: bool = False,
) -> SamplerTable:
    """Return the LCM table, whose steps but the last add noise. Its time steps are `timesteps`, else `steps` of distillation."""
    visited = [*timesteps] or lcm_timesteps(steps, schedule.train_steps)
    visited = visited[len(visited) - executed_steps(len(visited), strength) :]  # the latest first
    alphas = [schedule.alpha(t) for t in visited]
    table_steps = []
    for i, (t, a) in enumerate(zip(visited, alphas, strict=True)):
        scaled = TIMESTEP_SCALING * t
        c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        c_out = scaled / math.sqrt(scaled**2 + SIGMA_DATA**2)
        is_last = i == len(visited) - 1
        a_next = 1.0 if is_last else alphas[i + 1]
        x, eps = schedule.of_prediction(
            a,
            x=math.sqrt(a_next) * (c_out / math.sqrt(a) + c_skip),
            eps=-math.sqrt(a_next) * c_out * math.sqrt(1 - a) / math.sqrt(a),
        )
        table_steps.append(
            Step(
                x=x,
                eps=last_only(i, eps),
                noise=math.sqrt(1 - a_next),
                known=Blend(latent=math.sqrt(a_next), noise=math.sqrt(1 - a_next)),
            )
        )
    start = first_sample(alphas[0], strength, is_image_to_image=is_image_to_image)
    return SamplerTable(scheme="lcm", timesteps=tuple(float(t) for t in visited), start=start, steps=tuple(table_steps))
