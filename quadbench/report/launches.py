"""Functions that select a run's launches and their values. Tables of a bundle's precision, samplers and 8-bit parameters."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from quadbench.artifacts import Bundle, Caveat, DeviceFacts, RunRecord, RunResult, SampleKind, Status, TaskAssets, Variant
from quadbench.artifacts.bundle import Int8Fraction, Int8Share
from quadbench.artifacts.caveats import FigureKind
from quadbench.artifacts.launch_values import SampleKinds
from quadbench.artifacts.run_record import lora_dtype
from quadbench.report.formatting import TextTable, labelled, plural
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

_KINDS = {"_ns": FigureKind.TIME, "ss_bytes": FigureKind.MEMORY, "peak_bytes": FigureKind.MEMORY}  # by a metric's ending
SERVING = tuple(variant for variant in Variant if variant is not Variant.FLOAT)
EMULATED, EMULATED_MEMORY = "an emulator's time", "an emulator's memory"
# The caveats with which a launch's times, or its memory, say nothing about any device.
EMULATORS = {
    FigureKind.TIME: {Caveat.EMULATED_NPU, Caveat.EMULATED_CPU},
    FigureKind.MEMORY: {Caveat.EMULATED_CPU},  # the emulator's own memory is part of it
}

_NOTE = "In 8 bits: inputs and outputs have 8 bits, like the weights (W8A8); in a LoRA product, the LoRA's weights too."


def launches_on(result: RunResult, device: DeviceFacts) -> tuple[RunRecord, ...]:
    """Return a run's launches on a device, as a tuple. Devices are the same if address and serial are equal."""
    return result.by_device.get((device.address, device.serial), ())


def launches_of(result: RunResult, device: DeviceFacts, variant: Variant) -> tuple[RunRecord, ...]:
    """Return all launches of a variant on a device, whatever their status."""
    return result.by_device_and_variant.get((device.address, device.serial, variant), ())


def is_on(record: RunRecord, device: DeviceFacts) -> bool:
    """Return whether a launch ran on a device. Devices are the same if address and serial are equal."""
    return (record.device.address, record.device.serial) == (device.address, device.serial)


