"""Content of a run's report in reading order, and a summary of the run for programs."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from quadbench.artifacts import Bundle, Caveat, DeviceFacts, ErrorClass, RunRecord, RunResult, Status, TaskAssets, Variant
from quadbench.artifacts.night_record import IMAGE_COUNT, environment_differences
from quadbench.report import launches, provenance, scores
from quadbench.report.condition import Criterion, met_places
from quadbench.report.formatting import TextTable
from quadbench.report.headline import ENOUGH, headline, missing_figures, next_step, plain_text
from quadbench.report.kpi import WITH_VERDICT, Figure, KpiRow, LaunchVerdict, kpi_rows, launch_verdicts, unequal_rows
from quadbench.report.launches import SERVING, Setup, absence_reason, launches_of, only_ok, sampler_text, setups_of, values
from quadbench.report.run_charts import MemoryTimeline, TaskStrips, TimeShare, memory_of, strips_of, time_shares
from quadbench.report.scores import Quality, TaskPictures, Trajectory
from quadbench.report.serving_modes import ServingModes, serving_modes
from quadbench.report.storage import Storage, storage_views
from quadbench.report.tables import MeasuredRun, component_tables, kernel_tables, published_comparison
from quadbench.results.documents import document_from
from quadbench.results.layout import Layout

SCHEMA_VERSION = 2
MAX_NAMED = 20  # failed launches that the top of a report names


@dataclass(frozen=True, kw_only=True)
class TaskKpis:
    """A task and its KPI rows on one device."""

    task: TaskAssets
    rows: tuple[KpiRow, ...]


@dataclass(frozen=True, kw_only=True)
class DeviceKpis:
    """A device's KPI rows by task, memory use and verdicts. `shares` has image times by component, `strips` those by launch."""

    device: DeviceFacts
    caveats: tuple[Caveat, ...]
    tasks: tuple[TaskKpis, ...]
    shares: tuple[TimeShare, ...]
    strips: tuple[TaskStrips, ...]
    memory: tuple[MemoryTimeline, ...]
    verdicts: tuple[LaunchVerdict, ...]


@dataclass(frozen=True, kw_only=True)
class Glance:
    """The KPI rows of a task on a device for the overview of a report: image time, task switch time and peak memory.
    On a cloud-hosted device, the rows are U-Net time and U-Net peak memory.
    """

    device: DeviceFacts
    task: str
    rows: tuple[KpiRow, ...]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The largest pixel difference between images of the float graph on a device and Python's reference images of a task.
    `worst_steps` is in grey levels (1/255), or is a text that says why it is unknown. `images` counts the device's images.
    """

    device: DeviceFacts
    task: str
    images: int
    worst_steps: float | str


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A caveat and the addresses of devices whose measurements it concerns. Without addresses, it concerns all devices."""

    caveat: Caveat
    addresses: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReportView:
    """The content of a run's report, in reading order."""

    result: RunResult
    started_at: datetime | None
    launches: tuple[provenance.Launch, ...]
    listed: provenance.LaunchList
    headline: tuple[str, ...]
    gaps: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    next_step: str
    glance: tuple[Glance, ...]
    kpis: tuple[DeviceKpis, ...]
    ways: tuple[ServingModes, ...]
    kernels: tuple[TextTable, ...]
    components: tuple[TextTable, ...]
    published: TextTable | None
    storages: tuple[Storage, ...]
    quality: tuple[Quality, ...]
    held_out: tuple[TextTable, ...]
    trajectories: tuple[Trajectory, ...]
    scores: tuple[TextTable, ...]
    score_notes: tuple[str, ...]
    pictures: tuple[TaskPictures, ...]
    parity: tuple[Parity, ...]
    int8: tuple[TextTable, ...]
    setups: tuple[Setup, ...]
    precisions: tuple[str, ...]
    ran: TextTable | None
    digests: tuple[provenance.Fact, ...]
    versions: tuple[provenance.Fact, ...]
    settings: tuple[provenance.Fact, ...]
    conditions: tuple[provenance.DeviceConditions, ...]
    where: tuple[str, ...]  # command-line words that name the results folder

    @cached_property
    def failures(self) -> tuple[provenance.Launch, ...]:
        """Return the launches that failed, except discarded launches, which were repeated."""
        return tuple(launch for launch in self.launches if not launch.record.status.is_fine)

    @property
    def repeated(self) -> int:
        """Return how many launches were discarded, for example because the device was hot. Discarded launches are run again."""
        return sum(launch.record.status is Status.DISCARDED for launch in self.launches)

    @property
    def again(self) -> str:
        """Return the shell command `quadbench run RECIPE.yaml --devices ADDRESSES` that repeats the run on the same devices."""
        addresses = ",".join(device.address for device in self.result.devices)
        return self.command("run", f"{self.result.bundle.recipe_name}.yaml", "--devices", addresses)

    def command(self, *words: str) -> str:
        """Return a shell command: `quadbench`, the given words, and `--results FOLDER` unless the folder is the default."""
        return shlex.join(("quadbench", *words, *self.where))

    @property
    def unequal(self) -> frozenset[tuple[str, str]]:
        """Return the (device address, task) pairs where one graph file took over 5 % longer in one variant than in the other."""
        rows = [row for device in self.kpis for task in device.tasks for row in task.rows]
        return frozenset((row.device.address, row.task) for row in unequal_rows(rows))


