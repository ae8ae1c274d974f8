"""Samples that the program on the device does not report: image quality, integer kernel counts, and file sizes."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from quadbench.artifacts import Bundle, ErrorClass, FileRef, LaunchPlan, Sample, StoredBundle
from quadbench.artifacts.bundle import KERNEL_NODES, CompiledBundle, Component, Graph, TaskAssets, TaskItem, Variant
from quadbench.artifacts.pixels import Pixels, check_png, mask_of, max_abs_difference, psnr_db, read_pixels, size_of
from quadbench.artifacts.run_record import adapters_of, components_of, tasks_of, unets_of
from quadbench.devices import Device
from quadbench.errors import DeviceError
from quadbench.harness.events import ImageEvent
from quadbench.harness.installation import Installation
from quadbench.measure.launch_record import LaunchResult, LaunchWork

# The float graph computes what the Python reference computes, so only the last bits and the rounding to 8 bits may differ.
FLOAT_MAX_DIFFERENCE = 2

# Quantization error has no natural bound. Below this PSNR the image is a different one, so its time is meaningless.
QUANTIZED_MIN_MEAN_PSNR_DB = 15.0

MASKED_PSNR = "psnr_masked_db"  # PSNR within the mask of an inpainted image; `psnr_db` is of the whole image

IMAGE_LIMIT_BYTES = 32 * 2**20
"""Bytes of one image that are copied: a PNG of 2048 x 2048 pixels that cannot be compressed takes half of it."""
_TIMEOUT_S = 60.0
# `find` follows no links, so every listed file is really in the folder.
_LIST = 'if [ -d "$1" ]; then find "$1" -type f -exec stat -c "%s %n" {} +; fi'
_SIZES_TIMEOUT_S = 30.0


class WrongImageError(Exception):
    """Raised for an image that cannot be compared with its reference. `error_class` is the cause: harness, device or host."""

    def __init__(self, message: str, error_class: ErrorClass) -> None:
        super().__init__(message)
        self.error_class = error_class


def fetch_images(work: LaunchWork, result: LaunchResult) -> None:
    """Pull a launch's images and add samples of their quality to `result`. A missing or wrong image makes the launch fail."""
    announced, files = result.event_log.images, _sizes(work.device, ["sh", "-c", _LIST, "sh", work.images], _TIMEOUT_S)
    samples: list[Sample] = []
    tasks = tasks_of(work.bundle, work.launch)
    longest = {task.name: max(b.iterations for b in work.launch.sequence if b.task == task.name) for task in tasks}
    # Iteration i generates item i modulo the item count, so that fewer iterations leave the last items out.
    every = [(task, item) for task in tasks for item in task.items[: longest[task.name]]]
    for task, item in every:
        name = f"{task.name}/{item.name}"
        event = announced.get((task.name, item.name))
        if event is None:
            result.fail(ErrorClass.HARNESS, f"harness generated no image {name}")
            continue
        local = work.folder / "images" / f"{name}.png"
        try:
            _fetch_image(work.device, event, files, local)
            samples += _image_samples(local, task, item, work.installation.bundle)
            result.images[name] = work.settings.layout.relative(local)
        except WrongImageError as error:
            result.fail(error.error_class, str(error))
    result.samples += samples
    if wrong := _image_fault(work.launch.variant, samples):
        result.fail(ErrorClass.HARNESS, wrong)


def _image_samples(image_path: Path, task: TaskAssets, item: TaskItem, bundle: StoredBundle) -> list[Sample]:
    """Return an image's samples, such as PSNR in dB, against its reference and ground truth. A mask adds the masked PSNR."""
    name = f"{task.name}/{item.name}"
    image = _read(image_path, name, ErrorClass.HARNESS, is_png=True)
    mask = None  # the inpainted region; None for the whole image
    if item.mask is not None:
        of_mask = f"'{item.mask.path}' of the bundle"
        mask = mask_of(_read(bundle.path(item.mask), of_mask, ErrorClass.INFRASTRUCTURE))
        if mask.shape != image.shape[:2] or not mask.any():
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            raise WrongImageError(f"image {of_mask} is not a mask of {size}", ErrorClass.INFRASTRUCTURE)
    samples: list[Sample] = []
    for against, file in (("reference", item.reference), ("truth", item.truth)):
        if file is None:
            continue
        other = _read(bundle.path(file), f"'{file.path}' of the bundle", ErrorClass.INFRASTRUCTURE)
        if image.shape != other.shape:
            raise WrongImageError(f"image {name} is {size_of(image)}, its {against} is {size_of(other)}", ErrorClass.HARNESS)
        values = {"psnr_db": psnr_db(image, other)}
        if mask is not None:
            values[MASKED_PSNR] = psnr_db(image, other, within=mask)
        if against == "reference":
            values["max_abs_difference"] = float(max_abs_difference(image, other))
        labels = {"against": against}
        samples += [Sample(metric=name, value=v, task=task.name, item=item.name, labels=labels) for name, v in values.items()]
    return samples


