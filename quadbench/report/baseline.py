"""Comparison of a run with an earlier run (its baseline): metrics that got worse, got better or stayed the same."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quadbench.artifacts import RunRecord, RunResult, Variant
from quadbench.artifacts.night_record import differing_values, environment_differences, workload
from quadbench.errors import UserError
from quadbench.report.formatting import TextTable, Unit, display, labelled, plural
from quadbench.report.kpi import WITH_VERDICT, Figure, KpiRow, exact_verdict
from quadbench.report.launches import is_on, only_ok
from quadbench.report.scores import Quality, quality_rows
from quadbench.results.documents import document_from
from quadbench.statistics import Verdict
from quadbench.statistics.launch_comparison import compare_unpaired

DOUBT = (
    "The two runs were measured at different times, not launched in turn: an interval covers how the launches of each run differ,"
    " but not what else changed on the device in between."
)
_TELLING = ("end_to_end", "unet_run")
_SIDES = {Variant.SHARED: "shared", Variant.PER_GRAPH: "per_graph"}
_WORDS = {
    Verdict.WORSE: "got worse",
    Verdict.BETTER: "got better",
    Verdict.SAME: "stayed the same",
    Verdict.INCONCLUSIVE: "gave no clear result",
}
_NAMED = 4  # figures that a sentence names


@dataclass(frozen=True, kw_only=True)
class ChangedFigure:
    """A metric of a task in two runs: `before` in the baseline, `now` in the current run. Times are in nanoseconds, sizes in
    bytes, PSNR in decibels. `ratio` is now / before; its 95 % interval is `low` to `high`. The ratio is None for PSNR, and if a
    value is missing or 0. `is_exact` marks file sizes and PSNR, which have no interval.
    """

    device: str
    task: str
    variant: Variant
    key: str
    title: str
    unit: Unit | None
    is_exact: bool
    before: float | None
    now: float | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def is_telling(self) -> bool:
        """Return whether the metric is image time or U-Net time, or got better or worse. Short tables omit other metrics."""
        return self.key in _TELLING or self.verdict in (Verdict.WORSE, Verdict.BETTER)

    def __str__(self) -> str:
        before, now = (display(value, self.unit) for value in (self.before, self.now))
        change = f"now / before is {_ratio(self)}" if self.ratio else f"{before}, now {now}"
        return f"{self.title} of {self.task}, {self.variant}: {change}"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A comparison of an earlier run, the baseline, with the current run. `only_now` lists tasks that only the current run has.
    `differences` maps device addresses to dicts from a setting to its (earlier, current) values. `doubt` says why the comparison
    is uncertain. `settled_by` is a command that compares the runs by launching their tasks alternately.
    """

    run_id: str
    started_at: datetime
    kpis: tuple[KpiRow, ...]
    quality: tuple[Quality, ...]
    figures: tuple[ChangedFigure, ...]
    only_now: tuple[str, ...]
    differences: dict[str, dict[str, tuple[str, str]]]
    sentences: tuple[str, ...]
    doubt: str
    settled_by: str

    @property
    def is_in_doubt(self) -> bool:
        """Return whether a time or memory metric got better or worse, perhaps because the device changed between the runs."""
        changed = (Verdict.WORSE, Verdict.BETTER)
        return any(figure.verdict in changed and not figure.is_exact for figure in self.figures)


def require_comparable(baseline: RunResult, tasks: Sequence[str], addresses: Sequence[str], run_id: str | None = None) -> None:
    """Raise a UserError if the baseline is run `run_id`, shares no task with `tasks`, or did not use all device `addresses`."""
    name, its_tasks = f"run {baseline.run_id}", [task.name for task in baseline.bundle.tasks]
    its_addresses = [device.address for device in baseline.devices]
    if baseline.run_id == run_id:
        raise UserError(f"{name} cannot be its own baseline", hint="name an earlier run; quadbench runs lists them")
    if set(its_tasks).isdisjoint(tasks):
        raise UserError(
            f"{name} cannot be the baseline: it has the tasks {', '.join(its_tasks)}; expected some of {', '.join(tasks)}",
            hint="name a run of the same recipe; quadbench runs lists them",
        )
    if missing := [address for address in addresses if address not in its_addresses]:
        raise UserError(
            f"{name} cannot be the baseline for {', '.join(missing)}: it ran on {', '.join(its_addresses)}",
            hint="name a run on the same devices; quadbench runs lists them",
        )


