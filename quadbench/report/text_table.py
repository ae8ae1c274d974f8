"""Text table: what every table of the report is as text, whatever it is written as, and what text may stand in its cells."""

from dataclasses import dataclass

from quadbench.artifacts.device_text import one_line

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
