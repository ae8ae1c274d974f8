"""Launches: a run's records, in order, by device and variant, and the values that they may vouch for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from statistics import median

from quadbench.artifacts import Caveat, DeviceFacts, RunRecord, RunResult, SampleKind, Status, Variant
from quadbench.artifacts.launch_values import Kinds
from quadbench.statistics import LAUNCHES_PER_BLOCK

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


SERVING = tuple(variant for variant in Variant if variant is not Variant.FLOAT)
EMULATED = "an emulator's time"
EMULATORS = {Caveat.EMULATED_NPU, Caveat.EMULATED_CPU}


def devices_of(result: RunResult) -> tuple[DeviceFacts, ...]:
    """Return every device that measured or was deployed to, once, in order."""
    return result.devices


def launches_on(result: RunResult, device: DeviceFacts) -> tuple[RunRecord, ...]:
    """Return all launches on a device, by address and serial: its other facts may have changed meanwhile."""
    return result.by_device.get((device.address, device.serial), ())


def launches_of(result: RunResult, device: DeviceFacts, variant: Variant) -> tuple[RunRecord, ...]:
    """Return all launches of a variant on a device, whatever their status."""
    return result.by_place.get((device.address, device.serial, variant), ())


def is_on(record: RunRecord, device: DeviceFacts) -> bool:
    """Say whether a launch ran on a device, by address and serial: its other facts may have changed meanwhile."""
    return (record.device.address, record.device.serial) == (device.address, device.serial)


def sound(records: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the launches whose figures count: those that ended OK."""
    return tuple(record for record in records if record.status is Status.OK)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A device's launches that count: those of whole blocks, or, where no block is whole, all that were OK.

    `shared` and `per_graph` are in the order measured, two of each a block. `left_out` are OK but of a block that is not whole.
    """

    blocks: int
    shared: tuple[RunRecord, ...]
    per_graph: tuple[RunRecord, ...]
    left_out: int = 0

    def of(self, variant: Variant) -> tuple[RunRecord, ...]:
        """Return the launches of one of the two variants."""
        return self.shared if variant is Variant.SHARED else self.per_graph


def counted(result: RunResult, device: DeviceFacts) -> Counted:
    """Return the launches of the shared graph and of one graph per task whose figures are compared on a device."""
    blocks = whole_blocks(launches_on(result, device))
    all_ok = [sound(launches_of(result, device, variant)) for variant in (Variant.SHARED, Variant.PER_GRAPH)]
    if not blocks:
        return Counted(blocks=0, shared=all_ok[0], per_graph=all_ok[1])
    shared, per_graph = (
        tuple(record for block in blocks for record in block if record.variant is variant)
        for variant in (Variant.SHARED, Variant.PER_GRAPH)
    )
    left_out = sum(map(len, all_ok)) - len(shared) - len(per_graph)
    return Counted(blocks=len(blocks), shared=shared, per_graph=per_graph, left_out=left_out)


def whole_blocks(records: Sequence[RunRecord]) -> tuple[tuple[RunRecord, ...], ...]:
    """Return the blocks of launches that were measured as A B B A or B A A B and are all OK.

    Launches of other variants, which may lie between them on both sides alike, are left out.
    """
    measured = [
        record
        for record in records
        if record.variant in {Variant.SHARED, Variant.PER_GRAPH} and record.status is not Status.DISCARDED
    ]
    size = 2 * LAUNCHES_PER_BLOCK
    groups = [tuple(measured[start : start + size]) for start in range(0, len(measured), size)]
    return tuple(group for group in groups if len(group) == size and _is_mirrored(group) and len(sound(group)) == size)


def _is_mirrored(group: Sequence[RunRecord]) -> bool:
    first, second, third, fourth = (record.variant for record in group)
    return first is fourth and second is third and first is not second


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


def temperature_c(record: RunRecord) -> float | None:
    """Return how warm the battery was before a launch, in degrees Celsius; None where that was not told."""
    try:
        celsius = float(record.state.get("before.battery_temperature_c", ""))
    except ValueError:
        return None
    return celsius if isfinite(celsius) else None


def step_of(launches: int, most: int) -> int:
    """Return the step by which at most so many launches are left, some of each variant: up to four run in turn."""
    step = -(-launches // most) or 1
    while step % 3 == 0 or step % 4 == 0:
        step += 1
    return step


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Launches in a row whose values are of the same kinds, so that a figure is read at the same places of each."""

    kinds: Kinds
    variant: Variant
    is_emulated: bool
    launches: tuple[tuple[float, ...], ...]


def alike(records: Iterable[RunRecord]) -> tuple[Alike, ...]:
    """Return launches by what they have alike, in their order."""
    groups = groupby(records, key=lambda record: (record.columns.kinds, record.variant, is_emulated(record)))
    return tuple(
        Alike(kinds=kinds, variant=variant, is_emulated=emulated, launches=tuple(record.columns.values for record in group))
        for (kinds, variant, emulated), group in groups
    )


def values(record: RunRecord, metric: str, accept: Callable[[SampleKind], bool]) -> list[float]:
    """Return a launch's accepted values of a metric, without warm-up; no times of an emulator."""
    if metric.endswith("_ns") and is_emulated(record):
        return []
    columns = record.columns
    return [columns.values[place] for place in places(columns.kinds, metric, accept)]


def places(kinds: Kinds, metric: str, accept: Callable[[SampleKind], bool]) -> tuple[int, ...]:
    """Return where a launch has its accepted values of a metric, without warm-up."""
    of_metric = ((place, kinds.each[place]) for place in kinds.by_metric.get(metric, ()))
    return tuple(place for place, kind in of_metric if (metric in _PER_LAUNCH or not kind.is_warmup) and accept(kind))


def typical(record: RunRecord, metric: str, accept: Callable[[SampleKind], bool]) -> float | None:
    """Return a launch's median of a metric."""
    accepted = values(record, metric, accept)
    return median(accepted) if accepted else None
