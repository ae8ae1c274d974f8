"""Items: a task of a recipe -> its evaluation and calibration items, with images, tokens and noise as tensors."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from quadbench import zoo
from quadbench.artifacts.pixels import blend_mask
from quadbench.errors import UserError
from quadbench.quad.model.foundation import Foundation
from quadbench.quad.tasks.inputs import evaluated, read_inputs
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
    image_path = None if isinstance(task, TextToImageTask) else _needed(task, entry, "image", entry.image)
    mask_path = _needed(task, entry, "mask", entry.mask) if isinstance(task, InpaintTask) else None
    if entry.truth:
        read_picture(entry.truth, "RGB", foundation.image_size)  # it is compared with what a device paints
    mask = (_pixels(mask_path, "L", foundation.image_size) >= 127.5) if mask_path else None
    item = Item(
        name=entry.name,
        seed=task.seed + seed,
        prompt=entry.prompt,
        image=_pixels(image_path, "RGB", foundation.image_size) / 127.5 - 1 if image_path else None,
        mask=None if mask is None else mask.float(),
        blend=blend_mask(mask[0, 0].numpy()) if mask is not None and isinstance(task, InpaintTask) and task.composite else None,
        image_path=image_path,
        mask_path=mask_path,
        truth_path=entry.truth,
        input_ids=foundation.tokenize(entry.prompt),
        negative_input_ids=foundation.tokenize(entry.negative_prompt),
    )
    size, latent_mask = foundation.latent_size, item.latent_mask(foundation.latent_size)
    if latent_mask is not None and not latent_mask.any():
        reduced = f"at the {size}x{size} of a latent its mask '{mask_path}' has nothing to replace"
        raise UserError(
            f"input '{entry.name}' of task '{task.name}': {reduced}", hint="what is white is replaced: draw it larger"
        )
    return item


def _needed(task: Task, entry: zoo.TaskInput, kind: str, path: Path | None) -> Path:
    """Return the path of an input's image or mask.

    Raises:
        UserError: the input has none.
    """
    if path is None:
        raise UserError(f"input '{entry.name}' of task '{task.name}' has no {kind}; {task.kind} needs one")
    return path


def _pixels(path: Path, mode: str, size: int) -> torch.Tensor:
    """Read an image as (1, C, H, W), 0 to 255."""
    array = np.array(read_picture(path, mode, size), np.float32)
    return torch.from_numpy(array.reshape(size, size, -1)).permute(2, 0, 1)[None]


def read_picture(path: Path, mode: str, size: int) -> Image.Image:
    """Read an image of any kind as pixels of 8 bits and nothing else: RGB, or L for grey.

    Raises:
        UserError: the image cannot be read or has another size.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning), Image.open(path) as image:
            width, height = image.size
            pixels = np.array(image.convert(mode)) if (width, height) == (size, size) else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image '{path}' cannot be read: {error}") from error
    if pixels is None:
        raise UserError(f"image '{path}' is {width}x{height}; the model takes {size}x{size}", hint="resize it before")
    return Image.fromarray(pixels)
