"""KPI rows: one for each device, task and metric, which compares the shared graph with one graph per task."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from statistics import median

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

Reading = Callable[[Sequence[float]], Sequence[float]]  # extracts a figure's values from all values of a launch

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
    """Return a function that takes the list of all values of a launch, and returns those at the positions `places`."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


def task_reading(metric: str) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return a reader of a metric for a task. The reader takes the kinds of a launch's samples, and finds the task's. It returns
    a function that picks their values from all values of the launch.
    """
    return lambda kinds, task, _: read_at(indices(kinds, metric, lambda kind: kind.task == task.name))


def switches(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function that takes a launch's values and returns the times of switches from another task to this task."""

    def is_to_task(kind: SampleKind) -> bool:
        return bool(_previous_task(kind)) and kind.labels.get("to", kind.task) == task.name

    return read_at(indices(kinds, "switch_ns", is_to_task))


def _previous_task(switch: SampleKind) -> str:
    """Return the name of the task before a switch; empty at the start of a launch, when no task ran before."""
    before = switch.labels.get("from", "")
    return "" if before == NO_TASK else before


def first_unets(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function from a launch's values to the times of the first U-Net run after each switch to this task."""
    first_runs, came_from = [], ""
    for place in kinds.about_switches:
        kind = kinds.each[place]
        if kind.metric == "switch_ns":
            came_from = _previous_task(kind)
        elif kind.metric == "first_unet_ns" and kind.task == task.name and came_from:
            first_runs.append(place)
    return read_at(first_runs)


def first_images(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function that adds switch time and next image's time for each switch to the task. Warm-up images count, too."""
    pairs, switch = [], None
    for place in kinds.about_switches:
        kind = kinds.each[place]
        if kind.metric == "switch_ns":
            switch = place if _previous_task(kind) else None
        elif kind.metric == "end_to_end_ns" and kind.task == task.name and switch is not None:
            pairs.append((switch, place))
            switch = None
    return lambda values: [values[switch] + values[image] for switch, image in pairs]


def highest_reading(metric: str) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return a KPI's reader for a metric. The reader returns a function that picks the highest of a task's values in a launch."""

    def reading(kinds: SampleKinds, task: TaskAssets, variant: Variant) -> Reading:
        all_peaks = task_reading(metric)(kinds, task, variant)
        return lambda values: [max(peaks)] if (peaks := all_peaks(values)) else []

    return reading


def session_load(kinds: SampleKinds, task: TaskAssets, variant: Variant) -> Reading:
    """Return a function that computes a task's session load time: the sum of its components' median load times in a launch."""
    loads = [read_at(indices(kinds, "session_load_ns", _is_component(part, task, variant))) for part in components_of(task)]

    def sum_of_medians(values: Sequence[float]) -> list[float]:
        times = [load(values) for load in loads]
        return [sum(map(median, times))] if all(times) else []

    return sum_of_medians


def adapter_load(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function that takes a launch's values and returns the cold load times of the task's LoRA adapter."""

    def is_cold(kind: SampleKind) -> bool:
        return kind.labels.get("adapter") == task.adapter and kind.labels.get("state") == "cold"

    return read_at(indices(kinds, "adapter_load_ns", is_cold))


def foundation_bytes(kinds: SampleKinds, task: TaskAssets, variant: Variant) -> Reading:
    """Return a function that sums the file sizes of all components but LoRAs. It gives no sum if the U-Net's size is unknown."""
    parts = [indices(kinds, "rom_bytes", _is_component(part, task, variant)) for part in components_of(task, on_disk=True)]
    firsts = [part[0] for part in parts if part] if parts[0] else []
    return _sum_at(firsts)


def lora_bytes(kinds: SampleKinds, task: TaskAssets, _: Variant) -> Reading:
    """Return a function that sums the file sizes of the task's LoRA adapters. It gives no sum if any size is unknown."""
    files = indices(kinds, "rom_bytes", lambda kind: kind.labels.get("kind") == "adapter")
    place_of = {kinds.each[place].labels["adapter"]: place for place in files}
    return _sum_at([place_of[name] for name in task.weights] if task.weights.keys() <= place_of.keys() else [])


def _sum_at(places: Sequence[int]) -> Reading:
    return lambda values: [sum(values[place] for place in places)] if places else []


def components_of(task: TaskAssets, *, on_disk: bool = False) -> tuple[Component, ...]:
    """Return a task's components (graphs), U-Net first. With `on_disk`, include the VAE encoder even if the task skips it."""
    has_encoder = on_disk or task.kind is not TaskKind.TEXT_TO_IMAGE
    encoder = (Component.VAE_ENCODER,) if has_encoder else ()
    return (Component.UNET, Component.TEXT_ENCODER, *encoder, Component.VAE_DECODER)


def component_reading(metric: str, component: Component) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return a KPI's reader for a metric of one component, such as the VAE decoder, run on its own with random inputs."""
    return lambda kinds, task, variant: read_at(indices(kinds, metric, _is_component(component, task, variant)))


def one_run(component: Component) -> Callable[[SampleKinds, TaskAssets, Variant], Reading]:
    """Return a KPI's reader for the times of single runs of a component's graph, such as the VAE decoder's."""
    return component_reading("inference_ns", component)


def _is_component(component: Component, task: TaskAssets, variant: Variant) -> Callable[[SampleKind], bool]:
    unet = task.name if variant.has_unet_per_task else "base"
    if component is Component.UNET:
        return lambda kind: kind.component == component and kind.labels.get("unet", kind.task) == unet
    return lambda kind: kind.component == component


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The measured value of a metric with its spread: the median of launch medians, in nanoseconds or bytes. `low` and `high` are
    the least and greatest launch medians, or samples if there is one launch. `p90` is over all samples, None if too few.
    `medians` has each launch's median, in the order measured.
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
    """One row of the KPI table: a metric of a task on a device, for both variants. A variant without a value has a text with the
    reason. `ratio` is one graph per task / shared graph; above 1, the shared graph takes less. `published` is a paper's value.
    `blocks` counts the complete A B B A launch blocks from which both values come; it is 0 if launches were not interleaved.
    `judged` is the verdict, None for file sizes and incomparable times.
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
        """Return whether both variants run the same file, so that any difference is noise."""
        return self.key in _SAME_FILES

    @property
    def claim(self) -> Verdict:
        """Return BETTER if the shared graph takes less than one graph per task, WORSE if more; else SAME or INCONCLUSIVE."""
        if self.judged:
            return self.judged.claim
        if not self.is_exact or isinstance(self.shared, str) or isinstance(self.per_graph, str):
            return Verdict.INCONCLUSIVE
        return exact_verdict(self.shared.value - self.per_graph.value)

    @property
    def is_apart(self) -> bool:
        """Return whether the verdict says that one variant takes less time, memory or bytes than the other."""
        return self.claim in (Verdict.BETTER, Verdict.WORSE) and not self.is_same_file


def exact_verdict(more: float) -> Verdict:
    """Return the verdict on the increase `more` of an exact value, such as bytes: WORSE above 0, BETTER below, SAME at 0."""
    return Verdict.WORSE if more > 0 else Verdict.BETTER if more < 0 else Verdict.SAME


def kpi_rows(result: RunResult) -> tuple[KpiRow, ...]:
    """Return a run's KPI rows, one per device, task and metric. They are in order of devices, then of the bundle's tasks."""
    return judged_rows(
        row
        for device in result.devices
        for counts in [paired(result, device)]
        for task in result.bundle_on(device).tasks
        for row in _rows(result, device, task, counts)
    )


def judged_rows(rows: Iterable[KpiRow]) -> tuple[KpiRow, ...]:
    """Return the KPI rows with their verdicts, corrected for multiple testing in three families: main metrics, other metrics, and
    controls. A control is the slowest file that both variants run, for each device and task. Its times differ only if conditions
    such as temperature differed.
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
    """Return a KPI row's launch medians, of one graph per task and of the shared graph; None if they cannot be compared."""
    if row.is_exact or not row.blocks or isinstance(row.shared, str) or isinstance(row.per_graph, str):
        return None
    sides = row.per_graph.medians, row.shared.medians
    return sides if min(map(min, sides)) > 0 else None


@dataclass(frozen=True, kw_only=True)
class _Kpi:
    """The definition of a KPI. `reading` returns a function that picks its values; `absent` says why a task has no value."""

    key: str
    title: str
    unit: Unit
    reading: Callable[[SampleKinds, TaskAssets, Variant], Reading]
    absent: Callable[[TaskAssets, Variant], str | None] = lambda task, variant: None
    is_exact: bool = False


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
        kind = FigureKind.SIZE if kpi.is_exact else FigureKind.TIME if kpi.unit is _MS else FigureKind.MEMORY
        values = [[] if kpi.absent(task, variant) else _values(kpi, groups[variant], task) for variant in variants]
        whole = [block for block in blocks if all(side[block] and all(side[block]) for side in values)]
        if whole:  # blocks in which a launch has no value do not count
            values = [[launch for block in whole for launch in side[block]] for side in values]
        shared, per_graph = (
            kpi.absent(task, variant) or figure(of_launches) or absence_reason(launches[variant], is_time=kpi.unit is _MS)
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
    """Return a metric's name in tables of published results, such as `end_to_end_ms`."""
    return f"{key}_{unit.value.lower()}"


def launch_values(key: str, records: Sequence[RunRecord], task: TaskAssets) -> list[Sequence[float]]:
    """Return a task's values of the metric `key` in each launch, in nanoseconds or bytes."""
    return _values(next(kpi for kpi in _KPIS if kpi.key == key), by_kind(records), task)


def _values(kpi: _Kpi, groups: Sequence[KindGroup], task: TaskAssets) -> list[Sequence[float]]:
    """Return a task's values of a KPI in each launch. Times from an emulator are left out, as they say nothing about a device."""
    launches: list[Sequence[float]] = []
    for group in groups:
        is_told = kpi.unit is not _MS or not group.is_emulated
        reading = kpi.reading(group.kinds, task, group.variant) if is_told else read_at(())
        launches.extend(map(reading, group.launches))
    return launches


def figure(launches: Sequence[Sequence[float]]) -> Figure | None:
    """Return the median and spread computed from the values of each launch; None if no launch has values."""
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
    """Format a count of samples as launches × samples in each (`3 × 20`). If they differ, give the total (`3 launches, 55`)."""
    each, rest = divmod(figure.samples, figure.launches)
    return f"{figure.launches} launches, {figure.samples}" if rest else f"{figure.launches} × {each}"


def spread(figure: Figure, unit: Unit) -> str:
    """Format a value's range in `unit`: its lowest and highest launch median (or sample, if there is only one launch)."""
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
    """Return a KPI row for each device and task whose variants ran under unequal conditions, such as temperature. The row shows
    the slowest file that both variants run: its two times differ by over 5 %.
    """
    return tuple(row for row in rows if row.is_same_file and row.claim in (Verdict.BETTER, Verdict.WORSE))


@dataclass(frozen=True, kw_only=True)
class LaunchVerdict:
    """The verdict on a metric of the shared graph against one graph per task. A `ratio` above 1 means that the shared graph takes
    less; `low` to `high` is its 95 % interval. `p` is the p-value of equal variants, corrected because `together` metrics are
    tested. `verdict` is None below six blocks. If it is inconclusive, `launches_needed` launches per variant would reveal a
    difference of 5 %. It is None if that is impractical.
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
    """Return a device's verdicts on main metrics. `rows` are the KPI rows of all devices, because they are corrected together."""
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
    """Return tables of verdicts: shared graph against one graph per task, for each device with a complete A B B A block."""
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
    """Return a note that explains how verdicts were computed and how many metrics were tested together."""
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
