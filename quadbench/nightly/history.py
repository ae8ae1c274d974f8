"""History of a nightly case on a device: periods of stable measurements (segments), the changes between them, and bisection."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from statistics import median
from typing import Annotated

from pydantic import Field

from quadbench.artifacts.night_record import Acknowledgement, Measurement, Ruling, RulingKind, Subject, differing_values
from quadbench.nightly import series
from quadbench.nightly.night_file import Limits
from quadbench.nightly.verdicts import standing_at
from quadbench.report.formatting import TextTable, join_names, plural
from quadbench.report.night import figure_name, tidy
from quadbench.report.versus import ALL_TASKS, PRIMARY, PSNR
from quadbench.statistics.change_points import Stay, find_levels

_MAX_CHANGED = 3  # changes named in a cell
_MAX_SHOWN = 20  # latest rows of a table
_COLUMNS = ("From", "To", "Nights", "Level", "Change", "What changed then")
_NUMERIC = (False, False, True, True, True, False)
_SHORT = 12  # characters of a changed value, enough to identify a digest
_LIMITS = Limits()

_Value = tuple[Measurement, float, tuple[bool, tuple[str, ...]]]  # night, value on its scale, (is a ratio, tasks of a mean)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A period of consecutive nights without a shift of a metric. `level` is the median of the nights' values. If `is_ratio`, the
    values were divided by the values of a reference bundle (yardstick).

    `change` is the change of the level since the previous segment on the figure's scale (a logarithm, or decibels). It is inf
    from a level of 0. It is None for the first segment and after a change of the yardstick or of the tasks. `changed` lists
    changes of files, yardstick and environment since the night before: name to values before and after. `is_weak`: too few nights
    on either side show the change of level.
    """

    first: str  # the night's id
    since: datetime  # when that night was measured
    last: str
    nights: int
    level: float
    is_ratio: bool
    change: float | None
    changed: dict[str, tuple[str, str]]
    is_weak: bool = False


@dataclass(frozen=True, kw_only=True)
class BriefStay:
    """A few consecutive nights of a metric at another level, too few for a Segment. `change` is as a Segment's."""

    first: str  # the night's id
    last: str
    nights: int
    change: float


@dataclass(frozen=True, kw_only=True)
class TwoLevels:
    """Two levels between which a metric alternates, as on a device with two speeds. `gap` is the logarithm of higher / lower.

    Of `nights`, the latest with the same environment, `higher` are at the higher level.
    """

    gap: float
    higher: int
    nights: int


def segments(nights: Sequence[Measurement], name: series.FigureName) -> tuple[Segment, ...]:
    """Divide a metric's nights into Segments, oldest first. Each begins where level, environment or reference bundle changes."""
    return figure_history(nights, name).segments


def figure_history(nights: Sequence[Measurement], name: series.FigureName) -> "FigureHistory":
    """Return a metric's history: its Segments, oldest first, brief stays at other levels, and two levels if it alternates."""
    task, key = name
    values = [
        (night, place, (point.ratio is not None, series.tasks_of(night) if task == ALL_TASKS else ()))
        for night in nights
        for point in night.points
        if series.name_of(point) == name and (place := series.to_scale(point)) is not None
    ]
    edges, weak, stays, two_levels = set[int](), set[int](), list[BriefStay](), None
    hard = _hard_edges(values)
    for begin, end in pairwise([*hard, len(values)]):
        two_levels, positive = None, [series.from_scale(place, key) for _, place, _ in values[begin:end]]
        if min(positive) <= 0:  # decibels and distances may be 0
            continue
        levels = find_levels(positive)
        edges |= {begin + shift.at for shift in levels.shifts}
        at_ends = [stay for stay in levels.stays if stay.begin == 0 or stay.end == end - begin]
        weak |= {begin + (stay.begin or stay.end) for stay in at_ends}
        inside = (stay for stay in levels.stays if stay not in at_ends)
        stays += [_brief_stay(values[begin + stay.begin : begin + stay.end], stay, key) for stay in inside]
        if levels.modes and key != PSNR:
            higher = int(levels.modes.is_slow.sum())
            two_levels = TwoLevels(gap=levels.modes.gap, higher=higher, nights=end - begin)
            flat = zip(values[begin:end], levels.flat, strict=True)
            values[begin:end] = [(night, math.log(value), kind) for (night, _, kind), value in flat]
    ends = sorted({*hard, *edges, *weak, len(values)})
    return FigureHistory(
        task=task, key=key, segments=_segments(values, ends, weak, key), stays=tuple(stays), two_levels=two_levels
    )


