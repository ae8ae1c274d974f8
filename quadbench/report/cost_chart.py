"""Cost chart: Sweep -> one SVG that stands alone: the quality of each setting over the time of an image, or over its bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quadbench.report.chart import Place, label_width, rule, short, svg, text, ticks_between
from quadbench.report.sweep import BYTES, TIME, Sweep, SweepFigure, SweepPoint, quality_of, series_of
from quadbench.report.sweep_chart import COLOURS, STYLE

_LINE_HEIGHT = 15
_MOST_NAMED = 40  # spots; of more, those that none beats come first, as no more names can be read
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 400, 360, 52, 36, 48


@dataclass(frozen=True, kw_only=True)
class _Spot:
    """A setting: what it costs, and from which launch to which; how good it is, and its standard error over items."""

    label: str
    cost: float
    costs: tuple[float, float]
    quality: float
    error: float
    colour: int
    is_best: bool


def cost_chart(sweep: Sweep) -> str | None:
    """Draw every setting with quality, cost and how far they vary: filled and joined where none beats it. None: none has both.

    A task that lacks the figure of quality, as one by LCM that to the teacher, is not drawn.
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
    return _drawn(sweep, lines, cost, next(figure for point in sweep.points if (figure := point.figure(quality))))


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


def _drawn(sweep: Sweep, lines: Sequence[Sequence[_Spot]], cost: SweepFigure, quality: SweepFigure) -> str:
    spots = [spot for line in lines for spot in line]
    costs = [end for spot in spots for end in spot.costs]
    qualities = [spot.quality + sign * spot.error for spot in spots for sign in (-1, 1)]
    across, up = (ticks_between(min(ends), max(ends), least=1e-6) for ends in (costs, qualities))

    def at(cost: float, quality: float) -> Place:
        x = _LEFT + (cost - across[0]) / (across[-1] - across[0]) * _WIDTH
        return x, _HEIGHT - _BOTTOM - (quality - up[0]) / (up[-1] - up[0]) * (_HEIGHT - _TOP - _BOTTOM)

    width = round(_LEFT + _WIDTH + 20 + max(label_width(spot.label) for spot in spots))
    body = [STYLE, f'<rect class="paper" width="{width}" height="{_HEIGHT}" fill="#fdfdfc"/>']
    body.append(text(_LEFT, 18, f"{quality.title}, {quality.unit}"))
    for tick in up:
        body.append(rule("grid", at(across[0], tick), at(across[-1], tick), "#dcdcd7"))
        body.append(text(_LEFT - 8, at(0, tick)[1] + 4, f"{tick:g}", anchor="end"))
    body += [text(at(tick, 0)[0], _HEIGHT - _BOTTOM + 18, f"{tick:g}", anchor="middle") for tick in across]
    body.append(text(_LEFT + _WIDTH / 2, _HEIGHT - 10, f"{cost.title}, {cost.unit}", anchor="middle"))
    for line in lines:
        best = sorted(at(spot.cost, spot.quality) for spot in line if spot.is_best)
        if line:
            body.append(_path(best, line[0].colour))
        body += [_mark(spot, at) for spot in line]
    named = [spot for spot in spots if spot.is_best or len(spots) <= _MOST_NAMED][:_MOST_NAMED]
    body += _labels(named, [at(spot.cost, spot.quality) for spot in named], [box for spot in spots for box in _bars(spot, at)])
    title = f"{sweep.recipe_name}: {quality.title} over {cost.title.lower()}"
    return svg(width, _HEIGHT, title, body) + "\n"


def _path(spots: Sequence[tuple[float, float]], colour: int) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    return f'<polyline class="s{colour}" fill="none" stroke="{COLOURS[colour]}" stroke-opacity="0.4" points="{points}"/>'


def _mark(spot: _Spot, at: Callable[[float, float], Place]) -> str:
    name, stroke, (x, y) = f"s{spot.colour}", COLOURS[spot.colour], at(spot.cost, spot.quality)
    bars = [rule(name, start, end, stroke) for start, end in _bars(spot, at)]
    shape = f'cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="{stroke}"'
    filled = f'class="{name} fill" fill="{stroke}"' if spot.is_best else f'class="{name} hollow" fill="#fdfdfc"'
    return f"{''.join(bars)}<circle {filled} {shape}/>"


def _bars(spot: _Spot, at: Callable[[float, float], Place]) -> list[tuple[Place, Place]]:
    """Return the ends of a spot's bars: left and right, bottom and top."""
    (low, high), error = spot.costs, spot.error
    across = [(at(low, spot.quality), at(high, spot.quality))] if low < high else []
    return across + ([(at(spot.cost, spot.quality - error), at(spot.cost, spot.quality + error))] if error else [])


def _labels(spots: Sequence[_Spot], places: Sequence[Place], bars: Sequence[tuple[Place, Place]]) -> Iterator[str]:
    """Yield the names of the spots above them, moved up or down where they would cover another name, or a bar if they can.

    A name that would leave the plot on the right stands on the left of its spot.
    """
    taken: list[tuple[float, float, float]] = []  # from, to and the height of each name
    for spot, (x, y) in sorted(zip(spots, places, strict=True), key=lambda pair: pair[1]):
        length = label_width(spot.label)
        is_flipped = x + 6 + length > _LEFT + _WIDTH and x - 6 - length > _LEFT
        left, right = (x - 6 - length, x - 6) if is_flipped else (x + 6, x + 6 + length)
        heights = (y - 8 + sign * step * _LINE_HEIGHT for step in range(len(spots)) for sign in (1, -1))
        free = [h for h in heights if not any(a < right and left < b and abs(h - c) < _LINE_HEIGHT for a, b, c in taken)]
        clear = (h for h in free if not any(_crosses(bar, left, right, h) for bar in bars))
        height = next((h for h in clear if _TOP < h < _HEIGHT - _BOTTOM), free[0])
        taken.append((left, right, height))
        start, anchor = (right, "end") if is_flipped else (left, "start")
        css_class, colour = f"s{spot.colour} fill name", COLOURS[spot.colour]
        yield text(start, height, short(spot.label), anchor=anchor, css_class=css_class, colour=colour)


def _crosses(bar: tuple[Place, Place], left: float, right: float, height: float) -> bool:
    """Say whether a bar crosses a name that stands from left to right at a height, its letters above it."""
    (x1, y1), (x2, y2) = bar
    return x1 < right and left < x2 + 1 and min(y1, y2) < height + 3 and height - 10 < max(y1, y2)
