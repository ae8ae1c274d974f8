"""Examples: an adapter's tasks, run with fresh noise -> U-Net inputs and the float U-Net's predictions for them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from quadbench.quad.adapters import Adapter
from quadbench.quad.prepare import Prepared
from quadbench.quad.tasks.items import Item
from quadbench.quad.tasks.prepared import PreparedTask, Visit, visit
from quadbench.quad.tasks.runner import Feed

SEED_STRIDE = 10_000  # items have consecutive seeds: one that is moved by less would see the noise of another


@dataclass(frozen=True, kw_only=True)
class Example:
    """U-Net inputs without LoRA, and `teacher` (1, 4, h, w), the float U-Net's eps with the adapter as it came.

    `noise` (1, 4, h, w) was added to a clean latent to make the sample; it is None for a sample of a sampler's trajectory.
    """

    feed: Feed
    teacher: torch.Tensor
    noise: torch.Tensor | None


ItemsByTask = Mapping[str, Sequence[Item]]


@dataclass(frozen=True, kw_only=True)
class Division:
    """The calibration items of an adapter's tasks, divided: no image or prompt of those that train is among those that judge."""

    training: ItemsByTask
    validation: ItemsByTask


def divided(prepared: Prepared, adapter: Adapter) -> Division:
    """Divide the calibration items of the adapter's tasks (all if none names it): of each task the last third judges.

    Samples beyond a task's prompts are these prompts again, so that it is names that are divided; a single one judges.
    """
    own = [task for task in prepared.tasks if adapter.name in task.task.adapter] or prepared.tasks
    items = {task.task.name: task.items.calibration for task in own}
    names = {task: list(dict.fromkeys(item.name for item in of_task)) for task, of_task in items.items()}
    judging = {task: of_task[len(of_task) - math.ceil(len(of_task) / 3) :] for task, of_task in names.items()}
    return Division(
        training={task: [item for item in of_task if item.name not in judging[task]] for task, of_task in items.items()},
        validation={task: [item for item in of_task if item.name in judging[task]] for task, of_task in items.items()},
    )


def examples(prepared: Prepared, adapter: Adapter, items: ItemsByTask, *, seeds: Sequence[int], noised: bool) -> list[Example]:
    """Run items of some tasks with the adapter, once for each seed, by which their own are moved, and ask the teacher.

    With `noised` each trajectory's last latent is noised anew to each of the sampler's time steps, for the diffusion loss.
    """
    lora = prepared.feed(adapter)
    collected: list[Example] = []
    for task in (task for task in prepared.tasks if items.get(task.task.name)):
        for seed in seeds:
            moved = reseeded(task, items[task.task.name], seed)
            visited = visit(moved, prepared.encoders, prepared.unet, lora)
            seen = zip(visited.feeds, visited.eps, strict=True)
            collected += [Example(feed=feed, teacher=eps, noise=None) for feed, eps in seen]
            anew = _noised(prepared, moved, visited, seed) if noised else ()
            collected += [Example(feed=feed, teacher=prepared.unet(feed | lora), noise=noise) for feed, noise in anew]
    return collected


def reseeded(task: PreparedTask, items: Sequence[Item], seed: int) -> PreparedTask:
    """Return a task with these items in place of its calibration items, their seeds moved out of each other's way."""
    moved = tuple(replace(item, seed=item.seed + SEED_STRIDE * seed) for item in items)
    return replace(task, items=replace(task.items, calibration=moved))


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
