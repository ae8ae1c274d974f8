"""Night view: a night with the series of its cases -> what people and machines are told of it, the worst first; pure."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.night import Measurement, Night, Point, Ruling, RulingKind, Subject
from quadbench.report.night_words import (
    change_words,
    counted,
    figure_name,
    interval_words,
    is_ratio,
    listed,
    value_words,
    words,
)
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

T = TypeVar("T")
Place = tuple[str, str]  # a case and the device that it runs on
Series = Mapping[Place, Sequence[Measurement]]  # in the order of time, that of the night last


@dataclass(frozen=True, kw_only=True)
class AlarmRate:
    """A device's false alarms: on how many nights with equal subjects it was suspected, and the interval of that share."""

    device: str
    alarms: int
    nights: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Figured:
    """A ruling about a figure in words, each of which may be empty."""

    ruling: Ruling
    point: Point | None
    figure: str
    change: str
    interval: str
    value: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.figure, self.change, f"({self.interval})" if self.interval else "")))


@dataclass(frozen=True, kw_only=True)
class Since:
    """The first night of what is there now. `subject` and `before` are None where what runs did not change."""

    night: str
    subject: Subject | None
    before: Subject | None
    environment: dict[str, tuple[str, str]]  # what changed of it then, by name

    def __str__(self) -> str:
        if self.subject is None or self.before is None:
            return self.night
        return f"{self.night}, {subject_name(self.subject)} after {subject_name(self.before)}"


@dataclass(frozen=True, kw_only=True)
class NightFinding:
    """Rulings that are not clean and belong together: of a case on a device, or of a device whose cases share the cause.

    `next_step` is the command that comes next, as a shell takes it; `place` is that of the first ruling.
    """

    kind: RulingKind
    address: str
    place: Place
    cases: tuple[str, ...]
    figures: tuple[Figured, ...]
    causes: tuple[str, ...]
    owners: tuple[str, ...]
    since: Since | None
    next_step: str

    @property
    def sentence(self) -> str:
        """Say what it comes to."""
        figures = [one for one in self.figures if one.figure]
        told = [self.result, *filter(None, [listed(self.causes)])]
        if figures and self.kind in _OF_A_DEVICE:
            told[0] += f": {listed(_once(one.figure for one in figures))}"
        elif figures:
            more = f" and {plural(len(figures) - 1, 'more figure')}" if len(figures) > 1 else ""
            told[0] += f": {figures[0]}{more}"
        return f"{'; '.join(told)}."

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
                return f"{address} changed, and what runs there did not ({cases})"
            case RulingKind.CLEAN:
                return f"{cases} is as usual on {address}"


@dataclass(frozen=True, kw_only=True)
class DeviceNight:
    """A device in the night: its cases, how many of them are clean, what was wrong, how often it alarms falsely."""

    device: str
    address: str
    cases: int
    clean: int
    wrong: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    environment: dict[str, tuple[str, str]]  # what changed of it since the night before, by name
    rate: AlarmRate | None


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
        return f"{self._worst()} {self._counts()}"

    def _worst(self) -> str:
        if self.findings:
            return self.findings[0].sentence
        return "Nothing got slower, bigger or worse." if self.clean else "Nothing is ruled yet."

    def _counts(self) -> str:
        told = [counted(kind, count) for kind, count in self.counts.items()]
        if self.open:
            told.append(f"{len(self.open)} not ruled, as the night goes on or was cut short")
        return f"{plural(sum(self.counts.values()) + len(self.open), 'case')} on devices: {', '.join(told)}."


def night_view(night: Night, series: Series, rates: Iterable[AlarmRate] = ()) -> NightView:
    """Return a night as it is told."""
    bad = [ruling for ruling in night.rulings if ruling.kind is not RulingKind.CLEAN]
    findings = [_finding(list(group), series) for _, group in groupby(sorted(bad, key=_order), key=_together)]
    worst = {(ruling.case, ruling.device): ruling.kind for ruling in sorted(bad, key=_order, reverse=True)}
    ruled = {(ruling.case, ruling.device): words(ruling.address) for ruling in night.rulings}
    kinds = [worst.get(place, RulingKind.CLEAN) for place in ruled]
    clean = sorted((words(case), ruled[case, device]) for case, device in ruled.keys() - worst.keys())
    return NightView(
        night=night,
        counts={kind: kinds.count(kind) for kind in (*WORST_FIRST, RulingKind.CLEAN) if kind in kinds},
        findings=tuple(findings),
        clean={case: tuple(address for _, address in pairs) for case, pairs in groupby(clean, key=lambda pair: pair[0])},
        open=_open(night, ruled),
        devices=_devices(night, findings, worst, series, {rate.device: rate for rate in rates}),
        series=series,
    )