def _brief_stay(values: Sequence[_Value], stay: Stay, key: str) -> BriefStay:
    change = stay.there - stay.around if key == PSNR else math.log(stay.there / stay.around)
    return BriefStay(first=values[0][0].night, last=values[-1][0].night, nights=len(values), change=change)


def _segments(values: Sequence[_Value], ends: Sequence[int], weak: Container[int], key: str) -> tuple[Segment, ...]:
    stretches = [values[begin:end] for begin, end in pairwise(ends)]
    levels = [median(place for _, place, _ in stretch) for stretch in stretches]
    return tuple(
        Segment(
            first=stretch[0][0].night,
            since=stretch[0][0].measured_at,
            last=stretch[-1][0].night,
            nights=len(stretch),
            level=series.from_scale(level, key),
            is_ratio=stretch[0][2][0],
            change=series.change_between(before, level) if number and _are_alike(stretches[number - 1][-1], stretch[0]) else None,
            changed=_changed(stretches[number - 1][-1][0], stretch[0][0]) if number else {},
            is_weak=begin in weak,
        )
        for number, (stretch, begin, before, level) in enumerate(zip(stretches, ends, [0.0, *levels], levels, strict=False))
    )


def _hard_edges(values: Sequence[_Value]) -> list[int]:
    """Return the ascending indexes of nights that begin a segment whatever its level: the first one, if there is any, and others.

    Another environment, task set or reference bundle begins a segment, and so does a change of an image distance to or from 0
    (logarithm -inf).
    """
    later = [
        number
        for number, (before, now) in enumerate(pairwise(values), start=1)
        if not _are_alike(before, now)
        or before[0].environment != now[0].environment
        or math.isinf(before[1]) is not math.isinf(now[1])
    ]
    return [0, *later] if values else []


def _are_alike(before: _Value, now: _Value) -> bool:
    """Return True if two nights can be compared: equal tasks, and all values absolute or ratios to one reference bundle."""
    return before[2] == now[2] and (not now[2][0] or before[0].yardstick == now[0].yardstick)


def _changed(before: Measurement, now: Measurement) -> dict[str, tuple[str, str]]:
    """Return what differs between two nights. The dict maps a name, such as `files` or an environment key, to (old, new)."""
    held = [
        {"files": night.subject.bundle, "kit": night.subject.kit or "none", "yardstick": night.yardstick}
        for night in (before, now)
    ]
    return differing_values(held[:1], held[1:]) | differing_values([before.environment], [now.environment])


@dataclass(frozen=True, kw_only=True)
class FigureHistory:
    """One metric's history in a nightly case on a device. `segments` are its periods without a shift, from oldest to latest.

    `stays` are a few nights each at another level. `two_levels` is not None if the values alternate between two; the segments'
    levels and changes are then those of the more frequent one.
    """

    task: str
    key: str
    segments: tuple[Segment, ...]
    stays: tuple[BriefStay, ...] = ()
    two_levels: TwoLevels | None = None


@dataclass(frozen=True, kw_only=True)
class CaseHistory:
    """A nightly case's history on one device: metrics, verdicts other than CLEAN, and changes accepted by a person. `standing`
    are the regressions of its latest night, without those told before somebody accepted them.
    """

    case: str
    device: str
    address: str
    nights: int
    figures: tuple[FigureHistory, ...]
    rulings: tuple[Ruling, ...]
    standing: Annotated[tuple[Ruling, ...], Field(exclude=True)]  # among the rulings too
    acknowledged: tuple[Acknowledgement, ...]


