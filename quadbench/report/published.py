"""Published: runs -> each row and column of a table of the paper beside their figures, or the reason why there is none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quadbench.artifacts import DeviceFacts, RunResult, Variant
from quadbench.recipe.precision import int8_percent_of
from quadbench.recipe.published import PublishedRow, PublishedTable, published_table
from quadbench.report.figure_table import FigureTable, TextTable, Value
from quadbench.report.kpi import Figure, KpiRow, published_name
from quadbench.report.launches import devices_of
from quadbench.report.pictures import Quality
from quadbench.report.setups import sampler_text
from quadbench.report.units import convert, number

_COLUMNS = ("The paper's row", "Figure", "Published", "Here", "From – to", "On, or why not")
_NOTE = (
    "Here: the shared graph, the median of the launches' medians, from the lowest launch to the highest; images against the "
    "float reference."
)
_SCORES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "fid": "FID",
    "clip_direction": "CLIP direction",
    "clip_similarity": "CLIP similarity",
    "dino_structure": "DINO structure",
    "custom_clip_score": "Custom CLIP score",
}
_UNDEFINED = {"custom_clip_score": "the paper does not define it"}


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """A run with its figures and the likeness of its pictures."""

    result: RunResult
    kpis: Sequence[KpiRow]
    quality: Sequence[Quality]


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """A figure of the paper's table beside the shared graph's, in the same unit. A text in its place says why there is none.

    `span` goes from the lowest to the highest launch, None where there is no spread. `other_sampler` is the one that made ours,
    where it is not the paper's.
    """

    row: str
    title: str
    printed: float
    here: float | str
    span: tuple[float, float] | None
    run_id: str | None  # of the run, and the address of the device; None where none took part that the row may stand for
    address: str | None
    other_sampler: str | None


def published_beside(runs: Sequence[MeasuredRun], name: str) -> FigureTable:
    """Return a table of the paper, every row and column, beside the figures of a run or of a sweep's, or why there is none.

    A row stands once for each run and device that it may stand for.
    """
    table = published_table(name)
    notes = [table.note, _NOTE]
    if table.int8_shares and len(runs) == 1:
        shares = ", ".join(f"{share:g}" for share in table.int8_shares)
        notes.append(f"The paper has rows for {shares} % of 8 bits; a sweep over the share measures them all.")
    figures = published_figures(runs, table)
    return FigureTable(
        text=TextTable(
            title=f"Beside {table.title}",
            columns=_COLUMNS,
            numeric=(False, False, True, True, True, False),
            rows=tuple((f.row, f.title, f"{f.printed:g}", *_cells(f, is_one=len(runs) == 1)) for f in figures),
            notes=tuple(notes),
        ),
        fields=(
            "table",
            "row",
            "column",
            "paper",
            "ours",
            "ours_low",
            "ours_high",
            "why_not",
            "run_id",
            "device",
            "other_sampler",
        ),
        values=tuple((name, f.row, f.title, f.printed, *_values(f)) for f in figures),
    )


def published_figures(runs: Sequence[MeasuredRun], table: PublishedTable) -> tuple[PublishedFigure, ...]:
    """Return one for each row and column of a table, and for each run and device that the row may stand for."""
    return tuple(figure for row in table.rows for figure in _of_row(runs, row))


def _values(figure: PublishedFigure) -> tuple[Value, ...]:
    here, why_not = (None, figure.here) if isinstance(figure.here, str) else (figure.here, None)
    return (here, *(figure.span or (None, None)), why_not, figure.run_id, figure.address, figure.other_sampler)


def _cells(figure: PublishedFigure, *, is_one: bool) -> tuple[str, str, str]:
    if isinstance(figure.here, str):
        return "–", "", figure.here
    span = f"{number(figure.span[0])} – {number(figure.span[1])}" if figure.span else ""
    on = ", by ".join(filter(None, (figure.address, figure.other_sampler)))
    return number(figure.here), span, on if is_one else f"{on}, run {figure.run_id}"


def _of_row(runs: Sequence[MeasuredRun], row: PublishedRow) -> Iterator[PublishedFigure]:
    titles = _SCORES | {published_name(kpi.key, kpi.unit): f"{kpi.title}, {kpi.unit}" for run in runs for kpi in run.kpis}
    for run, device in _places(runs, row) or ((None, None),):
        scores = _scores(run.result, row, device, run.quality) if run and device else {}
        of_device = [kpi for kpi in run.kpis if (kpi.task, kpi.device) == (row.task, device)] if run else []
        ours = {published_name(kpi.key, kpi.unit): kpi for kpi in of_device}
        for name, printed in row.figures.items():
            kpi, why_not = ours.get(name), _why_not(runs, row, name, device)
            yield PublishedFigure(
                row=_named(row),
                title=titles.get(name, name),
                printed=printed,
                here=why_not or scores.get(name, _value(kpi, name)),
                span=None if why_not or name in scores else _span(kpi),
                run_id=run.result.run_id if run else None,
                address=device.address if device else None,
                other_sampler=_other_sampler(run.result, row, device) if run and device else None,
            )


def _places(runs: Sequence[MeasuredRun], row: PublishedRow) -> list[tuple[MeasuredRun, DeviceFacts]]:
    """Return the runs with their devices that a row may stand for: of its profile, and with its share of 8 bits."""
    devices = [(run, device) for run in runs for device in devices_of(run.result) if row.device in (None, device.profile)]
    return [(run, device) for run, device in devices if row.int8_percent in (None, _int8_percent(run.result, device))]


def _int8_percent(result: RunResult, device: DeviceFacts) -> int:
    return int8_percent_of(result.bundle_on(device).precision)


def _named(row: PublishedRow) -> str:
    name = " on ".join(filter(None, (row.task, row.device)))
    share = "" if row.int8_percent is None else f" with {row.int8_percent:g} % of 8 bits"
    return f"{name}{f' by {row.sampler}' if row.sampler else ''}{share}"


def _other_sampler(result: RunResult, row: PublishedRow, device: DeviceFacts) -> str | None:
    here = next((sampler_text(task) for task in result.bundle_on(device).tasks if task.name == row.task), None)
    return here if row.sampler and here != row.sampler else None


def _why_not(runs: Sequence[MeasuredRun], row: PublishedRow, name: str, device: DeviceFacts | None) -> str | None:
    if name in _UNDEFINED:
        return _UNDEFINED[name]
    if row.task not in {task.name for run in runs for task in run.result.bundle.tasks}:
        return "the recipe has no such task"
    if device is not None:
        return None
    there = [one for run in runs for one in devices_of(run.result) if row.device in (None, one.profile)]
    if there and row.int8_percent is not None:
        return f"not measured with {row.int8_percent:g} % of 8 bits"
    return f"no {row.device} took part" if row.device else "no device took part"


def _scores(result: RunResult, row: PublishedRow, device: DeviceFacts, quality: Sequence[Quality]) -> dict[str, float | str]:
    """Return the scores of the shared graph's images of a task against the float reference."""
    psnr = next((of.shared_reference for of in quality if (of.task, of.device) == (row.task, device)), "not measured")
    scores: dict[str, float | str] = {"psnr": psnr}
    for compared in result.scores.compared if result.scores else ():
        what = (compared.task, compared.device, compared.made, compared.against)
        if what == (row.task, device.address, Variant.SHARED, "reference"):
            scores = {score.metric.name: score.value for score in compared.scores} | scores
    return scores


def _value(kpi: KpiRow | None, name: str) -> float | str:
    if kpi is None:
        return "not scored: see `quadbench quality`" if name in _SCORES else "not measured on such a device"
    return convert(kpi.shared.value, kpi.unit) if isinstance(kpi.shared, Figure) else kpi.shared


def _span(kpi: KpiRow | None) -> tuple[float, float] | None:
    if kpi is None or kpi.is_exact or not isinstance(kpi.shared, Figure):
        return None
    return convert(kpi.shared.low, kpi.unit), convert(kpi.shared.high, kpi.unit)
