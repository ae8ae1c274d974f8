"""One-line summaries of runs, sweeps and comparisons for lists, and JSON documents of sweeps and comparisons."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from statistics import mean

from quadbench.artifacts import DeviceFacts, RunResult, Variant
from quadbench.report.formatting import Unit, decibels, show
from quadbench.report.kpi import figure, launch_values
from quadbench.report.launches import launches_of, only_ok
from quadbench.report.scores import quality_rows
from quadbench.report.sweep import Sweep
from quadbench.report.sweep_answer import sweep_answer
from quadbench.report.versus import Versus, answer
from quadbench.results.documents import document_from, document_text, write_document
from quadbench.results.layout import Layout

SCHEMA_VERSION = 1  # of the JSON of a list of runs

_ORDER = tuple(Variant)


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """A study (sweep or comparison) in a list of runs. `sentences` give the result; `reason` says why a study is unreadable."""

    study_id: str
    kind: str  # sweep or comparison
    what: str | None = None
    devices: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    reason: str | None = None


def study_line(study: Sweep | Versus) -> StudyLine:
    """Return a sweep or comparison as a `StudyLine`: identifier, description, devices and result in sentences."""
    if isinstance(study, Sweep):
        return StudyLine(
            study_id=study.sweep_id,
            kind="sweep",
            what=f"{study.recipe_name} over {', '.join(study.keys)}",
            devices=tuple(dict.fromkeys(point.device for point in study.points)),
            sentences=sweep_answer(study),
        )
    return StudyLine(
        study_id=study.comparison_id,
        kind="comparison",
        what=study.title,
        devices=tuple(device.device.address for device in study.devices),
        sentences=answer(study),
    )


@dataclass(frozen=True, kw_only=True)
class SweepDocument(Sweep):
    """A sweep and its result as text. `folder` is where the tables, charts and report lie; null in a stored sweep.json."""

    sentences: tuple[str, ...]
    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonDocument(Versus):
    """A comparison and its result as text. `folder` is the path of the comparison's report; null in a stored comparison.json."""

    sentences: tuple[str, ...]
    folder: str | None = None


def study_document(study: Sweep | Versus, folder: Path | None = None) -> SweepDocument | ComparisonDocument:
    """Return the JSON document of a sweep or comparison. A printed document names its `folder`; a stored one does not."""
    where = None if folder is None else str(folder)
    if isinstance(study, Sweep):
        return document_from(SweepDocument, study, sentences=sweep_answer(study), folder=where)
    return document_from(ComparisonDocument, study, sentences=answer(study), folder=where)


def study_json(study: Sweep | Versus) -> str:
    return document_text(study_document(study))


def write_comparison(versus: Versus, layout: Layout) -> None:
    """Write comparison.json into the comparison's folder, atomically.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    write_document(layout.comparison(versus.comparison_id) / "comparison.json", study_document(versus))


class RunStatus(StrEnum):
    """The outcome of a stored run, as the list of runs shows it."""

    OK = "ok"
    FAILED = "failed"  # some of its launches
    UNDER_WAY = "under way"  # known only to the live page
    CUT_SHORT = "cut short"  # or still running
    DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """A run in a list of runs. `reason` counts failed launches, or says why a damaged run cannot be read. `swept` maps recipe
    keys to the values that a sweep set. `figures` maps a device address to the image time as text, or to the PSNR if no image
    was timed. `figure` is the first image time in `figures`; if there is no image time, it is the first PSNR.
    """

    run_id: str
    status: RunStatus
    started_at: datetime | None = None
    recipe: str | None = None
    swept: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    figure: str | None = None
    figures: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunList:
    """The latest runs, sweeps and comparisons, newest first; `quadbench runs --json` prints it."""

    schema_version: int = SCHEMA_VERSION
    runs: tuple[RunLine, ...]
    studies: tuple[StudyLine, ...] = ()


def run_line(result: RunResult) -> RunLine:
    """Return the list entry of a run: status, start, recipe, devices, and image times, or PSNR where no time was measured."""
    wrong = sum(not record.status.is_fine for record in result.records)
    count = f"{wrong} of {len(result.records)} launches failed" if wrong else None
    status = RunStatus.CUT_SHORT if result.is_cut_short else RunStatus.FAILED if wrong else RunStatus.OK
    times = {device.address: time for device in result.devices if (time := _time(result, device))}
    figures = {
        device.address: figure for device in result.devices if (figure := times.get(device.address) or _likeness(result, device))
    }
    return RunLine(
        run_id=result.run_id,
        status=status,
        started_at=result.records_in_order[0].started_at,
        recipe=result.bundle.recipe_name,
        swept=result.swept,
        devices=tuple(device.address for device in result.devices),
        figure=next(iter((*times.values(), *figures.values())), None),
        figures=figures,
        reason=count,
    )


def _time(result: RunResult, device: DeviceFacts) -> str | None:
    """Return a device's image time (mean of task medians) as text, preferably with the shared graph; None if none was timed."""
    shown = {}
    for variant in _ORDER:
        launches = only_ok(launches_of(result, device, variant))
        figures = [figure(launch_values("end_to_end", launches, task)) for task in result.bundle_on(device).tasks]
        if times := [figure.value for figure in figures if figure]:
            shown[variant] = show(mean(times), Unit.MILLISECONDS)
    if Variant.SHARED in shown:
        own = f", {shown[Variant.PER_GRAPH]} per graph" if Variant.PER_GRAPH in shown else ""
        return f"{shown[Variant.SHARED]} ms{own}"
    return next((f"{time} ms {variant}" for variant, time in shown.items()), None)


def _likeness(result: RunResult, device: DeviceFacts) -> str | None:
    """Return a device's mean PSNR as text, in dB: shared-graph images against float images. Return None if not measured."""
    rows = (row for row in quality_rows(result) if row.device.address == device.address)
    likeness = [row.shared_reference for row in rows if isinstance(row.shared_reference, float)]
    return f"{decibels(mean(likeness))} PSNR" if likeness else None
