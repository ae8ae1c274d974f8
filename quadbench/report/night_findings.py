"""Night findings: rulings that are not clean, and the series of their cases -> what they come to, in words; pure."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from quadbench.artifacts.night import Measurement, Point, Ruling, RulingKind, Subject
from quadbench.report.night_steps import NightStep, accepting, next_step
from quadbench.report.night_words import change_words, figure_name, interval_words, is_ratio, listed, value_words, words
from quadbench.report.sides import PRIMARY
from quadbench.report.units import plural

WORST_FIRST = (
    RulingKind.REGRESSION,
    RulingKind.MISSING,
    RulingKind.INCONCLUSIVE,
    RulingKind.ENVIRONMENT,
    RulingKind.IMPROVEMENT,
)
_OF_A_DEVICE = (RulingKind.MISSING, RulingKind.ENVIRONMENT)  # its cases share the cause
_DIGEST_SHOWN = 12

T = TypeVar("T", bound=Hashable)
Place = tuple[str, str]  # a case and the device that it runs on
Series = Mapping[Place, Sequence[Measurement]]  # in the order of time, that of the night last


@dataclass(frozen=True, kw_only=True)
class Figured:
    """A ruling in words: which figure changed by how much, as long as one is named and that can be told, and why.

    `value` is that of the night, `before` that of the last night with the files that were good, and which night that was.
    """

    ruling: Ruling
    point: Point | None
    figure: str
    cause: str
    change: str
    interval: str
    value: str
    before: str

    @property
    def values(self) -> str:
        """Write both values with their nights, as far as they are known."""
        return ", ".join(filter(None, (f"{self.value} in this night" if self.value else "", self.before)))

    def __str__(self) -> str:
        return " ".join(filter(None, (self.figure, self.change, f"({self.interval})" if self.interval else "")))


@dataclass(frozen=True, kw_only=True)
class Since:
    """The first night of what is there now. `subject` and `before` are None where what runs did not change."""

    night: str
    subject: Subject | None
    before: Subject | None
    environment: dict[str, tuple[str, str]]  # what changed of it then, by name
    age: int  # nights that the case was measured in after it

    @property
    def first_seen(self) -> str:
        """Say which night that is, seen from the one that is told."""
        when = ("this night", "the night before")[self.age] if self.age < 2 else f"{self.age} nights before"
        return f"{self.night} ({when})"

    def __str__(self) -> str:
        if self.subject is None or self.before is None:
            return self.first_seen
        return f"{self.first_seen}, {subject_name(self.subject)} after {subject_name(self.before)}"


@dataclass(frozen=True, kw_only=True)
class NightFinding:
    """Rulings that are not clean and belong together: of a case on a device, or of a device whose cases share the cause.

    `figures` has the ruling that tells most first, whose place is `place`. `accepting` is how somebody says that it shall be so;
    None where there is nothing to accept. `doubt` says why the device's word is to be doubted.
    """

    kind: RulingKind
    address: str
    place: Place
    cases: tuple[str, ...]
    figures: tuple[Figured, ...]
    owners: tuple[str, ...]
    since: Since | None
    next: NightStep
    accepting: NightStep | None
    doubt: str | None = None

    @property
    def next_step(self) -> str:
        """Return the command that comes next."""
        return self.next.command

    @property
    def sentence(self) -> str:
        """Say what it comes to."""
        lead, more = self.figures[0], len([one for one in self.figures[1:] if one.figure])
        told = f"{self.result}: {lead.figure}: {lead.cause}" if lead.figure else f"{self.result}; {lead.cause}"
        return f"{told}; and {plural(more, 'other figure')}." if more else f"{told}."

    @property
    def result(self) -> str:
        """Say what it comes to, without figures and cause."""
        cases, address = listed(self.cases), self.address
        match self.kind:
            case RulingKind.REGRESSION:
                return f"{cases} got worse on {address}"
            case RulingKind.IMPROVEMENT:
                return f"{cases} got better on {address}"
            case RulingKind.INCONCLUSIVE:
                return f"Whether {cases} changed on {address} cannot be told"
            case RulingKind.MISSING:
                return f"{cases} {'was' if len(self.cases) == 1 else 'were'} not measured on {address}"
            case RulingKind.ENVIRONMENT:
                return f"{address} itself changed, as {cases} {'tells' if len(self.cases) == 1 else 'tell'}"
            case RulingKind.CLEAN:
                return f"{cases} is as usual on {address}"

    @property
    def of_figures(self) -> str:
        """Say why of the first figure, where what comes first is about all of them."""
        told = next((one for one in self.figures if one.figure), None)
        return f"{told.figure}: {told.cause}." if told and not self.figures[0].figure else ""

    @property
    def wrong(self) -> str:
        """Say what it is to its device: the cause, where that is the device's own."""
        if self.kind in _OF_A_DEVICE:
            return self.figures[0].cause
        return f"{self.result[:1].lower()}{self.result[1:]}"


