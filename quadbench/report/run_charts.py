"""SVG charts of a run: time and memory by launch, time and bytes by component, bytes by number of tasks, SQNR by step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, TaskAssets, Variant
from quadbench.report import chart
from quadbench.report.formatting import Unit, convert, show
from quadbench.report.kpi import Figure, KpiRow
from quadbench.report.launches import SERVING, is_emulated, launches_on, only_ok, step_of, temperature_c, values
from quadbench.report.scores import Trajectory
from quadbench.report.serving_modes import ServingModes
from quadbench.report.storage import Growth, Storage

_MAX_LAUNCHES, _MAX_IMAGES, _MAX_READINGS = 200, 24, 300  # limits of one chart
_MAX_DOTS = 800  # in one chart
_MAX_STRIPS = 3000  # launches in all strip charts of a report
_CLOCK = ("session_load_ns", "switch_ns", "end_to_end_ns")  # metrics that advance the time axis of memory readings

VARIANT_COLOURS = {
    Variant.SHARED: "#1d5fa6",
    Variant.PER_GRAPH: "#b3560b",
    Variant.RESIDENT: "#2f8f83",
    Variant.CONTEXT_SHARED: "#8fae3c",
    Variant.PATCHED: "#9aa1ab",
    Variant.MERGED_AT_LOAD: "#7d6bb3",
}
_WIDTH, _LEFT, _RIGHT, _BOTTOM = 560, 58, 548, 158
_WARMTH_HEIGHT = 34
_PLOT = chart.Plot(left=_LEFT, right=_RIGHT, top=28, bottom=_BOTTOM, ys=(0.0, 1.0))
_SIDES = {"shared": "#1d5fa6", "per-graph": "#b3560b", "third": "#2f8f83"}  # CSS classes and their colours
_PARTS = {
    "text_encoder": ("text encoder", "#7d6bb3"),
    "vae_encoder": ("VAE encoder", "#2f8f83"),
    "unet_step": ("U-Net, all steps", "#1d5fa6"),
    "vae_decoder": ("VAE decoder", "#8fae3c"),
    "residual": ("residual", "#9aa1ab"),
}


@dataclass(frozen=True, kw_only=True)
class LaunchStrip:
    """A task's image times in one launch, with the launch's number and the battery temperature before it."""

    number: int
    variant: Variant
    images_ns: tuple[float, ...]
    temperature_c: float | None


@dataclass(frozen=True, kw_only=True)
class TaskStrips:
    """A task's image times on one device, in `strips` by launch. Only every `step`-th launch is included; `step` is 1 if few."""

    task: str
    address: str
    strips: tuple[LaunchStrip, ...]
    step: int


@dataclass(frozen=True, kw_only=True)
class MemoryTimeline:
    """A variant's memory use in its first OK launch as (ns, bytes) pairs. Time counts only loads, switches and images."""

    variant: Variant
    readings: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class TimeShare:
    """A task's median image time with one variant, end to end and as (component, nanoseconds) pairs in running order."""

    task: str
    variant: Variant
    parts: tuple[tuple[str, float], ...]
    end_to_end_ns: float


