"""KPI rows: RunResult -> one row for each device, task and figure, shared against per-graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from quadbench import statistics
from quadbench.artifacts import Caveat, Component, DeviceFacts, RunRecord, RunResult, Sample, TaskAssets, TaskKind, Variant
from quadbench.artifacts.caveats import FigureKind
from quadbench.harness.expected import FIRST_TASK
from quadbench.recipe.precision import int8_percent_of
from quadbench.recipe.published import published_table
from quadbench.report.launches import devices_of, is_emulated, launches_of, sound, values, values_of_task, why_absent
from quadbench.report.units import Unit

NO_INPUT_IMAGE = "does not apply: no input image"
NO_ADAPTER = "does not apply: the base alone"
MERGED = "merged into the U-Net"
NOT_APPLICABLE = (NO_INPUT_IMAGE, NO_ADAPTER, MERGED)
_SAME_FILES = {"vae_encoder", "vae_decoder", "text_encoder", "text_run"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The median of the launches' medians, in nanoseconds or bytes, and the lowest and highest launch.

    With one launch, `low` and `high` are its lowest and highest sample. `p90` is that of all samples, where they are enough.
    `medians` has the launches' own, in the order measured.
    """

    value: float
    low: float
    high: float
    mad: float
    launches: int
    samples: int
    outliers: int  # samples far from the others of their launch, which count all the same
    p90: float | None
    medians: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class KpiRow:
    """One line of the KPI table. A text in place of a figure says why there is none.

    `ratio` is per-graph / shared: above 1 the shared graph takes less. `published` is for orientation only.
    """

    device: DeviceFacts
    task: str
    key: str
    title: str
    unit: Unit
    is_exact: bool  # a file's size rather than a measurement: no spread
    shared: Figure | str
    per_graph: Figure | str
    ratio: float | None
    published: float | None  # as a paper printed it, in `unit`
    caveats: tuple[Caveat, ...]

    @property
    def is_same_file(self) -> bool:
        """Say whether both variants run the same file here, so that any difference is the run's noise."""
        return self.key in _SAME_FILES

    @property
    def is_apart(self) -> bool:
        """Say whether the variants differ by more than the run's noise: all launches of one lie beyond all of the other's."""
        if isinstance(self.shared, str) or isinstance(self.per_graph, str) or self.is_same_file:
            return False
        if self.is_exact:
            return self.shared.value != self.per_graph.value
        return lie_apart(self.shared, self.per_graph)


def lie_apart(one: Figure, other: Figure) -> bool:
    """Say whether all launches of one lie beyond all of the other's, of which each has at least two."""
    return (one.high < other.low or other.high < one.low) and min(one.launches, other.launches) > 1


def kpi_rows(result: RunResult) -> tuple[KpiRow, ...]:
    """Return every row, by device, then task in the bundle's order."""
    return tuple(
        row for device in devices_of(result) for task in result.bundle_on(device).tasks for row in _rows(result, device, task)
    )


@dataclass(frozen=True, kw_only=True)
class _Kpi:
    """A figure and its reading from one launch; `absent` says why there is none for a task and variant."""

    key: str
    title: str
    unit: Unit
    read: Callable[[RunRecord, TaskAssets], list[float]]
    absent: Callable[[TaskAssets, Variant], str | None] = lambda task, variant: None
    is_exact: bool = False


def _rows(result: RunResult, device: DeviceFacts, task: TaskAssets) -> list[KpiRow]:
    launches = {variant: launches_of(result, device, variant) for variant in (Variant.SHARED, Variant.PER_GRAPH)}
    caveats = {caveat for records in launches.values() for record in sound(records) for caveat in record.caveats}
    rows = []
    for kpi in _HOSTED_KPIS if device.is_hosted else _KPIS:
        kind = FigureKind.SIZE if kpi.is_exact else FigureKind.TIME if kpi.unit is _MS else FigureKind.MEMORY
        shared, per_graph = (_cell(kpi, task, variant, records) for variant, records in launches.items())
        rows.append(
            KpiRow(
                device=device,
                task=task.name,
                key=kpi.key,
                title=kpi.title,
                unit=kpi.unit,
                is_exact=kpi.is_exact,
                shared=shared,
                per_graph=per_graph,
                ratio=_ratio(shared, per_graph),
                published=_published(result, kpi, task, device),
                caveats=tuple(caveat for caveat in Caveat if caveat in caveats and caveat.is_about(kind)),
            )
        )
    return rows


def _published(result: RunResult, kpi: _Kpi, task: TaskAssets, device: DeviceFacts) -> float | None:
    if result.published is None:
        return None
    table = published_table(result.published).at(int8_percent_of(result.bundle_on(device).precision))
    return table.figure(published_name(kpi.key, kpi.unit), task=task.name, device=device.profile)


def published_name(key: str, unit: Unit) -> str:
    """Return the name of a figure in the published tables."""
    return f"{key}_{unit.value.lower()}"


