"""A night and the series of its cases -> findings with their next step, in words, and what people and machines are told."""

import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, TypeVar

from pydantic import Field

from quadbench.artifacts import Caveat
from quadbench.artifacts.names import one_line
from quadbench.artifacts.night_record import Measurement, Night, Point, Ruling, RulingKind, Subject, unlike
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.run_record import Better
from quadbench.report.formatting import MORE, Unit, between, change, convert, decibels, listed, number, plural, show
from quadbench.report.kpi import KPI_TITLES, KPI_UNITS
from quadbench.report.versus import EXACT, PRIMARY, PSNR, SIZES

_MOST_CHARACTERS = 300  # of a text from outside
_MOST_VALUE = 1e18  # nanoseconds of decades, and more bytes than there are
_MOST_DB = 1000
_LEAST_SHARE = 0.001  # of files: what is less is told in bytes, of which each counts
_NO_CHARACTERS = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}  # which XML takes nowhere

COUNTED = {
    RulingKind.REGRESSION: "regression",
    RulingKind.INCONCLUSIVE: "inconclusive",
    RulingKind.MISSING: "missing",
    RulingKind.ENVIRONMENT: "changed by the environment",
    RulingKind.IMPROVEMENT: "improvement",
    RulingKind.CLEAN: "clean",
}
_TITLES = KPI_TITLES | {name: metric.title for name, metric in PICTURE_METRICS.items()}
_DIRECTIONS = {Unit.MILLISECONDS: ("slower", "faster"), Unit.MEGABYTES: ("bigger", "smaller")}
_PLURALS = {RulingKind.REGRESSION: "regressions", RulingKind.IMPROVEMENT: "improvements"}

_COOLING = "Let the device cool; then"

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

_MOST_DOUBTS = 3  # that the head of a report has
_KINDS = (*WORST_FIRST, RulingKind.CLEAN)
_COUNTED = (RulingKind.REGRESSION, RulingKind.IMPROVEMENT, *WORST_FIRST)  # what changed in either way, then what is not known


def words(text: str) -> str:
    """Return a text from outside as every output of a night has it: on one line, short, and with nothing that is not shown."""
    return one_line(text, _MOST_CHARACTERS).translate(_NO_CHARACTERS)


def counted(kind: RulingKind, count: int) -> str:
    """Write how many there are of a kind: `2 regressions`, `1 missing`."""
    return f"{count} {COUNTED[kind] if count == 1 else _PLURALS.get(kind, COUNTED[kind])}"


def figure_name(key: str | None, task: str | None) -> str:
    """Return what a figure is called: `End to end, restyle`; nothing where all of them are meant."""
    if key is None:
        return ""
    title = "PSNR, mean" if key == PSNR else _TITLES.get(key) or words(key)
    return f"{title}, {words(task)}" if task else title


def directions(key: str | None) -> tuple[str, str]:
    """Return what a figure is when it grows, and when it shrinks: slower and faster, bigger and smaller, better and worse."""
    if metric := PICTURE_METRICS.get(key or ""):
        return ("better", "worse") if metric.better is Better.HIGHER else ("worse", "better")
    unit = KPI_UNITS.get(key or "")
    return _DIRECTIONS[unit] if unit else MORE


def value_words(point: Point | None) -> str:
    """Write a figure's value of a night; nothing where there is none that can be."""
    return with_unit(point.value, point.key) if point and abs(point.value) < _MOST_VALUE else ""


def with_unit(value: float, key: str) -> str:
    """Write a figure's value in its unit; of bytes of files all digits."""
    if key in SIZES:
        return f"{value:,.0f} bytes"
    unit = KPI_UNITS.get(key)
    return f"{show(value, unit)} {unit}" if unit else decibels(value) if key == PSNR else number(value)


def unit_of(key: str) -> str | None:
    """Return the unit in which a figure is drawn; None where it has none."""
    return "dB" if key == PSNR else KPI_UNITS.get(key)


