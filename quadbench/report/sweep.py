"""Sweep: runs of one recipe with several values of some keys -> a point for each setting, task and device."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev

from quadbench.artifacts import Bundle, Caveat, RunRecord, RunResult, Status, TaskAssets, Variant
from quadbench.artifacts.caveats import FigureKind
from quadbench.artifacts.names import FileName
from quadbench.artifacts.scores import RunScores
from quadbench.recipe import INT8_KEY
from quadbench.recipe.published import published_table
from quadbench.report.int8 import int8_of_shared
from quadbench.report.kpi import Figure, KpiRow, kpi_rows, published_name
from quadbench.report.storage import Storage, storage_of
from quadbench.report.units import Unit, convert

SCHEMA_VERSION = 3
PSNR, PSNR_TEACHER, PSNR_TRUTH = "psnr", "psnr_teacher", "psnr_truth"
TIME, BYTES, RAM = "end_to_end", "bytes", "peak_ram"
_KPIS = ("session_load", "unet_step", TIME, "switch", "lora_rom", RAM)


@dataclass(frozen=True, kw_only=True)
class SweepFigure:
    """One figure at one setting. `error` is the standard error over items, `published` what a paper printed.

    `each` has what it is the mean or the median of: of likeness each item's, of times and memory each launch's.
    """

    key: str
    title: str
    unit: str
    value: float
    n: int
    error: float | None = None
    published: float | None = None
    each: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One setting, a value of each key, on one device, for one task; `reason` says why a launch was not OK.

    `is_best` where no other setting of the task is known to be better in quality, time or bytes and as good in the rest.
    """

    setting: dict[str, str]
    task: str
    device: str
    run_id: str
    figures: tuple[SweepFigure, ...]
    reason: str | None
    caveats: tuple[Caveat, ...]
    is_best: bool = False

    @property
    def value(self) -> str:
        """Return the setting in one word, without its keys."""
        return ", ".join(self.setting.values())

    @property
    def name(self) -> str:
        """Return the setting as a command takes it: `runtime.threads=2`."""
        return ", ".join(f"{key}={value}" for key, value in self.setting.items())

    def figure(self, key: str) -> SweepFigure | None:
        """Return one of the figures; None where there is none."""
        return next((figure for figure in self.figures if figure.key == key), None)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole sweep: all points, by setting in the order given. `sweeps/<id>/sweep.json` is the same as JSON.

    `touched` are the tasks whose own work the keys change; the times of all others show the noise. `left_out` says by setting, or
    setting and address, why it gave nothing, and `command` is what was typed.
    """

    schema_version: int = SCHEMA_VERSION
    sweep_id: FileName
    recipe_name: str
    keys: tuple[str, ...]
    published: str | None
    points: tuple[SweepPoint, ...]
    touched: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    command: str = ""


def sweep_points(
    setting: Mapping[str, str],
    result: RunResult,
    scores: RunScores | None,
    teacher: Mapping[tuple[str, str], Mapping[str, float]] | None = None,
) -> Iterator[SweepPoint]:
    """Yield the figures of a run of the shared graph at one setting, for each device and task.

    `teacher` has the likeness to the teacher's pictures, by task and device, then by item. The likeness of images counts also
    where it is so bad that the launch failed; its times do not.
    """
    rows = kpi_rows(result)
    for address, device in {record.device.address: record.device for record in result.records}.items():
        records = [r for r in result.records if r.device.address == address and r.variant is Variant.SHARED]
        bundle = result.bundle_on(device)
        for task in bundle.tasks:
            figures = [
                *_int8(bundle),
                *_psnr(PSNR, "PSNR", _psnr_db(records, task, "reference")),
                *_psnr(PSNR_TEACHER, "PSNR to teacher", (teacher or {}).get((task.name, address), {})),
                *_psnr(PSNR_TRUTH, "PSNR to truth", _psnr_db(records, task, "truth")),
                *_scores(scores, task, address),
                *_kpis(rows, task, address),
                *_bytes(storage_of(result, device)),
            ]
            yield SweepPoint(
                setting=dict(setting),
                task=task.name,
                device=address,
                run_id=result.run_id,
                figures=tuple(_with_published(figure, result.published, task, setting) for figure in figures),
                reason=next((r.reason for r in records if r.reason and r.status is not Status.DISCARDED), None),
                caveats=tuple(dict.fromkeys(caveat for record in records for caveat in _doubts_of(record))),
            )


def _doubts_of(record: RunRecord) -> list[Caveat]:
    """Return the caveats of what a launch shows: of one that failed its pictures alone, and nothing of one that was repeated."""
    if record.status is Status.DISCARDED:
        return []
    return [caveat for caveat in record.caveats if record.status is Status.OK or caveat.is_about(FigureKind.PICTURE)]


def quality_of(points: Sequence[SweepPoint]) -> str | None:
    """Return the figure by which settings are compared in quality; None where there is none.

    Where samplers differ each setting has a float reference of its own, so that the teacher's or the truth comes first.
    """
    known = {figure.key for point in points for figure in point.figures}
    is_of_samplers = any("sampler" in key for point in points for key in point.setting)
    ranked = (PSNR_TEACHER, PSNR_TRUTH, PSNR) if is_of_samplers else (PSNR,)
    return next((key for key in ranked if key in known), None)


def series_of(sweep: Sweep) -> list[list[SweepPoint]]:
    """Return the points of each task and device, in the order of the values."""
    names = dict.fromkeys((point.task, point.device) for point in sweep.points)
    return [[point for point in sweep.points if (point.task, point.device) == name] for name in names]


def _psnr_db(records: list[RunRecord], task: TaskAssets, against: str) -> dict[str, float]:
    """Return each item's likeness in the first launch that has one: launches of one graph paint the same."""
    psnr_db: dict[str, float] = {}
    for record in records:
        for sample in record.samples:
            if (sample.metric, sample.task, sample.labels.get("against")) == ("psnr_db", task.name, against) and sample.item:
                psnr_db.setdefault(sample.item, sample.value)
    return psnr_db


