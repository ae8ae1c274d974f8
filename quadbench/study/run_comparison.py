"""Comparison of two sides: interleaved launches (A B B A) until there is a verdict, or figures of two stored runs."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from quadbench.artifacts import DeviceFacts, LaunchPlan, Retry, RunResult, TaskAssets, Variant
from quadbench.artifacts.night_record import contents, differences, unlike
from quadbench.artifacts.run_record import file_refs, item_counts
from quadbench.devices import Address, Device
from quadbench.errors import DeviceLostError, QuadbenchError, UserError
from quadbench.farm.held import require_any
from quadbench.harness.installation import Installation
from quadbench.measure.launch_schedule import Interleaved, PairedBlock, SideLaunch, measured_sequence
from quadbench.measure.parallel_launches import Queue, measure_launches
from quadbench.observer import Observer
from quadbench.pipeline.progress_observer import seen_by_others
from quadbench.pipeline.session import Session, lab_of
from quadbench.recipe import Measure
from quadbench.report import versus
from quadbench.report.html import write_study_report
from quadbench.report.launches import is_on, sound
from quadbench.report.run_line import write_comparison
from quadbench.report.versus import ALL_TASKS, PRIMARY, Pair, Side, Versus, VersusDevice, VersusSide, compared, sides_of_blocks
from quadbench.results.bundles import in_results
from quadbench.results.documents import document_from
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.results.stored_runs import RunFile, change_run, new_id, new_run_file, save_run
from quadbench.rollout import Rollout, roll_out
from quadbench.rollout.equipment import Gear, require_equipment
from quadbench.statistics import MIN_BLOCKS, Looks, Verdict
from quadbench.statistics.launch_comparison import verdict_within
from quadbench.study.comparison_side import USUAL_MANNER, Chosen, Manner, measured_alike, require_common_tasks, require_variant

ComparisonSession = Session[Manner]

_FIRST = Looks(at=(MIN_BLOCKS,))  # until the first blocks give a spread for planning

log = logging.getLogger(__name__)


def compare(
    a: Chosen,
    b: Chosen,
    addresses: Sequence[Address],
    manner: Manner = USUAL_MANNER,
    *,
    layout: Layout,
    observer: Observer,
) -> Versus:
    """Interleave launches of both sides on every device until there is a verdict or the last look; write comparison.json.

    The launches of each side are a run of their own. A device that fails is left out and named; the command waits for a lost
    one.

    Raises:
        QuadbenchError: a side cannot be built, the sides have no common task, or every device failed.
        KeyboardInterrupt: Ctrl-C was pressed. Both runs are stored, and comparison.json has the result so far.
    """
    require_common_tasks(a, b, manner.tasks)
    measured_alike(a, b)
    with (
        lab_of(addresses, f"comparison of {a.source} and {b.source}", manner.conduct, layout=layout) as lab,
        seen_by_others(observer, layout, f"comparison of {a.name} and {b.name}") as seen,
    ):
        session = ComparisonSession(work=manner, lab=lab, observer=seen)
        devices = _equipped(lab.devices, (a, b), session, lab.left_out)
        require_any(devices, lab.left_out)
        sides = [_prepared(letter, one, devices, session) for letter, one in (("A", a), ("B", b))]
        failures = {**(lab.left_out or {}), **sides[0].rollout.failures, **sides[1].rollout.failures}
        shared = [one.device for one in sides[0].rollout.installations if sides[1].on(one.device)]
        if not shared:
            raise next(iter(failures.values()))
        plans = [_planned(device, sides, session) for device in shared]
        _launch(sides, plans, session, failures)
    told = _versus(sides, plans, manner, failures)
    write_comparison(told, layout)
    return told


def compare_stored(a: Chosen, b: Chosen) -> Versus:
    """Compare two stored runs. Their launches were not interleaved, so there are no verdicts.

    Raises:
        UserError: a side is no run or has changes that need launches, both are the same launches, or no device or task is common.
    """
    if a.run is None or b.run is None:
        which = a.source if a.run is None else b.source
        raise UserError(f"'{which}' is no stored run, so it has to be measured", hint="name the devices: --devices local")
    for side in (a, b):
        if side.harness or side.kit:
            raise UserError("a stored run ran with its own harness and kit", hint="name devices to measure it again with others")
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
    """A side installed on its devices, with the run file for its launches."""

    letter: str
    chosen: Chosen
    begun: RunFile
    rollout: Rollout

    def on(self, device: Device) -> Installation | None:
        """Return the side's installation on a device; None if there is none."""
        return next((one for one in self.rollout.installations if one.device is device), None)


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """The comparison of both sides on one device while it runs."""

    device: Device
    sides: Sequence[PreparedSide]
    tasks: Pair
    contents: tuple[list[dict[str, str]], list[dict[str, str]]]  # of both sides
    launches: Interleaved

    def queue(self, session: ComparisonSession) -> Queue:
        """Return the launches to run, and a function that reinstalls both sides after the device was lost."""

        def installed_again() -> None:
            for side in self.sides:
                side.rollout.again[self.device.facts.address]()

        def regain(lost: DeviceLostError) -> None:
            session.recovery.regained(self.device, lost, installed_again)

        return Queue(device=self.device, turns=self.launches.turns(), regain=regain)

    def compared(self) -> VersusDevice:
        """Return the result of the comparison on this device."""
        facts, blocks, looks = self.device.facts, self.launches.blocks, self.launches.looks
        a, b = sides_of_blocks(blocks, *self.tasks)
        return VersusDevice(
            device=facts,
            blocks=len(blocks),
            looks=looks,
            rows=versus.interleaved_rows(facts, a, b, looks),
            differences=unlike(*self.contents) | differences(a.records, b.records),
            caveats=versus.caveats_of((a.records, b.records)),
            broken=self.launches.broken,
            launches=versus.timed_launches(a, b),
        )


