"""Numbers from the tables of the QUAD paper, which reports show beside measured values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from quadbench.errors import UnknownNameError

SOURCE = "QUAD paper (arXiv 2603.29535, CC BY 4.0)"
CAVEAT = "measured with another model on other hardware; compare only figures that quadbench measured on one device"
_SHARE = "int8_percent"
_LABELS = ("task", "device", "sampler", _SHARE)


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a table in the QUAD paper. `task`, `device` and `sampler` are None if the table has no column for them.

    All three are quadbench's names. `int8_percent` is the row's percentage of 8-bit parameters, None if all rows have the same.
    """

    task: str | None
    device: str | None
    sampler: str | None
    int8_percent: float | None
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table as printed in the QUAD paper. The names of its values contain the units: milliseconds, MB or dB."""

    name: str
    title: str
    rows: tuple[PublishedRow, ...]

    @property
    def note(self) -> str:
        """Return a sentence for reports that cites the paper's table and warns that the paper used another model and hardware."""
        return f"Published: {SOURCE}, {self.title}; {CAVEAT}."

    @property
    def int8_shares(self) -> tuple[float, ...]:
        """Return the distinct percentages of 8-bit parameters in the table, as a sorted tuple. Skip rows without a percentage."""
        return tuple(sorted({row.int8_percent for row in self.rows if row.int8_percent is not None}))

    def at(self, int8_percent: float) -> "PublishedTable":
        """Return a PublishedTable with the rows of the given percentage of 8-bit parameters and the rows that state none."""
        return replace(self, rows=tuple(row for row in self.rows if row.int8_percent in (None, int8_percent)))

    def figure(self, key: str, *, task: str, device: str | None = None) -> float | None:
        """Return the published value of the metric `key` for a task and a device profile; None if the table lacks it."""
        for row in self.rows:
            if row.task in (None, task) and row.device in (None, device) and key in row.figures:
                return row.figures[key]
        return None


def published_table(name: str) -> PublishedTable:
    """Return a PublishedTable: the values printed in a table of the QUAD paper. `name` is its key, such as `quad-table-1`.

    Raises:
        UnknownNameError: no table has this name.
    """
    tables = _tables()
    if name not in tables:
        raise UnknownNameError("published table", name, tables)
    return tables[name]


def published_names() -> tuple[str, ...]:
    """Return the names of the QUAD paper's tables that reports can show, such as `quad-table-1`."""
    return tuple(_tables())


@cache
def _tables() -> dict[str, PublishedTable]:
    read = yaml.safe_load((Path(__file__).parent / "quad.yaml").read_text())
    return {name: PublishedTable(name=name, title=of["title"], rows=tuple(map(_row, of["rows"]))) for name, of in read.items()}


def _row(line: Mapping[str, str | float]) -> PublishedRow:
    figures = {key: float(value) for key, value in line.items() if key not in _LABELS}
    task, device, sampler = (None if (label := line.get(key)) is None else str(label) for key in ("task", "device", "sampler"))
    share = float(line[_SHARE]) if _SHARE in line else None
    return PublishedRow(task=task, device=device, sampler=sampler, int8_percent=share, figures=figures)
