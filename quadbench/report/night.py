"""Text of a nightly report: findings with their changed metrics, first night and next command, and summaries of devices."""

import shlex
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, TypeVar

from pydantic import Field

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Measurement, Night, Point, Ruling, RulingKind, Subject, differing_values
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.run_record import BetterDirection
from quadbench.artifacts.safe_text import one_line
from quadbench.report.formatting import MORE, Unit, between, change, convert, decibels, join_names, number, plural, show
from quadbench.report.kpi import KPI_TITLES, KPI_UNITS
from quadbench.report.versus import EXACT, PRIMARY, PSNR, SIZES

_MAX_CHARACTERS = 300  # of a text from outside
_MAX_VALUE = 1e18  # nanoseconds of decades, and more bytes than there are
_MAX_DB = 1000
_MIN_SHARE = 0.001  # relative change of file sizes below which bytes are shown
_NO_CHARACTERS = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}  # not allowed in XML

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
_OF_A_DEVICE = (RulingKind.MISSING, RulingKind.ENVIRONMENT)  # all cases of a device with one cause form one finding
_DIGEST_SHOWN = 12

T = TypeVar("T", bound=Hashable)
Place = tuple[str, str]  # a case and the device that it runs on
Series = Mapping[Place, Sequence[Measurement]]  # in order of time, the reported night last

_MAX_DOUBTS = 3  # in the header of a report
_KINDS = (*WORST_FIRST, RulingKind.CLEAN)
_COUNTED = (RulingKind.REGRESSION, RulingKind.IMPROVEMENT, *WORST_FIRST)  # changes first, then unknown results


def tidy(text: str) -> str:
    """Return untrusted text, such as a case name, as one short line of visible characters for nightly reports."""
    return one_line(text, _MAX_CHARACTERS).translate(_NO_CHARACTERS)


def count_text(kind: RulingKind, count: int) -> str:
    """Format a count of a night's verdicts (rulings) of one kind: `2 regressions`, `1 missing`."""
    return f"{count} {COUNTED[kind] if count == 1 else _PLURALS.get(kind, COUNTED[kind])}"


def figure_name(key: str | None, task: str | None) -> str:
    """Return the display name of a metric, such as `End to end, restyle`; empty if `key` is None (all metrics together)."""
    if key is None:
        return ""
    title = "PSNR, mean" if key == PSNR else _TITLES.get(key) or tidy(key)
    return f"{title}, {tidy(task)}" if task else title


def directions(key: str | None) -> tuple[str, str]:
    """Return a metric's words for a rise and a fall as a pair: (`slower`, `faster`) for times, (`more`, `less`) by default."""
    if metric := PICTURE_METRICS.get(key or ""):
        return ("better", "worse") if metric.better is BetterDirection.HIGHER else ("worse", "better")
    unit = KPI_UNITS.get(key or "")
    return _DIRECTIONS[unit] if unit else MORE


def value_words(point: Point | None) -> str:
    """Format a metric's value in a night's measurement; return an empty string if it is missing or implausible."""
    return with_unit(point.value, point.key) if point and abs(point.value) < _MAX_VALUE else ""


def with_unit(value: float, key: str) -> str:
    """Format a metric's value with its unit; file sizes are exact byte counts."""
    if key in SIZES:
        return f"{value:,.0f} bytes"
    unit = KPI_UNITS.get(key)
    return f"{show(value, unit)} {unit}" if unit else decibels(value) if key == PSNR else number(value)


def unit_of(key: str) -> str | None:
    """Return the unit in which charts show a metric, such as `ms`; None if the metric has none."""
    return "dB" if key == PSNR else KPI_UNITS.get(key)


def in_unit(value: float, key: str) -> float:
    """Convert a metric's value from nanoseconds or bytes to the unit in which charts show it."""
    unit = KPI_UNITS.get(key)
    return value if unit is None else convert(value, unit)


