"""Stored sweeps and comparisons of a results folder, and their tables."""

from pathlib import Path

from quadbench.errors import ArtifactError, UserError
from quadbench.recipe.published import published_names
from quadbench.report import sweep, versus
from quadbench.report.formatting import FigureTable
from quadbench.report.run_line import StudyLine, study_line
from quadbench.report.sweep import Sweep
from quadbench.report.tables import paper_table
from quadbench.report.versus import Versus
from quadbench.results.documents import read_document
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run

Study = Sweep | Versus
_KINDS: dict[str, tuple[type[Study], int]] = {
    "sweep.json": (Sweep, sweep.SCHEMA_VERSION),
    "comparison.json": (Versus, versus.SCHEMA_VERSION),
}


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