def _image_fault(variant: Variant, samples: Sequence[Sample]) -> str | None:
    """Return None if float images are within 2/255 of references or quantized images reach 15 dB mean PSNR, else a message."""
    if variant is Variant.FLOAT:
        return _parity(samples)
    by_image: dict[tuple[str | None, str | None], Sample] = {}  # inpainted images are judged within the mask
    for metric in ("psnr_db", MASKED_PSNR):  # the latter takes the place of the former
        of_metric = [s for s in samples if s.metric == metric and s.labels["against"] == "reference"]
        by_image |= {(sample.task, sample.item): sample for sample in of_metric}
    against_reference = list(by_image.values())
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


def _sizes(device: Device, command: Sequence[str], timeout_s: float) -> dict[str, int]:
    """Return file sizes in bytes by path. `command` runs on the device and prints a line with size and path for each file."""
    listed = device.shell(command, timeout_s).stdout
    return {path: int(size) for size, path in re.findall(r"^(\d{1,18}) (.+)$", listed, re.MULTILINE)}


def _fetch_image(device: Device, event: ImageEvent, files: Mapping[str, int], local: Path) -> None:
    name = f"{event.task}/{event.item}"
    size_bytes = files.get(event.path)
    if size_bytes is None:
        raise WrongImageError(f"image {name}: '{event.path}' is not a regular file on the device", ErrorClass.HARNESS)
    if size_bytes > IMAGE_LIMIT_BYTES:
        message = f"image {name} has {size_bytes} bytes, expected at most {IMAGE_LIMIT_BYTES}"
        raise WrongImageError(message, ErrorClass.HARNESS)
    local.parent.mkdir(parents=True, exist_ok=True)
    device.pull(event.path, local, limit_bytes=IMAGE_LIMIT_BYTES)
    with local.open("rb") as file:
        arrived = hashlib.file_digest(file, "sha256").hexdigest()
    if arrived != event.sha256:
        message = f"image {name} arrived with sha256 {arrived}, the harness wrote {event.sha256}"
        raise WrongImageError(message, ErrorClass.DEVICE)


def labelled_graphs(
    bundle: Bundle, compiled: CompiledBundle, variant: Variant, tasks: Sequence[TaskAssets]
) -> list[tuple[Graph, dict[str, str]]]:
    """Return the graphs that a variant loads for `tasks`, with their labels. Only a U-Net has a label: its task or `base`."""
    return [
        *((graph, {}) for graph in components_of(bundle, compiled, variant).values()),
        *((graph, {"unet": name}) for name, graph in unets_of(bundle, compiled, variant, tasks).items()),
    ]


def kernel_samples(installation: Installation, launch: LaunchPlan) -> tuple[Sample, ...]:
    """Return a Sample with the node count per quantized graph and node kind, or () if the target is not ONNX Runtime on a CPU."""
    bundle, compiled = installation.bundle.artifact, installation.compiled.artifact
    return tuple(
        Sample(metric=KERNEL_NODES, value=float(number), component=graph.component, labels={**labels, "kind": kind})
        for graph, labels in labelled_graphs(bundle, compiled, launch.variant, tasks_of(bundle, launch))
        if graph.variant.is_quantized and graph.file.path in compiled.kernels
        for kind, number in compiled.kernels[graph.file.path].by_kind.items()
    )


def rom_samples(installation: Installation, launch: LaunchPlan) -> tuple[Sample, ...]:
    """Return a launch's `rom_bytes` samples: file sizes on the device. Their label `kind` is `base` (graphs) or `adapter`."""
    files = _files(installation, launch)
    paths = sorted({installation.path_of(file) for file, _, _ in files})
    sizes = _sizes(installation.device, ["stat", "-c", "%s %n", *paths], _SIZES_TIMEOUT_S)
    samples = []
    for file, component, labels in files:
        place = installation.path_of(file)
        size_bytes = sizes.get(place)
        if size_bytes != file.size_bytes:
            raise DeviceError(
                f"'{place}' on device '{installation.address}' "
                f"{'is missing' if size_bytes is None else f'has {size_bytes} bytes'}, "
                f"expected the {file.size_bytes} bytes of '{file.path}'",
                hint="push the bundle again",
            )
        samples.append(Sample(metric="rom_bytes", value=float(size_bytes), component=component, labels=labels))
    return tuple(samples)


def _files(installation: Installation, launch: LaunchPlan) -> list[tuple[FileRef, Component | None, dict[str, str]]]:
    bundle, compiled, variant = installation.bundle.artifact, installation.compiled.artifact, launch.variant
    tasks = tasks_of(bundle, launch)
    files: list[tuple[FileRef, Component | None, dict[str, str]]] = []
    for graph, labels in labelled_graphs(bundle, compiled, variant, tasks):
        parts = (graph.file, graph.data, graph.merge, graph.patch) if graph.component is Component.UNET else (graph.file,)
        files += [(file, graph.component, {"kind": "base", **labels}) for file in parts if file]
    if variant.is_repacked:  # a context or a base of several tasks' graphs counts once
        files = list({file.sha256: (file, component, labels) for file, component, labels in reversed(files)}.values())[::-1]
    adapters = adapters_of(bundle, variant, tasks)
    return [*files, *((adapter.file, None, {"kind": "adapter", "adapter": name}) for name, adapter in adapters.items())]
