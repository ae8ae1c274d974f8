"""Ways: RunResult -> a table for each device of what each way to serve the tasks takes, and when which one is best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from quadbench.artifacts import DeviceFacts, RunResult, Variant
from quadbench.report.kpi import Figure, KpiRow, figure, launch_values, unequal_rows
from quadbench.report.launches import devices_of, launches_of, sound
from quadbench.report.text_table import TextTable
from quadbench.report.units import Unit, plural, show

_WAYS = {
    Variant.SHARED: "shared: one base, LoRAs as inputs",
    Variant.PER_GRAPH: "per-graph: a graph per task, loaded at each switch",
    Variant.RESIDENT: "resident: a graph per task, all in memory",
}
_COLUMNS = {
    "end_to_end": ("Image", Unit.MILLISECONDS),
    "switch": ("Switch", Unit.MILLISECONDS),
    "first_image": ("Switch and first image", Unit.MILLISECONDS),
    "peak_ram": ("Peak RAM", Unit.MEGABYTES),
}
_ADVICE = "Image, switch and both together are means over the tasks of each task's median; peak RAM is the highest of any task."


@dataclass(frozen=True, kw_only=True)
class _Way:
    """The figures of one variant on one device, in nanoseconds and bytes; None where no launch gave one."""

    end_to_end: float | None
    switch: float | None
    first_image: float | None
    peak_ram: float | None


def way_tables(result: RunResult, rows: Sequence[KpiRow]) -> tuple[TextTable, ...]:
    """Return a table for each device that measured more ways than shared and per-graph, which the KPI table compares."""
    tables, unequal = [], [row.device for row in unequal_rows(rows)]
    for device in devices_of(result):
        ways = {variant: way for variant in _WAYS if (way := _way(result, device, variant))}
        if Variant.RESIDENT in ways and len(ways) > 1:
            tables.append(_table(device, ways, is_equal=device not in unequal))
    return tuple(tables)


def _way(result: RunResult, device: DeviceFacts, variant: Variant) -> _Way | None:
    launches = sound(launches_of(result, device, variant))
    if not launches:
        return None
    tasks = result.bundle.tasks
    figures = {key: [figure([launch_values(key, launch, task) for launch in launches]) for task in tasks] for key in _COLUMNS}
    return _Way(
        end_to_end=_mean(figures["end_to_end"]),
        switch=_mean(figures["switch"]),
        first_image=_mean(figures["first_image"]),
        peak_ram=max((one.value for one in figures["peak_ram"] if one), default=None),
    )


def _mean(figures: list[Figure | None]) -> float | None:
    told = [one.value for one in figures if one]
    return mean(told) if told else None


def _table(device: DeviceFacts, ways: Mapping[Variant, _Way], *, is_equal: bool) -> TextTable:
    return TextTable(
        title=f"Ways to serve the tasks on {device.address}",
        columns=("Way", *(f"{title}, {unit.value}" for title, unit in _COLUMNS.values())),
        numeric=(False, *(True for _ in _COLUMNS)),
        rows=tuple((_WAYS[variant], *_cells(way)) for variant, way in ways.items()),
        notes=tuple(filter(None, (_ADVICE, _break_even(ways) if is_equal else None, _price_of_residence(ways)))),
    )


def _cells(way: _Way) -> list[str]:
    figures = [(getattr(way, key), unit) for key, (_, unit) in _COLUMNS.items()]
    return ["–" if value is None else show(value, unit) for value, unit in figures]


def _break_even(ways: Mapping[Variant, _Way]) -> str | None:
    """Say how often tasks must be switched for the shared graph to take less time than one that is loaded at each switch."""
    shared, own = ways.get(Variant.SHARED), ways.get(Variant.PER_GRAPH)
    if not (shared and own and shared.end_to_end and own.end_to_end and shared.switch and own.switch):
        return None
    saved, lost = own.switch - shared.switch, shared.end_to_end - own.end_to_end
    if saved <= 0:
        return "Loading a graph at each switch takes no longer here than switching a LoRA."
    if lost <= 0:
        return "The shared graph takes less time than one loaded at each switch, however seldom tasks are switched."
    images = saved / lost
    if images < 1:
        return "One graph per task, loaded at each switch, takes less time even where each image is of another task."
    return (
        "The shared graph takes less time than one loaded at each switch "
        f"where a task paints at most {plural(int(images), 'image')} before the next task comes."
    )


def _price_of_residence(ways: Mapping[Variant, _Way]) -> str | None:
    shared, resident = ways.get(Variant.SHARED), ways[Variant.RESIDENT]
    if not (shared and shared.peak_ram and resident.peak_ram):
        return None
    more = resident.peak_ram - shared.peak_ram
    word = "more" if more >= 0 else "less"
    return f"Keeping all graphs in memory takes {show(abs(more), Unit.MEGABYTES)} MB {word} than the shared graph."