def strips_of(result: RunResult, device: DeviceFacts) -> tuple[TaskStrips, ...]:
    """Return a `TaskStrips` for each task that was timed on a device, with the task's image times by launch."""
    launches = [record for record in only_ok(launches_on(result, device)) if record.variant in SERVING]
    pictures = sum(len(result.bundle_on(device).tasks) for device in result.devices) or 1
    step = step_of(len(launches), min(_MAX_LAUNCHES, max(_MAX_STRIPS // pictures, 1)))
    numbered = list(enumerate(launches, start=1))[::step]
    strips = {task.name: tuple(_strips(numbered, task)) for task in result.bundle_on(device).tasks}
    return tuple(
        TaskStrips(task=task, address=device.address, strips=launched, step=step) for task, launched in strips.items() if launched
    )


def memory_of(result: RunResult, device: DeviceFacts) -> tuple[MemoryTimeline, ...]:
    """Return a `MemoryTimeline` for each variant measured on a device: memory over time in the variant's first OK launch."""
    launches = [record for record in only_ok(launches_on(result, device)) if not is_emulated(record)]
    firsts = {record.variant: record for record in reversed(launches) if record.variant in SERVING}
    courses = [MemoryTimeline(variant=v, readings=_thinned(list(_readings(firsts[v])))) for v in SERVING if v in firsts]
    return tuple(course for course in courses if course.readings)


def time_shares(task: TaskAssets, rows: Sequence[KpiRow], variant: Variant) -> list[TimeShare]:
    """Return [`TimeShare`]: the image time of a task and variant by component; [] if no end-to-end time was measured."""
    cells = {row.key: row.shared if variant is Variant.SHARED else row.per_graph for row in rows}
    figures = {key: cell.value for key, cell in cells.items() if isinstance(cell, Figure)}
    if "end_to_end" not in figures:
        return []
    runs = {"unet_step": task.steps}
    parts = [(key, figures[key] * runs.get(key, 1)) for key in _PARTS if key in figures]
    return [TimeShare(task=task.name, variant=variant, parts=tuple(parts), end_to_end_ns=figures["end_to_end"])]


def _strips(launches: Sequence[tuple[int, RunRecord]], task: TaskAssets) -> Iterator[LaunchStrip]:
    for number, record in launches:
        images = values(record, "end_to_end_ns", lambda kind: kind.task == task.name)
        if images:
            every = -(-len(images) // min(_MAX_IMAGES, max(_MAX_DOTS // len(launches), 1)))
            warm = temperature_c(record)
            yield LaunchStrip(number=number, variant=record.variant, images_ns=tuple(images[::every]), temperature_c=warm)


def _readings(record: RunRecord) -> Iterator[tuple[float, float]]:
    """Yield a launch's memory readings in order: ns spent so far (in loads, switches and images), and resident bytes."""
    passed_ns, loaded_ns = 0.0, 0.0  # a switch's time includes its loads
    for sample in record.samples:
        if sample.metric == "rss_bytes":
            yield passed_ns + loaded_ns, sample.value
        elif sample.metric == "session_load_ns":
            loaded_ns += sample.value
        elif sample.metric in _CLOCK:
            passed_ns += max(sample.value, loaded_ns)
            loaded_ns = 0.0


def _thinned(readings: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return at most 300 memory readings for a chart: the highest reading of each time interval."""
    every = -(-len(readings) // _MAX_READINGS) or 1
    stretches = (readings[start : start + every] for start in range(0, len(readings), every))
    return tuple(max(stretch, key=lambda reading: reading[1]) for stretch in stretches)


def strip_chart(task: TaskStrips) -> str:
    """Draw a task's image times by launch: a dot for each image, a bar for each median, and battery temperatures below."""
    times = [[convert(image, Unit.MILLISECONDS) for image in strip.images_ns] for strip in task.strips]
    ticks = chart.nice_ticks(max(max(images) for images in times))
    plot = replace(_PLOT, xs=(0.0, len(task.strips)), ys=(0.0, ticks[-1]))
    body = [chart.text(_LEFT, 14, f"{chart.short(task.task)}: an image, ms"), *plot.rows(ticks)]
    for index, (strip, images) in enumerate(zip(task.strips, times, strict=True)):
        variant, colour = strip.variant, VARIANT_COLOURS[strip.variant]
        for number, image in enumerate(images):
            x = index + 0.15 + 0.7 * (number + 0.5) / len(images)
            body.append(chart.dot(f"{variant} image", plot.at(x, image), 2, colour))
        middle = sorted(images, reverse=True)[len(images) // 2]
        body.append(chart.rule(f"{variant} median", plot.at(index + 0.08, middle), plot.at(index + 0.92, middle), colour))
    warmth = list(_warmth(task.strips, plot))
    height = _BOTTOM + (30 + _WARMTH_HEIGHT if warmth else 0) + 24
    last = task.strips[-1].number
    body += [*warmth, chart.text(_LEFT, height - 6, "launch 1"), chart.text(_RIGHT, height - 6, f"launch {last}", anchor="end")]
    return chart.svg(_WIDTH, height, f"Time of each image of {task.task} by launch on {task.address}", body)


def memory_chart(courses: Sequence[MemoryTimeline], address: str) -> str:
    """Return an SVG chart of resident memory in each variant's first OK launch, over time spent in loads, switches and images."""
    lines = {course.variant: [(ns / 1e9, convert(size, Unit.MEGABYTES)) for ns, size in course.readings] for course in courses}
    spots = [spot for line in lines.values() for spot in line]
    ticks, seconds = chart.nice_ticks(max(size for _, size in spots)), chart.nice_ticks(max(max(s for s, _ in spots), 0.1))
    plot = replace(_PLOT, xs=(0.0, seconds[-1]), ys=(0.0, ticks[-1]))
    body = [chart.text(_LEFT, 14, "resident memory, MB"), *plot.rows(ticks), *plot.columns(seconds)]
    body += [plot.line(v, line, VARIANT_COLOURS[v], ' stroke-width="1.5"') for v, line in lines.items()]
    body.append(plot.caption("s of loads, switches and images", _BOTTOM + 34))
    return chart.svg(_WIDTH, _BOTTOM + 40, f"Memory over the first launch of each variant on {address}", body)


def variant_legend(variants: Sequence[Variant]) -> str:
    """Return the legend of the variants' colours as an HTML list."""
    return chart.legend((variant, VARIANT_COLOURS[variant], variant) for variant in variants)


def _warmth(strips: Sequence[LaunchStrip], images: chart.Plot) -> Iterator[str]:
    """Draw the known battery temperatures before launches as a line, on an axis from the lowest to the highest."""
    known = [(index + 0.5, strip.temperature_c) for index, strip in enumerate(strips) if strip.temperature_c is not None]
    if not known:
        return
    low, high = min(warm for _, warm in known), max(warm for _, warm in known)
    plot = replace(images, top=_BOTTOM + 30, bottom=_BOTTOM + 30 + _WARMTH_HEIGHT, ys=(low, max(high, low + 1.0)))
    for y, warm in zip((plot.top, plot.bottom), reversed(plot.ys), strict=True):
        yield chart.text(_LEFT - 8, y + 4, f"{warm:.0f} °C", anchor="end")
    yield plot.line("edge warmth", known, chart.INK)
    yield from (chart.dot("edge warmth", plot.at(*spot), 2, chart.INK) for spot in known)


def storage_chart(storage: Storage) -> str:
    """Draw the bytes of files on the device over the number of tasks, as lines for shared graph and graph per task."""
    steps = (*storage.measured, *storage.extrapolated)
    lines = {
        "per-graph": [(step.count, step.per_graph_bytes) for step in steps if step.per_graph_bytes is not None],
        "shared": [(step.count, step.shared_bytes) for step in steps if step.shared_bytes is not None],
    }
    title = "Bytes on the device by number of use cases"
    return _bytes_chart(lines, len(storage.measured), title=title, x_label="use cases")


def growth_chart(growth: Growth) -> str:
    """Draw the total file size of each variant over the number of tasks, for the recipe `ten-tasks`. All points are measured."""
    lines = {"per-graph": [(count, own) for count, _, own in growth.steps], "shared": [step[:2] for step in growth.steps]}
    title = "Bytes of ten tasks on the built-in model, by number of tasks"
    return _bytes_chart(lines, len(growth.steps), title=title, x_label="tasks")


def _bytes_chart(lines: Mapping[str, Sequence[tuple[int, float]]], measured: int, *, title: str, x_label: str) -> str:
    """Return an SVG chart of file sizes by number of tasks, a line per key of `lines`, dashed after `measured` tasks."""
    series = [
        chart.Series(
            label=side,
            css_class=side,
            colour=_SIDES[side],
            points=[(count, convert(size, Unit.MEGABYTES)) for count, size in points],
            measured=sum(count <= measured for count, _ in points),
        )
        for side, points in lines.items()
        if points
    ]
    return chart.line_chart(series, title=title, x_label=x_label, y_label="MB")


def trajectory_chart(trajectory: Trajectory) -> str:
    """Draw the SQNR of eps (the U-Net's noise prediction) over the steps of a task's sampler."""
    series = [
        chart.Series(label=name, css_class=css_class, colour=colour, points=points)
        for (name, points), (css_class, colour) in zip(trajectory.curves, _SIDES.items(), strict=False)
    ]
    title = f"SQNR of eps at each step of {trajectory.task}"
    return chart.line_chart(series, title=title, x_label="step", y_label="dB", width=360, height=220)


def serving_modes_chart(ways: ServingModes) -> str:
    """For each way to serve tasks, draw image time plus switch time per image, over the number of images between switches."""
    series = [
        chart.Series(
            label=variant.value,
            css_class=variant.value,
            colour=VARIANT_COLOURS[variant],
            points=[(count, convert(time_ns, Unit.MILLISECONDS)) for count, time_ns in points],
        )
        for variant, points in ways.curves.items()
    ]
    title = f"Time of an image with its share of the switch on {ways.device.address}"
    return chart.line_chart(series, title=title, x_label="images between task switches", y_label="ms")


def time_chart(shares: Sequence[TimeShare], address: str) -> str:
    """Return an SVG chart of image times on a device: one bar per task and variant. Components such as the VAE are stacked."""
    bars = [
        chart.Bar(
            group=share.task,
            label=share.variant.value,
            parts=_bar_parts(_PARTS, dict(share.parts)),
            total_text=f"{show(share.end_to_end_ns, Unit.MILLISECONDS)} ms",
        )
        for share in shares
    ]
    return _stacked(bars, f"Time of one image by component on {address}")


def _bar_parts(looks: Mapping[str, tuple[str, str]], sizes: Mapping[str, float]) -> tuple[chart.BarPart, ...]:
    return tuple(
        chart.BarPart(label=looks[key][0], css_class=f"part-{key}", colour=looks[key][1], value=max(size, 0.0))
        for key, size in sizes.items()
    )


def _stacked(bars: Sequence[chart.Bar], title: str) -> str:
    """Return HTML text: a legend of the bars' parts, followed by an SVG chart of the stacked bars."""
    parts = ((part.css_class, part.colour, part.label) for bar in bars for part in bar.parts)
    return chart.legend(parts) + chart.stacked_bars(bars, title=title)
