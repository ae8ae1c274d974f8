"""Ways to serve tasks, compared: a shared graph; a graph per task, kept in several ways; one base with a LoRA merged at load."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, TaskAssets, Variant
from quadbench.artifacts.run_record import BASE_UNET, shared_only_tasks
from quadbench.report.formatting import FigureTable, TextTable, Unit, convert, decibels, display, plural, show
from quadbench.report.kpi import KpiRow, figure, launch_values, unequal_rows
from quadbench.report.launches import launches_of, only_ok, paired, picture_psnr

_MODES = {
    Variant.SHARED: "shared: one base, LoRAs as inputs",
    Variant.PER_GRAPH: "per-graph: a graph per task, loaded at each switch",
    Variant.RESIDENT: "resident: a graph per task, all in memory",
    Variant.CONTEXT_SHARED: "context-shared: a graph per task, all in one context that stores equal weights once",
    Variant.PATCHED: "patched: one graph and a patch for each other, a task's graph made and loaded at each switch",
    Variant.MERGED_AT_LOAD: "merged-at-load: one base, loaded at each switch with a LoRA in its weights",
}
_OF_TASKS = {
    "end_to_end": ("Image", Unit.MILLISECONDS),
    "switch": ("Switch", Unit.MILLISECONDS),
    "first_image": ("Switch and first image", Unit.MILLISECONDS),
    "peak_ram": ("Peak RAM", Unit.MEGABYTES),
}
_COLUMNS = _OF_TASKS | {"files": ("Files", Unit.MEGABYTES)}
_KEEPS_ALL = {Variant.RESIDENT, Variant.CONTEXT_SHARED}  # the U-Nets of all tasks stay in memory
MAX_IMAGES = 12  # between task switches, the end of the curves
_ADVICE = (
    "Image, switch and both together are means over the tasks of each task's median; peak RAM is the highest of any task. Files "
    "are all that lie on the device for the tasks together: graphs, LoRAs, patches."
)
_QUALITY_COLUMNS = {"psnr": "PSNR, dB", "worst_psnr": "Worst PSNR, dB", "eps_sqnr": "SQNR of eps, dB"}
_QUALITY_ADVICE = (
    "PSNR compares the way's own pictures with the float reference: the mean over the tasks of each task's mean, and the worst "
    "picture of any task. SQNR of eps is the mean over the tasks, as the build measured it on held-out inputs."
)


@dataclass(frozen=True, kw_only=True)
class _ServingMode:
    """The measured values of one way to serve (variant) on one device, in nanoseconds, bytes and decibels; None if missing."""

    figures: Mapping[str, float | None]

    @property
    def is_timed(self) -> bool:
        """Return whether both image time and switch time were measured."""
        return None not in (self.figures["end_to_end"], self.figures["switch"])

    def of_image(self, images: float) -> float:
        """Return image time + (switch time / `images`), in ns. `images` is the number of images between two task switches."""
        return (self.figures["end_to_end"] or 0.0) + (self.figures["switch"] or 0.0) / images


@dataclass(frozen=True, kw_only=True)
class ServingModes:
    """The ways to serve tasks that one device measured, as a table and as curves. A curve has (number of images between task
    switches, nanoseconds per image) pairs. The nanoseconds include the switch time divided by the number of images.
    `curves` is empty if variants ran under unequal conditions, such as temperature.
    """

    device: DeviceFacts
    table: FigureTable
    curves: Mapping[Variant, tuple[tuple[int, float], ...]]


def serving_modes(result: RunResult, rows: Sequence[KpiRow]) -> tuple[ServingModes, ...]:
    """Return a `ServingModes` per device that measured at least two variants, one of them neither `shared` nor `per-graph`."""
    views, unequal = [], [row.device for row in unequal_rows(rows)]
    for device in result.devices:
        if not any(launches_of(result, device, variant) for variant in _MODES.keys() - {Variant.SHARED, Variant.PER_GRAPH}):
            continue
        ways = {variant: way for variant in _MODES if (way := _way(result, device, variant))}
        if len(ways) > 1 and ways.keys() - {Variant.SHARED, Variant.PER_GRAPH}:
            timed = {} if device in unequal else {variant: way for variant, way in ways.items() if way.is_timed}
            curves = {v: tuple((n, way.of_image(n)) for n in range(1, MAX_IMAGES + 1)) for v, way in timed.items()}
            views.append(ServingModes(device=device, table=_table(device, ways, timed), curves=curves))
    return tuple(views)


def _way(result: RunResult, device: DeviceFacts, variant: Variant) -> _ServingMode | None:
    is_compared = variant in (Variant.SHARED, Variant.PER_GRAPH)
    launches = paired(result, device).of(variant) if is_compared else only_ok(launches_of(result, device, variant))
    if not launches:
        return None
    admitted = shared_only_tasks(result.bundle)  # only tasks that all ways serve are compared
    tasks = [task for task in result.bundle.tasks if task.name not in admitted]
    figures = {key: [one.value for task in tasks if (one := figure(launch_values(key, launches, task)))] for key in _OF_TASKS}
    psnr_db = [each for task in tasks if (each := picture_psnr(launches, task.name))]
    held_out = result.bundle_on(device).held_out
    judged = [one for one in held_out.trajectories if one.variant == variant.unet_variant] if held_out else []
    own = {
        "peak_ram": max(figures["peak_ram"], default=None),
        "files": _files_bytes(launches[0], tasks),
        "psnr": _mean([mean(each) for each in psnr_db]),
        "worst_psnr": min((min(each) for each in psnr_db), default=None),
        "eps_sqnr": _mean([one.sqnr_db for one in judged if one.sqnr_db is not None]),
    }
    return _ServingMode(figures={key: _mean(values) for key, values in figures.items()} | own)


def _files_bytes(record: RunRecord, tasks: Sequence[TaskAssets]) -> float | None:
    """Return the bytes of all files that serve `tasks` in a launch; None if no file's size was measured."""
    names, adapters = {task.name for task in tasks} | {BASE_UNET}, {name for task in tasks for name in task.weights}
    sizes = [
        sample.value
        for sample in record.samples
        if sample.metric == "rom_bytes"
        and sample.labels.get("unet", BASE_UNET) in names
        and (sample.labels["kind"] == "base" or sample.labels["adapter"] in adapters)
    ]
    return sum(sizes) if sizes else None


