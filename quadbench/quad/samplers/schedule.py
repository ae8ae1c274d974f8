"""Schedule: a model's noise levels, what its U-Net predicts, and the time steps of samplers. This module does not import torch.

A scheduler configuration says all of it. Samplers' tables follow diffusers' schedulers to the step, with their differences.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np

from quadbench.errors import UserError, quote
from quadbench.recipe.tasks import (
    LCM_STEPS,
    TEACHER_STEPS,
    DdimSampler,
    EdSampler,
    LcmSampler,
    OlssSampler,
    Prediction,
    Sampler,
    Spacing,
    TcdSampler,
)

STEPS_OFFSET = 1  # of `leading` time steps: diffusers' Stable Diffusion pipelines set it, whatever a configuration says
_LEAST_ALPHA = 2.0**-48  # in place of 0: in float32 the sample is the same, and formulas that divide by it stay finite
_TRAIN_STEPS = (100, 100_000)
_BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas")
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_FLOW_KEYS = ("use_dynamic_shifting", "shift_terminal", "invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas")
# The spacing of diffusers' schedulers if a configuration names none.
DEFAULT_SPACING: Mapping[str, Spacing] = {
    **dict.fromkeys(("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"), "leading"),
    **dict.fromkeys(("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"), "linspace"),
    **dict.fromkeys(("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"), "linspace"),
    **dict.fromkeys(("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler"), "linspace"),
    **dict.fromkeys(("UniPCMultistepScheduler", "DEISMultistepScheduler"), "linspace"),
}
NO_SIGNAL = (
    "the first time step has no signal (zero terminal SNR), from which a U-Net that predicts epsilon cannot tell the image; "
    "expected a model that predicts v_prediction or sample"
)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """A model's scheduler configuration, as far as samplers need it. `betas` are diffusers' arguments."""

    prediction: Prediction
    spacing: Spacing
    zero_terminal_snr: bool
    set_alpha_to_one: bool
    train_steps: int
    shift: float  # of the noise levels of flow matching; 1 is none
    betas: Mapping[str, Any]

    @property
    def is_flow(self) -> bool:
        """Return whether the model was trained by flow matching: its samples are (1 - s) image + s noise."""
        return self.prediction == "flow_prediction"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments with which diffusers' schedulers, except that of flow matching, follow this configuration."""
        return {
            **self.betas,
            "num_train_timesteps": self.train_steps,
            "prediction_type": self.prediction,
            "timestep_spacing": self.spacing,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "steps_offset": STEPS_OFFSET,
        }

    def words(self) -> str:
        """Return the configuration in a few words, such as `predicts v_prediction, trailing time steps`."""
        spacing = f"flow matching with shift {self.shift:g}" if self.is_flow else f"{self.spacing} time steps"
        return f"predicts {self.prediction}, {spacing}" + (", zero terminal SNR" if self.zero_terminal_snr else "")


def scheduler_config(name: Path | str, config: Mapping[str, Any], stated: Mapping[str, Any]) -> SchedulerConfig:
    """Return a SchedulerConfig from the content of scheduler_config.json. The recipe's values `stated` replace its own. Raise
    UserError for schedulers, predictions and values that no sampler follows; `name` is the foundation model in messages.
    """
    config = {**config, **stated}
    kind = config.get("_class_name", "DDIMScheduler")
    if kind not in (*DEFAULT_SPACING, FLOW_SCHEDULER):
        expected = ", ".join((*DEFAULT_SPACING, FLOW_SCHEDULER))
        raise UserError(f"foundation model '{name}' has the scheduler {quote(str(kind))}; expected one of {expected}")
    default = "flow_prediction" if kind == FLOW_SCHEDULER else "epsilon"
    prediction = _choice(name, "prediction_type", config.get("prediction_type", default), get_args(Prediction))
    if kind == FLOW_SCHEDULER and prediction != default:
        raise UserError(f"foundation model '{name}' has a {FLOW_SCHEDULER}, but predicts '{prediction}'; expected '{default}'")
    own = DEFAULT_SPACING.get(kind, "linspace")
    is_flow = prediction == "flow_prediction"
    if is_flow and (others := [key for key in _FLOW_KEYS if config.get(key)]):
        raise UserError(f"foundation model '{name}' has {others[0]} in its scheduler; quadbench takes a fixed shift alone")
    train_steps = config.get("num_train_timesteps", 1000)
    shift = config.get("shift", config.get("flow_shift", 1.0)) if is_flow else 1.0
    least, most = _TRAIN_STEPS
    if not isinstance(train_steps, int) or not least <= train_steps <= most:
        raise UserError(f"foundation model '{name}' has {quote(str(train_steps))} training steps; expected {least} to {most}")
    if not isinstance(shift, int | float) or not 0.01 <= shift <= 100:
        raise UserError(f"foundation model '{name}' has the shift {quote(str(shift))}; expected 0.01 to 100")
    return SchedulerConfig(
        prediction=prediction,
        spacing=_choice(name, "timestep_spacing", config.get("timestep_spacing", own), get_args(Spacing)),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr")),
        set_alpha_to_one=bool(config.get("set_alpha_to_one")),
        train_steps=train_steps,
        shift=float(shift),
        betas={key: config[key] for key in _BETAS if key in config},
    )


