"""Images: the images of a launch and their references -> samples, and what is wrong with them."""

from collections.abc import Sequence
from pathlib import Path

from quadbench.artifacts import Bundle, ErrorClass, LaunchPlan, Sample, Stored, TaskAssets, TaskItem, Variant
from quadbench.artifacts.pixels import Pixels, check_png, max_abs_difference, psnr_db, read_pixels, size_of

# The float graph computes what the Python reference computes, so only the last bits and the rounding to 8 bits may differ.
FLOAT_MAX_DIFFERENCE = 2

# Quantization has no bound of its own; below this the picture is another one, and a time for it means nothing.
QUANTIZED_MIN_MEAN_PSNR_DB = 15.0


class WrongImageError(Exception):
    """An image that cannot be compared; the message says which and why, `error_class` whose fault it is."""

    def __init__(self, message: str, error_class: ErrorClass) -> None:
        super().__init__(message)
        self.error_class = error_class


def expected_images(tasks: Sequence[TaskAssets], launch: LaunchPlan) -> list[tuple[TaskAssets, TaskItem]]:
    """Return the task and item of every image that the launch must have painted: iteration i takes item i modulo their number."""
    longest = {task.name: max(b.iterations for b in launch.sequence if b.task == task.name) for task in tasks}
    return [(task, item) for task in tasks for item in task.items[: longest[task.name]]]


def image_samples(painted: Path, task: TaskAssets, item: TaskItem, bundle: Stored[Bundle]) -> list[Sample]:
    """Compare one painted image with its reference, and with the truth where there is one.

    Raises:
        WrongImageError: it cannot be read, or has another size than the reference.
    """
    name = f"{task.name}/{item.name}"
    image = _read(painted, name, ErrorClass.HARNESS, is_png=True)
    samples = []
    for against, file in (("reference", item.reference), ("truth", item.truth)):
        if file is None:
            continue
        other = _read(bundle.path(file), f"'{file.path}' of the bundle", ErrorClass.INFRASTRUCTURE)
        if image.shape != other.shape:
            raise WrongImageError(f"image {name} is {size_of(image)}, its {against} is {size_of(other)}", ErrorClass.HARNESS)
        labels = {"against": against}
        samples.append(Sample(metric="psnr_db", value=psnr_db(image, other), task=task.name, item=item.name, labels=labels))
        if against == "reference":
            worst = float(max_abs_difference(image, other))
            samples.append(Sample(metric="max_abs_difference", value=worst, task=task.name, item=item.name, labels=labels))
    return samples


def image_fault(variant: Variant, samples: Sequence[Sample]) -> str | None:
    """Say what is wrong with a launch's images, judged by the samples about them; None where nothing is."""
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


def _read(path: Path, name: str, error_class: ErrorClass, *, is_png: bool = False) -> Pixels:
    try:
        if is_png:
            check_png(path)
        return read_pixels(path)
    except (OSError, ValueError) as error:
        raise WrongImageError(f"image {name} cannot be read: {error}", error_class) from error
