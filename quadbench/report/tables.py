"""Tables of a run, with lookup by name: KPIs, component times, kernel counts, and a paper's values beside the run's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from quadbench.artifacts import Component, DeviceFacts, RunResult, Variant
from quadbench.artifacts.bundle import KERNEL_KINDS, KERNEL_NODES
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.run_record import BASE_UNET
from quadbench.errors import UnknownNameError, UserError
from quadbench.recipe.published import PublishedRow, PublishedTable, published_names, published_table
from quadbench.recipe.settings import int8_percent_of
from quadbench.report import formatting, kpi
from quadbench.report.formatting import Column, FigureTable, TextTable, Unit, Value, convert, labelled, number, rough_times, show
from quadbench.report.kpi import MERGED, NO_ADAPTER, NO_INPUT_IMAGE, Figure, KpiRow, comparison_tables, kpi_rows, published_name
from quadbench.report.launches import (
    EMULATED,
    EMULATED_MEMORY,
    KindGroup,
    by_kind,
    indices,
    int8_note,
    launches_of,
    only_ok,
    paired,
    sampler_text,
)
from quadbench.report.scores import Quality, quality_rows
from quadbench.report.serving_modes import serving_modes
from quadbench.statistics import medians

_PAPER_NOTE = (
    "Here: the shared graph, the median of the launches' medians, from the lowest launch to the highest; images against the "
    "float reference."
)
_OURS = ("ours", "ours_low", "ours_high", "why_not", "run_id", "device", "other_sampler")  # columns beside a paper's figure
_SCORES = {name: labelled(metric.title, metric.unit) for name, metric in PICTURE_METRICS.items()}
_SCORES["custom_clip_score"] = "Custom CLIP score"
_UNDEFINED = {"custom_clip_score": "the paper does not define it"}

_NOTES = (
    "Medians of the launches' medians, and the lowest and highest launch; with one launch, its lowest and highest sample.",
    f"{formatting.SIDES} {formatting.RATIO} n: launches × samples of a launch. MB: 2^20 bytes.",
    f"{formatting.RESIDUAL} {formatting.FOUNDATION_ROM}",
)

_FIELDS = ("median", "low", "high", "mad", "p90", "launches", "samples", "outliers")

# Abbreviations for text tables; HTML and CSV have the full words.
_SHORT = {NO_INPUT_IMAGE: "n/a", NO_ADAPTER: "n/a", MERGED: "merged", EMULATED: "emulated", EMULATED_MEMORY: "emulated"}

_RUNS = {
    Component.TEXT_ENCODER: "text_encoder_ns",
    Component.VAE_ENCODER: "vae_encoder_ns",
    Component.UNET: "unet_ns",
    Component.VAE_DECODER: "vae_decoder_ns",
}
_NOTE = (
    "Medians of the launches. First run: the first of a launch, even in warm-up; steady: the median of the later runs without "
    "warm-up. A run is the work of a component for one image, for the U-Net one step."
)

KPI = "kpi"

_NEEDS = {
    "comparison": "set measure.launches to 2 or more for a block A B B A, with the baseline per-graph",
    "ways": "add a baseline other than per-graph to the recipe, such as resident",
}


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """A stored run with its KPI rows, and the PSNR of its images against float and true (correct) images."""

    result: RunResult
    kpis: Sequence[KpiRow]
    quality: Sequence[Quality]


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """A paper's printed value and the value that a run measured with the shared graph, in the same unit. `here` is the run's
    value, or a text that says why it is missing. `span` is the range of `here` over launches, None without spread.
    `other_sampler` is the run's sampler if it is not the paper's, otherwise None.
    """

    row: str
    title: str
    printed: float
    here: float | str
    span: tuple[float, float] | None
    run_id: str | None  # run and device address; None if no run matches the row
    address: str | None
    other_sampler: str | None


def published_comparison(runs: Sequence[MeasuredRun], name: str) -> FigureTable:
    """Return a paper's table with measured values beside it. A row is repeated for each run and device that has the row's device
    profile and percentage of 8-bit parameters.
    """
    table = published_table(name)
    notes = [table.note, _PAPER_NOTE]
    if table.int8_shares and len(runs) == 1:
        shares = ", ".join(f"{share:g}" for share in table.int8_shares)
        notes.append(f"The paper has rows for {shares} % of 8 bits; a sweep over the share measures them all.")
    figures = published_figures(runs, table)
    return FigureTable(
        text=TextTable(
            title=f"Beside {table.title}",
            columns=("The paper's row", "Figure", "Published", "Here", "From – to", "On, or why not"),
            numeric=(False, False, True, True, True, False),
            rows=tuple((f.row, f.title, f"{f.printed:g}", *_cells(f, is_one=len(runs) == 1)) for f in figures),
            notes=tuple(notes),
        ),
        fields=("table", "row", "column", "paper", *_OURS),
        values=tuple((name, f.row, f.title, f.printed, *_paper_values(f)) for f in figures),
    )


def published_figures(runs: Sequence[MeasuredRun], table: PublishedTable) -> tuple[PublishedFigure, ...]:
    """Return a PublishedFigure for each value in `table` on each matching device. If none matches, `here` is the reason."""
    return tuple(figure for row in table.rows for figure in _of_row(runs, row))


def _paper_values(figure: PublishedFigure) -> tuple[Value, ...]:
    here, why_not = (None, figure.here) if isinstance(figure.here, str) else (figure.here, None)
    return (here, *(figure.span or (None, None)), why_not, figure.run_id, figure.address, figure.other_sampler)


def _cells(figure: PublishedFigure, *, is_one: bool) -> tuple[str, str, str]:
    if isinstance(figure.here, str):
        return "–", "", figure.here
    span = f"{number(figure.span[0])} – {number(figure.span[1])}" if figure.span else ""
    on = ", by ".join(filter(None, (figure.address, figure.other_sampler)))
    return number(figure.here), span, on if is_one else f"{on}, run {figure.run_id}"


def _of_row(runs: Sequence[MeasuredRun], row: PublishedRow) -> Iterator[PublishedFigure]:
    titles = _SCORES | {published_name(one.key, one.unit): f"{one.title}, {one.unit}" for run in runs for one in run.kpis}
    for run, device in _places(runs, row) or ((None, None),):
        scores = _scores(run.result, row, device, run.quality) if run and device else {}
        of_device = [one for one in run.kpis if (one.task, one.device) == (row.task, device)] if run else []
        ours = {published_name(one.key, one.unit): one for one in of_device}
        for name, printed in row.figures.items():
            own, why_not = ours.get(name), _absence_reason(runs, row, name, device)
            yield PublishedFigure(
                row=_named(row),
                title=titles.get(name, name),
                printed=printed,
                here=why_not or scores.get(name, _paper_value(own, name)),
                span=None if why_not or name in scores else _span(own),
                run_id=run.result.run_id if run else None,
                address=device.address if device else None,
                other_sampler=_other_sampler(run.result, row, device) if run and device else None,
            )


def _places(runs: Sequence[MeasuredRun], row: PublishedRow) -> list[tuple[MeasuredRun, DeviceFacts]]:
    """Return the runs and devices that match a row of a paper's table in device profile and percentage of 8-bit parameters."""
    devices = [(run, device) for run in runs for device in run.result.devices if row.device in (None, device.profile)]
    if row.int8_percent is None:
        return devices
    return [(run, at) for run, at in devices if int8_percent_of(run.result.bundle_on(at).precision) == row.int8_percent]


