"""Fidelity: pairs, or tensors, sample for sample -> SSIM, SQNR, cosine similarity."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from quadbench.artifacts.pixels import Pixels

Values = NDArray[np.floating]


def as_batch(pixels: Pixels) -> torch.Tensor:
    """(H, W, 3) of 8 bits -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels, np.float32)).permute(2, 0, 1)[None] / 255


def ssim(image: Pixels, other: Pixels) -> float:
    """Structural similarity (Wang et al. 2004) of RGB in [0, 1]: Gaussian window of 11 pixels, sigma 1.5, K1 0.01, K2 0.03.

    Computed for each channel at the images' own size, without the border where the window does not fit, then averaged.
    """
    batches = (as_batch(pixels).double() for pixels in (image, other))  # float's rounding would be seen in flat regions
    return float(structural_similarity_index_measure(*batches, data_range=1.0))


def sqnr_db(exact: Sequence[Values], found: Sequence[Values]) -> float:
    """10 log10(sum exact^2 / sum (found - exact)^2), the sums over all arrays together; infinite where nothing differs."""
    signal = sum(float(np.square(e, dtype=np.float64).sum()) for e in exact)
    noise = sum(float(np.square(f.astype(np.float64) - e).sum()) for e, f in zip(exact, found, strict=True))
    return 10 * math.log10(signal / noise) if noise else math.inf


def cosine(first: Values, second: Values) -> float:
    """Cosine of the angle between two arrays, each as one vector; NaN where one of them is zero."""
    a, b = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else math.nan