def report_view(result: RunResult, layout: Layout) -> ReportView:
    """Return the content of a run's report. Images are read from the folder `layout`."""
    rows, storages, quality = kpi_rows(result), storage_views(result), scores.quality_rows(result)
    launch_rows, setups, doubts = provenance.launch_rows(result), setups_of(result), _doubts(result)
    kpis = tuple(_device_kpis(result, device, rows) for device in result.devices)
    needed = [row.judged.launches_needed or 0 for row in rows if row.judged and row.key in WITH_VERDICT]
    enough, caveats, is_unequal = max([ENOUGH, *needed]), [doubt.caveat for doubt in doubts], bool(unequal_rows(rows))
    measured = MeasuredRun(result=result, kpis=rows, quality=quality)
    held_out = [table for each in setups for table in scores.held_out_tables(each.bundle.held_out, each.where)]
    trajectories = [curve for each in setups for curve in scores.trajectories(each.bundle.held_out, each.where)]
    if result.scores:
        held_out += scores.emulated_tables(result.scores)
        trajectories += scores.emulated_trajectories(result.scores)
    return ReportView(
        result=result,
        started_at=launch_rows[0].record.started_at if launch_rows else None,
        launches=launch_rows,
        listed=provenance.launch_list(launch_rows),
        headline=headline(storages, rows, quality),
        gaps=missing_figures(result, rows),
        doubts=doubts,
        next_step=next_step(result, caveats, is_unequal=is_unequal, launches=enough, words=layout.root_arguments),
        glance=tuple(_glance(device.device, task) for device in kpis for task in device.tasks),
        kpis=kpis,
        ways=serving_modes(result, rows),
        kernels=kernel_tables(result),
        components=component_tables(result),
        published=published_comparison([measured], result.published).text if result.published else None,
        storages=storages,
        quality=quality,
        held_out=tuple(held_out),
        trajectories=tuple(trajectories),
        scores=scores.score_tables(result.scores) if result.scores else (),
        score_notes=scores.score_notes(result.scores) if result.scores else (),
        pictures=scores.task_pictures(result, layout),
        parity=tuple(_parity(result, device, task) for device in result.devices for task in result.bundle_on(device).tasks),
        int8=tuple(table for each in setups if (table := launches.int8_table(each.bundle, each.where))),
        setups=setups,
        precisions=tuple(dict.fromkeys(launches.precision_text(setup.bundle) for setup in setups)),
        ran=launches.setup_table(setups),
        digests=provenance.digests(result),
        versions=provenance.versions(result),
        settings=provenance.settings(result),
        conditions=provenance.device_conditions(result),
        where=layout.root_arguments,
    )


def _device_kpis(result: RunResult, device: DeviceFacts, rows: Sequence[KpiRow]) -> DeviceKpis:
    tasks = tuple(
        TaskKpis(task=task, rows=tuple(row for row in rows if row.device == device and row.task == task.name))
        for task in result.bundle_on(device).tasks
    )
    return DeviceKpis(
        device=device,
        caveats=tuple(dict.fromkeys(caveat for task in tasks for row in task.rows for caveat in row.caveats)),
        tasks=tasks,
        shares=tuple(
            share
            for task in tasks
            for variant in (Variant.SHARED, Variant.PER_GRAPH)
            for share in time_shares(task.task, task.rows, variant)
        ),
        strips=strips_of(result, device),
        memory=memory_of(result, device),
        verdicts=launch_verdicts(rows, device),
    )


def _glance(device: DeviceFacts, kpis: TaskKpis) -> Glance:
    keys = ("unet_run", "unet_peak") if device.is_hosted else ("end_to_end", "switch", "peak_ram")
    return Glance(device=device, task=kpis.task.name, rows=tuple(row for row in kpis.rows if row.key in keys))


