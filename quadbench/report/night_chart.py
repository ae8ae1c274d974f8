"""A figure of a case over its nights as SVG: panels of the case and of the yardstick below it, with the last night marked."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from statistics import median
from typing import Self

from quadbench.artifacts.night import Measurement, Point, RulingKind
from quadbench.report.chart import nice_ticks, rule, svg, text
from quadbench.report.kpi import KPI_UNITS
from quadbench.report.night import Figured, NightFinding, subject_name
from quadbench.report.night_words import directions, is_ratio
from quadbench.report.units import change, convert, percent
from quadbench.report.versus import PSNR

WIDTH, LEFT, RIGHT = 560, 62, 14
UPPER, LOWER = (52, 172), (210, 262)  # where the panels of the case and of the yardstick lie, top to bottom
PLAIN, RULE, FAINT = "#1d5fa6", "#8d9199", "#d9dce1"
COLOURS = {
    RulingKind.REGRESSION: "#a8201a",
    RulingKind.INCONCLUSIVE: "#7a5c00",
    RulingKind.ENVIRONMENT: "#7d4fb3",
    RulingKind.IMPROVEMENT: "#2a7a3b",
}
_TICKS = 3  # about so many values at a low axis: at least one, and no more than it has room for
_MOST_NIGHTS = 60
_LAST = WIDTH - 124  # where the last night of a report's chart lies: its change stands beside it
_ABOVE = 34  # a panel: where the files are named that came

Interval = tuple[float, float, float]  # a value, and the ends of its interval


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A part of a chart: the height of values between two ends; what lies beyond is drawn at the edge."""

    low: float
    high: float
    span: tuple[int, int]  # top and bottom
    right: int = WIDTH - RIGHT

    @classmethod
    def of(cls, values: Sequence[float], levels: Iterable[float], span: tuple[int, int], right: int = WIDTH - RIGHT) -> Self:
        """Return a panel with room for levels, and for values that are no more than twice and no less than half of the median.

        It is at least 4 % high: noise shall not look like a change.
        """
        middle = median(values)
        shown = [middle, *levels, *(value for value in values if middle / 2 <= value <= middle * 2)]
        room = max(0.15 * (max(shown) - min(shown)), 0.02 * abs(max(shown))) or 1.0
        return cls(low=min(shown) - room, high=max(shown) + room, span=span, right=right)

    def height(self, value: float) -> float:
        """Return where a value lies."""
        top, bottom = self.span
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return bottom - share * (bottom - top)

    def axis(self, title: str, above: float = 8) -> Iterator[str]:
        """Draw the lines of round values, and the title so far above them."""
        yield text(LEFT, self.span[0] - above, title)
        step = nice_ticks(self.high - self.low, count=max(_TICKS, (self.span[1] - self.span[0]) // 30))[1]
        digits = max(0, -floor(log10(step)))
        for index in range(ceil(self.low / step), floor(self.high / step) + 1):
            y = self.height(index * step)
            yield rule("grid", (LEFT, y), (self.right, y), FAINT)
            yield text(LEFT - 8, y + 4, f"{index * step:,.{digits}f}", anchor="end")

    def line(self, xs: Sequence[float], values: Sequence[float]) -> str:
        """Draw a line through values."""
        spots = " ".join(f"{x:.1f},{self.height(value):.1f}" for x, value in zip(xs, values, strict=True))
        return f'<polyline class="shared" fill="none" stroke="{PLAIN}" stroke-width="1" points="{spots}"/>'


def panel_titles(figure: str, key: str, *, is_of_ratio: bool) -> tuple[str, str]:
    """Return the titles of the case's panel and of the yardstick's."""
    unit = "dB" if key == PSNR else KPI_UNITS.get(key)
    of_case = f"{figure}: case / yardstick" if is_of_ratio else f"{figure}, {unit}" if unit else figure
    return of_case, f"the yardstick itself, {unit}" if unit else "the yardstick itself"


def in_unit(value: float, key: str) -> float:
    """Return a figure's value in the unit in which it is drawn."""
    unit = KPI_UNITS.get(key)
    return value if unit is None else convert(value, unit)


def across(count: int, right: int = WIDTH - RIGHT) -> list[float]:
    """Return where nights stand, at least two, from left to right."""
    return [LEFT + number * (right - LEFT) / (count - 1) for number in range(count)]


def dates(xs: Sequence[float], nights: Sequence[Measurement], bottom: float) -> Iterator[str]:
    """Write the days of the first and the last night below the panels."""
    for index, anchor in ((0, "start"), (-1, "end")):
        yield text(xs[index], bottom + 18, f"{nights[index].measured_at:%Y-%m-%d}", anchor=anchor)


def night_chart(finding: NightFinding, told: Figured, nights: Sequence[Measurement]) -> str | None:
    """Draw a figure over the nights, the last one marked; None where fewer than two nights have it."""
    shown = [(night, point) for night in nights if (point := _point(night, told)) is not None][-_MOST_NIGHTS:]
    if len(shown) < 2 or shown[-1][0].night != told.ruling.night:
        return None
    measured, points = [night for night, _ in shown], [point for _, point in shown]
    xs, key, is_of_ratio = across(len(shown), _LAST), points[-1].key, points[-1].ratio is not None
    of_case, of_yardstick = panel_titles(told.figure, key, is_of_ratio=is_of_ratio)
    expected = told.ruling.expected
    usual = expected if expected is None or is_of_ratio else in_unit(expected, key)
    levels = [] if usual is None or not is_ratio(usual) else [usual]
    body = list(_marked(xs, list(map(_interval, points)), UPPER, of_case, told.change, finding.kind, levels))
    ys = [in_unit(point.yardstick, key) for point in points if point.yardstick is not None]
    bottom = UPPER[1]
    if len(ys) == len(points) and all(map(is_ratio, ys)):
        ratio, bottom = ys[-1] / median(ys[:-1]), LOWER[1]
        so = "as usual" if percent(abs(ratio - 1)) == percent(0) else change(ratio, directions(key))
        its_doing = finding.kind if finding.kind is RulingKind.ENVIRONMENT else None  # else it is not marked
        body += _marked(xs, [(y, y, y) for y in ys], LOWER, of_yardstick, so, its_doing)
    title = f"{told.figure} of {finding.cases[0]} on {finding.address} over {len(shown)} nights"
    return svg(WIDTH, bottom + 24, title, [*_came(xs, measured, bottom), *body, *dates(xs, measured, bottom)])


def _point(night: Measurement, told: Figured) -> Point | None:
    """Return the figure of a night, if it can be drawn beside that of the last one: as a ratio too, or as a value too."""
    point = next((one for one in night.points if (one.task, one.key) == (told.ruling.task, told.ruling.key)), None)
    if point is None or told.point is None or (point.ratio is None) is not (told.point.ratio is None):
        return None
    return point if is_ratio(point.value if point.ratio is None else point.ratio) else None


def _interval(point: Point) -> Interval:
    if point.ratio is None:
        value = in_unit(point.value, point.key)
        return value, value, value
    low, high = (point.ratio if end is None or not is_ratio(end) else end for end in (point.low, point.high))
    return point.ratio, low, high


def _marked(
    xs: Sequence[float],
    intervals: Sequence[Interval],
    span: tuple[int, int],
    title: str,
    words: str,
    kind: RulingKind | None,
    levels: Sequence[float] = (),
) -> Iterator[str]:
    """Draw a panel: levels dashed, values with their intervals, the last one in a ruling's colour and with words beside it."""
    values = [value for value, _, _ in intervals]
    panel = Panel.of(values, [*levels, values[-1]], span, _LAST)
    colour, mark = (COLOURS.get(kind, PLAIN), f"told {kind.lower()}") if kind else (PLAIN, "")
    yield from panel.axis(title)
    for y in map(panel.height, levels):
        yield rule("edge", (LEFT, y), (_LAST, y), RULE, ' stroke-dasharray="5 4"')
    yield panel.line(xs, values)
    for number, (x, (value, low, high)) in enumerate(zip(xs, intervals, strict=True), start=1):
        css_class, fill, radius = (mark, colour, 5) if mark and number == len(xs) else ("shared", PLAIN, 2.5)
        yield rule("edge", (x, panel.height(low)), (x, panel.height(high)), RULE)
        yield f'<circle class="{css_class}" cx="{x:.1f}" cy="{panel.height(value):.1f}" r="{radius}" fill="{fill}"/>'
    yield text(xs[-1] + 10, panel.height(values[-1]) + 4, words, css_class=mark or "label", colour=colour)


def _came(xs: Sequence[float], nights: Sequence[Measurement], bottom: int) -> Iterator[str]:
    """Draw a rule before each night in which the case ran something else than in the night before; name the last of them."""
    new = [n for n in range(1, len(nights)) if nights[n].subject != nights[n - 1].subject]
    places = [(xs[n - 1] + xs[n]) / 2 for n in new]
    for x in places:
        yield rule("edge", (x, UPPER[0] - _ABOVE + 4), (x, bottom), RULE, ' stroke-dasharray="1 3"')
    if new:
        yield text(places[-1] + 4, UPPER[0] - _ABOVE, f"{subject_name(nights[new[-1]].subject)} →", anchor="end")
