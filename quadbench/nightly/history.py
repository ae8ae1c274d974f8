"""History: the nights of a case on a device, their rulings and people's words -> what changed since when, in tables; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from quadbench.artifacts.night import Acknowledgement, Measurement, Ruling, RulingKind
from quadbench.nightly.figures import name_of, said_change, said_value
from quadbench.nightly.segments import Segment, segments
from quadbench.report.figure_table import TextTable
from quadbench.report.night_words import figure_name, words
from quadbench.report.units import plural
from quadbench.report.versus import ALL_TASKS, PRIMARY

_MOST_CHANGED = 3  # names of what changed, in a cell
_MOST_SHOWN = 20  # lines of a table, the latest
_COLUMNS = ("From", "To", "Nights", "Level", "Change", "What changed then")
_NUMERIC = (False, False, True, True, True, False)
_SHORT = 12  # characters of a value that changed: those of a digest that tell it from others


@dataclass(frozen=True, kw_only=True)
class FigureHistory:
    """A figure of a case on a device, by segments in the order of time."""

    task: str
    key: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class CaseHistory:
    """A case on a device: its figures, the rulings that stand and are not clean, and what was acknowledged of it."""

    case: str
    device: str
    address: str
    nights: int
    figures: tuple[FigureHistory, ...]
    rulings: tuple[Ruling, ...]
    acknowledged: tuple[Acknowledgement, ...]


def case_history(
    nights: Sequence[Measurement], rulings: Sequence[Ruling], acknowledged: Sequence[Acknowledgement], *, is_whole: bool
) -> CaseHistory:
    """Return the history of a case on a device, of which there is at least one night.

    The figures are those of the time of an image and those that a ruling which is not clean is about; all if `is_whole`.
    """
    latest = nights[-1]
    told = tuple(ruling for ruling in rulings if ruling.kind is not RulingKind.CLEAN)
    names = dict.fromkeys(name_of(point) for night in reversed(nights) for point in night.points)
    primary = (ALL_TASKS, PRIMARY)
    shown = {(ruling.task, ruling.key) for ruling in told} | {primary}
    wanted = [name for name in names if is_whole or name in shown or (name[1] == PRIMARY and primary not in names)]
    return CaseHistory(
        case=latest.case,
        device=latest.device,
        address=latest.address,
        nights=len(nights),
        figures=tuple(FigureHistory(task=task, key=key, segments=segments(nights, (task, key))) for task, key in wanted),
        rulings=told,
        acknowledged=tuple(word for word in acknowledged if word.device in (None, latest.device)),
    )


def tables(history: CaseHistory) -> tuple[TextTable, ...]:
    """Return what a person reads of it: segments, rulings and acknowledgements, the latest of them, without empty tables."""
    segments = _segments(history)
    return (*((segments,) if segments.rows else ()), *told_tables(history))


def told_tables(history: CaseHistory) -> tuple[TextTable, ...]:
    """Return the latest rulings and acknowledgements, without empty tables."""
    return tuple(table for table in (_rulings(history), _words(history)) if table.rows)


def sentence(history: CaseHistory) -> str:
    """Say where the first figure stands, and since when."""
    figure = next((figure for figure in history.figures if figure.segments), None)
    if figure is None:
        return f"{history.case} on {words(history.address)} has {plural(history.nights, 'night')} and no figure to follow."
    latest = figure.segments[-1]
    level, change, changed = _cells(latest, figure.key)
    where = f"{history.case} on {words(history.address)}: {figure_name(figure.key, figure.task)} is {level}"
    if latest.change is None:
        return f"{where} since {latest.first}, in {plural(latest.nights, 'night')}."
    changed = changed if latest.changed else "nothing that is known"
    return f"{where} since {latest.first}, {change} than before; what changed that night: {changed}."


def _segments(history: CaseHistory) -> TextTable:
    rows = [
        (figure_name(figure.key, figure.task), segment.first, segment.last, str(segment.nights), *_cells(segment, figure.key))
        for figure in history.figures
        for segment in figure.segments[-_MOST_SHOWN:]
    ]
    return TextTable(
        title=f"{history.case} on {words(history.address)}",
        columns=("Figure", *_COLUMNS),
        numeric=(False, *_NUMERIC),
        rows=tuple(rows),
    )


def segment_table(figure: FigureHistory) -> TextTable:
    """Return the segments of one figure by their numbers, the latest of them."""
    numbered = list(enumerate(figure.segments, start=1))[-_MOST_SHOWN:]
    return TextTable(
        title=figure_name(figure.key, figure.task),
        columns=("Segment", *_COLUMNS),
        numeric=(False, *_NUMERIC),
        rows=tuple((str(n), one.first, one.last, str(one.nights), *_cells(one, figure.key)) for n, one in numbered),
    )


def changed_words(segment: Segment) -> str:
    """Write what was otherwise in the last night before a segment; nothing where that is not known."""
    changes = [f"{words(name)} {_short(before)} → {_short(now)}" for name, (before, now) in segment.changed.items()]
    more = f", {len(changes) - _MOST_CHANGED} more" if len(changes) > _MOST_CHANGED else ""
    return ", ".join(changes[:_MOST_CHANGED]) + more


def _cells(segment: Segment, key: str) -> tuple[str, str, str]:
    level = said_value(segment.level, key, is_ratio=segment.is_ratio)
    change = "–" if segment.change is None else said_change(segment.change, key)
    return level, change, changed_words(segment) or "–"


def _rulings(history: CaseHistory) -> TextTable:
    """Return the rulings by figure, those of nights behind each other that say the same in one row."""
    ordered = sorted(history.rulings, key=lambda ruling: (ruling.key or "", ruling.task or ""))
    alike = [list(group) for _, group in groupby(ordered, key=lambda one: (one.key, one.task, one.kind, one.cause))]
    rows = [
        (_span(told), figure_name(told[0].key, told[0].task) or "all", told[0].kind.value, words(told[0].cause))
        for told in sorted(alike, key=lambda told: told[0].told_at)[-_MOST_SHOWN:]
    ]
    return TextTable(
        title="Rulings that are not clean",
        columns=("Night", "Figure", "Ruling", "Why"),
        numeric=(False, False, False, False),
        rows=tuple(rows),
    )


def _span(rulings: Sequence[Ruling]) -> str:
    first, last = rulings[0].night, rulings[-1].night
    return first if first == last else f"{first} to {last}, {plural(len(rulings), 'night')}"


def _words(history: CaseHistory) -> TextTable:
    rows = [
        (word.night, f"{word.until:%Y-%m-%d}", figure_name(word.key, word.task) or "all", words(word.owner), words(word.reason))
        for word in history.acknowledged[-_MOST_SHOWN:]
    ]
    return TextTable(
        title="Acknowledged",
        columns=("From", "Until", "Figure", "By", "Why"),
        numeric=(False, False, False, False, False),
        rows=tuple(rows),
    )


def _short(value: str) -> str:
    text = words(value)
    return text if len(text) <= 2 * _SHORT else text[:_SHORT]
