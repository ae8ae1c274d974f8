"""Gaps: a run and its figures -> the sentences on what a reader would look for in vain, and on what befell the run; pure."""

from collections.abc import Iterator, Sequence

from quadbench.artifacts import DeviceFacts, RunResult, Status, Variant
from quadbench.artifacts.parts import has_references, without_own_graph
from quadbench.report.kpi import Figure, KpiRow
from quadbench.report.launches import counted, devices_of, is_on
from quadbench.report.unequal import unequal_rows
from quadbench.report.units import plural, show
from quadbench.statistics import LAUNCHES_PER_BLOCK


def gaps(result: RunResult, rows: Sequence[KpiRow]) -> tuple[str, ...]:
    """Name the figures that a reader would look for in vain, each with the reason."""
    ran = {record.variant for record in result.records if record.status is Status.OK}
    tried = {record.variant for record in result.records}
    missing = [*_course(result)]
    if not result.records:
        missing.append("No launch was run, so there are no figures at all.")
    elif not ran:
        missing.append("No launch was OK, so there are no figures; the launches table has the reasons.")
    elif Variant.SHARED not in ran:
        missing.append("No launch of the shared graph was OK, so there is nothing to compare.")
    elif Variant.PER_GRAPH not in ran:
        is_asked_for = Variant.PER_GRAPH in (result.planned or {})
        why = (
            "no launch of them was OK"
            if Variant.PER_GRAPH in tried
            else "the run did not come to them"
            if is_asked_for
            else "the recipe does not ask for them (baselines: [per-graph])"
        )
        missing.append(f"One graph per task was not compared: {why}.")
    elif admitted := without_own_graph(result.bundle):
        missing.append(
            f"Per-graph figures of {', '.join(admitted)} are missing: an admitted adapter has no graph of its own; "
            "with the adapter in the recipe, quadbench run RECIPE builds one."
        )
    if ran and not has_references(result.bundle):
        missing.append("The weights are random, so pictures were compared with nothing.")
    elif ran and Variant.FLOAT not in ran:
        missing.append("The float graph did not run, so that device and Python reference were not compared.")
    if ran and has_references(result.bundle) and not any(item.truth for task in result.bundle.tasks for item in task.items):
        missing.append("No truth images, the pictures that would be right, were given: only the float reference counts.")
    missing += _without_figures(result, rows)
    missing += filter(None, (_out_of_turn(result, device) for device in devices_of(result)))
    unequal = unequal_rows(rows)
    missing += [
        _unequal([row for row in unequal if row.device == device]) for device in dict.fromkeys(row.device for row in unequal)
    ]
    compared = ran & {Variant.SHARED, Variant.PER_GRAPH}
    if compared and not any(isinstance(cell, Figure) for row in rows for cell in (row.shared, row.per_graph)):
        missing.append("The launches hold no samples.")
    return tuple(missing)


def _without_figures(result: RunResult, rows: Sequence[KpiRow]) -> Iterator[str]:
    """Name the devices that have no figure where another has: the headline cannot speak of them."""
    told = {row.device for row in rows if isinstance(row.shared, Figure) or isinstance(row.per_graph, Figure)}
    for device in devices_of(result):
        if told and device not in told:
            records = [record for record in result.records if is_on(record, device)]
            yield f"{device.address} has no figures: {'no launch there was OK' if records else 'nothing was launched there'}."


def _out_of_turn(result: RunResult, device: DeviceFacts) -> str | None:
    """Say which launches of a device count in no figure, or why no difference between its launches is claimed."""
    counts = counted(result, device)
    if counts.left_out:
        which = f"{plural(counts.left_out, 'launch')} on {device.address} that ended OK"
        return f"{which}: not in any figure, since blocks A B B A count whole, and theirs lack a launch that is OK."
    if counts.blocks or min(len(counts.shared), len(counts.per_graph)) < LAUNCHES_PER_BLOCK:
        return None
    return (
        f"On {device.address} no block of launches A B B A is whole, so that a drift of the device may count on one side alone: "
        "no difference of times or memory is claimed. This takes measure.order: abba."
    )


def _unequal(rows: Sequence[KpiRow]) -> str:
    """Say of a device in which tasks the sides met different conditions; the first task's figures show it."""
    first, tasks = rows[0], " and ".join(row.task for row in rows)
    shared, own = (show(side.value, first.unit) for side in (first.shared, first.per_graph) if isinstance(side, Figure))
    return (
        f"On {first.device.address} the two sides met different conditions in {tasks}: {first.title}, the same file on both, "
        f"took {shared} {first.unit.value} shared and {own} {first.unit.value} per graph. These times do not compare."
    )


def _course(result: RunResult) -> Iterator[str]:
    """Yield what befell the run: that it was cut short, what was left out, and which devices were lost and came back."""
    if result.is_cut_short:
        yield _cut_short(result)
    for address, reason in result.left_out.items():
        yield f"{address}: {reason.rstrip('.')}."
    for retry in result.retries:
        yield f"{retry.address} was lost and waited for, {retry.away_s:.0f} s: {retry.reason.rstrip('.')}."


def _cut_short(result: RunResult) -> str:
    devices = {device.address for device in result.devices if not device.is_hosted}
    planned = sum((result.planned or {}).values()) * len(devices)
    stored = sum(not record.device.is_hosted and record.status is not Status.DISCARDED for record in result.records)
    count = f": {stored} of {planned} planned launches are stored" if planned else ""
    return f"The run was cut short, or still goes on{count}."
