"""Compare: two sides, each a recipe, a bundle or a run with what is changed of it -> launches in turn, and verdicts at looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from quadbench import pipeline
from quadbench.artifacts import Bundle, Caveat, DeviceFacts, LaunchPlan, RunRecord, RunResult, Stored, TaskAssets, Variant
from quadbench.artifacts.fingerprint import differences
from quadbench.artifacts.parts import file_refs, item_counts
from quadbench.devices import Device, connect
from quadbench.errors import QuadbenchError, UnknownNameError, UserError
from quadbench.farm.held import Held, held
from quadbench.farm.inventory import Inventory
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
from quadbench.recipe import Gate, Measure, Recipe, Runtime, load_recipe
from quadbench.report.compared import Compared, ComparedDevice, ComparedSide
from quadbench.report.launches import devices_of, is_on, sound
from quadbench.report.sides import Side, interleaved_rows, primary, replanned, side_rows, sides_of_blocks
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import MANIFEST, check_contents, read_manifest
from quadbench.results.records import Records, open_records
from quadbench.results.runs import RunFile, keep_record, load_run, new_id, new_run_file, save_run
from quadbench.rollout import roll_out
from quadbench.rollout.equipment import require_equipment, require_gear
from quadbench.spec import is_file, read_value
from quadbench.statistics import LOOKS, MIN_BLOCKS, Looks, Verdict

_OWN = ("variant", "harness", "kit")  # what a side may change beside the keys of a recipe
_FIRST = Looks(at=(MIN_BLOCKS,))  # before there is a spread to plan with

Pair = tuple[tuple[TaskAssets, ...], tuple[TaskAssets, ...]]  # the tasks that both sides run, as each has them


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A side as it was chosen: what it is, and what is changed of it, by key. Exactly one of recipe, bundle and run is there."""

    source: str
    changes: Mapping[str, str]
    recipe: Recipe | None = None
    bundle: Stored[Bundle] | None = None
    run: RunResult | None = None
    variant: Variant = Variant.SHARED
    harness: Path | None = None
    kit: str | None = None

    @property
    def measure(self) -> Measure:
        """Return what of a recipe says how it is measured."""
        return self.recipe.measure if self.recipe else Measure()

    @property
    def runtime(self) -> Runtime:
        """Return the threads and the memory; those of a bundle or a run are every default."""
        return self.recipe.runtime if self.recipe else Runtime()

    def bundles(self, profiles: Sequence[str], *, layout: Layout, observer: Observer) -> dict[str, Stored[Bundle]]:
        """Return for each profile the bundle that its devices run, which is built if it has to be."""
        if self.recipe:
            return pipeline.built_for(self.recipe, profiles, layout=layout, observer=observer)
        stored = self.bundle or (self.run.stored if self.run else None)
        others = self.run.others if self.run else {}
        return {profile: bundle for profile in profiles if (bundle := others.get(profile, stored))}


def choose(source: str, changes: Mapping[str, str], layout: Layout) -> Chosen:
    """Read a side: a recipe with changes to its keys, the folder of a bundle, or the id of a run.

    Raises:
        UserError: the source is none of them, or a change does not fit it.
        ArtifactError: the bundle or the run is damaged.
    """
    own = {key: changes[key] for key in _OWN if key in changes}
    of_recipe = {key: read_value(value) for key, value in changes.items() if key not in _OWN}
    chosen = Chosen(
        source=source,
        changes=dict(changes),
        variant=_variant(own.get("variant", Variant.SHARED.value)),
        harness=Path(own["harness"]) if "harness" in own else None,
        kit=own.get("kit"),
    )
    is_bundle = is_file(Path(source) / MANIFEST)
    is_run = not is_bundle and _is_run(source, layout)
    if (is_bundle or is_run) and of_recipe:
        what = "bundle" if is_bundle else "run"
        raise UserError(
            f"'{source}' is a {what}, and {next(iter(of_recipe))} is a key of a recipe",
            hint=f"name the recipe instead; of a {what} {', '.join(_OWN)} can be changed",
        )
    if is_bundle:
        return replace(chosen, bundle=read_manifest(Path(source), Bundle))
    return replace(chosen, run=load_run(layout, source)) if is_run else replace(chosen, recipe=load_recipe(source, of_recipe))


