"""SVG charts for HTML reports, written without a plotting library. The charts have no scripts and so appear in print.

Each element has a colour and a CSS class. style.css may override the colour; a chart is readable without it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from unicodedata import east_asian_width
from xml.sax.saxutils import escape

from quadbench.artifacts.safe_text import one_line

Place = tuple[float, float]  # x and y in pixels

INK, FAINT = "#4a4f57", "#d9dce1"
_LETTER_WIDTH, _CAPITAL_WIDTH, _WIDEST = 9.0, 12.0, 15.0  # pixels in wide fonts at the 15 px of style.css in small windows
_MAX_LETTERS = 32  # of a label


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart. Its first `measured` points (default: all) are solid with dots. The rest is extrapolated and dashed."""

    label: str
    css_class: str
    colour: str
    points: Sequence[Place]
    measured: int | None = None

    @property
    def solid(self) -> Sequence[Place]:
        """Return the measured points of the series as (x, y) data values. A solid line joins them in the chart."""
        return self.points[: self.measured]


@dataclass(frozen=True, kw_only=True)
class BarPart:
    """One segment of a stacked bar: its label, CSS class, colour and value."""

    label: str
    css_class: str
    colour: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stacked horizontal bar with its total beside it. Consecutive bars with the same `group` share a heading."""

    group: str
    label: str
    parts: tuple[BarPart, ...]
    total_text: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A chart's plot area in pixels, and the data ranges `xs` and `ys` of its axes. Values out of range are drawn at the edge."""

    left: float
    right: float
    top: float
    bottom: float
    xs: tuple[float, float] = (0.0, 1.0)
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        """Convert a data value to its horizontal pixel position."""
        return self.left + _share(value, self.xs) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Convert a data value to its vertical pixel position."""
        return self.bottom - _share(value, self.ys) * (self.bottom - self.top)

    def at(self, x: float, y: float) -> Place:
        """Convert a data point (x, y) to a pixel position (x, y)."""
        return self.x(x), self.y(y)

    def rows(self, ticks: Iterable[float], write: Callable[[float], str] = "{:,g}".format, colour: str = FAINT) -> Iterator[str]:
        """Yield SVG elements: a horizontal grid line for each tick value, and the value as text to the left of the line."""
        for tick in ticks:
            y = self.y(tick)
            yield rule("grid", (self.left, y), (self.x(self.xs[1]), y), colour)
            yield text(self.left - 8, y + 4, write(tick), anchor="end")

    def columns(self, ticks: Iterable[float], below: float = 17) -> Iterator[str]:
        """Yield SVG text elements: the tick values of the horizontal axis, `below` pixels under the plot area."""
        return (text(self.x(tick), self.bottom + below, f"{tick:g}", anchor="middle") for tick in ticks)

    def caption(self, words: str, y: float) -> str:
        """Return the label of the horizontal axis as an SVG text element, centred under the plot area at pixel height `y`."""
        return text((self.left + self.right) / 2, y, words, anchor="middle")

    def line(self, css_class: str, spots: Iterable[Place], colour: str, more: str = "") -> str:
        """Return an SVG polyline through data points. `more` is text of further attributes, such as ` stroke-width="2"`."""
        return path(css_class, itertools.starmap(self.at, spots), colour, more)


def _share(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return (min(max(value, low), high) - low) / (high - low) if high > low else 0.0


def padded_range(values: Sequence[float], least: float = 0.0) -> tuple[float, float]:
    """Return an axis range (low, high): the range of `values`, extended at each end by a margin. The margin is the largest of
    `least` (in the unit of the values), 15 % of the span, and 2 % of the highest value. If all three are 0, the margin is 1.
    """
    room = max(0.15 * (max(values) - min(values)), 0.02 * abs(max(values)), least) or 1.0
    return min(values) - room, max(values) + room


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str, width: int = 520, height: int = 300) -> str:
    """Return an SVG chart of lines over integer x values. A vertical line separates measured points from extrapolated points."""
    right = round(max([88.0, *(16 + label_width(line.label) for line in series)]))
    width += right - 88
    xs = sorted({x for line in series for x, _ in line.points})
    ticks = nice_ticks(max((y for line in series for _, y in line.points), default=1.0))
    ends = (xs[0], xs[-1]) if xs else (0.0, 1.0)
    plot = Plot(left=46, right=width - right, top=36, bottom=height - 40, xs=ends, ys=(0.0, ticks[-1]))
    body = [
        *plot.rows(ticks),
        *plot.columns(xs),
        plot.caption(x_label, height - 4),
        text(plot.left - 8, 14, y_label, anchor="end"),
    ]
    edges = {line.solid[-1][0] for line in series if 0 < len(line.solid) < len(line.points)}
    if edges:  # a rule where what was measured ends and what is extrapolated begins
        x = plot.x(max(edges))
        words = f"{text(x - 6, plot.top - 10, 'measured', anchor='end')}{text(x + 6, plot.top - 10, 'extrapolated')}"
        body += [rule("edge", (x, plot.top - 20), (x, plot.bottom), INK, ' stroke-width="0.75"'), words]
    drawn = [line for line in series if line.points]
    labels = spread_labels([plot.y(line.points[-1][1]) for line in drawn])
    for line, label_y in zip(drawn, labels, strict=True):
        dashed = line.points[max(len(line.solid) - 1, 0) :]
        body += [
            plot.line(line.css_class, line.solid, line.colour, ' stroke-width="2"'),
            plot.line(line.css_class, dashed, line.colour, ' stroke-width="2" stroke-dasharray="5 4"'),
            *(dot(f"{line.css_class} dot", plot.at(*spot), 3.5, line.colour) for spot in line.solid),
            text(plot.x(line.points[-1][0]) + 8, label_y + 4, short(line.label), css_class=line.css_class, colour=line.colour),
        ]
    return svg(width, height, title, body)


def stacked_bars(bars: Sequence[Bar], *, title: str) -> str:
    """Return an SVG chart, without a legend, of stacked horizontal bars under group headings. All bars have the same scale."""
    width, right, bar_pitch, group_gap = 560, 84, 22, 24
    left = round(max([84.0, *(16 + label_width(bar.label) for bar in bars)]))
    longest = max((sum(part.value for part in bar.parts) for bar in bars), default=0.0) or 1.0
    scale = (width - left - right) / longest
    body: list[str] = []
    y, group = 0.0, None
    for bar in bars:
        if bar.group != group:
            body.append(text(0, y + 16, short(bar.group), css_class="group"))
            y, group = y + group_gap, bar.group
        body.append(text(left - 8, y + 12, short(bar.label), anchor="end"))
        x = float(left)
        for part in bar.parts:
            length = part.value * scale
            body.append(
                f'<rect class="{part.css_class}" x="{x:.2f}" y="{y:.1f}" width="{length:.2f}" height="16" fill="{part.colour}">'
                f"<title>{_words(f'{bar.group}, {bar.label}: {part.label}')}</title></rect>"
            )
            x += length
        body.append(text(x + 6, y + 12, bar.total_text))
        y += bar_pitch
    return svg(width, round(y) + 2, title, body)


def legend(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return a legend of (CSS class, colour, label) entries as an HTML list, which wraps in narrow windows."""
    items = (
        f'<li><svg width="11" height="11" aria-hidden="true"><rect class="{css_class}" width="11" height="11" '
        f'fill="{colour}"/></svg> {_words(label)}</li>'
        for css_class, colour, label in dict.fromkeys(entries)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def spread_labels(ys: Sequence[float], least: float = 13.0) -> list[float]:
    """Return the y positions `ys` of labels in pixels, moved down so that all are at least `least` pixels apart."""
    placed, lowest = list(ys), float("-inf")
    for index in sorted(range(len(ys)), key=lambda i: ys[i]):
        placed[index] = lowest = max(ys[index], lowest + least)
    return placed


def nice_ticks(highest: float, count: int = 4) -> tuple[float, ...]:
    """Return axis ticks from 0 to at least `highest`, in about `count` steps of 1, 2 or 5 times a power of ten."""
    if highest <= 0:
        return (0.0, 1.0)
    rough = highest / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return tuple(step * index for index in range(ceil(highest / step * 0.999) + 1))


def ticks_between(low: float, high: float, least: float) -> tuple[float, ...]:
    """Return two or more axis ticks from `low` or below to `high` or above. The tick distance suits a span of `least` or more."""
    step = nice_ticks(max(high - low, least, abs(low) / 100, abs(high) / 100))[1]
    first, last = floor(low / step), ceil(high / step)
    return tuple(step * index for index in range(first, max(last, first + 1) + 1))


def label_width(words: str) -> float:
    """Return an upper bound for the drawn width of a label in pixels, after `short` has truncated the label."""
    return sum(_letter_width(letter) for letter in short(words))


def short(words: str, most: int = _MAX_LETTERS) -> str:
    """Truncate a label to `most` characters. Cut its middle, because names often differ at the end."""
    line = one_line(words)
    return line if len(line) <= most else f"{line[: most - most // 3 - 1]}…{line[-(most // 3) :]}"


def _letter_width(letter: str) -> float:
    if letter in "MWmw@%…" or east_asian_width(letter) in "WF":
        return _WIDEST
    return _LETTER_WIDTH if letter.isascii() and not letter.isupper() else _CAPITAL_WIDTH


def text(x: float, y: float, words: str, *, anchor: str = "start", css_class: str = "label", colour: str = INK) -> str:
    """Return an SVG text element at pixel (x, y). `anchor` is the part of the text that is at x: `start`, `middle` or `end`."""
    return f'<text class="{css_class} text" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{_words(words)}</text>'


def rule(css_class: str, start: Place, end: Place, colour: str, more: str = "") -> str:
    """Return an SVG line between two pixel positions. `more` is text with further SVG attributes."""
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{css_class}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'


def path(css_class: str, spots: Iterable[Place], colour: str, more: str = "") -> str:
    """Return an SVG polyline through pixel positions. `more` is text with further SVG attributes."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    return f'<polyline class="{css_class}" fill="none" stroke="{colour}"{more} points="{points}"/>'


def dot(css_class: str, place: Place, radius: float, colour: str) -> str:
    """Return a filled circle as an SVG element. `place` is the centre (x, y) in pixels, and `radius` is in pixels."""
    return f'<circle class="{css_class}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:g}" fill="{colour}"/>'


def svg(width: int, height: int, title: str, body: Sequence[str]) -> str:
    """Return a complete SVG image, as text, with the elements in `body`. Screen readers read `title` aloud."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{_words(title)}</title>{"".join(body)}</svg>'
    )


def _words(text: str) -> str:
    """Escape text for SVG and put it on one line, as it may come from a device."""
    return escape(one_line(text))
