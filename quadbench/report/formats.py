"""Export of a text table to Markdown, HTML and LaTeX (booktabs), with all cell text escaped."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quadbench.report.formatting import TextTable, plain_cell
from quadbench.report.page import page_environment

PACKAGES = r"\usepackage[T1]{fontenc} \usepackage{array,booktabs,longtable,pdflscape}"
# Letters of \footnotesize (4.4 pt) in the text area of `article`: 345 pt wide, the narrowest in use, and 550 pt high.
_ACROSS, _ALONG = 77, 125
_NARROW = 14  # letters: narrower columns never wrap, and wrapped columns have at least this width
_MAX_ROWS = 20  # of a floating table, which fits on a page even with its caption and two-line rows

_FIRST_UNSET = 0x180  # T1 fonts have the Latin letters below this, except for _UNSET
_UNSET = "ĦħĸĿŀŉŦŧſ"
_COMMANDS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "*": "{*}",
    "×": r"$\times$", "−": "$-$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\rightarrow$",
    "–": r"\textendash{}", "…": r"\ldots{}", "•": r"\textbullet{}",
}  # fmt: skip


def to_markdown(table: TextTable) -> str:
    """Return the table as GitHub Markdown with its notes below."""
    lines = [f"**{_markdown(table.title)}**", "", _pipes([_markdown(column) for column in table.columns])]
    lines.append(_pipes(["---:" if numeric else "---" for numeric in table.numeric]))
    lines += [_pipes([_markdown(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes)]) + "\n"


def to_html(table: TextTable) -> str:
    """Return the table as an HTML `table` element with its notes below."""
    return page_environment().get_template("table.html.j2").render(table=table)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]&~#$" else letter for letter in plain_cell(text))


@dataclass(frozen=True, kw_only=True)
class _Size:
    """A font size of LaTeX tables. `command` sets it. `letter` is the width of a letter relative to the largest size: 0.80 for a
    digit of 3.40 instead of 4.25 points. `between` is the gap between columns, in letter widths of the largest size.
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
    """The layout of a LaTeX table: header row, column types, font size, and whether it is landscape (`is_wide`)."""

    head: str
    columns: str
    size: str
    is_wide: bool


def to_latex(table: TextTable) -> str:
    """Return the table as LaTeX with a caption: a floating `table`, or a `longtable` if it has many rows.
    Text columns and column heads wrap where they would not fit. Tables that are still too wide are landscape, in a smaller font
    if needed. The first line is a comment that names the required packages.
    """
    layout = _layout(table)
    columns, head = layout.columns, layout.head
    caption = rf"\caption[{{{_text(table.title)}}}]{{{_text(' '.join((f'{table.title}.', *table.notes)))}}}"
    rows = [_row(map(_text, row)) for row in table.rows]
    if len(rows) > _MAX_ROWS:
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
    """Wrap a column head into lines as wide as the column's cells, or as the head's longest word if that is wider."""
    longest = max(map(len, re.split(r"\s+|(?<=-)", head)))
    return tuple(textwrap.wrap(head, max(width, longest, 1), break_long_words=False)) or (head,)


def _stacked(lines: Sequence[str]) -> str:
    joined = r" \\ ".join(map(_text, lines))
    return rf"\shortstack[r]{{{joined}}}" if len(lines) > 1 else joined


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _text(text: str) -> str:
    """Escape text for LaTeX. A character that the fonts lack is written as its code point, such as `(U+4E2D)`."""
    return re.sub(r"([-,])(?=\1)", r"\1{}", "".join(map(_letter, plain_cell(text))))  # `--` would be set as a dash


def _letter(letter: str) -> str:
    if command := _COMMANDS.get(letter):
        return command
    return letter if ord(letter) < _FIRST_UNSET and letter not in _UNSET else f"(U+{ord(letter):04X})"