def in_unit(value: float, key: str) -> float:
    """Return a figure's value in the unit in which it is drawn."""
    unit = KPI_UNITS.get(key)
    return value if unit is None else convert(value, unit)


def change_words(ruling: Ruling, point: Point | None) -> str:
    """Write by how much a figure changed: against the last good one where that was launched, else against what is usual."""
    if ruling.ratio is not None:
        return change(ruling.ratio, directions(ruling.key)) if is_ratio(ruling.ratio) else ""
    now = ruling.value if point is None else point.value if point.ratio is None else point.ratio
    if now is None or ruling.expected is None:
        return ""
    grows, shrinks = directions(ruling.key)
    if ruling.key == PSNR:
        difference = now - ruling.expected
        return f"{abs(difference):.1f} dB {grows if difference > 0 else shrinks}" if abs(difference) < _MOST_DB else ""
    if not is_ratio(now) or not is_ratio(ruling.expected):
        return ""
    if ruling.key in SIZES and abs(now / ruling.expected - 1) < _LEAST_SHARE:
        return f"{plural(round(abs(now - ruling.expected)), 'byte')} {'more' if now > ruling.expected else 'less'}"
    return change(now / ruling.expected, (grows, shrinks))


def interval_words(ruling: Ruling, point: Point | None) -> str:
    """Write how sure a change is: its interval, or why it has none."""
    if ruling.low is not None and ruling.high is not None and is_ratio(ruling.low) and is_ratio(ruling.high):
        return between(ruling.low, ruling.high, directions(ruling.key))
    if ruling.key is None:
        return ""
    return "exact" if ruling.key in EXACT else "not confirmed"


def is_ratio(value: float) -> bool:
    """Say whether a value can be a ratio, or anything that is drawn and divided: a number above 0 within reason."""
    return 1 / _MOST_VALUE < value < _MOST_VALUE


@dataclass(frozen=True, kw_only=True)
class NightStep:
    """A command as a shell takes it, and what it is for, without a stop at the end."""

    purpose: str
    command: str


def next_step(ruling: Ruling, tonight: Measurement | None, last_good: Measurement | None, where: Sequence[str]) -> NightStep:
    """Return what helps most; `where` are the words of a command that name its place.

    `last_good` is the last night in which the device ran what the ruling names so; a measurement is None where there is none.
    """
    doctor, history = ("doctor", "--device", ruling.address), ("history", ruling.case, "--devices", ruling.address)
    is_hot = tonight is not None and Caveat.THROTTLED in tonight.caveats
    match ruling.kind:
        case RulingKind.MISSING:
            return _step("See what the device lacks, so that the next night measures it", doctor, where)
        case RulingKind.ENVIRONMENT:
            return _step("The files are not why. See what is wrong with the device", doctor, where)
        case RulingKind.INCONCLUSIVE if is_hot and tonight and last_good and tonight.subject != last_good.subject:
            bisect = (*history, "--bisect", last_good.night, tonight.night)
            return _step(f"{_COOLING} launch it again in turn with the last good files", bisect, where)
        case RulingKind.INCONCLUSIVE if is_hot:
            return _step(f"{_COOLING} see whether it is fit for the next night, which launches it again", doctor, where)
        case RulingKind.REGRESSION:
            return _step("If this is not intended, see since when and by which files", history, where)
        case RulingKind.IMPROVEMENT:
            return _step("Nothing has to be done. To see since when and by which files", history, where)
        case RulingKind.INCONCLUSIVE | RulingKind.CLEAN:
            return _step("See how much it strayed in earlier nights; the next night rules on it again", history, where)


def accepting(ruling: Ruling, where: Sequence[str]) -> NightStep | None:
    """Return how somebody says that it shall be so, where that is worse than before."""
    command = ("history", ruling.case, "--devices", ruling.address, "--acknowledge", "REASON", "--until", "30d")
    return _step("If it is intended, take it as the new level", command, where) if ruling.kind is RulingKind.REGRESSION else None


