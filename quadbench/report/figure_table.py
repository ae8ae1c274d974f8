"""Tables as text for people and as values for machines, and their CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from quadbench.artifacts.names import one_line

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_CELL = 20_000  # characters: all notes of a table stand in one caption
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet takes what begins so for a formula, and runs it


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table as text. `numeric` says which columns are set flush right; `notes` go below it."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def plain_cell(text: str) -> str:
    """Return a text, which may be a device's, as a cell has it: on one line, and nothing in it is a code for a terminal."""
    return one_line(text, _LONGEST_CELL)


def csv_cell(text: str) -> str:
    """Return a text as a cell of a CSV file: behind a `'` where a spreadsheet would take it for a formula. Numbers stay."""
    cell = plain_cell(text)
    return f"'{cell}" if cell.startswith(_FORMULA) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


Value: TypeAlias = str | float | None


@dataclass(frozen=True, kw_only=True)
class FigureTable:
    """A table of figures: as people read it, and with full precision, a value or None in each of some fields."""

    text: TextTable
    fields: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]


def to_csv(tables: Sequence[FigureTable]) -> str:
    """Return the rows of tables that have the same fields below one header."""
    return csv_text(tables[0].fields, (row for table in tables for row in table.values))


def csv_text(fields: Iterable[str], rows: Iterable[Iterable[Value]]) -> str:
    """Return rows as CSV, numbers with full precision; a cell without a value is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, fields))
    writer.writerows(map(_cell, row) for row in rows)
    return out.getvalue()


def to_frame(tables: Sequence[FigureTable]) -> "pd.DataFrame":
    """Return the rows of tables that have the same fields as a table of pandas."""
    import pandas as pd

    return pd.DataFrame.from_records([row for table in tables for row in table.values], columns=list(tables[0].fields))


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return csv_cell(value)
    return "" if value is None else repr(value)
