"""Charts: numbers -> SVG, drawn here, so that a report needs no script and prints.

Colours stand in the elements and, by class, in style.css, which wins where it is allowed; a chart is readable without it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from unicodedata import east_asian_width
from xml.sax.saxutils import escape

from quadbench.artifacts.names import one_line

Place = tuple[float, float]  # x and y in a picture

INK, FAINT = "#4a4f57", "#d9dce1"
_LETTER_WIDTH, _CAPITAL_WIDTH, _WIDEST = 9.0, 12.0, 15.0  # of 15 pixels, as style.css has them in a small window, in wide fonts
_MOST_LETTERS = 32  # of a name in a chart


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line. Its first `measured` points are drawn solid with dots, the rest dashed."""

    label: str
    css_class: str
    colour: str
    points: tuple[tuple[float, float], ...]
    measured: int


@dataclass(frozen=True, kw_only=True)
class BarPart:
    """A piece of a stacked bar."""

    label: str
    css_class: str
    colour: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stacked bar with its total written behind it. Bars of one group stand together under its name."""

    group: str
    label: str
    parts: tuple[BarPart, ...]
    total_text: str


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str, width: int = 520, height: int = 300) -> str:
    """Draw lines over whole-numbered x, labelled at their ends. Dashed points are said to be extrapolated."""
    left, top, bottom = 46, 36, 40
    right = round(max([88.0, *(16 + label_width(line.label) for line in series)]))
    width += right - 88
    xs = [x for line in series for x, _ in line.points]
    ticks = nice_ticks(max((y for line in series for _, y in line.points), default=1.0))
    first, last = min(xs, default=0.0), max(xs, default=1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.0
        return left + across * (width - left - right), height - bottom - y / ticks[-1] * (height - top - bottom)

    body = [grid_line(at(first, tick), at(last, tick)[0], f"{tick:,g}") for tick in ticks]
    body += [text(at(x, 0)[0], height - bottom + 17, f"{x:g}", anchor="middle") for x in sorted(set(xs))]
    body.append(text((left + width - right) / 2, height - 4, x_label, anchor="middle"))
    body.append(text(left - 8, 14, y_label, anchor="end"))
    body.append(_measured_until(series, at, top, height - bottom))
    drawn = [(line, [at(x, y) for x, y in line.points]) for line in series if line.points]
    labels = apart([spots[-1][1] for _, spots in drawn])
    body += [_line(line, spots, label_y) for (line, spots), label_y in zip(drawn, labels, strict=True)]
    return svg(width, height, title, body)


def stacked_bars(bars: Sequence[Bar], *, title: str, width: int = 560) -> str:
    """Draw horizontal bars on one scale that begins at 0, under their groups' names; `legend` explains their parts."""
    right, bar_pitch, group_gap = 84, 22, 24
    left = round(max([84.0, *(16 + label_width(bar.label) for bar in bars)]))
    longest = max((sum(part.value for part in bar.parts) for bar in bars), default=0.0) or 1.0
    scale = (width - left - right) / longest
    body: list[str] = []
    y, group = 0.0, None
    for bar in bars:
        if bar.group != group:
            body.append(text(0, y + 16, short(bar.group), css_class="group"))
            y, group = y + group_gap, bar.group
        body.append(_bar(bar, float(left), y, scale))
        y += bar_pitch
    return svg(width, round(y) + 2, title, body)