def night_findings(rulings: Iterable[Ruling], series: Series, where: Sequence[str]) -> tuple[NightFinding, ...]:
    """Return what rulings that are not clean come to, the worst first; `where` are the words of a command that name its place."""
    return tuple(_finding(list(group), series, where) for _, group in groupby(sorted(rulings, key=_order), key=_together))


def subject_name(subject: Subject) -> str:
    """Return a subject as people are told of it: the first characters of its digests."""
    kit = f" with kit {words(subject.kit[:_DIGEST_SHOWN])}" if subject.kit else ""
    return f"bundle {words(subject.bundle[:_DIGEST_SHOWN])}{kit}"


def _order(ruling: Ruling) -> tuple[int, str, str, int, float]:
    """Return what rulings are sorted by: in a finding all figures, the time for an image, the largest change."""
    size = abs(ruling.ratio - 1) if ruling.ratio is not None and is_ratio(ruling.ratio) else 0.0
    rank = (None, PRIMARY).index(ruling.key) if ruling.key in (None, PRIMARY) else 2
    return WORST_FIRST.index(ruling.kind), *_together(ruling)[1:], rank, -size


def _together(ruling: Ruling) -> tuple[RulingKind, str, str]:
    """Return what the rulings of a finding have in common."""
    match ruling.kind:
        case RulingKind.ENVIRONMENT:
            return ruling.kind, ruling.device, ""
        case RulingKind.MISSING:
            return ruling.kind, ruling.device, ruling.cause
        case _:
            return ruling.kind, ruling.device, ruling.case


def _finding(rulings: Sequence[Ruling], series: Series, where: Sequence[str]) -> NightFinding:
    first = rulings[0]
    place = (first.case, first.device)
    return NightFinding(
        kind=first.kind,
        address=words(first.address),
        place=place,
        cases=once(words(ruling.case) for ruling in rulings),
        figures=tuple(_figured(ruling, series) for ruling in rulings),
        owners=once(words(ruling.owner) for ruling in rulings if ruling.owner),
        since=_since(first, series.get(place, ())),
        next=next_step(first, _tonight(first, series), _last_good(first, series), where),
        accepting=accepting(first, where),
    )


def _figured(ruling: Ruling, series: Series) -> Figured:
    measured = _tonight(ruling, series)
    points = {(point.task, point.key): point for point in measured.points} if measured else {}
    name = ruling.task or "", ruling.key or ""
    point, good = points.get(name), _last_good(ruling, series)
    before = value_words(next((one for one in good.points if (one.task, one.key) == name), None)) if good else ""
    return Figured(
        ruling=ruling,
        point=point,
        figure=figure_name(ruling.key, ruling.task),
        cause=words(ruling.cause).rstrip("."),
        change=change_words(ruling, point),
        interval=interval_words(ruling, point),
        value=value_words(point),
        before=f"{before} in {words(good.night)}, the last one with good files" if good and before else "",
    )


def drawn_figure(told: Figured, series: Series) -> Figured:
    """Return what is drawn of a ruling: its figure, or the time for an image where it is about all of them."""
    measured = _tonight(told.ruling, series)
    first = next((point for point in measured.points if point.key == PRIMARY), None) if measured else None
    if told.point or first is None:
        return told
    return _figured(replace(told.ruling, task=first.task, key=first.key, expected=None), series)


def _tonight(ruling: Ruling, series: Series) -> Measurement | None:
    """Return the measurement that a ruling is about, if there is one."""
    nights = series.get((ruling.case, ruling.device), ())
    return nights[-1] if nights and nights[-1].night == ruling.night else None


def _last_good(ruling: Ruling, series: Series) -> Measurement | None:
    """Return the last night before a ruling in which its device ran what was good."""
    nights = series.get((ruling.case, ruling.device), ())
    before = nights[:-1] if _tonight(ruling, series) else nights
    return next((one for one in reversed(before) if one.subject == ruling.last_good), None)


def _since(ruling: Ruling, nights: Sequence[Measurement]) -> Since | None:
    """Return the first night after the last good one; where what runs is the same as then, the first in these surroundings."""
    if not nights or nights[-1].night != ruling.night:
        return None
    now = nights[-1]
    is_new = ruling.kind not in _OF_A_DEVICE and ruling.last_good not in (None, now.subject)
    if is_new:
        unlike = [n for n, one in enumerate(nights) if one.subject == ruling.last_good]
    else:
        unlike = [n for n, one in enumerate(nights) if one.environment != now.environment]
    if not unlike:
        return None
    before, first = nights[unlike[-1]], nights[unlike[-1] + 1]
    return Since(
        night=words(first.night),
        subject=first.subject if is_new else None,
        before=before.subject if is_new else None,
        environment=changed(before.environment, first.environment),
        age=len(nights) - 2 - unlike[-1],
    )


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what is not the same, by name, before and now."""
    names = sorted({**before, **now})
    pairs = {name: (before.get(name, "none"), now.get(name, "none")) for name in names}
    return {words(name): (words(old), words(new)) for name, (old, new) in pairs.items() if old != new}


def once(values: Iterable[T]) -> tuple[T, ...]:
    """Return values in their order, each of them once."""
    return tuple(dict.fromkeys(values))
