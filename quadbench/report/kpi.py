"""KPI rows: one for each device, task and metric, which compares the shared graph with one graph per task."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from quadbench import statistics
from quadbench.artifacts import Caveat, Component, DeviceFacts, RunRecord, RunResult, SampleKind, TaskAssets, Variant
from quadbench.artifacts.bundle import TaskKind
from quadbench.artifacts.caveats import FigureKind
from quadbench.artifacts.launch_values import SampleKinds
from quadbench.artifacts.run_record import shared_only_tasks
from quadbench.recipe.published import published_table
from quadbench.recipe.settings import int8_percent_of
from quadbench.recipe.tasks import NO_TASK
from quadbench.report.formatting import FigureTable, TextTable, Unit, show, times
from quadbench.report.launches import KindGroup, PairedLaunches, absence_reason, by_kind, indices, launches_of, paired
from quadbench.statistics import EQUIVALENCE_MARGIN, LAUNCHES_PER_BLOCK, MIN_BLOCKS, Verdict
from quadbench.statistics.multiple_testing import JointVerdict, judge_together

Values = NDArray[np.float64]  # of launches with equal kinds of samples: shape (launches, values)
Reading = Callable[[Values], Values]  # extracts a figure's values, as many of each launch, from all of their values

NO_INPUT_IMAGE = "does not apply: no input image"
NO_ADAPTER = "does not apply: no adapter"
MERGED = "merged into the U-Net"
NO_OWN_GRAPH = "does not apply: admitted later, without a graph of its own"
NOT_APPLICABLE = (NO_INPUT_IMAGE, NO_ADAPTER, MERGED, NO_OWN_GRAPH)
WITH_VERDICT = ("end_to_end", "switch", "first_image", "peak_ram", "unet_run", "unet_peak")
_SAME_FILES = {"vae_encoder", "vae_decoder", "text_encoder", "text_run"}
_EQUAL_WITHIN = 0.05  # change of a file's time that counts as equal conditions

_MS, _MB = Unit.MILLISECONDS, Unit.MEGABYTES


def read_at(places: Sequence[int]) -> Reading:
    """Return a function that takes launches' values and returns those at the positions `places`."""
    chosen = np.array(places, dtype=int)
    return lambda values: values[:, chosen]


def task_reading(metric: str) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return a function that takes a launch's sample kinds, a task and a variant, and returns a second function. The second
    function takes launches' values and returns the task's values of `metric`.
    """
    return lambda kinds, task, _: read_at(indices(kinds, metric, lambda kind: kind.task == task.name))


def switches(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function that takes launches' values. It returns the times, in ns, of switches from another task to `task`."""

    def is_to_task(kind: SampleKind) -> bool:
        return bool(_previous_task(kind)) and kind.labels.get("to", kind.task) == task.name

    return read_at(indices(kinds, "switch_ns", is_to_task))


def _previous_task(switch: SampleKind) -> str:
    """Return the task that ran before a switch, from the sample's label `from`. Return '' for a switch from no task."""
    before = switch.labels.get("from", "")
    return "" if before == NO_TASK else before


