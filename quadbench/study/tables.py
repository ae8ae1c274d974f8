"""Tables: a sweep or a comparison, and the name of a table -> that table of the figures of its runs."""

from quadbench.errors import UserError
from quadbench.recipe.published import published_names
from quadbench.report.figure_table import FigureTable
from quadbench.report.sweep import Sweep
from quadbench.report.tables import paper_table
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run
from quadbench.study.studies import Study


def study_table(study: Study, name: str, layout: Layout) -> FigureTable:
    """Return a table of the paper beside the figures of a sweep's runs, which are read.

    Raises:
        UserError: it is a comparison, or the table is no paper's.
        QuadbenchError: a run is gone or damaged.
    """
    if not isinstance(study, Sweep):
        raise UserError(f"a comparison has no table {name}", hint="name one of its runs")
    if name not in published_names():
        known = ", ".join(published_names())
        raise UserError(f"a sweep has no table {name}; expected one of {known}", hint="name one of them, or one of its runs")
    run_ids = dict.fromkeys(point.run_id for point in study.points)
    return paper_table([load_run(layout, run_id) for run_id in run_ids], name)
