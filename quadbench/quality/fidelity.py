"""Fidelity: images or arrays, value by value -> SSIM, SQNR, cosine similarity."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from quadbench.artifacts.pixels import Pixels
from quadbench.quad.divergence import decibels

Values = NDArray[np.floating]


def as_batch(pixels: Pixels) -> torch.Tensor:
    """Turn (H, W, 3) of 8 bits into (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels, np.float32)).permute(2, 0, 1)[None] / 255


def ssim(image: Pixels, other: Pixels) -> float:
    """Return the structural similarity (Wang et al. 2004) of RGB in [0, 1]: Gaussian window of 11, sigma 1.5, K1 0.01, K2 0.03.

    It is computed for each channel at the images' own size, without the border where the window does not fit, then averaged.
    """
    batches = (as_batch(pixels).double() for pixels in (image, other))  # float's rounding would be seen in flat regions
    return float(structural_similarity_index_measure(*batches, data_range=1.0))


def sqnr_db(exact: Sequence[Values], quantized: Sequence[Values]) -> float:
    """Return 10 log10(sum exact^2 / sum (quantized - exact)^2), the sums over all arrays; infinite where nothing differs."""
    signal = sum(float(np.square(e, dtype=np.float64).sum()) for e in exact)
    noise = sum(float(np.square(q.astype(np.float64) - e).sum()) for e, q in zip(exact, quantized, strict=True))
    return decibels(signal, noise)


def cosine(first: Values, second: Values) -> float:
    """Return the cosine of the angle between two arrays, each as one vector; NaN where one of them is zero."""
    a, b = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else math.nan
