"""Course of a run on a device: time of each image by launch with the temperature, and memory over a launch, as SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, TaskAssets, Variant
from quadbench.report.chart import INK, Plot, dot, legend, nice_ticks, rule, short, svg, text
from quadbench.report.formatting import Unit, convert
from quadbench.report.launches import SERVING, is_emulated, launches_on, sound, step_of, temperature_c, values

_MOST_LAUNCHES, _MOST_IMAGES, _MOST_READINGS = 200, 24, 300  # that a picture has room for
_MOST_DOTS = 800  # of a picture, over all of its launches
_MOST_STRIPS = 3000  # of a report, over all of its pictures of launches
_CLOCK = ("session_load_ns", "switch_ns", "end_to_end_ns")  # what takes a launch's time, between readings of memory

VARIANT_COLOURS = {
    Variant.SHARED: "#1d5fa6",
    Variant.PER_GRAPH: "#b3560b",
    Variant.RESIDENT: "#2f8f83",
    Variant.MERGED_AT_LOAD: "#7d6bb3",
}
_WIDTH, _LEFT, _RIGHT, _BOTTOM = 560, 58, 548, 158
_WARMTH_HEIGHT = 34
_PLOT = Plot(left=_LEFT, right=_RIGHT, top=28, bottom=_BOTTOM, ys=(0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class LaunchStrip:
    """The times of a task's images in one launch, the `number`-th of its device; and how warm the device was before it."""

    number: int
    variant: Variant
    images_ns: tuple[float, ...]
    temperature_c: float | None


@dataclass(frozen=True, kw_only=True)
class TaskStrips:
    """A task's images by launch on one device. Of very many launches every `step`-th is there."""

    task: str
    address: str
    strips: tuple[LaunchStrip, ...]
    step: int


@dataclass(frozen=True, kw_only=True)
class MemoryCourse:
    """The memory that a variant's first launch held: (ns of loading, switching and painting so far, bytes)."""

    variant: Variant
    readings: tuple[tuple[float, float], ...]


