"""Images: what a launch painted, against the references -> samples, and whether it is right at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from quadbench.artifacts import ErrorClass, Sample, TaskAssets, TaskItem, Variant
from quadbench.plan import LaunchPlan

# Equal images have an infinite PSNR, which neither JSON nor every database can hold. One step in one of 512 x 512 x 3 values
# gives 107 dB, one in 64 x 64 x 3 gives 89: at 99 nobody sees a difference.
PSNR_CAP_DB = 99.0

# The float graph computes what the Python reference computes, so only the last bits and the rounding to 8 bits may differ.
FLOAT_MAX_DIFFERENCE = 2

# Quantization has no bound of its own; below this the picture is another one, and a time for it means nothing.
QUANTIZED_MIN_MEAN_PSNR_DB = 15.0

Pixels = NDArray[np.uint8]  # (H, W, 3)


class WrongImageError(Exception):
    """An image that cannot be compared; the message says which and why, `error_class` whose fault it is."""

    def __init__(self, message: str, error_class: ErrorClass) -> None:
        super().__init__(message)
        self.error_class = error_class


def expected_images(tasks: Sequence[TaskAssets], launch: LaunchPlan) -> list[tuple[TaskAssets, TaskItem]]:
    """The task and item of every image that the launch must have painted: iteration i takes item i modulo their number."""
    longest = {task.name: max(b.iterations for b in launch.sequence if b.task == task.name) for task in tasks}
    return [(task, item) for task in tasks for item in task.items[: longest[task.name]]]


def image_samples(painted: Path, task: TaskAssets, item: TaskItem, bundle_folder: Path) -> list[Sample]:
    """Compare one painted image with its reference, and with the truth where there is one.

    Raises:
        WrongImageError: it cannot be read, or has another size than the reference.
    """
    name = f"{task.name}/{item.name}"
    image = _read(painted, name, ErrorClass.HARNESS)
    samples = []
    for against, file in (("reference", item.reference), ("truth", item.truth)):
        if file is None:
            continue
        other = _read(bundle_folder / file.path, f"'{file.path}' of the bundle", ErrorClass.INFRASTRUCTURE)
        if image.shape != other.shape:
            raise WrongImageError(f"image {name} is {_size(image)}, its {against} is {_size(other)}", ErrorClass.HARNESS)
        labels = {"against": against}
        samples.append(Sample(metric="psnr_db", value=psnr_db(image, other), task=task.name, item=item.name, labels=labels))
        if against == "reference":
            worst = float(max_abs_difference(image, other))
            samples.append(Sample(metric="max_abs_difference", value=worst, task=task.name, item=item.name, labels=labels))
    return samples


def verdict(variant: Variant, samples: Sequence[Sample]) -> str | None:
    """What is wrong with a launch's images, from the samples about them; None where nothing is."""
    if variant is Variant.FLOAT:
        return _parity(samples)
    against_reference = [s for s in samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]
    if not against_reference:
        return None
    mean = sum(sample.value for sample in against_reference) / len(against_reference)
    if mean >= QUANTIZED_MIN_MEAN_PSNR_DB:
        return None
    worst = min(against_reference, key=lambda sample: sample.value)
    return (
        f"fast and wrong: mean PSNR against the reference is {mean:.1f} dB, expected at least {QUANTIZED_MIN_MEAN_PSNR_DB:g}; "
        f"the worst is {worst.task}/{worst.item} with {worst.value:.1f} dB"
    )


def psnr_db(image: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of 8-bit images, in dB, at most PSNR_CAP_DB."""
    mean_square = float(np.mean((image.astype(np.float64) - other) ** 2))
    return PSNR_CAP_DB if mean_square == 0 else min(PSNR_CAP_DB, float(10 * np.log10(255**2 / mean_square)))


def max_abs_difference(image: Pixels, other: Pixels) -> int:
    """The largest difference of any pixel in any channel, in steps of 1/255."""
    return int(np.max(np.abs(image.astype(np.int16) - other)))


def _parity(samples: Sequence[Sample]) -> str | None:
    differences = [sample for sample in samples if sample.metric == "max_abs_difference"]
    wrong = [sample for sample in differences if sample.value > FLOAT_MAX_DIFFERENCE]
    if not wrong:
        return None
    worst = max(wrong, key=lambda sample: sample.value)
    return (
        f"parity: {worst.task}/{worst.item} differs from the Python reference by {worst.value:.0f}/255, "
        f"at most {FLOAT_MAX_DIFFERENCE}/255 allowed ({len(wrong)} of {len(differences)} images differ by more)"
    )


def _read(path: Path, name: str, error_class: ErrorClass) -> Pixels:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say that a PNG is damaged
        raise WrongImageError(f"image {name} cannot be read: {error}", error_class) from error


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
