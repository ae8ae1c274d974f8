"""Items: a task's evaluation and calibration inputs as tensors, its sampler table, and U-Net inputs from runs of its sampler."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from quadbench import zoo
from quadbench.artifacts.bundle import NOISE_PREFIX
from quadbench.artifacts.pixels import Pixels, blend_mask
from quadbench.errors import UserError
from quadbench.quad.inputs import MASKED_FROM, evaluation_count, read_inputs, read_pictures
from quadbench.quad.model.foundation import Foundation, embedded_conditions
from quadbench.quad.runner import Denoiser, Feed, GraphSession, RunConditions, encode_prompts
from quadbench.quad.samplers.ddim import ddim_table, teacher_table
from quadbench.quad.samplers.ed import ed_table
from quadbench.quad.samplers.lcm import lcm_table
from quadbench.quad.samplers.olss import SamplerInput, olss_table
from quadbench.quad.samplers.table import SamplerTable, run_table
from quadbench.quad.samplers.tcd import tcd_table
from quadbench.recipe import Task, mix_name
from quadbench.recipe.tasks import (
    DdimSampler,
    EdSampler,
    ImageToImageTask,
    InpaintTask,
    LcmSampler,
    OlssSampler,
    TcdSampler,
    TextToImageTask,
)

CALIBRATION_SEED_OFFSET = 1_000_000  # keeps the noise of calibration and evaluation apart
Unet = Callable[[Feed], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input of a task. `image` (1, 3, H, W) is in [-1, 1]. `mask` (1, 1, H, W) is 1 for pixels to repaint, else 0.
    `blend` (8-bit grey) mixes the decoded image (255) with `image` (0) per pixel. If `blend` is None, no mixing takes place.
    """

    name: str
    seed: int
    prompt: str
    negative_prompt: str | None
    tokens: Mapping[str, tuple[int, ...]]  # by input of the text encoder's graph
    negative_tokens: Mapping[str, tuple[int, ...]] | None  # None for zeros in place of the text encoder's outputs
    image: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    blend: Image.Image | None = None
    image_path: Path | None = None
    mask_path: Path | None = None
    truth_path: Path | None = None

    def noise(self, foundation: Foundation, steps: int) -> torch.Tensor:
        """Return noise (1 + steps, 4, h, w) from the seed, in diffusers' order: the initial noise, then one per step."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.cat([torch.randn(foundation.latent_shape, generator=generator) for _ in range(1 + steps)])

    def latent_mask(self, latent_size: int) -> torch.Tensor | None:
        """Return the mask at latent size (1, 1, h, w), by nearest neighbour as in diffusers' inpainting; None without mask."""
        return None if self.mask is None else torch.nn.functional.interpolate(self.mask, size=(latent_size, latent_size))


@dataclass(frozen=True, kw_only=True)
class ItemSplit:
    """A task's inputs, split for evaluation and for calibration or sampler fitting. The two groups have different noise seeds."""

    evaluation: tuple[Item, ...]
    calibration: tuple[Item, ...]


def task_items(task: Task, foundation: Foundation, *, calibration_samples: int) -> ItemSplit:
    """Return an ItemSplit of a task's inputs. Text-to-image tasks evaluate all prompts, and calibrate on them with new noise.
    Image tasks calibrate on the last `calibration_samples` and evaluate the rest. Raise UserError for bad or too few inputs.
    """
    inputs = read_inputs(task)
    cut = evaluation_count(task, len(inputs), calibration_samples=calibration_samples)
    if isinstance(task, TextToImageTask):
        inputs += tuple(inputs[i % cut] for i in range(calibration_samples))
    items = [_item(task, i if i < cut else CALIBRATION_SEED_OFFSET + i, entry, foundation) for i, entry in enumerate(inputs)]
    return ItemSplit(evaluation=tuple(items[:cut]), calibration=tuple(items[cut:]))


