"""Charts of a comparison of two builds, A and B: intervals of all metrics' ratios (forest plot), and image times of launches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from quadbench.report.chart import FAINT, Plot, dot, padded_range, rule, svg, text
from quadbench.report.formatting import Unit, between, change, convert, display, labelled, number, percent
from quadbench.report.versus import SideRow, TimedLaunch, Versus, VersusDevice
from quadbench.statistics import EQUIVALENCE_MARGIN, Verdict
from quadbench.statistics.launch_comparison import Comparison

_WIDTH, _HEIGHT, _EDGE = 220, 20, 8
_LEAST, _MOST = 0.05, 4.0  # relative change at the scale's ends; larger changes are arrows at its edge
_STEPS = (4.0, 2.0, 1.0, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01)  # relative changes that the scale may mark
_COLOURS = {Verdict.WORSE: "#a8201a", Verdict.BETTER: "#2a7a3b", Verdict.SAME: "#1d5fa6", Verdict.INCONCLUSIVE: "#7a5c00"}

_LAUNCHES_WIDTH, _LEFT, _RIGHT = 560, 52, 544
_UPPER, _LOWER = (30, 170), (206, 260)  # top and bottom of each panel
_SIDES = {"A": ("shared", "#1d5fa6"), "B": ("per-graph", "#b3560b")}  # CSS class and colour


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """A row of a forest plot: one metric's values in builds A and B, change from A to B, interval, SVG drawing and verdict."""

    task: str
    title: str
    a: str
    b: str
    change: str
    interval: str
    drawn: Markup
    verdict: str


@dataclass(frozen=True, kw_only=True)
class ForestPlot:
    """A forest plot of builds A and B. `rows` maps a device address to a tuple of `ForestRow`. `scale` is the axis as SVG."""

    scale: Markup
    rows: dict[str, tuple[ForestRow, ...]]


def forest_plot(versus: Versus) -> ForestPlot:
    """Return a `ForestPlot` of builds A and B. Rows of metrics without an interval, such as file size, have no SVG drawing."""
    diffs = [row.comparison for device in versus.devices for row in device.rows if row.comparison]
    # The scale covers all ratios, and the intervals of all decided figures.
    decided = [one for one in diffs if one.verdict is not Verdict.INCONCLUSIVE]
    ends = [*(one.ratio for one in diffs), *(end for one in decided for end in (one.low, one.high))]
    reached = max((abs(math.log(end)) for end in ends if end), default=0.0)
    reach = min(max(math.log1p(_LEAST), 1.05 * reached), math.log1p(_MOST))
    plot = Plot(left=_EDGE, right=_WIDTH - _EDGE, top=0, bottom=_HEIGHT, xs=(-reach, reach), ys=(0.0, 1.0))
    margins = [device.looks.margin for device in versus.devices if device.looks]
    margin = max(margins, default=EQUIVALENCE_MARGIN)
    return ForestPlot(
        scale=_scale(plot) if diffs else Markup(""),
        rows={device.device.address: tuple(_row(row, plot, margin) for row in device.rows) for device in versus.devices},
    )


def _row(row: SideRow, plot: Plot, margin: float) -> ForestRow:
    a, b = (display(value, row.unit) for value in row.values)
    result = row.comparison
    return ForestRow(
        task=row.task,
        title=labelled(row.title, row.unit),
        a=a,
        b=b,
        change=_change(row),
        interval=between(result.low, result.high) if result and result.low and result.high else "",
        drawn=_interval(result, plot, margin) if result else Markup(""),
        verdict=row.outcome,
    )


def _change(row: SideRow) -> str:
    """Return a metric's change from build A to B: `3.1 % more`, `0.4 dB less` (PSNR), `the same`, or `–` if unknown."""
    (a, b), judged = row.values, row.comparison.ratio if row.comparison else None
    ratio = row.ratio if judged is None else judged
    if row.unit or a is None or b is None:
        words = "the same" if ratio == 1 else change(ratio) or "–"
        return words.replace("0.0 %", "less than 0.1 %") if words.startswith("0.0 %") else words
    more = round(b, 1) - round(a, 1)
    return f"{abs(more):.1f} dB {'more' if more > 0 else 'less'}" if more else "the same"


