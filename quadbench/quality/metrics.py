"""Quality metrics: the formulas that compare images or arrays, and the table of image metrics with the networks they need."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.pixels import Pixels, psnr_db
from quadbench.artifacts.run_record import Metric
from quadbench.quad.divergence import decibels, energies
from quadbench.quality.networks import MIN_PIXELS, Network

Values = NDArray[np.floating]
Features = NDArray[np.floating]  # (n, d); row i of both sets belongs to the same image pair


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """An image and its reference of equal size, 8-bit RGB. `source` is the input image of both, or None if absent.
    `mask` (H, W) is true at repainted pixels. It is None if all pixels were repainted, or if the repainted ones are unknown.
    """

    name: str
    image: Pixels
    reference: Pixels
    source: Pixels | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """A metric computed per image pair and averaged. `measure` takes a pair and a network, and returns the pair's value."""

    measure: Callable[[ImagePair, Network], float]


@dataclass(frozen=True, kw_only=True)
class OverSet:
    """A metric of all image pairs at once, such as FID. `measure` takes the pairs and a network, and returns one value."""

    measure: Callable[[Sequence[ImagePair], Network], float]


@dataclass(frozen=True, kw_only=True)
class ImageMetric:
    """An image metric, its network's name, its minimum image side in pixels, and whether it needs source images or masks."""

    metric: Metric
    way: PerImage | OverSet
    network: str | None = None
    min_pixels: int = 1  # of an image's shorter side
    needs_source: bool = False
    needs_mask: bool = False


def as_batch(pixels: Pixels) -> torch.Tensor:
    """Return 8-bit pixels (H, W, 3) as a float batch (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels, np.float32)).permute(2, 0, 1)[None] / 255


def ssim(image: Pixels, other: Pixels) -> float:
    """Return the SSIM (Wang et al. 2004) of RGB images in [0, 1]: 11-pixel Gaussian window, sigma 1.5, K1 0.01, K2 0.03.

    It is computed per channel at the images' own size, without the border where the window does not fit, then averaged.
    """
    batches = (as_batch(pixels).double() for pixels in (image, other))  # rounding of float32 would show in flat regions
    return float(structural_similarity_index_measure(*batches, data_range=1.0))


def sqnr_db(exact: Sequence[Values], quantized: Sequence[Values]) -> float:
    """Return the SQNR in dB over all array pairs: 10 log10(sum exact^2 / sum (quantized - exact)^2). Infinite if equal."""
    pairs = [energies(e, q) for e, q in zip(exact, quantized, strict=True)]
    return decibels(sum(signal for signal, _ in pairs), sum(noise for _, noise in pairs))


def cosine(first: Values, second: Values) -> float:
    """Return the cosine of the angle between two arrays as vectors; NaN if one of them is zero."""
    a, b = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else math.nan


def kernel_distance(first: Features, second: Features) -> float:
    """Return the KID, the squared MMD with kernel (x.y / d + 1)^3 and d features (Binkowski et al. 2018, arXiv 1801.01401).

    The estimate is the U-statistic over pairs of pairs (Gretton et al. 2012, JMLR 13, eq. 4): the mean over i != j of k(x_i, x_j)
    + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i). It stays unbiased if x_i and y_i belong together, as a quantized image and its
    reference do, and is 0 for equal sets; the usual estimate treats x_i and y_i as independent. No images are drawn at random.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    h = _kernel(x, x) + _kernel(y, y) - _kernel(x, y) - _kernel(y, x)
    n = len(x)
    return float((h.sum() - np.trace(h)) / (n * (n - 1)))


def _kernel(x: Features, y: Features) -> Features:
    return (x @ y.T / x.shape[1] + 1) ** 3


def frechet_distance(first: Features, second: Features) -> float:
    """Return the FID of two sets of features, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, arXiv 1706.08500).
    m1 and m2 are the means, C1 and C2 the covariances with divisor n - 1.

    With C = A'A, A the centred features / sqrt(n - 1), the last trace is the nuclear norm of A1 A2'. This is exact also for n <
    d, where the matrix square root of the singular C1 C2 is not.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    a, b = (x - mean_x) / np.sqrt(len(x) - 1), (y - mean_y) / np.sqrt(len(y) - 1)
    triangle_a, triangle_b = np.linalg.qr(a)[1], np.linalg.qr(b)[1]  # at most (d, d): Q changes no singular value
    cross = np.linalg.norm(triangle_a @ triangle_b.T, "nuc")
    distance = np.square(mean_x - mean_y).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross
    return max(0.0, float(distance))


def similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the cosine similarity of two embeddings (1, d)."""
    return float(F.cosine_similarity(first, second).mean())


