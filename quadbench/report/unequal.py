"""Unequal: KPI rows -> those that show that two sides met different conditions; pure."""

from collections.abc import Sequence
from math import log, log1p

from quadbench.report.kpi import Figure, KpiRow, lie_apart

_EQUAL_WITHIN = 0.05  # that the same file takes, on a machine that treats both sides alike


def unequal_rows(rows: Sequence[KpiRow]) -> tuple[KpiRow, ...]:
    """Return for each device and task whose sides met different conditions the row that shows it.

    It is that of the file that takes longest of those that both variants run, where the launches lie apart, and by more than 5 %.
    """
    longest: dict[tuple[str, str, str], KpiRow] = {}
    for row in rows:
        if row.is_same_file and isinstance(row.shared, Figure) and isinstance(row.per_graph, Figure):
            place = (row.device.address, row.device.serial, row.task)
            known = longest.get(place)
            if known is None or (isinstance(known.shared, Figure) and known.shared.value < row.shared.value):
                longest[place] = row
    return tuple(row for row in longest.values() if _is_unequal(row))


def _is_unequal(row: KpiRow) -> bool:
    shared, per_graph = row.shared, row.per_graph
    if isinstance(shared, str) or isinstance(per_graph, str) or row.ratio is None:
        return False
    return abs(log(row.ratio)) > log1p(_EQUAL_WITHIN) and lie_apart(shared, per_graph)
