"""History report: cases on devices with their histories -> one self-contained HTML file, readable without script."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from itertools import islice

from jinja2 import Environment
from markupsafe import Markup
from pydantic import TypeAdapter

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.night import Measurement
from quadbench.nightly.history import CaseHistory, segment_table, sentence, told_tables
from quadbench.nightly.history_answer import answer, last_change
from quadbench.nightly.history_chart import MOST_NIGHTS, history_chart
from quadbench.report.night_words import listed, words
from quadbench.report.page import page_environment
from quadbench.report.text_table import TextTable
from quadbench.report.units import plural

SCHEMA_VERSION = 1
_MOST_SECTIONS, _MOST_FIGURES, _MOST_CHARTS = 30, 6, 30  # devices of a page, figures of a device, charts in all
_MOST_SENTENCES = 12
_MOST_RULINGS = 20  # of a device, in the data: quadbench history CASE --json has all


@dataclass(frozen=True, kw_only=True)
class Told:
    """A history and the nights that it is of, in the order of time."""

    history: CaseHistory
    nights: Sequence[Measurement]


@dataclass(frozen=True, kw_only=True)
class HistoryPage:
    """Histories as a page has them. `commands` are those that say the same again, and `next_step` what comes next, by purpose."""

    title: str
    told: Sequence[Told]
    commands: Mapping[str, str]
    next_step: Mapping[str, str]
    made_at: datetime


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A case on a device: where it stands, its doubts, and a chart and a table for each of its figures."""

    history: CaseHistory
    sentence: str
    doubts: dict[Caveat, int]
    figures: tuple[tuple[Markup | None, TextTable], ...]
    tables: tuple[TextTable, ...]


@dataclass(frozen=True, kw_only=True)
class HistoryDocument:
    """The data of a page, as programs read it."""

    schema_version: int
    devices: tuple[CaseHistory, ...]


def render_history(page: HistoryPage) -> str:
    """Return a page of histories as text: what changed last stands first, and so do the devices on which it did."""
    told = sorted(page.told, key=lambda one: _urgency(one.history, page.made_at))
    sections = _sections(told)
    sentences = answer([one.history for one in page.told], page.made_at)
    return (
        _environment()
        .get_template("case_history.html.j2")
        .render(
            page=page,
            sentences=sentences[:_MOST_SENTENCES],
            titles=len({one.history.case for one in told}),
            left_out=max(len(sentences) - _MOST_SENTENCES, 0),
            sections=sections,
            doubts=_doubted(sections),
            without=max(len(told) - _MOST_SECTIONS, 0),
            most_nights=MOST_NIGHTS,
            data=_data(one.history for one in told[:_MOST_SECTIONS]),
        )
    )


def span_words(told: Sequence[Told]) -> str:
    """Write of how many nights a page is, from when to when."""
    nights = {(night.night, night.measured_at.date()) for one in told for night in one.nights}
    days = sorted(day for _, day in nights)
    return f"{plural(len({name for name, _ in nights}), 'night')}, {days[0]} to {days[-1]}" if days else "no night"


def _urgency(history: CaseHistory, now: datetime) -> tuple[bool, bool, str, str]:
    change = last_change(history, now)
    return change is None, change is not None and not change.is_open, history.case, history.address


def _sections(told: Sequence[Told]) -> list[_Section]:
    left, sections = _MOST_CHARTS, list[_Section]()
    for one in told[:_MOST_SECTIONS]:
        figures = []
        for figure in islice((figure for figure in one.history.figures if figure.segments), _MOST_FIGURES):
            chart = history_chart(figure, one.history, one.nights) if left else None
            left -= chart is not None
            figures.append((Markup(chart) if chart else None, segment_table(figure)))
        doubts = Counter(caveat for night in one.nights for caveat in night.caveats)
        sections.append(
            _Section(
                history=one.history,
                sentence=sentence(one.history),
                doubts={caveat: doubts[caveat] for caveat in Caveat if caveat in doubts},
                figures=tuple(figures),
                tables=told_tables(one.history),
            )
        )
    return sections


def _doubted(sections: Sequence[_Section]) -> dict[Caveat, tuple[str, ...]]:
    """Return the caveats, each with the devices whose nights have it."""
    of_all = dict.fromkeys(caveat for section in sections for caveat in section.doubts)
    return {
        caveat: tuple(dict.fromkeys(one.history.address for one in sections if caveat in one.doubts))
        for caveat in Caveat
        if caveat in of_all
    }


def _data(histories: Iterable[CaseHistory]) -> str:
    short = tuple(replace(one, rulings=one.rulings[-_MOST_RULINGS:]) for one in histories)
    document = HistoryDocument(schema_version=SCHEMA_VERSION, devices=short)
    return TypeAdapter(HistoryDocument).dump_json(document, indent=1).decode()


@cache
def _environment() -> Environment:
    return page_environment({"words": words, "span": span_words, "listed": _listed})


def _listed(names: Sequence[str]) -> str:
    return listed([words(name) for name in names])
