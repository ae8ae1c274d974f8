"""Launches: a run's records in order, the values that count, and the bundles that its devices ran with their precision."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

from quadbench.artifacts import Bundle, Caveat, DeviceFacts, Graph, RunRecord, RunResult, SampleKind, Status, TaskAssets, Variant
from quadbench.artifacts.bundle import Int8Share, Share
from quadbench.artifacts.launch_values import Kinds
from quadbench.artifacts.run_record import lora_dtype
from quadbench.report.formatting import TextTable, plural
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

_NOTE = "In 8 bits: data and result have 8 bits (W8A8), as the weights have; of a LoRA product its weights, too."


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


def in_order(caveats: Iterable[Caveat]) -> tuple[Caveat, ...]:
    """Return caveats without duplicates, in the order of the enum."""
    seen = set(caveats)
    return tuple(caveat for caveat in Caveat if caveat in seen)


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


def likeness(record: RunRecord, task: str, against: str = "reference") -> list[float]:
    """Return the PSNR of a launch's pictures of a task, in decibels, against the float reference or the truth."""
    return values(record, "psnr_db", lambda kind: kind.task == task and kind.labels.get("against") == against)


def places(kinds: Kinds, metric: str, accept: Callable[[SampleKind], bool]) -> tuple[int, ...]:
    """Return where a launch has its accepted values of a metric, without warm-up."""
    of_metric = ((place, kinds.each[place]) for place in kinds.by_metric.get(metric, ()))
    return tuple(place for place, kind in of_metric if (metric in _PER_LAUNCH or not kind.is_warmup) and accept(kind))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A bundle and the addresses of the devices that ran it; `where` names them, and is empty where all devices ran it."""

    bundle: Bundle
    addresses: tuple[str, ...]
    where: str


def setups_of(result: RunResult) -> tuple[Setup, ...]:
    """Return a setup for each bundle of the run."""
    setups = []
    for stored in result.bundles:
        addresses = tuple(d.address for d in result.devices if result.stored_on(d).folder == stored.folder)
        where = ", ".join(addresses) if len(result.bundles) > 1 else ""
        setups.append(Setup(bundle=stored.artifact, addresses=addresses, where=where))
    return tuple(setups)


def setup_table(setups: tuple[Setup, ...]) -> TextTable | None:
    """Return what each device ran; None where all ran the same."""
    if len(setups) < 2:
        return None
    tasks = [task.name for task in setups[0].bundle.tasks]
    return TextTable(
        title="where the recipe's `devices` tell them apart",
        columns=("Device", "Activations", "LoRA", *tasks),
        numeric=(False,) * (3 + len(tasks)),
        rows=tuple((address, *_cells(each.bundle)) for each in setups for address in each.addresses),
    )


def titled(title: str, where: str) -> str:
    """Return a title, with the devices that it is about where that are not all."""
    return f"{title}, on {where}" if where else title


def _cells(bundle: Bundle) -> tuple[str, ...]:
    return (bundle.precision, lora_dtype(bundle), *map(sampler_text, bundle.tasks))


def sampler_text(task: TaskAssets) -> str:
    """Return a task's sampler in words: `lcm, 4 steps`."""
    return f"{task.scheme}, {plural(task.steps, 'step')}"


def precision_text(bundle: Bundle) -> str:
    """Return a bundle's precision in words: `w8a16 (weights of 8 bits, activations of 16), LoRA int16`."""
    bits = re.fullmatch(r"w(\d+)a(\d+)", bundle.precision)
    meaning = f" (weights of {bits[1]} bits, activations of {bits[2]})" if bits else ""
    return f"{bundle.precision}{meaning}, LoRA {lora_dtype(bundle)}"


def int8_table(bundle: Bundle, where: str = "") -> TextTable | None:
    """Return a row for each quantized U-Net; None for a bundle that was built before this was counted.

    `where` are the devices that ran the bundle, where that are not all.
    """
    rows = tuple((_name(graph), *(_cell(share) for share in _shares(graph.int8))) for graph in bundle.graphs if graph.int8)
    columns = ("U-Net", "Layers", "Parameters", "Multiply-accumulates", "LoRA products")
    is_numeric = (False, True, True, True, True)
    title = titled(bundle.precision, where)
    return TextTable(title=title, columns=columns, numeric=is_numeric, rows=rows, notes=(_NOTE,)) if rows else None


def int8_of_shared(bundle: Bundle) -> Int8Share | None:
    """Return what of the shared U-Net runs in 8 bits; None for a bundle that was built before this was counted."""
    return next((graph.int8 for graph in bundle.graphs if graph.variant is Variant.SHARED and graph.int8), None)


def int8_note(bundle: Bundle) -> str | None:
    """Say what of the shared U-Net runs in 8 bits; None if nothing does, or if it was not counted."""
    int8 = int8_of_shared(bundle)
    if int8 is None or int8.layers.int8 == 0:
        return None
    layers, parameters, work, products = (_cell(share) for share in _shares(int8))
    shares = f"parameters {parameters}, layers {layers}, multiply-accumulates {work}, LoRA products {products}"
    return f"W8A8 in the shared U-Net ({bundle.precision}): {shares}."


def _shares(int8: Int8Share) -> tuple[Share, ...]:
    return int8.layers, int8.parameters, int8.multiply_accumulates, int8.lora_products


def _name(graph: Graph) -> str:
    return f"{graph.variant.value}, {graph.task}" if graph.task else graph.variant.value


def _cell(share: Share) -> str:
    return f"{share.percent:.1f} % ({share.int8:,} of {share.total:,})" if share.total else "none"
