"""A nightly report's three formats: JSON for programs, text for a terminal, and one HTML file with charts but no scripts."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from math import ceil, floor, log10
from pathlib import Path
from statistics import median

from markupsafe import Markup

from quadbench.artifacts.night_record import Measurement, Point, RulingKind, Subject
from quadbench.report import night as night_words
from quadbench.report.chart import Plot, dot, nice_ticks, padded_range, rule, svg, text
from quadbench.report.formatting import TextTable, change, labelled, percent, plural
from quadbench.report.night import DeviceNight, FigureRow, NightFinding, NightView, drawn_figure, in_unit, is_ratio, tidy, unit_of
from quadbench.report.page import page_environment
from quadbench.results.disk import write_atomic
from quadbench.results.documents import adapter_of, document_from
from quadbench.results.layout import Layout

WIDTH, LEFT, _RIGHT = 560, 62, 546
UPPER, LOWER = (52, 172), (210, 262)  # top and bottom of the panels of the case and of the yardstick
PLAIN, RULE = "#1d5fa6", "#8d9199"
COLOURS = {
    RulingKind.REGRESSION: "#a8201a",
    RulingKind.INCONCLUSIVE: "#7a5c00",
    RulingKind.ENVIRONMENT: "#7d4fb3",
    RulingKind.IMPROVEMENT: "#2a7a3b",
}
_TICKS = 3  # approximate number of ticks on a low axis
_MAX_NIGHTS = 60
_LAST = WIDTH - 124  # x of a report's last night, which has its change beside it
_ABOVE = 34  # pixels above a panel, for the name of new files

Interval = tuple[float, float, float]  # a value, and the ends of its interval

SCHEMA_VERSION = 1
DEVICE_COLUMNS = ("Device", "Clean", "Noticed", "Changed since the night before")
_FIGURES_SHOWN = 3
_MAX_CHARTS = 12
_CHARTS_EACH = 2
STANDING = (
    "An earlier night told it first. It stands until launches in turn with the last good files show no difference, these files"
    " are back, or a person accepts it."
)
_MEANINGS = {
    RulingKind.REGRESSION: "Slower, bigger or worse than with the last good files, as launches in turn, bytes or pictures show.",
    RulingKind.INCONCLUSIVE: "The figure looks different, but launches in turn neither confirmed nor refuted it.",
    RulingKind.MISSING: "The case was not measured.",
    RulingKind.ENVIRONMENT: "The tested files are the same; the device or its environment changed.",
    RulingKind.IMPROVEMENT: "Faster, smaller or better than with the last good files.",
}


def plot_of(count: int, right: int = _RIGHT) -> Plot:
    """Return a chart's plot area whose x axis holds `count` nights (at least two), numbered from 0."""
    return Plot(left=LEFT, right=right, top=UPPER[0], bottom=UPPER[1], xs=(0.0, count - 1.0), ys=(0.0, 1.0))


def panel(nights: Plot, values: Sequence[float], levels: Iterable[float], span: tuple[int, int] = UPPER) -> Plot:
    """Return a chart panel. Its y axis covers all `levels`, and the `values` that lie between half and twice their median."""
    middle = median(values)
    shown = [middle, *levels, *(value for value in values if middle / 2 <= value <= middle * 2)]
    return replace(nights, top=span[0], bottom=span[1], ys=padded_range(shown))


