"""Headline: a run's figures -> its result in one sentence, and the sentences on what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from quadbench.artifacts import DeviceFacts, RunResult, Status, Variant
from quadbench.artifacts.parts import has_references
from quadbench.report.kpi import Figure, KpiRow
from quadbench.report.pictures import Quality
from quadbench.report.storage import Storage
from quadbench.report.units import Unit, decibels, plural, show, times


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A piece of the headline; figures are set apart."""

    text: str
    is_figure: bool = False


def headline(storages: Sequence[Storage], rows: Sequence[KpiRow], quality: Sequence[Quality]) -> tuple[Phrase, ...]:
    """Return the sentence for the first device that has figures, or nothing if no device has."""
    device = next((row.device for row in rows if isinstance(row.shared, Figure) or isinstance(row.per_graph, Figure)), None)
    if device is None:
        return ()
    clauses = [
        clause for clause in (_bytes_clause(storages), _switch_clause(device, rows), _quality_clause(device, quality)) if clause
    ]
    if not clauses:
        return ()
    sentence = [Phrase(text=f"On {device.address}, ")]
    for index, clause in enumerate(clauses):
        joint = "" if index == 0 else ", and " if index == len(clauses) - 1 else ", "
        sentence += [Phrase(text=joint), *clause]
    return (*sentence, Phrase(text="."))


def gaps(result: RunResult, rows: Sequence[KpiRow]) -> tuple[str, ...]:
    """Name the figures that a reader would look for in vain, each with the reason."""
    ran = {record.variant for record in result.records if record.status is Status.OK}
    tried = {record.variant for record in result.records}
    missing = []
    if not result.records:
        missing.append("No launch was run, so there are no figures at all.")
    elif not ran:
        missing.append("No launch was OK, so there are no figures; the launches table has the reasons.")
    elif Variant.SHARED not in ran:
        missing.append("No launch of the shared graph was OK, so there is nothing to compare.")
    elif Variant.PER_GRAPH not in ran:
        why = (
            "no launch of them was OK"
            if Variant.PER_GRAPH in tried
            else "the recipe asks for no baseline (baselines: [per-graph])"
        )
        missing.append(f"One graph per task was not compared: {why}.")
    if ran and not has_references(result.bundle):
        missing.append("The weights are random, so pictures were compared with nothing.")
    elif ran and Variant.FLOAT not in ran:
        missing.append("The float graph did not run, so that device and Python reference were not compared.")
    if ran and has_references(result.bundle) and not any(item.truth for task in result.bundle.tasks for item in task.items):
        missing.append("No truth images were given, so pictures are compared with the float reference only.")
    if ran and not any(isinstance(cell, Figure) for row in rows for cell in (row.shared, row.per_graph)):
        missing.append("The launches hold no samples.")
    return tuple(missing)


def _bytes_clause(storages: Sequence[Storage]) -> list[Phrase]:
    last = storages[0].measured[-1] if storages and storages[0].measured else None
    if last is None or last.shared_bytes is None:
        return []
    tasks = f"{plural(last.count, 'task')} {'takes' if last.count == 1 else 'take'} "
    shared = [Phrase(text=tasks), _figure(last.shared_bytes, Unit.MEGABYTES), Phrase(text=" as one base with LoRAs")]
    if last.per_graph_bytes is None:
        return shared
    return [*shared, *_against(last.shared_bytes, last.per_graph_bytes, Unit.MEGABYTES, " as one graph per task")]


def _switch_clause(device: DeviceFacts, rows: Sequence[KpiRow]) -> list[Phrase]:
    switches = [row for row in rows if row.device == device and row.key == "switch"]
    shared = [row.shared.value for row in switches if isinstance(row.shared, Figure)]
    per_graph = [row.per_graph.value for row in switches if isinstance(row.per_graph, Figure)]
    if not shared:
        return []
    clause = [Phrase(text="a switch of tasks takes "), _figure(median(shared), Unit.MILLISECONDS)]
    if not per_graph:
        return clause
    return [*clause, *_against(median(shared), median(per_graph), Unit.MILLISECONDS, "")]


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
