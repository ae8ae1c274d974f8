"""Image quality of a run: images, differences from reference images, tables of scores, and SQNR of U-Net outputs."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from PIL import Image

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, TaskAssets, TaskItem, Variant
from quadbench.artifacts.bundle import Clipping, HeldOutScores, TrajectorySqnr
from quadbench.artifacts.pixels import Pixels, read_pixels
from quadbench.artifacts.run_record import BetterDirection, ImageComparison, Metric, RunScores, Score
from quadbench.report.formatting import TextTable, labelled
from quadbench.report.launches import absence_reason, launches_of, launches_on, only_ok, picture_psnr, title_on, values
from quadbench.results.layout import Layout

SHOWN_ITEMS = 4  # a task's further items are folded away

AMPLIFIED = 8
_MAX_WIDTH = 128  # pixels; the width in a report

MADE = {
    "shared": "Shared",
    "per-graph": "Per-graph",
    "resident": "Resident",
    "context-shared": "Context-shared",
    "patched": "Patched",
    "merged-at-load": "Merged-at-load",
    "float": "Float graphs",
    "reference": "Float",
}
_AGAINST = {"reference": "float", "truth": "truth"}
_SMALL = 0.01  # smaller scores are written with two significant digits
_ARROWS = {BetterDirection.HIGHER: "↑", BetterDirection.LOWER: "↓"}

SHOWN_TENSORS = 3

_ON_CPU = "Over at most {inputs} evaluation inputs of each task, on this machine's CPU when the bundle was built. "
_ON_EMULATOR = "Over the first evaluation input of each task, on Qualcomm's HTP emulator and ONNX Runtime's CPU provider. "


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A labelled image of a report. If `path` is None, the image is missing, and `note` gives the reason. If `apart_from` is set,
    the report shows the difference between the images at `path` and `apart_from`.
    """

    label: str
    path: Path | None
    apart_from: Path | None = None
    psnr_db: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ItemPictures:
    """An evaluation input with its images: input, reference, and the output of each variant."""

    name: str
    prompt: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class TaskPictures:
    """The images of a task from one device. Evaluation inputs in `folded` are hidden until a reader of the report opens them."""

    task: TaskAssets
    device: DeviceFacts
    shown: tuple[ItemPictures, ...]
    folded: tuple[ItemPictures, ...]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A task's mean PSNR in dB on a device: shared and per-graph images against float and true images. Text says why none."""

    device: DeviceFacts
    task: str
    items: int
    shared_reference: float | str
    per_graph_reference: float | str
    shared_truth: float | str
    per_graph_truth: float | str


def task_pictures(result: RunResult, layout: Layout) -> tuple[TaskPictures, ...]:
    """Return a tuple of `TaskPictures`, one per task, from the run's first device with images; () if no device has images."""
    for device in result.devices:
        if any(record.images for record in only_ok(launches_on(result, device))):
            return tuple(_task(result, layout, device, task) for task in result.bundle_on(device).tasks)
    return ()


def quality_rows(result: RunResult) -> tuple[Quality, ...]:
    """Return a `Quality` per device and task: each variant's mean PSNR against float reference and true (correct) images."""
    return tuple(_quality(result, device, task) for device in result.devices for task in result.bundle_on(device).tasks)


def _task(result: RunResult, layout: Layout, device: DeviceFacts, task: TaskAssets) -> TaskPictures:
    items = tuple(
        ItemPictures(name=item.name, prompt=item.prompt, pictures=_pictures(result, layout, device, task, item))
        for item in task.items
    )
    return TaskPictures(task=task, device=device, shown=items[:SHOWN_ITEMS], folded=items[SHOWN_ITEMS:])


def _pictures(result: RunResult, layout: Layout, device: DeviceFacts, task: TaskAssets, item: TaskItem) -> tuple[Picture, ...]:
    given = (("Input", item.image), ("Mask", item.mask), ("Float reference", item.reference))
    bundle = result.stored_bundle_on(device)
    pictures = [Picture(label=label, path=bundle.path(file)) for label, file in given if file is not None]
    for variant in (variant for variant in Variant if variant.is_quantized):
        label, launches = MADE[variant], launches_of(result, device, variant)
        if not launches and variant not in (Variant.SHARED, Variant.PER_GRAPH):
            continue  # these two are listed even without an image, with the reason
        picture = _drawn(label, layout, launches, f"{task.name}/{item.name}")
        pictures.append(picture)
        if picture.path is not None and item.reference is not None:
            apart = f"{label}, difference × {AMPLIFIED}"
            pictures.append(Picture(label=apart, path=picture.path, apart_from=bundle.path(item.reference)))
    if item.truth is not None:
        pictures.append(Picture(label="Truth", path=bundle.path(item.truth)))
    return tuple(pictures)


