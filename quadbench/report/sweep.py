"""Sweep: runs of one recipe with several values of some keys -> a point for each setting, task and device."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from quadbench.artifacts import Bundle, Caveat, RunRecord, RunResult, TaskAssets, Variant
from quadbench.artifacts.scores import RunScores
from quadbench.recipe import INT8_KEY
from quadbench.recipe.published import published_table
from quadbench.report.int8 import int8_of_shared
from quadbench.report.kpi import Figure, kpi_rows, published_name
from quadbench.report.storage import Storage, storage_views
from quadbench.report.units import Unit, convert

SCHEMA_VERSION = 2
PSNR, PSNR_TEACHER, PSNR_TRUTH = "psnr", "psnr_teacher", "psnr_truth"
TIME, BYTES, RAM = "end_to_end", "bytes", "peak_ram"
_KPIS = ("session_load", "unet_step", TIME, "switch", "lora_rom", RAM)


@dataclass(frozen=True, kw_only=True)
class SweepFigure:
    """One figure at one setting. `error` is the standard error over items, `published` what a paper printed."""

    key: str
    title: str
    unit: str
    value: float
    n: int
    error: float | None = None
    published: float | None = None


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One setting, a value of each key, on one device, for one task. `psnr_db` is by item; `reason` says why a launch was not OK.

    `is_best` where no other setting of the task is better in quality, time or bytes without being worse in another of them.
    """

    setting: dict[str, str]
    task: str
    device: str
    run_id: str
    psnr_db: dict[str, float]
    figures: tuple[SweepFigure, ...]
    reason: str | None
    caveats: tuple[Caveat, ...]
    is_best: bool = False

    @property
    def value(self) -> str:
        """Return the setting in one word, without its keys."""
        return ", ".join(self.setting.values())

    def figure(self, key: str) -> SweepFigure | None:
        """Return one of the figures; None where there is none."""
        return next((figure for figure in self.figures if figure.key == key), None)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole sweep: all points, by setting in the order given. `sweeps/<id>/sweep.json` is the same as JSON."""

    schema_version: int = SCHEMA_VERSION
    sweep_id: str
    recipe_name: str
    keys: tuple[str, ...]
    published: str | None
    points: tuple[SweepPoint, ...]


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
    storages = {storage.device.address: storage for storage in storage_views(result)}
    for address, device in {record.device.address: record.device for record in result.records}.items():
        records = [r for r in result.records if r.device.address == address and r.variant is Variant.SHARED]
        bundle = result.bundle_on(device)
        for task in bundle.tasks:
            psnr_db = _psnr_db(records, task, "reference")
            figures = [
                *_int8(bundle),
                *_psnr(PSNR, "PSNR", psnr_db),
                *_psnr(PSNR_TEACHER, "PSNR to teacher", (teacher or {}).get((task.name, address), {})),
                *_psnr(PSNR_TRUTH, "PSNR to truth", _psnr_db(records, task, "truth")),
                *_scores(scores, task, address),
                *_kpis(result, task, address),
                *_bytes(storages.get(address) or next(iter(storages.values()), None)),
            ]
            yield SweepPoint(
                setting=dict(setting),
                task=task.name,
                device=address,
                run_id=result.run_id,
                psnr_db=psnr_db,
                figures=tuple(_with_published(figure, result.published, task, setting) for figure in figures),
                reason=next((record.reason for record in records if record.reason), None),
                caveats=tuple(dict.fromkeys(caveat for record in records for caveat in record.caveats)),
            )


def with_best(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """Return the points, those marked that are the best of their task and device."""
    return tuple(replace(point, is_best=_is_best(point, [p for p in points if _place(p) == _place(point)])) for point in points)


def quality_of(points: Sequence[SweepPoint]) -> str | None:
    """Return the figure by which settings are compared in quality; None where there is none.

    Where samplers differ each setting has a float reference of its own, so that the teacher's or the truth comes first.
    """
    known = {figure.key for point in points for figure in point.figures}
    is_of_samplers = any("sampler" in key for point in points for key in point.setting)
    ranked = (PSNR_TEACHER, PSNR_TRUTH, PSNR) if is_of_samplers else (PSNR,)
    return next((key for key in ranked if key in known), None)


def _is_best(point: SweepPoint, rivals: Sequence[SweepPoint]) -> bool:
    quality = quality_of(rivals)
    if quality is None or point.figure(quality) is None:
        return False
    mine = _merits(point, quality)
    others = [_merits(rival, quality) for rival in rivals if rival is not point and rival.figure(quality)]
    return not any(
        theirs.keys() == mine.keys() and all(theirs[key] >= mine[key] for key in mine) and theirs != mine for theirs in others
    )


def _merits(point: SweepPoint, quality: str) -> dict[str, float]:
    """Return what is compared, so that more is better."""
    figures = {quality: point.figure(quality), TIME: point.figure(TIME), BYTES: point.figure(BYTES)}
    return {key: figure.value if key == quality else -figure.value for key, figure in figures.items() if figure}


def change(point: SweepPoint, before: SweepPoint) -> tuple[float, float] | None:
    """Return the mean difference of the PSNR of the same items, and its standard error; None below two items."""
    differences = [value - before.psnr_db[item] for item, value in point.psnr_db.items() if item in before.psnr_db]
    average, error = _mean_and_error(differences) if differences else (0.0, None)
    return None if error is None else (average, error)


def series_of(sweep: Sweep) -> list[list[SweepPoint]]:
    """Return the points of each task and device, in the order of the values."""
    names = dict.fromkeys(map(_place, sweep.points))
    return [[point for point in sweep.points if _place(point) == name] for name in names]


def _place(point: SweepPoint) -> tuple[str, str]:
    return point.task, point.device


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
        yield SweepFigure(key=key, title=title, unit="dB", value=value, n=len(psnr_db), error=error)


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