def legend(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return CSS classes with their colours and labels as an HTML list, which wraps where an SVG would not."""
    items = (
        f'<li><svg width="11" height="11" aria-hidden="true"><rect class="{css_class}" width="11" height="11" '
        f'fill="{colour}"/></svg> {_words(label)}</li>'
        for css_class, colour, label in dict.fromkeys(entries)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def apart(ys: Sequence[float], least: float = 13.0) -> list[float]:
    """Return the heights at which labels stand, each moved down until it is this far below the one above it."""
    placed, lowest = list(ys), float("-inf")
    for index in sorted(range(len(ys)), key=lambda i: ys[i]):
        placed[index] = lowest = max(ys[index], lowest + least)
    return placed


def nice_ticks(highest: float, count: int = 4) -> tuple[float, ...]:
    """Return ticks from 0 to at least `highest`: about `count` steps of 1, 2 or 5 times a power of ten."""
    if highest <= 0:
        return (0.0, 1.0)
    rough = highest / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return tuple(step * index for index in range(ceil(highest / step * 0.999) + 1))


def ticks_between(low: float, high: float, least: float) -> tuple[float, ...]:
    """Return two ticks or more, the first at most `low` and the last at least `high`, as for a span of `least` or more."""
    step = nice_ticks(max(high - low, least, abs(low) / 100, abs(high) / 100))[1]
    first, last = floor(low / step), ceil(high / step)
    return tuple(step * index for index in range(first, max(last, first + 1) + 1))


def _line(line: Series, spots: Sequence[tuple[float, float]], label_y: float) -> str:
    solid, dashed = spots[: line.measured], spots[max(line.measured - 1, 0) :]
    parts = [
        path(line.css_class, solid, line.colour, ' stroke-width="2"'),
        path(line.css_class, dashed, line.colour, ' stroke-width="2" stroke-dasharray="5 4"'),
        *(dot(f"{line.css_class} dot", spot, 3.5, line.colour) for spot in solid),
        text(spots[-1][0] + 8, label_y + 4, short(line.label), css_class=line.css_class, colour=line.colour),
    ]
    return "".join(parts)


def _measured_until(series: Sequence[Series], at: Callable[[float, float], tuple[float, float]], top: int, bottom: int) -> str:
    """Draw a rule where what was measured ends and what is extrapolated begins, if there is something on both sides."""
    edges = {line.points[line.measured - 1][0] for line in series if 0 < line.measured < len(line.points)}
    if not edges:
        return ""
    x, _ = at(max(edges), 0)
    return (
        f'<line class="edge" x1="{x:.1f}" y1="{top - 20}" x2="{x:.1f}" y2="{bottom}" stroke="{INK}" stroke-width="0.75"/>'
        f"{text(x - 6, top - 10, 'measured', anchor='end')}{text(x + 6, top - 10, 'extrapolated')}"
    )


def _bar(bar: Bar, left: float, y: float, scale: float) -> str:
    pieces, x = [text(left - 8, y + 12, short(bar.label), anchor="end")], left
    for part in bar.parts:
        length = part.value * scale
        pieces.append(
            f'<rect class="{part.css_class}" x="{x:.2f}" y="{y:.1f}" width="{length:.2f}" height="16" fill="{part.colour}">'
            f"<title>{_words(f'{bar.group}, {bar.label}: {part.label}')}</title></rect>"
        )
        x += length
    return "".join((*pieces, text(x + 6, y + 12, bar.total_text)))


def label_width(words: str) -> float:
    """Return how many pixels a name takes in a chart, at most, as `short` leaves it."""
    return sum(_letter_width(letter) for letter in short(words))


def short(words: str, most: int = _MOST_LETTERS) -> str:
    """Return a name as a chart has room for it: of a long one the end, by which names often differ, and what fits before it."""
    line = one_line(words)
    return line if len(line) <= most else f"{line[: most - most // 3 - 1]}…{line[-(most // 3) :]}"


def _letter_width(letter: str) -> float:
    if letter in "MWmw@%…" or east_asian_width(letter) in "WF":
        return _WIDEST
    return _LETTER_WIDTH if letter.isascii() and not letter.isupper() else _CAPITAL_WIDTH


def text(x: float, y: float, words: str, *, anchor: str = "start", css_class: str = "label", colour: str = INK) -> str:
    """Draw words at a point; `anchor` is SVG's text-anchor."""
    return f'<text class="{css_class} text" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{_words(words)}</text>'


def rule(css_class: str, start: Place, end: Place, colour: str, more: str = "") -> str:
    """Draw a line between two points; `more` are other attributes."""
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{css_class}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'


def grid_line(start: Place, end: float, label: str, colour: str = FAINT) -> str:
    """Draw a horizontal line of the grid, with its label on its left."""
    return f"{rule('grid', start, (end, start[1]), colour)}{text(start[0] - 8, start[1] + 4, label, anchor='end')}"


def path(css_class: str, spots: Iterable[Place], colour: str, more: str = "") -> str:
    """Draw straight lines from point to point; `more` are other attributes."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    return f'<polyline class="{css_class}" fill="none" stroke="{colour}"{more} points="{points}"/>'


def dot(css_class: str, place: Place, radius: float, colour: str, more: str = "") -> str:
    """Draw a filled circle; `more` are other attributes."""
    return f'<circle class="{css_class}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:g}" fill="{colour}"{more}/>'


def svg(width: int, height: int, title: str, body: Sequence[str]) -> str:
    """Return a whole SVG picture; its title names it for readers who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{_words(title)}</title>{"".join(body)}</svg>'
    )


def _words(text: str) -> str:
    """Return a text, which may be a device's, as SVG holds it."""
    return escape(one_line(text))
