"""Comparisons of two builds by alternate launches (A B B A) until there is a verdict, and of two stored runs without verdicts."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from quadbench import pipeline
from quadbench.artifacts import (
    Bundle,
    DeviceFacts,
    LaunchPlan,
    Retry,
    RunResult,
    StoredBundle,
    StoredCompiled,
    TaskAssets,
    Variant,
)
from quadbench.artifacts.night_record import differing_values, environment_differences, workload
from quadbench.artifacts.run_record import file_refs, has_references, item_counts, shared_only_tasks
from quadbench.devices import Address, Device
from quadbench.devices.lab.held import require_any
from quadbench.errors import DeviceLostError, QuadbenchError, UnknownNameError, UserError
from quadbench.harness.installation import Installation
from quadbench.measure.launch_schedule import InterleavedSchedule, PairedBlock, SideLaunch, measurement_sequence
from quadbench.measure.parallel_launches import DeviceQueue, measure_launches
from quadbench.observer import Observer
from quadbench.pipeline import DEFAULT_RUN, RecordHooks, RunOptions
from quadbench.pipeline.progress_observer import publish_progress
from quadbench.pipeline.session import Session, lease_devices
from quadbench.quad.inputs import read_recipe
from quadbench.recipe import Measure, Recipe, RunSettings, Task
from quadbench.recipe.tasks import RandomFoundation
from quadbench.report import versus
from quadbench.report.html import write_study_report
from quadbench.report.launches import is_on, only_ok
from quadbench.report.run_line import write_comparison
from quadbench.report.versus import ALL_TASKS, PRIMARY, Pair, Side, Versus, VersusDevice, VersusSide, compare_key, sides_of_blocks
from quadbench.results.bundles import ensure_local
from quadbench.results.documents import document_from
from quadbench.results.layout import Layout
from quadbench.results.manifest import MANIFEST, check_contents, read_manifest
from quadbench.results.stored_runs import (
    RunFile,
    change_run,
    is_run,
    load_run,
    new_id,
    new_run_file,
    read_run_file,
    save_run,
    unknown_id_error,
)
from quadbench.rollout import Rollout, roll_out
from quadbench.rollout.equipment import Overrides, require_equipment
from quadbench.spec import is_file
from quadbench.spec.yaml_document import read_value
from quadbench.statistics import MIN_BLOCKS, Looks, Verdict
from quadbench.statistics.launch_comparison import verdict_within
from quadbench.statistics.multiple_testing import LOOKS

_MEASURED_ALIKE = ("warmup", "iterations", "switches", "sequence")
_MAX_LENGTH = 40  # characters of a name
_OWN = ("variant", "harness", "kit")  # changes of a side that are no keys of a recipe


@dataclass(frozen=True, kw_only=True)
class SideSpec:
    """One of two compared builds as the user named it: a recipe, a bundle or a run, and a dict of its changed settings."""

    source: str
    changes: Mapping[str, str]  # new values by recipe key, or by variant, harness or kit
    recipe: Recipe | None = None
    bundle: StoredBundle | None = None
    run: RunResult | None = None
    variant: Variant = Variant.SHARED
    harness: Path | None = None
    kit: str | None = None
    terms: RunSettings = field(default_factory=RunSettings)  # measurement settings; defaults for a bundle

    @property
    def name(self) -> str:
        """Return a build's display name: the source's file name and changed settings, as in `x.yaml with variant=float`."""
        changes = ", ".join(f"{key}={value}" for key, value in self.changes.items())
        return f"{Path(self.source).name[:_MAX_LENGTH]}{f' with {changes}' if changes else ''}"

    @property
    def tasks(self) -> list[str]:
        """Return the task names of a compared build. For a variant with a U-Net per task, tasks without a U-Net are left out."""
        bundle = self._existing_bundle
        tasks: Sequence[TaskAssets | Task] = bundle.tasks if bundle else self.recipe.tasks if self.recipe else ()
        admitted = shared_only_tasks(bundle) if bundle and self.variant.has_unet_per_task else ()
        return [task.name for task in tasks if task.name not in admitted]

    @property
    def variants(self) -> set[Variant]:
        """Return the variants that a recipe (`shared`, `float`, its baselines) or bundle (variants of its graphs) can run."""
        if self.recipe:
            return {Variant.SHARED, Variant.FLOAT, *map(Variant, self.recipe.baselines)}
        return {graph.variant for graph in self._existing_bundle.graphs} if self._existing_bundle else set()

    @property
    def has_references(self) -> bool:
        """Return whether a compared build has reference images. Builds of models with random weights have none."""
        if self.recipe:
            return not isinstance(self.recipe.foundation, RandomFoundation)
        return self._existing_bundle is not None and has_references(self._existing_bundle)

    @property
    def _existing_bundle(self) -> Bundle | None:
        return self.run.bundle if self.run else self.bundle.artifact if self.bundle else None

    def bundles(self, profiles: Sequence[str], *, layout: Layout, observer: Observer) -> dict[str, StoredBundle]:
        """Return a dict from device profile name to StoredBundle. If the build is a recipe, create missing bundles first."""
        if self.recipe:
            return pipeline.ensure_bundles_for(self.recipe, profiles, layout=layout, observer=observer)
        stored = self.bundle or (self.run.stored if self.run else None)
        others = self.run.others if self.run else {}
        return {profile: bundle for profile in profiles if (bundle := others.get(profile, stored))}


def side_of(source: str, changes: Mapping[str, str], layout: Layout) -> SideSpec:
    """Return the SideSpec of a recipe, bundle folder or run id. `changes` maps a recipe key, variant, harness or kit to a value.

    Raises:
        UserError: the source is none of them, or a change does not fit it.
        ArtifactError: the bundle or the run is damaged.
    """
    own = {key: changes[key] for key in _OWN if key in changes}
    of_recipe = {key: read_value(value) for key, value in changes.items() if key not in _OWN}
    try:
        variant = Variant(own.get("variant", Variant.SHARED))
    except ValueError as error:
        raise UnknownNameError("variant", own["variant"], [variant.value for variant in Variant]) from error
    chosen = SideSpec(
        source=source,
        changes=dict(changes),
        variant=variant,
        harness=Path(own["harness"]) if "harness" in own else None,
        kit=own.get("kit"),
    )
    is_bundle = is_file(Path(source) / MANIFEST)
    of_run = not is_bundle and is_run(source, layout)
    if (is_bundle or of_run) and of_recipe:
        what = "bundle" if is_bundle else "run"
        raise UserError(
            f"'{source}' is a {what}, but {next(iter(of_recipe))} is a key of a recipe",
            hint=f"name the recipe instead; a {what} only allows changes to {', '.join(_OWN)}",
        )
    if is_bundle:
        return replace(chosen, bundle=read_manifest(Path(source), Bundle))
    if of_run:
        return replace(chosen, run=load_run(layout, source), terms=read_run_file(layout, source).terms)
    try:
        recipe = read_recipe(source, of_recipe)
    except UnknownNameError as error:
        if not source[:1].isdigit():  # ids begin with a date
            raise
        raise unknown_id_error(source, layout) from error
    return replace(chosen, recipe=recipe, terms=recipe.terms)


def require_common_tasks(a: SideSpec, b: SideSpec, wanted: Collection[str] = (), *, called: tuple[str, str] = ("A", "B")) -> None:
    """Raise UserError if two builds share no task from `wanted` (empty: any task). `called` holds build names for the message."""
    common = set(a.tasks) & set(b.tasks)
    if common.isdisjoint(wanted or common):
        only = f" among {', '.join(wanted)}" if wanted else ""
        has = "; ".join(f"{name} has {', '.join(side.tasks)}" for name, side in zip(called, (a, b), strict=True))
        raise UserError(f"the sides have no task in common{only}: {has}")


def measure_for(a: SideSpec, b: SideSpec) -> Measure:
    """Return a comparison's measurement settings: from a recipe, else a stored run, else the defaults. `a` precedes `b`.

    Raises:
        UserError: two recipes differ in iterations, warm-up, switches or the order of tasks.
    """
    asked = [side.recipe.measure for side in (a, b) if side.recipe]
    for key in _MEASURED_ALIKE if len(asked) > 1 else ():
        values = [getattr(measure, key) for measure in asked]
        if values[0] != values[1]:
            raise UserError(
                f"measure.{key} is {values[0]} for A and {values[1]} for B; expected the same value for both",
                hint=f"set measure.{key} with --a or --b",
            )
    of_runs = [side.terms.measure for side in (a, b) if side.run]
    return next(iter((*asked, *of_runs)), a.terms.measure)


def require_variant(chosen: SideSpec, there: Collection[Variant]) -> None:
    """Raise UserError if a build has no graphs of the variant to run. `there` holds the variants of all graphs in the build."""
    if chosen.variant.graph_variant not in there:
        raise UserError(
            f"'{chosen.source}' has no graphs of {chosen.variant}; found {', '.join(sorted(there))}",
            hint=f"set baselines: [{chosen.variant}] in the recipe, and build again",
        )


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A metric of a task on which a comparison must give a verdict. `limit` is the smallest change to detect, as |log(B / A)|."""

    task: str
    key: str
    limit: float


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RecordHooks):
    """Options of a comparison. The comparison ends early if all metrics in `goals` (default: image time) have clear verdicts.

    With `to_see`, an effect such as 0.03, the interim tests (looks) are planned from the spread of the first blocks. `tasks`
    limits the common tasks; empty means all. `compiled` holds graphs compiled elsewhere, by bundle digest and target key.
    """

    looks: Looks = LOOKS
    to_see: float | None = None
    goals: tuple[Goal, ...] = ()
    tasks: tuple[str, ...] = ()
    run_options: RunOptions = DEFAULT_RUN
    compiled: Mapping[tuple[str, str], StoredCompiled] = field(default_factory=dict)


