"""Sweep: runs of one recipe with several values of a key -> a point for each value, task and device."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import mean, stdev

from quadbench.artifacts import Bundle, Caveat, RunRecord, RunResult, TaskAssets, Variant
from quadbench.artifacts.scores import RunScores
from quadbench.recipe import INT8_KEY
from quadbench.recipe.published import published_table
from quadbench.report.int8 import int8_of_shared
from quadbench.report.kpi import Figure, kpi_rows, published_name
from quadbench.report.units import Unit, convert

SCHEMA_VERSION = 1
PSNR = "psnr"
_KPIS = ("session_load", "unet_step", "end_to_end", "lora_rom")


@dataclass(frozen=True, kw_only=True)
class SweepFigure:
    """One figure at one value of the key. `error` is the standard error over items, `published` what a paper printed."""

    key: str
    title: str
    unit: str
    value: float
    n: int
    error: float | None = None
    published: float | None = None


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One value of the key on one device, for one task. `psnr_db` is by item; `reason` says why a launch was not OK."""

    value: str
    task: str
    device: str
    run_id: str
    psnr_db: dict[str, float]
    figures: tuple[SweepFigure, ...]
    reason: str | None
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole sweep: all points, by value in the order given. `sweeps/<id>/sweep.json` is the same as JSON."""

    schema_version: int = SCHEMA_VERSION
    sweep_id: str
    recipe_name: str
    key: str
    published: str | None
    points: tuple[SweepPoint, ...]


def sweep_points(key: str, value: str, result: RunResult, scores: RunScores | None) -> Iterator[SweepPoint]:
    """Yield the figures of a run of the shared graph at one value of the key, for each device and task.

    The likeness of images counts also where it is so bad that the launch failed; its times do not.
    """
    for address, device in {record.device.address: record.device for record in result.records}.items():
        records = [r for r in result.records if r.device.address == address and r.variant is Variant.SHARED]
        bundle = result.bundle_on(device)
        for task in bundle.tasks:
            psnr_db = _psnr_db(records, task)
            figures = [*_int8(bundle), *_psnr(psnr_db), *_scores(scores, task, address), *_kpis(result, task, address)]
            yield SweepPoint(
                value=value,
                task=task.name,
                device=address,
                run_id=result.run_id,
                psnr_db=psnr_db,
                figures=tuple(_with_published(figure, result.published, task, key, value) for figure in figures),
                reason=next((record.reason for record in records if record.reason), None),
                caveats=tuple(dict.fromkeys(caveat for record in records for caveat in record.caveats)),
            )


def change(point: SweepPoint, before: SweepPoint) -> tuple[float, float] | None:
    """Return the mean difference of the PSNR of the same items, and its standard error; None below two items."""
    differences = [value - before.psnr_db[item] for item, value in point.psnr_db.items() if item in before.psnr_db]
    return _mean_and_error(differences) if len(differences) > 1 else None


def series_of(sweep: Sweep) -> list[list[SweepPoint]]:
    """Return the points of each task and device, in the order of the values."""
    names = dict.fromkeys((point.task, point.device) for point in sweep.points)
    return [[point for point in sweep.points if (point.task, point.device) == name] for name in names]


def _psnr_db(records: list[RunRecord], task: TaskAssets) -> dict[str, float]:
    """Return each item's likeness to the reference in the first launch that has one: launches of one graph paint the same."""
    psnr_db: dict[str, float] = {}
    for record in records:
        for sample in record.samples:
            if (sample.metric, sample.task, sample.labels.get("against")) == ("psnr_db", task.name, "reference") and sample.item:
                psnr_db.setdefault(sample.item, sample.value)
    return psnr_db


def _int8(bundle: Bundle) -> Iterator[SweepFigure]:
    """Yield what of the shared U-Net runs in 8 bits, where a part of it does."""
    int8 = int8_of_shared(bundle)
    if int8 is not None and int8.layers.int8 > 0:
        for key, share in (("parameters", int8.parameters), ("layers", int8.layers), ("MACs", int8.multiply_accumulates)):
            yield SweepFigure(key=f"int8_{key.lower()}", title=f"{key} in 8 bits", unit="%", value=share.percent, n=1)


def _psnr(psnr_db: Mapping[str, float]) -> Iterator[SweepFigure]:
    if psnr_db:
        value, error = _mean_and_error(list(psnr_db.values()))
        yield SweepFigure(key=PSNR, title="PSNR", unit="dB", value=value, n=len(psnr_db), error=error)


def _scores(scores: RunScores | None, task: TaskAssets, address: str) -> Iterator[SweepFigure]:
    """Yield the scores of the shared graph against the float reference; those of eps and latents belong to no device."""
    for compared in scores.compared if scores else ():
        is_shared = (compared.task, compared.made, compared.against) == (task.name, Variant.SHARED, "reference")
        if is_shared and compared.device in (address, None):
            for score in compared.scores:
                if not isinstance(score.value, str) and score.metric.name != PSNR:
                    metric = score.metric
                    yield SweepFigure(key=metric.name, title=metric.title, unit=metric.unit, value=score.value, n=score.n)


def _kpis(result: RunResult, task: TaskAssets, address: str) -> Iterator[SweepFigure]:
    for row in kpi_rows(result):
        if (row.task, row.device.address) == (task.name, address) and row.key in _KPIS and isinstance(row.shared, Figure):
            value = convert(row.shared.value, row.unit)
            yield SweepFigure(key=row.key, title=row.title, unit=row.unit.value, value=value, n=row.shared.launches)


def _with_published(figure: SweepFigure, table: str | None, task: TaskAssets, key: str, value: str) -> SweepFigure:
    if table is None or key != INT8_KEY:
        return figure
    name = published_name(figure.key, Unit(figure.unit)) if figure.key in _KPIS else figure.key
    return replace(figure, published=published_table(table).at(float(value)).figure(name, task=task.name))


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
