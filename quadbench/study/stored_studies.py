"""Stored sweeps and comparisons of a results folder, their tables, and the search for an earlier run as a baseline."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quadbench.artifacts import RunResult
from quadbench.errors import ArtifactError, UserError
from quadbench.recipe.published import published_names
from quadbench.report import sweep, versus
from quadbench.report.baseline import require_comparable
from quadbench.report.formatting import FigureTable
from quadbench.report.run_line import StudyLine, study_line
from quadbench.report.sweep import Sweep
from quadbench.report.tables import paper_table
from quadbench.report.versus import Versus
from quadbench.results.documents import read_document
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import find_run, load_run, read_run_file, run_ids

Study = Sweep | Versus
_KINDS: dict[str, tuple[type[Study], int]] = {
    "sweep.json": (Sweep, sweep.SCHEMA_VERSION),
    "comparison.json": (Versus, versus.SCHEMA_VERSION),
}
LATEST = "latest"
_LOOKED_AT = 200  # runs searched for the latest that fits
log = logging.getLogger(__name__)


def find_study(layout: Layout, study_id: str) -> Path | None:
    """Return the path of the JSON file of a stored sweep or comparison, or None if no sweep or comparison has this id."""
    return next((path for path in layout.studies() if path.parent.name == study_id), None)


def read_study(path: Path) -> Study:
    """Read the JSON file of a sweep or comparison, and return the Sweep or Versus (comparison) in it.

    Raises:
        ArtifactError: the file is damaged, or has another version.
    """
    kind, version = _KINDS[path.name]
    hint = f"remove '{path.parent}', and sweep or compare again; its runs are still there"
    return read_document(path, kind, version=version, hint=hint)


def study_lines(layout: Layout, limit: int) -> list[StudyLine]:
    """Return the `limit` newest sweeps and comparisons as StudyLines, newest first. A damaged file's StudyLine has the error."""
    latest = sorted(layout.studies(), key=lambda path: path.parent.name, reverse=True)[:limit]
    lines = []
    for path in latest:
        try:
            lines.append(study_line(read_study(path)))
        except ArtifactError as error:
            lines.append(StudyLine(study_id=path.parent.name, kind=path.stem, reason=error.message))
    return lines


def study_table(study: Study, name: str, layout: Layout) -> FigureTable:
    """Return the table called `name` of a published paper as a FigureTable, with the measured values of a sweep's runs added.

    Raises:
        UserError: the study is a comparison, or the table is not from a paper.
        QuadbenchError: a run is missing or damaged.
    """
    if not isinstance(study, Sweep):
        raise UserError(f"a comparison has no table {name}", hint="name one of its runs")
    if name not in published_names():
        known = ", ".join(published_names())
        raise UserError(f"a sweep has no table {name}; expected one of {known}", hint="name one of them, or one of its runs")
    run_ids = dict.fromkeys(point.run_id for point in study.points)
    return paper_table([load_run(layout, run_id) for run_id in run_ids], name)


@dataclass(frozen=True, kw_only=True)
class LaterRun:
    """The newer of two compared runs: its recipe, tasks and devices. `run_id` is None if the newer run is not stored yet."""

    recipe_name: str
    tasks: Sequence[str]
    addresses: Sequence[str]
    swept: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None


def earlier_run(layout: Layout, word: str, later_run: LaterRun) -> RunResult | None:
    """Return the run with id `word`. For `latest`: the newest complete run with `later_run`'s recipe, tasks and devices, or None.

    Raises:
        UserError: the named run is the run itself, has none of its tasks or lacks a device, or there are no runs.
        QuadbenchError: there is no such run, or it is damaged.
    """
    if word == LATEST:
        return _latest(layout, later_run)
    if not run_ids(layout, 1):
        hint = "name the folder with the baseline in --results; a CI job has to keep it from one run to the next"
        raise UserError(f"'{layout.root}' has no run that could be the baseline", hint=hint)
    baseline = find_run(layout, word)
    require_comparable(baseline, later_run.tasks, later_run.addresses, later_run.run_id)
    return baseline


def _latest(layout: Layout, later_run: LaterRun) -> RunResult | None:
    ids = run_ids(layout, None if later_run.run_id else _LOOKED_AT)
    earlier = ids[ids.index(later_run.run_id) + 1 :] if later_run.run_id in ids else ids
    for run_id in earlier[:_LOOKED_AT]:
        try:
            run_file = read_run_file(layout, run_id)
            # Sides of comparisons have no planned launches.
            is_whole = run_file.planned and run_file.is_ended and not run_file.left_out and run_file.swept == later_run.swept
            if is_whole and _fits(run := load_run(layout, run_id), later_run):
                return run
        except ArtifactError as error:
            log.warning("run %s is skipped: %s", run_id, error)
    return None


def _fits(run: RunResult, later_run: LaterRun) -> bool:
    """Return whether `run` has no failed launch, and has the recipe, exactly the tasks, and all devices of `later_run`."""
    if run.bundle.recipe_name != later_run.recipe_name or {task.name for task in run.bundle.tasks} != set(later_run.tasks):
        return False
    try:
        require_comparable(run, later_run.tasks, later_run.addresses)
    except UserError:
        return False
    return all(record.status.is_fine for record in run.records)