def _int8(bundle: Bundle) -> Iterator[SweepFigure]:
    """Yield what of the shared U-Net runs in 8 bits, where a part of it does."""
    int8 = int8_of_shared(bundle)
    if int8 is not None and int8.layers.int8 > 0:
        for key, share in (("parameters", int8.parameters), ("layers", int8.layers), ("MACs", int8.multiply_accumulates)):
            yield SweepFigure(key=f"int8_{key.lower()}", title=f"{key} in 8 bits", unit="%", value=share.percent, n=1)


def _psnr(key: str, title: str, psnr_db: Mapping[str, float]) -> Iterator[SweepFigure]:
    if psnr_db:
        value, error = _mean_and_error(list(psnr_db.values()))
        yield SweepFigure(key=key, title=title, unit="dB", value=value, n=len(psnr_db), error=error, each=dict(psnr_db))


def _scores(scores: RunScores | None, task: TaskAssets, address: str) -> Iterator[SweepFigure]:
    """Yield the scores of the shared graph against the float reference; those of eps and latents belong to no device."""
    for compared in scores.compared if scores else ():
        is_shared = (compared.task, compared.made, compared.against) == (task.name, Variant.SHARED, "reference")
        if is_shared and compared.device in (address, None):
            for score in compared.scores:
                if not isinstance(score.value, str) and score.metric.name != PSNR:
                    metric = score.metric
                    yield SweepFigure(key=metric.name, title=metric.title, unit=metric.unit, value=score.value, n=score.n)


def _kpis(rows: Sequence[KpiRow], task: TaskAssets, address: str) -> Iterator[SweepFigure]:
    for row in rows:
        if (row.task, row.device.address) == (task.name, address) and row.key in _KPIS and isinstance(row.shared, Figure):
            value = convert(row.shared.value, row.unit)
            each = {str(launch): convert(median, row.unit) for launch, median in enumerate(row.shared.medians)}
            yield SweepFigure(key=row.key, title=row.title, unit=row.unit.value, value=value, n=row.shared.launches, each=each)


def _bytes(storage: Storage | None) -> Iterator[SweepFigure]:
    """Yield the bytes of all tasks on a device: base and adapters."""
    total = storage.measured[-1].shared_bytes if storage and storage.measured else None
    if total is not None:
        value = convert(total, Unit.MEGABYTES)
        yield SweepFigure(key=BYTES, title="All files", unit=Unit.MEGABYTES.value, value=value, n=1)


def _with_published(figure: SweepFigure, table: str | None, task: TaskAssets, setting: Mapping[str, str]) -> SweepFigure:
    if table is None or INT8_KEY not in setting:
        return figure
    name = published_name(figure.key, Unit(figure.unit)) if figure.key in _KPIS else figure.key
    return replace(figure, published=published_table(table).at(float(setting[INT8_KEY])).figure(name, task=task.name))


def _mean_and_error(values: list[float]) -> tuple[float, float | None]:
    return mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
