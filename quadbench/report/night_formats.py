"""A night as JSON for programs, as text for a terminal, and as one HTML file without script."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from pydantic import TypeAdapter

from quadbench.artifacts.night import Point, RulingKind, Subject
from quadbench.report.figure_table import TextTable
from quadbench.report.night import DeviceNight, Figured, NightFinding, NightView, drawn_figure, subject_name
from quadbench.report.night_chart import night_chart
from quadbench.report.night_words import words
from quadbench.report.page import page_environment, write_page
from quadbench.report.units import percent, plural
from quadbench.results.layout import Layout

SCHEMA_VERSION = 1
DEVICE_COLUMNS = ("Device", "Clean", "Noticed", "Changed since the night before", "False alarms")
_FIGURES_SHOWN = 3
_MOST_CHARTS = 12
_CHARTS_EACH = 2
_MEANINGS = {
    RulingKind.REGRESSION: "It is slower, bigger or worse than with the last good files, by launches in turn, bytes or pictures.",
    RulingKind.INCONCLUSIVE: "It looks different, and launches in turn could not tell.",
    RulingKind.MISSING: "It was not measured.",
    RulingKind.ENVIRONMENT: "What runs is the same; the device or what is around it changed.",
    RulingKind.IMPROVEMENT: "It is faster, smaller or better than with the last good files.",
}


@dataclass(frozen=True, kw_only=True)
class RuledFigure:
    """A figure of a finding: in words, and in numbers where there are any. `ratio` is over the last good one's."""

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
    """A finding. `since` is the first night of what is there now, `last_good` what ran before."""

    kind: RulingKind
    cases: tuple[str, ...]
    device: str
    address: str
    sentence: str
    owners: tuple[str, ...]
    since: str | None
    last_good: Subject | None
    next_step: str
    figures: tuple[RuledFigure, ...]


@dataclass(frozen=True, kw_only=True)
class NightDocument:
    """A night. `counts` has the cases on devices by the worst that was ruled of each, `clean` the devices by case."""

    schema_version: int
    night: str
    name: str
    version: str
    began_at: datetime
    ended_at: datetime | None
    outcome: RulingKind
    sentence: str
    counts: dict[RulingKind, int]
    findings: tuple[FindingDocument, ...]
    devices: tuple[DeviceNight, ...]
    clean: dict[str, tuple[str, ...]]
    not_ruled: tuple[tuple[str, str], ...]


def night_json(view: NightView) -> str:
    """Return a night as JSON, as its schema in docs/schemas says; null for NaN and infinities, which JSON does not have."""
    return TypeAdapter(NightDocument).dump_json(_document(view), indent=1).decode()


def _document(view: NightView) -> NightDocument:
    night = view.night
    return NightDocument(
        schema_version=SCHEMA_VERSION,
        night=night.night_id,
        name=night.name,
        version=night.version,
        began_at=night.began_at,
        ended_at=night.ended_at,
        outcome=view.outcome,
        sentence=view.sentence,
        counts=view.counts,
        findings=tuple(_finding(finding) for finding in view.findings),
        devices=view.devices,
        clean=view.clean,
        not_ruled=view.open,
    )


def _finding(finding: NightFinding) -> FindingDocument:
    return FindingDocument(
        kind=finding.kind,
        cases=finding.cases,
        device=finding.place[1],
        address=finding.address,
        sentence=finding.sentence,
        owners=finding.owners,
        since=finding.since.night if finding.since else None,
        last_good=finding.figures[0].ruling.last_good,
        next_step=finding.next_step,
        figures=tuple(_figure(told) for told in finding.figures),
    )


def _figure(told: Figured) -> RuledFigure:
    ruling = told.ruling
    return RuledFigure(
        case=ruling.case,
        task=ruling.task,
        key=ruling.key,
        cause=told.cause,
        change=told.change,
        interval=told.interval,
        tonight=told.point if told.point and math.isfinite(told.point.value) else None,
        expected=ruling.expected,
        ratio=ruling.ratio,
        low=ruling.low,
        high=ruling.high,
        comparison=ruling.comparison,
    )


def finding_lines(finding: NightFinding) -> Iterator[str]:
    """Write a finding: what it is, the figures, why, since when, whose it is, and the command that comes next."""
    yield f"{finding.kind}: {', '.join(finding.cases)} on {finding.address}"
    for line in figure_lines(finding):
        yield f"    {line}"
    yield f"    why: {finding.figures[0].cause}"
    if finding.doubt:
        yield f"    doubt: {finding.doubt}"
    if finding.since:
        yield f"    since: {finding.since}"
    if finding.owners:
        yield f"    owner: {', '.join(finding.owners)}"
    yield f"    next: {finding.next_step}"


def device_table(view: NightView) -> TextTable:
    """Return the devices, with what was noticed and how often each alarms falsely."""
    return TextTable(
        title="Devices",
        columns=DEVICE_COLUMNS,
        numeric=(False, True, False, False, False),
        rows=tuple(
            tuple(cell if isinstance(cell, str) else "; ".join(cell) or "–" for cell in device_cells(device))
            for device in view.devices
        ),
        notes=(
            "False alarms: the share of cases that were called worse though neither files nor device had changed, "
            "over all nights so far; with its interval at 95 %.",
        ),
    )


def device_cells(device: DeviceNight) -> tuple[str | list[str], ...]:
    """Return the cells of a device below DEVICE_COLUMNS, of which some have several texts."""
    noticed = [*device.wrong, *(caveat.words for caveat in device.caveats)]
    clean = f"{device.clean} of {device.cases}"
    return device.address, clean, noticed, list(change_lines(device.environment_changes)), rate_words(device)


def rate_words(device: DeviceNight) -> str:
    """Write how often a device alarms falsely."""
    rate = device.false_alarms
    if rate is None or rate.low is None or rate.high is None:
        return "not known yet"
    return f"{rate.alarms} in {rate.tries}, {percent(rate.low)} to {percent(rate.high)}"


def change_lines(changes: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Write what changed, a text for each: `Android: 15 → 16`."""
    return (f"{name}: {before} → {now}" for name, (before, now) in changes.items())


def figure_lines(finding: NightFinding) -> list[str]:
    """Write the first figures of a finding, and how many more there are."""
    told = [str(figured) for figured in finding.figures if figured.figure]
    more = len(told) - _FIGURES_SHOWN
    return told[:_FIGURES_SHOWN] + ([f"and {plural(more, 'other figure')}"] if more > 0 else [])


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
    return page_environment({"words": words, "rate": rate_words, "subject": subject_name})


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
