"""Night chart: a figure of a case on a device over the nights -> SVG: its ratio to the yardstick, and below it the yardstick."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from quadbench.artifacts.night import Measurement, Point, RulingKind
from quadbench.report.chart import rule, svg, text
from quadbench.report.kpi import KPI_UNITS
from quadbench.report.night import Figured, NightFinding, subject_name
from quadbench.report.night_words import directions, is_ratio
from quadbench.report.units import change, convert, number, percent
from quadbench.report.versus import PSNR

_MOST_NIGHTS = 60
_WIDTH, _LEFT, _RIGHT = 560, 62, 124
_UPPER, _LOWER = (50, 160), (208, 268)  # where the panels lie, from top to bottom
COLOURS = {
    RulingKind.REGRESSION: "#a8201a",
    RulingKind.INCONCLUSIVE: "#7a5c00",
    RulingKind.ENVIRONMENT: "#7d4fb3",
    RulingKind.IMPROVEMENT: "#2a7a3b",
}
_PLAIN, _RULE, _FAINT = "#1d5fa6", "#8d9199", "#d9dce1"


@dataclass(frozen=True, kw_only=True)
class _Value:
    """A night's value in a panel, at the place `x` of the night; low and high are the ends of its interval."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One of the drawings above each other: its place from top to bottom, its values, and what is written at the last of them."""

    span: tuple[int, int]
    title: str
    values: tuple[_Value, ...]
    told: str
    kind: RulingKind | None = None  # of what is told at the last value, if anything
    usual: float | None = None

    def height(self, y: float) -> float:
        """Return where a value lies; what is beyond the panel, as the end of a long interval, lies at its edge."""
        low, high = self.range
        top, bottom = self.span
        return bottom - (min(max(y, low), high) - low) / (high - low) * (bottom - top)

    @property
    def range(self) -> tuple[float, float]:
        """Return the lowest and highest value that is shown, at least 4 % apart: noise shall not look like a change."""
        values = [value.y for value in self.values] + ([] if self.usual is None else [self.usual])
        low, high = min(values), max(values)
        room = max(0.3 * (high - low), 0.02 * high)
        return max(low - room, 0.0), high + room


def night_chart(finding: NightFinding, told: Figured, nights: Sequence[Measurement]) -> str | None:
    """Draw a figure over the nights, the last one marked; None where fewer than two nights have it."""
    shown = [(night, point) for night in nights if (point := _point(night, told)) is not None][-_MOST_NIGHTS:]
    if len(shown) < 2 or shown[-1][0].night != told.ruling.night:
        return None
    xs = [_LEFT + n / (len(shown) - 1) * (_WIDTH - _LEFT - _RIGHT) for n in range(len(shown))]
    points = [point for _, point in shown]
    both = (_case_panel(told, xs, points, finding.kind), _yardstick_panel(xs, points, finding.kind))
    panels = [panel for panel in both if panel]
    bottom = panels[-1].span[1]
    body = [_artifacts(xs, [night for night, _ in shown], bottom), *map(_drawn, panels)]
    for x, night, anchor in ((xs[0], shown[0][0], "start"), (xs[-1], shown[-1][0], "end")):
        body.append(text(x, bottom + 18, f"{night.measured_at:%Y-%m-%d}", anchor=anchor))
    return svg(_WIDTH, bottom + 24, f"{told.figure} of {finding.cases[0]} on {finding.address} over {len(shown)} nights", body)


def _point(night: Measurement, told: Figured) -> Point | None:
    """Return the figure of a night, if it can be drawn beside that of the last one: as a ratio too, or as a value too."""
    point = next((one for one in night.points if (one.task, one.key) == (told.ruling.task, told.ruling.key)), None)
    if point is None or told.point is None or (point.ratio is None) is not (told.point.ratio is None):
        return None
    return point if is_ratio(point.value if point.ratio is None else point.ratio) else None


def _case_panel(told: Figured, xs: Sequence[float], points: Sequence[Point], kind: RulingKind) -> _Panel:
    key, usual = points[-1].key, told.ruling.expected
    if points[-1].ratio is not None:
        title, values = f"{told.figure}: case / yardstick", [_ratio(x, point) for x, point in zip(xs, points, strict=True)]
    else:
        unit = "dB" if key == PSNR else KPI_UNITS.get(key)
        title, usual = f"{told.figure}, {unit}" if unit else told.figure, _in_unit(usual, key)
        values = [_exact(x, _in_unit(point.value, key) or 0.0) for x, point in zip(xs, points, strict=True)]
    is_known = usual is not None and is_ratio(usual)
    return _Panel(span=_UPPER, title=title, values=tuple(values), told=told.change, kind=kind, usual=usual if is_known else None)


