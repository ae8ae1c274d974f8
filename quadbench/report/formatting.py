"""Formatting: values in the units that readers see, terms explained, and tables as text for people and values for machines."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Self, TypeAlias, TypeVar

from quadbench.artifacts import MIB
from quadbench.artifacts.names import one_line

if TYPE_CHECKING:
    import pandas as pd

MORE = ("more", "less")  # the words for a ratio above 1, and for one below
_MOST_TIMES = 100
_MOST_NAMES = 3  # of a list in a sentence

SIDES = (
    "One base with LoRAs, called shared: one quantized U-Net that takes the LoRAs as inputs. One graph per task, called"
    " per-graph: a quantized U-Net for each task, its LoRA merged into the weights, which is loaded at each switch of tasks."
)
RATIO = "Ratio: per-graph / shared; above 1 the shared graph takes less."
RESIDUAL = "Residual: what an image takes beyond its components."
FOUNDATION_ROM = "Foundation ROM: the bytes on the device of all files that a task runs but LoRAs."
TRUTH = "The truth is the picture that would be right. The float model itself paints another, so that figures against it are low."

_MARKS = re.compile("[\ue000\ue001]")  # letters that Unicode leaves to private use
_LONGEST_CELL = 20_000  # characters: all notes of a table stand in one caption
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet takes what begins so for a formula, and runs it

Value: TypeAlias = str | float | None
RowT = TypeVar("RowT")


class Unit(StrEnum):
    """The unit that a figure is shown in; records hold nanoseconds and bytes."""

    MILLISECONDS = "ms"
    MEGABYTES = "MB"


_PER_UNIT = {Unit.MILLISECONDS: 1e6, Unit.MEGABYTES: MIB}


def convert(value: float, unit: Unit) -> float:
    """Convert nanoseconds or bytes to `unit`."""
    return value / _PER_UNIT[unit]


def show(value: float, unit: Unit) -> str:
    """Write nanoseconds or bytes as a number in `unit`, without its name."""
    return number(convert(value, unit))


def number(value: float) -> str:
    """Write a number with about three digits: whole from 100 on, thousands apart."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{decimals}f}"


def times(ratio: float) -> str:
    """Write a ratio as `1.72×`, `14.3×`, `1,999×`."""
    return f"{ratio:,.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}×"


def rough_times(ratio: float) -> str:
    """Write a ratio as `times` does, but beyond 100 only that: there one of the two figures is next to nothing."""
    return f"> {_MOST_TIMES}×" if ratio > _MOST_TIMES else times(ratio)


def change(ratio: float | None, words: tuple[str, str] = MORE) -> str:
    """Write a ratio as `3.1 % more`, or in other words for more and less."""
    return "" if ratio is None else f"{percent(abs(ratio - 1))} {words[0] if ratio > 1 else words[1]}"


def between(low: float, high: float, words: tuple[str, str] = MORE) -> str:
    """Write an interval of ratios as `2.1 to 4.2 % more`, or as `0.5 % less to 3.0 % more` where it holds 1."""
    if (low > 1) is not (high > 1):
        return f"{change(low, words)} to {change(high, words)}"
    near, far = sorted((low, high), key=lambda ratio: abs(ratio - 1))
    return f"{abs(near - 1):.1%} to {change(far, words)}".replace("% to", " to")


def percent(share: float, digits: int = 1) -> str:
    """Write a share as `3.1 %`."""
    return f"{share:.{digits}%}".replace("%", " %")


def decibels(value: float) -> str:
    """Write a PSNR. Records hold at most 99 dB, which stands for equal images too."""
    return "≥ 99 dB" if value >= 99 else f"{value:.1f} dB"


def shown(value: float | None, unit: Unit | None) -> str:
    """Write nanoseconds or bytes in their unit, and what has none as decibels; `–` where there is no figure."""
    return "–" if value is None else show(value, unit) if unit else decibels(value)


def labelled(title: str, unit: str | None) -> str:
    """Return a figure's title with its unit, as far as it has one."""
    return f"{title}, {unit}" if unit else title


def seconds(value: float) -> str:
    """Write a duration of a stage or launch as `12.3 s`, or as `2 min 05 s` from 100 s on."""
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def marked(figure: str) -> str:
    """Mark a figure in a sentence, for whoever sets figures apart."""
    return f"\ue000{figure}\ue001"


def pieces(sentence: str) -> list[str]:
    """Return the pieces of a sentence in their order; the second and every other one after it are marked figures."""
    return _MARKS.split(sentence)


def listed(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Write names as `a, b and c`, those beyond the first ones counted."""
    first, left_out = list(names[:most]), len(names) - most
    if left_out > 0:
        first.append(f"{left_out} more")
    return " and ".join(", ".join(part) for part in (first[:-1], first[-1:]) if part)


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: `1 launch`, `2 launches`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('ch') else 's'}"


@dataclass(frozen=True, kw_only=True)
class Column(Generic[RowT]):
    """A column of a table: its name, what stands in it of a row, and that it is set flush right."""

    name: str
    cell: Callable[[RowT], str]
    is_numeric: bool = False


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table as text. `numeric` says which columns are set flush right; `notes` go below it."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, title: str, columns: Sequence[Column[RowT]], rows: Iterable[RowT], notes: Iterable[str] = ()) -> Self:
        """Make a table of `rows`, with a cell for each of `columns`."""
        return cls(
            title=title,
            columns=tuple(column.name for column in columns),
            numeric=tuple(column.is_numeric for column in columns),
            rows=tuple(tuple(column.cell(row) for column in columns) for row in rows),
            notes=tuple(notes),
        )


def plain_cell(text: str) -> str:
    """Return a text, which may be a device's, as a cell has it: on one line, and nothing in it is a code for a terminal."""
    return one_line(text, _LONGEST_CELL)


def csv_cell(text: str) -> str:
    """Return a text as a cell of a CSV file: behind a `'` where a spreadsheet would take it for a formula. Numbers stay."""
    cell = plain_cell(text)
    if cell.startswith(_FORMULA):
        try:
            float(cell)
        except ValueError:
            return f"'{cell}"
    return cell


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
