"""Metrics: the metrics of pictures by name, each with its measure and its needs."""

from collections.abc import Sequence

import torch

from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.pixels import psnr_db
from quadbench.quality.distribution import Features, frechet_distance, kernel_distance
from quadbench.quality.embedding import direction_similarity, similarity, structure_distance
from quadbench.quality.fidelity import as_batch, ssim
from quadbench.quality.metric import ImageMetric, ImagePair, Network, OverSet, PerImage
from quadbench.quality.stlpips import LEAST_PIXELS


def _distance(pair: ImagePair, network: Network) -> float:
    return float(network(as_batch(pair.image), as_batch(pair.reference)))


def _similarity(pair: ImagePair, network: Network) -> float:
    return similarity(network(as_batch(pair.image)), network(as_batch(pair.reference)))


def _direction(pair: ImagePair, network: Network) -> float:
    assert pair.source is not None
    return direction_similarity(*(network(as_batch(pixels)) for pixels in (pair.image, pair.reference, pair.source)))


def _structure(pair: ImagePair, network: Network) -> float:
    return structure_distance(network(as_batch(pair.image)), network(as_batch(pair.reference)))


def _features(pairs: Sequence[ImagePair], network: Network) -> tuple[Features, Features]:
    """Return the features (n, d) of the images, and those of the references."""
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
        metric=PICTURE_METRICS["ssim"], way=PerImage(measure=lambda pair, _: ssim(pair.image, pair.reference)), least_pixels=11
    ),
    ImageMetric(
        metric=PICTURE_METRICS["st_lpips"], way=PerImage(measure=_distance), network="st-lpips", least_pixels=LEAST_PIXELS
    ),
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
    ImageMetric(metric=PICTURE_METRICS["clip_similarity"], way=PerImage(measure=_similarity), network="clip"),
    ImageMetric(metric=PICTURE_METRICS["clip_direction"], way=PerImage(measure=_direction), network="clip", needs_source=True),
    ImageMetric(metric=PICTURE_METRICS["dino_structure"], way=PerImage(measure=_structure), network="dino"),
)
METRICS: dict[str, ImageMetric] = {entry.metric.name: entry for entry in _ALL}
