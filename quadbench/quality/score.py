"""Score: pairs of images -> one score for each metric, or the reason why there is none."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from quadbench.artifacts.pixels import size_of
from quadbench.artifacts.scores import Better, Metric, Score
from quadbench.errors import UnknownNameError, UserError
from quadbench.quality.metric import ImageMetric, ImagePair, OverSet, PerImage
from quadbench.quality.metrics import METRICS
from quadbench.quality.networks import GivenNetwork, find_network


def score_images(
    pairs: Sequence[ImagePair], metrics: Iterable[str] | None = None, weights: Mapping[str, GivenNetwork] | None = None
) -> tuple[Score, ...]:
    """Score images against their references by the named metrics (None: all), in that order.

    `weights` maps a network's name to its file. A metric without what it needs has a score that says so, never another figure.

    Raises:
        UnknownNameError: there is no such metric.
        UserError: the images of a pair differ in size, or a network has not the form that the metric takes.
        ArtifactError: a network's file has another sha256 than it should have.
    """
    named = list(METRICS if metrics is None else metrics)
    unknown = next((name for name in named if name not in METRICS), None)
    if unknown is not None:
        raise UnknownNameError("metric", unknown, METRICS)
    for pair in pairs:
        for other in (pair.reference, pair.source, pair.mask):
            if other is not None and other.shape[:2] != pair.image.shape[:2]:
                raise UserError(f"image '{pair.name}' is {size_of(pair.image)}, what it is held against {size_of(other)}")
    with torch.no_grad():
        return tuple(_score(METRICS[name], pairs, weights or {}) for name in named)


def _score(metric: ImageMetric, pairs: Sequence[ImagePair], weights: Mapping[str, GivenNetwork]) -> Score:
    network = find_network(metric.network, weights) if metric.network else _pixels
    if isinstance(network, str):
        return Score(metric=metric.metric, value=network, n=len(pairs))
    reason = _reason_without(metric, pairs)
    if reason is not None:
        return Score(metric=metric.metric, value=reason, n=len(pairs))
    match metric.way:
        case PerImage(measure=measure):
            return _over_images(metric.metric, pairs, [measure(pair, network) for pair in pairs])
        case OverSet(measure=measure_set):
            return Score(metric=metric.metric, value=measure_set(pairs, network), n=len(pairs))


def _over_images(metric: Metric, pairs: Sequence[ImagePair], values: Sequence[float]) -> Score:
    """Return the mean; images on which the metric is undefined are left out and `n` does not count them."""
    defined = [(value, pair.name) for value, pair in zip(values, pairs, strict=True) if not math.isnan(value)]
    if not defined:
        return Score(metric=metric, value="undefined on every image", n=0)
    worst, item = (min if metric.better is Better.HIGHER else max)(defined)
    mean = float(np.mean([value for value, _ in defined]))
    return Score(metric=metric, value=mean, n=len(defined), worst=worst, worst_item=item)


def _reason_without(metric: ImageMetric, pairs: Sequence[ImagePair]) -> str | None:
    """Say why these pairs have no score; None if they have one."""
    if not pairs:
        return "no images"
    if isinstance(metric.way, OverSet) and len(pairs) < 2:
        return "one image is no distribution; at least 2 are needed"
    small = next((pair for pair in pairs if min(pair.image.shape[:2]) < metric.least_pixels), None)
    if small is not None:
        return f"images of {size_of(small.image)} are too small; the shorter side needs {metric.least_pixels} pixels"
    if metric.needs_source and any(pair.source is None for pair in pairs):
        return "no input image to start from"
    if metric.needs_mask and any(pair.mask is None or not pair.mask.any() for pair in pairs):
        return "no mask"
    return None


def _pixels(images: torch.Tensor) -> torch.Tensor:
    """Return the images themselves: the network of metrics that look at pixels."""
    return images
