"""Scenes: photo crops and emoji cutouts -> composites with an object, its mask, and the clean scene as the truth."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from quadbench.zoo.training import corpus

CELL = corpus.SIZE // 16  # pixels per latent
MARGIN = 4
OBJECT_SIZES = (18, 34)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """uint8 pictures: `composite` and `truth` (64, 64, 3), `mask` (64, 64) with 255 where the object has to go."""

    composite: np.ndarray
    truth: np.ndarray
    mask: np.ndarray


def make(photos: Sequence[Image.Image], cutouts: Sequence[Image.Image], rng: random.Random) -> Scene:
    """Paste a random cutout of 18 to 34 pixels at a random place of a random crop."""
    truth = corpus.crop_scene(rng.choice(photos), rng)
    size = rng.randint(*OBJECT_SIZES)
    cutout = rng.choice(cutouts).resize((size, size), Image.Resampling.LANCZOS)
    corner = rng.randint(MARGIN, corpus.SIZE - size - MARGIN), rng.randint(MARGIN, corpus.SIZE - size - MARGIN)
    canvas = Image.fromarray(truth)
    canvas.paste(cutout, corner, cutout)
    shape = Image.new("L", canvas.size)
    shape.paste(cutout.getchannel("A"), corner)
    return Scene(composite=np.asarray(canvas), truth=truth, mask=align(np.asarray(shape) > 8))


def align(shape: np.ndarray) -> np.ndarray:
    """Dilate a boolean shape by MARGIN pixels and snap it outwards to whole latents; 0 or 255."""
    padded = np.pad(shape, MARGIN)
    dilated = np.zeros_like(shape)
    for dy in range(2 * MARGIN + 1):
        for dx in range(2 * MARGIN + 1):
            dilated |= padded[dy : dy + shape.shape[0], dx : dx + shape.shape[1]]
    cells = dilated.reshape(16, CELL, 16, CELL).any((1, 3))
    return np.kron(cells, np.full((CELL, CELL), 255)).astype(np.uint8)


def cells(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Masks -> (N, 1, 16, 16) float32, 1 inside."""
    return (np.stack(masks)[:, None, ::CELL, ::CELL] > 0).astype(np.float32)