def _named(row: PublishedRow) -> str:
    name = " on ".join(filter(None, (row.task, row.device)))
    share = "" if row.int8_percent is None else f" with {row.int8_percent:g} % of 8 bits"
    return f"{name}{f' by {row.sampler}' if row.sampler else ''}{share}"


def _other_sampler(result: RunResult, row: PublishedRow, device: DeviceFacts) -> str | None:
    here = next((sampler_text(task) for task in result.bundle_on(device).tasks if task.name == row.task), None)
    return here if row.sampler and here != row.sampler else None


def _absence_reason(runs: Sequence[MeasuredRun], row: PublishedRow, name: str, device: DeviceFacts | None) -> str | None:
    if name in _UNDEFINED:
        return _UNDEFINED[name]
    if row.task not in {task.name for run in runs for task in run.result.bundle.tasks}:
        return "the recipe has no such task"
    if device is not None:
        return None
    there = [one for run in runs for one in run.result.devices if row.device in (None, one.profile)]
    if there and row.int8_percent is not None:
        return f"not measured with {row.int8_percent:g} % of 8 bits"
    return f"no {row.device} took part" if row.device else "no device took part"


def _scores(result: RunResult, row: PublishedRow, device: DeviceFacts, quality: Sequence[Quality]) -> dict[str, float | str]:
    """Return a dict from metric name to a task's score, shared-graph against float images. A missing PSNR maps to the reason."""
    psnr = next((of.shared_reference for of in quality if (of.task, of.device) == (row.task, device)), "not measured")
    scores: dict[str, float | str] = {"psnr": psnr}
    for compared in result.scores.compared if result.scores else ():
        what = (compared.task, compared.device, compared.made, compared.against)
        if what == (row.task, device.address, Variant.SHARED, "reference"):
            scores = {score.metric.name: score.value for score in compared.scores} | scores
    return scores


