"""Result of a sweep (runs of a recipe with several values of some keys): metrics at each setting, and best settings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean, mean, stdev

from quadbench.artifacts import Bundle, Caveat, RunRecord, RunResult, Status, TaskAssets, Variant
from quadbench.artifacts.caveats import FigureKind
from quadbench.artifacts.run_record import RunScores
from quadbench.artifacts.safe_text import FileName
from quadbench.recipe.published import published_table
from quadbench.recipe.recipe import INT8_KEY
from quadbench.report.formatting import Unit, convert
from quadbench.report.kpi import Figure, KpiRow, exact_verdict, kpi_rows, published_name
from quadbench.report.launches import caveats_in_order, int8_of_shared
from quadbench.report.storage import Storage, storage_of
from quadbench.statistics import Verdict
from quadbench.statistics.intervals import interval_of_mean
from quadbench.statistics.launch_comparison import CONFIDENCE, compare_unpaired

SCHEMA_VERSION = 3
PSNR, PSNR_TEACHER, PSNR_TRUTH = "psnr", "psnr_teacher", "psnr_truth"
TIME, BYTES, RAM = "end_to_end", "bytes", "peak_ram"
_KPIS = ("session_load", "unet_step", TIME, "switch", "lora_rom", RAM)

MIN_DB = 0.5  # smallest PSNR difference that matters, as in nightly runs
_TOLD = (Verdict.WORSE, Verdict.BETTER)


@dataclass(frozen=True, kw_only=True)
class SweepFigure:
    """The value of one metric at one setting of a sweep. `error` is the standard error over evaluation inputs, for PSNR only.
    `published` is the value in a paper, if any. `each` maps evaluation input to PSNR, or launch number to the metric's value.
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
    """The metrics of one task on one device at one setting of a sweep. A setting has a value for each recipe key that is swept.
    `reason` says why a launch was not OK. `is_best` means that no other setting is at least as good in quality, time and bytes,
    and better in one.
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
        """Return the setting's values as text, without their keys."""
        return ", ".join(self.setting.values())

    @property
    def name(self) -> str:
        """Return the setting as written on a command line: `runtime.threads=2`."""
        return ", ".join(f"{key}={value}" for key, value in self.setting.items())

    def figure(self, key: str) -> SweepFigure | None:
        return next((figure for figure in self.figures if figure.key == key), None)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A complete sweep with its points in the order of the settings, as stored in `sweeps/<id>/sweep.json`. The swept keys change
    what the tasks in `touched` compute; times of all other tasks show the noise. `left_out` maps `<setting>` or
    `<setting> on <device address>` to the reason why it has no results. `command` is the command line as typed.
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

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        return caveats_in_order(caveat for point in self.points for caveat in point.caveats)


def sweep_points(
    setting: Mapping[str, str],
    result: RunResult,
    scores: RunScores | None,
    teacher: Mapping[tuple[str, str], Mapping[str, float]] | None = None,
) -> Iterator[SweepPoint]:
    """Yield a `SweepPoint` per task and device: metrics of a run's shared graph at one setting of a sweep. `teacher` maps
    (task, device address) to {evaluation input: PSNR in dB}. The PSNR compares the shared graph's image with the float model's
    image after 100 DDIM steps. PSNR values of failed launches count, but times of failed launches do not.
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
    """Return a launch's caveats: all if its status is OK, none if DISCARDED. For other statuses, return only image caveats."""
    if record.status is Status.DISCARDED:
        return []
    return [caveat for caveat in record.caveats if record.status is Status.OK or caveat.is_about(FigureKind.PICTURE)]


def quality_of(points: Sequence[SweepPoint]) -> str | None:
    """Return the key of the PSNR metric that ranks settings by image quality; None if not measured. Reference images are float
    images. If a sampler is swept, they are the first measured of: images of 100 DDIM steps, true images, float images.
    """
    known = {figure.key for point in points for figure in point.figures}
    is_of_samplers = any("sampler" in key for point in points for key in point.setting)
    ranked = (PSNR_TEACHER, PSNR_TRUTH, PSNR) if is_of_samplers else (PSNR,)
    return next((key for key in ranked if key in known), None)


def series_of(sweep: Sweep) -> list[list[SweepPoint]]:
    """Return one list of `SweepPoint` for each task and device of a sweep. Each list is in the order of the settings."""
    names = dict.fromkeys((point.task, point.device) for point in sweep.points)
    return [[point for point in sweep.points if (point.task, point.device) == name] for name in names]


