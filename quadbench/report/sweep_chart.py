"""Sweep chart: Sweep -> one SVG that stands alone: likeness to the reference over the values, with its standard errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from quadbench.report.chart import Place, apart, label_width, rule, short, svg, text, ticks_between
from quadbench.report.sweep import PSNR, Sweep, SweepPoint, series_of

_HEIGHT, _PLOT_WIDTH = 360, 400
_LEFT, _TOP, _BOTTOM = 52, 36, 48
COLOURS = ("#1d5fa6", "#b3560b", "#2a7a3b", "#7d4fb3", "#a8201a")
_DARK = ("#74b0f2", "#eb9a55", "#7cc98d", "#b99bea", "#ff8a80")
STYLE = (
    "<style>.paper,.hollow{fill:#fdfdfc}.label{fill:#5d636c}.grid{stroke:#dcdcd7}"
    "@media screen and (prefers-color-scheme:dark){.paper,.hollow{fill:#15171a}.label{fill:#9ba1ab}.grid{stroke:#31353b}"
    + "".join(f".s{i}{{stroke:{colour}}}.s{i}.fill{{fill:{colour}}}" for i, colour in enumerate(_DARK))
    + "}.name{stroke:none}</style>"
)
_LINE_HEIGHT = 15
_MOST_VALUE = 14  # letters of a value below the axis


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A task on a device, or what a paper printed for it; `y` are dB by index of the value, `errors` their standard errors."""

    label: str
    colour: int
    y: dict[int, float]
    errors: dict[int, float]
    is_published: bool = False


def sweep_chart(sweep: Sweep) -> str:
    """Draw PSNR over the values: numbers stand where they belong, words at equal distances.

    A dashed line is what a paper printed for another model.
    """
    values = list(dict.fromkeys(point.value for point in sweep.points))
    lines = [line for number, points in enumerate(series_of(sweep)) for line in _lines(points, values, number, sweep)]
    ends = [y + sign * line.errors.get(i, 0) for line in lines for i, y in line.y.items() for sign in (-1, 1)]
    ticks = ticks_between(min(ends, default=0.0), max(ends, default=1.0), least=1.0)
    xs = _places(values)

    def at(index: int, y: float) -> Place:
        share = (y - ticks[0]) / (ticks[-1] - ticks[0])
        return _LEFT + xs[index] * _PLOT_WIDTH, _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    width = round(_LEFT + _PLOT_WIDTH + 20 + max((label_width(line.label) for line in lines), default=0.0))
    title = f"{sweep.recipe_name}: PSNR against the float reference over {_axis(sweep)}"
    body = [STYLE, f'<rect class="paper" width="{width}" height="{_HEIGHT}" fill="#fdfdfc"/>', text(_LEFT, 18, "PSNR, dB")]
    body += [_rule(at(0, tick)[1], f"{tick:g}") for tick in ticks]
    for i, value in enumerate(short(value, _MOST_VALUE) for value in values):
        body.append(text(max(at(i, 0)[0], label_width(value) / 2), _HEIGHT - _BOTTOM + 18, value, anchor="middle"))
    body.append(text(_LEFT + _PLOT_WIDTH / 2, _HEIGHT - 10, _axis(sweep), anchor="middle"))
    drawn = [line for line in lines if line.y]
    body += [_drawn(line, at) for line in drawn]
    return svg(width, _HEIGHT, title, [*body, *_labels(drawn, [at(*max(line.y.items())) for line in drawn])]) + "\n"


def _axis(sweep: Sweep) -> str:
    return ", ".join(sweep.keys)


def _lines(points: Sequence[SweepPoint], values: Sequence[str], colour: int, sweep: Sweep) -> list[_Line]:
    figures = {values.index(p.value): f for p in points for f in p.figures if f.key == PSNR}
    several = len({point.device for point in sweep.points}) > 1
    label = f"{points[0].task}, {points[0].device}" if several else points[0].task
    published = {i: f.published for i, f in figures.items() if f.published is not None}
    lines = [
        _Line(
            label=label,
            colour=colour % len(COLOURS),
            y={i: f.value for i, f in figures.items()},
            errors={i: f.error for i, f in figures.items() if f.error is not None},
        )
    ]
    if published:
        lines.append(_Line(label="published", colour=colour % len(COLOURS), y=published, errors={}, is_published=True))
    return lines


def _places(values: Sequence[str]) -> list[float]:
    """Return the place of each value on the axis, from 0 to 1."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if not numbers or not all(map(isfinite, numbers)):
        numbers = [float(index) for index in range(len(values))]
    low, high = min(numbers), max(numbers)
    return [(number - low) / (high - low) if high > low else 0.5 for number in numbers]


def _rule(y: float, label: str) -> str:
    line = rule("grid", (_LEFT, y), (_LEFT + _PLOT_WIDTH, y), "#dcdcd7")
    return f"{line}{text(_LEFT - 8, y + 4, label, anchor='end')}"


def _drawn(line: _Line, at: Callable[[int, float], Place]) -> str:
    colour, css_class = COLOURS[line.colour], f"s{line.colour}"
    spots = [at(index, y) for index, y in sorted(line.y.items())]
    dash = ' stroke-dasharray="5 4" stroke-opacity="0.6"' if line.is_published else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    parts = [f'<polyline class="{css_class}" fill="none" stroke="{colour}" stroke-width="2"{dash} points="{path}"/>']
    for index, error in line.errors.items():
        parts.append(rule(css_class, at(index, line.y[index] - error), at(index, line.y[index] + error), colour))
    if not line.is_published:
        parts += [f'<circle class="{css_class} fill" cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in spots]
    return "".join(parts)


def _labels(lines: Sequence[_Line], ends: Sequence[Place]) -> list[str]:
    """Draw the names at the lines' ends, moved apart where they would cover each other."""
    heights = apart([y for _, y in ends], _LINE_HEIGHT)
    return [
        text(x + 10, y + 4, short(line.label), css_class=f"s{line.colour} fill name", colour=COLOURS[line.colour])
        for line, (x, _), y in zip(lines, ends, heights, strict=True)
    ]