def _paper_value(row: KpiRow | None, name: str) -> float | str:
    if row is None:
        return "not scored: see `quadbench quality`" if name in _SCORES else "not measured on such a device"
    return convert(row.shared.value, row.unit) if isinstance(row.shared, Figure) else row.shared


def _span(row: KpiRow | None) -> tuple[float, float] | None:
    if row is None or row.is_exact or not isinstance(row.shared, Figure):
        return None
    return convert(row.shared.low, row.unit), convert(row.shared.high, row.unit)


def kpi_table(result: RunResult, *, is_whole: bool = True) -> TextTable:
    """Return a table of all KPIs of a run, in ms and MB. If not `is_whole`, it lacks spread and caveats, and fits a terminal."""
    rows = kpi_rows(result)
    devices = dict.fromkeys(row.device.address for row in rows)
    doubts = {frozenset(caveat for row in rows if row.device.address == device for caveat in row.caveats) for device in devices}
    all_doubts = [doubt for row in rows for doubt in row.caveats]
    columns = [
        *([Column[KpiRow](name="Device", cell=lambda row: row.device.address)] if len(devices) > 1 else []),
        *_COLUMNS,
        *([_PUBLISHED_COLUMN] if result.published else []),
        *(_SPREAD_COLUMNS if is_whole else []),
    ]
    if len(doubts) > 1:
        columns.append(Column(name="Doubts", cell=lambda row: ", ".join(caveat.label for caveat in row.caveats)))
    on = f" on {next(iter(devices))}" if len(devices) == 1 else ""
    notes = (
        *_NOTES,
        *filter(None, (int8_note(bundle.artifact) for bundle in result.bundles)),
        *((published_table(result.published).note,) if result.published else ()),
        *((f"{doubt.label}: {doubt.advice}" for doubt in dict.fromkeys(all_doubts)) if is_whole else ()),
    )
    return TextTable.of(f"{result.bundle.recipe_name}{on}, run {result.run_id}", columns, rows, notes)


def kpi_figures(result: RunResult) -> FigureTable:
    """Return a `FigureTable` with a row per KPI of a run: shared-graph and per-graph median, spread, note on missing values."""
    sides = [f"{variant}_{field}" for variant in ("shared", "per_graph") for field in _FIELDS]
    return FigureTable(
        text=kpi_table(result),
        fields=("run_id", "device", "task", "figure", "unit", *sides, "ratio", "published", "caveats", "note"),
        values=tuple(
            (
                *(result.run_id, row.device.address, row.task, row.key, row.unit.value),
                *(value for cell in (row.shared, row.per_graph) for value in _values(cell, row.unit)),
                *(row.ratio, row.published, " ".join(row.caveats), _note(row)),
            )
            for row in kpi_rows(result)
        ),
    )


