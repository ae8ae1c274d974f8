"""Image scores: comparing the images of a run or folder with reference and ground-truth images by each metric."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from quadbench.artifacts import Bundle, Caveat, RunResult, Status, StoredBundle, TaskAssets, TaskItem, Variant
from quadbench.artifacts.pixels import Pixels, mask_of, read_pixels, size_of
from quadbench.artifacts.run_record import BetterDirection, ImageComparison, Score
from quadbench.errors import ArtifactError, UnknownNameError, UserError
from quadbench.quality.metrics import METRICS, ImageMetric, ImagePair, OverSet, PerImage
from quadbench.quality.networks import UserNetwork, find_network
from quadbench.results.layout import Layout

REFERENCE, TRUTH = "reference", "truth"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def score_images(
    pairs: Sequence[ImagePair], metrics: Iterable[str] | None = None, weights: Mapping[str, UserNetwork] | None = None
) -> tuple[Score, ...]:
    """Score pairs of image and reference. Return one Score per metric name in `metrics`, in that order; None means all metrics.

    `weights` maps a network's name to its file. A metric that lacks its inputs gets a score with the reason instead of a value.
    """
    named = list(METRICS if metrics is None else metrics)
    unknown = next((name for name in named if name not in METRICS), None)
    if unknown is not None:
        raise UnknownNameError("metric", unknown, METRICS)
    for pair in pairs:
        for other in (pair.reference, pair.source, pair.mask):
            if other is not None and other.shape[:2] != pair.image.shape[:2]:
                raise UserError(f"image '{pair.name}' is {size_of(pair.image)}; its reference, source or mask {size_of(other)}")
    with torch.no_grad():
        return tuple(_score(METRICS[name], pairs, weights or {}) for name in named)


def _score(metric: ImageMetric, pairs: Sequence[ImagePair], weights: Mapping[str, UserNetwork]) -> Score:
    network = find_network(metric.network, weights) if metric.network else (lambda images: images)
    if isinstance(network, str):
        return Score(metric=metric.metric, value=network, n=len(pairs))
    reason = _reason_without(metric, pairs)
    if reason is not None:
        return Score(metric=metric.metric, value=reason, n=len(pairs))
    match metric.way:
        case PerImage(measure=measure):
            values = [(measure(pair, network), pair.name) for pair in pairs]
            defined = [(value, name) for value, name in values if not math.isnan(value)]  # `n` counts only these
            if not defined:
                return Score(metric=metric.metric, value="undefined for every image", n=0)
            worst, item = (min if metric.metric.better is BetterDirection.HIGHER else max)(defined)
            mean = float(np.mean([value for value, _ in defined]))
            return Score(metric=metric.metric, value=mean, n=len(defined), worst=worst, worst_item=item)
        case OverSet(measure=measure_set):
            return Score(metric=metric.metric, value=measure_set(pairs, network), n=len(pairs))


def _reason_without(metric: ImageMetric, pairs: Sequence[ImagePair]) -> str | None:
    """Return why a metric cannot score the given image pairs, as text for a user, or None if it can score them."""
    if not pairs:
        return "no images"
    if isinstance(metric.way, OverSet) and len(pairs) < 2:
        return "only one image; at least 2 are needed"
    small = next((pair for pair in pairs if min(pair.image.shape[:2]) < metric.min_pixels), None)
    if small is not None:
        return f"images of {size_of(small.image)} are too small; the shorter side needs at least {metric.min_pixels} pixels"
    if metric.needs_source and any(pair.source is None for pair in pairs):
        return "no input image"
    if metric.needs_mask and any(pair.mask is None or not pair.mask.any() for pair in pairs):
        return "no mask"
    return None


def score_run_images(
    result: RunResult,
    layout: Layout,
    *,
    metrics: Sequence[str] | None = None,
    weights: Mapping[str, UserNetwork] | None = None,
) -> tuple[ImageComparison, ...]:
    """Score a run's images. Return an ImageComparison per task, device, variant and reference (float image or ground truth)."""
    refuse_random(result.bundle)
    compared: list[ImageComparison] = []
    for bundle in result.bundles:
        own = (
            ImageComparison(
                task=task.name,
                device=device,
                made=maker,
                against=against,
                scores=score_images(_pairs(task, paths, against, bundle), metrics, weights),
            )
            for task in bundle.artifact.tasks
            for device, maker, paths in _image_sets(task, bundle, result, layout)
            for against in (REFERENCE, TRUTH)
            if against != maker and (against != TRUTH or any(item.truth for item in task.items))
        )
        compared += with_devices(own, bundle, result)
    return tuple(compared)


