"""Text tables: a table of a report -> its lines on the terminal, its notes below it."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from quadbench.cli.console import print_text
from quadbench.report.text_table import TextTable


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
