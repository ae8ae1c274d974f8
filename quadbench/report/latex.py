"""LaTeX: a table of text -> the same for booktabs, as wide as a page at most, or long; none of its text is a command."""

import re
from collections.abc import Sequence

from quadbench.report.text_table import TextTable, plain_cell

PACKAGES = r"\usepackage[T1]{fontenc} \usepackage{array,booktabs,longtable,pdflscape}"
# Letters of \footnotesize (4.4 pt) across the text of `article`, 345 pt, the narrowest in use, and along it, 550 pt.
_ACROSS, _ALONG = 78, 125
_BETWEEN = 1.4  # letters between two columns, twice 3 pt
_NARROW = 14  # letters of a column that is never broken, and that one that is broken has at least
_MOST_ROWS = 20  # of a table that LaTeX may move: with its caption, and each row on two lines, they fit on a page


def to_latex(table: TextTable) -> str:
    """Return a table with its caption: one that LaTeX moves to where there is room, or a `longtable` where it is long.

    Columns of words are broken where they would not fit. What is too wide even so lies along the page. The first line, a comment,
    names the packages that it takes.
    """
    columns, is_wide = _columns(table)
    head = _row(table.columns)
    caption = rf"\caption[{{{_text(table.title)}}}]{{{_text(' '.join((f'{table.title}.', *table.notes)))}}}"
    rows = [_row(row) for row in table.rows]
    setting = r"\footnotesize\setlength{\tabcolsep}{3pt}"
    if len(rows) > _MOST_ROWS:
        lines = [
            rf"\begingroup{setting}\setlength{{\LTcapwidth}}{{\linewidth}}",
            rf"\begin{{longtable}}{{{columns}}}",
            rf"{caption} \\",
            *(r"\toprule", head, r"\midrule", r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead"),
            *(*rows, r"\bottomrule", r"\end{longtable}", r"\endgroup"),
        ]
    else:
        lines = [r"\begin{table}", rf"{setting}\centering", caption, rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    if is_wide:
        lines = [r"\begin{landscape}", *lines, r"\end{landscape}"]
    return "\n".join([f"% {PACKAGES}", *lines]) + "\n"


def _columns(table: TextTable) -> tuple[str, bool]:
    """Return the kinds of the columns, and that they take the length of a page."""
    cells = zip(table.columns, *table.rows, strict=True)
    widths = [max(len(plain_cell(cell)) for cell in column) for column in cells]
    broken = [width > _NARROW and not numeric for width, numeric in zip(widths, table.numeric, strict=True)]
    least = sum(_NARROW if is_broken else width for width, is_broken in zip(widths, broken, strict=True))
    between = _BETWEEN * len(widths)
    is_wide = least + between > _ACROSS
    room = (_ALONG if is_wide else _ACROSS) - between
    if sum(widths) <= room:
        return "".join("r" if numeric else "l" for numeric in table.numeric), is_wide
    wanted = sum(width - _NARROW for width, is_broken in zip(widths, broken, strict=True) if is_broken)
    kinds = []
    for width, is_broken, numeric in zip(widths, broken, table.numeric, strict=True):
        share = (_NARROW + (width - _NARROW) / wanted * max(room - least, 0)) / (room + between) if is_broken else 0
        broken_kind = rf">{{\raggedright\arraybackslash}}p{{{share:.3f}\linewidth}}"
        kinds.append(broken_kind if is_broken else "r" if numeric else "l")
    return "".join(kinds), is_wide


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_text, cells)) + r" \\"


_FIRST_UNSET = 0x180  # behind Latin's extensions, of which T1 sets all but these
_UNSET = "ĦħĸĿŀŉŦŧſ"
_COMMANDS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "*": "{*}",
    "×": r"$\times$", "−": "$-$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\rightarrow$",
    "–": r"\textendash{}", "…": r"\ldots{}", "•": r"\textbullet{}",
}  # fmt: skip


def _text(text: str) -> str:
    """Return a text as LaTeX sets it, letter by letter; one that fonts of Latin scripts lack stands as its number."""
    return re.sub(r"([-,])(?=\1)", r"\1{}", "".join(map(_letter, plain_cell(text))))  # `--` would be set as a dash


def _letter(letter: str) -> str:
    if command := _COMMANDS.get(letter):
        return command
    return letter if ord(letter) < _FIRST_UNSET and letter not in _UNSET else f"(U+{ord(letter):04X})"
