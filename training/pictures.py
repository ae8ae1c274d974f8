"""Pictures: concepts and photographs -> the mix of uint8 pictures that the autoencoder learns to give back."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training import corpus, looks, scenes

# How much of a batch each kind makes up. All that a task starts from or ends with is among them.
SHARES = {"emoji": 0.42, "scene": 0.24, "sketch": 0.10, "photo": 0.10, "sticker": 0.07, "cyanotype": 0.07}
SCENES, PHOTO_CROPS, SEED = 6000, 3000, 10


@dataclass(frozen=True, kw_only=True)
class Mix:
    """uint8 pictures (N, 64, 64, 3) of each kind."""

    kinds: dict[str, torch.Tensor]

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count, 3, 64, 64) in [-1, 1], of kinds drawn by SHARES, mirrored half of the time."""
        drawn = torch.multinomial(torch.tensor(list(SHARES.values())), count, replacement=True, generator=generator)
        places = torch.rand(count, generator=generator)
        pools = [self.kinds[kind] for kind in SHARES]
        pixels = torch.stack(
            [pools[kind][int(place * len(pools[kind]))] for kind, place in zip(drawn.tolist(), places.tolist(), strict=True)]
        )
        is_mirrored = torch.rand(count, generator=generator) < 0.5
        return to_tensor(torch.where(is_mirrored[:, None, None, None], pixels.flip(2), pixels))


def to_tensor(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 64, 64, 3) -> float (N, 3, 64, 64) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def mix(concepts: Sequence[corpus.Concept], photos: Sequence[Image.Image], *, scene_count: int, crop_count: int) -> Mix:
    """Every look of every concept in both styles, and as many scenes and crops as told; the same ones at every call."""
    rng = random.Random(SEED)
    cutouts = [cutout for concept in concepts for cutout in concept.cutouts.values()]
    emoji = scenes.named(concepts)
    return Mix(
        kinds={
            "emoji": _stack([corpus.flatten(cutout) for cutout in cutouts]),
            "scene": _stack([scenes.draw(emoji, rng).composite for _ in range(scene_count)]),
            "sketch": _stack([looks.sketch(cutout) for cutout in cutouts]),
            "photo": _stack([corpus.crop_scene(rng.choice(photos), rng) for _ in range(crop_count)]),
            "sticker": _stack([looks.sticker(cutout) for cutout in cutouts]),
            "cyanotype": _stack([looks.cyanotype(cutout) for cutout in cutouts]),
        }
    )


def _stack(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images))


def cached(path: Path, make: Callable[[], Mix]) -> Mix:
    """Return what `make` gives, kept in a file: drawing all of it takes minutes."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make().kinds, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return Mix(kinds=torch.load(path, weights_only=True, mmap=True))


def psnr(picture: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in decibels of values up to 255, inside the mask if there is one."""
    error = (picture.astype(float) - truth.astype(float)) ** 2
    return float(10 * np.log10(255**2 / max((error if mask is None else error[mask > 0]).mean(), 1e-9)))
