"""History answer: the histories of cases on devices -> what changed last, since when, by what and on which devices; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from quadbench.artifacts.night import Acknowledgement
from quadbench.nightly.figures import is_worse, limit_of, said_change
from quadbench.nightly.history import CaseHistory, FigureHistory, changed_words
from quadbench.nightly.night_file import Limits
from quadbench.nightly.segments import Segment
from quadbench.report.night_words import figure_name, listed, words
from quadbench.report.units import plural

_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Change:
    """The last change that matters of a case on a device: of a figure, with a segment. `word` says that it shall be so."""

    history: CaseHistory
    figure: FigureHistory
    segment: Segment
    word: Acknowledgement | None

    @property
    def before(self) -> Segment:
        """Return the segment before it."""
        return self.figure.segments[self.figure.segments.index(self.segment) - 1]

    @property
    def is_open(self) -> bool:
        """Say whether it is one that nobody wants and nobody has acknowledged."""
        return self.word is None and is_worse(self.segment.change or 0.0, self.figure.key)


def last_change(history: CaseHistory, now: datetime) -> Change | None:
    """Return the last change of the first figure that changed by as much as matters where nothing else is said."""
    for figure in history.figures:
        limit = limit_of(figure.key, _LIMITS)
        big = [one for one in figure.segments if one.change is not None and abs(one.change) > limit]
        if big:
            word = _word_on(figure, big[-1], history.acknowledged, now)
            return Change(history=history, figure=figure, segment=big[-1], word=word)
    return None


def answer(histories: Sequence[CaseHistory], now: datetime) -> tuple[str, ...]:
    """Say what changed last, the devices on which it did alike together, what is open first; and where nothing did."""
    changes = [change for history in histories if (change := last_change(history, now))]
    together = [list(alike) for _, alike in groupby(sorted(changes, key=_alike), key=_alike)]
    ordered = sorted(together, key=lambda alike: (alike[0].is_open, min(one.segment.since for one in alike)), reverse=True)
    changed = {(one.history.case, one.history.device) for one in changes}
    steady = [one for one in histories if (one.case, one.device) not in changed]
    return (*map(_told, ordered), *_nothing(steady))


def _alike(change: Change) -> tuple[object, ...]:
    """Return what changes have in common that are told in one sentence."""
    figure, segment = change.figure, change.segment
    return change.is_open, segment.first, change.history.case, figure.task, figure.key, changed_words(segment), str(change.word)


def _told(changes: Sequence[Change]) -> str:
    first = changes[0]
    figure, segment, word = first.figure, first.segment, first.word
    sizes = dict.fromkeys(said_change(one.segment.change or 0.0, one.figure.key) for one in changes)
    what = f"{words(first.history.case)}: {figure_name(figure.key, figure.task)} is {listed(list(sizes))} than before"
    where = listed([words(one.history.address) for one in changes])
    by = (
        f"what changed that night: {changed_words(segment)}" if segment.changed else "nothing that is known of changed that night"
    )
    told = f"{what} on {where} since {words(segment.first)}; {by}."
    if word is None:
        return told
    return f"{told} It is acknowledged until {word.until:%Y-%m-%d} by {words(word.owner)}, because: “{words(word.reason)}”."


def _nothing(histories: Iterable[CaseHistory]) -> list[str]:
    """Say of each case on which devices nothing of it has changed."""
    told = []
    for case, alike in groupby(histories, key=lambda history: history.case):
        of_case = list(alike)
        nights = plural(max(history.nights for history in of_case), "night")
        where = listed([words(history.address) for history in of_case])
        told.append(f"{words(case)}: nothing that matters has changed on {where} in {nights}.")
    return told


def _word_on(
    figure: FigureHistory, segment: Segment, acknowledged: Sequence[Acknowledgement], now: datetime
) -> Acknowledgement | None:
    """Return the latest word in force by which a change is as it shall be."""
    about = (
        word
        for word in reversed(acknowledged)
        if word.until > now and word.task in (None, figure.task) and word.key in (None, figure.key)
    )
    return next((word for word in about if word.since >= segment.since or word.night == segment.first), None)