def _drawn(label: str, layout: Layout, records: tuple[RunRecord, ...], key: str) -> Picture:
    record = next((record for record in only_ok(records) if key in record.images), None)
    if record is None:
        return Picture(label=label, path=None, note=absence_reason(records))
    task, item = key.split("/", 1)
    measured = values(record, "psnr_db", lambda s: (s.task, s.item, s.labels.get("against")) == (task, item, "reference"))
    return Picture(label=label, path=layout.file(record.images[key]), psnr_db=median(measured) if measured else None)


def _quality(result: RunResult, device: DeviceFacts, task: TaskAssets) -> Quality:
    has_reference, has_truth = any(item.reference for item in task.items), any(item.truth for item in task.items)

    def psnr_db(variant: Variant, against: str) -> float | str:
        records = launches_of(result, device, variant)
        measured = picture_psnr(only_ok(records), task.name, against)
        if not measured and not has_reference:
            return "random weights"
        return mean(measured) if measured else absence_reason(records)

    return Quality(
        device=device,
        task=task.name,
        items=len(task.items),
        shared_reference=psnr_db(Variant.SHARED, "reference"),
        per_graph_reference=psnr_db(Variant.PER_GRAPH, "reference"),
        shared_truth=psnr_db(Variant.SHARED, "truth") if has_truth else "no truth given",
        per_graph_truth=psnr_db(Variant.PER_GRAPH, "truth") if has_truth else "no truth given",
    )


def difference_png(one: Path, other: Path) -> bytes:
    """Return the amplified difference of two images of equal size as PNG; large images are max-pooled.

    Raises:
        OSError, ValueError: an image cannot be read, or their sizes differ.
    """
    first, second = read_pixels(one), read_pixels(other)
    if first.shape != second.shape:
        raise ValueError("the pictures have different sizes")
    apart = np.abs(first.astype(np.int16) - second.astype(np.int16))
    out = io.BytesIO()
    Image.fromarray(_reduced(np.minimum(apart * AMPLIFIED, 255).astype(np.uint8))).save(out, format="PNG")
    return out.getvalue()