def change_words(ruling: Ruling, point: Point | None) -> str:
    """Format a metric's change, `3.1 % slower`: from the last good files if launched to confirm it, else from the usual value."""
    if ruling.ratio is not None:
        return change(ruling.ratio, directions(ruling.key)) if is_ratio(ruling.ratio) else ""
    now = ruling.value if point is None else point.value if point.ratio is None else point.ratio
    if now is None or ruling.expected is None:
        return ""
    grows, shrinks = directions(ruling.key)
    if ruling.key == PSNR:
        difference = now - ruling.expected
        return f"{abs(difference):.1f} dB {grows if difference > 0 else shrinks}" if abs(difference) < _MAX_DB else ""
    if not is_ratio(now) or not is_ratio(ruling.expected):
        return ""
    if ruling.key in SIZES and abs(now / ruling.expected - 1) < _MIN_SHARE:
        return f"{plural(round(abs(now - ruling.expected)), 'byte')} {'more' if now > ruling.expected else 'less'}"
    return change(now / ruling.expected, (grows, shrinks))


def interval_words(ruling: Ruling, point: Point | None) -> str:
    """Format a change's interval, `2.1 to 4.2 % slower`. If none: `exact` for sizes and image scores, else `not confirmed`."""
    if ruling.low is not None and ruling.high is not None and is_ratio(ruling.low) and is_ratio(ruling.high):
        return between(ruling.low, ruling.high, directions(ruling.key))
    if ruling.key is None:
        return ""
    return "exact" if ruling.key in EXACT else "not confirmed"


def is_ratio(value: float) -> bool:
    """Return whether a value is a plausible positive number, usable as a ratio and in charts."""
    return 1 / _MAX_VALUE < value < _MAX_VALUE


@dataclass(frozen=True, kw_only=True)
class NightStep:
    """A recommended shell command, with its purpose as a sentence without full stop."""

    purpose: str
    command: str


def next_step(ruling: Ruling, tonight: Measurement | None, last_good: Measurement | None, where: Sequence[str]) -> NightStep:
    """Return a NightStep (command and purpose) for a verdict. `tonight` is the judged measurement, `last_good` the newest earlier
    measurement of files known to be good; None if missing. `where` holds options that name the results folder.
    """
    doctor, history = ("doctor", "--device", ruling.address), ("history", ruling.case, "--devices", ruling.address)
    is_hot = tonight is not None and Caveat.THROTTLED in tonight.caveats
    match ruling.kind:
        case RulingKind.MISSING:
            return _step("Check what the device lacks, so that the next night measures the case", doctor, where)
        case RulingKind.ENVIRONMENT:
            return _step("The files are not the cause. Check the device", doctor, where)
        case RulingKind.INCONCLUSIVE if is_hot and tonight and last_good and tonight.subject != last_good.subject:
            bisect = (*history, "--bisect", last_good.night, tonight.night)
            return _step(f"{_COOLING} launch the case again in turn with the last good files", bisect, where)
        case RulingKind.INCONCLUSIVE if is_hot:
            return _step(f"{_COOLING} check whether it is ready for the next night, which launches the case again", doctor, where)
        case RulingKind.REGRESSION:
            return _step("If this is not intended, find out since when, and which files caused it", history, where)
        case RulingKind.IMPROVEMENT:
            return _step("Nothing has to be done. To find out since when, and which files caused it", history, where)
        case RulingKind.INCONCLUSIVE | RulingKind.CLEAN:
            return _step("Check how much the case varied in earlier nights; the next night judges it again", history, where)


def accept_step(ruling: Ruling, where: Sequence[str]) -> NightStep | None:
    """Return the command by which a person accepts a regression as the new level. Return None if the verdict is no regression."""
    command = ("history", ruling.case, "--devices", ruling.address, "--acknowledge", "REASON", "--until", "30d")
    return (
        _step("If it is intended, accept it as the new level", command, where) if ruling.kind is RulingKind.REGRESSION else None
    )


def _step(purpose: str, command: Sequence[str], where: Sequence[str]) -> NightStep:
    return NightStep(purpose=purpose, command=tidy(shlex.join(("quadbench", *command, *where))))


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """A night's verdict on a metric as text. `figure` is the metric's name (empty for all metrics), `value` its value in this
    night, `before` text such as `11 ms in n7, the last night with good files`. Unknown values are empty text.
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
        """Return a metric's known values as text: `12 ms in this night, 11 ms in n7, the last night with good files`."""
        return ", ".join(filter(None, (f"{self.value} in this night" if self.value else "", self.before)))

    def __str__(self) -> str:
        return " ".join(filter(None, (self.figure, self.change, f"({self.interval})" if self.interval else "")))