def compare(
    a: Chosen, b: Chosen, addresses: Sequence[str], *, to_see: float | None = None, layout: Layout, observer: Observer
) -> Compared:
    """Launch both sides in turn on every device until they can be told apart or the looks are through; write comparison.json.

    Each side's launches are a run of its own. With `to_see`, an effect such as 0.03, the number of blocks follows from the spread
    of the first ones. A device that fails is left out and named.

    Raises:
        QuadbenchError: a side cannot be built or has no task in common with the other, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored in the two runs.
    """
    with (
        connect(addresses, layout=layout) as devices,
        open_records(database_of(layout)) as records,
        held(devices, records.engine, f"comparison of {a.source} and {b.source}") as leases,
    ):
        Inventory(records.engine).require_usable(devices)
        require_equipment(devices, layout)
        for chosen in (a, b):
            require_gear(devices, layout, harness=chosen.harness, kit=chosen.kit)
        sides = [_prepared(one, devices, layout, observer) for one in (a, b)]
        shared = [one.device for one in sides[0].installations if sides[1].on(one.device)]
        failures = sides[0].failures | sides[1].failures
        if not shared:
            raise next(iter(failures.values()))
        plans = [_OnDevice.of(device, sides, to_see, layout, leases) for device in shared]
        for side in sides:
            save_run(layout, side.begun)
        queues = [Queue(device=plan.device, turns=plan.launches.turns()) for plan in plans]
        measure_launches(queues, keep=partial(_keep, records, layout, leases, observer), observer=observer)
        for side in sides:
            save_run(layout, replace(side.begun, is_ended=True))
    compared = Compared(
        comparison_id=new_id(),
        a=sides[0].described,
        b=sides[1].described,
        to_see=to_see,
        devices=tuple(plan.compared() for plan in plans),
        failures={address: str(error) for address, error in failures.items()},
    )
    compared.write(layout)
    return compared


def compare_stored(a: Chosen, b: Chosen, *, layout: Layout) -> Compared:
    """Put two stored runs beside each other. They were measured at different times, so that there are no verdicts.

    Raises:
        UserError: a side is no run, or the runs have no device, by address, or no task in common.
    """
    if a.run is None or b.run is None:
        which = a.source if a.run is None else b.source
        raise UserError(f"'{which}' is no stored run, so it has to be measured", hint="name the devices: --devices local")
    devices = {device.address: device for device in devices_of(a.run)}
    others = {device.address: device for device in devices_of(b.run)}
    common = [address for address in devices if address in others]
    if not common:
        raise UserError(f"the runs have no device in common: {', '.join(devices)}; {', '.join(others)}")
    sides = [ComparedSide(source=one.source, changes={}, variant=one.variant, run_id=one.source) for one in (a, b)]
    return Compared(
        comparison_id=new_id(),
        a=sides[0],
        b=sides[1],
        to_see=None,
        devices=tuple(_stored_device(a, b, devices[address], others[address]) for address in common),
        failures={},
    )


def _stored_device(a: Chosen, b: Chosen, on_a: DeviceFacts, on_b: DeviceFacts) -> ComparedDevice:
    runs = [(one.run, one.variant, device) for one, device in ((a, on_a), (b, on_b)) if one.run]
    records = [
        tuple(record for record in sound(run.records) if is_on(record, device) and record.variant is variant)
        for run, variant, device in runs
    ]
    for (run, variant, _), side in zip(runs, records, strict=True):
        if not side:
            there = ", ".join(sorted({record.variant for record in sound(run.records)}))
            raise UserError(
                f"run {run.run_id} has no sound launch of {variant} on '{on_a.address}'", hint=f"it has: {there or 'none'}"
            )
    tasks = common_tasks(*(run.bundle_on(device) for run, _, device in runs))
    first, second = (Side(records=side, tasks=of_side) for side, of_side in zip(records, tasks, strict=True))
    return ComparedDevice(
        device=on_a,
        blocks=0,
        looks=None,
        rows=side_rows(on_a, first, second),
        differences=differences(*records),
        caveats=_caveats(records),
    )


