"""Kernels: RunResult -> a table for each device of how many nodes compute in integers, and how many in float."""

from collections.abc import Sequence

from quadbench.artifacts import DeviceFacts, RunResult, Sample, Variant
from quadbench.artifacts.kernels import KERNEL_KINDS, KERNEL_NODES
from quadbench.artifacts.parts import BASE_UNET
from quadbench.report.launches import devices_of, launches_of, sound
from quadbench.report.text_table import TextTable


def kernel_tables(result: RunResult) -> tuple[TextTable, ...]:
    """Return a table for each device whose runtime's graphs were counted."""
    return tuple(table for device in devices_of(result) if (table := _table(result, device)))


def _table(result: RunResult, device: DeviceFacts) -> TextTable | None:
    rows: dict[tuple[str, ...], dict[str, int]] = {}
    for variant in (Variant.SHARED, Variant.PER_GRAPH):
        for record in sound(launches_of(result, device, variant))[:1]:
            for sample in record.samples:
                if sample.metric == KERNEL_NODES:
                    rows.setdefault(_graph(sample), {})[sample.labels["kind"]] = int(sample.value)
    if not rows:
        return None
    return TextTable(
        title=f"How {device.address} computes",
        columns=("Graph", "Of", "In integers", "In float", "QuantizeLinear", "DequantizeLinear"),
        numeric=(False, False, True, True, True, True),
        rows=tuple((*graph, *_numbers(counts)) for graph, counts in rows.items()),
        notes=(_note(list(rows.values())),),
    )


def _graph(sample: Sample) -> tuple[str, str]:
    unet = sample.labels.get("unet", BASE_UNET)
    return (sample.component or "", "all tasks" if unet == BASE_UNET else unet)


def _numbers(counts: dict[str, int]) -> list[str]:
    return [f"{counts[kind]:,}" if kind in counts else "–" for kind in KERNEL_KINDS]


def _note(rows: Sequence[dict[str, int]]) -> str:
    counted = "Nodes of the graphs as ONNX Runtime's optimizer leaves them; those that only move values are not counted. "
    if not any(counts.get("quantize") for counts in rows):
        return counted + "Activations are float, as the recipe asks; weights become float as a graph is loaded."
    return counted + (
        "In float means between DequantizeLinear and QuantizeLinear: values are rounded as on an NPU, and times are not an NPU's."
    )
