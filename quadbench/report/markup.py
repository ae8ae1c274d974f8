"""Markup: a table of text -> the same in Markdown or HTML, in which no text of it is markup."""

from collections.abc import Sequence

from quadbench.report.page import page_environment
from quadbench.report.text_table import TextTable, plain_cell


def to_markdown(table: TextTable) -> str:
    """Return a GitHub table with its notes below."""
    lines = [f"**{_markdown(table.title)}**", "", _pipes([_markdown(column) for column in table.columns])]
    lines.append(_pipes(["---:" if numeric else "---" for numeric in table.numeric]))
    lines += [_pipes([_markdown(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes)]) + "\n"


def to_html(table: TextTable) -> str:
    """Return a `table` element with its notes below, to be put in a page."""
    return page_environment({}).get_template("table.html.j2").render(table=table)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]&~#$" else letter for letter in plain_cell(text))