def case_history(
    nights: Sequence[Measurement], rulings: Sequence[Ruling], acknowledged: Sequence[Acknowledgement], *, is_whole: bool
) -> CaseHistory:
    """Return a nightly case's history on one device, from one or more nights. If `is_whole`, the history covers all metrics.
    Otherwise it covers image time and metrics with a verdict other than CLEAN, such as REGRESSION.
    """
    latest = nights[-1]
    words = tuple(word for word in acknowledged if word.device in (None, latest.device))
    shown_rulings = tuple(ruling for ruling in rulings if ruling.kind is not RulingKind.CLEAN)
    names = dict.fromkeys(series.name_of(point) for night in reversed(nights) for point in night.points)
    primary = (ALL_TASKS, PRIMARY)
    shown = {(ruling.task, ruling.key) for ruling in shown_rulings} | {primary}
    wanted = [name for name in names if is_whole or name in shown or (name[1] == PRIMARY and primary not in names)]
    return CaseHistory(
        case=latest.case,
        device=latest.device,
        address=latest.address,
        nights=len(nights),
        figures=tuple(figure_history(nights, name) for name in wanted),
        rulings=shown_rulings,
        standing=tuple(
            one
            for one in standing_at(rulings, nights)
            if not any(
                word.since <= latest.measured_at < word.until and one.told_at <= word.made_at and word.covers(one.task, one.key)
                for word in words
            )
        ),
        acknowledged=words,
    )


def tables(history: CaseHistory) -> tuple[TextTable, ...]:
    """Return a case's history as at most three tables: latest segments, verdicts, accepted changes. Empty tables are omitted."""
    rows = [
        _row(figure_name(figure.key, figure.task), segment, figure.key)
        for figure in history.figures
        for segment in figure.segments[-_MAX_SHOWN:]
    ]
    levels = _levels(f"{tidy(history.case)} on {tidy(history.address)}", "Figure", rows)
    return (*([levels] if rows else []), *ruling_tables(history))


def ruling_tables(history: CaseHistory) -> tuple[TextTable, ...]:
    """Return at most two tables of a case: latest verdicts, and changes that a person accepted. Empty tables are omitted."""
    return tuple(table for table in (_rulings(history), _words(history)) if table.rows)


def sentence(history: CaseHistory) -> str:
    """Return sentences about a case's first metric that has values, with its current level and since when, and about regressions
    that stand.
    """
    return " ".join((_level_sentence(history), *_standing_sentences(history)))


def _level_sentence(history: CaseHistory) -> str:
    figure = next((figure for figure in history.figures if figure.segments), None)
    if figure is None:
        return f"{tidy(history.case)} on {tidy(history.address)} has {plural(history.nights, 'night')} but no figure to track."
    latest = figure.segments[-1]
    level, change, changed = segment_cells(latest, figure.key)
    where = f"{tidy(history.case)} on {tidy(history.address)}: {figure_name(figure.key, figure.task)} is {level}"
    if latest.change is None:
        text = f"{where} since {latest.first}, in {plural(latest.nights, 'night')}."
    else:
        changed = changed if latest.changed else "nothing known"
        text = (
            f"{where} since {latest.first}, {change} than before{_weakness(figure, latest)}; what changed that night: {changed}."
        )
    return " ".join([text, *_remarks(figure)])


def _weakness(figure: FigureHistory, segment: Segment) -> str:
    """Return in parentheses how few nights show a segment's change of level, or "" if they are enough."""
    if not segment.is_weak:
        return ""
    before = figure.segments[figure.segments.index(segment) - 1]
    few, when = (segment, "since") if segment.nights <= before.nights else (before, "before")
    return f" (a weak sign: {plural(few.nights, 'night')} {when})"


def _remarks(figure: FigureHistory) -> Iterator[str]:
    """Yield sentences about a metric's latest brief stay at another level, and about two levels."""
    if figure.stays:
        stay = figure.stays[-1]
        change = series.change_text(stay.change, figure.key)
        yield f"From {stay.first} to {stay.last}, {plural(stay.nights, 'night')} only, it was {change}, a weak sign."
    if two := figure.two_levels:
        apart = f"It alternates between two levels, {100 * math.expm1(two.gap):.1f} % apart, as on a device with two speeds"
        nights = f"{two.higher} of {plural(two.nights, 'night')} at the higher one"
        yield f"{apart}: {nights}. Changes are judged within a level."


def _standing_sentences(history: CaseHistory) -> list[str]:
    """Return a sentence for each regression that stands. A change that several nights may have brought is not dated to one."""
    where = f"on {tidy(history.address)}"
    return [
        f"{tidy(history.case)}: {figure_name(one.key, one.task)} is a REGRESSION {where} since {tidy(one.since or one.night)},"
        f" {plural(one.nights or 1, 'night')}{f', known to be good until {tidy(one.good_night)}' if one.good_night else ''}:"
        f" {tidy(one.cause).rstrip('.')}."
        for one in history.standing
    ]


