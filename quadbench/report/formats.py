"""A table of text -> Markdown, HTML or LaTeX (booktabs). No text of it is markup."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quadbench.report.formatting import TextTable, plain_cell
from quadbench.report.page import page_environment

PACKAGES = r"\usepackage[T1]{fontenc} \usepackage{array,booktabs,longtable,pdflscape}"
# Letters of \footnotesize (4.4 pt) across the text of `article`, 345 pt, the narrowest in use, and along it, 550 pt.
_ACROSS, _ALONG = 77, 125
_NARROW = 14  # letters of a column that is never broken, and that one that is broken has at least
_MOST_ROWS = 20  # of a table that LaTeX may move: with its caption, and each row on two lines, they fit on a page

_FIRST_UNSET = 0x180  # behind Latin's extensions, of which T1 sets all but these
_UNSET = "ĦħĸĿŀŉŦŧſ"
_COMMANDS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "*": "{*}",
    "×": r"$\times$", "−": "$-$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\rightarrow$",
    "–": r"\textendash{}", "…": r"\ldots{}", "•": r"\textbullet{}",
}  # fmt: skip


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


@dataclass(frozen=True, kw_only=True)
class _Size:
    """A size of letters: its command, the width of a letter, and the room between two columns, in letters of the largest size.

    Computer Modern's small letters are wider for their height: digits of 8, 7, 6 and 5 points have 4.25, 3.99, 3.67 and 3.40.
    """

    command: str
    letter: float
    between: float


_SIZES = (
    _Size(command=r"\footnotesize\setlength{\tabcolsep}{3pt}", letter=1.0, between=1.4),
    _Size(command=r"\scriptsize\setlength{\tabcolsep}{2pt}", letter=0.94, between=0.9),
    _Size(command=r"\fontsize{6}{7}\selectfont\setlength{\tabcolsep}{2pt}", letter=0.87, between=0.9),
    _Size(command=r"\tiny\setlength{\tabcolsep}{2pt}", letter=0.8, between=0.9),
)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The head of a table, the kinds of its columns and the size of its letters, and that it takes the length of a page."""

    head: str
    columns: str
    size: str
    is_wide: bool


def to_latex(table: TextTable) -> str:
    """Return a table with its caption: one that LaTeX moves to where there is room, or a `longtable` where it is long.

    Columns of words and heads of figures are broken where they would not fit. What is too wide even so lies along the page, in
    smaller letters if it must. The first line, a comment, names the packages that it takes.
    """
    layout = _layout(table)
    columns, head = layout.columns, layout.head
    caption = rf"\caption[{{{_text(table.title)}}}]{{{_text(' '.join((f'{table.title}.', *table.notes)))}}}"
    rows = [_row(map(_text, row)) for row in table.rows]
    if len(rows) > _MOST_ROWS:
        lines = [
            rf"\begingroup{layout.size}\setlength{{\LTcapwidth}}{{\linewidth}}",
            rf"\begin{{longtable}}{{{columns}}}",
            rf"{caption} \\",
            *(r"\toprule", head, r"\midrule", r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead"),
            *(*rows, r"\bottomrule", r"\end{longtable}", r"\endgroup"),
        ]
    else:
        lines = [r"\begin{table}", rf"{layout.size}\centering", caption, rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    if layout.is_wide:
        lines = [r"\begin{landscape}", *lines, r"\end{landscape}"]
    return "\n".join([f"% {PACKAGES}", *lines]) + "\n"


def _layout(table: TextTable) -> _Layout:
    count, largest = len(table.columns), _SIZES[0]
    heads: list[tuple[str, ...]] = [(plain_cell(name),) for name in table.columns]
    cells = [max((len(plain_cell(row[index])) for row in table.rows), default=0) for index in range(count)]
    if sum(map(_width, heads, cells)) + largest.between * count > _ACROSS:
        columns = zip(heads, cells, table.numeric, strict=True)
        heads = [_broken(head[0], cell) if numeric else head for head, cell, numeric in columns]
    widths = list(map(_width, heads, cells))
    is_words = [width > _NARROW and not numeric for width, numeric in zip(widths, table.numeric, strict=True)]
    least = sum(_NARROW if words else width for width, words in zip(widths, is_words, strict=True))
    is_wide = least + largest.between * count > _ACROSS
    across = _ALONG if is_wide else _ACROSS
    size = next((size for size in _SIZES if least * size.letter + size.between * count <= across), _SIZES[-1])
    left = max((across - size.between * count) / size.letter - least, 0)
    wanted = sum(width - _NARROW for width, words in zip(widths, is_words, strict=True) if words)
    kinds = ["r" if numeric else "l" for numeric in table.numeric]
    if wanted > left:
        shares = [(_NARROW + (width - _NARROW) / wanted * left) * size.letter / across for width in widths]
        kinds = [
            rf">{{\raggedright\arraybackslash}}p{{{share:.3f}\linewidth}}" if words else kind
            for kind, share, words in zip(kinds, shares, is_words, strict=True)
        ]
    return _Layout(head=_row(map(_stacked, heads)), columns="".join(kinds), size=size.command, is_wide=is_wide)


def _width(head: Sequence[str], cell: int) -> int:
    return max(cell, *map(len, head))


def _broken(head: str, width: int) -> tuple[str, ...]:
    """Return the lines of a head that is no wider than its cells, or than its longest word."""
    longest = max(map(len, re.split(r"\s+|(?<=-)", head)))
    return tuple(textwrap.wrap(head, max(width, longest, 1), break_long_words=False)) or (head,)


def _stacked(lines: Sequence[str]) -> str:
    joined = r" \\ ".join(map(_text, lines))
    return rf"\shortstack[r]{{{joined}}}" if len(lines) > 1 else joined


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _text(text: str) -> str:
    """Return a text as LaTeX sets it, letter by letter; one that fonts of Latin scripts lack stands as its number."""
    return re.sub(r"([-,])(?=\1)", r"\1{}", "".join(map(_letter, plain_cell(text))))  # `--` would be set as a dash


def _letter(letter: str) -> str:
    if command := _COMMANDS.get(letter):
        return command
    return letter if ord(letter) < _FIRST_UNSET and letter not in _UNSET else f"(U+{ord(letter):04X})"