def _step(purpose: str, command: Sequence[str], where: Sequence[str]) -> NightStep:
    return NightStep(purpose=purpose, command=words(shlex.join(("quadbench", *command, *where))))


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
    common = {RulingKind.ENVIRONMENT: "", RulingKind.MISSING: ruling.cause}.get(ruling.kind, ruling.case)
    return ruling.kind, ruling.device, common


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
        others = [n for n, one in enumerate(nights) if one.subject == ruling.last_good]
    else:
        others = [n for n, one in enumerate(nights) if one.environment != now.environment]
    if not others:
        return None
    before, first = nights[others[-1]], nights[others[-1] + 1]
    return Since(
        night=words(first.night),
        subject=first.subject if is_new else None,
        before=before.subject if is_new else None,
        environment=changed(before.environment, first.environment),
        age=len(nights) - 2 - others[-1],
    )


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what is not the same, by name, before and now."""
    return {words(name): (words(old), words(new)) for name, (old, new) in sorted(unlike([before], [now]).items())}


def once(values: Iterable[T]) -> tuple[T, ...]:
    """Return values in their order, each of them once."""
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True, kw_only=True)
class AlarmRate:
    """A device's false alarms in so many tries, cases in nights before which nothing changed, and the interval of that share.

    `low` and `high` are None where there were no tries; `doubt` says why the device should be looked at.
    """

    device: str
    tries: int
    alarms: int
    low: float | None
    high: float | None
    doubt: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceNight:
    """A device in the night: its cases, how many of them are clean, what was wrong, how often it alarms falsely."""

    device: Annotated[str, Field(exclude=True)]  # from JSON
    address: str
    cases: int
    clean: int
    wrong: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    environment_changes: dict[str, tuple[str, str]]  # since the night before, by name
    false_alarms: AlarmRate | None

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what casts doubt on what it measured."""
        return (*(caveat.words for caveat in self.caveats), *_doubts(self.false_alarms))


@dataclass(frozen=True, kw_only=True)
class NightView:
    """A night as it is told. `counts` has the cases on devices by the worst that was ruled of each.

    `clean` has the devices on which a case is clean, by case; `open` is what has no ruling yet.
    """

    night: Night
    counts: dict[RulingKind, int]
    findings: tuple[NightFinding, ...]
    clean: dict[str, tuple[str, ...]]
    open: tuple[tuple[str, str], ...]
    devices: tuple[DeviceNight, ...]
    series: Series

    @property
    def outcome(self) -> RulingKind:
        """Return the worst that was ruled."""
        return self.findings[0].kind if self.findings else RulingKind.CLEAN

    @property
    def sentence(self) -> str:
        """Say what the night comes to, the worst first."""
        told = [counted(kind, self.counts[kind]) for kind in once((*_COUNTED, *self.counts)) if kind in self.counts]
        if self.open:
            told.append(f"{len(self.open)} not ruled, as the night goes on or was cut short")
        cases = plural(sum(self.counts.values()) + len(self.open), "case")
        return f"{self._worst()} {cases} on devices, each counted by its worst figure: {', '.join(told)}."

    @property
    def doubt(self) -> str:
        """Say what casts doubt on the worst finding, and then on what else was measured; or that nothing is known to."""
        worst = self._worst_addresses
        doubted = {one.address: "; ".join(one.doubts) for one in self.devices if one.doubts}
        alike = dict[str, list[str]]()  # devices by their doubts, those of the worst finding first
        for address in sorted(doubted, key=lambda address: address not in worst):
            alike.setdefault(doubted[address], []).append(address)
        told = [f"On {listed(addresses)}: {why}." for why, addresses in alike.items()]
        more = [f"{len(told) - _MOST_DOUBTS} more stand below, device by device."] if len(told) > _MOST_DOUBTS else []
        if not doubted.keys().isdisjoint(worst):
            return " ".join((*told[:_MOST_DOUBTS], *more))
        about = f" about {listed(worst)}" if told and worst else ""
        return " ".join((f"None is known{about}.", *told[:_MOST_DOUBTS], *more))

    @property
    def _worst_addresses(self) -> list[str]:
        """Return the devices on which the worst finding is so."""
        return [one.address for one in self.findings if (one.kind, one.cases) == (self.findings[0].kind, self.findings[0].cases)]

    def _worst(self) -> str:
        if self.findings:
            return replace(self.findings[0], address=listed(self._worst_addresses)).sentence
        if not self.clean:
            return "Nothing is ruled yet."
        if self.open:
            return "Nothing that was ruled on got slower, bigger or worse."
        if self.series and all([one.night for one in nights] == [self.night.night_id] for nights in self.series.values()):
            return "This is the first night of all cases, so that nothing could get worse yet; the next one is held against it."
        return "Nothing got slower, bigger or worse; nothing has to be done."