@dataclass(frozen=True, kw_only=True)
class FirstNight:
    """The first night of a test case's present behaviour, such as a regression. `subject` has digests of the files tested from
    that night on, and `before` of the earlier files. Both are None if only the device's environment changed. `good_night` is the
    last night known to be good, if others lie between: the change came after it, but in which night is not known.
    """

    night: str
    subject: Subject | None
    before: Subject | None
    environment: dict[str, tuple[str, str]]  # its changes in that night: name to values before and after
    age: int  # number of later nights in which the case was measured
    good_night: str | None = None

    @property
    def first_seen(self) -> str:
        """Return a change's first night and age as text: `n7 (this night)`, `n6 (the night before)` or `n3 (4 nights before)`."""
        when = ("this night", "the night before")[self.age] if self.age < 2 else f"{self.age} nights before"
        after = f", known to be good until {self.good_night}" if self.good_night else ""
        return f"{self.night} ({when}){after}"

    def __str__(self) -> str:
        if self.subject is None or self.before is None:
            return self.first_seen
        return f"{self.first_seen}, {subject_name(self.subject)} after {subject_name(self.before)}"


@dataclass(frozen=True, kw_only=True)
class NightFinding:
    """A group of a night's verdicts on one device: those on one test case, or those on all cases with the same cause. `figures`
    has one row per verdict except CLEAN, the most important first. `place` is the first row's (case, device). `accepting` is the
    command to accept a regression as the new level, or None.
    """

    kind: RulingKind
    address: str
    place: Place
    cases: tuple[str, ...]
    figures: tuple[FigureRow, ...]
    owners: tuple[str, ...]
    since: FirstNight | None
    next: NightStep
    accepting: NightStep | None

    @property
    def next_step(self) -> str:
        return self.next.command

    @property
    def is_standing(self) -> bool:
        return self.figures[0].ruling.is_standing

    @property
    def label(self) -> str:
        """Return a finding's kind, with the number of nights for a regression that stands: `REGRESSION for 3 nights`."""
        return f"{self.kind} for {plural(self.figures[0].ruling.nights or 1, 'night')}" if self.is_standing else self.kind.value

    @property
    def sentence(self) -> str:
        lead, more = self.figures[0], len([one for one in self.figures[1:] if one.figure])
        text = f"{self.result}: {lead.figure}: {lead.cause}" if lead.figure else f"{self.result}; {lead.cause}"
        return f"{text}; and {plural(more, 'other figure')}." if more else f"{text}."

    @property
    def result(self) -> str:
        """Return what happened to a finding's cases, as a sentence without full stop: `portrait got worse on s25`."""
        cases, address = join_names(self.cases), self.address
        match self.kind:
            case RulingKind.REGRESSION if self.is_standing:
                lead = self.figures[0].ruling
                return f"{cases} is still worse on {address}, since {tidy(lead.since or '')}, {plural(lead.nights or 1, 'night')}"
            case RulingKind.REGRESSION:
                return f"{cases} got worse on {address}"
            case RulingKind.IMPROVEMENT:
                return f"{cases} got better on {address}"
            case RulingKind.INCONCLUSIVE:
                return f"It is unknown whether {cases} changed on {address}"
            case RulingKind.MISSING:
                return f"{cases} {'was' if len(self.cases) == 1 else 'were'} not measured on {address}"
            case RulingKind.ENVIRONMENT:
                return f"{address} itself changed, as {cases} {'shows' if len(self.cases) == 1 else 'show'}"
            case RulingKind.CLEAN:
                return f"{cases} is as usual on {address}"

    @property
    def figure_reason(self) -> str:
        """Return `<metric>: <cause>.` of the first verdict on one metric if one on all metrics precedes it, else empty text."""
        figure = next((one for one in self.figures if one.figure), None)
        return f"{figure.figure}: {figure.cause}." if figure and not self.figures[0].figure else ""

    @property
    def device_fault(self) -> str:
        """Return a finding's problem as text: the cause if MISSING or ENVIRONMENT, else text like `portrait got worse on s25`."""
        if self.kind in _OF_A_DEVICE:
            return self.figures[0].cause
        return f"{self.result[:1].lower()}{self.result[1:]}"


def subject_name(subject: Subject) -> str:
    """Name tested files by shortened digests: `bundle <digest>`, and ` with kit <digest>` if a kit (device libraries) is set."""
    kit = f" with kit {tidy(subject.kit[:_DIGEST_SHOWN])}" if subject.kit else ""
    return f"bundle {tidy(subject.bundle[:_DIGEST_SHOWN])}{kit}"