DEFAULTS = CompareOptions()


ComparisonSession = Session[CompareOptions]

_FIRST = Looks(at=(MIN_BLOCKS,))  # until the first blocks give a spread for planning

log = logging.getLogger(__name__)


def compare(
    a: SideSpec,
    b: SideSpec,
    addresses: Sequence[Address],
    options: CompareOptions = DEFAULTS,
    *,
    layout: Layout,
    observer: Observer,
) -> Versus:
    """Launch two builds alternately on each device until all verdicts are clear or no launch is left. Return the result (Versus).

    Write the result to comparison.json. The launches of each build are a run of their own. A device that fails is left out and
    named; the command waits for a lost device.

    Raises:
        QuadbenchError: a side cannot be built, the sides have no common task, or every device failed.
        KeyboardInterrupt: Ctrl-C was pressed. Both runs are stored, and comparison.json has the result so far.
    """
    require_common_tasks(a, b, options.tasks)
    measure_for(a, b)
    with (
        lease_devices(addresses, f"comparison of {a.source} and {b.source}", options.run_options, layout=layout) as leased,
        publish_progress(observer, layout, f"comparison of {a.name} and {b.name}") as seen,
    ):
        session = ComparisonSession(work=options, leased=leased, observer=seen)
        devices = _equipped(leased.devices, (a, b), session, leased.left_out)
        require_any(devices, leased.left_out)
        sides = [_prepared(letter, one, devices, session) for letter, one in (("A", a), ("B", b))]
        failures = {**(leased.left_out or {}), **sides[0].rollout.failures, **sides[1].rollout.failures}
        shared = [one.device for one in sides[0].rollout.installations if sides[1].installation_on(one.device)]
        if not shared:
            raise next(iter(failures.values()))
        plans = [_planned(device, sides, session) for device in shared]
        _launch(sides, plans, session, failures)
    versus = _versus(sides, plans, options, failures)
    write_comparison(versus, layout)
    return versus


