"""Compare: two sides -> launches in turn on every device, looked at until they can be told apart."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from quadbench.artifacts import LaunchPlan, RunRecord, TaskAssets, Variant
from quadbench.artifacts.fingerprint import contents, differences, unlike
from quadbench.artifacts.parts import file_refs, item_counts
from quadbench.devices import Device, connect
from quadbench.errors import QuadbenchError
from quadbench.farm.held import Held, held
from quadbench.harness.installation import Installation
from quadbench.measure import (
    Interleaved,
    LaunchSettings,
    PairedBlock,
    Queue,
    SideLaunch,
    measure_launches,
    measured_sequence,
)
from quadbench.observer import Observer
from quadbench.recipe import Measure
from quadbench.report.sides import Pair, common_tasks, interleaved_rows, primary, replanned, sides_of_blocks
from quadbench.report.versus import Versus, VersusDevice, VersusSide, caveats_of, sentence
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.results.records import Records, open_records
from quadbench.results.runs import RunFile, keep_record, new_id, new_run_file, save_run
from quadbench.rollout import roll_out
from quadbench.rollout.equipment import require_equipment
from quadbench.statistics import LOOKS, MIN_BLOCKS, Looks, Verdict
from quadbench.study.chosen import Chosen, measured_alike, require_common_tasks, require_variant

log = logging.getLogger(__name__)

_FIRST = Looks(at=(MIN_BLOCKS,))  # before there is a spread to plan with


def compare(
    a: Chosen, b: Chosen, addresses: Sequence[str], *, to_see: float | None = None, layout: Layout, observer: Observer
) -> Versus:
    """Launch both sides in turn on every device until they can be told apart or the looks are through; write comparison.json.

    Each side's launches are a run of its own. With `to_see`, an effect such as 0.03, the number of blocks follows from the spread
    of the first ones. A device that fails is left out and named.

    Raises:
        QuadbenchError: a side cannot be built or has no task in common with the other, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored in the two runs, and comparison.json has what can be said of it.
    """
    require_common_tasks(a, b)
    measured_alike(a, b)
    with (
        connect(addresses, layout=layout) as devices,
        open_records(database_of(layout)) as records,
        held(devices, records.engine, f"comparison of {a.source} and {b.source}") as leases,
    ):
        for chosen in (a, b):
            require_equipment(devices, layout, chosen.gear)
        sides = [_prepared(letter, one, devices, layout, observer, leases) for letter, one in (("A", a), ("B", b))]
        failures = sides[0].failures | sides[1].failures
        shared = [one.device for one in sides[0].installations if sides[1].on(one.device)]
        if not shared:
            raise next(iter(failures.values()))
        plans = [_OnDevice.of(device, sides, to_see, layout, leases) for device in shared]
        for side in sides:
            save_run(layout, side.begun)
        queues = [Queue(device=plan.device, turns=plan.launches.turns()) for plan in plans]
        with _told_if_interrupted(sides, plans, to_see, layout):
            measure_launches(queues, keep=partial(_keep, records, layout, leases, observer), observer=observer)
        for side in sides:
            save_run(layout, replace(side.begun, is_ended=True))
    versus = _versus(sides, plans, to_see, failures)
    versus.write(layout)
    return versus


@contextmanager
def _told_if_interrupted(
    sides: Sequence["_Prepared"], plans: Sequence["_OnDevice"], to_see: float | None, layout: Layout
) -> Iterator[None]:
    """On Ctrl-C, write what the whole blocks come to, and say where it lies."""
    try:
        yield
    except KeyboardInterrupt:
        for plan in plans:
            plan.launches.broken = "it was interrupted"
        versus = _versus(sides, plans, to_see, {})
        versus.write(layout)
        for device in versus.devices:
            log.warning("%s", sentence(device))
        log.warning("A: %s; B: %s; '%s' has the comparison", versus.a, versus.b, layout.comparison(versus.comparison_id))
        raise


def _versus(
    sides: Sequence["_Prepared"], plans: Sequence["_OnDevice"], to_see: float | None, failures: Mapping[str, QuadbenchError]
) -> Versus:
    return Versus(
        comparison_id=new_id(),
        a=sides[0].described,
        b=sides[1].described,
        to_see=to_see,
        devices=tuple(plan.compared() for plan in plans),
        failures={address: str(error) for address, error in failures.items()},
    )


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A side on its devices, with the file of the run that has its launches."""

    letter: str
    chosen: Chosen
    begun: RunFile
    installations: tuple[Installation, ...]
    failures: dict[str, QuadbenchError]

    @property
    def described(self) -> VersusSide:
        chosen = self.chosen
        return VersusSide(source=chosen.source, changes=dict(chosen.changes), variant=chosen.variant, run_id=self.begun.run_id)

    def on(self, device: Device) -> Installation | None:
        return next((one for one in self.installations if one.device is device), None)