def _count(row: KpiRow) -> str:
    counts = dict.fromkeys(kpi.count(cell) for cell in (row.shared, row.per_graph) if isinstance(cell, Figure))
    return "" if row.is_exact else " / ".join(counts)


def _value(cell: Figure | str, unit: Unit) -> str:
    return _SHORT.get(cell, cell) if isinstance(cell, str) else show(cell.value, unit)


def _spread(cell: Figure | str, row: KpiRow) -> str:
    return "" if isinstance(cell, str) or row.is_exact else kpi.spread(cell, row.unit)


_COLUMNS: tuple[Column[KpiRow], ...] = (
    Column(name="Task", cell=lambda row: row.task),
    Column(name="Figure", cell=lambda row: row.title),
    Column(name="Unit", cell=lambda row: row.unit.value),
    Column(name="Shared", cell=lambda row: _value(row.shared, row.unit), is_numeric=True),
    Column(name="Per-graph", cell=lambda row: _value(row.per_graph, row.unit), is_numeric=True),
    Column(name="Ratio", cell=lambda row: "" if row.ratio is None else rough_times(row.ratio), is_numeric=True),
    Column(name="n", cell=_count, is_numeric=True),
)

_PUBLISHED_COLUMN: Column[KpiRow] = Column(
    name="Published", cell=lambda row: "" if row.published is None else number(row.published), is_numeric=True
)

_SPREAD_COLUMNS: tuple[Column[KpiRow], ...] = (
    Column(name="Shared, from – to", cell=lambda row: _spread(row.shared, row), is_numeric=True),
    Column(name="Per-graph, from – to", cell=lambda row: _spread(row.per_graph, row), is_numeric=True),
)


def _values(cell: Figure | str, unit: Unit) -> Sequence[float | None]:
    if isinstance(cell, str):
        return [None] * len(_FIELDS)
    sizes = [None if size is None else convert(size, unit) for size in (cell.value, cell.low, cell.high, cell.mad, cell.p90)]
    return [*sizes, cell.launches, cell.samples, cell.outliers]


def _note(row: KpiRow) -> str:
    cells = {"shared": row.shared, "per-graph": row.per_graph}
    return "; ".join(f"{name}: {cell}" for name, cell in cells.items() if isinstance(cell, str))


def component_tables(result: RunResult) -> tuple[TextTable, ...]:
    """Return one table per device with load and run times in ms for each component. Omit times measured on an emulator."""
    tables = []
    for device in result.devices:
        if rows := [*_rows(result, device, Variant.SHARED), *_rows(result, device, Variant.PER_GRAPH)]:
            table = TextTable(
                title=f"Loading and running on {device.address}",
                columns=("Component", "Of", "Load, ms", "First run, ms", "Steady, ms"),
                numeric=(False, False, True, True, True),
                rows=tuple(rows),
                notes=(_NOTE,),
            )
            tables.append(table)
    return tuple(tables)


def _rows(result: RunResult, device: DeviceFacts, variant: Variant) -> Iterator[tuple[str, ...]]:
    groups = [group for group in by_kind(paired(result, device).of(variant)) if not group.emulated]
    for component in Component:
        loads = medians([times for group in groups for times in _loads(group, component) if times])
        runs = [run for group in groups for run in _runs(group, component)]
        firsts = [first for first, _ in runs]
        steady = medians([later for _, later in runs if later])
        if firsts:
            yield component.value, variant.value, *map(_cell, (loads, firsts, steady))


def _loads(group: KindGroup, component: Component) -> list[list[float]]:
    at = indices(group.kinds, "session_load_ns", lambda kind: kind.component == component)
    loads: list[list[float]] = group.values[:, at].tolist()
    return loads