def _item(task: Task, seed: int, entry: zoo.TaskInput, foundation: Foundation) -> Item:
    """Return an Item: an input's image and mask as tensors and its prompts as token ids. Its seed is `seed` + task.seed."""
    image, mask = read_pictures(task, entry, sizes=foundation.sizes)
    return Item(
        name=entry.name,
        seed=task.seed + seed,
        prompt=entry.prompt,
        negative_prompt=entry.negative_prompt,
        image=_as_batch(image) / 127.5 - 1 if image is not None else None,
        mask=(_as_batch(mask) >= MASKED_FROM).float() if mask is not None else None,
        blend=blend_mask(mask >= MASKED_FROM) if mask is not None and isinstance(task, InpaintTask) and task.composite else None,
        image_path=entry.image if image is not None else None,
        mask_path=entry.mask if mask is not None else None,
        truth_path=entry.truth,
        tokens=foundation.tokenize(entry.prompt),
        negative_tokens=foundation.tokenize_negative(entry.negative_prompt),
    )


def _as_batch(pixels: Pixels) -> torch.Tensor:
    """Return pixels (H, W) or (H, W, C) as a float32 batch (1, C, H, W) in 0 to 255."""
    height, width = pixels.shape[:2]
    return torch.from_numpy(pixels.astype(np.float32).reshape(height, width, -1)).permute(2, 0, 1)[None]


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """A task with all that its runs need except the ONNX graphs: sampler table, conditions of its steps and of itself, inputs."""

    task: Task
    table: SamplerTable
    embedded: Mapping[str, torch.Tensor]  # by condition, (steps, C) or (1, C)
    items: ItemSplit

    def tensors(self, foundation: Foundation) -> dict[str, torch.Tensor]:
        """Return a dict from name to tensor: the conditions of steps and task, and for each evaluation input `noise.<name>`."""
        steps = len(self.table.steps)
        noise = {NOISE_PREFIX + item.name: item.noise(foundation, steps) for item in self.items.evaluation}
        return {name: rows.contiguous() for name, rows in self.embedded.items()} | noise


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The float graphs that run before the U-Net: text encoder and VAE encoder."""

    foundation: Foundation
    text_encoder: GraphSession
    vae_encoder: GraphSession

    def condition(self, item: Item, embedded: Mapping[str, torch.Tensor], lora: Feed, guidance: float) -> RunConditions:
        """Encode an input's prompt and negative prompt. Return RunConditions with them and `embedded`, `lora` and `guidance`."""
        prompt, negative = encode_prompts(self.text_encoder, item.tokens, item.negative_tokens)
        return RunConditions(embedded=embedded, prompt=prompt, negative=negative, lora=lora, guidance=guidance)

    def latent(self, item: Item) -> torch.Tensor:
        """Return the latent (1, 4, h, w) that the VAE encoder makes from an input's image; zeros for an input without image."""
        if item.image is None:
            return torch.zeros(self.foundation.latent_shape)
        return self.vae_encoder({"image": item.image.numpy()})


def prepare_task(task: Task, items: ItemSplit, encoders: Encoders, unet: Unet, lora: Feed) -> PreparedTask:
    """Return a PreparedTask: task, inputs, sampler table, conditions. The OLSS sampler's table is fitted to runs of `unet`."""
    foundation = encoders.foundation
    table = fixed_table(task, foundation)
    if table is None:
        teacher = teacher_of(task, foundation)
        of_teacher = embedded_conditions(foundation, teacher.timesteps)
        inputs = [
            SamplerInput(
                denoise=Denoiser(unet=_finite(task, unet), condition=encoders.condition(item, of_teacher, lora, task.guidance)),
                latent=encoders.latent(item),
                noise=item.noise(foundation, 0),
                mask=item.latent_mask(foundation.sizes.latent),
            )
            for item in items.calibration
        ]
        table = olss_table(teacher, inputs, steps=task.sampler.steps)
    return PreparedTask(task=task, table=table, embedded=embedded_conditions(foundation, table.timesteps), items=items)


