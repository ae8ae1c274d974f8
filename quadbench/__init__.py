"""quadbench, for use from Python: a stored run -> its samples as a table. The rest is the command line's."""

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
    from quadbench.results.runs import load_records

    layout = Layout(Path(results))
    return samples_table(record for run_id in run_ids or (None,) for record in load_records(layout, run_id))
