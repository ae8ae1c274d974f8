"""Course: a device's launches -> how a run went there: images' times by launch with the temperature, memory over time; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, TaskAssets, Variant
from quadbench.report.launches import SERVING, devices_of, is_emulated, launches_on, sound, step_of, temperature_c, values

_MOST_LAUNCHES, _MOST_IMAGES, _MOST_READINGS = 200, 24, 300  # that a picture has room for
_MOST_DOTS = 800  # of a picture, over all of its launches
_MOST_STRIPS = 3000  # of a report, over all of its pictures of launches
_CLOCK = ("session_load_ns", "switch_ns", "end_to_end_ns")  # what takes a launch's time, between readings of memory


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
    pictures = sum(len(result.bundle_on(device).tasks) for device in devices_of(result)) or 1
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
