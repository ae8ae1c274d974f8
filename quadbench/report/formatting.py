"""Formatting for reports: numbers with units, text tables, Markdown, CSV, data frames. Constants hold table notes, as `RATIO`."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Self, TypeAlias, TypeVar

from quadbench.artifacts import MIB
from quadbench.artifacts.safe_text import one_line

if TYPE_CHECKING:
    import pandas as pd

MORE = ("more", "less")  # the words for a ratio above 1, and for one below
_MAX_TIMES = 100
_MAX_NAMES = 3  # of a list in a sentence

SIDES = (
    "One base with LoRAs, called shared: one quantized U-Net that takes the LoRAs as inputs. One graph per task, called"
    " per-graph: a quantized U-Net for each task with its LoRA merged into the weights, loaded at each task switch."
)
RATIO = "Ratio: per-graph / shared; above 1 the shared graph takes less."
RESIDUAL = "Residual: the time of an image beyond that of its components."
FOUNDATION_ROM = "Foundation ROM: the bytes on the device of all files that a task needs, except LoRAs."
TRUTH = "The truth is the ground-truth picture. Even the float model's picture differs from it, so PSNR against it is low."

_MARKS = re.compile("[\ue000\ue001]")  # private-use characters of Unicode
_MAX_CELL_LENGTH = 20_000  # characters
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet runs text with such a first character as a formula

Value: TypeAlias = str | float | None
RowT = TypeVar("RowT")


class Unit(StrEnum):
    """The unit in which reports show a value: ms or MB. Stored records have nanoseconds and bytes."""

    MILLISECONDS = "ms"
    MEGABYTES = "MB"


_PER_UNIT = {Unit.MILLISECONDS: 1e6, Unit.MEGABYTES: MIB}


def convert(value: float, unit: Unit) -> float:
    """Convert nanoseconds or bytes to `unit`."""
    return value / _PER_UNIT[unit]


def show(value: float, unit: Unit) -> str:
    """Convert a value in nanoseconds or bytes to `unit`, and return the number as text without the unit's name."""
    return number(convert(value, unit))


def number(value: float) -> str:
    """Format a number with about three significant digits; from 100 on as an integer with thousands separators."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{decimals}f}"


def times(ratio: float) -> str:
    """Format a ratio, such as `1.72×`, `14.3×`, `1,999×`."""
    return f"{ratio:,.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}×"


def rough_times(ratio: float) -> str:
    """Format a ratio, such as `1.72×`. Above 100 return `> 100×`: the divisor is then almost zero, and the ratio means little."""
    return f"> {_MAX_TIMES}×" if ratio > _MAX_TIMES else times(ratio)


def change(ratio: float | None, words: tuple[str, str] = MORE) -> str:
    """Format a ratio as a change: 1.031 gives `3.1 % more`, None an empty text. `words` replaces the pair (`more`, `less`)."""
    return "" if ratio is None else f"{percent(abs(ratio - 1))} {words[0] if ratio > 1 else words[1]}"


def between(low: float, high: float, words: tuple[str, str] = MORE) -> str:
    """Format an interval of ratios as changes. For example, 0.995 to 1.030 gives `0.5 % less to 3.0 % more`."""
    if (low > 1) is not (high > 1):
        return f"{change(low, words)} to {change(high, words)}"
    near, far = sorted((low, high), key=lambda ratio: abs(ratio - 1))
    return f"{abs(near - 1):.1%} to {change(far, words)}".replace("% to", " to")


def percent(share: float, digits: int = 1) -> str:
    """Format a fraction as a percentage, such as `3.1 %`."""
    return f"{share:.{digits}%}".replace("%", " %")


def decibels(value: float) -> str:
    """Format a PSNR value. From 99 dB on it is `≥ 99 dB`, because records store at most 99 dB, even for equal images."""
    return "≥ 99 dB" if value >= 99 else f"{value:.1f} dB"


def display(value: float | None, unit: Unit | None) -> str:
    """Format nanoseconds or bytes as a number in `unit` (ms or MB). Without `unit`, format a PSNR in dB. Format None as `–`."""
    return "–" if value is None else show(value, unit) if unit else decibels(value)


def labelled(title: str, unit: str | None) -> str:
    """Return a metric's title followed by its unit, if it has one."""
    return f"{title}, {unit}" if unit else title


