"""Scenes: emoji cutouts and a random generator -> several of them on a ground, the mask of one, and the scene without it."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training import captions, corpus, grounds

CELL = corpus.SIZE // 16  # pixels per latent
MARGIN = 4
EDGE = 2  # pixels that emoji keep from the border
OBJECT_SIZES, NEIGHBOUR_SIZES = (18, 28), (16, 26)
NEIGHBOURS = (1, 2)
TRIES = 100  # places tried for a neighbour before the scene does without it
FAINT = 8  # an opacity up to this does not count as object


@dataclass(frozen=True, kw_only=True)
class Named:
    """A cutout, 64x64 RGBA, and its name."""

    name: str
    cutout: Image.Image


@dataclass(frozen=True, kw_only=True)
class Scene:
    """uint8 pictures: `composite` and `truth` (64, 64, 3), `mask` (64, 64) with 255 where the object has to go.

    `words` describe the composite: 'blue striped scene of red apple and dog face'.
    """

    composite: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    words: str


def named(concepts: Iterable[corpus.Concept]) -> list[Named]:
    """The concepts in both styles, ready to be placed."""
    return [Named(name=concept.names[0], cutout=cutout) for concept in concepts for cutout in concept.cutouts.values()]


def draw(emoji: Sequence[Named], rng: random.Random, shares: Mapping[str, int] = grounds.SHARES) -> Scene:
    """One object and up to two neighbours on a drawn ground. The mask touches no neighbour, so what it hides is ground."""
    ground = grounds.draw(rng, shares)
    chosen = rng.sample(emoji, 1 + rng.randint(*NEIGHBOURS))
    canvas = Image.fromarray(ground.picture)
    placed, opacity = _place(chosen[0].cutout, OBJECT_SIZES, rng)
    mask = align(opacity > FAINT)
    taken, names = mask > 0, [chosen[0].name]
    for neighbour in chosen[1:]:
        for _ in range(TRIES):
            layer, opacity = _place(neighbour.cutout, NEIGHBOUR_SIZES, rng)
            if not (taken & (opacity > 0)).any():
                canvas.paste(layer, mask=layer)
                taken |= opacity > 0
                names.append(neighbour.name)
                break
    truth = np.asarray(canvas)
    canvas = canvas.copy()
    canvas.paste(placed, mask=placed)
    words = f"{ground.words} {captions.SCENE} of {' and '.join(names)}"
    return Scene(composite=np.asarray(canvas), truth=truth, mask=mask, words=words)


def _place(cutout: Image.Image, sizes: tuple[int, int], rng: random.Random) -> tuple[Image.Image, np.ndarray]:
    """The cutout, smaller, somewhere on a transparent picture, and the opacity of that."""
    size = rng.randint(*sizes)
    layer = Image.new("RGBA", (corpus.SIZE, corpus.SIZE))
    corner = rng.randint(EDGE, corpus.SIZE - size - EDGE), rng.randint(EDGE, corpus.SIZE - size - EDGE)
    layer.paste(cutout.resize((size, size), Image.Resampling.LANCZOS), corner)
    return layer, np.asarray(layer.getchannel("A"))


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
