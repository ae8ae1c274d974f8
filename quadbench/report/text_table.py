"""Text table: what every table of the report is as text, whatever it is written as."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table as text. `numeric` says which columns are set flush right; `notes` go below it."""

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