def subject_name(subject: Subject) -> str:
    """Return a subject as people are told of it: the first characters of its digests."""
    kit = f" with kit {words(subject.kit[:_DIGEST_SHOWN])}" if subject.kit else ""
    return f"bundle {words(subject.bundle[:_DIGEST_SHOWN])}{kit}"


def _order(ruling: Ruling) -> tuple[int, str, str, float]:
    size = abs(ruling.ratio - 1) if ruling.ratio is not None and is_ratio(ruling.ratio) else 0.0
    return WORST_FIRST.index(ruling.kind), *_together(ruling)[1:], -size


def _together(ruling: Ruling) -> tuple[RulingKind, str, str]:
    return ruling.kind, ruling.device, ruling.cause if ruling.kind in _OF_A_DEVICE else ruling.case


def _finding(rulings: Sequence[Ruling], series: Series) -> NightFinding:
    first = rulings[0]
    place = (first.case, first.device)
    return NightFinding(
        kind=first.kind,
        address=words(first.address),
        place=place,
        cases=_once(words(ruling.case) for ruling in rulings),
        figures=tuple(_figured(ruling, series) for ruling in rulings),
        causes=_once(words(ruling.cause).rstrip(".") for ruling in rulings),
        owners=_once(words(ruling.owner) for ruling in rulings if ruling.owner),
        since=_since(first, series.get(place, ())),
        next_step=_next_step(first),
    )


def _figured(ruling: Ruling, series: Series) -> Figured:
    measured = _tonight(ruling, series)
    points = {(point.task, point.key): point for point in measured.points} if measured else {}
    point = points.get((ruling.task or "", ruling.key or ""))
    return Figured(
        ruling=ruling,
        point=point,
        figure=figure_name(ruling.key, ruling.task),
        change=change_words(ruling, point),
        interval=interval_words(ruling, point),
        value=value_words(ruling, point),
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


def _since(ruling: Ruling, nights: Sequence[Measurement]) -> Since | None:
    """Return the first night after the last good one; where what runs is the same as then, the first in these surroundings."""
    if not nights or nights[-1].night != ruling.night:
        return None
    now = nights[-1]
    is_new = ruling.last_good is not None and ruling.last_good != now.subject
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
    )


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what is not the same, by name, before and now."""
    names = sorted({**before, **now})
    pairs = {name: (before.get(name, "none"), now.get(name, "none")) for name in names}
    return {words(name): (words(old), words(new)) for name, (old, new) in pairs.items() if old != new}


def _next_step(ruling: Ruling) -> str:
    """Return the command that says more, as a shell takes it."""
    match ruling.kind:
        case RulingKind.MISSING | RulingKind.ENVIRONMENT:
            command = ["doctor", "--device", ruling.address]
        case _:
            command = ["history", ruling.case, "--devices", ruling.address]
    return words(shlex.join(["quadbench", *command]))


def _addresses(night: Night) -> dict[Place, str]:
    """Return every case on every device of which something is known, with what people call the device."""
    told: list[Measurement | Ruling] = [*night.rulings, *night.measurements]
    return {(one.case, one.device): one.address for one in sorted(told, key=lambda one: (one.case, one.address))}


def _open(night: Night, ruled: Mapping[Place, str]) -> tuple[tuple[str, str], ...]:
    """Return what was measured or, as long as the night goes on, planned, and has no ruling."""
    pairs = [(one.case, one.address) for one in night.measurements if (one.case, one.device) not in ruled]
    if night.ended_at is None:
        pairs += night.planned
    known = {(case, address) for (case, _), address in ruled.items()}
    return _once((words(case), words(word)) for case, word in pairs if (words(case), words(word)) not in known)


def _devices(
    night: Night,
    findings: Sequence[NightFinding],
    worst: Mapping[Place, RulingKind],
    series: Series,
    rates: Mapping[str, AlarmRate],
) -> tuple[DeviceNight, ...]:
    addresses = _addresses(night)
    known = {device: address for (_, device), address in addresses.items()}
    views = []
    for device, address in known.items():
        places = [place for place in addresses if place[1] == device]
        measured = [one for one in night.measurements if one.device == device]
        pairs = [
            nights[-2:] for place in places if len(nights := series.get(place, ())) > 1 and nights[-1].night == night.night_id
        ]
        views.append(
            DeviceNight(
                device=device,
                address=words(address),
                cases=len(places),
                clean=len([place for place in places if place not in worst]),
                wrong=_once(cause for finding in findings if finding.place[1] == device for cause in _told_of_device(finding)),
                caveats=_once(caveat for one in measured for caveat in one.caveats),
                environment={k: v for before, now in pairs for k, v in changed(before.environment, now.environment).items()},
                rate=rates.get(device),
            )
        )
    return tuple(views)


def _told_of_device(finding: NightFinding) -> Iterable[str]:
    return finding.causes if finding.kind in _OF_A_DEVICE else (f"{finding.result[:1].lower()}{finding.result[1:]}",)


def _once(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
