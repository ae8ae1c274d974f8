"""Markup: a table of text -> the same in Markdown, LaTeX or HTML, in which no text of it is markup."""

from collections.abc import Sequence

from quadbench.report.page import page_environment
from quadbench.report.text_table import TextTable, plain_cell


def to_markdown(table: TextTable) -> str:
    """Return a GitHub table with its notes below."""
    lines = [f"**{_markdown(table.title)}**", "", _pipes([_markdown(column) for column in table.columns])]
    lines.append(_pipes(["---:" if numeric else "---" for numeric in table.numeric]))
    lines += [_pipes([_markdown(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes)]) + "\n"


def to_latex(table: TextTable) -> str:
    """Return a `tabular` for booktabs with its caption."""
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    rows = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in table.rows]
    caption = _latex(" ".join((f"{table.title}.", *table.notes)))
    head = " & ".join(_latex(column) for column in table.columns) + r" \\"
    lines = [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def to_html(table: TextTable) -> str:
    """Return a `table` element with its notes below, to be put in a page."""
    return page_environment({}).get_template("table.html.j2").render(table=table)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]&~#$" else letter for letter in plain_cell(text))


_FIRST_UNSET = 0x180  # behind Latin's extensions, which every LaTeX has
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--",
    "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "*": "{*}",
    "²": r"\textsuperscript{2}", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "…": r"\ldots{}",
}  # fmt: skip


def _latex(text: str) -> str:
    """Return a text as LaTeX sets it; a letter that fonts of Latin scripts lack stands as its number."""
    return "".join(
        _LATEX.get(letter) or (letter if ord(letter) < _FIRST_UNSET else f"(U+{ord(letter):04X})") for letter in plain_cell(text)
    )