def _cell(kpi: _Kpi, task: TaskAssets, variant: Variant, records: Sequence[RunRecord]) -> Figure | str:
    reason = kpi.absent(task, variant)
    if reason:
        return reason
    return figure([kpi.read(record, task) for record in sound(records)]) or why_absent(records, is_time=kpi.unit is _MS)


def kpi_title(key: str) -> str:
    """Return what the figure `key` is called."""
    return _kpi(key).title


def kpi_unit(key: str) -> Unit:
    """Return the unit in which the figure `key` is shown."""
    return _kpi(key).unit


def launch_values(key: str, record: RunRecord, task: TaskAssets) -> list[float]:
    """Return one launch's values of the figure `key`, in nanoseconds or bytes."""
    return _kpi(key).read(record, task)


def _kpi(key: str) -> _Kpi:
    return next(kpi for kpi in _KPIS if kpi.key == key)


def figure(launches: Sequence[Sequence[float]]) -> Figure | None:
    """Return the figure of some launches' values, or None if there are none; launches without values do not count."""
    measured = [launch for launch in launches if launch]
    pooled = [value for launch in measured for value in launch]
    medians = tuple(float(median(launch)) for launch in measured)
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
        outliers=sum(len(statistics.outliers(launch)) for launch in measured),
        p90=statistics.percentile(pooled, 90),
        medians=medians,
    )


def _ratio(shared: Figure | str, per_graph: Figure | str) -> float | None:
    if isinstance(shared, str) or isinstance(per_graph, str) or shared.value <= 0:
        return None
    return per_graph.value / shared.value


def _of_task(metric: str) -> Callable[[RunRecord, TaskAssets], list[float]]:
    return lambda record, task: values_of_task(record, metric, task.name)


def _switches(record: RunRecord, task: TaskAssets) -> list[float]:
    return values(record, "switch_ns", lambda s: bool(_came_from(s)) and s.labels.get("to", s.task) == task.name)


def _came_from(switch: Sample) -> str:
    """Return the task that ran before; nothing where a launch begins, since loading its first task switches from none."""
    before = switch.labels.get("from", "")
    return "" if before == FIRST_TASK else before


def _first_unets(record: RunRecord, task: TaskAssets) -> list[float]:
    """Return the first runs that followed a switch from another task. Samples stand in the order in which they were measured."""
    if is_emulated(record):
        return []
    first_runs, came_from = [], ""
    for sample in record.about_switches:
        if sample.metric == "switch_ns":
            came_from = _came_from(sample)
        elif sample.metric == "first_unet_ns" and sample.task == task.name and came_from:
            first_runs.append(sample.value)
    return first_runs


def _first_images(record: RunRecord, task: TaskAssets) -> list[float]:
    """Return each switch from another task together with the image that followed it, be it a warm-up or not."""
    if is_emulated(record):
        return []
    images, switch = [], 0.0
    for sample in record.about_switches:
        if sample.metric == "switch_ns":
            switch = sample.value if _came_from(sample) else 0.0
        elif sample.metric == "end_to_end_ns" and sample.task == task.name and switch:
            images.append(switch + sample.value)
            switch = 0.0
    return images


def _highest(metric: str) -> Callable[[RunRecord, TaskAssets], list[float]]:
    """Read one value a launch: a task's blocks each have a peak, and the launch needs the highest."""
    of_task = _of_task(metric)
    return lambda record, task: [max(peaks)] if (peaks := of_task(record, task)) else []


def _session_load(record: RunRecord, task: TaskAssets) -> list[float]:
    """Return the sum over the components that the task runs, each the median of its loads in the launch."""
    loads = [values(record, "session_load_ns", _is_component(component, task, record)) for component in components_of(task)]
    return [sum(median(load) for load in loads)] if all(loads) else []


def _adapter_load(record: RunRecord, task: TaskAssets) -> list[float]:
    return values(
        record, "adapter_load_ns", lambda s: s.labels.get("adapter") == task.adapter and s.labels.get("state") == "cold"
    )


def _foundation_bytes(record: RunRecord, task: TaskAssets) -> list[float]:
    parts = [
        values(record, "rom_bytes", _is_component(component, task, record)) for component in components_of(task, on_disk=True)
    ]
    return [sum(part[0] for part in parts if part)] if parts[0] else []


def _lora_bytes(record: RunRecord, task: TaskAssets) -> list[float]:
    """Return the sum over the adapters that the task runs; nothing unless each was read."""
    files = [sample for sample in record.samples if sample.metric == "rom_bytes" and sample.labels.get("kind") == "adapter"]
    sizes = {file.labels["adapter"]: file.value for file in files}
    return [sum(sizes[name] for name in task.weights)] if task.weights and task.weights.keys() <= sizes.keys() else []


