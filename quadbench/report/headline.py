"""Headline: a run's figures -> its result in one sentence, and the sentences on what is missing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from quadbench.artifacts import DeviceFacts, RunResult, Status, Variant
from quadbench.artifacts.parts import has_own_graphs, has_references
from quadbench.report.kpi import Figure, KpiRow
from quadbench.report.pictures import Quality
from quadbench.report.storage import Storage
from quadbench.report.unequal import unequal_rows
from quadbench.report.units import Unit, decibels, plural, show, times


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A piece of the headline; figures are set apart."""

    text: str
    is_figure: bool = False


def headline(storages: Sequence[Storage], rows: Sequence[KpiRow], quality: Sequence[Quality]) -> tuple[Phrase, ...]:
    """Return the sentences for the first device that has figures, gains and losses alike; nothing if no device has any."""
    device = next((row.device for row in rows if isinstance(row.shared, Figure) or isinstance(row.per_graph, Figure)), None)
    if device is None:
        return ()
    ours = [row for row in rows if row.device == device]
    first = [clause for clause in (_bytes_clause(storages), _switch_clause(ours)) if clause]
    sentences = [_joined(first), _joined(_costs(ours)), _quality_clause(device, quality)]
    told = [sentence for sentence in sentences if sentence]
    phrases = [phrase for sentence in told for phrase in (*_opened(sentence), Phrase(text=". "))]
    return (Phrase(text=f"On {device.address}: "), *phrases[:-1], Phrase(text=".")) if phrases else ()


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
            else "an admitted adapter has no graph of its own"
            if any(graph.variant is Variant.PER_GRAPH for graph in result.bundle.graphs) and not has_own_graphs(result.bundle)
            else "the recipe does not ask for them (baselines: [per-graph])"
        )
        missing.append(f"One graph per task was not compared: {why}.")
    if ran and not has_references(result.bundle):
        missing.append("The weights are random, so pictures were compared with nothing.")
    elif ran and Variant.FLOAT not in ran:
        missing.append("The float graph did not run, so that device and Python reference were not compared.")
    if ran and has_references(result.bundle) and not any(item.truth for task in result.bundle.tasks for item in task.items):
        missing.append("No truth images, the pictures that would be right, were given: only the float reference counts.")
    unequal = unequal_rows(rows)
    missing += [
        _unequal([row for row in unequal if row.device == device]) for device in dict.fromkeys(row.device for row in unequal)
    ]
    compared = ran & {Variant.SHARED, Variant.PER_GRAPH}
    if compared and not any(isinstance(cell, Figure) for row in rows for cell in (row.shared, row.per_graph)):
        missing.append("The launches hold no samples.")
    return tuple(missing)


