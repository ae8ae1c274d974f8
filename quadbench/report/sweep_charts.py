"""Self-contained SVG charts of a sweep: image quality over the swept values, and over the time per image or the file sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from quadbench.report.chart import Place, Plot, dot, label_width, path, rule, short, spread_labels, svg, text, ticks_between
from quadbench.report.sweep import BYTES, PSNR, TIME, Sweep, SweepFigure, SweepPoint, quality_of, series_of

_HEIGHT = 360
_PLOT = Plot(left=52, right=452, top=36, bottom=312, ys=(0.0, 1.0))
COLOURS = ("#1d5fa6", "#b3560b", "#2a7a3b", "#7d4fb3", "#a8201a")
_DARK = ("#74b0f2", "#eb9a55", "#7cc98d", "#b99bea", "#ff8a80")
STYLE = (
    "<style>.paper,.hollow{fill:#fdfdfc}.label{fill:#5d636c}.grid{stroke:#dcdcd7}"
    "@media screen and (prefers-color-scheme:dark){.paper,.hollow{fill:#15171a}.label{fill:#9ba1ab}.grid{stroke:#31353b}"
    + "".join(f".s{i}{{stroke:{colour}}}.s{i}.fill{{fill:{colour}}}" for i, colour in enumerate(_DARK))
    + "}.name{stroke:none}</style>"
)
_GRID = "#dcdcd7"
_LINE_HEIGHT = 15
_MAX_VALUE = 14  # characters of a value below the axis

_MAX_NAMED = 40  # settings with a name; if there are more, only the best have one


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A sweep chart's curve, measured or published. `y` and `errors` map a swept value's index to its PSNR and error in dB."""

    label: str
    colour: int
    y: dict[int, float]
    errors: dict[int, float]
    is_published: bool = False


def sweep_chart(sweep: Sweep) -> str:
    """Return an SVG of PSNR over the swept values: numbers to scale, other values evenly spaced, published curves dashed."""
    values = list(dict.fromkeys(point.value for point in sweep.points))
    lines = [line for number, points in enumerate(series_of(sweep)) for line in _lines(points, values, number, sweep)]
    ends = [y + sign * line.errors.get(i, 0) for line in lines for i, y in line.y.items() for sign in (-1, 1)]
    ticks = ticks_between(min(ends, default=0.0), max(ends, default=1.0), least=1.0)
    xs, plot = _places(values), replace(_PLOT, ys=(ticks[0], ticks[-1]))
    width, body = _begun("PSNR, dB", max((label_width(line.label) for line in lines), default=0.0))
    body += plot.rows(ticks, "{:g}".format, _GRID)
    for x, value in zip(xs, (short(value, _MAX_VALUE) for value in values), strict=True):
        body.append(text(max(plot.x(x), label_width(value) / 2), plot.bottom + 18, value, anchor="middle"))
    over = ", ".join(sweep.keys)
    body.append(plot.caption(over, _HEIGHT - 10))
    drawn = [line for line in lines if line.y]
    body += [_drawn(line, xs, plot) for line in drawn]
    tips = [(plot.x(xs[index]), plot.y(y)) for index, y in (max(line.y.items()) for line in drawn)]
    heights = spread_labels([y for _, y in tips], _LINE_HEIGHT)  # moved apart where the names would cover each other
    for line, (x, _), y in zip(drawn, tips, heights, strict=True):
        css_class, colour = f"s{line.colour} fill name", COLOURS[line.colour]
        body.append(text(x + 10, y + 4, short(line.label), css_class=css_class, colour=colour))
    title = f"{sweep.recipe_name}: PSNR against the float reference over {over}"
    return svg(width, _HEIGHT, title, body) + "\n"


