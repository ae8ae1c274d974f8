"""Setups: the bundles that a run's devices ran, with their precision, samplers and share of 8-bit work."""

import re
from dataclasses import dataclass

from quadbench.artifacts import Bundle, Graph, RunResult, TaskAssets, Variant
from quadbench.artifacts.bundle import Int8Share, Share
from quadbench.artifacts.run_record import lora_dtype
from quadbench.report.figure_table import TextTable
from quadbench.report.launches import devices_of
from quadbench.report.units import plural


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
        addresses = tuple(d.address for d in devices_of(result) if result.stored_on(d).folder == stored.folder)
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


_NOTE = "In 8 bits: data and result have 8 bits (W8A8), as the weights have; of a LoRA product its weights, too."


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