def _psnr_db(records: list[RunRecord], task: TaskAssets, against: str) -> dict[str, float]:
    """Return {evaluation input: PSNR in dB} of a task. Each input's first PSNR is used, as all launches make equal images."""
    psnr_db: dict[str, float] = {}
    for record in records:
        for sample in record.samples:
            if (sample.metric, sample.task, sample.labels.get("against")) == ("psnr_db", task.name, against) and sample.item:
                psnr_db.setdefault(sample.item, sample.value)
    return psnr_db


def _int8(bundle: Bundle) -> Iterator[SweepFigure]:
    """Yield percentages of int8 parameters, layers and MACs in the shared U-Net as three `SweepFigure`s; none without int8."""
    int8 = int8_of_shared(bundle)
    if int8 is not None and int8.layers.int8 > 0:
        for key, share in (("parameters", int8.parameters), ("layers", int8.layers), ("MACs", int8.multiply_accumulates)):
            yield SweepFigure(key=f"int8_{key.lower()}", title=f"{key} in 8 bits", unit="%", value=share.percent, n=1)


def _psnr(key: str, title: str, psnr_db: Mapping[str, float]) -> Iterator[SweepFigure]:
    if psnr_db:
        values = list(psnr_db.values())
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        yield SweepFigure(key=key, title=title, unit="dB", value=mean(values), n=len(psnr_db), error=error, each=dict(psnr_db))


def _scores(scores: RunScores | None, task: TaskAssets, address: str) -> Iterator[SweepFigure]:
    """Yield a `SweepFigure` per numeric score, except PSNR, of a task's shared-graph images against its float images."""
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
    """Yield one `SweepFigure`: MB of the base and all tasks' LoRA adapters on a device. Yield nothing if the size is unknown."""
    total = storage.measured[-1].shared_bytes if storage and storage.measured else None
    if total is not None:
        value = convert(total, Unit.MEGABYTES)
        yield SweepFigure(key=BYTES, title="All files", unit=Unit.MEGABYTES.value, value=value, n=1)


def _with_published(figure: SweepFigure, table: str | None, task: TaskAssets, setting: Mapping[str, str]) -> SweepFigure:
    if table is None or INT8_KEY not in setting:
        return figure
    name = published_name(figure.key, Unit(figure.unit)) if figure.key in _KPIS else figure.key
    return replace(figure, published=published_table(table).at(float(setting[INT8_KEY])).figure(name, task=task.name))


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The difference of two settings in one metric. `size` is first - second in dB for image quality, first / second for times
    and bytes. `low` and `high` bound its 95 % interval; None without an interval, as for bytes. `verdict` rates the first setting
    against the second. With `is_noise`, times differ by no more than `NoiseScale.noise`; `verdict` is then INCONCLUSIVE.
    """

    size: float
    low: float | None
    high: float | None
    verdict: Verdict
    is_noise: bool = False

    @property
    def is_told(self) -> bool:
        """Return True if one of the two compared settings is known to be better: the verdict is BETTER or WORSE."""
        return self.verdict in _TOLD


@dataclass(frozen=True, kw_only=True)
class NoiseScale:
    """The noise of a device's image times. `noise` is the largest ratio of a task's times at two settings, among tasks that the
    swept keys do not affect. It is None if those tasks have no times. Time ratios up to `noise` count as noise. `together` is the
    number of setting pairs compared, for a Bonferroni correction.
    """

    noise: float | None = None
    together: int = 1


def deltas(one: SweepPoint, other: SweepPoint, scale: NoiseScale = NoiseScale()) -> dict[str, Delta]:
    """Compare a task at two settings. Return a dict from metric key (image quality, time or bytes) to the metric's `Delta`."""
    quality, pairs = quality_of([one, other]), {}
    for key in filter(None, (quality, TIME, BYTES)):
        mine, theirs = one.figure(key), other.figure(key)
        if mine and theirs:
            pairs[key] = (mine, theirs)
    diffs = {key: _of_quality(*pair) if key == quality else _of_cost(*pair, scale) for key, pair in pairs.items()}
    return {key: merit for key, merit in diffs.items() if merit}


def noise_scale(sweep: Sweep, device: str) -> NoiseScale:
    """Return a device's `NoiseScale` of image times. `together` counts setting pairs of tasks that the sweep affects."""
    series = [points for points in series_of(sweep) if points[0].device == device and points[0].task in sweep.touched]
    timed = [sum(point.figure(TIME) is not None for point in points) for points in series]
    return NoiseScale(noise=noise_of(sweep, device), together=max(1, sum(math.comb(count, 2) for count in timed)))