def seconds(value: float) -> str:
    """Format a duration, such as `12.3 s`, or `2 min 05 s` from 100 s on."""
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def mark_figure(figure: str) -> str:
    """Enclose the text of a measured value in marker characters, so that a page can set it in bold."""
    return f"\ue000{figure}\ue001"


def pieces(sentence: str) -> list[str]:
    """Split a sentence at value markers to a list. Indexes 0, 2, ... hold plain text; indexes 1, 3, ... hold marked values."""
    return _MARKS.split(sentence)


def join_names(names: Sequence[str], most: int = _MAX_NAMES) -> str:
    """Join names as `a, b and c`. Names after the first `most` are counted: `a, b, c and 2 more`."""
    first, left_out = list(names[:most]), len(names) - most
    if left_out > 0:
        first.append(f"{left_out} more")
    return " and ".join(", ".join(part) for part in (first[:-1], first[-1:]) if part)


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: `1 launch`, `2 launches`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('ch') else 's'}"


@dataclass(frozen=True, kw_only=True)
class Column(Generic[RowT]):
    """A table column. `name` is its heading. The function `cell` returns a row's text. `is_numeric` aligns the text right."""

    name: str
    cell: Callable[[RowT], str]
    is_numeric: bool = False


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table of text cells. `numeric` has one boolean per column: whether to align it right. `notes` go below the table."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, title: str, columns: Sequence[Column[RowT]], rows: Iterable[RowT], notes: Iterable[str] = ()) -> Self:
        """Build a table with one row of text for each of `rows` and one cell for each of `columns`."""
        return cls(
            title=title,
            columns=tuple(column.name for column in columns),
            numeric=tuple(column.is_numeric for column in columns),
            rows=tuple(tuple(column.cell(row) for column in columns) for row in rows),
            notes=tuple(notes),
        )

    @classmethod
    def of_words(cls, title: str, columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Self:
        """Build a table whose columns hold text only and are all left-aligned."""
        return cls(title=title, columns=tuple(columns), numeric=(False,) * len(columns), rows=tuple(rows))


def plain_cell(text: str) -> str:
    """Return cell text, which may come from a device, as one line without terminal control codes."""
    return one_line(text, _MAX_CELL_LENGTH)


def csv_cell(text: str) -> str:
    """Return text for a CSV cell, prefixed with `'` if a spreadsheet would run it as a formula. Numbers (`-3`) are unchanged."""
    cell = plain_cell(text)
    if cell.startswith(_FORMULA):
        try:
            float(cell)
        except ValueError:
            return f"'{cell}"
    return cell


def to_markdown(table: TextTable) -> str:
    """Return the table as GitHub Markdown with its notes below."""
    lines = [f"**{_markdown(table.title)}**", "", _pipes([_markdown(column) for column in table.columns])]
    lines.append(_pipes(["---:" if numeric else "---" for numeric in table.numeric]))
    lines += [_pipes([_markdown(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes)]) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]&~#$" else letter for letter in plain_cell(text))


@dataclass(frozen=True, kw_only=True)
class FigureTable:
    """A table as formatted `text` and, for export, as `values`: in each row, one unrounded value or None per name in `fields`."""

    text: TextTable
    fields: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]


def to_csv(tables: Sequence[FigureTable]) -> str:
    """Return one CSV text with the rows of all tables. The tables must have the same fields."""
    return csv_text(tables[0].fields, (row for table in tables for row in table.values))


def csv_text(fields: Iterable[str], rows: Iterable[Iterable[Value]]) -> str:
    """Return CSV text: a header with `fields`, and one line for each of `rows`. Numbers are unrounded. None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, fields))
    writer.writerows([csv_cell(v) if isinstance(v, str) else "" if v is None else repr(v) for v in row] for row in rows)
    return out.getvalue()


def to_frame(tables: Sequence[FigureTable]) -> "pd.DataFrame":
    """Return one pandas data frame with the rows of all tables. The tables must have the same fields."""
    import pandas as pd

    return pd.DataFrame.from_records([row for table in tables for row in table.values], columns=list(tables[0].fields))