def _order(ruling: Ruling) -> tuple[object, ...]:
    """Return a tuple to sort verdicts: worst first, new before standing, then device, case or cause, image time, size."""
    size = abs(ruling.ratio - 1) if ruling.ratio is not None and is_ratio(ruling.ratio) else 0.0
    rank = (None, PRIMARY).index(ruling.key) if ruling.key in (None, PRIMARY) else 2
    return WORST_FIRST.index(ruling.kind), *_together(ruling)[1:], rank, -size


def _together(ruling: Ruling) -> tuple[RulingKind, bool, str, str, str]:
    """Return a verdict's group key: kind, whether it stands, device, text, since when it stands. The text is the cause if
    MISSING, empty if ENVIRONMENT, else the case.
    """
    common = {RulingKind.ENVIRONMENT: "", RulingKind.MISSING: ruling.cause}.get(ruling.kind, ruling.case)
    return ruling.kind, ruling.is_standing, ruling.device, common, (ruling.since or "") if ruling.is_standing else ""


def _finding(rulings: Sequence[Ruling], series: Series, where: Sequence[str]) -> NightFinding:
    first = rulings[0]
    place = (first.case, first.device)
    return NightFinding(
        kind=first.kind,
        address=tidy(first.address),
        place=place,
        cases=unique(tidy(ruling.case) for ruling in rulings),
        figures=tuple(_figured(ruling, series) for ruling in rulings),
        owners=unique(tidy(ruling.owner) for ruling in rulings if ruling.owner),
        since=_since(first, series.get(place, ())),
        next=next_step(first, _tonight(first, series), _last_good(first, series), where),
        accepting=accept_step(first, where),
    )


def _figured(ruling: Ruling, series: Series) -> FigureRow:
    measured = _tonight(ruling, series)
    points = {(point.task, point.key): point for point in measured.points} if measured else {}
    name = ruling.task or "", ruling.key or ""
    point, good = points.get(name), _last_good(ruling, series)
    before = value_words(next((one for one in good.points if (one.task, one.key) == name), None)) if good else ""
    return FigureRow(
        ruling=ruling,
        point=point,
        figure=figure_name(ruling.key, ruling.task),
        cause=tidy(ruling.cause).rstrip("."),
        change=change_words(ruling, point),
        interval=interval_words(ruling, point),
        value=value_words(point),
        before=f"{before} in {tidy(good.night)}, the last night with good files" if good and before else "",
    )


def drawn_figure(figure: FigureRow, series: Series) -> FigureRow:
    """Return the FigureRow to draw: image time if measured while the given row's metric was not, else the given row."""
    measured = _tonight(figure.ruling, series)
    first = next((point for point in measured.points if point.key == PRIMARY), None) if measured else None
    if figure.point or first is None:
        return figure
    return _figured(replace(figure.ruling, task=first.task, key=first.key, expected=None), series)


def _tonight(ruling: Ruling, series: Series) -> Measurement | None:
    """Return the measurement that a verdict judges: same case, device and night. Return None if there is none."""
    nights = series.get((ruling.case, ruling.device), ())
    return nights[-1] if nights and nights[-1].night == ruling.night else None


def _last_good(ruling: Ruling, series: Series) -> Measurement | None:
    """Return the newest earlier measurement of the verdict's case and device that tested the last good files, or None."""
    nights = series.get((ruling.case, ruling.device), ())
    before = nights[:-1] if _tonight(ruling, series) else nights
    return next((one for one in reversed(before) if one.subject == ruling.last_good), None)


def _since(ruling: Ruling, nights: Sequence[Measurement]) -> FirstNight | None:
    """Return the first night that told a regression, or else that had the judged files or present environment, or None."""
    if not nights or nights[-1].night != ruling.night:
        return None
    now = nights[-1]
    if ruling.kind is RulingKind.REGRESSION and ruling.since and ruling.good_night:
        return _first_told(ruling, ruling.since, ruling.good_night, nights)
    is_new = ruling.kind not in _OF_A_DEVICE and ruling.last_good not in (None, now.subject)
    if is_new:
        others = [n for n, one in enumerate(nights) if one.subject == ruling.last_good]
    else:
        others = [n for n, one in enumerate(nights) if one.environment != now.environment]
    if not others:
        return None
    before, first = nights[others[-1]], nights[others[-1] + 1]
    return FirstNight(
        night=tidy(first.night),
        subject=first.subject if is_new else None,
        before=before.subject if is_new else None,
        environment=changed_values(before.environment, first.environment),
        age=len(nights) - 2 - others[-1],
    )


