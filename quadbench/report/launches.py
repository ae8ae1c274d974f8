"""Launches: a run's records, in order, by device and variant, and the values that they may vouch for."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from quadbench.artifacts import Caveat, DeviceFacts, RunRecord, RunResult, Sample, Status, Variant

# These metrics belong to a launch or a switch; an iteration's warm-up says nothing about them.
_PER_LAUNCH = {
    "session_load_ns",
    "adapter_load_ns",
    "switch_ns",
    "first_unet_ns",
    "rom_bytes",
    "peak_rss_bytes",
    "load_peak_rss_bytes",
}


EMULATED = "an emulator's time"
EMULATORS = {Caveat.EMULATED_NPU, Caveat.EMULATED_CPU}


def devices_of(result: RunResult) -> tuple[DeviceFacts, ...]:
    """Return every device that measured or was deployed to, once, in order."""
    known = [record.device for record in result.in_order] + [deployment.device for deployment in result.deployments]
    return tuple({(device.address, device.serial): device for device in reversed(known)}.values())[::-1]


def launches_of(result: RunResult, device: DeviceFacts, variant: Variant) -> tuple[RunRecord, ...]:
    """Return all launches of a variant on a device, whatever their status."""
    return result.by_place.get((device.address, device.serial, variant), ())


def is_on(record: RunRecord, device: DeviceFacts) -> bool:
    """Say whether a launch ran on a device, by address and serial: its other facts may have changed meanwhile."""
    return (record.device.address, record.device.serial) == (device.address, device.serial)


def sound(records: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the launches whose figures count: those that ended OK."""
    return tuple(record for record in records if record.status is Status.OK)


def why_absent(records: Sequence[RunRecord], *, is_time: bool = False) -> str:
    """Say why no launch gives a figure, in the words that are printed in its place."""
    if not records:
        return "not run"
    if not sound(records):
        return "no launch was OK"
    return EMULATED if is_time and any(map(is_emulated, sound(records))) else "not measured"


def is_emulated(record: RunRecord) -> bool:
    """Say whether a launch's times are an emulator's, which say nothing about any device."""
    return not EMULATORS.isdisjoint(record.caveats)


def values(record: RunRecord, metric: str, accept: Callable[[Sample], bool]) -> list[float]:
    """Return a launch's accepted values of a metric, without warm-up; no times of an emulator."""
    return [sample.value for sample in _counted(record, metric, record.by_metric.get(metric, ())) if accept(sample)]


def values_of_task(record: RunRecord, metric: str, task: str) -> list[float]:
    """Return a launch's values of a metric that a task has, without warm-up; no times of an emulator."""
    return [sample.value for sample in _counted(record, metric, record.by_task.get((metric, task), ()))]


def _counted(record: RunRecord, metric: str, samples: Sequence[Sample]) -> Iterable[Sample]:
    if metric.endswith("_ns") and is_emulated(record):
        return ()
    return samples if metric in _PER_LAUNCH else (sample for sample in samples if not sample.is_warmup)


def typical(record: RunRecord, metric: str, accept: Callable[[Sample], bool]) -> float | None:
    """Return a launch's median of a metric."""
    accepted = values(record, metric, accept)
    return median(accepted) if accepted else None
