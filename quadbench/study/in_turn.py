"""In turn: two sides that are installed on a device -> launches A B B A there, and what came of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Self

from quadbench.artifacts import LaunchPlan, Retry, TaskAssets
from quadbench.artifacts.fingerprint import contents, differences, unlike
from quadbench.artifacts.parts import item_counts
from quadbench.devices import Device
from quadbench.errors import DeviceLostError, QuadbenchError
from quadbench.farm.held import Held
from quadbench.harness.installation import Installation
from quadbench.measure import Interleaved, LaunchSettings, PairedBlock, Queue, SideLaunch, Stop, measured_sequence
from quadbench.observer import Observer
from quadbench.pipeline.keeping import Keeping
from quadbench.recipe import Measure
from quadbench.report.versus import (
    ALL_TASKS,
    PRIMARY,
    Pair,
    Side,
    VersusDevice,
    VersusSide,
    caveats_of,
    common_tasks,
    compared,
    interleaved_rows,
    replanned,
    sides_of_blocks,
    timed_launches,
)
from quadbench.results.layout import Layout
from quadbench.results.records import Records
from quadbench.results.stored_runs import RunFile
from quadbench.rollout import Rollout
from quadbench.rollout.recovery import Recovery
from quadbench.statistics import MIN_BLOCKS, Looks, Verdict
from quadbench.statistics.within import verdict_within
from quadbench.study.chosen import Chosen, measured_alike
from quadbench.study.manner import Manner

_FIRST = Looks(at=(MIN_BLOCKS,))  # before there is a spread to plan with


@dataclass(frozen=True, kw_only=True)
class Means:
    """The means of a comparison under way: its manner, the place of its records, and the devices that it has."""

    manner: Manner
    layout: Layout
    observer: Observer
    leases: Held
    records: Records
    retries: list[Retry] = field(default_factory=list)

    @cached_property
    def recovery(self) -> Recovery:
        """Return its patience with devices that are lost."""
        conduct = self.manner.conduct
        return Recovery(
            retries=conduct.retries,
            wait_s=conduct.wait_s,
            confirm=self.leases.confirm,
            note=self._note_retry,
            observer=self.observer,
            stop=Stop(),
        )

    @cached_property
    def keeping(self) -> Keeping:
        """Return the way of its records into the results."""
        return Keeping(
            records=self.records,
            layout=self.layout,
            leases=self.leases,
            observer=self.observer,
            keep_files=self.manner.keep_files,
            guard=self.manner.guard,
        )

    def _note_retry(self, device: Device, retry: Retry) -> None:
        self.leases.note_lost(device, retry.reason)
        self.retries.append(retry)


@dataclass(frozen=True, kw_only=True)
class PreparedSide:
    """A side on its devices, with the file of the run that has its launches."""

    letter: str
    chosen: Chosen
    begun: RunFile
    rollout: Rollout

    @property
    def described(self) -> VersusSide:
        """Return the side as comparison.json has it."""
        chosen = self.chosen
        return VersusSide(source=chosen.source, changes=dict(chosen.changes), variant=chosen.variant, run_id=self.begun.run_id)

    @property
    def installations(self) -> tuple[Installation, ...]:
        """Return the side as it is installed on each device."""
        return self.rollout.installations

    @property
    def failures(self) -> dict[str, QuadbenchError]:
        """Return by address why the side is not on a device."""
        return self.rollout.failures

    def on(self, device: Device) -> Installation | None:
        """Return the side as it is installed on a device; None where it is not."""
        return next((one for one in self.installations if one.device is device), None)


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """Both sides on one device, while they are compared."""

    device: Device
    sides: Sequence[PreparedSide]
    tasks: Pair
    contents: tuple[list[dict[str, str]], list[dict[str, str]]]  # of both sides
    launches: Interleaved

    @classmethod
    def of(cls, device: Device, sides: Sequence[PreparedSide], means: Means) -> Self:
        """Plan the launches of two sides, which run the tasks that both have and are measured alike."""
        installations = [one for side in sides if (one := side.on(device))]
        tasks = common_tasks(*(one.bundle.artifact for one in installations), wanted=_wanted(sides, means.manner))
        measure = measured_alike(*(side.chosen for side in sides))
        a, b = (_side_launch(*of_side, measure, means) for of_side in zip(sides, installations, tasks, strict=True))
        looks, judge = (_FIRST if means.manner.to_see else means.manner.looks), partial(_judged, tasks, means.manner)
        seed = f"{sides[0].begun.run_id} on {device.facts.address}"
        launches = Interleaved(a=a, b=b, looks=looks, judge=judge, repeats=measure.gate.retries, seed=seed)
        first, second = ([contents(one.bundle.artifact, of_side)] for one, of_side in zip(installations, tasks, strict=True))
        return cls(device=device, sides=sides, tasks=tasks, contents=(first, second), launches=launches)

    def queue(self, means: Means) -> Queue:
        """Return the launches to be run, and how the device gets both sides again where it was lost."""

        def installed_again() -> None:
            for side in self.sides:
                side.rollout.again[self.device.facts.address]()

        def regain(lost: DeviceLostError) -> None:
            means.recovery.regained(self.device, lost, installed_again)

        return Queue(device=self.device, turns=self.launches.turns(), regain=regain)

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
            launches=timed_launches(a, b),
        )


def _wanted(sides: Sequence[PreparedSide], manner: Manner) -> set[str]:
    """Return the tasks that both sides run, of those that were asked for, if any were."""
    common = set.intersection(*(set(side.chosen.tasks) for side in sides))
    return common & set(manner.tasks) if manner.tasks else common


def _side_launch(
    side: PreparedSide, installation: Installation, tasks: Sequence[TaskAssets], measure: Measure, means: Means
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
            layout=means.layout,
            runtime=chosen.terms.runtime,
            timeout_s=measure.timeout_s,
            gate=measure.gate,
            confirm=means.leases.confirm,
        ),
    )


def _judged(tasks: Pair, manner: Manner, blocks: Sequence[PairedBlock], looks: Looks) -> tuple[Looks, bool]:
    """Say with which looks to go on, and whether all that was asked for can be told, or nothing ever will."""
    a, b = sides_of_blocks(blocks, *tasks)
    if not _verdicts(a, b, manner, looks):
        return looks, True
    if manner.to_see and looks == _FIRST and len(blocks) == MIN_BLOCKS:
        planned = replanned(a, b, manner.to_see)
        if planned is None:
            return replace(_FIRST, margin=manner.to_see / 2), True
        looks = planned
    return looks, Verdict.INCONCLUSIVE not in _verdicts(a, b, manner, looks) and len(blocks) in looks.at


def _verdicts(a: Side, b: Side, manner: Manner, looks: Looks) -> list[Verdict]:
    """Return what can be told of each goal of which all launches have values; without goals, of the sides."""
    if not manner.goals:
        told = compared(a, b, PRIMARY, ALL_TASKS, looks)
        return [told.verdict] if told else []
    told_goals = [(compared(a, b, goal.key, goal.task, looks), goal.limit) for goal in manner.goals]
    return [verdict_within(told, limit) for told, limit in told_goals if told]
