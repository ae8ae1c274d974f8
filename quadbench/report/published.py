"""Published: a run's figures -> each row and column of the paper's table that its recipe names, beside ours or why not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quadbench.artifacts import DeviceFacts, RunResult, Variant
from quadbench.recipe.precision import int8_percent_of
from quadbench.recipe.published import PublishedRow, PublishedTable, published_table
from quadbench.report.figure_table import FigureTable, Value
from quadbench.report.kpi import Figure, KpiRow, published_name
from quadbench.report.launches import devices_of
from quadbench.report.pictures import Quality
from quadbench.report.setups import sampler_text
from quadbench.report.text_table import TextTable
from quadbench.report.units import convert, number

_COLUMNS = ("The paper's row", "Figure", "Published", "Here", "On, or why not")
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
class PublishedFigure:
    """A figure of the paper's table beside the shared graph's, in the same unit. A text in its place says why there is none.

    `other_sampler` is the one that made ours, where it is not the paper's.
    """

    row: str
    title: str
    printed: float
    here: float | str
    address: str | None  # of the device; None where none took part that the row may stand for
    other_sampler: str | None


def published_text(result: RunResult, kpis: Sequence[KpiRow], quality: Sequence[Quality]) -> TextTable | None:
    """Return the whole table that the recipe names; None where it names none."""
    return published_beside(result, result.published, kpis, quality).text if result.published else None


def published_beside(result: RunResult, name: str, kpis: Sequence[KpiRow], quality: Sequence[Quality]) -> FigureTable:
    """Return a table of the paper, every row and column, beside the run's figures or the reason why there is none.

    Raises:
        UnknownNameError: the paper has no such table.
    """
    table = published_table(name)
    notes = [table.note, "Here: the shared graph, the median of the launches' medians; images against the float reference."]
    if table.int8_shares:
        shares = ", ".join(f"{share:g}" for share in table.int8_shares)
        notes.append(f"The paper has rows for {shares} % of 8 bits; a sweep over the share measures them all.")
    figures = _figures(result, table, kpis, quality)
    return FigureTable(
        text=TextTable(
            title=f"Beside {table.title}",
            columns=_COLUMNS,
            numeric=(False, False, True, True, False),
            rows=tuple((f.row, f.title, f"{f.printed:g}", *_cells(f)) for f in figures),
            notes=tuple(notes),
        ),
        fields=("table", "row", "figure", "published", "here", "device", "other_sampler", "note"),
        values=tuple((name, f.row, f.title, f.printed, *_values(f)) for f in figures),
    )


def published_figures(result: RunResult, kpis: Sequence[KpiRow], quality: Sequence[Quality]) -> tuple[PublishedFigure, ...]:
    """Return one for each row and column of the recipe's table, and for each device that the row may stand for; else none.

    A table over shares of 8 bits has only its rows of this run's share: the others are a sweep's.
    """
    return _figures(result, published_table(result.published), kpis, quality) if result.published else ()


def _figures(
    result: RunResult, table: PublishedTable, kpis: Sequence[KpiRow], quality: Sequence[Quality]
) -> tuple[PublishedFigure, ...]:
    shares = {int8_percent_of(bundle.artifact.precision) for bundle in result.bundles}
    rows = [row for row in table.rows if row.int8_percent in (None, *shares)]
    return tuple(figure for row in rows for figure in _of_row(result, row, kpis, quality))


def _values(figure: PublishedFigure) -> tuple[Value, ...]:
    here, note = (None, figure.here) if isinstance(figure.here, str) else (figure.here, None)
    return (here, figure.address, figure.other_sampler, note)


def _cells(figure: PublishedFigure) -> tuple[str, str]:
    if isinstance(figure.here, str):
        return "–", figure.here
    return number(figure.here), ", by ".join(filter(None, (figure.address, figure.other_sampler)))


def _of_row(
    result: RunResult, row: PublishedRow, kpis: Sequence[KpiRow], quality: Sequence[Quality]
) -> Iterator[PublishedFigure]:
    of_task = [kpi for kpi in kpis if kpi.task == row.task]
    titles = _SCORES | {published_name(kpi.key, kpi.unit): f"{kpi.title}, {kpi.unit}" for kpi in kpis}
    devices = [device for device in devices_of(result) if row.device in (None, device.profile) and _is_of(result, device, row)]
    for device in devices or (None,):
        scores = _scores(result, row, device, quality)
        ours = {published_name(kpi.key, kpi.unit): kpi for kpi in of_task if kpi.device == device}
        for name, printed in row.figures.items():
            yield PublishedFigure(
                row=_named(row),
                title=titles.get(name, name),
                printed=printed,
                here=_why_not(result, row, name, device) or scores.get(name, _value(ours.get(name), name)),
                address=device.address if device else None,
                other_sampler=_other_sampler(result, row, device) if device else None,
            )


def _named(row: PublishedRow) -> str:
    name = " on ".join(filter(None, (row.task, row.device)))
    return f"{name} by {row.sampler}" if row.sampler else name


def _other_sampler(result: RunResult, row: PublishedRow, device: DeviceFacts) -> str | None:
    here = next((sampler_text(task) for task in result.bundle_on(device).tasks if task.name == row.task), None)
    return here if row.sampler and here != row.sampler else None


def _is_of(result: RunResult, device: DeviceFacts, row: PublishedRow) -> bool:
    """Say whether a device ran with the share of 8 bits that the row is about, if it is about one."""
    return row.int8_percent in (None, int8_percent_of(result.bundle_on(device).precision))


def _why_not(result: RunResult, row: PublishedRow, name: str, device: DeviceFacts | None) -> str | None:
    if name in _UNDEFINED:
        return _UNDEFINED[name]
    if row.task not in {task.name for task in result.bundle.tasks}:
        return "the recipe has no such task"
    if device is None:
        return f"no {row.device} took part" if row.device else "no device took part"
    return None


def _scores(
    result: RunResult, row: PublishedRow, device: DeviceFacts | None, quality: Sequence[Quality]
) -> dict[str, float | str]:
    """Return the scores of the shared graph's images of a task against the float reference."""
    psnr = next((of.shared_reference for of in quality if (of.task, of.device) == (row.task, device)), "not measured")
    scores: dict[str, float | str] = {"psnr": psnr}
    address = device.address if device else None
    for compared in result.scores.compared if result.scores else ():
        what = (compared.task, compared.device, compared.made, compared.against)
        if what == (row.task, address, Variant.SHARED, "reference"):
            scores = {score.metric.name: score.value for score in compared.scores} | scores
    return scores


def _value(kpi: KpiRow | None, name: str) -> float | str:
    if kpi is None:
        return "not scored: see `quadbench quality`" if name in _SCORES else "not measured on such a device"
    return convert(kpi.shared.value, kpi.unit) if isinstance(kpi.shared, Figure) else kpi.shared