def first_unets(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function from launches' values to the times, in ns, of the first U-Net runs after switches to `task`."""
    first_runs, came_from = [], ""
    for place in kinds.about_switches:
        kind = kinds.each[place]
        if kind.metric == "switch_ns":
            came_from = _previous_task(kind)
        elif kind.metric == "first_unet_ns" and kind.task == task.name and came_from:
            first_runs.append(place)
    return read_at(first_runs)


def first_images(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function that takes launches' values and returns times in ns, one for each switch to `task`. Each is
    the switch time plus the time of the next image, even if that image is a warm-up.
    """
    switched, images, switch = list[int](), list[int](), None
    for place in kinds.about_switches:
        kind = kinds.each[place]
        if kind.metric == "switch_ns":
            switch = place if _previous_task(kind) else None
        elif kind.metric == "end_to_end_ns" and kind.task == task.name and switch is not None:
            switched.append(switch)
            images.append(place)
            switch = None
    return lambda values: read_at(switched)(values) + read_at(images)(values)


def highest_reading(metric: str) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return f(sample kinds, task, variant), which returns g. g(values) returns each launch's highest value, or no column."""

    def reading(kinds: SampleKinds, task: TaskAssets, variant: Variant) -> Reading:
        all_peaks = task_reading(metric)(kinds, task, variant)
        return lambda values: peaks.max(axis=1, keepdims=True) if (peaks := all_peaks(values)).size else peaks

    return reading


def session_load(kinds: SampleKinds, task: TaskAssets, variant: Variant) -> Reading:
    """Return a function from launches' values to a task's median graph load times in ns, added. No column if one is unknown."""
    loads = [read_at(indices(kinds, "session_load_ns", _is_component(part, task, variant))) for part in components_of(task)]

    def sum_of_medians(values: Values) -> Values:
        times = [load(values) for load in loads]
        if not all(each.size for each in times):
            return values[:, :0]
        return _added(np.median(each, axis=1, keepdims=True) for each in times)

    return sum_of_medians


def adapter_load(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function from launches' values to the cold load times, in ns, of the task's LoRA adapter."""

    def is_cold(kind: SampleKind) -> bool:
        return kind.labels.get("adapter") == task.adapter and kind.labels.get("state") == "cold"

    return read_at(indices(kinds, "adapter_load_ns", is_cold))


def foundation_bytes(kinds: SampleKinds, task: TaskAssets, variant: Variant) -> Reading:
    """Return f. f(values) sums the bytes of a task's graph files, of each launch; no column if the U-Net's size is unknown."""
    parts = [indices(kinds, "rom_bytes", _is_component(part, task, variant)) for part in components_of(task, on_disk=True)]
    firsts = [part[0] for part in parts if part] if parts[0] else []
    return _sum_at(firsts)


def lora_bytes(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function from launches' values to the bytes of the task's LoRA files, added. No column if a size is unknown."""
    files = indices(kinds, "rom_bytes", lambda kind: kind.labels.get("kind") == "adapter")
    place_of = {kinds.each[place].labels["adapter"]: place for place in files}
    return _sum_at([place_of[name] for name in task.weights] if task.weights.keys() <= place_of.keys() else [])


def _sum_at(places: Sequence[int]) -> Reading:
    return lambda values: _added(values[:, [place]] for place in places) if places else values[:, :0]


def _added(columns: Iterable[Values]) -> Values:
    return reduce(np.add, columns)


def components_of(task: TaskAssets, *, on_disk: bool = False) -> tuple[Component, ...]:
    """Return a task's components (graphs), U-Net first. With `on_disk`, include the VAE encoder even if the task skips it."""
    has_encoder = on_disk or task.kind is not TaskKind.TEXT_TO_IMAGE
    encoder = (Component.VAE_ENCODER,) if has_encoder else ()
    return (Component.UNET, Component.TEXT_ENCODER, *encoder, Component.VAE_DECODER)


def component_reading(metric: str, component: Component) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return f(sample kinds, task, variant), which returns g. g(values) returns `metric` values of graph `component`."""
    return lambda kinds, task, variant: read_at(indices(kinds, metric, _is_component(component, task, variant)))


def one_run(component: Component) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return f(sample kinds, task, variant), which returns g. g(values) returns run times in ns of graph `component`."""
    return component_reading("inference_ns", component)


def _is_component(component: Component, task: TaskAssets, variant: Variant) -> Callable[[SampleKind], bool]:
    unet = task.name if variant.has_unet_per_task else "base"
    if component is Component.UNET:
        return lambda kind: kind.component == component and kind.labels.get("unet", kind.task) == unet
    return lambda kind: kind.component == component


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The measured value of a metric with its spread: the median of launch medians, in nanoseconds or bytes. `low` and `high` are
    the least and greatest launch medians, or samples if there is one launch. `p90` is the 90th percentile of all samples, None if
    these are too few. `medians` has each launch's median, in the order measured.
    """

    value: float
    low: float
    high: float
    mad: float
    launches: int
    samples: int
    outliers: int  # samples far from the others of their launch; they still count
    p90: float | None
    medians: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class KpiRow:
    """A row of the KPI table: a metric of a task on a device, for shared graph and one graph per task. A variant without a value
    has a text with the reason. `ratio` is the value of one graph per task divided by the shared graph's; above 1, the shared
    graph takes less. `published` is a paper's value. `blocks` counts the complete A B B A launch blocks in which both variants
    have values, else 0. `judged` is None without a verdict, as for file sizes.
    """

    device: DeviceFacts
    task: str
    key: str
    title: str
    unit: Unit
    is_exact: bool  # a file size, which has no spread
    shared: Figure | str
    per_graph: Figure | str
    ratio: float | None
    published: float | None  # as a paper printed it, in `unit`
    caveats: tuple[Caveat, ...]
    blocks: int = 0
    judged: JointVerdict | None = None

    @property
    def is_same_file(self) -> bool:
        """Return whether a KPI row measures a graph file that both variants run, such as the VAE decoder."""
        return self.key in _SAME_FILES

    @property
    def claim(self) -> Verdict:
        """Return the verdict: BETTER if the shared graph takes less than per-task graphs, WORSE if more, SAME or INCONCLUSIVE."""
        if self.judged:
            return self.judged.claim
        if not self.is_exact or isinstance(self.shared, str) or isinstance(self.per_graph, str):
            return Verdict.INCONCLUSIVE
        return exact_verdict(self.shared.value - self.per_graph.value)

    @property
    def is_apart(self) -> bool:
        """Return whether a KPI row's verdict is BETTER or WORSE. Return False for a graph file that both variants run."""
        return self.claim in (Verdict.BETTER, Verdict.WORSE) and not self.is_same_file


def exact_verdict(more: float) -> Verdict:
    """Return the verdict on `more`, an exact increase, as in file size. It is WORSE above 0, BETTER below 0, SAME at 0."""
    return Verdict.WORSE if more > 0 else Verdict.BETTER if more < 0 else Verdict.SAME


def kpi_rows(result: RunResult) -> tuple[KpiRow, ...]:
    """Return a run's KPI rows, one per device, task and metric, sorted by device, then by the bundle's order of tasks."""
    return judged_rows(
        row
        for device in result.devices
        for counts in [paired(result, device)]
        for task in result.bundle_on(device).tasks
        for row in _rows(result, device, task, counts)
    )


def judged_rows(rows: Iterable[KpiRow]) -> tuple[KpiRow, ...]:
    """Return the KPI rows as a tuple, with verdicts in `judged`. P-values are corrected for multiple testing within each of three
    groups: main metrics, other metrics, and controls. A control is the row of the slowest graph file that both variants run, one
    per device and task. A control's times differ only if conditions such as temperature differed.
    """
    every = tuple(rows)
    longest = dict[tuple[str, str, str], tuple[float, int]]()
    for place, row in enumerate(every):
        if row.is_same_file and row.blocks and isinstance(row.shared, Figure):
            of = (row.device.address, row.device.serial, row.task)
            longest[of] = max(longest.get(of, (0.0, place)), (row.shared.value, place))
    judged = dict[int, JointVerdict]()
    for margin, family in (
        (EQUIVALENCE_MARGIN, [place for place, row in enumerate(every) if row.key in WITH_VERDICT]),
        (EQUIVALENCE_MARGIN, [place for place, row in enumerate(every) if not (row.key in WITH_VERDICT or row.is_same_file)]),
        (_EQUAL_WITHIN, [place for _, place in longest.values()]),
    ):
        sides = {place: pair for place in family if (pair := _sides(every[place]))}
        judged |= dict(zip(sides, judge_together(list(sides.values()), margin=margin), strict=True))
    return tuple(replace(row, judged=judged.get(place)) for place, row in enumerate(every))


def _sides(row: KpiRow) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return a row's launch medians as `(per_graph, shared)`. Return None for file sizes, no complete block or a median <= 0."""
    if row.is_exact or not row.blocks or isinstance(row.shared, str) or isinstance(row.per_graph, str):
        return None
    sides = row.per_graph.medians, row.shared.medians
    return sides if min(map(min, sides)) > 0 else None


@dataclass(frozen=True, kw_only=True)
class _Kpi:
    """A KPI's definition. `reading` returns a function from launches' values to KPI values. `absent` says why a task has none."""

    key: str
    title: str
    unit: Unit
    reading: Callable[[SampleKinds, TaskAssets, Variant], Reading]
    absent: Callable[[TaskAssets, Variant], str | None] = lambda task, variant: None
    is_exact: bool = False

    @property
    def kind(self) -> FigureKind:
        return FigureKind.SIZE if self.is_exact else FigureKind.TIME if self.unit is _MS else FigureKind.MEMORY


def _rows(result: RunResult, device: DeviceFacts, task: TaskAssets, counts: PairedLaunches) -> Iterator[KpiRow]:
    variants = (Variant.SHARED, Variant.PER_GRAPH)
    launches = {variant: launches_of(result, device, variant) for variant in variants}
    groups = {variant: by_kind(counts.of(variant)) for variant in variants}
    caveats = {caveat for variant in variants for record in counts.of(variant) for caveat in record.caveats}
    bundle = result.bundle_on(device)
    is_admitted = bool(launches[Variant.PER_GRAPH]) and task.name in shared_only_tasks(bundle)
    paper = published_table(result.published).at(int8_percent_of(bundle.precision)) if result.published else None
    blocks = [slice(at, at + LAUNCHES_PER_BLOCK) for at in range(0, LAUNCHES_PER_BLOCK * counts.blocks, LAUNCHES_PER_BLOCK)]
    for kpi in _HOSTED_KPIS if device.is_hosted else _KPIS:
        kind = kpi.kind
        values = [[] if kpi.absent(task, variant) else _values(kpi, groups[variant], task) for variant in variants]
        whole = blocks
        if not all(len(side) == LAUNCHES_PER_BLOCK * len(blocks) and all(side) for side in values):
            whole = [block for block in blocks if all(side[block] and all(side[block]) for side in values)]
        if len(whole) < len(blocks) and whole:  # blocks in which a launch has no value do not count
            values = [[launch for block in whole for launch in side[block]] for side in values]
        shared, per_graph = (
            kpi.absent(task, variant) or figure(of_launches) or absence_reason(launches[variant], kind)
            for variant, of_launches in zip(variants, values, strict=True)
        )
        per_graph, name = NO_OWN_GRAPH if is_admitted else per_graph, published_name(kpi.key, kpi.unit)
        yield KpiRow(
            device=device,
            task=task.name,
            key=kpi.key,
            title=kpi.title,
            unit=kpi.unit,
            is_exact=kpi.is_exact,
            shared=shared,
            per_graph=per_graph,
            ratio=_ratio(shared, per_graph),
            published=paper.figure(name, task=task.name, device=device.profile) if paper else None,
            caveats=tuple(caveat for caveat in Caveat if caveat in caveats and caveat.is_about(kind)),
            blocks=len(whole),
        )


def published_name(key: str, unit: Unit) -> str:
    """Return a metric's name in tables of published results, made from its key and unit, such as `end_to_end_ms`."""
    return f"{key}_{unit.value.lower()}"


def launch_values(key: str, records: Sequence[RunRecord], task: TaskAssets) -> list[Sequence[float]]:
    """Return a list with an item per launch: the sequence of the task's values of the metric `key`, in nanoseconds or bytes."""
    return _values(next(kpi for kpi in _KPIS if kpi.key == key), by_kind(records), task)


def _values(kpi: _Kpi, groups: Sequence[KindGroup], task: TaskAssets) -> list[Sequence[float]]:
    """Return a list with one sequence per launch: a task's values of a KPI, in ns or bytes. Emulators' figures are left out."""
    launches: list[Sequence[float]] = []
    for group in groups:
        reading = read_at(()) if kpi.kind in group.emulated else kpi.reading(group.kinds, task, group.variant)
        launches.extend(reading(group.values).tolist())
    return launches


def figure(launches: Sequence[Sequence[float]]) -> Figure | None:
    """Return a `Figure` from launch medians, or from samples if only one launch has any. Return None if no launch has samples."""
    measured = [launch for launch in launches if launch]
    pooled = [value for launch in measured for value in launch]
    medians = statistics.medians(measured)
    spread = statistics.summarize(medians if len(medians) > 1 else pooled)
    if spread is None:
        return None
    return Figure(
        value=spread.median,
        low=spread.minimum,
        high=spread.maximum,
        mad=spread.mad,
        launches=len(measured),
        samples=len(pooled),
        outliers=statistics.count_outliers(measured),
        p90=statistics.percentile(pooled, 90),
        medians=medians,
    )


def count(figure: Figure) -> str:
    """Format a sample count: `3 × 20` for 60 samples in 3 launches, but `3 launches, 55`, as 55 is not divisible by 3."""
    each, rest = divmod(figure.samples, figure.launches)
    return f"{figure.launches} launches, {figure.samples}" if rest else f"{figure.launches} × {each}"


def spread(figure: Figure, unit: Unit) -> str:
    """Format a figure's range in `unit`, such as `495 – 813`: least and greatest launch median, or sample if one launch ran."""
    return f"{show(figure.low, unit)} – {show(figure.high, unit)}"


def _ratio(shared: Figure | str, per_graph: Figure | str) -> float | None:
    if isinstance(shared, str) or isinstance(per_graph, str) or shared.value <= 0:
        return None
    return per_graph.value / shared.value


def _needs_input_image(task: TaskAssets, variant: Variant) -> str | None:
    return NO_INPUT_IMAGE if task.kind is TaskKind.TEXT_TO_IMAGE else None


def _needs_adapter(task: TaskAssets, variant: Variant) -> str | None:
    if task.adapter is None:
        return NO_ADAPTER
    return MERGED if variant is Variant.PER_GRAPH else None


_KPIS = (
    _Kpi(key="vae_encoder", title="VAE encoder", unit=_MS, reading=task_reading("vae_encoder_ns"), absent=_needs_input_image),
    _Kpi(key="unet_step", title="U-Net, one step", unit=_MS, reading=task_reading("unet_ns")),
    _Kpi(key="vae_decoder", title="VAE decoder", unit=_MS, reading=task_reading("vae_decoder_ns")),
    _Kpi(key="text_encoder", title="Text encoder", unit=_MS, reading=task_reading("text_encoder_ns")),
    _Kpi(key="end_to_end", title="End to end", unit=_MS, reading=task_reading("end_to_end_ns")),
    _Kpi(key="residual", title="Residual", unit=_MS, reading=task_reading("residual_ns")),
    _Kpi(key="session_load", title="Session load", unit=_MS, reading=session_load),
    _Kpi(key="adapter_load", title="LoRA load, cold", unit=_MS, reading=adapter_load, absent=_needs_adapter),
    _Kpi(key="switch", title="Switch to this task", unit=_MS, reading=switches),
    _Kpi(key="first_image", title="Switch and first image", unit=_MS, reading=first_images),
    _Kpi(key="first_unet", title="U-Net, first run", unit=_MS, reading=first_unets),
    _Kpi(key="foundation_rom", title="Foundation ROM", unit=_MB, reading=foundation_bytes, is_exact=True),
    _Kpi(key="lora_rom", title="LoRA ROM", unit=_MB, reading=lora_bytes, absent=_needs_adapter, is_exact=True),
    _Kpi(key="peak_ram", title="Peak RAM, running", unit=_MB, reading=highest_reading("peak_rss_bytes")),
    _Kpi(key="load_peak_ram", title="Peak RAM, switching", unit=_MB, reading=highest_reading("load_peak_rss_bytes")),
)

# A service that hosts devices runs single graphs: no images, no switches.
_HOSTED_KPIS = (
    _Kpi(key="vae_encoder", title="VAE encoder", unit=_MS, reading=one_run(Component.VAE_ENCODER), absent=_needs_input_image),
    _Kpi(key="unet_run", title="U-Net, one run", unit=_MS, reading=one_run(Component.UNET)),
    _Kpi(key="vae_decoder", title="VAE decoder", unit=_MS, reading=one_run(Component.VAE_DECODER)),
    _Kpi(key="text_run", title="Text encoder, one run", unit=_MS, reading=one_run(Component.TEXT_ENCODER)),
    _Kpi(key="session_load", title="Session load", unit=_MS, reading=session_load),
    _Kpi(key="foundation_rom", title="Foundation ROM", unit=_MB, reading=foundation_bytes, is_exact=True),
    _Kpi(key="lora_rom", title="LoRA ROM", unit=_MB, reading=lora_bytes, absent=_needs_adapter, is_exact=True),
    _Kpi(key="unet_peak", title="Peak RAM, U-Net", unit=_MB, reading=component_reading("inference_peak_bytes", Component.UNET)),
)
KPI_UNITS = {kpi.key: kpi.unit for kpi in (*_KPIS, *_HOSTED_KPIS)}
KPI_TITLES = {kpi.key: kpi.title for kpi in (*_KPIS, *_HOSTED_KPIS)}


def unequal_rows(rows: Sequence[KpiRow]) -> tuple[KpiRow, ...]:
    """Return the KPI rows that show unequal conditions, such as temperature, at most one per device and task. Each row is of a
    graph file that both variants run, and its two times differ by over 5 %.
    """
    return tuple(row for row in rows if row.is_same_file and row.claim in (Verdict.BETTER, Verdict.WORSE))


@dataclass(frozen=True, kw_only=True)
class LaunchVerdict:
    """The verdict on a task's metric, for the shared graph against one graph per task. `ratio` is the value of one graph per task
    divided by the shared graph's. Above 1, the shared graph takes less. `low` to `high` is the 95 % interval of `ratio`. `p` is
    the p-value for equal variants, corrected for the number of tests, `together`. `verdict` is None below six blocks.
    `launches_needed` launches per variant detect a 5 % difference; None if the result is conclusive or 80 are too few.
    """

    task: str
    title: str
    blocks: int
    ratio: float
    low: float
    high: float
    p: float
    together: int
    verdict: Verdict | None
    launches_needed: int | None


def launch_verdicts(rows: Sequence[KpiRow], device: DeviceFacts) -> tuple[LaunchVerdict, ...]:
    """Return a device's verdicts on main metrics, as a tuple. `rows` has the judged KPI rows of all devices."""
    judged = [(row, row.judged) for row in rows if row.judged and row.key in WITH_VERDICT]
    return tuple(
        LaunchVerdict(
            task=row.task,
            title=row.title,
            blocks=verdict.blocks,
            ratio=1 / verdict.ratio,
            low=1 / verdict.high,
            high=1 / verdict.low,
            p=verdict.p,
            together=len(judged),
            verdict=verdict.verdict if verdict.blocks >= MIN_BLOCKS else None,
            launches_needed=verdict.launches_needed,
        )
        for row, verdict in judged
        if row.device == device
    )


def comparison_tables(result: RunResult) -> tuple[FigureTable, ...]:
    """Return a tuple of tables, one per device with a complete A B B A block. A table row is a verdict on a task's metric."""
    rows = kpi_rows(result)
    tables = []
    for device in result.devices:
        if verdicts := launch_verdicts(rows, device):
            text = TextTable(
                title=f"Launch by launch on {device.address}",
                columns=("Task", "Figure", "Blocks", "Ratio", "95 % interval", "p", "Shared is"),
                numeric=(False, False, True, True, True, True, False),
                rows=tuple(_cells(verdict) for verdict in verdicts),
                notes=(note_on(verdicts),),
            )
            fields = ("device", "task", "figure", "blocks", "ratio", "ratio_low", "ratio_high", "p", "verdict")
            values = [(device.address, v.task, v.title, v.blocks, v.ratio, v.low, v.high, v.p, v.verdict) for v in verdicts]
            tables.append(FigureTable(text=text, fields=fields, values=tuple(values)))
    return tuple(tables)


def note_on(verdicts: Sequence[LaunchVerdict]) -> str:
    """Return a note for a table of verdicts: how ratios, p-values and verdicts were computed, and for how many metrics."""
    count = verdicts[0].together
    return (
        "Ratio: per-graph / shared, over blocks of launches interleaved A B B A; above 1 the shared graph takes less. Intervals "
        f"are Student's t at 95 %, without adjustment. {count} figures of this report were tested together: p is from a t-test, "
        f"adjusted for all (Holm). A verdict needs {MIN_BLOCKS} blocks; BETTER and WORSE need the whole interval beyond "
        f"{EQUIVALENCE_MARGIN:.0%}, p of at most 0.05 and an exact sign-flip test that agrees."
    )


def _cells(verdict: LaunchVerdict) -> tuple[str, ...]:
    interval = f"{times(verdict.low)} – {times(verdict.high)}"
    p = "<0.001" if verdict.p < 0.001 else f"{verdict.p:.3f}"
    place = (verdict.task, verdict.title, str(verdict.blocks))
    return (*place, times(verdict.ratio), interval, p, verdict.verdict or "no verdict")
