"""Pixels: two 8-bit images -> how far they are apart."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Equal images have an infinite PSNR, which neither JSON nor every database can hold. One step in one of 512 x 512 x 3 values
# gives 107 dB, one in 64 x 64 x 3 gives 89: at 99 nobody sees a difference.
PSNR_CAP_DB = 99.0

Pixels = NDArray[np.uint8]  # (H, W, 3)


def read_pixels(path: Path) -> Pixels:
    """An image file as 8-bit RGB.

    Raises:
        OSError, SyntaxError, ValueError: Pillow's ways to say that it is missing or damaged.
    """
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def psnr_db(image: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of 8-bit images, in dB, at most PSNR_CAP_DB."""
    mean_square = float(np.mean((image.astype(np.float64) - other) ** 2))
    return PSNR_CAP_DB if mean_square == 0 else min(PSNR_CAP_DB, float(10 * np.log10(255**2 / mean_square)))


def max_abs_difference(image: Pixels, other: Pixels) -> int:
    """The largest difference of any pixel in any channel, in steps of 1/255."""
    return int(np.max(np.abs(image.astype(np.int16) - other)))


def size_of(pixels: Pixels) -> str:
    """Width x height, for messages."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
