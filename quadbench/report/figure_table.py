"""Figure table: one object that has a table as text for people and as values for machines -> CSV and a table of pandas."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from quadbench.report.text_table import TextTable, csv_cell

if TYPE_CHECKING:
    import pandas as pd

Value: TypeAlias = str | float | None


@dataclass(frozen=True, kw_only=True)
class FigureTable:
    """A table of figures: as people read it, and with full precision, a value or None in each of some fields."""

    text: TextTable
    fields: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]


def to_csv(tables: Sequence[FigureTable]) -> str:
    """Return the rows of tables that have the same fields below one header; a cell without a value is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(tables[0].fields)
    for table in tables:
        writer.writerows([_cell(value) for value in row] for row in table.values)
    return out.getvalue()


def to_frame(tables: Sequence[FigureTable]) -> "pd.DataFrame":
    """Return the rows of tables that have the same fields as a table of pandas."""
    import pandas as pd

    return pd.DataFrame.from_records([row for table in tables for row in table.values], columns=list(tables[0].fields))


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return csv_cell(value)
    return "" if value is None else repr(value)
