"""Pictures of a run: input, output, and how far it is from the reference, also pixel by pixel."""

import io
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image

from quadbench.artifacts import Bundle, DeviceFacts, FileRef, RunRecord, RunResult, Stored, TaskAssets, TaskItem, Variant
from quadbench.artifacts.pixels import Pixels, read_pixels
from quadbench.report.launches import devices_of, launches_of, sound, typical, values, why_absent
from quadbench.report.scores import MADE
from quadbench.results.layout import Layout

SHOWN_ITEMS = 4  # a task's further items are folded away


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image. `path` is None where there is no image to show, and `note` says why.

    Where there is a path in `apart_from`, how far the image is from that one is shown in its place.
    """

    label: str
    path: Path | None
    apart_from: Path | None = None
    psnr_db: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ItemPictures:
    """An evaluation input with the images that belong to it."""

    name: str
    prompt: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class TaskPictures:
    """A task's items, as one device made them."""

    task: TaskAssets
    device: DeviceFacts
    shown: tuple[ItemPictures, ...]
    folded: tuple[ItemPictures, ...]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Mean PSNR over a task's items on one device, in decibels. A text in place of a figure says why there is none."""

    device: DeviceFacts
    task: str
    items: int
    shared_reference: float | str
    per_graph_reference: float | str
    shared_truth: float | str
    per_graph_truth: float | str


def task_pictures(result: RunResult, layout: Layout) -> tuple[TaskPictures, ...]:
    """Return the pictures of the first device that made any, task by task."""
    device = next((device for device in devices_of(result) if _makers(result, device)), None)
    return () if device is None else tuple(_task(result, layout, device, task) for task in result.bundle_on(device).tasks)


def quality_rows(result: RunResult) -> tuple[Quality, ...]:
    """Return the mean PSNR of every device and task."""
    return tuple(_quality(result, device, task) for device in devices_of(result) for task in result.bundle_on(device).tasks)


def _makers(result: RunResult, device: DeviceFacts) -> bool:
    return any(record.images for variant in Variant for record in sound(launches_of(result, device, variant)))


def _task(result: RunResult, layout: Layout, device: DeviceFacts, task: TaskAssets) -> TaskPictures:
    items = tuple(
        ItemPictures(name=item.name, prompt=item.prompt, pictures=_pictures(result, layout, device, task, item))
        for item in task.items
    )
    return TaskPictures(task=task, device=device, shown=items[:SHOWN_ITEMS], folded=items[SHOWN_ITEMS:])


def _pictures(result: RunResult, layout: Layout, device: DeviceFacts, task: TaskAssets, item: TaskItem) -> tuple[Picture, ...]:
    given = (("Input", item.image), ("Mask", item.mask), ("Float reference", item.reference))
    bundle = result.stored_on(device)
    pictures = [_given(bundle, label, file) for label, file in given if file is not None]
    for variant in (variant for variant in Variant if variant.is_quantized):
        label, launches = MADE[variant], launches_of(result, device, variant)
        if not launches and variant not in (Variant.SHARED, Variant.PER_GRAPH):
            continue  # these two stand even where they have no picture, with the reason
        picture = _drawn(label, layout, launches, f"{task.name}/{item.name}")
        pictures.append(picture)
        if picture.path is not None and item.reference is not None:
            apart = f"{label}, difference × {AMPLIFIED}"
            pictures.append(Picture(label=apart, path=picture.path, apart_from=bundle.path(item.reference)))
    if item.truth is not None:
        pictures.append(_given(bundle, "Truth", item.truth))
    return tuple(pictures)


def _given(bundle: Stored[Bundle], label: str, file: FileRef) -> Picture:
    return Picture(label=label, path=bundle.path(file))


def _drawn(label: str, layout: Layout, records: tuple[RunRecord, ...], key: str) -> Picture:
    record = next((record for record in sound(records) if key in record.images), None)
    if record is None:
        return Picture(label=label, path=None, note=why_absent(records))
    task, item = key.split("/", 1)
    psnr_db = typical(record, "psnr_db", lambda s: (s.task, s.item, s.labels.get("against")) == (task, item, "reference"))
    return Picture(label=label, path=layout.file(record.images[key]), psnr_db=psnr_db)


def _quality(result: RunResult, device: DeviceFacts, task: TaskAssets) -> Quality:
    has_reference, has_truth = any(item.reference for item in task.items), any(item.truth for item in task.items)

    def psnr_db(variant: Variant, against: str) -> float | str:
        records = launches_of(result, device, variant)
        measured = [
            value
            for record in sound(records)
            for value in values(record, "psnr_db", lambda s: s.task == task.name and s.labels.get("against") == against)
        ]
        if not measured and not has_reference:
            return "random weights"
        return mean(measured) if measured else why_absent(records)

    return Quality(
        device=device,
        task=task.name,
        items=len(task.items),
        shared_reference=psnr_db(Variant.SHARED, "reference"),
        per_graph_reference=psnr_db(Variant.PER_GRAPH, "reference"),
        shared_truth=psnr_db(Variant.SHARED, "truth") if has_truth else "no truth given",
        per_graph_truth=psnr_db(Variant.PER_GRAPH, "truth") if has_truth else "no truth given",
    )


AMPLIFIED = 8
_MOST_WIDTH = 128  # as wide as a report shows it


def difference_png(one: Path, other: Path) -> bytes:
    """Return the amplified difference of two pictures of one size; of a large one the largest in each patch.

    Raises:
        OSError, ValueError: one cannot be read, or their sizes differ.
    """
    first, second = read_pixels(one), read_pixels(other)
    if first.shape != second.shape:
        raise ValueError("the pictures have different sizes")
    apart = np.abs(first.astype(np.int16) - second.astype(np.int16))
    out = io.BytesIO()
    Image.fromarray(_reduced(np.minimum(apart * AMPLIFIED, 255).astype(np.uint8))).save(out, format="PNG")
    return out.getvalue()


def _reduced(pixels: Pixels) -> Pixels:
    """Return the largest of each square patch, so many that the width is what is shown."""
    side = -(-pixels.shape[1] // _MOST_WIDTH)
    height, width = (length // side * side for length in pixels.shape[:2])
    patches = pixels[:height, :width].reshape(height // side, side, width // side, side, 3)  # (rows, side, columns, side, RGB)
    largest: Pixels = patches.max(axis=(1, 3))
    return largest
