"""Histories of nightly cases as a list, as JSON, and as the content of an HTML page."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from statistics import median

from markupsafe import Markup

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.night_record import Measurement
from quadbench.nightly import history
from quadbench.nightly.history import (
    CaseHistory,
    Change,
    FigureHistory,
    Segment,
    case_history,
    last_change,
    segment_cells,
    sentence,
    summary,
)
from quadbench.nightly.history_chart import MAX_NIGHTS, history_chart
from quadbench.nightly.series import name_of, to_scale, value_text
from quadbench.report.formatting import TextTable, join_names, plural
from quadbench.report.night import tidy
from quadbench.report.versus import ALL_TASKS, PRIMARY
from quadbench.results.documents import document_from
from quadbench.results.nights import NightStore

SCHEMA_VERSION = 1
_MAX_SECTIONS, _MAX_FIGURES, _MAX_CHARTS = 30, 6, 30  # devices per page, figures per device, charts per page
_MAX_SENTENCES = 12
_MAX_DOUBTS = 3  # sentences per caveat at the top of a page


@dataclass(frozen=True, kw_only=True)
class CaseLine:
    """A list entry for a nightly case on a device: its latest night, that night's verdicts, and its current image time."""

    case: str
    device: str
    address: str
    night: str
    kinds: tuple[str, ...]
    segment: Segment | None


def case_lines(nights: NightStore, series: Sequence[Sequence[Measurement]]) -> tuple[CaseLine, ...]:
    """Return a tuple of CaseLines (latest night, verdicts), one per series. A series is one case's measurements on one device."""
    rulings_of = {night: nights.rulings(night) for night in {measured[-1].night for measured in series}}
    lines = []
    for measured in series:
        latest = measured[-1]
        names = [name_of(point) for point in latest.points if point.key == PRIMARY]
        name = (ALL_TASKS, PRIMARY) if (ALL_TASKS, PRIMARY) in names else names[0] if names else None
        parts = history.segments(measured, name) if name else ()
        where = latest.night, latest.case, latest.device
        kinds = dict.fromkeys(one.kind.value for one in rulings_of[latest.night] if (one.night, one.case, one.device) == where)
        lines.append(document_from(CaseLine, latest, kinds=tuple(kinds), segment=parts[-1] if parts else None))
    return tuple(lines)


def case_table(lines: Sequence[CaseLine]) -> TextTable:
    rows = []
    for line in lines:
        kinds = [kind for kind in line.kinds if kind != "CLEAN"] or line.kinds
        level, change, _ = segment_cells(line.segment, PRIMARY) if line.segment else ("–", "–", "")
        since = line.segment.first if line.segment else "–"
        rows.append((line.case, tidy(line.address), line.night, ", ".join(kinds) or "–", level, since, change))
    return TextTable(
        title="Cases",
        columns=("Case", "Device", "Latest night", "Rulings", "Time of an image", "Since", "Change then"),
        numeric=(False, False, False, False, True, False, True),
        rows=tuple(rows),
    )


@dataclass(frozen=True, kw_only=True)
class CaseList:
    """The list of nightly cases. `cases` has a CaseLine (latest night, verdicts, image time) for each case on each device."""

    schema_version: int = SCHEMA_VERSION
    cases: tuple[CaseLine, ...]


@dataclass(frozen=True, kw_only=True)
class CaseDocument:
    """The history of one nightly case, or of all cases if `case` is None. `devices` has a CaseHistory per case and device."""

    schema_version: int = SCHEMA_VERSION
    case: str | None
    devices: tuple[CaseHistory, ...]


def doubted_nights(nights: Sequence[Measurement], change: Change | None) -> dict[Caveat, str]:
    """Return a dict from Caveat (a reason for distrust) to text: which nights have it, and how many of these `change` uses."""
    places = {night.night: place for place, night in enumerate(nights)}
    of_change = range(places[change.before.first], places[change.segment.last] + 1) if change else range(0)
    nights_by_caveat = {}
    for caveat in Caveat:
        doubted = [place for place, night in enumerate(nights) if caveat in night.caveats]
        if not doubted:
            continue
        first, last = tidy(nights[doubted[0]].night), tidy(nights[doubted[-1]].night)
        joint = "to" if doubted[-1] - doubted[0] + 1 == len(doubted) else "and others until"
        which = first if len(doubted) == 1 else f"{first} {joint} {last}"
        nights_by_caveat[caveat] = f"in {len(doubted)} of {plural(len(nights), 'night')}, {which}"
        if change:
            count = len([place for place in doubted if place in of_change])
            nights_by_caveat[caveat] += f"; the change rests on {f'{count} of these too' if count else 'other nights'}"
    return nights_by_caveat


def as_value(nights: Sequence[Measurement], figure: FigureHistory) -> str:
    """Return a ratio metric's absolute medians before and after its last change, as a sentence. Return "" for other metrics."""
    if not figure.segments or not figure.segments[-1].is_ratio:
        return ""
    now = _median(nights, figure, figure.segments[-1])
    if figure.segments[-1].change is None:
        return f"The case's own median: {now}."
    return f"The case's own medians: {_median(nights, figure, figure.segments[-2])} before, {now} since."