def strips_of(result: RunResult, device: DeviceFacts) -> tuple[TaskStrips, ...]:
    """Return the strips of each task of which a device timed images."""
    launches = [record for record in _launches(result, device) if record.variant in SERVING]
    pictures = sum(len(result.bundle_on(device).tasks) for device in result.devices) or 1
    step = step_of(len(launches), min(_MOST_LAUNCHES, max(_MOST_STRIPS // pictures, 1)))
    numbered = list(enumerate(launches, start=1))[::step]
    strips = {task.name: tuple(_strips(numbered, task)) for task in result.bundle_on(device).tasks}
    return tuple(
        TaskStrips(task=task, address=device.address, strips=launched, step=step) for task, launched in strips.items() if launched
    )


def memory_of(result: RunResult, device: DeviceFacts) -> tuple[MemoryCourse, ...]:
    """Return the course of each variant whose memory was read on a device."""
    launches = [record for record in _launches(result, device) if not is_emulated(record)]
    firsts = {record.variant: record for record in reversed(launches) if record.variant in SERVING}
    courses = [MemoryCourse(variant=v, readings=_thinned(list(_readings(firsts[v])))) for v in SERVING if v in firsts]
    return tuple(course for course in courses if course.readings)


def _launches(result: RunResult, device: DeviceFacts) -> tuple[RunRecord, ...]:
    return sound(launches_on(result, device))


def _strips(launches: Sequence[tuple[int, RunRecord]], task: TaskAssets) -> Iterator[LaunchStrip]:
    for number, record in launches:
        images = values(record, "end_to_end_ns", lambda kind: kind.task == task.name)
        if images:
            every = -(-len(images) // min(_MOST_IMAGES, max(_MOST_DOTS // len(launches), 1)))
            warm = temperature_c(record)
            yield LaunchStrip(number=number, variant=record.variant, images_ns=tuple(images[::every]), temperature_c=warm)


def _readings(record: RunRecord) -> Iterator[tuple[float, float]]:
    """Yield each reading with the time that went by before it; samples stand in the order in which they were measured."""
    passed_ns, loaded_ns = 0.0, 0.0  # a switch's time has the loads in it
    for sample in record.samples:
        if sample.metric == "rss_bytes":
            yield passed_ns + loaded_ns, sample.value
        elif sample.metric == "session_load_ns":
            loaded_ns += sample.value
        elif sample.metric in _CLOCK:
            passed_ns += max(sample.value, loaded_ns)
            loaded_ns = 0.0


def _thinned(readings: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return at most so many readings as are drawn, of each stretch the highest."""
    every = -(-len(readings) // _MOST_READINGS) or 1
    stretches = (readings[start : start + every] for start in range(0, len(readings), every))
    return tuple(max(stretch, key=lambda reading: reading[1]) for stretch in stretches)


def strip_chart(task: TaskStrips) -> str:
    """Draw a dot an image and a bar at the median of each launch, in the order in which they ran; below, the temperature."""
    times = [[convert(image, Unit.MILLISECONDS) for image in strip.images_ns] for strip in task.strips]
    ticks = nice_ticks(max(max(images) for images in times))
    plot = replace(_PLOT, xs=(0.0, len(task.strips)), ys=(0.0, ticks[-1]))
    body = [text(_LEFT, 14, f"{short(task.task)}: an image, ms"), *plot.rows(ticks)]
    for index, (strip, images) in enumerate(zip(task.strips, times, strict=True)):
        body += _strip(plot, strip.variant, index, images)
    warmth = list(_warmth(task.strips, plot))
    height = _BOTTOM + (30 + _WARMTH_HEIGHT if warmth else 0) + 24
    last = task.strips[-1].number
    body += [*warmth, text(_LEFT, height - 6, "launch 1"), text(_RIGHT, height - 6, f"launch {last}", anchor="end")]
    return svg(_WIDTH, height, f"Time of each image of {task.task} by launch on {task.address}", body)


def memory_chart(courses: Sequence[MemoryCourse], address: str) -> str:
    """Draw what the first launch of each variant held in memory, over the time that it had loaded, switched and painted."""
    lines = {course.variant: [(ns / 1e9, convert(size, Unit.MEGABYTES)) for ns, size in course.readings] for course in courses}
    spots = [spot for line in lines.values() for spot in line]
    ticks, seconds = nice_ticks(max(size for _, size in spots)), nice_ticks(max(max(s for s, _ in spots), 0.1))
    plot = replace(_PLOT, xs=(0.0, seconds[-1]), ys=(0.0, ticks[-1]))
    body = [text(_LEFT, 14, "resident memory, MB"), *plot.rows(ticks), *plot.columns(seconds)]
    body += [plot.line(v, line, VARIANT_COLOURS[v], ' stroke-width="1.5"') for v, line in lines.items()]
    body.append(plot.caption("s of loading, switching and painting", _BOTTOM + 34))
    return svg(_WIDTH, _BOTTOM + 40, f"Memory over the first launch of each variant on {address}", body)


def variant_legend(variants: Sequence[Variant]) -> str:
    """Return which colour is which variant, as an HTML list."""
    return legend((variant, VARIANT_COLOURS[variant], variant) for variant in variants)


def _strip(plot: Plot, variant: Variant, index: int, images: Sequence[float]) -> Iterator[str]:
    for number, image in enumerate(images):
        x = index + 0.15 + 0.7 * (number + 0.5) / len(images)
        yield dot(f"{variant} image", plot.at(x, image), 2, VARIANT_COLOURS[variant])
    middle = sorted(images, reverse=True)[len(images) // 2]
    yield rule(f"{variant} median", plot.at(index + 0.08, middle), plot.at(index + 0.92, middle), VARIANT_COLOURS[variant])


def _warmth(strips: Sequence[LaunchStrip], images: Plot) -> Iterator[str]:
    """Draw the temperature before each launch that is known, from the lowest to the highest."""
    known = [(index + 0.5, strip.temperature_c) for index, strip in enumerate(strips) if strip.temperature_c is not None]
    if not known:
        return
    low, high = min(warm for _, warm in known), max(warm for _, warm in known)
    plot = replace(images, top=_BOTTOM + 30, bottom=_BOTTOM + 30 + _WARMTH_HEIGHT, ys=(low, max(high, low + 1.0)))
    for y, warm in zip((plot.top, plot.bottom), reversed(plot.ys), strict=True):
        yield text(_LEFT - 8, y + 4, f"{warm:.0f} °C", anchor="end")
    yield plot.line("edge warmth", known, INK)
    yield from (dot("edge warmth", plot.at(*spot), 2, INK) for spot in known)