def compare_stored(a: SideSpec, b: SideSpec) -> Versus:
    """Return the comparison of two stored runs. It has no verdicts, because the launches were not interleaved.

    Raises:
        UserError: a build is not a run or has changes that need launches, or the runs are the same or share no device or task.
    """
    if a.run is None or b.run is None:
        which = a.source if a.run is None else b.source
        raise UserError(f"'{which}' is not a stored run, so it must be measured", hint="name devices, such as --devices local")
    for side in (a, b):
        if side.harness or side.kit:
            hint = "name devices with --devices to measure the run again with these"
            raise UserError("the harness and kit of a stored run cannot be changed", hint=hint)
    if a.run.run_id == b.run.run_id and a.variant is b.variant:
        hint = "name another run, or --b variant=per-graph"
        raise UserError(f"both sides are the {a.variant} launches of run {a.run.run_id}", hint=hint)
    require_common_tasks(a, b)
    devices = {device.address: device for device in a.run.devices}
    others = {device.address: device for device in b.run.devices}
    common = [address for address in devices if address in others]
    if not common:
        raise UserError(f"the runs have no device in common: {', '.join(devices)}; {', '.join(others)}")
    return Versus(
        comparison_id=new_id(),
        a=_side(a, b, a.run.run_id, _of(a.run)),
        b=_side(b, a, b.run.run_id, _of(b.run)),
        to_see=None,
        devices=tuple(_stored_device(a, b, devices[address], others[address]) for address in common),
        failures={},
    )