def components_of(task: TaskAssets, *, on_disk: bool = False) -> tuple[Component, ...]:
    """Return the components that a task runs, the U-Net first; all of them lie on the device (`on_disk`), whatever the task."""
    without_input = task.kind is TaskKind.TEXT_TO_IMAGE and not on_disk
    return (
        Component.UNET,
        Component.TEXT_ENCODER,
        *(() if without_input else (Component.VAE_ENCODER,)),
        Component.VAE_DECODER,
    )


def _of_component(metric: str, component: Component) -> Callable[[RunRecord, TaskAssets], list[float]]:
    """Read a metric of a graph that ran by itself, for the task that uses it."""
    return lambda record, task: values(record, metric, _is_component(component, task, record))


def _run_of(component: Component) -> Callable[[RunRecord, TaskAssets], list[float]]:
    return _of_component("inference_ns", component)


def _is_component(component: Component, task: TaskAssets, record: RunRecord) -> Callable[[Sample], bool]:
    unet = task.name if record.variant.is_merged else "base"
    if component is Component.UNET:
        return lambda sample: sample.component == component and sample.labels.get("unet", sample.task) == unet
    return lambda sample: sample.component == component


def _needs_input_image(task: TaskAssets, variant: Variant) -> str | None:
    return NO_INPUT_IMAGE if task.kind is TaskKind.TEXT_TO_IMAGE else None


def _needs_adapter(task: TaskAssets, variant: Variant) -> str | None:
    if task.adapter is None:
        return NO_ADAPTER
    return MERGED if variant is Variant.PER_GRAPH else None


_MS, _MB = Unit.MILLISECONDS, Unit.MEGABYTES

_KPIS = (
    _Kpi(key="vae_encoder", title="VAE encoder", unit=_MS, read=_of_task("vae_encoder_ns"), absent=_needs_input_image),
    _Kpi(key="unet_step", title="U-Net, one step", unit=_MS, read=_of_task("unet_ns")),
    _Kpi(key="vae_decoder", title="VAE decoder", unit=_MS, read=_of_task("vae_decoder_ns")),
    _Kpi(key="text_encoder", title="Text encoder", unit=_MS, read=_of_task("text_encoder_ns")),
    _Kpi(key="end_to_end", title="End to end", unit=_MS, read=_of_task("end_to_end_ns")),
    _Kpi(key="residual", title="Residual", unit=_MS, read=_of_task("residual_ns")),
    _Kpi(key="session_load", title="Session load", unit=_MS, read=_session_load),
    _Kpi(key="adapter_load", title="LoRA load, cold", unit=_MS, read=_adapter_load, absent=_needs_adapter),
    _Kpi(key="switch", title="Switch to this task", unit=_MS, read=_switches),
    _Kpi(key="first_image", title="Switch and first image", unit=_MS, read=_first_images),
    _Kpi(key="first_unet", title="U-Net, first run", unit=_MS, read=_first_unets),
    _Kpi(key="foundation_rom", title="Foundation ROM", unit=_MB, read=_foundation_bytes, is_exact=True),
    _Kpi(key="lora_rom", title="LoRA ROM", unit=_MB, read=_lora_bytes, absent=_needs_adapter, is_exact=True),
    _Kpi(key="peak_ram", title="Peak RAM, running", unit=_MB, read=_highest("peak_rss_bytes")),
    _Kpi(key="load_peak_ram", title="Peak RAM, switching", unit=_MB, read=_highest("load_peak_rss_bytes")),
)

# A service that hosts devices runs single graphs: no images, no switches.
_HOSTED_KPIS = (
    _Kpi(key="vae_encoder", title="VAE encoder", unit=_MS, read=_run_of(Component.VAE_ENCODER), absent=_needs_input_image),
    _Kpi(key="unet_run", title="U-Net, one run", unit=_MS, read=_run_of(Component.UNET)),
    _Kpi(key="vae_decoder", title="VAE decoder", unit=_MS, read=_run_of(Component.VAE_DECODER)),
    _Kpi(key="text_run", title="Text encoder, one run", unit=_MS, read=_run_of(Component.TEXT_ENCODER)),
    _Kpi(key="session_load", title="Session load", unit=_MS, read=_session_load),
    _Kpi(key="foundation_rom", title="Foundation ROM", unit=_MB, read=_foundation_bytes, is_exact=True),
    _Kpi(key="lora_rom", title="LoRA ROM", unit=_MB, read=_lora_bytes, absent=_needs_adapter, is_exact=True),
    _Kpi(key="unet_peak", title="Peak RAM, U-Net", unit=_MB, read=_of_component("inference_peak_bytes", Component.UNET)),
)
KPI_UNITS = {kpi.key: kpi.unit for kpi in (*_KPIS, *_HOSTED_KPIS)}
KPI_TITLES = {kpi.key: kpi.title for kpi in (*_KPIS, *_HOSTED_KPIS)}