def _unequal(rows: Sequence[KpiRow]) -> str:
    """Say of a device in which tasks the sides met different conditions; the first task's figures show it."""
    first, tasks = rows[0], " and ".join(row.task for row in rows)
    shared, own = (show(side.value, first.unit) for side in (first.shared, first.per_graph) if isinstance(side, Figure))
    return (
        f"On {first.device.address} the two sides met different conditions in {tasks}: {first.title}, the same file on both, "
        f"took {shared} {first.unit.value} shared and {own} {first.unit.value} per graph. These times do not compare; run again."
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
    planned = sum((result.planned or {}).values()) * len(result.deployments)
    stored = sum(not record.device.is_hosted and record.status is not Status.DISCARDED for record in result.records)
    count = f": {stored} of {planned} planned launches are stored" if planned else ""
    return f"The run was cut short, or still goes on{count}."


def _joined(clauses: Sequence[list[Phrase]]) -> list[Phrase]:
    """Join clauses to one sentence, the last by "and"."""
    phrases: list[Phrase] = []
    for index, clause in enumerate(clauses):
        joint = "" if index == 0 else ", and " if index == len(clauses) - 1 else ", "
        phrases += [Phrase(text=joint), *clause]
    return [phrase for phrase in phrases if phrase.text]


def _opened(sentence: Sequence[Phrase]) -> list[Phrase]:
    """Begin a sentence with a capital letter."""
    first, *rest = sentence
    return [replace(first, text=first.text[:1].upper() + first.text[1:]), *rest]


def _bytes_clause(storages: Sequence[Storage]) -> list[Phrase]:
    last = storages[0].measured[-1] if storages and storages[0].measured else None
    if last is None or last.shared_bytes is None:
        return []
    tasks = f"{plural(last.count, 'task')} {'takes' if last.count == 1 else 'take'} "
    shared = [Phrase(text=tasks), _figure(last.shared_bytes, Unit.MEGABYTES), Phrase(text=" as one base with LoRAs")]
    if not last.per_graph_bytes:
        return shared
    against = [Phrase(text=" against "), _figure(last.per_graph_bytes, Unit.MEGABYTES), Phrase(text=" as one graph per task")]
    share = [Phrase(text=" ("), Phrase(text=_percent(last.shared_bytes / last.per_graph_bytes - 1), is_figure=True)]
    return [*shared, *against, *share, Phrase(text=f"{_break_even(storages[0])})")]


def _break_even(storage: Storage) -> str:
    """Say from how many tasks on one base takes fewer bytes, where that is not from the first."""
    steps = [(step.count, step.shared_bytes, step.per_graph_bytes) for step in (*storage.measured, *storage.extrapolated)]
    fewer = [count for count, shared, own in steps if shared is not None and own is not None and shared < own]
    return f"; fewer bytes from {fewer[0]} tasks on" if fewer and fewer[0] > 1 else "" if fewer else "; never fewer"


def _switch_clause(rows: Sequence[KpiRow]) -> list[Phrase]:
    """Tell of the slowest switch, with the same one of the other side."""
    switches = [(row.shared.value, row) for row in rows if row.key == "switch" and isinstance(row.shared, Figure)]
    if not switches:
        return []
    slowest, row = max(switches, key=lambda switch: switch[0])
    limit = "up to " if len(switches) > 1 else ""
    clause = [Phrase(text=f"a switch of tasks takes {limit}"), _figure(slowest, Unit.MILLISECONDS)]
    if not isinstance(row.per_graph, Figure):
        return clause
    return [*clause, *_against(slowest, row.per_graph.value, Unit.MILLISECONDS, "")]


def _costs(rows: Sequence[KpiRow]) -> list[list[Phrase]]:
    """Return what an image costs in time and memory on the shared graph, against one graph per task."""
    clauses = []
    unequal = {row.task for row in unequal_rows(rows)}
    for key, what in (("end_to_end", "an image takes "), ("peak_ram", "running takes ")):
        compared = [row for row in rows if row.key == key and row.ratio]
        if key == "end_to_end":
            compared = [row for row in compared if row.task not in unequal]
        noun = "time" if key == "end_to_end" else "memory"
        changes = [1 / row.ratio - 1 for row in compared if row.ratio and row.is_apart]
        if changes:
            limit = "" if len(changes) == len(compared) else "up to "  # of the others the run cannot tell
            clauses.append([Phrase(text=f"{what}{limit}"), *_change(changes, noun)])
        elif compared:
            clauses.append([Phrase(text=f"whether {what}more {noun} than with one graph per task cannot be told from this run")])
    return clauses


def _change(changes: Sequence[float], noun: str) -> list[Phrase]:
    low, high = sorted((min(changes), max(changes)), key=abs)
    ends = dict.fromkeys((_percent(low), _percent(high)))
    if low * high > 0 and len(ends) > 1:
        ends = dict.fromkeys((f"{abs(low):.0%}".rstrip("%"), _percent(high)))
    words = [Phrase(text=end, is_figure=True) for end in ends]
    between = [phrase for word in words for phrase in (Phrase(text=" to "), word)][1:]
    return [*between, Phrase(text=f" {noun}")]


def _percent(change: float) -> str:
    """Write a relative change: `6 % less`, `30 % more`."""
    return f"{abs(change):.0%} {'more' if change > 0 else 'less'}".replace("%", " %")


def _quality_clause(device: DeviceFacts, quality: Sequence[Quality]) -> list[Phrase]:
    ours = [row for row in quality if row.device == device]
    shared = [row.shared_reference for row in ours if isinstance(row.shared_reference, float)]
    per_graph = [row.per_graph_reference for row in ours if isinstance(row.per_graph_reference, float)]
    if not shared:
        return []
    clause = [
        Phrase(text="images reach "),
        Phrase(text=decibels(mean(shared)), is_figure=True),
        Phrase(text=" PSNR against the float reference on average"),
    ]
    if per_graph:
        clause += [
            Phrase(text=" ("),
            Phrase(text=decibels(mean(per_graph)), is_figure=True),
            Phrase(text=" with one graph per task)"),
        ]
    return clause


def _against(shared: float, per_graph: float, unit: Unit, what: str) -> list[Phrase]:
    ratio = [Phrase(text=" ("), Phrase(text=times(per_graph / shared), is_figure=True), Phrase(text=")")] if shared > 0 else []
    return [Phrase(text=" against "), _figure(per_graph, unit), Phrase(text=what), *ratio]


def _figure(value: float, unit: Unit) -> Phrase:
    return Phrase(text=f"{show(value, unit)} {unit.value}", is_figure=True)