def _first_told(ruling: Ruling, since: str, good_night: str, nights: Sequence[Measurement]) -> FirstNight:
    """Return the night that told a regression first. Its files and environment are unknown if it is too long ago."""
    names = [night.night for night in nights]
    place = names.index(since) if since in names else 0
    first, before = nights[place], nights[place - 1] if place else None
    return FirstNight(
        night=tidy(since),
        subject=first.subject if before and ruling.last_good else None,
        before=ruling.last_good if before else None,
        environment=changed_values(before.environment, first.environment) if before else {},
        age=(ruling.nights or 1) - 1,
        good_night=None if before and before.night == good_night else tidy(good_night),
    )


def changed_values(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the entries that differ between two dicts, as a dict from name to its values before and now."""
    return {tidy(name): (tidy(old), tidy(new)) for name, (old, new) in sorted(differing_values([before], [now]).items())}


def unique(values: Iterable[T]) -> tuple[T, ...]:
    """Return the values in their order, without duplicates."""
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True, kw_only=True)
class DeviceNight:
    """A device's summary of a night: number of cases and of clean cases, problems, and caveats about values."""

    device: Annotated[str, Field(exclude=True)]  # not part of the JSON document
    address: str
    cases: int
    clean: int
    wrong: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    environment_changes: dict[str, tuple[str, str]]  # since the night before, by name

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return reasons, as texts, why a device's measurements in a night may be unreliable; empty if no reason is known."""
        return tuple(caveat.label for caveat in self.caveats)


@dataclass(frozen=True, kw_only=True)
class NightView:
    """The content of a nightly report. `counts` is a dict from a kind of verdict to its number of (case, device) pairs. A pair
    counts once, under its worst verdict; `standing` of these only have regressions that an earlier night told first. `clean` maps
    a case to its clean devices; `open` lists cases without a verdict. `ended` has sentences on regressions that are over.
    """

    night: Night
    counts: dict[RulingKind, int]
    standing: int
    ended: tuple[str, ...]
    findings: tuple[NightFinding, ...]
    clean: dict[str, tuple[str, ...]]
    open: tuple[tuple[str, str], ...]
    devices: tuple[DeviceNight, ...]
    series: Series

    @property
    def outcome(self) -> RulingKind:
        """Return the night's worst kind of verdict, such as regression."""
        return self.findings[0].kind if self.findings else RulingKind.CLEAN

    @property
    def sentence(self) -> str:
        """Return the result of the night in words, the worst finding first."""
        counts = [count_text(kind, self.counts[kind]) for kind in unique((*_COUNTED, *self.counts)) if kind in self.counts]
        if self.standing:
            counts[0] += f" ({self.counts[RulingKind.REGRESSION] - self.standing} new, {self.standing} standing)"
        if self.open:
            counts.append(f"{len(self.open)} without a ruling, as the night is still running or was cut short")
        cases = plural(sum(self.counts.values()) + len(self.open), "case")
        return f"{self._worst()} {cases} on devices, each counted by its worst figure: {', '.join(counts)}."

    @property
    def doubt(self) -> str:
        """Return sentences on why values may be wrong. Begin with `None is known` if no reason concerns the worst finding."""
        worst = self._worst_addresses
        doubted = {one.address: "; ".join(one.doubts) for one in self.devices if one.doubts}
        alike = dict[str, list[str]]()  # device addresses by doubt, those of the worst finding first
        for address in sorted(doubted, key=lambda address: address not in worst):
            alike.setdefault(doubted[address], []).append(address)
        sentences = [f"On {join_names(addresses)}: {why}." for why, addresses in alike.items()]
        more = [f"{len(sentences) - _MAX_DOUBTS} more below, by device."] if len(sentences) > _MAX_DOUBTS else []
        if not doubted.keys().isdisjoint(worst):
            return " ".join((*sentences[:_MAX_DOUBTS], *more))
        about = f" about {join_names(worst)}" if sentences and worst else ""
        return " ".join((f"None is known{about}.", *sentences[:_MAX_DOUBTS], *more))

    @property
    def _worst_addresses(self) -> list[str]:
        """Return the addresses of the devices that have the night's worst finding."""
        return [one.address for one in self.findings if (one.kind, one.cases) == (self.findings[0].kind, self.findings[0].cases)]

    def _worst(self) -> str:
        if self.findings:
            return replace(self.findings[0], address=join_names(self._worst_addresses)).sentence
        if not self.clean:
            return "There is no ruling yet."
        if self.open:
            return "No case with a ruling got slower, bigger or worse."
        if self.series and all([one.night for one in nights] == [self.night.night_id] for nights in self.series.values()):
            return "This is the first night of all cases, so nothing can be worse yet; the next night is compared with it."
        return "Nothing got slower, bigger or worse; nothing has to be done."


def night_view(night: Night, series: Series, where: Sequence[str] = ()) -> NightView:
    """Build the content of a nightly report. A CLEAN verdict counts only if the case was measured on the device in that night.
    `where` holds the command-line options that name the results folder, for the report's commands.
    """
    measured = {(one.case, one.device) for one in night.measurements}
    rulings = [one for one in night.rulings if one.kind is not RulingKind.CLEAN or (one.case, one.device) in measured]
    entries: list[Measurement | Ruling] = [*night.measurements, *rulings]
    addresses = {(one.case, one.device): tidy(one.address) for one in entries}
    worst = {(one.case, one.device): one.kind for one in sorted(rulings, key=lambda one: -_KINDS.index(one.kind))}
    regressions = [one for one in rulings if one.kind is RulingKind.REGRESSION]
    standing = {(one.case, one.device) for one in regressions} - {(o.case, o.device) for o in regressions if not o.is_standing}
    unclean = sorted((one for one in rulings if one.kind is not RulingKind.CLEAN), key=_order)
    findings = [_finding(list(group), series, where) for _, group in groupby(unclean, key=_together)]  # the worst first
    clean = sorted((tidy(place[0]), addresses[place]) for place, kind in worst.items() if kind is RulingKind.CLEAN)
    devices = {device: address for (_, device), address in addresses.items()}
    return NightView(
        night=night,
        counts={kind: count for kind in _KINDS if (count := list(worst.values()).count(kind))},
        standing=len(standing),
        ended=tuple(_ended(one) for one in rulings if one.since and one.kind is not RulingKind.REGRESSION),
        findings=tuple(findings),
        clean={case: tuple(address for _, address in pairs) for case, pairs in groupby(clean, key=lambda pair: pair[0])},
        open=_open(night, {place: addresses[place] for place in worst}),
        devices=tuple(
            DeviceNight(
                device=device,
                address=devices[device],
                cases=len([place for place in addresses if place[1] == device]),
                clean=len([kind for place, kind in worst.items() if place[1] == device and kind is RulingKind.CLEAN]),
                wrong=unique(one.device_fault for one in findings if one.place[1] == device),
                caveats=unique(caveat for one in night.measurements if one.device == device for caveat in one.caveats),
                environment_changes=_changes([nights for place, nights in series.items() if place[1] == device], night),
            )
            for device in sorted(devices, key=devices.__getitem__)
        ),
        series=series,
    )


def _ended(ruling: Ruling) -> str:
    text = f"{ruling.case} on {tidy(ruling.address)}: {figure_name(ruling.key, ruling.task)}, worse since {ruling.since}"
    return f"{tidy(text)}: {tidy(ruling.cause)}"


def _open(night: Night, ruled: Mapping[Place, str]) -> tuple[tuple[str, str], ...]:
    """Return (case, device address) pairs that lack a verdict: measured pairs, and planned pairs if the night has not ended."""
    pairs = [(one.case, one.address) for one in night.measurements if (one.case, one.device) not in ruled]
    if night.ended_at is None:
        pairs += night.planned
    known = {(tidy(case), address) for (case, _), address in ruled.items()}
    return unique(pair for case, word in pairs if (pair := (tidy(case), tidy(word))) not in known)


def _changes(cases: Iterable[Sequence[Measurement]], night: Night) -> dict[str, tuple[str, str]]:
    """Return how a device's environment changed since the night before, as a dict from name to values before and now."""
    pairs = [nights[-2:] for nights in cases if len(nights) > 1 and nights[-1].night == night.night_id]
    return {name: pair for before, now in pairs for name, pair in changed_values(before.environment, now.environment).items()}
