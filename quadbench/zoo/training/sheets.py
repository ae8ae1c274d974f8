"""Sheets: the exported model, adapters and inputs -> contact sheets for docs/zoo.md and their PSNR."""

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
from quadbench.zoo.training.removal import psnr

# Chosen before the first picture was seen.
PROMPTS = (
    "twemoji red apple", "noto dog face", "twemoji hamburger", "noto lemon",
    "twemoji cherry blossom", "noto octopus", "twemoji sunflower", "noto rocket",
    "twemoji banana", "noto ghost", "twemoji soccer ball", "noto strawberry",
    "twemoji cactus", "noto penguin", "twemoji smiling face with sunglasses", "noto key",
)  # fmt: skip
STEPS, GUIDANCE = 50, 4.0
RESTYLE_STEPS, RESTYLE_STRENGTH, RESTYLE_GUIDANCE = 20, 0.7, 3.0
REMOVE_STEPS = 4
ZOOM, GAP, CAPTION_HEIGHT = 2, 8, 18


def write_all(out: Path, docs: Path) -> dict[str, float]:
    """Write the three sheets; return mean PSNR in decibels of outputs and unchanged inputs against the truth."""
    docs.mkdir(parents=True, exist_ok=True)
    prompts = [(prompt, [draw(out, prompt, seed)]) for seed, prompt in enumerate(PROMPTS)]
    sheet(prompts, columns=4).save(docs / "zoo-text-to-image.png", optimize=True)
    figures: dict[str, float] = {}
    for task, run in (("restyle", restyle), ("remove-object", remove_object)):
        items = zoo.task_inputs(task, folder=out)
        outputs = run(out, items)
        rows = []
        scores: dict[str, list[float]] = {"output": [], "unchanged input": []}
        for item, output in zip(items, outputs, strict=True):
            image, truth = Image.open(item.image), Image.open(item.truth or item.image)
            mask = np.asarray(Image.open(item.mask)) if item.mask else None
            scores["output"].append(psnr(np.asarray(output), np.asarray(truth), mask))
            scores["unchanged input"].append(psnr(np.asarray(image), np.asarray(truth), mask))
            rows.append((f"{item.name}  {scores['output'][-1]:.1f} dB", [image, output, truth]))
        sheet(rows, columns=3).save(docs / f"zoo-{task}.png", optimize=True)
        figures |= {f"{task}: {kind}": round(float(np.mean(values)), 2) for kind, values in scores.items()}
    return figures


@cache
def _pipeline(out: Path, kind: type[DiffusionPipeline], adapter: str | None = None) -> DiffusionPipeline:
    made = kind.from_pretrained(out / "emoji-ldm", safety_checker=None, torch_dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    if adapter:
        made.unet = PeftModel.from_pretrained(made.unet, out / "adapters" / adapter).merge_and_unload()
    return made


def draw(out: Path, prompt: str, seed: int) -> Image.Image:
    """Text to image with DDIM."""
    pipeline = _pipeline(out, StableDiffusionPipeline)
    generator = torch.Generator().manual_seed(seed)
    return pipeline(prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator).images[0]


def restyle(out: Path, items: tuple[zoo.TaskInput, ...]) -> list[Image.Image]:
    """Twemoji to Noto with DDIM."""
    pipeline = _pipeline(out, StableDiffusionImg2ImgPipeline, "restyle")
    return [
        pipeline(
            item.prompt,
            image=Image.open(item.image),
            negative_prompt=item.negative_prompt,
            strength=RESTYLE_STRENGTH,
            guidance_scale=RESTYLE_GUIDANCE,
            num_inference_steps=RESTYLE_STEPS,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        for seed, item in enumerate(items)
    ]


def remove_object(out: Path, items: tuple[zoo.TaskInput, ...]) -> list[Image.Image]:
    """Inpainting with four LCM steps."""
    pipeline = _pipeline(out, StableDiffusionInpaintPipeline, "remove-object")
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    return [
        pipeline(
            item.prompt,
            image=Image.open(item.image),
            mask_image=Image.open(item.mask or item.image),
            strength=1.0,
            guidance_scale=1.0,
            num_inference_steps=REMOVE_STEPS,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        for seed, item in enumerate(items)
    ]


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