def night_view(night: Night, series: Series, rates: Iterable[AlarmRate] = (), where: Sequence[str] = ()) -> NightView:
    """Return a night as it is told. That a case is clean on a device counts only where it was measured there.

    `where` are the words by which commands come to the results folder.
    """
    measured = {(one.case, one.device) for one in night.measurements}
    rulings = [one for one in night.rulings if one.kind is not RulingKind.CLEAN or (one.case, one.device) in measured]
    told: list[Measurement | Ruling] = [*night.measurements, *rulings]
    addresses = {(one.case, one.device): words(one.address) for one in told}
    worst = {(one.case, one.device): one.kind for one in sorted(rulings, key=lambda one: -_KINDS.index(one.kind))}
    known = {rate.device: rate for rate in rates}
    findings = []  # the worst first
    unclean = sorted((one for one in rulings if one.kind is not RulingKind.CLEAN), key=_order)
    for _, group in groupby(unclean, key=_together):
        finding = _finding(list(group), series, where)
        findings.append(replace(finding, doubt=next(_doubts(known.get(finding.place[1])), None)))
    clean = sorted((words(place[0]), addresses[place]) for place, kind in worst.items() if kind is RulingKind.CLEAN)
    devices = {device: address for (_, device), address in addresses.items()}
    return NightView(
        night=night,
        counts={kind: count for kind in _KINDS if (count := list(worst.values()).count(kind))},
        findings=tuple(findings),
        clean={case: tuple(address for _, address in pairs) for case, pairs in groupby(clean, key=lambda pair: pair[0])},
        open=_open(night, {place: addresses[place] for place in worst}),
        devices=tuple(
            DeviceNight(
                device=device,
                address=devices[device],
                cases=len([place for place in addresses if place[1] == device]),
                clean=len([kind for place, kind in worst.items() if place[1] == device and kind is RulingKind.CLEAN]),
                wrong=once((*(one.wrong for one in findings if one.place[1] == device), *_doubts(known.get(device)))),
                caveats=once(caveat for one in night.measurements if one.device == device for caveat in one.caveats),
                environment_changes=_changes([nights for place, nights in series.items() if place[1] == device], night),
                false_alarms=known.get(device),
            )
            for device in sorted(devices, key=devices.__getitem__)
        ),
        series=series,
    )


def _open(night: Night, ruled: Mapping[Place, str]) -> tuple[tuple[str, str], ...]:
    """Return what was measured or, as long as the night goes on, planned, and has no ruling."""
    pairs = [(one.case, one.address) for one in night.measurements if (one.case, one.device) not in ruled]
    if night.ended_at is None:
        pairs += night.planned
    known = {(words(case), address) for (case, _), address in ruled.items()}
    return once(pair for case, word in pairs if (pair := (words(case), words(word))) not in known)


def _changes(cases: Iterable[Sequence[Measurement]], night: Night) -> dict[str, tuple[str, str]]:
    """Return what changed of a device's environment since the night before, by name, before and now."""
    pairs = [nights[-2:] for nights in cases if len(nights) > 1 and nights[-1].night == night.night_id]
    return {name: pair for before, now in pairs for name, pair in changed(before.environment, now.environment).items()}


def _doubts(rate: AlarmRate | None) -> Iterator[str]:
    if rate and rate.doubt:
        yield words(rate.doubt)