def segment_table(figure: FigureHistory) -> TextTable:
    """Return a table of one metric's latest segments. Each segment's number is its place among all segments of the metric."""
    numbered = list(enumerate(figure.segments, start=1))[-_MAX_SHOWN:]
    rows = [_row(str(number), segment, figure.key) for number, segment in numbered]
    return _levels(figure_name(figure.key, figure.task), "Segment", rows)


def _levels(title: str, first: str, rows: Iterable[tuple[str, ...]]) -> TextTable:
    return TextTable(title=title, columns=(first, *_COLUMNS), numeric=(False, *_NUMERIC), rows=tuple(rows))


def _row(name: str, segment: Segment, key: str) -> tuple[str, ...]:
    return (name, segment.first, segment.last, str(segment.nights), *segment_cells(segment, key))


def changed_text(segment: Segment) -> str:
    """Return as text which inputs, such as files, changed on a segment's first night. Return "" if no change is known."""
    changes = [f"{tidy(name)} {_short(before)} → {_short(now)}" for name, (before, now) in segment.changed.items()]
    more = f", {len(changes) - _MAX_CHANGED} more" if len(changes) > _MAX_CHANGED else ""
    return ", ".join(changes[:_MAX_CHANGED]) + more


def segment_cells(segment: Segment, key: str) -> tuple[str, str, str]:
    """Return a segment's three table cells as texts: level, change of the level, and which inputs (such as files) changed."""
    level = series.value_text(segment.level, key, is_ratio=segment.is_ratio)
    change = "–" if segment.change is None else series.change_text(segment.change, key)
    return level, change, changed_text(segment) or "–"


def _rulings(history: CaseHistory) -> TextTable:
    """Return a table of a case's nightly verdicts by metric. Equal verdicts of consecutive nights share a row."""
    ordered = sorted(history.rulings, key=lambda ruling: (ruling.key or "", ruling.task or ""))
    alike = [list(group) for _, group in groupby(ordered, key=lambda one: (one.key, one.task, one.kind, one.cause))]
    rows = [
        (_span(group), figure_name(group[0].key, group[0].task) or "all", group[0].kind.value, tidy(group[0].cause))
        for group in sorted(alike, key=lambda group: group[0].told_at)[-_MAX_SHOWN:]
    ]
    return TextTable.of_words("Rulings other than CLEAN", ("Night", "Figure", "Ruling", "Why"), rows)


def _span(rulings: Sequence[Ruling]) -> str:
    first, last = rulings[0].night, rulings[-1].night
    return first if first == last else f"{first} to {last}, {plural(len(rulings), 'night')}"


def _words(history: CaseHistory) -> TextTable:
    rows = [
        (word.night, f"{word.until:%Y-%m-%d}", figure_name(word.key, word.task) or "all", tidy(word.owner), tidy(word.reason))
        for word in history.acknowledged[-_MAX_SHOWN:]
    ]
    return TextTable.of_words("Acknowledged", ("From", "Until", "Figure", "By", "Why"), rows)


