"""Component times: RunResult -> a table for each device: what each component takes to load, to run first, and to run later."""

from collections.abc import Iterator
from statistics import median

from quadbench.artifacts import Component, DeviceFacts, RunRecord, RunResult, Variant
from quadbench.report.launches import devices_of, is_emulated, launches_of, sound
from quadbench.report.text_table import TextTable
from quadbench.report.units import Unit, show

_RUNS = {
    Component.TEXT_ENCODER: "text_encoder_ns",
    Component.VAE_ENCODER: "vae_encoder_ns",
    Component.UNET: "unet_ns",
    Component.VAE_DECODER: "vae_decoder_ns",
}
_NOTE = (
    "Medians of the launches. First run: the first of a launch, warm-up or not; steady: the median of the others that are no "
    "warm-up. A run is what an image takes of a component, of the U-Net one step."
)


def component_tables(result: RunResult) -> tuple[TextTable, ...]:
    """Return a table for each device whose launches have times of their own: not an emulator's, nor a service's."""
    return tuple(table for device in devices_of(result) if (table := _table(result, device)))


def _table(result: RunResult, device: DeviceFacts) -> TextTable | None:
    rows = tuple(row for variant in (Variant.SHARED, Variant.PER_GRAPH) for row in _rows(result, device, variant))
    if not rows:
        return None
    return TextTable(
        title=f"Loading and running on {device.address}",
        columns=("Component", "Of", "Load, ms", "First run, ms", "Steady, ms"),
        numeric=(False, False, True, True, True),
        rows=rows,
        notes=(_NOTE,),
    )


def _rows(result: RunResult, device: DeviceFacts, variant: Variant) -> Iterator[tuple[str, ...]]:
    records = [record for record in sound(launches_of(result, device, variant)) if not is_emulated(record)]
    for component in Component:
        loads = [median(times) for record in records if (times := _loads(record, component))]
        runs = [_runs(record, component) for record in records]
        firsts = [first for first, _ in runs if first is not None]
        steady = [median(later) for _, later in runs if later]
        if firsts:
            yield component.value, variant.value, *map(_cell, (loads, firsts, steady))


def _loads(record: RunRecord, component: Component) -> list[float]:
    return [s.value for s in record.samples if s.metric == "session_load_ns" and s.component == component]


def _runs(record: RunRecord, component: Component) -> tuple[float | None, list[float]]:
    """Return the first run of a launch and the later ones. Samples stand in the order in which they were measured."""
    samples = [sample for sample in record.samples if sample.metric == _RUNS[component]]
    return (samples[0].value if samples else None), [sample.value for sample in samples[1:] if not sample.is_warmup]


def _cell(values: list[float]) -> str:
    return show(median(values), Unit.MILLISECONDS) if values else "–"
