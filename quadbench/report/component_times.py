"""Component times: RunResult -> a table for each device: what each component takes to load, to run first, and to run later."""

from collections.abc import Iterator, Sequence
from statistics import median

from quadbench.artifacts import Component, DeviceFacts, RunResult, Variant
from quadbench.report.launches import Alike, alike, counted, devices_of, places
from quadbench.report.text_table import TextTable
from quadbench.report.units import Unit, show
from quadbench.statistics import medians

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
    groups = [group for group in alike(counted(result, device).of(variant)) if not group.is_emulated]
    for component in Component:
        loads = medians([times for group in groups for times in _loads(group, component) if times])
        runs = [run for group in groups for run in _runs(group, component)]
        firsts = [first for first, _ in runs]
        steady = medians([later for _, later in runs if later])
        if firsts:
            yield component.value, variant.value, *map(_cell, (loads, firsts, steady))


def _loads(group: Alike, component: Component) -> list[list[float]]:
    at = places(group.kinds, "session_load_ns", lambda kind: kind.component == component)
    return [[values[place] for place in at] for values in group.launches]


def _runs(group: Alike, component: Component) -> list[tuple[float, list[float]]]:
    """Return the first run of each launch and the later ones; nothing where it does not run."""
    first, *later = group.kinds.by_metric.get(_RUNS[component]) or (None,)
    if first is None:
        return []
    steady = [place for place in later if not group.kinds.each[place].is_warmup]
    return [(values[first], [values[place] for place in steady]) for values in group.launches]


def _cell(times: Sequence[float]) -> str:
    return show(median(times), Unit.MILLISECONDS) if times else "–"
