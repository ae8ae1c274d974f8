"""Noise: Stable Diffusion's own schedule as tensors, and the weights of the loss at each time."""

import torch
from diffusers import DDIMScheduler

TIMES = 1000


def scheduler() -> DDIMScheduler:
    """The scheduler that the exported pipeline starts with."""
    return DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


ALPHA_BAR: torch.Tensor = scheduler().alphas_cumprod


def signal_and_noise(times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t), shaped to multiply a batch of latents."""
    a = ALPHA_BAR[times][:, None, None, None]
    return a.sqrt(), (1 - a).sqrt()


def composition_weight(times: torch.Tensor, *, ceiling: float = 8.0) -> torch.Tensor:
    """min(1 + 1 / SNR, 8) min(1, 5 / SNR): more for the noisy times, at which only the caption tells what the picture is."""
    a = ALPHA_BAR[times]
    snr = a / (1 - a)
    return ((1 + 1 / snr).clamp(max=ceiling) * (5 / snr).clamp(max=1))[:, None, None, None]


def min_snr_weight(times: torch.Tensor, *, ceiling: float = 5.0) -> torch.Tensor:
    """min(SNR, 5) / SNR, the weight of an epsilon loss (Hang et al. 2023)."""
    a = ALPHA_BAR[times]
    snr = a / (1 - a)
    return (snr.clamp(max=ceiling) / snr)[:, None, None, None]
