"""Stored: two runs that were measured before -> their figures beside each other, without a verdict."""

from quadbench.artifacts import DeviceFacts, RunResult
from quadbench.artifacts.fingerprint import contents, differences, unlike
from quadbench.errors import UserError
from quadbench.report.launches import devices_of, is_on, sound
from quadbench.report.versus import Side, Versus, VersusDevice, VersusSide, caveats_of, common_tasks, side_rows, timed_launches
from quadbench.results.stored_runs import new_id
from quadbench.study.chosen import Chosen, require_common_tasks


def compare_stored(a: Chosen, b: Chosen) -> Versus:
    """Put two stored runs beside each other. They were not launched in turn for this, so that there are no verdicts.

    Raises:
        UserError: a side is no run or changes what launches alone can show, both are the same launches, or no device, by address,
            or no task is in both.
    """
    if a.run is None or b.run is None:
        which = a.source if a.run is None else b.source
        raise UserError(f"'{which}' is no stored run, so it has to be measured", hint="name the devices: --devices local")
    for side in (a, b):
        if side.gear.harness or side.gear.kit:
            raise UserError("a stored run ran with its own harness and kit", hint="name devices to measure it again with others")
    if a.run.run_id == b.run.run_id and a.variant is b.variant:
        raise UserError(
            f"both sides are the {a.variant} launches of run {a.run.run_id}", hint="name another run, or --b variant=per-graph"
        )
    require_common_tasks(a, b)
    devices = {device.address: device for device in devices_of(a.run)}
    others = {device.address: device for device in devices_of(b.run)}
    common = [address for address in devices if address in others]
    if not common:
        raise UserError(f"the runs have no device in common: {', '.join(devices)}; {', '.join(others)}")
    sides = [
        VersusSide(
            source=one.source,
            changes=dict(one.changes),
            variant=one.variant,
            run_id=run.run_id,
            of=_of(run),
            own_tasks=tuple(name for name in one.tasks if name not in other.tasks),
        )
        for one, other, run in ((a, b, a.run), (b, a, b.run))
    ]
    return Versus(
        comparison_id=new_id(),
        a=sides[0],
        b=sides[1],
        to_see=None,
        devices=tuple(_stored_device(a, b, devices[address], others[address]) for address in common),
        failures={},
    )


def _of(run: RunResult) -> str:
    """Say what a run is of: its recipe, and what a sweep set in it."""
    return ", ".join((run.bundle.recipe_name, *(f"{key.rpartition('.')[2]}={value}" for key, value in run.swept.items())))


def _stored_device(a: Chosen, b: Chosen, on_a: DeviceFacts, on_b: DeviceFacts) -> VersusDevice:
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
    wanted = set(a.tasks) & set(b.tasks)
    tasks = common_tasks(*(run.bundle_on(device) for run, _, device in runs), wanted=wanted)
    held = [[contents(run.bundle_on(device), of_side)] for (run, _, device), of_side in zip(runs, tasks, strict=True)]
    first, second = (Side(records=side, tasks=of_side) for side, of_side in zip(records, tasks, strict=True))
    return VersusDevice(
        device=on_a,
        blocks=0,
        looks=None,
        rows=side_rows(on_a, first, second),
        differences=unlike(*held) | differences(*records),
        caveats=caveats_of(records),
        launches=timed_launches(first, second),
    )
