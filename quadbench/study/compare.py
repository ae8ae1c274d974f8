"""Compare: two sides -> launches in turn on every device, looked at until they can be told apart."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from quadbench.artifacts import Retry, Variant
from quadbench.artifacts.parts import file_refs
from quadbench.devices import Device, connect
from quadbench.errors import QuadbenchError
from quadbench.farm.held import held, require_any
from quadbench.measure import measure_launches
from quadbench.observer import Observer
from quadbench.pipeline.progress import seen_by_others
from quadbench.report.study_documents import write_comparison
from quadbench.report.study_html import write_study_report
from quadbench.report.versus import Versus, sentence
from quadbench.results.bundles import in_results
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, change_run, new_id, new_run_file, save_run
from quadbench.rollout import roll_out
from quadbench.rollout.equipment import Gear, require_equipment
from quadbench.study.chosen import Chosen, measured_alike, require_common_tasks, require_variant
from quadbench.study.in_turn import Means, OnDevice, PreparedSide
from quadbench.study.manner import USUAL_MANNER, Manner

log = logging.getLogger(__name__)


def compare(
    a: Chosen,
    b: Chosen,
    addresses: Sequence[str],
    manner: Manner = USUAL_MANNER,
    *,
    layout: Layout,
    observer: Observer,
) -> Versus:
    """Launch both sides in turn on every device until they can be told apart or the looks are through; write comparison.json.

    Each side's launches are a run of its own. A device that fails is left out and named; one that is lost is waited for.

    Raises:
        QuadbenchError: a side cannot be built or has no task in common with the other, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored in the two runs, and comparison.json has what can be said of it.
    """
    require_common_tasks(a, b, manner.tasks)
    measured_alike(a, b)
    left_out: dict[str, QuadbenchError] | None = {} if manner.conduct.keep_going else None
    with (
        connect(addresses, layout=layout, left_out=left_out) as reached,
        open_records(database_of(layout)) as records,
        held(reached, records.engine, f"comparison of {a.source} and {b.source}", left_out=left_out) as leases,
        seen_by_others(observer, layout, f"comparison of {a.name} and {b.name}") as seen,
    ):
        means = Means(manner=manner, layout=layout, observer=seen, leases=leases, records=records)
        taken = [device for device in reached if device.facts.address in leases.by_address]
        devices = _equipped(taken, (a, b), means, left_out)
        require_any(devices, left_out)
        sides = [_prepared(letter, one, devices, means) for letter, one in (("A", a), ("B", b))]
        failures = {**(left_out or {}), **sides[0].failures, **sides[1].failures}
        shared = [one.device for one in sides[0].installations if sides[1].on(one.device)]
        if not shared:
            raise next(iter(failures.values()))
        plans = [OnDevice.of(device, sides, means) for device in shared]
        _launch(sides, plans, means, failures)
    versus = _versus(sides, plans, manner, failures)
    write_comparison(versus, layout)
    return versus


def _launch(
    sides: Sequence[PreparedSide], plans: Sequence[OnDevice], means: Means, failures: Mapping[str, QuadbenchError]
) -> None:
    """Run all launches, and note in the runs' files that they begin and how they ended."""
    for side in sides:
        save_run(means.layout, side.begun)
    with _told_if_interrupted(sides, plans, means, failures):
        queues = [plan.queue(means) for plan in plans]
        rests = measure_launches(queues, keep=means.keeping.keep, observer=means.observer, stop=means.recovery.stop)
    for plan in plans:
        rest = rests.get(plan.device.facts.address)
        if rest and rest.given_up:
            plan.launches.broken = str(rest.given_up)
    for side in sides:
        end = partial(_ended, side.begun, tuple(means.retries))
        change_run(means.layout, side.begun.run_id, end)


def _ended(begun: RunFile, retries: tuple[Retry, ...], run: RunFile | None) -> RunFile:
    return replace(run or begun, is_ended=True, retries=retries)


@contextmanager
def _told_if_interrupted(
    sides: Sequence[PreparedSide], plans: Sequence[OnDevice], means: Means, failures: Mapping[str, QuadbenchError]
) -> Iterator[None]:
    """On Ctrl-C, write what the whole blocks come to, and say where it lies."""
    try:
        yield
    except KeyboardInterrupt:
        for plan in plans:
            if not plan.launches.is_over:
                plan.launches.broken = "it was interrupted"
        versus, layout = _versus(sides, plans, means.manner, failures), means.layout
        write_comparison(versus, layout)
        for device in versus.devices:
            log.warning("%s", sentence(device))
        log.warning("A: %s; B: %s; '%s' has the comparison", versus.a, versus.b, write_study_report(versus, layout))
        raise


def _versus(
    sides: Sequence[PreparedSide], plans: Sequence[OnDevice], manner: Manner, failures: Mapping[str, QuadbenchError]
) -> Versus:
    tasks = [side.chosen.tasks for side in sides]
    a, b = (
        replace(side.described, own_tasks=tuple(name for name in own if name not in others))
        for side, own, others in zip(sides, tasks, reversed(tasks), strict=True)
    )
    return Versus(
        comparison_id=new_id(),
        a=a,
        b=b,
        to_see=manner.to_see,
        devices=tuple(plan.compared() for plan in plans),
        failures={address: str(error) for address, error in failures.items()},
    )


def _equipped(
    devices: Sequence[Device], sides: Sequence[Chosen], means: Means, left_out: dict[str, QuadbenchError] | None
) -> list[Device]:
    """Return the devices that can run both sides; without `left_out`, each must.

    Raises:
        QuadbenchError: what the first device lacks that cannot, unless it is left out.
    """
    equipped = []
    for device in devices:
        try:
            for side in sides:
                require_equipment([device], means.layout, _gear(side, means))
            equipped.append(device)
        except QuadbenchError as error:
            if left_out is None:
                raise
            left_out[device.facts.address] = error
    return equipped


def _gear(side: Chosen, means: Means) -> Gear:
    """Return what devices take for a side, with what was compiled elsewhere."""
    return replace(side.gear, compiled=means.manner.compiled)


def _prepared(letter: str, chosen: Chosen, devices: Sequence[Device], means: Means) -> PreparedSide:
    profiles = [device.profile.name for device in devices]
    chosen_bundles = chosen.bundles(profiles, layout=means.layout, observer=means.observer)
    bundles = {profile: in_results(bundle, means.layout) for profile, bundle in chosen_bundles.items()}
    for bundle in bundles.values():
        require_variant(chosen, {graph.variant for graph in bundle.artifact.graphs})
        check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
    rollout = roll_out(
        [bundles[profile] for profile in profiles],
        devices,
        layout=means.layout,
        observer=means.observer,
        runs_float=chosen.variant is Variant.FLOAT,
        gear=_gear(chosen, means),
        left_out=means.leases.note_left_out,
        recovery=means.recovery,
    )
    is_part = means.manner.is_part
    begun = new_run_file(new_id(), bundles, chosen.terms, deployments=rollout.deployments, planned={}, is_part=is_part)
    return PreparedSide(letter=letter, chosen=chosen, begun=begun, rollout=rollout)
