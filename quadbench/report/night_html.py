"""Night report: a night as it is told -> one self-contained HTML file, readable without script."""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from quadbench.artifacts.night import RulingKind
from quadbench.report.night import DeviceNight, NightView
from quadbench.report.night_chart import night_chart
from quadbench.report.night_document import night_json
from quadbench.report.night_findings import NightFinding, drawn_figure, subject_name
from quadbench.report.night_text import rate_words
from quadbench.report.night_words import words
from quadbench.report.page import page_environment, write_page
from quadbench.results.layout import Layout

_MOST_CHARTS = 12
_CHARTS_EACH = 2
_MEANINGS = {
    RulingKind.REGRESSION: "It is slower, bigger or worse than with the last good files, by launches in turn, bytes or pictures.",
    RulingKind.INCONCLUSIVE: "It looks different, and launches in turn could not tell.",
    RulingKind.MISSING: "It was not measured.",
    RulingKind.ENVIRONMENT: "What runs is the same; the device or what is around it changed.",
    RulingKind.IMPROVEMENT: "It is faster, smaller or better than with the last good files.",
}


def write_night_report(view: NightView, commands: Mapping[str, str], layout: Layout) -> Path:
    """Write `nights/<night id>/night.html` in the results folder, whole or not at all; return its path.

    `commands` are those that do the same again or tell of it, by purpose.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    return write_page(layout.night(view.night.night_id) / "night.html", render_night(view, commands))


def render_night(view: NightView, commands: Mapping[str, str]) -> str:
    """Return the report of a night as text."""
    page = _environment().get_template("night.html.j2")
    return page.render(view=view, charts=_charts(view), meanings=_MEANINGS, commands=commands, data=night_json(view))


@cache
def _environment() -> Environment:
    return page_environment({"words": words, "wrong": _is_wrong, "rate": rate_words, "subject": subject_name})


def _charts(view: NightView) -> dict[int, tuple[Markup, ...]]:
    """Return the charts of the findings that have any, by their number: of the first figures of the worst ones."""
    charts: dict[int, tuple[Markup, ...]] = {}
    left = _MOST_CHARTS
    for number, finding in enumerate(view.findings):
        if drawn := tuple(islice(_drawn(finding, view), min(_CHARTS_EACH, left))):
            charts[number] = drawn
            left -= len(drawn)
    return charts


def _drawn(finding: NightFinding, view: NightView) -> Iterator[Markup]:
    for told in finding.figures:
        nights = view.series.get((told.ruling.case, told.ruling.device), ())
        if (chart := night_chart(finding, drawn_figure(told, view.series), nights)) is not None:
            yield Markup(chart)


def _is_wrong(device: DeviceNight) -> bool:
    """Say whether there is more to a device than that it is clean."""
    return bool(device.wrong or device.caveats)