def noise_of(sweep: Sweep, device: str) -> float | None:
    """For tasks unchanged by the sweep, return the largest ratio of a task's image times at two settings. None without times."""
    ratios = []
    for points in series_of(sweep):
        if points[0].device == device and points[0].task not in sweep.touched:
            times = [figure.value for point in points if (figure := point.figure(TIME))]
            ratios += [max(times) / min(times)] if len(times) > 1 and min(times) > 0 else []
    return max(ratios, default=None)


def with_best(sweep: Sweep) -> Sweep:
    """Return the sweep with `is_best` set for each point that no other point of its task and device beats."""
    scales = {device: noise_scale(sweep, device) for device in dict.fromkeys(point.device for point in sweep.points)}
    series = series_of(sweep)
    beaten = {id(point) for points in series for point in points if _is_beaten(point, points, scales[point.device])}
    return replace(sweep, points=tuple(replace(point, is_best=id(point) not in beaten) for point in sweep.points))


def is_telling(points: Sequence[SweepPoint]) -> bool:
    """Return True if `is_best` is True for some sweep points and False for others. Return False if all points agree."""
    return len({point.is_best for point in points}) > 1


def is_flat(sweep: Sweep) -> bool:
    """Return whether no two settings of a task are shown to differ in quality. Return False if any pair lacks a 95 % interval."""
    pairs = [pair for points in series_of(sweep) for pair in combinations(points, 2)]
    quality = [deltas(*pair).get(quality_of(pair) or "") for pair in pairs]
    return bool(quality) and all(one and one.low is not None and not one.is_told for one in quality)


def change_from(point: SweepPoint, before: SweepPoint, key: str) -> tuple[float, float] | None:
    """Return (mean, standard error) of the PSNR difference `point` - `before` in dB; None below two common evaluation inputs."""
    mine, theirs = point.figure(key), before.figure(key)
    of_items = _of_items(mine, theirs) if mine and theirs else []
    if len(of_items) < 2:
        return None
    return fmean(of_items), stdev(of_items) / math.sqrt(len(of_items))


def _is_beaten(point: SweepPoint, rivals: Sequence[SweepPoint], scale: NoiseScale) -> bool:
    """Return True if `point` has no image quality, or a rival is better in one metric and better or the same in the others."""
    quality = quality_of(rivals)
    if quality is None or point.figure(quality) is None:
        return True
    diffs = (
        {merit.verdict for merit in deltas(rival, point, scale).values()}
        for rival in rivals
        if rival is not point and rival.figure(quality)
    )
    return any(Verdict.BETTER in verdicts and verdicts <= {Verdict.BETTER, Verdict.SAME} for verdicts in diffs)


def _of_quality(mine: SweepFigure, theirs: SweepFigure) -> Delta | None:
    """Return a `Delta` of the mean PSNR difference in dB between two settings over common inputs; None if no input is common."""
    of_items = _of_items(mine, theirs)
    if not of_items:
        return None
    size, interval = fmean(of_items), interval_of_mean(of_items, CONFIDENCE)
    if interval is None:
        return Delta(size=size, low=None, high=None, verdict=Verdict.INCONCLUSIVE)
    low, high = interval
    is_same, is_apart = max(-low, high) < MIN_DB, low > 0 or high < 0
    apart = Verdict.BETTER if size > 0 else Verdict.WORSE
    return Delta(size=size, low=low, high=high, verdict=Verdict.SAME if is_same else apart if is_apart else Verdict.INCONCLUSIVE)


def _of_items(mine: SweepFigure, theirs: SweepFigure) -> list[float]:
    return [value - theirs.each[item] for item, value in mine.each.items() if item in theirs.each]


def _of_cost(mine: SweepFigure, theirs: SweepFigure, scale: NoiseScale) -> Delta | None:
    if min(mine.value, theirs.value) <= 0:
        return None
    if mine.key == BYTES:
        ratio = mine.value / theirs.value
        return Delta(size=ratio, low=None, high=None, verdict=exact_verdict(ratio - 1))
    sides = [list(side.each.values()) for side in (theirs, mine)]
    if not all(sides) or min(map(min, sides)) <= 0:
        return None
    result = compare_unpaired(*sides, together=scale.together)
    is_noise = result.verdict in _TOLD and abs(math.log(result.ratio)) <= math.log(scale.noise or 1.0)
    verdict = Verdict.INCONCLUSIVE if is_noise else result.verdict
    return Delta(size=result.ratio, low=result.low, high=result.high, verdict=verdict, is_noise=is_noise)