def _reduced(pixels: Pixels) -> Pixels:
    """Return an image at most 128 pixels wide, by max-pooling: each pixel is the maximum of a square patch, per colour."""
    side = -(-pixels.shape[1] // _MAX_WIDTH)
    height, width = (length // side * side for length in pixels.shape[:2])
    patches = pixels[:height, :width].reshape(height // side, side, width // side, side, 3)  # (rows, side, columns, side, RGB)
    largest: Pixels = patches.max(axis=(1, 3))
    return largest


def score_tables(scores: RunScores) -> tuple[TextTable, ...]:
    """Return a table of scores for each pair of a task and a device that generated its images. A task without device images has
    one table. Scores of images that the host computer generated are in every table of the task.
    """
    tables = []
    for task in dict.fromkeys(c.task for c in scores.compared):
        of_task = [c for c in scores.compared if c.task == task]
        for device in dict.fromkeys(c.device for c in of_task if c.device) or [None]:
            title = f"{task} on {device}" if device else task
            tables.append(_table(title, [c for c in of_task if c.device in (device, None)]))
    return tuple(tables)


def score_notes(scores: RunScores) -> tuple[str, ...]:
    """Return notes for score tables: the meaning of arrows, definitions of metrics, and reasons for missing scores."""
    every = [score for c in scores.compared for score in c.scores]
    notes = ["↑: higher is better; ↓: lower is better; n: the number of images, latents or U-Net runs."]
    for metric in _metrics(every):
        of_metric = [score for score in every if score.metric.name == metric.name]
        if any(_is_figure(score) for score in of_metric):
            notes.append(f"{metric.title}: {metric.definition}")
        reasons = dict.fromkeys(score.value for score in of_metric if isinstance(score.value, str))
        notes += [f"{metric.title}: unavailable: {reason}" for reason in reasons]
    return tuple(notes)


def _table(title: str, compared: Iterable[ImageComparison]) -> TextTable:
    """Return a score table: a row per available metric, a column per comparison (`Shared vs float`), and `n` (images or runs)."""
    columns: dict[str, dict[str, Score]] = {}
    for c in compared:
        name = f"{MADE.get(c.made, c.made)} vs {_AGAINST.get(c.against, c.against)}"
        columns.setdefault(name, {}).update({score.metric.name: score for score in c.scores})
    rows = []
    for metric in _metrics(score for column in columns.values() for score in column.values() if _is_figure(score)):
        cells = [column.get(metric.name) for column in columns.values()]
        counts = dict.fromkeys(str(score.n) for score in cells if score and _is_figure(score))
        label = f"{labelled(metric.title, metric.unit)} {_ARROWS[metric.better]}"
        rows.append((label, *(_cell(score) for score in cells), " / ".join(counts)))
    return TextTable(
        title=title, columns=("Metric", *columns, "n"), numeric=(False, *(True for _ in columns), True), rows=tuple(rows)
    )


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    if isinstance(score.value, str):
        return "-"
    if score.metric.unit == "dB":
        return f"{score.value:.1f}"
    return f"{score.value:.4f}" if abs(score.value) >= _SMALL else f"{score.value:.2g}"


def _is_figure(score: Score) -> bool:
    return not isinstance(score.value, str)


def _metrics(scores: Iterable[Score]) -> list[Metric]:
    return list({score.metric.name: score.metric for score in scores}.values())


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """SQNR curves of a task's U-Nets. Each is (label, ((sampler step from 1, dB), ...)); a label is a variant or comparison."""

    task: str
    curves: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


def held_out_tables(held_out: HeldOutScores | None, where: str = "") -> tuple[TextTable, ...]:
    """Return tables on quantized U-Nets: SQNR in dB over sampler steps and, if counted, clipped activations. Calibration did not
    use their evaluation inputs. Return () if `held_out` is None. A nonempty `where` (devices) ends each title.
    """
    if held_out is None:
        return ()
    tables = [_trajectory_table(held_out, _ON_CPU, where)]
    if held_out.clippings:
        columns = ("U-Net", "Values that clip", "Tensors", "Worst tensors: share of values, excess in widths of the range")
        clipping = TextTable(
            title=title_on("Activations that clip", where),
            columns=columns,
            numeric=(False, True, True, False),
            rows=tuple(map(_clipping_row, held_out.clippings)),
            notes=(
                "Values of the float graph outside the ranges of the encodings, on the same inputs, none of which set a range. "
                "Clipping costs far more than rounding: set headroom in quad.calibration.ranges against it.",
            ),
        )
        tables.append(clipping)
    return tuple(tables)


def emulated_tables(scores: RunScores) -> tuple[TextTable, ...]:
    """Return a table for each target that Qualcomm's HTP emulator ran. A row has a U-Net's SQNR in dB, by task and variant."""
    return tuple(_trajectory_table(judged, _ON_EMULATOR, target) for target, judged in scores.emulated.items())


def emulated_trajectories(scores: RunScores) -> tuple[Trajectory, ...]:
    """Return a `Trajectory` (SQNR over sampler steps) per task and compile target that Qualcomm's HTP emulator ran."""
    return tuple(curve for target, judged in scores.emulated.items() for curve in trajectories(judged, target))


def trajectories(held_out: HeldOutScores | None, where: str = "") -> tuple[Trajectory, ...]:
    """Return a `Trajectory` per task in `held_out`; () if it is None. A nonempty `where` (devices or target) ends task names."""
    judged = held_out.trajectories if held_out else ()
    return tuple(
        Trajectory(task=title_on(task, where), curves=tuple((one.variant, _points(one)) for one in judged if one.task == task))
        for task in dict.fromkeys(one.task for one in judged)
    )


def _points(trajectory: TrajectorySqnr) -> tuple[tuple[float, float], ...]:
    return tuple((step.step + 1.0, step.sqnr_db) for step in trajectory.steps if step.sqnr_db is not None)


def _trajectory_table(held_out: HeldOutScores, inputs: str, where: str) -> TextTable:
    return TextTable(
        title=title_on("SQNR of eps along the trajectory", where),
        columns=("Task", "Variant", "All steps, dB", "Worst step, dB", "At step", "First step, dB", "Last step, dB"),
        numeric=(False, False, True, True, True, True, True),
        rows=tuple(_trajectory_row(one) for one in held_out.trajectories),
        notes=(f"{inputs.format(inputs=held_out.inputs)}At every step both U-Nets, quantized and float, get the same inputs.",),
    )


def _trajectory_row(one: TrajectorySqnr) -> tuple[str, ...]:
    worst, steps = one.worst, one.steps
    at = f"{worst.step + 1} of {len(steps)}" if worst else "–"
    ends = (steps[0].sqnr_db, steps[-1].sqnr_db) if steps else ("–", "–")
    values = (one.sqnr_db, worst.sqnr_db if worst else None, at, *ends)
    texts = (value if isinstance(value, str) else "nothing differs" if value is None else f"{value:.1f}" for value in values)
    return (one.task, one.variant, *texts)


def _clipping_row(one: Clipping) -> tuple[str, ...]:
    worst = [f"{tensor.tensor} {_share(tensor.share)}, {tensor.beyond:.2g}" for tensor in one.worst[:SHOWN_TENSORS]]
    unet = labelled(one.variant, one.task)
    return (unet, _share(one.share), f"{one.clipped} of {one.tensors}", "; ".join(worst) or "none")


def _share(share: float) -> str:
    """Format a fraction as a percentage. A nonzero fraction is never shown as zero."""
    return "0" if share == 0 else f"{share:.2g}" if share < 1e-4 else f"{100 * share:.2g} %"