def _runs(group: KindGroup, component: Component) -> list[tuple[float, list[float]]]:
    """Return `(first, later)` per launch: a component's (say, U-Net's) first run time, and later ones except warm-up, in ns."""
    first, *later = group.kinds.by_metric.get(_RUNS[component]) or (None,)
    if first is None:
        return []
    steady = [place for place in later if not group.kinds.each[place].is_warmup]
    return list(zip(group.values[:, first].tolist(), group.values[:, steady].tolist(), strict=True))


def _cell(times: Sequence[float]) -> str:
    return show(median(times), Unit.MILLISECONDS) if times else "–"


def kernel_tables(result: RunResult) -> tuple[TextTable, ...]:
    """Return one table per device that reported node counts: how many nodes of each graph run in integers and in float."""
    return tuple(table for device in result.devices if (table := _kernels_table(result, device)))


def _kernels_table(result: RunResult, device: DeviceFacts) -> TextTable | None:
    rows: dict[tuple[str, ...], dict[str, int]] = {}
    for variant in (Variant.SHARED, Variant.PER_GRAPH):
        for record in only_ok(launches_of(result, device, variant))[:1]:
            for sample in record.samples:
                if sample.metric == KERNEL_NODES:
                    unet = sample.labels.get("unet", BASE_UNET)
                    graph = (sample.component or "", "all tasks" if unet == BASE_UNET else unet)
                    rows.setdefault(graph, {})[sample.labels["kind"]] = int(sample.value)
    if not rows:
        return None
    note = "Nodes of the graphs after ONNX Runtime's optimizer; nodes that only move values are not counted. "
    if any(counts.get("quantize") for counts in rows.values()):
        note += "In float: between DequantizeLinear and QuantizeLinear, where "
        note += "values are rounded as on an NPU, but times are not those of an NPU."
    else:
        note += "Activations are float, as the recipe sets; weights are converted to float when a graph is loaded."
    return TextTable(
        title=f"How {device.address} computes",
        columns=("Graph", "Of", "In integers", "In float", "QuantizeLinear", "DequantizeLinear"),
        numeric=(False, False, True, True, True, True),
        rows=tuple(
            (*graph, *(f"{counts[kind]:,}" if kind in counts else "–" for kind in KERNEL_KINDS)) for graph, counts in rows.items()
        ),
        notes=(note,),
    )


_TABLES: Mapping[str, Callable[[RunResult], tuple[FigureTable, ...]]] = {
    KPI: lambda result: (kpi_figures(result),),
    "comparison": comparison_tables,
    "ways": lambda result: tuple(ways.table for ways in serving_modes(result, kpi_rows(result))),
}
TABLE_NAMES = (*_TABLES, *published_names())


def named_tables(result: RunResult, name: str) -> tuple[FigureTable, ...]:
    """Return the tables of a run that are called `name`. `comparison` and `ways` give a table per device, other names one table.

    Raises:
        UnknownNameError: there is no such table.
        UserError: the run has no data for it.
    """
    tables = _tables(result, name)
    if not tables:
        raise UserError(f"run {result.run_id} has no data for the table '{name}'", hint=_NEEDS[name])
    return tables


def paper_table(results: Sequence[RunResult], name: str) -> FigureTable:
    """Return a published paper's table beside the measured values of one run, or of all runs of a sweep."""
    runs = [MeasuredRun(result=result, kpis=kpi_rows(result), quality=quality_rows(result)) for result in results]
    return published_comparison(runs, name)


def text_tables(result: RunResult) -> tuple[TextTable, ...]:
    """Return a run's text tables: KPIs, variant comparisons, ways to serve tasks, a paper's values. Omit those without data."""
    names = (*_TABLES, *((result.published,) if result.published else ()))
    return tuple(table.text for name in names for table in _tables(result, name))


def _tables(result: RunResult, name: str) -> tuple[FigureTable, ...]:
    if name not in TABLE_NAMES:
        raise UnknownNameError("table", name, TABLE_NAMES)
    if name in _TABLES:
        return _TABLES[name](result)
    return (paper_table([result], name),)