def _mean(numbers: Sequence[float]) -> float | None:
    return mean(numbers) if numbers else None


def _table(device: DeviceFacts, ways: Mapping[Variant, _ServingMode], timed: Mapping[Variant, _ServingMode]) -> FigureTable:
    with_one = {variant: way for variant, way in timed.items() if variant not in _KEEPS_ALL}
    sentences = [_break_even(timed, "An")] if timed else []
    if len(timed) > len(with_one) > 1:
        sentences.append(_break_even(with_one, "Among ways with one U-Net in memory: an"))
    shared, resident = (ways[v].figures["peak_ram"] if v in ways else None for v in (Variant.SHARED, Variant.RESIDENT))
    if shared and resident:
        more, word = show(abs(resident - shared), Unit.MEGABYTES), "more" if resident >= shared else "less"
        sentences.append(f"Keeping all graphs in memory takes {more} MB {word} than the shared graph.")
    if fewest := _fewest_bytes(ways):
        sentences.append(fewest)
    text = TextTable(
        title=f"Ways to serve the tasks on {device.address}",
        columns=("Way", *(f"{title}, {unit.value}" for title, unit in _COLUMNS.values()), *_QUALITY_COLUMNS.values()),
        numeric=(False, *(True for _ in (*_COLUMNS, *_QUALITY_COLUMNS))),
        rows=tuple((_MODES[variant], *_cells(way)) for variant, way in ways.items()),
        notes=tuple(filter(None, (_ADVICE, *sentences, _QUALITY_ADVICE))),
    )
    units = {key: unit.lower() for key, (_, unit) in _COLUMNS.items()} | dict.fromkeys(_QUALITY_COLUMNS, "db")
    return FigureTable(
        text=text,
        fields=("device", "way", *(f"{key}_{unit}" for key, unit in units.items())),
        values=tuple((device.address, variant.value, *_values(way)) for variant, way in ways.items()),
    )


def _fewest_bytes(ways: Mapping[Variant, _ServingMode]) -> str | None:
    """Return a sentence on the way whose files take the fewest bytes, and the others' multiples of it; None without bytes."""
    sizes = {variant: size for variant, way in ways.items() if (size := way.figures["files"])}
    if len(sizes) < 2:
        return None
    best, *others = sorted(sizes, key=lambda variant: sizes[variant])
    multiples = ", ".join(f"{variant} {sizes[variant] / sizes[best]:.2f} times as many" for variant in others)
    return f"Files take the fewest bytes with {best}: {multiples}."


def _values(way: _ServingMode) -> Iterator[float | None]:
    for key, value in way.figures.items():
        yield convert(value, _COLUMNS[key][1]) if key in _COLUMNS and value is not None else value


def _cells(way: _ServingMode) -> list[str]:
    units = {key: unit for key, (_, unit) in _COLUMNS.items()}
    return [display(value, units.get(key)).removesuffix(" dB") for key, value in way.figures.items()]


def _break_even(ways: Mapping[Variant, _ServingMode], opening: str) -> str:
    """Return a sentence on the fastest way to serve, by number of images between task switches.
    Each way is named with the PSNR of its images, as the fastest may be the least accurate.
    """
    stretches = fastest_modes({variant: (way.of_image(math.inf), way.figures["switch"] or 0.0) for variant, way in ways.items()})
    (first, until), *later = stretches
    psnr_db = {variant: way.figures["psnr"] for variant, way in ways.items()}
    named = {variant: f"{variant} (PSNR {decibels(psnr)})" if psnr else variant.value for variant, psnr in psnr_db.items()}
    beginning = f"{opening} image and its share of the switch take the least time with {named[first]}"
    if not later:
        return f"{beginning}, however often tasks are switched."
    ranges = [f"{named[variant]} up to {end}" if end else f"{named[variant]} beyond that" for variant, end in later]
    at_most = f"for at most {plural(until or 0, 'image')} between task switches"
    return f"{beginning} {at_most}, {', '.join(f'with {each}' for each in ranges)}."


def fastest_modes(times: Mapping[Variant, tuple[float, float]]) -> list[tuple[Variant, int | None]]:
    """Return (way to serve, limit) pairs in rising order of limits. A limit is the largest number of images between task switches
    at which the way is fastest. It is None in the last pair, whose way is fastest for all larger numbers. `times` maps each way
    to an (image time, switch time) pair in nanoseconds.
    """
    best = min(times, key=lambda variant: sum(times[variant]))
    stretches: list[tuple[Variant, int]] = []
    while slower := [v for v in times if times[v][0] < times[best][0]]:
        # Number of images up to which the best way (slower images, faster switches) beats each of the others.
        better = {v: (times[v][1] - times[best][1]) / (times[best][0] - times[v][0]) for v in slower}
        following = min(better, key=lambda variant: better[variant])
        if not stretches or int(better[following]) > stretches[-1][1]:
            stretches.append((best, int(better[following])))
        best = following
    return [*stretches, (best, None)]