@dataclass(frozen=True, kw_only=True)
class PreparedSide:
    """One of two compared builds, A or B: its installations on devices, and the RunFile (content of run.json) of its launches."""

    letter: str
    comparison_side: SideSpec
    run_file: RunFile
    rollout: Rollout

    def installation_on(self, device: Device) -> Installation | None:
        """Return the Installation of the compared build on a device, or None if that device does not have the build."""
        return next((one for one in self.rollout.installations if one.device is device), None)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The running comparison of two builds on one device, with the tasks of each build and the schedule of its launches."""

    device: Device
    sides: Sequence[PreparedSide]
    tasks: Pair
    contents: tuple[list[dict[str, str]], list[dict[str, str]]]  # of both sides
    launches: InterleavedSchedule

    def queue(self, session: ComparisonSession) -> DeviceQueue:
        """Return a DeviceQueue (device and launches). Its `recover(error)` waits for a lost device and reinstalls both builds."""

        def installed_again() -> None:
            for side in self.sides:
                side.rollout.reinstall[self.device.facts.address]()

        def regain(lost: DeviceLostError) -> None:
            session.recovery.recover(self.device, lost, installed_again)

        return DeviceQueue(device=self.device, schedule=self.launches.schedule(), recover=regain)

    def result(self) -> VersusDevice:
        """Return the comparison's result on this device: metrics, differences between the builds, caveats and launches."""
        facts, blocks, looks = self.device.facts, self.launches.blocks, self.launches.looks
        a, b = sides_of_blocks(blocks, *self.tasks)
        return VersusDevice(
            device=facts,
            blocks=len(blocks),
            looks=looks,
            rows=versus.interleaved_rows(facts, a, b, looks),
            differences=differing_values(*self.contents) | environment_differences(a.records, b.records),
            caveats=versus.caveats_of((a.records, b.records)),
            broken=self.launches.broken,
            launches=versus.timed_launches(a, b),
        )


def _planned(device: Device, sides: Sequence[PreparedSide], session: ComparisonSession) -> Trial:
    """Return the Trial that compares two builds on a device. Both builds run the common tasks with equal measurement settings."""
    installations = [one for side in sides if (one := side.installation_on(device))]
    wanted = set.intersection(*(set(side.comparison_side.tasks) for side in sides))
    if session.work.tasks:
        wanted &= set(session.work.tasks)
    tasks = versus.common_tasks(*(one.bundle.artifact for one in installations), wanted=wanted)
    measure = measure_for(*(side.comparison_side for side in sides))
    a, b = (_side_launch(*of_side, measure, session) for of_side in zip(sides, installations, tasks, strict=True))
    looks, judge = (_FIRST if session.work.to_see else session.work.looks), partial(_judged, tasks, session.work)
    seed = f"{sides[0].run_file.run_id} on {device.facts.address}"
    launches = InterleavedSchedule(a=a, b=b, looks=looks, judge=judge, repeats=measure.gate.retries, seed=seed)
    first, second = ([workload(one.bundle.artifact, of_side)] for one, of_side in zip(installations, tasks, strict=True))
    return Trial(device=device, sides=sides, tasks=tasks, contents=(first, second), launches=launches)