def common_tasks(a: Bundle, b: Bundle) -> Pair:
    """Return the tasks that two bundles have by name, as each has them, in A's order.

    Raises:
        UserError: there are none.
    """
    others = {task.name: task for task in b.tasks}
    common = tuple(task for task in a.tasks if task.name in others)
    if not common:
        names = ", ".join(task.name for task in a.tasks), ", ".join(others)
        raise UserError(f"the sides have no task in common: A has {names[0]}; B has {names[1]}")
    return common, tuple(others[task.name] for task in common)


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A side on its devices, with the file of the run that has its launches."""

    chosen: Chosen
    begun: RunFile
    installations: tuple[Installation, ...]
    failures: dict[str, QuadbenchError]

    @property
    def described(self) -> ComparedSide:
        chosen = self.chosen
        return ComparedSide(source=chosen.source, changes=dict(chosen.changes), variant=chosen.variant, run_id=self.begun.run_id)

    def on(self, device: Device) -> Installation | None:
        return next((one for one in self.installations if one.device is device), None)


def _prepared(chosen: Chosen, devices: Sequence[Device], layout: Layout, observer: Observer) -> _Prepared:
    profiles = [device.profile.name for device in devices]
    bundles = chosen.bundles(profiles, layout=layout, observer=observer)
    for bundle in bundles.values():
        _require_variant(chosen, bundle.artifact)
        check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
    rollout = roll_out(
        [bundles[profile] for profile in profiles],
        devices,
        layout=layout,
        observer=observer,
        runs_float=chosen.variant is Variant.FLOAT,
        harness=chosen.harness,
        kit=chosen.kit,
    )
    begun = new_run_file(new_id(), bundles, deployments=rollout.deployments, published=None, planned={})
    return _Prepared(chosen=chosen, begun=begun, installations=rollout.installations, failures=rollout.failures)


@dataclass(frozen=True, kw_only=True)
class _OnDevice:
    """Both sides on one device, while they are compared."""

    device: Device
    tasks: Pair
    launches: Interleaved

    @classmethod
    def of(cls, device: Device, sides: Sequence[_Prepared], to_see: float | None, layout: Layout, leases: Held) -> Self:
        """Plan the launches of two sides, which run the tasks that both have; A's gate holds for both."""
        installations = [one for side in sides if (one := side.on(device))]
        tasks = common_tasks(*(one.bundle.artifact for one in installations))
        gate = sides[0].chosen.measure.gate
        a, b = (_side_launch(*of_side, gate, layout, leases) for of_side in zip(sides, installations, tasks, strict=True))
        looks, judge = (_FIRST if to_see else LOOKS), partial(_judged, tasks, to_see)
        return cls(device=device, tasks=tasks, launches=Interleaved(a=a, b=b, looks=looks, judge=judge, retries=gate.retries))

    def compared(self) -> ComparedDevice:
        """Return what came of it."""
        facts, blocks, looks = self.device.facts, self.launches.blocks, self.launches.looks
        a, b = sides_of_blocks(blocks, *self.tasks)
        return ComparedDevice(
            device=facts,
            blocks=len(blocks),
            looks=looks,
            rows=interleaved_rows(facts, a, b, looks),
            differences=differences(a.records, b.records),
            caveats=_caveats((a.records, b.records)),
            broken=self.launches.broken,
        )


def _side_launch(
    side: _Prepared, installation: Installation, tasks: Sequence[TaskAssets], gate: Gate, layout: Layout, leases: Held
) -> SideLaunch:
    chosen, bundle = side.chosen, installation.bundle.artifact
    counts = {name: count for name, count in item_counts(bundle).items() if name in {task.name for task in tasks}}
    measure = chosen.measure
    sequence = tuple(name for name in measure.sequence if name in counts)
    return SideLaunch(
        installation=installation,
        launch=LaunchPlan(
            variant=chosen.variant,
            launch=0,
            sequence=measured_sequence(measure.model_copy(update={"sequence": sequence}), counts),
        ),
        settings=LaunchSettings(
            run_id=side.begun.run_id,
            layout=layout,
            runtime=chosen.runtime,
            timeout_s=measure.timeout_s,
            gate=gate,
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


def _variant(text: str) -> Variant:
    try:
        return Variant(text)
    except ValueError as error:
        raise UnknownNameError("variant", text, [variant.value for variant in Variant]) from error


def _is_run(source: str, layout: Layout) -> bool:
    try:
        return layout.run_file(source).exists()
    except ValueError:  # no name of a run
        return False


def _require_variant(chosen: Chosen, bundle: Bundle) -> None:
    there = {graph.variant for graph in bundle.graphs}
    if not any(variant is chosen.variant.graphs for variant in there):
        raise UserError(
            f"'{chosen.source}' has no graphs of {chosen.variant}; it has {', '.join(sorted(there))}",
            hint=f"baselines: [{chosen.variant}] in the recipe builds them",
        )


def _caveats(sides: Sequence[Sequence[RunRecord]]) -> tuple[Caveat, ...]:
    seen = {caveat for side in sides for record in side for caveat in record.caveats}
    return tuple(caveat for caveat in Caveat if caveat in seen)


def _keep(records: Records, layout: Layout, leases: Held, observer: Observer, record: RunRecord) -> None:
    keep_record(records, record, layout, leases.guard(record.device.address))
    observer.record(record)