def _choice(name: Path | str, key: str, value: object, taken: Sequence[Any]) -> Any:
    if value not in taken:
        values = " or ".join(f"'{each}'" for each in taken)
        raise UserError(f"foundation model '{name}' has {key} {quote(str(value))} in its scheduler; expected {values}")
    return value


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A model's noise schedule. `alphas` is the share of the image's energy in a sample, by time step of training: decreasing, in
    (0, 1], or 0 for the last (zero terminal SNR). It is empty for flow matching. Raises ValueError for other alphas.
    """

    alphas: tuple[float, ...] = field(repr=False)
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    final_alpha: float | None = None  # after DDIM's last step; None: the first of `alphas`
    shift: float = 1.0
    train_steps: int = 1000

    def __post_init__(self) -> None:
        count = 0 if self.prediction == "flow_prediction" else self.train_steps
        is_falling = all(0 <= b <= a <= 1 for a, b in pairwise(self.alphas)) and all(a > 0 for a in self.alphas[:-1])
        if not is_falling or len(self.alphas) != count:
            raise ValueError(f"{len(self.alphas)} noise levels are not {self.train_steps} falling ones between 1 and 0")

    def alpha(self, timestep: float) -> float:
        """Return the share of the image's energy at a time step, above 0. Raise UserError if the prediction needs more."""
        alpha = self.alphas[round(timestep)]
        if alpha == 0 and self.prediction == "epsilon":
            raise UserError(NO_SIGNAL)
        return max(alpha, _LEAST_ALPHA)

    def noised(self, timestep: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return two pairs of weights, of an image's latent and of noise: their sums are the noisy sample at a time step, and
        what the U-Net shall predict for it.
        """
        if self.prediction == "flow_prediction":
            s = timestep / self.train_steps
            return (1 - s, s), (-1.0, 1.0)
        alpha = self.alpha(timestep)
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        target = {"epsilon": (0.0, 1.0), "v_prediction": (-noise, signal), "sample": (1.0, 0.0)}
        return (signal, noise), target[self.prediction]

    def of_prediction(self, alpha: float, *, x: float, eps: float, input_scale: float = 1.0) -> tuple[float, float]:
        """Return a step's weights of the sample and of the U-Net's output, given those of the sample and of the noise in it.

        `alpha` belongs to the step's time, `input_scale` times the sample is what the U-Net gets.
        """
        signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
        match self.prediction:
            case "v_prediction":  # eps = noise * x + signal * v
                return x + eps * noise * input_scale, eps * signal
            case "sample":  # eps = (x - signal * x0) / noise
                return x + eps / noise * input_scale, -eps * signal / noise
            case _:
                return x, eps


def spaced_timesteps(steps: int, spacing: Spacing, train_steps: int = 1000) -> list[float]:
    """Return a sampler's time steps, the noisiest first, as diffusers' EulerDiscreteScheduler does; DDIM rounds them. Raise
    UserError where diffusers' rounding errors give another number of steps.
    """
    match spacing:
        case "leading":
            return [float(i * (train_steps // steps) + STEPS_OFFSET) for i in reversed(range(steps))]
        case "trailing":
            visited = [float(t) - 1 for t in np.round(np.arange(train_steps, 0, -train_steps / steps))]
            if len(visited) != steps:
                raise UserError(
                    f"diffusers takes {len(visited)} trailing time steps for {steps}; expected another number of steps"
                )
            return visited
        case "linspace":
            return [float(t) for t in np.linspace(0, train_steps - 1, steps, dtype=np.float32)[::-1]]


def lcm_timesteps(steps: int, train_steps: int = 1000) -> list[float]:
    """Return `steps` time steps spread evenly over the 50 used in consistency distillation, the noisiest first."""
    grid = np.arange(1, LCM_STEPS + 1) * (train_steps // LCM_STEPS) - 1
    return [float(t) for t in grid[::-1][np.floor(np.linspace(0, len(grid), num=steps, endpoint=False)).astype(int)]]


def sampler_fault(config: SchedulerConfig, sampler: Sampler, strength: float) -> str | None:
    """Return why a sampler cannot run with a model's schedule, or None if it can. `strength` is 1 for text-to-image tasks."""
    if config.is_flow:
        if isinstance(sampler, LcmSampler | DdimSampler | TcdSampler):
            return f"'{sampler.scheme}' follows alphas, which a model of flow matching does not have; expected ed or olss"
        keys = [key for key in ("spacing", "timesteps") if getattr(sampler, key, None)]
        return f"{keys[0]} does not fit a model of flow matching, whose shift spaces its steps" if keys else None
    steps = TEACHER_STEPS if isinstance(sampler, OlssSampler) else sampler.steps
    match sampler:
        case LcmSampler() | TcdSampler():
            visited = [*map(float, sampler.timesteps)] if sampler.timesteps else lcm_timesteps(steps, config.train_steps)
        case EdSampler(timesteps=tuple() as listed_steps):
            visited = [*map(float, listed_steps)]
        case _:
            visited = spaced_timesteps(steps, sampler.spacing or config.spacing, config.train_steps)
    if visited[0] >= config.train_steps:
        return f"time step {visited[0]:g} is not one of the {config.train_steps} that the model was trained with"
    first = visited[len(visited) - max(1, int(len(visited) * strength))]
    is_silent = config.zero_terminal_snr and config.prediction == "epsilon" and first == config.train_steps - 1
    return NO_SIGNAL if is_silent else None