def _side_launch(
    side: PreparedSide, installation: Installation, tasks: Sequence[TaskAssets], measure: Measure, session: ComparisonSession
) -> SideLaunch:
    comparison_side, bundle = side.comparison_side, installation.bundle.artifact
    counts = {name: count for name, count in item_counts(bundle).items() if name in {task.name for task in tasks}}
    sequence = tuple(name for name in measure.sequence if name in counts)
    return SideLaunch(
        installation=installation,
        launch=LaunchPlan(
            variant=comparison_side.variant,
            launch=0,
            sequence=measurement_sequence(measure.model_copy(update={"sequence": sequence}), counts),
            side=f"{side.letter}: {comparison_side.name}",
        ),
        settings=session.launch_settings(side.run_file.run_id, comparison_side.terms.runtime, measure),
    )


def _judged(tasks: Pair, options: CompareOptions, blocks: Sequence[PairedBlock], looks: Looks) -> tuple[Looks, bool]:
    """Return `(looks, is_over)`: the plan of the interim tests, and whether the comparison of two builds ends after `blocks`."""
    a, b = sides_of_blocks(blocks, *tasks)
    if not _verdicts(a, b, options, looks):
        return looks, True
    if options.to_see and looks == _FIRST and len(blocks) == MIN_BLOCKS:
        planned = versus.replan_looks(a, b, options.to_see)
        if planned is None:
            return replace(_FIRST, margin=options.to_see / 2), True
        looks = planned
    return looks, Verdict.INCONCLUSIVE not in _verdicts(a, b, options, looks) and len(blocks) in looks.at


def _verdicts(a: Side, b: Side, options: CompareOptions, looks: Looks) -> list[Verdict]:
    """Return a list with a Verdict per goal (metric and limit). Without goals, judge image time. Skip unmeasured metrics."""
    if not options.goals:
        verdict = compare_key(a, b, PRIMARY, ALL_TASKS, looks)
        return [verdict.verdict] if verdict else []
    told_goals = [(compare_key(a, b, goal.key, goal.task, looks), goal.limit) for goal in options.goals]
    return [verdict_within(verdict, limit) for verdict, limit in told_goals if verdict]


def _launch(
    sides: Sequence[PreparedSide], plans: Sequence[Trial], session: ComparisonSession, failures: Mapping[str, QuadbenchError]
) -> None:
    """Write run.json of both compared builds, run all launches, and then mark both runs as ended in run.json."""
    for side in sides:
        save_run(session.layout, side.run_file)
    with _save_on_interrupt(sides, plans, session, failures):
        queues = [plan.queue(session) for plan in plans]
        not_run = measure_launches(queues, store=session.store, observer=session.observer, stop=session.recovery.stop)
    for plan in plans:
        rest = not_run.get(plan.device.facts.address)
        if rest and rest.given_up:
            plan.launches.broken = str(rest.given_up)
    retries = tuple(session.retries)
    for run_file in (side.run_file for side in sides):
        change_run(session.layout, run_file.run_id, partial(_ended_run_file, run_file, retries))


def _ended_run_file(run_file: RunFile, retries: tuple[Retry, ...], run: RunFile | None) -> RunFile:
    return replace(run or run_file, is_ended=True, retries=retries)


@contextmanager
def _save_on_interrupt(
    sides: Sequence[PreparedSide], plans: Sequence[Trial], session: ComparisonSession, failures: Mapping[str, QuadbenchError]
) -> Iterator[None]:
    """Run a `with` block. On Ctrl-C, save and log the comparison's results of all complete launch blocks, and raise again."""
    try:
        yield
    except KeyboardInterrupt:
        for plan in plans:
            if not plan.launches.is_over:
                plan.launches.broken = "it was interrupted"
        comparison, layout = _versus(sides, plans, session.work, failures), session.layout
        write_comparison(comparison, layout)
        for device in comparison.devices:
            log.warning("%s", versus.sentence(device))
        log.warning("A: %s; B: %s; comparison: '%s'", comparison.a, comparison.b, write_study_report(comparison, layout))
        raise


def _versus(
    sides: Sequence[PreparedSide], plans: Sequence[Trial], options: CompareOptions, failures: Mapping[str, QuadbenchError]
) -> Versus:
    a, b = sides
    return Versus(
        comparison_id=new_id(),
        a=_side(a.comparison_side, b.comparison_side, a.run_file.run_id),
        b=_side(b.comparison_side, a.comparison_side, b.run_file.run_id),
        to_see=options.to_see,
        devices=tuple(plan.result() for plan in plans),
        failures={address: str(error) for address, error in failures.items()},
    )


