"""Text tables: a table of a report -> its lines on the terminal, its notes below it."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from quadbench.artifacts.names import one_line
from quadbench.cli.console import print_text, stdout_console
from quadbench.report.formatting import TextTable

_UNBOUNDED = 100_000  # characters: as wide as a table would be


def empty_table(*columns: str, whole: Sequence[str] = ()) -> Table:
    """Return a table without rows. Cells of the columns that stay `whole`, as names that are copied, are never broken.

    Where there is too little room the widest of the other columns is broken first, so cells may have several lines.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    return table


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], whole: Sequence[str] = ()) -> None:
    """Print a table of words from anywhere, none of which is markup or has several lines."""
    table = empty_table(*columns, whole=whole)
    for row in rows:
        table.add_row(*map(one_line, row))
    stdout_console().print(table)


def figures_table(*columns: str, title: str | None = None) -> Table:
    """Return a table without rows, of a name and figures that stand at the right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table


def print_text_table(console: Console, table: TextTable) -> None:
    console.print(_printed(table, range(len(table.columns))))
    for note in table.notes:
        print_text(note)


def print_in_parts(console: Console, table: TextTable, keys: int) -> None:
    """Print a table without its notes: where it has no room in parts, each with the first `keys` columns.

    No value is broken, and no word of a column's name, unless a single column has no room.
    """
    title, named, rest = table.title, range(keys), range(keys, len(table.columns))
    whole = _printed(table, range(len(table.columns)))
    if _has_room(console, whole):
        console.print(whole)
        return
    narrow = replace(table, columns=tuple(map(_in_lines, table.columns, zip(*table.rows, strict=True))))
    while rest:
        counts = (n for n in range(len(rest), 1, -1) if _has_room(console, _printed(narrow, [*named, *rest[:n]])))
        count = next(counts, 1)
        console.print(_printed(replace(narrow, title=title), [*named, *rest[:count]]))
        title, rest = "", rest[count:]


def _in_lines(name: str, cells: Sequence[str]) -> str:
    """Return a column's name in lines that are no longer than its cells, as far as its words allow it."""
    width = max(map(cell_len, (*cells, *name.split())))
    return "\n".join(textwrap.wrap(name, width, break_long_words=False, break_on_hyphens=False))


def _has_room(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(max_width=_UNBOUNDED)).maximum <= console.width


def _printed(table: TextTable, columns: Sequence[int]) -> Table:
    """Return some columns of a table as they are printed."""
    printed = Table(title=table.title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for i in columns:
        printed.add_column(table.columns[i], justify="right" if table.numeric[i] else "left", overflow="fold")
    for row in table.rows:
        printed.add_row(*(row[i] for i in columns))
    return printed
