"""History nights: the nights of a case on a device -> which of them are in doubt, and what a figure took in a stretch; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.night import Measurement
from quadbench.nightly.figures import name_of, said_value, scaled
from quadbench.nightly.history import FigureHistory
from quadbench.nightly.history_answer import Change
from quadbench.nightly.segments import Segment
from quadbench.report.night_words import words
from quadbench.report.units import plural


@dataclass(frozen=True, kw_only=True)
class DoubtedNights:
    """The nights of a case on a device in which a caveat held, `count` of `nights`, from the first to the last of them.

    `of_change` are those among them on either side of the last change that matters; None where nothing has changed.
    """

    count: int
    nights: int
    first: str
    last: str
    are_adjoining: bool
    of_change: int | None

    def __str__(self) -> str:
        joint = "to" if self.are_adjoining else "and others until"
        which = self.first if self.count == 1 else f"{self.first} {joint} {self.last}"
        told = f"in {self.count} of {plural(self.nights, 'night')}, {which}"
        if self.of_change is None:
            return told
        if not self.of_change:
            return f"{told}; the change is told by other nights"
        return f"{told}; the change is told by {self.of_change} of these too"


def doubted_nights(nights: Sequence[Measurement], change: Change | None) -> dict[Caveat, DoubtedNights]:
    """Return the nights in doubt by what is doubted of them."""
    places = {night.night: place for place, night in enumerate(nights)}
    of_change = range(places[change.before.first], places[change.segment.last] + 1) if change else None
    told = {}
    for caveat in Caveat:
        doubted = [place for place, night in enumerate(nights) if caveat in night.caveats]
        if doubted:
            told[caveat] = DoubtedNights(
                count=len(doubted),
                nights=len(nights),
                first=words(nights[doubted[0]].night),
                last=words(nights[doubted[-1]].night),
                are_adjoining=doubted[-1] - doubted[0] + 1 == len(doubted),
                of_change=None if of_change is None else len([place for place in doubted if place in of_change]),
            )
    return told


def took(nights: Sequence[Measurement], figure: FigureHistory) -> str:
    """Say what a figure that is followed as a ratio takes in its own unit, before and since its last change; else nothing."""
    if not figure.segments or not figure.segments[-1].is_ratio:
        return ""
    now = _median(nights, figure, figure.segments[-1])
    if figure.segments[-1].change is None:
        return f"The case's own median: {now}."
    return f"The case's own medians: {_median(nights, figure, figure.segments[-2])} before, {now} since."


def _median(nights: Sequence[Measurement], figure: FigureHistory, segment: Segment) -> str:
    """Return the median of a figure's own values in the nights of a segment."""
    names = [night.night for night in nights]
    stretch = nights[names.index(segment.first) : names.index(segment.last) + 1]
    points = [point for night in stretch for point in night.points if name_of(point) == (figure.task, figure.key)]
    values = [point.value for point in points if scaled(point) is not None]
    return said_value(median(values), figure.key, is_ratio=False)