def _planned(device: Device, sides: Sequence[PreparedSide], session: ComparisonSession) -> OnDevice:
    """Plan the launches of both sides on a device, with their common tasks and the same measurement settings."""
    installations = [one for side in sides if (one := side.on(device))]
    wanted = set.intersection(*(set(side.chosen.tasks) for side in sides))
    if session.work.tasks:
        wanted &= set(session.work.tasks)
    tasks = versus.common_tasks(*(one.bundle.artifact for one in installations), wanted=wanted)
    measure = measured_alike(*(side.chosen for side in sides))
    a, b = (_side_launch(*of_side, measure, session) for of_side in zip(sides, installations, tasks, strict=True))
    looks, judge = (_FIRST if session.work.to_see else session.work.looks), partial(_judged, tasks, session.work)
    seed = f"{sides[0].begun.run_id} on {device.facts.address}"
    launches = Interleaved(a=a, b=b, looks=looks, judge=judge, repeats=measure.gate.retries, seed=seed)
    first, second = ([contents(one.bundle.artifact, of_side)] for one, of_side in zip(installations, tasks, strict=True))
    return OnDevice(device=device, sides=sides, tasks=tasks, contents=(first, second), launches=launches)


def _side_launch(
    side: PreparedSide, installation: Installation, tasks: Sequence[TaskAssets], measure: Measure, session: ComparisonSession
) -> SideLaunch:
    chosen, bundle = side.chosen, installation.bundle.artifact
    counts = {name: count for name, count in item_counts(bundle).items() if name in {task.name for task in tasks}}
    sequence = tuple(name for name in measure.sequence if name in counts)
    return SideLaunch(
        installation=installation,
        launch=LaunchPlan(
            variant=chosen.variant,
            launch=0,
            sequence=measured_sequence(measure.model_copy(update={"sequence": sequence}), counts),
            side=f"{side.letter}: {chosen.name}",
        ),
        settings=session.launch_settings(side.begun.run_id, chosen.terms.runtime, measure),
    )


def _judged(tasks: Pair, manner: Manner, blocks: Sequence[PairedBlock], looks: Looks) -> tuple[Looks, bool]:
    """Return the looks to continue with, and whether the comparison may end: all goals decided, or nothing to decide."""
    a, b = sides_of_blocks(blocks, *tasks)
    if not _verdicts(a, b, manner, looks):
        return looks, True
    if manner.to_see and looks == _FIRST and len(blocks) == MIN_BLOCKS:
        planned = versus.replanned(a, b, manner.to_see)
        if planned is None:
            return replace(_FIRST, margin=manner.to_see / 2), True
        looks = planned
    return looks, Verdict.INCONCLUSIVE not in _verdicts(a, b, manner, looks) and len(blocks) in looks.at


def _verdicts(a: Side, b: Side, manner: Manner, looks: Looks) -> list[Verdict]:
    """Return the verdict on each goal with values in all launches; without goals, the verdict on image time."""
    if not manner.goals:
        told = compared(a, b, PRIMARY, ALL_TASKS, looks)
        return [told.verdict] if told else []
    told_goals = [(compared(a, b, goal.key, goal.task, looks), goal.limit) for goal in manner.goals]
    return [verdict_within(told, limit) for told, limit in told_goals if told]


def _launch(
    sides: Sequence[PreparedSide], plans: Sequence[OnDevice], session: ComparisonSession, failures: Mapping[str, QuadbenchError]
) -> None:
    """Run all launches, and write their beginning and end to the files of both runs."""
    for side in sides:
        save_run(session.layout, side.begun)
    with _told_if_interrupted(sides, plans, session, failures):
        queues = [plan.queue(session) for plan in plans]
        rests = measure_launches(queues, keep=session.keep, observer=session.observer, stop=session.recovery.stop)
    for plan in plans:
        rest = rests.get(plan.device.facts.address)
        if rest and rest.given_up:
            plan.launches.broken = str(rest.given_up)
    retries = tuple(session.retries)
    for begun in (side.begun for side in sides):
        change_run(session.layout, begun.run_id, partial(_ended, begun, retries))


def _ended(begun: RunFile, retries: tuple[Retry, ...], run: RunFile | None) -> RunFile:
    return replace(run or begun, is_ended=True, retries=retries)


