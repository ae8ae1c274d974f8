"""DDIM with eta 0 (Song et al. 2020, arXiv 2010.02502, eq. 12), equal to diffusers' DDIMScheduler; the teacher of OLSS."""

import math

from quadbench.quad.samplers.ed import flow_table
from quadbench.quad.samplers.schedule import Schedule, spaced_timesteps
from quadbench.quad.samplers.table import Blend, SamplerTable, Step, executed_steps, first_sample, last_only
from quadbench.recipe.tasks import TEACHER_STEPS, Spacing


def ddim_table(
    schedule: Schedule,
    *,
    steps: int = TEACHER_STEPS,
    spacing: Spacing | None = None,
    strength: float = 1.0,
    is_image_to_image: bool = False,
) -> SamplerTable:
    """Return DDIM's table of `steps` time steps with `spacing`, else with the model's own spacing. Like diffusers, a step ends
    `train_steps // steps` before its start, which with `linspace` is not quite the start of the next.
    """
    span = schedule.train_steps // steps
    visited = [round(t) for t in spaced_timesteps(steps, spacing or schedule.spacing, schedule.train_steps)]
    visited = visited[steps - executed_steps(steps, strength) :]
    alphas = [schedule.alpha(t) for t in visited]
    final = schedule.alphas[0] if schedule.final_alpha is None else schedule.final_alpha
    table_steps = []
    for i, (t, a) in enumerate(zip(visited, alphas, strict=True)):
        a_next = schedule.alphas[t - span] if t >= span else final
        kept = alphas[i + 1] if i < len(visited) - 1 else 1.0  # the signal's energy; no noise is left after the last step
        x, eps = schedule.of_prediction(
            a, x=math.sqrt(a_next / a), eps=math.sqrt(1 - a_next) - math.sqrt(a_next / a) * math.sqrt(1 - a)
        )
        known = Blend(latent=math.sqrt(kept), noise=math.sqrt(1 - kept))
        table_steps.append(Step(x=x, eps=last_only(i, eps), known=known))
    start = first_sample(alphas[0], strength, is_image_to_image=is_image_to_image)
    return SamplerTable(scheme="ddim", timesteps=tuple(map(float, visited)), start=start, steps=tuple(table_steps))


def teacher_table(
    schedule: Schedule, *, spacing: Spacing | None = None, strength: float = 1.0, is_image_to_image: bool = False
) -> SamplerTable:
    """Return the table of 100 steps that OLSS is fitted to: DDIM's, or Euler's for a model of flow matching."""
    if schedule.prediction == "flow_prediction":
        return flow_table(schedule, steps=TEACHER_STEPS, strength=strength, is_image_to_image=is_image_to_image)
    return ddim_table(schedule, spacing=spacing, strength=strength, is_image_to_image=is_image_to_image)
