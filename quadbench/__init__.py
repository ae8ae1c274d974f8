"""quadbench as a Python library: load a stored run's measured values, or one table of the run's report, into pandas.

__main__.py  entry point of `python -m quadbench`; Ctrl-C during imports
deploy.py    files pushed to a device by sha256; free space; damaged files sent again
observer.py  interface for progress: steps, bytes sent, launches, lost devices
host.py      CPU name, installed programs, locks, child processes, peak memory
errors.py    error classes and exit codes; quoted text from outside; missing packages
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["figures", "load"]


def load(*run_ids: str, results: str | Path = "results") -> "pd.DataFrame":
    """Return measured values of stored runs as a pandas table, one row per value. Without run ids, load the latest finished run.

    Raises:
        QuadbenchError: there is no such run, or the database cannot be read.
    """
    from quadbench.report.samples import samples_table
    from quadbench.results.layout import Layout
    from quadbench.results.stored_runs import load_records

    layout = Layout(Path(results))
    return samples_table(record for run_id in run_ids or (None,) for record in load_records(layout, run_id))


def figures(run_id: str | None = None, *, table: str = "kpi", results: str | Path = "results") -> "pd.DataFrame":
    """Return one table of a run's report, named by `table`, as a pandas DataFrame. Without a run id, use the latest finished run.

    `table` is a name that `quadbench report --table` takes; `kpi` has the main values. A sweep's id selects the sweep's tables.

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