def compare_with(
    baseline: RunResult, its_rows: Sequence[KpiRow], result: RunResult, rows: Sequence[KpiRow], where: Sequence[str] = ()
) -> Baseline:
    """Return a `Baseline` that compares the run `result`, with KPI rows `rows`, to the run `baseline`, with KPI rows `its_rows`.
    `where` holds words to append to the suggested `quadbench compare` command: none, or `--results` and a folder.
    """
    addresses = [device.address for device in result.devices]
    quality, common = quality_rows(baseline), {task.name for task in baseline.bundle.tasks}
    now = [row for row in rows if row.task in common]
    figures = (*_of_rows(its_rows, now), *_of_quality(quality, [row for row in quality_rows(result) if row.task in common]))
    settled_by = shlex.join(("quadbench", "compare", baseline.run_id, result.run_id, "--devices", ",".join(addresses), *where))
    only_now = tuple(task.name for task in result.bundle.tasks if task.name not in common)
    return Baseline(
        run_id=baseline.run_id,
        started_at=baseline.records_in_order[0].started_at,
        kpis=tuple(its_rows),
        quality=quality,
        figures=figures,
        only_now=only_now,
        differences={address: _differences(baseline, result, address) for address in addresses},
        sentences=(
            *(_sentence(address, baseline.run_id, figures) for address in addresses),
            *_of_tasks(baseline, result, only_now, figures, settled_by),
        ),
        doubt=DOUBT,
        settled_by=settled_by,
    )


def baseline_tables(baseline: Baseline, *, is_full: bool) -> tuple[TextTable, ...]:
    """Return up to two tables for each device: settings that differ between the runs, and metrics of both runs. If `is_full` is
    false, the metrics are only image time, U-Net time, and metrics that got worse or better.
    """
    tables = []
    for address, unlike_there in baseline.differences.items():
        figures = [figure for figure in baseline.figures if figure.device == address and (is_full or figure.is_telling)]
        rows = ((name, *values) for name, values in unlike_there.items())
        changed = TextTable.of_words(f"{address}: what else differs from run {baseline.run_id}", ("What", "Before", "Now"), rows)
        measured = TextTable(
            title=f"{address}: against run {baseline.run_id}",
            columns=("Figure", "Before", "Now", "Now / before", "Verdict"),
            numeric=(False, True, True, True, False),
            rows=tuple(_cells(figure) for figure in figures),
        )
        tables += [table for table in (changed, measured) if table.rows]
    return tuple(tables)


def _of_rows(before: Sequence[KpiRow], now: Sequence[KpiRow]) -> Iterator[ChangedFigure]:
    """Yield a ChangedFigure for each KPI and variant measured in either run. With only one value, the verdict is inconclusive."""
    earlier = {(row.device.address, row.task, row.key): row for row in before}
    together = {is_main: _measured_twice(earlier, now, is_main=is_main) for is_main in (True, False)}
    for row in now:
        other = earlier.get((row.device.address, row.task, row.key))
        for variant, side in _SIDES.items():
            cells = [getattr(one, side) if one else "" for one in (other, row)]
            first, second = (cell if isinstance(cell, Figure) else None for cell in cells)
            if not (first or second):
                continue
            verdict, ratio, low, high = Verdict.INCONCLUSIVE, None, None, None
            if first and second and row.is_exact:
                verdict, ratio = exact_verdict(second.value - first.value), second.value / first.value if first.value else None
            elif first and second and min(*first.medians, *second.medians) > 0:
                result = compare_unpaired(first.medians, second.medians, together=together[row.key in WITH_VERDICT])
                verdict, ratio, low, high = result.verdict, result.ratio, result.low, result.high
            yield document_from(
                ChangedFigure,
                row,
                device=row.device.address,
                variant=variant,
                before=first.value if first else None,
                now=second.value if second else None,
                ratio=ratio,
                low=low,
                high=high,
                verdict=verdict,
            )


def _measured_twice(earlier: Mapping[tuple[str, str, str], KpiRow], now: Sequence[KpiRow], *, is_main: bool) -> int:
    """Count the time and memory values that both runs measured: main metrics, such as image time, if `is_main`, else others."""
    rows = [row for row in now if (row.key in WITH_VERDICT) is is_main and not row.is_exact]
    pairs = [(row, other) for row in rows if (other := earlier.get((row.device.address, row.task, row.key)))]
    return sum(all(isinstance(getattr(one, side), Figure) for one in pair) for pair in pairs for side in _SIDES.values())