def only_ok(records: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the launches with status OK. Reports take values only from OK launches."""
    wanted = Status.OK
    return tuple([record for record in records if record.status is wanted])


@dataclass(frozen=True, kw_only=True)
class PairedLaunches:
    """A device's OK launches that count in the comparison of two variants, in the order measured. `shared` has launches of the
    shared graph, `per_graph` of one graph per task. `blocks` is the number of complete A B B A launch blocks. If it is above 0,
    only launches in complete blocks count. `left_out` is the number of OK launches outside them.
    """

    blocks: int
    shared: tuple[RunRecord, ...]
    per_graph: tuple[RunRecord, ...]
    left_out: int = 0

    def of(self, variant: Variant) -> tuple[RunRecord, ...]:
        return self.shared if variant is Variant.SHARED else self.per_graph


def paired(result: RunResult, device: DeviceFacts) -> PairedLaunches:
    """Return, as `PairedLaunches`, a device's OK launches that count in the comparison of shared graph and one graph per task."""
    blocks = whole_blocks(launches_on(result, device))
    all_ok = [only_ok(launches_of(result, device, variant)) for variant in (Variant.SHARED, Variant.PER_GRAPH)]
    if not blocks:
        return PairedLaunches(blocks=0, shared=all_ok[0], per_graph=all_ok[1])
    shared, per_graph = (
        tuple(record for block in blocks for record in block if record.variant is variant)
        for variant in (Variant.SHARED, Variant.PER_GRAPH)
    )
    left_out = sum(map(len, all_ok)) - len(shared) - len(per_graph)
    return PairedLaunches(blocks=len(blocks), shared=shared, per_graph=per_graph, left_out=left_out)


def whole_blocks(records: Sequence[RunRecord]) -> tuple[tuple[RunRecord, ...], ...]:
    """Return the complete blocks of four OK launches: A B B A or B A A B. A is the shared graph, B one graph per task."""
    a, b = Variant.SHARED, Variant.PER_GRAPH
    measured = [record for record in records if record.variant in (a, b) and record.status is not Status.DISCARDED]
    size = 2 * LAUNCHES_PER_BLOCK
    groups = [tuple(measured[start : start + size]) for start in range(0, len(measured), size)]
    mirrored = [group for group in groups if [record.variant for record in group] in ([a, b, b, a], [b, a, a, b])]
    return tuple(group for group in mirrored if all(record.status is Status.OK for record in group))


def absence_reason(records: Sequence[RunRecord], kind: FigureKind = FigureKind.SIZE) -> str:
    """Return the reason why launches give no value of a metric of this kind, as text to print in its place."""
    if not records:
        return "not run"
    if not only_ok(records):
        return "no launch was OK"
    if any(is_emulated(record, kind) for record in only_ok(records)):
        return EMULATED if kind is FigureKind.TIME else EMULATED_MEMORY
    return "not measured"


def caveats_in_order(caveats: Iterable[Caveat]) -> tuple[Caveat, ...]:
    """Return caveats without duplicates, in the order of the enum `Caveat`."""
    seen = set(caveats)
    return tuple(caveat for caveat in Caveat if caveat in seen)


def is_emulated(record: RunRecord, kind: FigureKind = FigureKind.TIME) -> bool:
    """Return whether a launch ran on an emulator whose times, or figures of another kind, say nothing about a device."""
    return kind in _emulated_kinds(record.caveats)


@cache
def _emulated_kinds(caveats: tuple[Caveat, ...]) -> frozenset[FigureKind]:
    """Return the kinds of figures of which a launch with these caveats says nothing about a device."""
    return frozenset(kind for kind, emulators in EMULATORS.items() if not emulators.isdisjoint(caveats))


def temperature_c(record: RunRecord) -> float | None:
    """Return the battery temperature before a launch, in degrees Celsius; None if unknown."""
    try:
        celsius = float(record.state.get("before.battery_temperature_c", ""))
    except ValueError:
        return None
    return celsius if isfinite(celsius) else None


def step_of(launches: int, most: int) -> int:
    """Return a step n: every n-th of `launches` launches makes a list of at most `most`, with each of up to 4 variants."""
    step = -(-launches // most) or 1
    while step % 3 == 0 or step % 4 == 0:
        step += 1
    return step


@dataclass(frozen=True, kw_only=True)
class KindGroup:
    """Consecutive launches whose samples have equal kinds in equal order. Value number i has the same metric in every launch.

    `values` has shape (launches, values of a launch).
    """

    kinds: SampleKinds
    variant: Variant
    emulated: frozenset[FigureKind]  # these figures are an emulator's own
    values: NDArray[np.float64]


def by_kind(records: Iterable[RunRecord]) -> tuple[KindGroup, ...]:
    """Return consecutive launches in groups: same sample kinds, same variant, and either all on emulators or all on devices."""

    def key(record: RunRecord) -> tuple[SampleKinds, Variant, frozenset[FigureKind]]:
        return record.columns.kinds, record.variant, _emulated_kinds(record.caveats)

    groups = groupby(records, key=key)
    return tuple(
        KindGroup(kinds=kinds, variant=variant, emulated=emulated, values=_matrix(group, len(kinds.each)))
        for (kinds, variant, emulated), group in groups
    )


def _matrix(records: Iterable[RunRecord], width: int) -> NDArray[np.float64]:
    rows = [record.columns.values for record in records]
    return np.frombuffer(b"".join(rows), np.float64).reshape(len(rows), width)


def values(record: RunRecord, metric: str, accept: Callable[[SampleKind], bool]) -> list[float]:
    """Return a launch's values of `metric` from samples whose `accept(kind)` is True. Warm-up and emulated ones are left out."""
    kind = next((kind for ending, kind in _KINDS.items() if metric.endswith(ending)), FigureKind.SIZE)
    if is_emulated(record, kind):
        return []
    columns = record.columns
    return [columns.values[place] for place in indices(columns.kinds, metric, accept)]


def picture_psnr(records: Sequence[RunRecord], task: str, against: str = "reference") -> list[float]:
    """Return the PSNR values in dB of a task's images in launches, against `reference` (float model) or `truth` (true images)."""
    psnr_db = list[float]()
    for group in by_kind(records):
        at = indices(group.kinds, "psnr_db", lambda kind: kind.task == task and kind.labels.get("against") == against)
        psnr_db.extend(group.values[:, at].ravel().tolist())
    return psnr_db


def indices(kinds: SampleKinds, metric: str, accept: Callable[[SampleKind], bool]) -> tuple[int, ...]:
    """Return the positions of a metric's values in a launch's list of values. `accept` returns whether a sample of a given kind
    counts. Warm-up samples are left out, except for metrics measured once per launch or switch, such as load times.
    """
    of_metric = ((place, kinds.each[place]) for place in kinds.by_metric.get(metric, ()))
    return tuple(place for place, kind in of_metric if (metric in _PER_LAUNCH or not kind.is_warmup) and accept(kind))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A bundle and the addresses of devices that run it. `where` has the addresses joined, empty if a run has one bundle."""

    bundle: Bundle
    addresses: tuple[str, ...]
    where: str


def setups_of(result: RunResult) -> tuple[Setup, ...]:
    """Return a tuple with one `Setup` (a bundle and its devices' addresses) for each bundle of the run."""
    setups = []
    for stored in result.bundles:
        addresses = tuple(d.address for d in result.devices if result.stored_bundle_on(d).folder == stored.folder)
        where = ", ".join(addresses) if len(result.bundles) > 1 else ""
        setups.append(Setup(bundle=stored.artifact, addresses=addresses, where=where))
    return tuple(setups)


def setup_table(setups: tuple[Setup, ...]) -> TextTable | None:
    """Return a table of precision and samplers on each device; None if all devices ran the same bundle."""
    if len(setups) < 2:
        return None
    tasks = [task.name for task in setups[0].bundle.tasks]
    rows = (
        (address, each.bundle.precision, lora_dtype(each.bundle), *map(sampler_text, each.bundle.tasks))
        for each in setups
        for address in each.addresses
    )
    columns = ("Device", "Activations", "LoRA", *tasks)
    return TextTable.of_words("as set by the recipe's `devices`", columns, rows)


def title_on(title: str, where: str) -> str:
    """Return `<title>, on <where>`; `where` is text with device addresses. Return the title alone if `where` is empty."""
    return f"{title}, on {where}" if where else title


def sampler_text(task: TaskAssets) -> str:
    """Return a task's sampler as text: `lcm, 4 steps`."""
    return f"{task.scheme}, {plural(task.steps, 'step')}"


def precision_text(bundle: Bundle) -> str:
    """Return a bundle's precision as text: `w8a16 (weights of 8 bits, activations of 16), LoRA int16`."""
    bits = re.fullmatch(r"w(\d+)a(\d+)", bundle.precision)
    meaning = f" (weights of {bits[1]} bits, activations of {bits[2]})" if bits else ""
    return f"{bundle.precision}{meaning}, LoRA {lora_dtype(bundle)}"


def int8_table(bundle: Bundle, where: str = "") -> TextTable | None:
    """Return a table of 8-bit shares (percent, counts) of layers, parameters and operations by U-Net; None without counts."""
    shares = {labelled(graph.variant.value, graph.task): _shares(graph.int8) for graph in bundle.graphs if graph.int8}
    rows = tuple((name, *map(_cell, each)) for name, each in shares.items())
    columns = ("U-Net", "Layers", "Parameters", "Multiply-accumulates", "LoRA products")
    is_numeric = (False, True, True, True, True)
    title = title_on(bundle.precision, where)
    return TextTable(title=title, columns=columns, numeric=is_numeric, rows=rows, notes=(_NOTE,)) if rows else None


def int8_of_shared(bundle: Bundle) -> Int8Share | None:
    """Return the shared U-Net's Int8Share: counts of 8-bit layers, parameters and operations. Return None if none are known."""
    return next((graph.int8 for graph in bundle.graphs if graph.variant is Variant.SHARED and graph.int8), None)


def int8_note(bundle: Bundle) -> str | None:
    """Return a sentence on how much of the shared U-Net runs in 8 bits. Return None if it has no 8-bit layer or no counts."""
    int8 = int8_of_shared(bundle)
    if int8 is None or int8.layers.int8 == 0:
        return None
    layers, parameters, work, products = (_cell(share) for share in _shares(int8))
    shares = f"parameters {parameters}, layers {layers}, multiply-accumulates {work}, LoRA products {products}"
    return f"W8A8 in the shared U-Net ({bundle.precision}): {shares}."


def _shares(int8: Int8Share) -> tuple[Int8Fraction, ...]:
    return int8.layers, int8.parameters, int8.multiply_accumulates, int8.lora_products


def _cell(share: Int8Fraction) -> str:
    return f"{share.percent:.1f} % ({share.int8:,} of {share.total:,})" if share.total else "none"
