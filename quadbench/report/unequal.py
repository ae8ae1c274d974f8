"""Unequal: KPI rows -> those that show that two sides met different conditions; pure."""

from collections.abc import Sequence

from quadbench.report.kpi import KpiRow
from quadbench.statistics import Verdict


def unequal_rows(rows: Sequence[KpiRow]) -> tuple[KpiRow, ...]:
    """Return for each device and task whose sides met different conditions the row that shows it.

    It is that of the file that takes longest of those that both variants run, where the launches say that it takes one of them
    longer by more than 5 %.
    """
    return tuple(row for row in rows if row.is_same_file and row.claim in (Verdict.BETTER, Verdict.WORSE))