def _scale(plot: Plot) -> Markup:
    """Return an SVG of the forest plot's logarithmic axis: ratio 1 in the middle, and one labelled ratio on each side."""
    share = math.expm1(plot.xs[1]) * 0.9
    step = next(step for step in _STEPS if step <= share)
    words = ((1 / (1 + step), f"−{percent(step / (1 + step), 0)}"), (1.0, "equal"), (1 + step, f"+{percent(step, 0)}"))
    body = [text(plot.x(math.log(ratio)), 14, word, anchor="middle") for ratio, word in words]
    return Markup(svg(_WIDTH, _HEIGHT, "Scale: how much more B takes than A", body))


def _interval(result: Comparison, plot: Plot, margin: float) -> Markup:
    """Return an SVG of a ratio B / A, its interval, and the band of ratios that count as equal. Arrows mark ratios off scale."""
    if result.ratio is None:
        return Markup("")
    middle, colour, name = _HEIGHT / 2, _COLOURS[result.verdict], result.verdict.lower()
    x, reach = plot.x(math.log(result.ratio)), plot.xs[1]
    low, high = (plot.x(math.log(end or result.ratio)) for end in (result.low, result.high))
    left, right = (plot.x(sign * math.log1p(margin)) for sign in (-1, 1))
    beyond = [(x, end) for x, end in ((low, result.low), (high, result.high)) if end and abs(math.log(end)) > reach]
    band = f'x="{left:.1f}" y="0" width="{right - left:.1f}" height="{_HEIGHT}" fill="#8d9199" fill-opacity="0.4"'
    style, share = f'class="verdict {name}" fill="{colour}"', math.log(result.ratio) / reach
    body = [
        f'<rect class="band" {band}/>',
        rule("edge", (plot.x(0), 0), (plot.x(0), _HEIGHT), "#8d9199"),
        rule(f"verdict {name}", (low, middle), (high, middle), colour, ' stroke-width="2"'),
        *(_arrow(x, math.log(end), style) for x, end in beyond),
        f'<circle {style} cx="{x:.1f}" cy="{middle:.1f}" r="4"/>' if abs(share) <= 1 else _arrow(x, share, style),
    ]
    return Markup(svg(_WIDTH, _HEIGHT, f"{change(result.ratio)}: {result.verdict}", body))


def _arrow(x: float, side: float, style: str) -> str:
    middle, tip = _HEIGHT / 2, math.copysign(_EDGE - 1, side)
    return f'<path {style} d="M{x:.1f},{middle - 5:.1f} L{x + tip:.1f},{middle:.1f} L{x:.1f},{middle + 5:.1f} Z"/>'


def launch_chart(device: VersusDevice) -> str | None:
    """Return an SVG of launches' image times and battery temperatures over time. Return None for fewer than two image times."""
    times = [(one, convert(one.image_ns, Unit.MILLISECONDS)) for one in device.launches if one.image_ns]
    heat = [(one, one.temperature_c) for one in device.launches if one.temperature_c is not None]
    if len(times) < 2:
        return None
    began = [one.began_at for one in device.launches]
    seconds = max((max(began) - min(began)).total_seconds(), 1.0)
    body = _panel("an image, ms", _UPPER, times, min(began), seconds)
    if heat:
        body += _panel("battery, °C", _LOWER, heat, min(began), seconds)
    bottom = (_LOWER if heat else _UPPER)[1]
    for place, words, anchor in ((_LEFT, "0", "middle"), (_RIGHT, f"{seconds / 60:.1f} min", "end")):
        body.append(text(place, bottom + 18, words, anchor=anchor))
    return svg(_LAUNCHES_WIDTH, bottom + 26, f"Launches on {device.device.address} by time", body)


def _panel(
    title: str, span: tuple[int, int], launches: Sequence[tuple[TimedLaunch, float]], began: datetime, seconds: float
) -> list[str]:
    """Return SVG elements of a scatter plot: a dot per launch at (start time, image time or battery °C), coloured by build."""
    low, high = padded_range([value for _, value in launches], least=0.01)
    plot = Plot(left=_LEFT, right=_RIGHT, top=span[0], bottom=span[1], xs=(0.0, seconds), ys=(low, high))
    parts = [text(_LEFT, plot.top - 12, title), *plot.rows((low, (low + high) / 2, high), number)]
    for one, value in launches:
        x, (css_class, colour) = (one.began_at - began).total_seconds(), _SIDES.get(one.side, ("edge", FAINT))
        parts.append(dot(css_class, plot.at(x, value), 4, colour))
    return parts