@contextmanager
def _told_if_interrupted(
    sides: Sequence[PreparedSide], plans: Sequence[OnDevice], session: ComparisonSession, failures: Mapping[str, QuadbenchError]
) -> Iterator[None]:
    """On Ctrl-C, write the result of the complete blocks, and log the path."""
    try:
        yield
    except KeyboardInterrupt:
        for plan in plans:
            if not plan.launches.is_over:
                plan.launches.broken = "it was interrupted"
        told, layout = _versus(sides, plans, session.work, failures), session.layout
        write_comparison(told, layout)
        for device in told.devices:
            log.warning("%s", versus.sentence(device))
        log.warning("A: %s; B: %s; '%s' has the comparison", told.a, told.b, write_study_report(told, layout))
        raise


def _versus(
    sides: Sequence[PreparedSide], plans: Sequence[OnDevice], manner: Manner, failures: Mapping[str, QuadbenchError]
) -> Versus:
    a, b = sides
    return Versus(
        comparison_id=new_id(),
        a=_side(a.chosen, b.chosen, a.begun.run_id),
        b=_side(b.chosen, a.chosen, b.begun.run_id),
        to_see=manner.to_see,
        devices=tuple(plan.compared() for plan in plans),
        failures={address: str(error) for address, error in failures.items()},
    )


def _side(chosen: Chosen, other: Chosen, run_id: str, of: str | None = None) -> VersusSide:
    """Return a side of a comparison for comparison.json. `of` names the recipe or bundle of a stored run."""
    own_tasks = tuple(name for name in chosen.tasks if name not in other.tasks)
    return document_from(VersusSide, chosen, changes=dict(chosen.changes), run_id=run_id, of=of, own_tasks=own_tasks)


def _equipped(
    devices: Sequence[Device], sides: Sequence[Chosen], session: ComparisonSession, left_out: dict[str, QuadbenchError] | None
) -> list[Device]:
    """Return the devices that can run both sides. Without `left_out`, a device that cannot raises an error."""
    equipped = []
    for device in devices:
        try:
            for side in sides:
                require_equipment([device], session.layout, _gear(side, session))
            equipped.append(device)
        except QuadbenchError as error:
            if left_out is None:
                raise
            left_out[device.facts.address] = error
    return equipped


def _gear(side: Chosen, session: ComparisonSession) -> Gear:
    """Return the harness and kit of a side, with graphs that were compiled elsewhere."""
    return Gear(harness=side.harness, kit=side.kit, compiled=session.work.compiled)


def _prepared(letter: str, chosen: Chosen, devices: Sequence[Device], session: ComparisonSession) -> PreparedSide:
    profiles = [device.profile.name for device in devices]
    chosen_bundles = chosen.bundles(profiles, layout=session.layout, observer=session.observer)
    bundles = {profile: in_results(bundle, session.layout) for profile, bundle in chosen_bundles.items()}
    for bundle in bundles.values():
        require_variant(chosen, {graph.variant for graph in bundle.artifact.graphs})
        check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
    rollout = roll_out(
        [bundles[profile] for profile in profiles],
        devices,
        layout=session.layout,
        observer=session.observer,
        runs_float=chosen.variant is Variant.FLOAT,
        gear=_gear(chosen, session),
        left_out=session.lab.leases.note_left_out,
        recovery=session.recovery,
    )
    is_part = session.work.is_part
    begun = new_run_file(new_id(), bundles, chosen.terms, deployments=rollout.deployments, planned={}, is_part=is_part)
    return PreparedSide(letter=letter, chosen=chosen, begun=begun, rollout=rollout)


def _of(run: RunResult) -> str:
    """Return a run's recipe with the values that a sweep set in it."""
    return ", ".join((run.bundle.recipe_name, *(f"{key.rpartition('.')[2]}={value}" for key, value in run.swept.items())))


def _stored_device(a: Chosen, b: Chosen, on_a: DeviceFacts, on_b: DeviceFacts) -> VersusDevice:
    runs = [(one.run, one.variant, device) for one, device in ((a, on_a), (b, on_b)) if one.run]
    records = [
        tuple(record for record in sound(run.records) if is_on(record, device) and record.variant is variant)
        for run, variant, device in runs
    ]
    for (run, variant, _), side in zip(runs, records, strict=True):
        if not side:
            hint = f"it has: {', '.join(sorted({record.variant for record in sound(run.records)})) or 'none'}"
            raise UserError(f"run {run.run_id} has no sound launch of {variant} on '{on_a.address}'", hint=hint)
    tasks = versus.common_tasks(*(run.bundle_on(device) for run, _, device in runs), wanted=set(a.tasks) & set(b.tasks))
    held = [[contents(run.bundle_on(device), of_side)] for (run, _, device), of_side in zip(runs, tasks, strict=True)]
    first, second = (Side(records=side, tasks=of_side) for side, of_side in zip(records, tasks, strict=True))
    return VersusDevice(
        device=on_a,
        blocks=0,
        looks=None,
        rows=versus.side_rows(on_a, first, second),
        differences=unlike(*held) | differences(*records),
        caveats=versus.caveats_of(records),
        launches=versus.timed_launches(first, second),
    )