def _median(nights: Sequence[Measurement], figure: FigureHistory, segment: Segment) -> str:
    """Return the median of a metric's own values in a segment's nights, with its unit. Ratios to the yardstick are not used."""
    names = [night.night for night in nights]
    stretch = nights[names.index(segment.first) : names.index(segment.last) + 1]
    points = [point for night in stretch for point in night.points if name_of(point) == (figure.task, figure.key)]
    values = [point.value for point in points if to_scale(point) is not None]
    return value_text(median(values), figure.key, is_ratio=False)


@dataclass(frozen=True, kw_only=True)
class CaseData:
    """A nightly case on one device: its `history`, computed from the measurements in `nights` (one per night, oldest first)."""

    history: CaseHistory
    nights: Sequence[Measurement]


@dataclass(frozen=True, kw_only=True)
class CaseSection:
    """A section of the history page, about one case on one device: summary, caveats, and a chart and table for each metric."""

    history: CaseHistory
    sentence: str
    doubts: dict[Caveat, str]
    figures: tuple[tuple[Markup | None, TextTable], ...]
    tables: tuple[TextTable, ...]

    @property
    def title(self) -> str:
        return f"{tidy(self.history.case)} on {self.address}"

    @property
    def address(self) -> str:
        return tidy(self.history.address)


@dataclass(frozen=True, kw_only=True)
class HistoryView:
    """The content of the history page. `more_sentences` and `more_sections` count the omitted sentences and sections."""

    sentences: tuple[str, ...]
    more_sentences: int
    sections: tuple[CaseSection, ...]
    more_sections: int
    most_nights: int = MAX_NIGHTS

    @property
    def doubts(self) -> dict[Caveat, tuple[str, ...]]:
        """Return a dict from caveat to a tuple of sentences. Each sentence names devices and the nights that have the caveat."""
        return {caveat: doubted for caveat in Caveat if (doubted := tuple(self._doubted(caveat)))}

    @property
    def is_of_many(self) -> bool:
        return len({section.history.case for section in self.sections}) > 1

    def _doubted(self, caveat: Caveat) -> Iterator[str]:
        alike = dict[str, list[str]]()
        for section in self.sections:
            if caveat in section.doubts:
                alike.setdefault(section.doubts[caveat], []).append(section.address)
        for doubted, addresses in islice(alike.items(), _MAX_DOUBTS):
            yield f"On {join_names(list(dict.fromkeys(addresses)))} {doubted}."
        if len(alike) > _MAX_DOUBTS:
            yield f"{len(alike) - _MAX_DOUBTS} more are listed below, by device."


def read_cases(nights: NightStore, series: Iterable[Sequence[Measurement]], *, is_whole: bool) -> list[CaseData]:
    """Return a CaseData for each series (a case on a device). If `is_whole`, keep even metrics whose verdicts are all CLEAN."""
    inputs = []
    for measured in series:
        case, device = measured[-1].case, measured[-1].device
        of_case = case_history(measured, nights.rulings_of(case, device), nights.acknowledgements(case), is_whole=is_whole)
        inputs.append(CaseData(history=of_case, nights=measured))
    return inputs


def history_view(inputs: Sequence[CaseData], now: datetime) -> HistoryView:
    """Return a HistoryView for the history page. Cases with unaccepted changes for the worse come first, unchanged cases last."""
    sentences = summary([one.history for one in inputs], now)
    sections = _sections(sorted(inputs, key=lambda one: _urgency(one, now)), now)
    return HistoryView(
        sentences=sentences[:_MAX_SENTENCES],
        more_sentences=max(len(sentences) - _MAX_SENTENCES, 0),
        sections=tuple(sections),
        more_sections=len(inputs) - len(sections),
    )


def _urgency(entry: CaseData, now: datetime) -> tuple[bool, bool, str, str]:
    change = last_change(entry.history, now)
    return change is None, change is not None and not change.is_open, entry.history.case, entry.history.address


def _sections(inputs: Sequence[CaseData], now: datetime) -> list[CaseSection]:
    left, sections = _MAX_CHARTS, list[CaseSection]()
    for one in inputs[:_MAX_SECTIONS]:
        followed = [figure for figure in one.history.figures if figure.segments]
        figures = []
        for figure in followed[:_MAX_FIGURES]:
            chart = history_chart(figure, one.history, one.nights) if left else None
            left -= chart is not None
            figures.append((Markup(chart) if chart else None, history.segment_table(figure)))
        sections.append(
            CaseSection(
                history=one.history,
                sentence=" ".join(filter(None, (sentence(one.history), as_value(one.nights, followed[0]) if followed else ""))),
                doubts=doubted_nights(one.nights, last_change(one.history, now)),
                figures=tuple(figures),
                tables=history.ruling_tables(one.history),
            )
        )
    return sections
