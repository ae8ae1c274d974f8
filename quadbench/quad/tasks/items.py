"""Items: a task of a recipe -> its evaluation and calibration items, with images, tokens and noise as tensors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from quadbench import zoo
from quadbench.artifacts.pixels import Pixels, blend_mask
from quadbench.quad.model.foundation import Foundation
from quadbench.quad.tasks.inputs import MASKED_FROM, evaluated, read_inputs, read_pictures
from quadbench.recipe import InpaintTask, Task, TextToImageTask

CALIBRATION_SEED_OFFSET = 1_000_000  # so that calibration never sees the noise of an evaluation


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input of a task. `image` (1, 3, H, W) in [-1, 1]; `mask` (1, 1, H, W) in {0, 1}, 1 = to be replaced.

    `blend` is the decoder's share in each pixel, 8-bit grey; None where the picture is the decoder's alone.
    """

    name: str
    seed: int
    prompt: str
    input_ids: tuple[int, ...]
    negative_input_ids: tuple[int, ...]
    image: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    blend: Image.Image | None = None
    image_path: Path | None = None
    mask_path: Path | None = None
    truth_path: Path | None = None

    def noise(self, foundation: Foundation, steps: int) -> torch.Tensor:
        """Return the noise (1 + steps, 4, h, w) that a diffusers pipeline draws from a generator with this seed, in its order."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (1, foundation.latent_channels, foundation.latent_size, foundation.latent_size)
        return torch.cat([torch.randn(shape, generator=generator) for _ in range(1 + steps)])

    def latent_mask(self, latent_size: int) -> torch.Tensor | None:
        """Return the mask, if there is one, reduced to (1, 1, h, w) by nearest neighbour as in diffusers' inpainting pipeline."""
        return None if self.mask is None else torch.nn.functional.interpolate(self.mask, size=(latent_size, latent_size))


@dataclass(frozen=True, kw_only=True)
class Items:
    """A task's items: those it is evaluated on, and those that its ranges and its table are taken from. None is in both."""

    evaluation: tuple[Item, ...]
    calibration: tuple[Item, ...]


def task_items(task: Task, foundation: Foundation, *, calibration_samples: int) -> Items:
    """Read a task's inputs. The last `calibration_samples` calibrate and are never evaluated; prompts do both, with other noise.

    Raises:
        UserError: there are too few inputs, or one has no image or mask where the task needs one, or an image cannot be read or
            has the wrong size, or a mask replaces nothing.
    """
    inputs = read_inputs(task)
    cut = evaluated(task, len(inputs), calibration_samples=calibration_samples)
    if isinstance(task, TextToImageTask):
        inputs += tuple(inputs[i % cut] for i in range(calibration_samples))
    items = [_item(task, i if i < cut else CALIBRATION_SEED_OFFSET + i, entry, foundation) for i, entry in enumerate(inputs)]
    return Items(evaluation=tuple(items[:cut]), calibration=tuple(items[cut:]))


def _item(task: Task, seed: int, entry: zoo.TaskInput, foundation: Foundation) -> Item:
    """Read one input, with a seed that is counted from the task's own."""
    image, mask = read_pictures(task, entry, sizes=foundation.sizes)
    return Item(
        name=entry.name,
        seed=task.seed + seed,
        prompt=entry.prompt,
        image=_as_batch(image) / 127.5 - 1 if image is not None else None,
        mask=(_as_batch(mask) >= MASKED_FROM).float() if mask is not None else None,
        blend=blend_mask(mask >= MASKED_FROM) if mask is not None and isinstance(task, InpaintTask) and task.composite else None,
        image_path=entry.image if image is not None else None,
        mask_path=entry.mask if mask is not None else None,
        truth_path=entry.truth,
        input_ids=foundation.tokenize(entry.prompt),
        negative_input_ids=foundation.tokenize(entry.negative_prompt),
    )


def _as_batch(pixels: Pixels) -> torch.Tensor:
    """Return pixels (H, W) or (H, W, C) as (1, C, H, W) float32, 0 to 255."""
    height, width = pixels.shape[:2]
    return torch.from_numpy(pixels.astype(np.float32).reshape(height, width, -1)).permute(2, 0, 1)[None]