def direction_similarity(image: torch.Tensor, reference: torch.Tensor, source: torch.Tensor) -> float:
    """Return the cosine similarity of two differences of embeddings: image minus source, and reference minus source.

    Each embedding (1, d) is scaled to length 1. NaN if image or reference has the same embedding as the source.
    """
    start = F.normalize(source)
    ways = [F.normalize(end) - start for end in (image, reference)]
    if any(float(way.norm()) == 0 for way in ways):
        return math.nan
    return similarity(*ways)


def structure_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the mean squared difference between the self-similarities (cosines of all token pairs) of two token sets."""
    return float(F.mse_loss(_self_similarity(first), _self_similarity(second)))


def _self_similarity(tokens: torch.Tensor) -> torch.Tensor:
    unit = F.normalize(tokens[0], dim=-1)  # (T, d)
    return unit @ unit.T  # (T, T)


def _distance(pair: ImagePair, network: Network) -> float:
    return float(network(as_batch(pair.image), as_batch(pair.reference)))


def _of_both(measure: Callable[[torch.Tensor, torch.Tensor], float]) -> PerImage:
    """Return a PerImage metric whose value is `measure(network(image), network(reference))`, a float."""
    return PerImage(measure=lambda pair, network: measure(network(as_batch(pair.image)), network(as_batch(pair.reference))))


def _direction(pair: ImagePair, network: Network) -> float:
    assert pair.source is not None
    return direction_similarity(*(network(as_batch(pixels)) for pixels in (pair.image, pair.reference, pair.source)))


def _features(pairs: Sequence[ImagePair], network: Network) -> tuple[Features, Features]:
    """Return two arrays (n, d) of a network's features: those of the images, and those of their references."""
    images = torch.cat([network(as_batch(pair.image)) for pair in pairs])
    references = torch.cat([network(as_batch(pair.reference)) for pair in pairs])
    return images.numpy(), references.numpy()


_ALL = (
    ImageMetric(metric=PICTURE_METRICS["psnr"], way=PerImage(measure=lambda pair, _: psnr_db(pair.image, pair.reference))),
    ImageMetric(
        metric=PICTURE_METRICS["psnr_masked"],
        way=PerImage(measure=lambda pair, _: psnr_db(pair.image, pair.reference, within=pair.mask)),
        needs_mask=True,
    ),
    ImageMetric(
        metric=PICTURE_METRICS["ssim"], way=PerImage(measure=lambda pair, _: ssim(pair.image, pair.reference)), min_pixels=11
    ),
    ImageMetric(metric=PICTURE_METRICS["st_lpips"], way=PerImage(measure=_distance), network="st-lpips", min_pixels=MIN_PIXELS),
    ImageMetric(
        metric=PICTURE_METRICS["kid"],
        way=OverSet(measure=lambda pairs, network: kernel_distance(*_features(pairs, network))),
        network="efficientnet-lite0",
    ),
    ImageMetric(
        metric=PICTURE_METRICS["fid"],
        way=OverSet(measure=lambda pairs, network: frechet_distance(*_features(pairs, network))),
        network="inception",
    ),
    ImageMetric(metric=PICTURE_METRICS["lpips"], way=PerImage(measure=_distance), network="lpips"),
    ImageMetric(metric=PICTURE_METRICS["clip_similarity"], way=_of_both(similarity), network="clip"),
    ImageMetric(metric=PICTURE_METRICS["clip_direction"], way=PerImage(measure=_direction), network="clip", needs_source=True),
    ImageMetric(metric=PICTURE_METRICS["dino_structure"], way=_of_both(structure_distance), network="dino"),
)


METRICS: dict[str, ImageMetric] = {entry.metric.name: entry for entry in _ALL}
