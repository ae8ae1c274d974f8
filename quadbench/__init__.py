"""quadbench, for use from Python: a stored run -> its samples or its figures as a table. The rest is the command line's."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load(*run_ids: str, results: str | Path = "results") -> "pd.DataFrame":
    """Return the samples of stored runs, a row each; without an id those of the latest run that came to its end.

    Raises:
        QuadbenchError: there is no such run, or the database cannot be read.
    """
    from quadbench.report.samples import samples_table
    from quadbench.results.layout import Layout
    from quadbench.results.stored_runs import load_records

    layout = Layout(Path(results))
    return samples_table(record for run_id in run_ids or (None,) for record in load_records(layout, run_id))


def figures(run_id: str | None = None, *, table: str = "kpi", results: str | Path = "results") -> "pd.DataFrame":
    """Return a table of a stored run's figures, by the names that `quadbench report --table` has; None is the latest that ended.

    Of a sweep, by its id, the tables of the paper.

    Raises:
        QuadbenchError: there is no such run or table, or the run has nothing for it.
    """
    from quadbench.report.formatting import to_frame
    from quadbench.report.tables import named_tables
    from quadbench.results.layout import Layout
    from quadbench.results.stored_runs import load_run
    from quadbench.study.stored_studies import find_study, read_study, study_table

    layout = Layout(Path(results))
    if run_id and (path := find_study(layout, run_id)):
        return to_frame([study_table(read_study(path), table, layout)])
    return to_frame(named_tables(load_run(layout, run_id), table))