def _yardstick_panel(xs: Sequence[float], points: Sequence[Point], kind: RulingKind) -> _Panel | None:
    """Return the yardstick's panel. It is marked only where the device itself changed."""
    key = points[-1].key
    ys = [y for point in points if (y := _in_unit(point.yardstick, key)) is not None and is_ratio(y)]
    if len(ys) < len(points):
        return None
    values = tuple(_exact(x, y) for x, y in zip(xs, ys, strict=True))
    title = f"the yardstick itself, {KPI_UNITS[key]}" if key in KPI_UNITS else "the yardstick itself"
    ratio = ys[-1] / median(ys[:-1])
    told = "as usual" if percent(abs(ratio - 1)) == percent(0) else change(ratio, directions(key))
    return _Panel(span=_LOWER, title=title, values=values, told=told, kind=kind if kind is RulingKind.ENVIRONMENT else None)


def _ratio(x: float, point: Point) -> _Value:
    ratio = point.ratio or 0.0
    low, high = (ratio if end is None or not is_ratio(end) else end for end in (point.low, point.high))
    return _Value(x=x, y=ratio, low=low, high=high)


def _exact(x: float, y: float) -> _Value:
    return _Value(x=x, y=y, low=y, high=y)


def _in_unit(value: float | None, key: str) -> float | None:
    unit = KPI_UNITS.get(key)
    return value if value is None or unit is None else convert(value, unit)


def _drawn(panel: _Panel) -> str:
    right, colour = _WIDTH - _RIGHT, COLOURS.get(panel.kind, _PLAIN) if panel.kind else _PLAIN
    marked = f"told {panel.kind.lower()}" if panel.kind else ""
    low, high = panel.range
    parts = [text(_LEFT, panel.span[0] - 8, panel.title)]
    for y in (low, (low + high) / 2, high):
        parts.append(rule("grid", (_LEFT, panel.height(y)), (right, panel.height(y)), _FAINT))
        parts.append(text(_LEFT - 8, panel.height(y) + 4, number(y) if y >= 10 else f"{y:.3f}", anchor="end"))
    if panel.usual is not None:
        y = panel.height(panel.usual)
        parts.append(rule("edge", (_LEFT, y), (right, y), _RULE, ' stroke-dasharray="5 4"'))
    spots = " ".join(f"{value.x:.1f},{panel.height(value.y):.1f}" for value in panel.values)
    parts.append(f'<polyline class="shared" fill="none" stroke="{_PLAIN}" stroke-width="1" opacity="0.5" points="{spots}"/>')
    for value in panel.values:
        is_last = value is panel.values[-1]
        mark, fill, radius = (marked, colour, 5) if is_last and marked else ("shared", _PLAIN, 2.5)
        parts.append(rule("edge", (value.x, panel.height(value.low)), (value.x, panel.height(value.high)), _RULE))
        parts.append(f'<circle class="{mark}" cx="{value.x:.1f}" cy="{panel.height(value.y):.1f}" r="{radius}" fill="{fill}"/>')
    last = panel.values[-1]
    parts.append(text(last.x + 10, panel.height(last.y) + 4, panel.told, css_class=marked or "label", colour=colour))
    return "".join(parts)


def _artifacts(xs: Sequence[float], nights: Sequence[Measurement], bottom: int) -> str:
    """Draw a rule before each night in which the case ran something else than in the night before; name the last of them."""
    new = [n for n in range(1, len(nights)) if nights[n].subject != nights[n - 1].subject]
    places = [(xs[n - 1] + xs[n]) / 2 for n in new]
    parts = [rule("edge", (x, _UPPER[0] - 30), (x, bottom), _RULE, ' stroke-dasharray="1 3"') for x in places]
    if new:
        parts.append(text(places[-1] + 4, _UPPER[0] - 34, f"{subject_name(nights[new[-1]].subject)} →", anchor="end"))
    return "".join(parts)
