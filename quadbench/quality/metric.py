"""Metric: pairs of images, and the network that they are looked at through, if any -> figures; each metric with its needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadbench.artifacts.pixels import Pixels
from quadbench.artifacts.scores import Metric

Network = Callable[..., Any]  # images (N, 3, H, W) in [0, 1] -> features, or two such batches -> distances (N,)


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """An image and its reference, of the same size; `source` is the image that both were made from, if there is one.

    `mask` (H, W) is true where both were painted anew; None where all of them was, or nothing says so.
    """

    name: str
    image: Pixels
    reference: Pixels
    source: Pixels | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """A measure of each pair alone; the score is the mean."""

    measure: Callable[[ImagePair, Network], float]


@dataclass(frozen=True, kw_only=True)
class OverSet:
    """A measure of all pairs together."""

    measure: Callable[[Sequence[ImagePair], Network], float]


@dataclass(frozen=True, kw_only=True)
class ImageMetric:
    """A metric of images and what it needs: a network by its name in `networks.py`, sizes, a source image, a mask."""

    metric: Metric
    way: PerImage | OverSet
    network: str | None = None
    least_pixels: int = 1  # of the shorter side
    needs_source: bool = False
    needs_mask: bool = False
