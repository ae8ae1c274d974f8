"""Summary: a run's view -> its result in one object, for machines; `quadbench run --json` prints it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quadbench.artifacts import Bundle, ErrorClass, Status, Variant
from quadbench.report.baseline import Baseline
from quadbench.report.comparison import LaunchVerdict
from quadbench.report.condition import Criterion, where_met
from quadbench.report.headline import in_words
from quadbench.report.kpi import Figure, KpiRow
from quadbench.report.pictures import Quality
from quadbench.report.setups import sampler_text
from quadbench.report.view import Doubt, ReportView

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class LaunchSummary:
    """A launch and what became of it."""

    device: str
    variant: Variant
    launch: int
    status: Status
    error_class: ErrorClass | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class DeviceSummary:
    """A device with what it ran: a bundle, its precision, and by task the sampler in words."""

    bundle_digest: str
    precision: str
    samplers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run: what was measured of what, its result in words, the doubts, and the figures in nanoseconds, bytes and decibels.

    `ways` has the rows of the table of the ways to serve; it is empty where no more than shared and per-graph ran.
    `verdicts` and `devices` are by the device's address; `baseline` is the run that it is held against, and `report` the path of
    the HTML file, where there is one.
    Of several bundles, `bundle_digest` and `precision` are those of the first.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    recipe: str
    recipe_digest: str
    bundle_digest: str
    precision: str
    recipe_text: str | None
    swept: dict[str, str]
    report: str | None
    headline: str
    gaps: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    next_step: str
    records: tuple[LaunchSummary, ...]
    kpis: tuple[KpiRow, ...]
    quality: tuple[Quality, ...]
    ways: tuple[dict[str, str | float | None], ...]
    verdicts: dict[str, tuple[LaunchVerdict, ...]]
    devices: dict[str, DeviceSummary]
    baseline: Baseline | None
    conditions_met: tuple[str, ...]


def run_summary(view: ReportView, report: str | None, conditions: Sequence[Criterion] = ()) -> RunSummary:
    """Return the summary of a run, whose report lies at the given path; None: it has none yet."""
    kpis = tuple(row for device in view.kpis for task in device.tasks for row in task.rows)
    bundle = view.result.bundle
    return RunSummary(
        run_id=view.result.run_id,
        recipe=bundle.recipe_name,
        recipe_digest=bundle.recipe_digest,
        bundle_digest=bundle.digest,
        precision=bundle.precision,
        recipe_text=view.result.recipe,
        swept=view.result.swept,
        report=report,
        headline=in_words(view.headline),
        gaps=view.gaps,
        doubts=view.doubts,
        next_step=view.next_step,
        records=tuple(
            LaunchSummary(
                device=record.device.address,
                variant=record.variant,
                launch=record.launch,
                status=record.status,
                error_class=record.error_class,
                reason=record.reason,
            )
            for record in view.result.records
        ),
        kpis=kpis,
        quality=view.quality,
        ways=tuple(dict(zip(ways.table.fields, row, strict=True)) for ways in view.ways for row in ways.table.values),
        verdicts={device.device.address: device.verdicts for device in view.kpis},
        devices={address: _device(setup.bundle) for setup in view.setups for address in setup.addresses},
        baseline=view.baseline,
        conditions_met=tuple(met for condition in conditions for met in where_met(condition, kpis, view.quality, view.baseline)),
    )


def without_launches(summary: RunSummary) -> RunSummary:
    """Return the summary without what it says of single launches, which of very many takes megabytes."""
    kpis = tuple(replace(row, shared=_alone(row.shared), per_graph=_alone(row.per_graph)) for row in summary.kpis)
    return replace(summary, records=(), kpis=kpis)


def _alone(cell: Figure | str) -> Figure | str:
    return cell if isinstance(cell, str) else replace(cell, medians=())


def _device(bundle: Bundle) -> DeviceSummary:
    samplers = {task.name: sampler_text(task) for task in bundle.tasks}
    return DeviceSummary(bundle_digest=bundle.digest, precision=bundle.precision, samplers=samplers)
