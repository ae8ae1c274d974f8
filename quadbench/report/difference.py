"""Difference: two pictures -> a PNG of how far they are apart, pixel by pixel, amplified so that people see it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from quadbench.artifacts.pixels import Pixels, read_pixels

AMPLIFIED = 8
_MOST_WIDTH = 128  # as wide as a report shows it


def difference_png(one: Path, other: Path) -> bytes:
    """Return the amplified difference of two pictures of one size; of a large one the largest in each patch.

    Raises:
        OSError, ValueError: one cannot be read, or their sizes differ.
    """
    first, second = read_pixels(one), read_pixels(other)
    if first.shape != second.shape:
        raise ValueError("the pictures have different sizes")
    apart = np.abs(first.astype(np.int16) - second.astype(np.int16))
    out = io.BytesIO()
    Image.fromarray(_reduced(np.minimum(apart * AMPLIFIED, 255).astype(np.uint8))).save(out, format="PNG")
    return out.getvalue()


def _reduced(pixels: Pixels) -> Pixels:
    """Return the largest of each square patch, so many that the width is what is shown."""
    side = -(-pixels.shape[1] // _MOST_WIDTH)
    height, width = (length // side * side for length in pixels.shape[:2])
    patches = pixels[:height, :width].reshape(height // side, side, width // side, side, 3)  # (rows, side, columns, side, RGB)
    largest: Pixels = patches.max(axis=(1, 3))
    return largest