def _side(side: SideSpec, other: SideSpec, run_id: str, of: str | None = None) -> VersusSide:
    """Return a build's entry in comparison.json. `of` is the recipe name and swept values of a stored run, None for a new run."""
    own_tasks = tuple(name for name in side.tasks if name not in other.tasks)
    return document_from(VersusSide, side, changes=dict(side.changes), run_id=run_id, of=of, own_tasks=own_tasks)


def _equipped(
    devices: Sequence[Device], sides: Sequence[SideSpec], session: ComparisonSession, left_out: dict[str, QuadbenchError] | None
) -> list[Device]:
    """Return devices that can run both builds. In `left_out`, map other devices' addresses to errors. If it is None, raise."""
    equipped = []
    for device in devices:
        try:
            for side in sides:
                require_equipment([device], session.layout, _overrides(side, session))
            equipped.append(device)
        except QuadbenchError as error:
            if left_out is None:
                raise
            left_out[device.facts.address] = error
    return equipped


def _overrides(side: SideSpec, session: ComparisonSession) -> Overrides:
    """Return a build's Overrides: the user's own harness program, runtime libraries (kit) and compiled graphs, if given."""
    return Overrides(harness=side.harness, kit=side.kit, compiled=session.work.compiled)


def _prepared(letter: str, side: SideSpec, devices: Sequence[Device], session: ComparisonSession) -> PreparedSide:
    profiles = [device.profile.name for device in devices]
    chosen_bundles = side.bundles(profiles, layout=session.layout, observer=session.observer)
    bundles = {profile: ensure_local(bundle, session.layout) for profile, bundle in chosen_bundles.items()}
    for bundle in bundles.values():
        require_variant(side, {graph.variant for graph in bundle.artifact.graphs})
        check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
    rollout = roll_out(
        [bundles[profile] for profile in profiles],
        devices,
        layout=session.layout,
        observer=session.observer,
        runs_float=side.variant is Variant.FLOAT,
        overrides=_overrides(side, session),
        left_out=session.leased.leases.note_left_out,
        recovery=session.recovery,
    )
    is_part = session.work.is_part
    run_file = new_run_file(new_id(), bundles, side.terms, deployments=rollout.deployments, planned={}, is_part=is_part)
    return PreparedSide(letter=letter, comparison_side=side, run_file=run_file, rollout=rollout)


def _of(run: RunResult) -> str:
    """Return a stored run's recipe name and swept values as text, such as `ten-tasks, steps=4`."""
    return ", ".join((run.bundle.recipe_name, *(f"{key.rpartition('.')[2]}={value}" for key, value in run.swept.items())))


def _stored_device(a: SideSpec, b: SideSpec, on_a: DeviceFacts, on_b: DeviceFacts) -> VersusDevice:
    runs = [(one.run, one.variant, device) for one, device in ((a, on_a), (b, on_b)) if one.run]
    records = [
        tuple(record for record in only_ok(run.records) if is_on(record, device) and record.variant is variant)
        for run, variant, device in runs
    ]
    for (run, variant, device), side in zip(runs, records, strict=True):
        if not side:
            known = ", ".join(sorted({record.variant for record in only_ok(run.records) if is_on(record, device)})) or "none"
            hint = f"name a variant with OK launches: {known}"
            raise UserError(f"run {run.run_id} has no OK launch of {variant} on '{on_a.address}'", hint=hint)
    tasks = versus.common_tasks(*(run.bundle_on(device) for run, _, device in runs), wanted=set(a.tasks) & set(b.tasks))
    held = [[workload(run.bundle_on(device), of_side)] for (run, _, device), of_side in zip(runs, tasks, strict=True)]
    first, second = (Side(records=side, tasks=of_side) for side, of_side in zip(records, tasks, strict=True))
    return VersusDevice(
        device=on_a,
        blocks=0,
        looks=None,
        rows=versus.side_rows(on_a, first, second),
        differences=differing_values(*held) | environment_differences(*records),
        caveats=versus.caveats_of(records),
        launches=versus.timed_launches(first, second),
    )
