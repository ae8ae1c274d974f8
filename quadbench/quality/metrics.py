"""Metrics: the figures of quality by name, each with its definition, its measure and its needs."""

from collections.abc import Sequence

import torch

from quadbench.artifacts.pixels import PSNR_CAP_DB, psnr_db
from quadbench.artifacts.scores import Better, Metric
from quadbench.quality.distribution import Features, frechet_distance, kernel_distance
from quadbench.quality.embedding import direction_similarity, similarity, structure_distance
from quadbench.quality.fidelity import as_batch, ssim
from quadbench.quality.metric import ImageMetric, ImagePair, Network, OverSet, PerImage
from quadbench.quality.stlpips import LEAST_PIXELS

_PSNR = Metric(
    name="psnr",
    title="PSNR",
    unit="dB",
    better=Better.HIGHER,
    definition=f"Peak signal-to-noise ratio of 8-bit RGB at its own size, at most {PSNR_CAP_DB:g}; mean over images.",
)
_SSIM = Metric(
    name="ssim",
    title="SSIM",
    unit="",
    better=Better.HIGHER,
    definition="Structural similarity (Wang et al. 2004) of RGB in [0, 1], data range 1, Gaussian window of 11, sigma 1.5, "
    "at the image's own size; mean over channels and images.",
)
_ST_LPIPS = Metric(
    name="st_lpips",
    title="ST-LPIPS",
    unit="",
    better=Better.LOWER,
    definition="Shift-tolerant perceptual distance, AlexNet (Ghildyal and Liu 2022), at the image's own size; mean over images. "
    "Not LPIPS: the scales differ.",
)
_KID = Metric(
    name="kid",
    title="KID (EfficientNet-Lite0)",
    unit="",
    better=Better.LOWER,
    definition="Unbiased MMD^2, kernel (x.y/d + 1)^3, of EfficientNet-Lite0's pooled features, images stretched to 224 x 224. "
    "It can be negative, says little over few images and is not comparable with a KID on Inception's features.",
)
_FID = Metric(
    name="fid",
    title="FID",
    unit="",
    better=Better.LOWER,
    definition="Fréchet distance of the given Inception network's features, images stretched to 299 x 299. "
    "Biased upwards over few images: compare only equal n.",
)
_LPIPS = Metric(
    name="lpips",
    title="LPIPS",
    unit="",
    better=Better.LOWER,
    definition="Perceptual distance (Zhang et al. 2018) by the given network, at the image's own size; mean over images.",
)
_CLIP_SIMILARITY = Metric(
    name="clip_similarity",
    title="CLIP similarity",
    unit="",
    better=Better.HIGHER,
    definition="Cosine of the given CLIP network's embeddings of both images, stretched to 224 x 224; mean over images.",
)
_CLIP_DIRECTION = Metric(
    name="clip_direction",
    title="CLIP direction",
    unit="",
    better=Better.HIGHER,
    definition="Cosine of the ways from the input's CLIP embedding to those of both images, stretched to 224 x 224; no captions; "
    "mean over images.",
)
_DINO_STRUCTURE = Metric(
    name="dino_structure",
    title="DINO structure",
    unit="",
    better=Better.LOWER,
    definition="Mean squared difference of the self-similarities of the given DINO network's last keys (Tumanyan et al. 2022), "
    "images stretched to 224 x 224; mean over images.",
)


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
    ImageMetric(metric=_PSNR, way=PerImage(measure=lambda pair, _: psnr_db(pair.image, pair.reference))),
    ImageMetric(metric=_SSIM, way=PerImage(measure=lambda pair, _: ssim(pair.image, pair.reference)), least_pixels=11),
    ImageMetric(metric=_ST_LPIPS, way=PerImage(measure=_distance), network="st-lpips", least_pixels=LEAST_PIXELS),
    ImageMetric(
        metric=_KID,
        way=OverSet(measure=lambda pairs, network: kernel_distance(*_features(pairs, network))),
        network="efficientnet-lite0",
    ),
    ImageMetric(
        metric=_FID, way=OverSet(measure=lambda pairs, network: frechet_distance(*_features(pairs, network))), network="inception"
    ),
    ImageMetric(metric=_LPIPS, way=PerImage(measure=_distance), network="lpips"),
    ImageMetric(metric=_CLIP_SIMILARITY, way=PerImage(measure=_similarity), network="clip"),
    ImageMetric(metric=_CLIP_DIRECTION, way=PerImage(measure=_direction), network="clip", needs_source=True),
    ImageMetric(metric=_DINO_STRUCTURE, way=PerImage(measure=_structure), network="dino"),
)
METRICS: dict[str, ImageMetric] = {entry.metric.name: entry for entry in _ALL}