def _prepared(
    letter: str, chosen: Chosen, devices: Sequence[Device], layout: Layout, observer: Observer, leases: Held
) -> _Prepared:
    profiles = [device.profile.name for device in devices]
    bundles = chosen.bundles(profiles, layout=layout, observer=observer)
    for bundle in bundles.values():
        require_variant(chosen, bundle.artifact)
        check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
    rollout = roll_out(
        [bundles[profile] for profile in profiles],
        devices,
        layout=layout,
        observer=observer,
        runs_float=chosen.variant is Variant.FLOAT,
        gear=chosen.gear,
        left_out=leases.note_left_out,
    )
    begun = new_run_file(new_id(), bundles, chosen.terms, deployments=rollout.deployments, planned={})
    return _Prepared(letter=letter, chosen=chosen, begun=begun, installations=rollout.installations, failures=rollout.failures)


@dataclass(frozen=True, kw_only=True)
class _OnDevice:
    """Both sides on one device, while they are compared."""

    device: Device
    tasks: Pair
    contents: tuple[list[dict[str, str]], list[dict[str, str]]]  # of both sides
    launches: Interleaved

    @classmethod
    def of(cls, device: Device, sides: Sequence[_Prepared], to_see: float | None, layout: Layout, leases: Held) -> Self:
        """Plan the launches of two sides, which run the tasks that both have and are measured alike."""
        installations = [one for side in sides if (one := side.on(device))]
        tasks = common_tasks(*(one.bundle.artifact for one in installations))
        measure = measured_alike(*(side.chosen for side in sides))
        a, b = (_side_launch(*of_side, measure, layout, leases) for of_side in zip(sides, installations, tasks, strict=True))
        looks, judge = (_FIRST if to_see else LOOKS), partial(_judged, tasks, to_see)
        launches = Interleaved(a=a, b=b, looks=looks, judge=judge, retries=measure.gate.retries)
        first, second = ([contents(one.bundle.artifact, of_side)] for one, of_side in zip(installations, tasks, strict=True))
        return cls(device=device, tasks=tasks, contents=(first, second), launches=launches)

    def compared(self) -> VersusDevice:
        """Return what came of it."""
        facts, blocks, looks = self.device.facts, self.launches.blocks, self.launches.looks
        a, b = sides_of_blocks(blocks, *self.tasks)
        return VersusDevice(
            device=facts,
            blocks=len(blocks),
            looks=looks,
            rows=interleaved_rows(facts, a, b, looks),
            differences=unlike(*self.contents) | differences(a.records, b.records),
            caveats=caveats_of((a.records, b.records)),
            broken=self.launches.broken,
        )


def _side_launch(
    side: _Prepared, installation: Installation, tasks: Sequence[TaskAssets], measure: Measure, layout: Layout, leases: Held
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
        settings=LaunchSettings(
            run_id=side.begun.run_id,
            layout=layout,
            runtime=chosen.terms.runtime,
            timeout_s=measure.timeout_s,
            gate=measure.gate,
            confirm=leases.confirm,
        ),
    )


def _judged(tasks: Pair, to_see: float | None, blocks: Sequence[PairedBlock], looks: Looks) -> tuple[Looks, bool]:
    """Say with which looks to go on, and whether the sides can be told apart, or not at all."""
    a, b = sides_of_blocks(blocks, *tasks)
    if primary(a, b, looks) is None:
        return looks, True
    if to_see and looks == _FIRST and len(blocks) == MIN_BLOCKS:
        planned = replanned(a, b, to_see)
        if planned is None:
            return replace(_FIRST, margin=to_see / 2), True
        looks = planned
    compared = primary(a, b, looks)
    is_told = compared is not None and compared.verdict is not Verdict.INCONCLUSIVE
    return looks, is_told and len(blocks) in looks.at


def _keep(records: Records, layout: Layout, leases: Held, observer: Observer, record: RunRecord) -> None:
    keep_record(records, record, layout, leases.guard(record.device.address))
    leases.note_record(record)
    observer.record(record)