def _of_quality(before: Sequence[Quality], now: Sequence[Quality]) -> Iterator[ChangedFigure]:
    earlier = {(row.device.address, row.task): row for row in before}
    for row in now:
        other = earlier.get((row.device.address, row.task))
        for variant, side in _SIDES.items():
            cells = [getattr(one, f"{side}_reference") if one else None for one in (other, row)]
            first, second = (round(cell, 1) if isinstance(cell, float) else None for cell in cells)  # as reports show it
            if first is None and second is None:
                continue
            yield ChangedFigure(
                device=row.device.address,
                task=row.task,
                variant=variant,
                key="psnr",
                title="PSNR, mean",
                unit=None,
                is_exact=True,
                before=first,
                now=second,
                ratio=None,
                low=None,
                high=None,
                verdict=Verdict.INCONCLUSIVE if first is None or second is None else exact_verdict(first - second),
            )


def _differences(baseline: RunResult, result: RunResult, address: str) -> dict[str, tuple[str, str]]:
    """Return a device's settings that differ between runs, as a dict from name to texts (in baseline, in current run)."""
    sides, held = list[list[RunRecord]](), list[list[dict[str, str]]]()
    for run in (baseline, result):
        devices = [device for device in run.devices if device.address == address]
        records = [record for device in devices for record in only_ok(run.records) if is_on(record, device)]
        sides.append(records)
        held.append([])
        if records:
            device, bundle = records[0].device, run.bundle_on(records[0].device)
            own = {"recipe": bundle.recipe_digest[:12]} | ({} if device.family == "virtual" else {"serial": device.serial})
            held[-1].append(own | workload(bundle, bundle.tasks))
    return differing_values(*held) | environment_differences(*sides)


def _sentence(address: str, run_id: str, figures: Sequence[ChangedFigure]) -> str:
    """Return a sentence that counts a device's metrics by verdict (better, worse, same) and names the worse ones."""
    by_verdict = {verdict: [f for f in figures if (f.device, f.verdict) == (address, verdict)] for verdict in _WORDS}
    counts = [f"{plural(len(these), 'figure')} {_WORDS[verdict]}" for verdict, these in by_verdict.items() if these]
    if not counts:
        return f"On {address} there are no figures to compare with run {run_id}."
    worse = by_verdict[Verdict.WORSE]
    more = f", and {len(worse) - _NAMED} more" if len(worse) > _NAMED else ""
    named = f" Worse: {'; '.join(map(str, worse[:_NAMED]))}{more}." if worse else ""
    return f"On {address}, against run {run_id}: {', '.join(counts)}.{named}"


def _of_tasks(
    baseline: RunResult, result: RunResult, only_now: Sequence[str], figures: Sequence[ChangedFigure], settled_by: str
) -> Iterator[str]:
    """Yield two or three sentences if the tasks of the runs differ, else none. The first names the tasks that only one run has.
    If file sizes and mean PSNR of common tasks are unchanged, the second says so. The last gives a command to compare times.
    """
    only_then = [task.name for task in baseline.bundle.tasks if task.name not in {task.name for task in result.bundle.tasks}]
    if not (only_now or only_then):
        return
    whose = ((result.run_id, only_now), (baseline.run_id, only_then))
    yield " ".join(f"Only run {run_id} has {', '.join(names)}." for run_id, names in whose if names)
    exact = [figure for figure in figures if figure.is_exact]
    if exact and all(figure.verdict is Verdict.SAME for figure in exact):
        common = " and ".join(dict.fromkeys(figure.task for figure in exact))
        is_same_base = baseline.bundle.base == result.bundle.base
        same_base = ": base and encodings have the same digest" * is_same_base
        yield f"The bytes and the pictures of {common} are unchanged{same_base}."
    yield f"To compare their times, use {settled_by}, which launches the tasks of both runs in turn."


def _cells(figure: ChangedFigure) -> tuple[str, ...]:
    values = [display(value, figure.unit) for value in (figure.before, figure.now)]
    return (f"{figure.task}, {figure.variant}: {labelled(figure.title, figure.unit)}", *values, _ratio(figure), figure.verdict)


def _ratio(figure: ChangedFigure) -> str:
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    return "–" if figure.ratio is None else f"{figure.ratio:.3f}{interval}"
