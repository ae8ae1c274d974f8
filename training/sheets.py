"""Sheets: the exported model, adapters and inputs -> contact sheets for the docs and their PSNR."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DiffusionPipeline,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from peft import PeftModel
from PIL import Image, ImageDraw, ImageFont

from quadbench import zoo
from quadbench.artifacts.pixels import blend_mask, composite
from training import image_to_image, loop, stickers
from training.pictures import psnr

# Chosen before the first picture was seen.
PROMPTS = (
    "twemoji red apple", "noto dog face", "twemoji hamburger", "noto lemon",
    "twemoji cherry blossom", "noto octopus", "twemoji sunflower", "noto rocket",
    "twemoji banana", "noto ghost", "twemoji soccer ball", "noto strawberry",
    "twemoji cactus", "noto penguin", "twemoji smiling face with sunglasses", "noto key",
)  # fmt: skip
DRAW_STEPS = 50
DRAW_GUIDANCE = {None: 4.0, stickers.TASK: 2.0}  # by adapter
FROM_IMAGE_STEPS = 20
FROM_IMAGE_GUIDANCE = {"restyle": 1.0, "sketch-to-image": 1.5, "portrait": 1.0}
REMOVE_STEPS = 4
ZOOM, GAP, CAPTION_HEIGHT = 2, 8, 18


def write_all(out: Path, docs: Path) -> dict[str, float]:
    """Write a sheet for text-to-image and one for each task; return mean PSNR in decibels against the truth.

    Of outputs, and of what stands left of them: the unchanged input or, where there is none, the picture without adapter.
    """
    docs.mkdir(parents=True, exist_ok=True)
    pictures = [(prompt, [picture]) for prompt, picture in zip(PROMPTS, draw(out, PROMPTS), strict=True)]
    sheet(pictures, columns=4).save(docs / "zoo-text-to-image.png", optimize=True)
    figures: dict[str, float] = {}
    for task in zoo.TASKS:
        figures |= write_task(task, out, docs)
    return figures


def write_task(task: str, out: Path, docs: Path) -> dict[str, float]:
    """Write the sheet of one task's inputs. Return PSNR in dB, within the mask if there is one, and of the whole output."""
    items = zoo.task_inputs(task, folder=out)
    prompts = [item.prompt for item in items]
    before = draw(out, prompts) if task == stickers.TASK else [_open(item.image) for item in items]
    after = paint(task, out, items)
    rows = []
    scores: dict[str, list[float]] = {"before": [], "after": [], "whole": []}
    for item, first, second in zip(items, before, after, strict=True):
        truth, mask = _open(item.truth), np.asarray(_open(item.mask)) if item.mask else None
        for kind, picture in (("before", first), ("after", second)):
            scores[kind].append(psnr(np.asarray(picture), np.asarray(truth), mask))
        scores["whole"].append(psnr(np.asarray(second), np.asarray(truth)))
        rows.append((f"{item.name}  {scores['after'][-1]:.1f} dB", [first, second, truth]))
    sheet(rows, columns=3).save(docs / f"zoo-{task}.png", optimize=True)
    figures = {f"{task}: {kind}": round(float(np.mean(values)), 2) for kind, values in scores.items()}
    return figures | {f"{task}: {kind}, worst": round(min(values), 2) for kind, values in scores.items()}


def _open(path: Path | None) -> Image.Image:
    if path is None:
        raise ValueError("an input of this task lacks a picture, its mask or its truth")
    return Image.open(path)


@cache
def _pipeline(out: Path, kind: type[DiffusionPipeline], adapter: str | None = None) -> DiffusionPipeline:
    pipeline = kind.from_pretrained(out / "emoji-ldm", safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if adapter:
        pipeline.unet = PeftModel.from_pretrained(pipeline.unet, out / "adapters" / adapter).merge_and_unload()
    return pipeline.to(loop.device())


def paint(task: str, out: Path, items: tuple[zoo.TaskInput, ...]) -> list[Image.Image]:
    """Paint the inputs with the task's adapter."""
    if task == stickers.TASK:
        return draw(out, [item.prompt for item in items], adapter=task)
    return change(out, task, items) if task in image_to_image.PAIR else remove_object(out, items)


def draw(out: Path, prompts: Sequence[str], *, adapter: str | None = None, first_seed: int = 0) -> list[Image.Image]:
    """Text to image with DDIM; the seeds count from the first."""
    pipeline = _pipeline(out, StableDiffusionPipeline, adapter)
    return pipeline(
        list(prompts),
        num_inference_steps=DRAW_STEPS,
        guidance_scale=DRAW_GUIDANCE[adapter],
        generator=_generators(len(prompts), first_seed),
    ).images


def change(out: Path, task: str, items: tuple[zoo.TaskInput, ...]) -> list[Image.Image]:
    """Image to image with DDIM; the seeds count from 0."""
    pipeline = _pipeline(out, StableDiffusionImg2ImgPipeline, task)
    return pipeline(
        [item.prompt for item in items],
        image=[_open(item.image) for item in items],
        strength=image_to_image.STRENGTH[task],
        guidance_scale=FROM_IMAGE_GUIDANCE[task],
        num_inference_steps=FROM_IMAGE_STEPS,
        generator=_generators(len(items)),
    ).images


def _generators(count: int, first_seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first_seed + seed) for seed in range(count)]


def remove_object(out: Path, items: tuple[zoo.TaskInput, ...]) -> list[Image.Image]:
    """Inpainting with four LCM steps, each picture composited with its input outside the mask."""
    pipeline = _pipeline(out, StableDiffusionInpaintPipeline, "remove-object")
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    painted = [
        pipeline(
            item.prompt,
            image=_open(item.image),
            mask_image=_open(item.mask),
            strength=1.0,
            guidance_scale=1.0,
            num_inference_steps=REMOVE_STEPS,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        for seed, item in enumerate(items)
    ]
    return [_composited(item, picture) for item, picture in zip(items, painted, strict=True)]


def _composited(item: zoo.TaskInput, picture: Image.Image) -> Image.Image:
    original, mask = (np.asarray(_open(path).convert(mode)) for path, mode in ((item.image, "RGB"), (item.mask, "L")))
    return Image.fromarray(composite(np.asarray(picture), original, blend_mask(mask > 0)))


def sheet(cells: list[tuple[str, list[Image.Image]]], *, columns: int) -> Image.Image:
    """Captioned groups of pictures in a grid, each picture enlarged without smoothing."""
    per_cell, size = len(cells[0][1]), 64 * ZOOM
    wide, high = per_cell * (size + 2) + GAP, size + CAPTION_HEIGHT + GAP
    rows = -(-len(cells) // columns)
    canvas = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), "#dddddd")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=10)
    for index, (text, pictures) in enumerate(cells):
        left, top = GAP + index % columns * wide, GAP + index // columns * high
        for place, picture in enumerate(pictures):
            enlarged = picture.convert("RGB").resize((size, size), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (left + place * (size + 2), top))
        while pen.textlength(text, font=font) > wide - GAP:
            text = text.removesuffix("...")[:-1] + "..."
        pen.text((left, top + size + 2), text, fill="black", font=font)
    return canvas