def axis(plot: Plot, title: str, above: float = 8) -> Iterator[str]:
    """Yield SVG of a panel's title and of grid lines at round values. `above` is the title's height over the panel in pixels."""
    yield text(LEFT, plot.top - above, title)
    low, high = plot.ys
    step = nice_ticks(high - low, count=max(_TICKS, round(plot.bottom - plot.top) // 30))[1]
    digits = max(0, -floor(log10(step)))
    ticks = (index * step for index in range(ceil(low / step), floor(high / step) + 1))
    yield from plot.rows(ticks, f"{{:,.{digits}f}}".format)


def line(plot: Plot, values: Iterable[float]) -> str:
    """Return SVG of a line through a metric's values, one per night."""
    return plot.line("shared", enumerate(values), PLAIN, ' stroke-width="1"')


def titles_of(figure: str, key: str, *, is_of_ratio: bool) -> tuple[str, str]:
    """Return the titles of a chart's two panels: a metric of the test case, and the same metric of the reference bundle. If
    `is_of_ratio`, the first panel shows the ratio of case to reference. `figure` is the metric's display name.
    """
    unit = unit_of(key)
    of_case = f"{figure}: case / yardstick" if is_of_ratio else labelled(figure, unit)
    return of_case, labelled("the yardstick itself", unit)


def dates(plot: Plot, nights: Sequence[Measurement], bottom: float) -> Iterator[str]:
    """Yield two SVG texts below a chart: the dates of the first and last night. `bottom` is the y of the panels' lower edge."""
    for index, anchor in ((0, "start"), (len(nights) - 1, "end")):
        yield text(plot.x(index), bottom + 18, f"{nights[index].measured_at:%Y-%m-%d}", anchor=anchor)


def night_chart(finding: NightFinding, figure: FigureRow, nights: Sequence[Measurement]) -> str | None:
    """Return an SVG chart of a finding's metric by night. Return None with fewer than two values or none in the judged night."""
    shown = [(night, point) for night in nights if (point := _point(night, figure)) is not None][-_MAX_NIGHTS:]
    if len(shown) < 2 or shown[-1][0].night != figure.ruling.night:
        return None
    measured, points = [night for night, _ in shown], [point for _, point in shown]
    plot, key, is_of_ratio = plot_of(len(shown), _LAST), points[-1].key, points[-1].ratio is not None
    of_case, of_yardstick = titles_of(figure.figure, key, is_of_ratio=is_of_ratio)
    expected = figure.ruling.expected
    usual = expected if expected is None or is_of_ratio else in_unit(expected, key)
    levels = [] if usual is None or not is_ratio(usual) else [usual]
    body = list(_figure_panel(plot, list(map(_interval, points)), UPPER, of_case, figure.change, finding.kind, levels))
    ys = [in_unit(point.yardstick, key) for point in points if point.yardstick is not None]
    bottom = UPPER[1]
    if len(ys) == len(points) and all(map(is_ratio, ys)):
        ratio, bottom = ys[-1] / median(ys[:-1]), LOWER[1]
        so = "as usual" if percent(abs(ratio - 1)) == percent(0) else change(ratio, night_words.directions(key))
        its_doing = finding.kind if finding.kind is RulingKind.ENVIRONMENT else None  # the yardstick is highlighted only then
        body += _figure_panel(plot, [(y, y, y) for y in ys], LOWER, of_yardstick, so, its_doing)
    title = f"{figure.figure} of {finding.cases[0]} on {finding.address} over {len(shown)} nights"
    return svg(WIDTH, bottom + 24, title, [*_subject_changes(plot, measured, bottom), *body, *dates(plot, measured, bottom)])


def _point(night: Measurement, figure: FigureRow) -> Point | None:
    """Return a night's Point for `figure`'s metric. None if missing, implausible, or unlike `figure` in having a ratio or not."""
    point = next((one for one in night.points if (one.task, one.key) == (figure.ruling.task, figure.ruling.key)), None)
    if point is None or figure.point is None or (point.ratio is None) is not (figure.point.ratio is None):
        return None
    return point if is_ratio(point.value if point.ratio is None else point.ratio) else None


def _interval(point: Point) -> Interval:
    if point.ratio is None:
        value = in_unit(point.value, point.key)
        return value, value, value
    low, high = (point.ratio if end is None or not is_ratio(end) else end for end in (point.low, point.high))
    return point.ratio, low, high


def _figure_panel(
    nights: Plot,
    intervals: Sequence[Interval],
    span: tuple[int, int],
    title: str,
    words: str,
    kind: RulingKind | None,
    levels: Sequence[float] = (),
) -> Iterator[str]:
    """Yield SVG of a metric's values and intervals by night. Verdict `kind` colours the last dot; `levels` are dashed lines."""
    values = [value for value, _, _ in intervals]
    plot, last = panel(nights, values, [*levels, values[-1]], span), len(values) - 1
    colour, mark = (COLOURS.get(kind, PLAIN), f"told {kind.lower()}") if kind else (PLAIN, "")
    yield from axis(plot, title)
    for y in map(plot.y, levels):
        yield rule("edge", (plot.left, y), (plot.right, y), RULE, ' stroke-dasharray="5 4"')
    yield line(plot, values)
    for number, (value, low, high) in enumerate(intervals):
        css_class, fill, radius = (mark, colour, 5) if mark and number == last else ("shared", PLAIN, 2.5)
        yield rule("edge", plot.at(number, low), plot.at(number, high), RULE)
        yield dot(css_class, plot.at(number, value), radius, fill)
    yield text(plot.right + 10, plot.y(values[-1]) + 4, words, css_class=mark or "label", colour=colour)


def _subject_changes(plot: Plot, nights: Sequence[Measurement], bottom: int) -> Iterator[str]:
    """Draw a vertical line before each night with new tested files, and label the latest line with the files' digest."""
    new = [number for number in range(1, len(nights)) if nights[number].subject != nights[number - 1].subject]
    for number in new:
        x = plot.x(number - 0.5)
        yield rule("edge", (x, plot.top - _ABOVE + 4), (x, bottom), RULE, ' stroke-dasharray="1 3"')
        if number == new[-1]:
            yield text(x + 4, plot.top - _ABOVE, f"{night_words.subject_name(nights[number].subject)} →", anchor="end")


@dataclass(frozen=True, kw_only=True)
class RuledFigure:
    """A night's verdict on one metric in words and, where known, in numbers. `ratio`, with its interval `low` to `high`, is this
    night's value divided by the value with the last good files.
    """

    case: str
    task: str | None
    key: str | None
    cause: str
    change: str
    interval: str
    tonight: Point | None
    expected: float | None
    ratio: float | None
    low: float | None
    high: float | None
    comparison: str | None


@dataclass(frozen=True, kw_only=True)
class FindingDocument:
    """A finding of a night. `since` is the first night with the change; `last_good` has digests of the files tested before it. A
    regression that an earlier night told first `is_standing`, for so many `nights`, and the case is known to have been good until
    `good_night`.
    """

    kind: RulingKind
    cases: tuple[str, ...]
    device: str
    address: str
    sentence: str
    owners: tuple[str, ...]
    since: str | None
    is_standing: bool
    nights: int | None
    good_night: str | None
    last_good: Subject | None
    next_step: str
    figures: tuple[RuledFigure, ...]


@dataclass(frozen=True, kw_only=True)
class NightDocument:
    """The result of a nightly run. `counts` is a dict from a verdict to a number of (case, device) pairs. A pair counts once,
    under its worst verdict; `standing` is the number of those whose regressions earlier nights told first. `ended` has sentences
    on regressions that are over. `clean` is a dict from a case to the addresses of the devices on which all verdicts are CLEAN.
    """

    schema_version: int
    night: str
    name: str
    version: str
    began_at: datetime
    ended_at: datetime | None
    outcome: RulingKind
    sentence: str
    counts: dict[RulingKind, int]
    standing: int
    ended: tuple[str, ...]
    findings: tuple[FindingDocument, ...]
    devices: tuple[DeviceNight, ...]
    clean: dict[str, tuple[str, ...]]
    not_ruled: tuple[tuple[str, str], ...]


def night_json(view: NightView) -> str:
    """Return a nightly report as JSON according to its schema in docs/schemas; null stands for NaN and infinities."""
    findings = tuple(map(_finding, view.findings))
    parts = {
        "counts": view.counts,
        "standing": view.standing,
        "ended": view.ended,
        "devices": view.devices,
        "clean": view.clean,
        "not_ruled": view.open,
        "findings": findings,
    }
    night = {"schema_version": SCHEMA_VERSION, "night": view.night.night_id, "outcome": view.outcome, "sentence": view.sentence}
    document = document_from(NightDocument, view.night, **night, **parts)
    return adapter_of(NightDocument).dump_json(document, indent=1).decode()


def _finding(finding: NightFinding) -> FindingDocument:
    return document_from(
        FindingDocument,
        finding,
        device=finding.place[1],
        since=finding.since.night if finding.since else None,
        nights=finding.figures[0].ruling.nights,
        good_night=finding.figures[0].ruling.good_night,
        last_good=finding.figures[0].ruling.last_good,
        figures=tuple(_figure(figure) for figure in finding.figures),
    )


def _figure(figure: FigureRow) -> RuledFigure:
    tonight = figure.point if figure.point and math.isfinite(figure.point.value) else None
    words = {"cause": figure.cause, "change": figure.change, "interval": figure.interval}
    return document_from(RuledFigure, figure.ruling, tonight=tonight, **words)


def finding_lines(finding: NightFinding) -> Iterator[str]:
    """Yield a night's finding as lines of terminal text: kind, metrics, cause, first night, case owners, next command."""
    yield f"{finding.label}: {', '.join(finding.cases)} on {finding.address}"
    for line in figure_lines(finding):
        yield f"    {line}"
    yield f"    why: {finding.figures[0].cause}"
    if finding.since:
        yield f"    since: {finding.since}"
    if finding.owners:
        yield f"    owner: {', '.join(finding.owners)}"
    yield f"    next: {finding.next_step}"


def device_table(view: NightView) -> TextTable:
    """Return a table of a night's devices with their problems and environment changes."""
    return TextTable(
        title="Devices",
        columns=DEVICE_COLUMNS,
        numeric=(False, True, False, False),
        rows=tuple(
            tuple(cell if isinstance(cell, str) else "; ".join(cell) or "–" for cell in device_cells(device))
            for device in view.devices
        ),
    )


def device_cells(device: DeviceNight) -> tuple[str | list[str], ...]:
    """Return the four cells of a device's row under DEVICE_COLUMNS. The third and fourth are lists of texts, the others texts."""
    noticed = [*device.wrong, *(caveat.label for caveat in device.caveats)]
    clean = f"{device.clean} of {device.cases}"
    changes = [f"{name}: {before} → {now}" for name, (before, now) in device.environment_changes.items()]
    return device.address, clean, noticed, changes


def figure_lines(finding: NightFinding) -> list[str]:
    """Return the first three metrics of a night's finding as lines of text. A fourth line counts any remaining metrics."""
    lines = [str(figured) for figured in finding.figures if figured.figure]
    more = len(lines) - _FIGURES_SHOWN
    return lines[:_FIGURES_SHOWN] + ([f"and {plural(more, 'other figure')}"] if more > 0 else [])


def write_night_report(view: NightView, commands: Mapping[str, str], layout: Layout) -> Path:
    """Write a night's HTML report to `nights/<night id>/night.html` atomically. It lists `commands`, a {purpose: command}.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    path = layout.night(view.night.night_id) / "night.html"
    write_atomic(path, render_night(view, commands), end="")
    return path


def render_night(view: NightView, commands: Mapping[str, str]) -> str:
    charts: dict[int, tuple[Markup, ...]] = {}  # charts of the worst findings' first figures, by number of the finding
    left = _MAX_CHARTS
    for number, finding in enumerate(view.findings):
        if drawn := tuple(islice(_drawn(finding, view), min(_CHARTS_EACH, left))):
            charts[number] = drawn
            left -= len(drawn)
    environment = page_environment(words=tidy, subject=night_words.subject_name)
    page = environment.get_template("night.html.j2")
    return page.render(view=view, charts=charts, meanings=_MEANINGS, standing=STANDING, commands=commands)


def _drawn(finding: NightFinding, view: NightView) -> Iterator[Markup]:
    for figure in finding.figures:
        nights = view.series.get((figure.ruling.case, figure.ruling.device), ())
        if (chart := night_chart(finding, drawn_figure(figure, view.series), nights)) is not None:
            yield Markup(chart)