def teacher_of(task: Task, foundation: Foundation) -> SamplerTable:
    """Return the table of 100 steps that an OLSS task's sampler imitates, with the sampler's time steps if it says which."""
    spacing = task.sampler.spacing if isinstance(task.sampler, OlssSampler) else None
    return teacher_table(foundation.schedule, spacing=spacing, **start_keys(task))


def fixed_table(task: Task, foundation: Foundation) -> SamplerTable | None:
    """Return a task's sampler table. Return None for OLSS, whose table is fitted to U-Net runs."""
    schedule, start = foundation.schedule, start_keys(task)
    match task.sampler:
        case OlssSampler():
            return None
        case LcmSampler(steps=steps, timesteps=listed):
            return lcm_table(schedule, steps=steps, timesteps=listed or (), **start)
        case TcdSampler(steps=steps, eta=eta, timesteps=listed):
            return tcd_table(schedule, steps=steps, eta=eta, timesteps=listed or (), **start)
        case EdSampler(steps=steps, spacing=spacing, timesteps=listed):
            return ed_table(schedule, steps=steps, spacing=spacing, timesteps=listed or (), **start)
        case DdimSampler(steps=steps, spacing=spacing):
            return ddim_table(schedule, steps=steps, spacing=spacing, **start)


class StartKeys(TypedDict):
    """A dict of two keyword arguments for functions that make sampler tables. `strength` is 1 for text-to-image tasks."""

    strength: float
    is_image_to_image: bool


def start_keys(task: Task) -> StartKeys:
    """Return a dict of a task's arguments for sampler tables: `strength` (1 for text-to-image) and `is_image_to_image`."""
    strength = 1.0 if isinstance(task, TextToImageTask) else task.strength
    return {"strength": strength, "is_image_to_image": isinstance(task, ImageToImageTask)}


@dataclass(frozen=True, kw_only=True)
class CalibrationRun:
    """Results of a float U-Net on a task's calibration inputs: U-Net inputs except LoRA, noise predictions, and final latents."""

    feeds: list[Feed]
    eps: list[torch.Tensor]
    latents: list[torch.Tensor]


def run_calibration(prepared: PreparedTask, encoders: Encoders, unet: Unet, lora: Feed) -> CalibrationRun:
    """Run a task's sampler on its calibration inputs. Return a CalibrationRun of U-Net inputs, noise predictions and latents."""
    feeds, eps, latents = [], [], []
    unet = _finite(prepared.task, unet)
    for item in prepared.items.calibration:
        condition = encoders.condition(item, prepared.embedded, lora, prepared.task.guidance)
        denoiser = Denoiser(unet=unet, condition=condition, record=True)
        latent, mask = encoders.latent(item), item.latent_mask(encoders.foundation.sizes.latent)
        noise = item.noise(encoders.foundation, len(prepared.table.steps))
        latents.append(run_table(prepared.table, denoiser, latent=latent, noise=noise, mask=mask))
        feeds.extend(denoiser.feeds)
        eps.extend(denoiser.eps)
    return CalibrationRun(feeds=feeds, eps=eps, latents=latents)


def _finite(task: Task, unet: Unet) -> Unet:
    """Wrap a function from U-Net inputs to noise prediction. The wrapper raises UserError if a prediction has NaN or Inf."""

    def predict(feed: Feed) -> torch.Tensor:
        eps = unet(feed)
        if not torch.isfinite(eps).all():
            of = f"with adapter '{mix_name(task.adapter)}'" if task.adapter else "without adapter"
            hint = "lower the guidance or adapter weight; `quadbench adapter inspect` shows an adapter's greatest weights"
            raise UserError(f"task '{task.name}': the U-Net {of} predicts NaN or Inf in float32", hint=hint)
        return eps

    return predict