def with_devices(compared: Iterable[ImageComparison], bundle: StoredBundle, result: RunResult) -> Iterator[ImageComparison]:
    """Yield ImageComparisons. If the run has several bundles, replace those with device None by one copy per `bundle` device."""
    for one in compared:
        if one.device is None and len(result.bundles) > 1:
            yield from (replace(one, device=device) for device in _devices(bundle, result))
        else:
            yield one


def _devices(bundle: StoredBundle, result: RunResult) -> list[str]:
    ran = [record.device for record in result.records if result.stored_bundle_on(record.device).folder == bundle.folder]
    return list(dict.fromkeys(device.address for device in ran))


def refuse_random(bundle: Bundle) -> None:
    """Raise a UserError if a bundle has random weights, as its images show only noise and cannot be scored."""
    if Caveat.RANDOM_WEIGHTS in bundle.caveats:
        raise UserError(
            f"the bundle of '{bundle.recipe_name}' has random weights; its pictures show only noise and cannot be scored",
            hint="run a recipe with a trained foundation model, such as quickstart",
        )


def score_folder_images(
    images: Path,
    references: Path,
    sources: Path | None = None,
    *,
    metrics: Sequence[str] | None = None,
    weights: Mapping[str, UserNetwork] | None = None,
) -> ImageComparison:
    """Score images in one folder against those in another. Images are paired by relative path without suffix."""
    paths = {folder: _files(folder) for folder in (images, references, *((sources,) if sources else ()))}
    for folder, files in paths.items():
        odd = sorted(paths[images].keys() ^ files.keys())
        if odd:
            unpaired = f"{', '.join(odd[:5])} ({len(odd)} in total)"
            raise UserError(f"'{images}' and '{folder}' have different images; only in one of them: {unpaired}")
    pairs = [
        ImagePair(
            name=name,
            image=_read(path, UserError),
            reference=_read(paths[references][name], UserError),
            source=_read(paths[sources][name], UserError) if sources else None,
        )
        for name, path in paths[images].items()
    ]
    scores = score_images(pairs, metrics, weights)
    return ImageComparison(task="images", device=None, made=str(images), against=str(references), scores=scores)


def _image_sets(
    task: TaskAssets, bundle: StoredBundle, result: RunResult, layout: Layout
) -> Iterator[tuple[str | None, str, Mapping[str, Path]]]:
    """Yield tuples (device address, variant, image paths by input) of a task. The float references come first, without device."""
    references = {item.name: bundle.path(item.reference) for item in task.items if item.reference}
    yield None, REFERENCE, references
    for device in _devices(bundle, result):
        of_device = [record for record in result.records if record.device.address == device]
        ran = {record.variant for record in of_device}
        # Float graphs are scored only if nothing else was measured; otherwise they only check parity with the reference.
        for variant in (v for v in Variant if v in ran and (v.is_quantized or len(ran) == 1)):
            images = [record.images for record in of_device if record.variant is variant and record.status is Status.OK]
            yield device, variant.value, _first(task.items, task.name, images, layout)


def _first(items: Iterable[TaskItem], task: str, images: Sequence[Mapping[str, str]], layout: Layout) -> dict[str, Path]:
    """Return a dict from input name to image path. Use the first launch that has an input's image. Omit inputs without one."""
    keys = {item.name: f"{task}/{item.name}" for item in items}
    return {
        name: layout.file(next(launch[key] for launch in images if key in launch))
        for name, key in keys.items()
        if any(key in launch for launch in images)
    }


def _pairs(task: TaskAssets, paths: Mapping[str, Path], against: str, bundle: StoredBundle) -> tuple[ImagePair, ...]:
    """Return ImagePairs of `paths` with ground truths if `against` is `truth`, else float references. Omit unpaired inputs."""
    others = {item.name: item.reference if against == REFERENCE else item.truth for item in task.items}
    return tuple(
        ImagePair(
            name=item.name,
            image=_read(paths[item.name], ArtifactError),
            reference=_read(bundle.path(other), ArtifactError),
            source=_read(bundle.path(item.image), ArtifactError) if item.image else None,
            mask=mask_of(_read(bundle.path(item.mask), ArtifactError)) if item.mask else None,
        )
        for item in task.items
        if item.name in paths and (other := others[item.name])
    )


def _files(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UserError(f"'{folder}' has no images; expected files that end in {', '.join(_SUFFIXES)}")
    named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    if len(named) < len(paths):
        raise UserError(f"'{folder}' has images that differ only in their suffix; expected one per name")
    return named


def _read(path: Path, error_class: type[UserError] | type[ArtifactError]) -> Pixels:
    try:
        return read_pixels(path)
    except (OSError, ValueError) as error:
        raise error_class(f"image '{path}' cannot be read: {error}") from error