def _parity(result: RunResult, device: DeviceFacts, task: TaskAssets) -> Parity:
    records = launches_of(result, device, Variant.FLOAT)
    differences = [v for record in only_ok(records) for v in values(record, "max_abs_difference", lambda s: s.task == task.name)]
    images = {key for record in only_ok(records) for key in record.images if key.startswith(f"{task.name}/")}
    worst_steps = max(differences) if differences else absence_reason(records)
    return Parity(device=device, task=task.name, images=len(images), worst_steps=worst_steps)


def _doubts(result: RunResult) -> tuple[Doubt, ...]:
    concerned: dict[Caveat, list[str]] = {caveat: [] for bundle in result.bundles for caveat in bundle.artifact.caveats}
    alike = {(one.device.address, one.status, one.variant, one.caveats): one for one in result.records}
    doubted = [(record.device.address, caveat) for record in alike.values() for caveat in _doubts_of(record)]
    for device in result.devices:  # whether variants ran in different environments
        sides = [side for variant in SERVING if (side := only_ok(launches_of(result, device, variant)))]
        unlike = [name for side in sides[1:] for name in environment_differences(sides[0], side)]
        if any(not name.endswith(IMAGE_COUNT) for name in unlike):  # a variant without an admitted adapter makes other images
            doubted.append((device.address, Caveat.CHANGED_ENVIRONMENT))
    for address, caveat in dict.fromkeys(doubted):
        concerned.setdefault(caveat, []).append(address)
    return tuple(Doubt(caveat=caveat, addresses=tuple(concerned[caveat])) for caveat in Caveat if caveat in concerned)


def _doubts_of(record: RunRecord) -> tuple[Caveat, ...]:
    """Return a launch's caveats if its status is OK, else (). Omit FEW_SAMPLES for the float graph, whose times are not used."""
    if record.status is not Status.OK:
        return ()
    is_float = record.variant is Variant.FLOAT
    return tuple(caveat for caveat in record.caveats if not (is_float and caveat is Caveat.FEW_SAMPLES))


@dataclass(frozen=True, kw_only=True)
class LaunchSummary:
    """A launch with its status and, if it failed, its error."""

    device: str
    variant: Variant
    launch: int
    status: Status
    error_class: ErrorClass | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class DeviceSummary:
    """Digest and precision of the bundle used on a device. `samplers` maps each task's name to its sampler, as `lcm, 4 steps`."""

    bundle_digest: str
    precision: str
    samplers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The summary of a run for JSON output. `headline` states the result; `doubts` has caveats. Values are in nanoseconds,
    bytes or decibels. `ways` has a dict from column name to value per variant and device. It is empty unless a device measured
    two variants, one of them neither `shared` nor `per-graph`. `verdicts` and `devices` are keyed by device address. `report`
    is the HTML path or None. `bundle_digest` and `precision` are those of
    the first bundle.
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
    conditions_met: tuple[str, ...]


def run_summary(
    view: ReportView, report: str | None, conditions: Sequence[Criterion] = (), *, has_launches: bool = True
) -> RunSummary:
    """Return the summary of a run for JSON output. `report` is the path of the run's HTML report, None without a report.

    Without launches, it lacks `records` and the launches' medians, which take megabytes in long runs.
    """
    kpis = tuple(row for device in view.kpis for task in device.tasks for row in task.rows)
    bundle = view.result.bundle
    return document_from(
        RunSummary,
        view,
        schema_version=SCHEMA_VERSION,
        run_id=view.result.run_id,
        recipe=bundle.recipe_name,
        recipe_digest=bundle.recipe_digest,
        bundle_digest=bundle.digest,
        precision=bundle.precision,
        recipe_text=view.result.recipe,
        swept=view.result.swept,
        report=report,
        headline=plain_text(view.headline),
        records=tuple(_launch(record) for record in view.result.records) if has_launches else (),
        kpis=kpis
        if has_launches
        else tuple(replace(row, shared=_slim(row.shared), per_graph=_slim(row.per_graph)) for row in kpis),
        ways=tuple(dict(zip(ways.table.fields, row, strict=True)) for ways in view.ways for row in ways.table.values),
        verdicts={device.device.address: device.verdicts for device in view.kpis},
        devices={address: _device(setup.bundle) for setup in view.setups for address in setup.addresses},
        conditions_met=tuple(met for condition in conditions for met in met_places(condition, kpis, view.quality)),
    )


def _launch(record: RunRecord) -> LaunchSummary:
    return document_from(LaunchSummary, record, device=record.device.address)


def _slim(cell: Figure | str) -> Figure | str:
    return cell if isinstance(cell, str) else replace(cell, medians=())


def _device(bundle: Bundle) -> DeviceSummary:
    samplers = {task.name: sampler_text(task) for task in bundle.tasks}
    return DeviceSummary(bundle_digest=bundle.digest, precision=bundle.precision, samplers=samplers)