def _begun(title: str, longest: float) -> tuple[int, list[str]]:
    """Start a chart with room for labels of `longest` pixels on its right. Return its width in pixels and first SVG elements."""
    width = round(_PLOT.right + 20 + longest)
    paper = f'<rect class="paper" width="{width}" height="{_HEIGHT}" fill="#fdfdfc"/>'
    return width, [STYLE, paper, text(_PLOT.left, 18, title)]


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
    """Return a list of the swept values' positions on the axis, from 0 to 1. Unless all are numbers, they are evenly spaced."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if not numbers or not all(map(isfinite, numbers)):
        numbers = [float(index) for index in range(len(values))]
    low, high = min(numbers), max(numbers)
    return [(number - low) / (high - low) if high > low else 0.5 for number in numbers]


def _drawn(line: _Line, xs: Sequence[float], plot: Plot) -> str:
    colour, css_class = COLOURS[line.colour], f"s{line.colour}"
    spots = {index: (xs[index], y) for index, y in sorted(line.y.items())}
    dash = ' stroke-dasharray="5 4" stroke-opacity="0.6"' if line.is_published else ""
    parts = [plot.line(css_class, spots.values(), colour, f' stroke-width="2"{dash}')]
    for index, error in line.errors.items():
        x, y = spots[index]
        parts.append(rule(css_class, plot.at(x, y - error), plot.at(x, y + error), colour))
    if not line.is_published:
        parts += [dot(f"{css_class} fill", plot.at(*spot), 3.5, colour) for spot in spots.values()]
    return "".join(parts)


@dataclass(frozen=True, kw_only=True)
class _Spot:
    """A setting's dot: image quality over time or bytes. `error` is quality's standard error, `costs` (min, max) of launches."""

    label: str
    cost: float
    costs: tuple[float, float]
    quality: float
    error: float
    colour: int
    is_best: bool


def cost_chart(sweep: Sweep) -> str | None:
    """Return an SVG with a dot and error bars per setting: image quality over time, or over bytes if no time was measured. Dots
    of unbeaten settings are filled and joined by a line. Tasks without quality are left out. Return None if there is no dot.
    """
    costs = [figure for key in (TIME, BYTES) for point in sweep.points if (figure := point.figure(key))]
    quality, cost = quality_of(sweep.points), next(iter(costs), None)
    if quality is None or cost is None:
        return None
    series = [points for points in series_of(sweep) if any(point.figure(quality) for point in points)]
    lines = [list(_spots(each, quality, cost.key, i, is_named=len(series) > 1)) for i, each in enumerate(series)]
    spots = [spot for line in lines for spot in line]
    if not spots:
        return None
    return _cost_drawn(sweep, lines, cost, next(figure for point in sweep.points if (figure := point.figure(quality))))


def _spots(points: Sequence[SweepPoint], quality: str, cost: str, number: int, *, is_named: bool) -> Iterator[_Spot]:
    for point in points:
        good, dear = point.figure(quality), point.figure(cost)
        if good and dear:
            label = f"{point.value}, {point.task}" if is_named else point.value
            launches = (dear.value, *dear.each.values())
            yield _Spot(
                label=label,
                cost=dear.value,
                costs=(min(launches), max(launches)),
                quality=good.value,
                error=good.error or 0.0,
                colour=number % len(COLOURS),
                is_best=point.is_best,
            )


def _cost_drawn(sweep: Sweep, lines: Sequence[Sequence[_Spot]], cost: SweepFigure, quality: SweepFigure) -> str:
    spots = [spot for line in lines for spot in line]
    costs = [end for spot in spots for end in spot.costs]
    qualities = [spot.quality + sign * spot.error for spot in spots for sign in (-1, 1)]
    across, up = (ticks_between(min(ends), max(ends), least=1e-6) for ends in (costs, qualities))
    plot = replace(_PLOT, xs=(across[0], across[-1]), ys=(up[0], up[-1]))
    width, body = _begun(f"{quality.title}, {quality.unit}", max(label_width(spot.label) for spot in spots))
    body += [*plot.rows(up, "{:g}".format, _GRID), *plot.columns(across, 18)]
    body.append(plot.caption(f"{cost.title}, {cost.unit}", _HEIGHT - 10))
    for line in lines:
        best = sorted(plot.at(spot.cost, spot.quality) for spot in line if spot.is_best)
        if line:
            body.append(path(f"s{line[0].colour}", best, COLOURS[line[0].colour], ' stroke-opacity="0.4"'))
        for spot in line:
            name, stroke, (x, y) = f"s{spot.colour}", COLOURS[spot.colour], plot.at(spot.cost, spot.quality)
            body += [rule(name, start, end, stroke) for start, end in _bars(spot, plot)]
            shape = f'cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="{stroke}"'
            filled = f'class="{name} fill" fill="{stroke}"' if spot.is_best else f'class="{name} hollow" fill="#fdfdfc"'
            body.append(f"<circle {filled} {shape}/>")
    named = [spot for spot in spots if spot.is_best or len(spots) <= _MAX_NAMED][:_MAX_NAMED]
    body += _cost_labels(named, plot, [box for spot in spots for box in _bars(spot, plot)])
    return svg(width, _HEIGHT, f"{sweep.recipe_name}: {quality.title} over {cost.title.lower()}", body) + "\n"


def _bars(spot: _Spot, plot: Plot) -> list[tuple[Place, Place]]:
    """Return a setting's horizontal and vertical error bar as pairs of (x, y) ends in pixels. Omit a bar of length 0."""
    (low, high), error = spot.costs, spot.error
    across = [(plot.at(low, spot.quality), plot.at(high, spot.quality))] if low < high else []
    upright = [(plot.at(spot.cost, spot.quality - error), plot.at(spot.cost, spot.quality + error))] if error else []
    return across + upright


def _cost_labels(spots: Sequence[_Spot], plot: Plot, bars: Sequence[tuple[Place, Place]]) -> Iterator[str]:
    """Yield each setting's name as SVG text. Names do not overlap. If possible, they stay in the plot and cover no error bar."""
    taken: list[tuple[float, float, float]] = []  # from, to and the height of each name
    places = ((spot, plot.at(spot.cost, spot.quality)) for spot in spots)
    for spot, (x, y) in sorted(places, key=lambda pair: pair[1]):
        length = label_width(spot.label)
        is_flipped = x + 6 + length > plot.right and x - 6 - length > plot.left
        left, right = (x - 6 - length, x - 6) if is_flipped else (x + 6, x + 6 + length)
        heights = (y - 8 + sign * step * _LINE_HEIGHT for step in range(len(spots)) for sign in (1, -1))
        free = [h for h in heights if not any(a < right and left < b and abs(h - c) < _LINE_HEIGHT for a, b, c in taken)]
        clear = (h for h in free if not any(_crosses(bar, left, right, h) for bar in bars))
        height = next((h for h in clear if plot.top < h < plot.bottom), free[0])
        taken.append((left, right, height))
        start, anchor = (right, "end") if is_flipped else (left, "start")
        css_class, colour = f"s{spot.colour} fill name", COLOURS[spot.colour]
        yield text(start, height, short(spot.label), anchor=anchor, css_class=css_class, colour=colour)


def _crosses(bar: tuple[Place, Place], left: float, right: float, height: float) -> bool:
    """Return whether an error bar crosses a label between `left` and `right` whose baseline is at `height`."""
    (x1, y1), (x2, y2) = bar
    return x1 < right and left < x2 + 1 and min(y1, y2) < height + 3 and height - 10 < max(y1, y2)
