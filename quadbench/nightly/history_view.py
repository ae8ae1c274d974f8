"""History view: the nights of cases on devices -> what a page shows of them, here or in a file: sentences, charts, tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from markupsafe import Markup

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.night import Measurement
from quadbench.nightly.history import CaseHistory, case_history, segment_table, sentence, told_tables
from quadbench.nightly.history_answer import answer, last_change
from quadbench.nightly.history_chart import MOST_NIGHTS, history_chart
from quadbench.nightly.history_nights import DoubtedNights, doubted_nights, took
from quadbench.report.figure_table import TextTable
from quadbench.report.night_words import listed, words
from quadbench.results.nights import Nights

_MOST_SECTIONS, _MOST_FIGURES, _MOST_CHARTS = 30, 6, 30  # devices of a page, figures of a device, charts in all
_MOST_SENTENCES = 12
_MOST_DOUBTS = 3  # of a caveat, at the head of a page


@dataclass(frozen=True, kw_only=True)
class Told:
    """A history and the nights that it is of, in the order of time."""

    history: CaseHistory
    nights: Sequence[Measurement]


@dataclass(frozen=True, kw_only=True)
class CaseSection:
    """A case on a device: where it stands, its doubts, and a chart and a table for each of its figures."""

    history: CaseHistory
    sentence: str
    doubts: dict[Caveat, DoubtedNights]
    figures: tuple[tuple[Markup | None, TextTable], ...]
    tables: tuple[TextTable, ...]

    @property
    def title(self) -> str:
        """Return the case and its device."""
        return f"{words(self.history.case)} on {self.address}"

    @property
    def address(self) -> str:
        """Return the device as a page writes it."""
        return words(self.history.address)


@dataclass(frozen=True, kw_only=True)
class HistoryView:
    """Histories as a page has them: what changed last first, with how many sentences and devices it leaves out."""

    sentences: tuple[str, ...]
    more_sentences: int
    sections: tuple[CaseSection, ...]
    more_sections: int
    most_nights: int = MOST_NIGHTS

    @property
    def doubts(self) -> dict[Caveat, tuple[str, ...]]:
        """Return the caveats of any night, each with the devices and nights that it is about, those that are alike together."""
        return {caveat: told for caveat in Caveat if (told := tuple(self._doubted(caveat)))}

    @property
    def is_of_many(self) -> bool:
        """Say whether there is more than one case."""
        return len({section.history.case for section in self.sections}) > 1

    def _doubted(self, caveat: Caveat) -> Iterator[str]:
        alike = dict[str, list[str]]()
        for section in self.sections:
            if caveat in section.doubts:
                alike.setdefault(str(section.doubts[caveat]), []).append(section.address)
        for told, addresses in islice(alike.items(), _MOST_DOUBTS):
            yield f"On {listed(list(dict.fromkeys(addresses)))} {told}."
        if len(alike) > _MOST_DOUBTS:
            yield f"{len(alike) - _MOST_DOUBTS} more stand below, device by device."


def told_of(nights: Nights, series: Iterable[Sequence[Measurement]], *, is_whole: bool) -> list[Told]:
    """Return the histories of cases on devices, each of at least one night; with every figure if `is_whole`."""
    told = []
    for measured in series:
        case, device = measured[-1].case, measured[-1].device
        history = case_history(measured, nights.rulings_of(case, device), nights.acknowledgements(case), is_whole=is_whole)
        told.append(Told(history=history, nights=measured))
    return told


def history_view(told: Sequence[Told], now: datetime) -> HistoryView:
    """Return a page of histories: what changed last stands first, and so do the devices on which it did."""
    sentences = answer([one.history for one in told], now)
    sections = _sections(sorted(told, key=lambda one: _urgency(one.history, now)), now)
    return HistoryView(
        sentences=sentences[:_MOST_SENTENCES],
        more_sentences=max(len(sentences) - _MOST_SENTENCES, 0),
        sections=tuple(sections),
        more_sections=len(told) - len(sections),
    )


def _urgency(history: CaseHistory, now: datetime) -> tuple[bool, bool, str, str]:
    change = last_change(history, now)
    return change is None, change is not None and not change.is_open, history.case, history.address


def _sections(told: Sequence[Told], now: datetime) -> list[CaseSection]:
    left, sections = _MOST_CHARTS, list[CaseSection]()
    for one in told[:_MOST_SECTIONS]:
        figures = []
        for figure in islice((figure for figure in one.history.figures if figure.segments), _MOST_FIGURES):
            chart = history_chart(figure, one.history, one.nights) if left else None
            left -= chart is not None
            figures.append((Markup(chart) if chart else None, segment_table(figure)))
        sections.append(
            CaseSection(
                history=one.history,
                sentence=_sentence(one),
                doubts=doubted_nights(one.nights, last_change(one.history, now)),
                figures=tuple(figures),
                tables=told_tables(one.history),
            )
        )
    return sections


def _sentence(told: Told) -> str:
    first = next((figure for figure in told.history.figures if figure.segments), None)
    return " ".join(filter(None, (sentence(told.history), took(told.nights, first) if first else "")))
