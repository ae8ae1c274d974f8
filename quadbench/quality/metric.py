"""Metric: what a score is taken from: pairs of images, and a network where it looks through one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quadbench.artifacts.pixels import Pixels
from quadbench.artifacts.scores import Metric

Network = Callable[..., Any]  # images (N, 3, H, W) in [0, 1] -> features, or two such batches -> distances (N,)


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """An image and what it should be, of the same size; `source` is the image that both were made from, where there is one."""

    name: str
    image: Pixels
    reference: Pixels
    source: Pixels | None = None


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """Measured on each pair alone; the score is the mean."""

    measure: Callable[[ImagePair, Network], float]


@dataclass(frozen=True, kw_only=True)
class OverSet:
    """Measured on all pairs together."""

    measure: Callable[[Sequence[ImagePair], Network], float]


@dataclass(frozen=True, kw_only=True)
class ImageMetric:
    """A metric of images and what it needs: a network by its name in `weights.py`, sizes, a source image."""

    metric: Metric
    way: PerImage | OverSet
    network: str | None = None
    least_pixels: int = 1  # of the shorter side
    needs_source: bool = False
