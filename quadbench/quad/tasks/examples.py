"""Examples: an adapter's tasks, run with fresh noise -> U-Net inputs and the float U-Net's predictions for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from quadbench.quad.adapters import Adapter
from quadbench.quad.prepare import Prepared
from quadbench.quad.tasks.prepared import PreparedTask, Visit, visit
from quadbench.quad.tasks.runner import Feed


@dataclass(frozen=True, kw_only=True)
class Example:
    """U-Net inputs without LoRA, and `teacher` (1, 4, h, w), the float U-Net's eps with the adapter as it came.

    `noise` (1, 4, h, w) was added to a clean latent to make the sample; it is None for a sample of a sampler's trajectory.
    """

    feed: Feed
    teacher: torch.Tensor
    noise: torch.Tensor | None


def examples(prepared: Prepared, adapter: Adapter, *, seeds: Sequence[int], noised: bool) -> list[Example]:
    """Run the adapter's tasks (all if none names it) on their calibration items, once for each seed, and ask the teacher.

    With `noised` each trajectory's last latent is noised anew to each of the sampler's time steps, for the diffusion loss.
    """
    lora = prepared.feed(adapter)
    own = [task for task in prepared.tasks if adapter.name in task.task.adapter] or prepared.tasks
    collected: list[Example] = []
    for task in own:
        for seed in seeds:
            reseeded = _reseeded(task, seed)
            visited = visit(reseeded, prepared.encoders, prepared.unet, lora)
            pairs = [(feed, None) for feed in visited.feeds]
            pairs += list(_noised(prepared, reseeded, visited, seed)) if noised else []
            collected += [Example(feed=feed, teacher=prepared.unet(feed | lora), noise=noise) for feed, noise in pairs]
    return collected


def _reseeded(task: PreparedTask, seed: int) -> PreparedTask:
    """Return the task with its calibration items' seeds moved by `seed`."""
    calibration = tuple(replace(item, seed=item.seed + seed) for item in task.items.calibration)
    return replace(task, items=replace(task.items, calibration=calibration))


def _noised(prepared: Prepared, task: PreparedTask, visited: Visit, seed: int) -> Iterator[tuple[Feed, torch.Tensor]]:
    """Yield feeds with sample sqrt(a) z + sqrt(1 - a) noise, and the noise. The prompt is that of the item that gave z.

    Every sampler here feeds samples of this form.
    """
    steps = len(task.table.timesteps)
    runs = len(visited.feeds) // (len(visited.latents) * steps)  # guidance: with the prompt first, then without
    generator = torch.Generator().manual_seed(seed)
    for item, latent in enumerate(visited.latents):
        for step, timestep in enumerate(task.table.timesteps):
            alpha = float(prepared.foundation.alphas_cumprod[round(timestep)])
            noise = torch.randn(latent.shape, generator=generator)
            sample = alpha**0.5 * latent + (1 - alpha) ** 0.5 * noise
            yield visited.feeds[(item * steps + step) * runs] | {"sample": sample.numpy()}, noise