def _short(value: str) -> str:
    text = tidy(value)
    return text if len(text) <= 2 * _SHORT else text[:_SHORT]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A nightly case's last significant change of a metric on one device. `word` is a person's Acknowledgement of it, or None."""

    history: CaseHistory
    figure: FigureHistory
    segment: Segment
    word: Acknowledgement | None

    @property
    def before(self) -> Segment:
        return self.figure.segments[self.figure.segments.index(self.segment) - 1]

    @property
    def is_open(self) -> bool:
        """Return whether the change is for the worse and was not accepted by a person."""
        return self.word is None and series.is_worse(self.segment.change or 0.0, self.figure.key)


def last_change(history: CaseHistory, now: datetime) -> Change | None:
    """Look for changes above each metric's default limit. Return the first changed metric's latest Change, or None."""
    for figure in history.figures:
        limit = series.limit_of(figure.key, _LIMITS)
        big = [one for one in figure.segments if one.change is not None and abs(one.change) > limit]
        if big:
            segment, latest = big[-1], reversed(history.acknowledged)
            about = (word for word in latest if word.until > now and word.covers(figure.task, figure.key))
            word = next((word for word in about if word.since >= segment.since or word.night == segment.first), None)
            return Change(history=history, figure=figure, segment=segment, word=word)
    return None


def summary(histories: Sequence[CaseHistory], now: datetime) -> tuple[str, ...]:
    """Return summary sentences: first on regressions that stand, then on changes for the worse that nobody accepted, then on
    other changes, then on unchanged cases.
    """
    standing = [one for history in histories for one in _standing_sentences(history)]
    told = {(history.device, one.case, one.task, one.key) for history in histories for one in history.standing}
    shifted = [change for history in histories if (change := last_change(history, now))]
    changes = [one for one in shifted if (one.history.device, one.history.case, one.figure.task, one.figure.key) not in told]
    together = [list(alike) for _, alike in groupby(sorted(changes, key=_shared_change), key=_shared_change)]
    ordered = sorted(together, key=lambda alike: (alike[0].is_open, min(one.segment.since for one in alike)), reverse=True)
    changed = {(one.history.case, one.history.device) for one in changes} | {(case, device) for device, case, *_ in told}
    steady = [one for one in histories if (one.case, one.device) not in changed]
    sentences = [*standing, *map(_change_sentence, ordered)]
    for case, unchanged in groupby(steady, key=lambda history: history.case):
        of_case = list(unchanged)
        nights = plural(max(history.nights for history in of_case), "night")
        where = join_names([tidy(history.address) for history in of_case])
        sentences.append(f"{tidy(case)}: nothing significant has changed on {where} in {nights}.")
    return tuple(sentences)


def _shared_change(change: Change) -> tuple[object, ...]:
    """Return a sort key: (is_open, night, case, task, metric, causes, acceptance). `summary` writes one sentence per key."""
    figure, segment = change.figure, change.segment
    why = changed_text(segment), _weakness(figure, segment), str(change.word)
    return change.is_open, segment.first, change.history.case, figure.task, figure.key, why


def _change_sentence(changes: Sequence[Change]) -> str:
    first = changes[0]
    figure, segment, word = first.figure, first.segment, first.word
    sizes = dict.fromkeys(series.change_text(one.segment.change or 0.0, one.figure.key) for one in changes)
    what = f"{tidy(first.history.case)}: {figure_name(figure.key, figure.task)} is {join_names(list(sizes))} than before"
    what += _weakness(figure, segment)
    where = join_names([tidy(one.history.address) for one in changes])
    by = f"what changed that night: {changed_text(segment)}" if segment.changed else "nothing known changed that night"
    text = f"{what} on {where} since {tidy(segment.first)}; {by}."
    if word is None:
        return text
    return f"{text} It is acknowledged until {word.until:%Y-%m-%d} by {tidy(word.owner)}, because: “{tidy(word.reason)}”."


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """The result of a bisection: the last good and first bad pair of bundle and kit. `unjudged` pairs between got no verdict."""

    last_good: Subject
    first_bad: Subject
    unjudged: tuple[Subject, ...]


def subjects_of(nights: Sequence[Measurement]) -> tuple[Subject, ...]:
    """Return the distinct pairs of bundle and runtime kit (libraries for devices) that the nights tested, oldest first."""
    return tuple(dict.fromkeys(night.subject for night in nights))


def bisect(subjects: Sequence[Subject], is_changed: Callable[[Subject], bool | None]) -> Bisection:
    """Return a Bisection of `subjects` (first good, last bad). `is_changed(subject)` is True (bad), False, or None (unknown)."""
    if len(subjects) < 2:
        raise ValueError(f"{len(subjects)} subjects; expected the good one, the bad one and those between")
    good, bad, unjudged = subjects[0], subjects[-1], []
    between = list(subjects[1:-1])
    while between:
        middle = len(between) // 2
        subject = between[middle]
        match is_changed(subject):
            case True:
                bad, between = subject, between[:middle]
            case False:
                good, between = subject, between[middle + 1 :]
            case None:
                unjudged.append(between.pop(middle))
    within = subjects[subjects.index(good) : subjects.index(bad)]
    return Bisection(last_good=good, first_bad=bad, unjudged=tuple(subject for subject in unjudged if subject in within))
