"""Grounds: a random generator -> a soft background of a scene, plain, graded or patterned, and the words for it."""

import colorsys
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from training.corpus import SIZE

Coverage = Callable[[random.Random], np.ndarray]
# How far a pattern's second colour lies from the first towards white or navy: enough to be seen, too little to hide an emoji.
CONTRAST = (0.15, 0.4)
NAVY, WHITE = np.array([20.0, 25.0, 60.0]), np.array([255.0, 255.0, 255.0])
# Where on the circle of hues, from 0 to 1, each word ends.
HUES = (
    (0.04, "red"), (0.11, "orange"), (0.19, "yellow"), (0.45, "green"), (0.70, "blue"), (0.83, "purple"), (0.94, "pink"),
    (1.0, "red"),
)  # fmt: skip
SHARES = {"plain": 2, "graded": 3, "halved": 2, "striped": 1, "checked": 1, "dotted": 1}
PATTERNED_SHARES = SHARES | {"striped": 3, "checked": 6, "dotted": 6}  # for what has to learn to go on with a pattern
Y, X = np.mgrid[0:SIZE, 0:SIZE] + 0.5


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A picture (64, 64, 3) uint8 and its description: 'blue striped'."""

    picture: np.ndarray
    words: str


def draw(rng: random.Random, shares: Mapping[str, int] = SHARES) -> Ground:
    """A ground of random kind and colours."""
    kind = rng.choices(list(COVERAGES), [shares[kind] for kind in COVERAGES])[0]
    first = _colour(rng)
    share = COVERAGES[kind](rng)[..., None]  # (64, 64, 1): how much of the second colour a pixel has
    picture = (1 - share) * first + share * _second_colour(kind, first, rng)
    return Ground(picture=picture.round().clip(0, 255).astype(np.uint8), words=f"{hue_word(first)} {kind}")


def hue_word(colour: np.ndarray) -> str:
    """The word for a colour (3,) by its hue, and 'grey' where it has hardly any."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*colour / 255)
    return "grey" if saturation < 0.15 else next(word for end, word in HUES if hue <= end)


def _colour(rng: random.Random) -> np.ndarray:
    saturation = rng.uniform(0.05, 0.25) if rng.random() < 0.2 else rng.uniform(0.25, 0.75)
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.55, 1)))


def _second_colour(kind: str, first: np.ndarray, rng: random.Random) -> np.ndarray:
    if kind in ("graded", "halved"):
        hue, saturation, value = colorsys.rgb_to_hsv(*first / 255)
        hue, value = hue + rng.uniform(-0.15, 0.15), value + rng.uniform(-0.3, 0.3)
        return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, min(1.0, max(0.4, value))))
    strength = rng.uniform(*CONTRAST)
    return (1 - strength) * first + strength * (WHITE if rng.random() < 0.6 else NAVY)


def _along(rng: random.Random) -> np.ndarray:
    """Pixels along a random direction, 0 in the middle (64, 64)."""
    angle = rng.uniform(0, 2 * np.pi)
    return (X - SIZE / 2) * np.cos(angle) + (Y - SIZE / 2) * np.sin(angle)


def _step(pixels: np.ndarray) -> np.ndarray:
    """Signed distance from an edge -> 0 to 1, one pixel wide."""
    return np.clip(pixels + 0.5, 0, 1)


def _plain(rng: random.Random) -> np.ndarray:
    return np.zeros((SIZE, SIZE))


def _graded(rng: random.Random) -> np.ndarray:
    if rng.random() < 0.3:
        distance = np.hypot(X - rng.uniform(16, 48), Y - rng.uniform(16, 48))
        return np.clip(distance / SIZE, 0, 1)
    return np.clip(_along(rng) / (1.2 * SIZE) + 0.5, 0, 1)


def _halved(rng: random.Random) -> np.ndarray:
    return _step(Y - rng.uniform(0.35, 0.75) * SIZE + rng.uniform(-0.15, 0.15) * (X - SIZE / 2))


def _striped(rng: random.Random) -> np.ndarray:
    period = rng.uniform(10, 24)
    return _step(period / 4 - np.abs((_along(rng) + rng.uniform(0, period)) % period - period / 2))


def _checked(rng: random.Random) -> np.ndarray:
    side, left, top = rng.uniform(7, 14), rng.uniform(0, 14), rng.uniform(0, 14)
    across, down = (side / 2 - np.abs((axis + start) % (2 * side) - side) for axis, start in ((X, left), (Y, top)))
    return np.abs(_step(across) - _step(down))


def _dotted(rng: random.Random) -> np.ndarray:
    spacing = rng.uniform(10, 16)
    radius, left, top = rng.uniform(0.2, 0.32) * spacing, rng.uniform(0, 16), rng.uniform(0, 16)
    across, down = ((axis + start) % spacing - spacing / 2 for axis, start in ((X, left), (Y, top)))
    return _step(radius - np.hypot(across, down))


COVERAGES: dict[str, Coverage] = {
    "plain": _plain,
    "graded": _graded,
    "halved": _halved,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
}
