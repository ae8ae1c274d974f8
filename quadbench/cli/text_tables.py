"""Text tables: a table of a report -> its lines on the terminal, its notes below it."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from quadbench.cli.console import print_text
from quadbench.report.text_table import TextTable


def empty_table(*columns: str, whole: Sequence[str] = ()) -> Table:
    """Return a table without rows. Cells of the columns that stay `whole`, as names that are copied, are never broken.

    Where there is too little room the widest of the other columns is broken first, so cells may have several lines.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    return table


def print_text_table(console: Console, table: TextTable) -> None:
    """Print a table."""
    printed = Table(title=table.title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for name, is_numeric in zip(table.columns, table.numeric, strict=True):
        printed.add_column(name, justify="right" if is_numeric else "left", overflow="fold")
    for row in table.rows:
        printed.add_row(*row)
    console.print(printed)
    for note in table.notes:
        print_text(note)
