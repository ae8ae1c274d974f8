"""Detect metric values that changed since earlier nights, and give verdicts from extra launches that confirm or refute them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median

from quadbench.artifacts.night_record import Acknowledgement, Measurement, Point, Ruling, RulingKind, Subject, differing_values
from quadbench.nightly import series
from quadbench.nightly.night_file import Limits
from quadbench.nightly.series import FigureName, Level, Window, change_between, change_text, is_worse, limit_of, name_of
from quadbench.report.formatting import between, change, plural
from quadbench.report.night import directions
from quadbench.report.versus import EXACT, VersusDevice, primary_row
from quadbench.statistics import Verdict
from quadbench.statistics.change_points import HALF_OF_STEPS, Spread, spread_of
from quadbench.statistics.launch_comparison import Comparison, verdict_within

RULES = 3  # version of the rules in this module, stored with each ruling
FALSE_ALARM = 0.05  # chance that an unchanged figure of new files is suspected; a confirmation then clears it
FALSE_RULING = 0.001  # chance over all figures of a case of a false ruling without confirmation

_LOST = "it was not measured, but was measured the night before"
_PROVEN = {Verdict.WORSE: RulingKind.REGRESSION, Verdict.BETTER: RulingKind.IMPROVEMENT}
_IN_TURN = " than with the last good files, launched in turn"
_KNOWN = " than with the last good files, as an earlier night confirmed for the same files"
_UNCONFIRMED = "no launches in turn with the last good files have confirmed it"
_UNDECIDED = "which is inconclusive"
_ACKNOWLEDGED = {RulingKind.REGRESSION, RulingKind.INCONCLUSIVE, RulingKind.ENVIRONMENT}


@dataclass(frozen=True, kw_only=True)
class SuspectedChange:
    """A metric that may have changed. `value` is tonight's value. `expected` is the usual value, or None if unknown. Both are
    ratios to the reference bundle if the metric has such a ratio.

    `is_worse` is None if the usual level or the limit is unknown. `is_sure`: the change is certain, only its cause needs
    confirmation. `was_so`: the night before was already as far off. `known` is the confirmed ruling of the night before on the
    same files. `has_same_files`: the compared night of an exact figure ran the same files.
    """

    task: str
    key: str
    value: float
    expected: float | None
    is_worse: bool | None
    is_sure: bool
    why: str
    was_so: bool = False
    has_same_files: bool = False
    known: Ruling | None = None

    @property
    def name(self) -> FigureName:
        return self.task, self.key

    @property
    def is_vague(self) -> bool:
        """Return whether a metric is suspected only because the files are new and too few nights show its usual level."""
        return self.is_worse is None and not self.is_sure and self.known is None


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The changes detected in a night's measurement of a case. Tonight's files are compared with the `last_good` files.

    `accepted` are figures that an acknowledgement in force covers. `missing` maps a figure missing tonight to the reason.
    `yardstick` describes a shift of the yardstick, `changed` changes of the environment since the night before. `expired_ack`
    is the expired acknowledgement under which all remembered nights were accepted.
    """

    tonight: Measurement
    limits: Limits
    nights: int  # number of earlier nights
    last_good: Subject | None
    suspects: tuple[SuspectedChange, ...]
    accepted: frozenset[FigureName]
    missing: dict[FigureName, str]
    yardstick: str | None
    changed: str | None
    expired_ack: Acknowledgement | None

    @property
    def is_same(self) -> bool:
        return self.last_good == self.tonight.subject

    @property
    def to_confirm(self) -> bool:
        """Return whether tonight's suspected changes need a check by alternating launches of last good and tonight's files."""
        is_open = any(one.key not in EXACT and one.known is None for one in self.suspects)
        return is_open and self.last_good is not None and not self.is_same


def detect(
    tonight: Measurement,
    history: Sequence[Measurement],
    rulings: Sequence[Ruling],
    acknowledged: Sequence[Acknowledgement],
    limits: Limits,
) -> Detection:
    """Compare `tonight` with earlier measurements (`history`, oldest first). Return the detected changes as a Detection."""
    where = (tonight.case, tonight.device)
    past = Window(
        tonight=tonight,
        nights=tuple(one for one in history if (one.case, one.device) == where and one.night != tonight.night)[
            -series.MAX_NIGHTS :
        ],
        rulings=tuple(ruling for ruling in rulings if (ruling.case, ruling.device) == where),
        acks=tuple(word for word in acknowledged if word.case == tonight.case and word.device in (None, tonight.device)),
    )
    detector = _Detector(past=past, limits=limits)
    names = {name_of(point) for point in tonight.points}
    latest = past.nights[-1] if past.nights else tonight
    changed = differing_values([latest.environment], [tonight.environment])
    return Detection(
        tonight=tonight,
        limits=limits,
        nights=len(past.nights),
        last_good=past.last_good,
        suspects=tuple(suspect for point in tonight.points if (suspect := detector.suspect(point))),
        accepted=frozenset(filter(past.is_accepted, names)),
        missing={name_of(point): _LOST for point in latest.points if name_of(point) not in names},
        yardstick=series.yardstick_shift(past, limits),
        changed="; ".join(f"{name} was {before} and is {now}" for name, (before, now) in changed.items()) or None,
        expired_ack=past.expired_ack,
    )


@dataclass(frozen=True, kw_only=True)
class _Detector:
    """The detector of changed metrics. It compares tonight with earlier nights; `limits` are the least changes that count."""

    past: Window
    limits: Limits

    def suspect(self, point: Point) -> SuspectedChange | None:
        """Return the suspected change of a metric value, or None if the value agrees with the baseline nights."""
        place, every = series.to_scale(point), self.past.series(point)
        usual = self.past.usual_values(point, every)
        if place is None:
            return replace(_suspect(point, f"its value {point.value:g} is not valid"), is_sure=True)
        if point.key in EXACT:
            return self._exact(point, place, usual)
        if known := self.past.known_regression(point):
            return replace(_suspect(point, known.cause), expected=known.expected, known=known)
        recent = [other for _, other in every[-series.LEVEL_NIGHTS :]]
        spread, narrow = spread_of(recent), spread_of(recent, HALF_OF_STEPS)
        if spread and narrow and usual:
            return self._sudden(point, place, usual, spread) or self._since_it_came(point, place, usual, narrow)
        few = f"the usual level is unknown after only {plural(len(usual), 'earlier night')}"
        is_vague = self._is_new and every and not self.past.is_accepted(name_of(point))
        return _suspect(point, few) if is_vague else None

    @property
    def _is_new(self) -> bool:
        return self.past.last_good not in (None, self.past.tonight.subject)

    def _exact(self, point: Point, place: float, usual: Sequence[Level]) -> SuspectedChange | None:
        """Return the suspected change of a metric without noise, such as PSNR, since the last good night; None if unchanged."""
        if not usual:
            return None
        before, level = usual[-1]
        change = change_between(level, place)
        if abs(change) <= limit_of(point.key, self.limits):
            return None
        suspect = _suspect_shift(point, change, level, "before", is_sure=True)
        if math.isinf(level):
            suspect = replace(suspect, is_worse=None, why=f"{suspect.why}; no relative limit applies to {suspect.expected:g}")
        return replace(suspect, has_same_files=before.subject == self.past.tonight.subject)

    def _sudden(self, point: Point, place: float, usual: Sequence[Level], spread: Spread) -> SuspectedChange | None:
        """Return a SuspectedChange if a metric moved from its usual value beyond noise and the metric's limit; otherwise None."""
        level = [other for _, other in self.past.comparable(usual)[-series.LEVEL_NIGHTS :]]
        chance = FALSE_RULING / sum(other.key not in EXACT for other in self.past.tonight.points)
        change = spread.change(level, [place], least=limit_of(point.key, self.limits), chance=chance)
        if change is None:
            return None
        was_so = abs(place - usual[-1][1]) < abs(change) / 2
        return replace(_suspect_shift(point, change, median(level), "usual", is_sure=True), was_so=was_so)

    def _since_it_came(self, point: Point, place: float, usual: Sequence[Level], spread: Spread) -> SuspectedChange | None:
        """Return a SuspectedChange if a metric's median under tonight's new files differs from its median under earlier files.
        The difference must exceed noise and half the metric's limit. Return None otherwise, or if the files are not new.
        """
        subject = self.past.tonight.subject
        now = [*(other for night, other in usual if night.subject == subject), place] if self._is_new else []
        level = [
            other
            for _, other in self.past.comparable([one for one in usual if one[0].subject != subject])[-series.LEVEL_NIGHTS :]
        ]
        least = limit_of(point.key, self.limits) / 2
        change = spread.change(level, now, least=least, chance=FALSE_ALARM) if now and level else None
        return _suspect_shift(point, change, median(level), "with the previous files") if change else None


def _suspect(point: Point, why: str) -> SuspectedChange:
    value = point.value if point.ratio is None else point.ratio
    return SuspectedChange(task=point.task, key=point.key, value=value, expected=None, is_worse=None, is_sure=False, why=why)


def _suspect_shift(point: Point, change: float, level: float, than: str, *, is_sure: bool = False) -> SuspectedChange:
    is_ratio, expected = point.ratio is not None, series.from_scale(level, point.key)
    suspect = _suspect(point, "")
    values = [series.value_text(value, point.key, is_ratio=is_ratio) for value in (suspect.value, expected)]
    why = f"it is {change_text(change, point.key)} than {than}: {values[0]} instead of {values[1]}"
    return replace(suspect, why=why, expected=expected, is_worse=is_worse(change, point.key), is_sure=is_sure)


def rulings_on(
    detection: Detection,
    *,
    confirmed: VersusDevice | None,
    comparison: str | None,
    owner: str | None,
    now: datetime,
    why: str | None = None,
) -> tuple[Ruling, ...]:
    """Return a case's verdicts on one device. The first covers all metrics without a separate verdict. The rest cover one each.

    `confirmed` is the comparison of the last good files (A) with tonight's (B), and `comparison` its id. Both are None if it was
    not run; `why` says what went wrong. This comparison's verdicts on unsuspected metrics count too.
    """
    judge = _Judge(detection=detection, confirmed=confirmed, comparison=comparison, owner=owner, now=now, why=why)
    each = [ruling for suspect in detection.suspects if (ruling := judge.on_suspect(suspect))]
    each += judge.on_others() + [judge.ruling(RulingKind.MISSING, why, name) for name, why in detection.missing.items()]
    return (judge.on_all(len(each) - len(detection.missing)), *each)


def missing_ruling(night: str, case: str, device: str, address: str, *, cause: str, owner: str | None, now: datetime) -> Ruling:
    """Return a MISSING verdict for a nightly case that was not measured on a device."""
    return Ruling(
        night=night,
        case=case,
        device=device,
        address=address,
        told_at=now,
        kind=RulingKind.MISSING,
        cause=cause,
        detector=RULES,
        owner=owner,
    )


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """The judge that turns a case's suspected changes on a device into verdicts. It uses interleaved launches if any ran."""

    detection: Detection
    confirmed: VersusDevice | None
    comparison: str | None
    owner: str | None
    now: datetime
    why: str | None

    def ruling(self, kind: RulingKind, cause: str, name: FigureName | tuple[None, None] = (None, None)) -> Ruling:
        night = self.detection.tonight
        ruling = missing_ruling(night.night, night.case, night.device, night.address, cause=cause, owner=self.owner, now=self.now)
        return replace(ruling, kind=kind, task=name[0], key=name[1], last_good=self.detection.last_good)

    def on_all(self, apart: int) -> Ruling:
        """Return the verdict on all metrics that lack their own verdict. `apart` is how many metrics have their own verdict."""
        detection = self.detection
        if detection.yardstick:
            text = f"the yardstick, with unchanged files, differs from its usual level on this device: {detection.yardstick}"
            return self.ruling(RulingKind.ENVIRONMENT, text + self._environment)
        if detection.expired_ack:
            until = f"{detection.expired_ack.until:%Y-%m-%d}"
            return self.ruling(RulingKind.INCONCLUSIVE, f"all earlier nights were accepted only until {until}")
        few = [suspect.why for suspect in detection.suspects if suspect.is_vague]
        if few and (undecided := self._undecided):
            return self.ruling(RulingKind.INCONCLUSIVE, f"the files are new, {few[0]}; {undecided}")
        if not detection.nights:
            return self.ruling(RulingKind.CLEAN, "there is no earlier night")
        figures = plural(len(detection.tonight.points) - apart, "figure")
        earlier = f"compared with {plural(detection.nights, 'earlier night')}"
        text = "launched in turn with the last good files" if few else earlier
        return replace(self.ruling(RulingKind.CLEAN, f"{figures} as usual, {text}"), comparison=self.comparison if few else None)

    def on_suspect(self, suspect: SuspectedChange) -> Ruling | None:
        """Return a suspected metric's verdict. Return None if too few nights show a usual value and no change is proven."""
        if suspect.known:
            ruling = self._rated(
                self.ruling(suspect.known.kind, _change(suspect.known, suspect.key) + _KNOWN, suspect.name), suspect.known
            )
            return replace(ruling, comparison=suspect.known.comparison, value=suspect.value, expected=suspect.expected)
        rows = self.confirmed.rows if self.confirmed else ()
        compared = next((row.comparison for row in rows if (row.task, row.key) == suspect.name), None)
        kind, cause = self._ruling_on(suspect, compared)
        if suspect.is_vague and kind not in _PROVEN.values():
            return None
        ruling = replace(self.ruling(kind, cause, suspect.name), value=suspect.value, expected=suspect.expected)
        return self._rated(ruling, compared) if compared else ruling

    def on_others(self) -> list[Ruling]:
        """Return a list with a verdict per unsuspected metric that changed in interleaved launches. Skip waived metrics."""
        suspected = {suspect.name for suspect in self.detection.suspects}
        rulings = []
        for row in self.confirmed.rows if self.confirmed else ():
            name, compared = (row.task, row.key), row.comparison
            kind = _PROVEN.get(self._verdict(compared, row.key)) if compared else None
            if kind and compared and name not in suspected | self.detection.accepted:
                rulings.append(self._rated(self.ruling(kind, _change(compared, row.key) + _IN_TURN, name), compared))
        return rulings

    def _ruling_on(self, suspect: SuspectedChange, compared: Comparison | None) -> tuple[RulingKind, str]:
        """Return (verdict kind, cause as text) for a metric with a suspected change. A kind is, for example, REGRESSION."""
        if suspect.is_sure and suspect.expected is None:
            return RulingKind.INCONCLUSIVE, suspect.why
        if self.detection.is_same or suspect.has_same_files:
            return RulingKind.ENVIRONMENT, f"{suspect.why}; its files are the same{self._environment}"
        if suspect.key in EXACT and suspect.is_worse is None:
            return RulingKind.INCONCLUSIVE, suspect.why
        if suspect.key in EXACT:
            return (RulingKind.REGRESSION if suspect.is_worse else RulingKind.IMPROVEMENT), suspect.why
        if compared is None:
            return RulingKind.INCONCLUSIVE, f"{suspect.why}; {self._because(_UNCONFIRMED)}"
        launched = _change(compared, suspect.key) + _IN_TURN
        both = f"{suspect.why}; {launched}"
        match self._verdict(compared, suspect.key):
            case Verdict.WORSE | Verdict.BETTER as verdict:
                return _PROVEN[verdict], launched
            case Verdict.SAME if suspect.is_sure and suspect.was_so:
                return RulingKind.INCONCLUSIVE, f"{both}, so it came gradually, before these files"
            case Verdict.SAME if suspect.is_sure:
                return RulingKind.ENVIRONMENT, f"{both}, so its files are not the cause{self._environment}"
            case Verdict.SAME:
                return RulingKind.CLEAN, launched
            case Verdict.INCONCLUSIVE:
                return RulingKind.INCONCLUSIVE, f"{both}, {self._because(_UNDECIDED)}"

    @property
    def _undecided(self) -> str | None:
        """Return as text why interleaved launches gave no verdict on mean image time. Return None if they gave one."""
        if self.confirmed is None:
            return self._because(_UNCONFIRMED)
        row = primary_row(self.confirmed)
        is_told = row and row.comparison and self._verdict(row.comparison, row.key) is not Verdict.INCONCLUSIVE
        return None if is_told else self._because(f"it was launched in turn with the last good files, {_UNDECIDED}")

    def _because(self, text: str) -> str:
        return f"{text}: {self.why}" if self.why else text

    def _verdict(self, compared: Comparison, key: str) -> Verdict:
        return verdict_within(compared, limit_of(key, self.detection.limits))

    def _rated(self, ruling: Ruling, result: Comparison | Ruling) -> Ruling:
        return replace(ruling, ratio=result.ratio, low=result.low, high=result.high, comparison=self.comparison)

    @property
    def _environment(self) -> str:
        """Return tonight's caveats, such as throttling, and environment changes, each as ` (text)`. Without any, return ""."""
        doubts = [caveat.label for caveat in self.detection.tonight.caveats if caveat in series.NIGHTS_DOUBTS]
        return "".join(f" ({word})" for word in (*doubts, self.detection.changed) if word)


def _change(result: Comparison | Ruling, key: str) -> str:
    """Format a metric's change since the last good files, with its interval: `it is 5.1 % slower (3.9 to 6.2 % slower)`."""
    words = directions(key)
    within = f" ({between(result.low, result.high, words)})" if result.low is not None and result.high is not None else ""
    return f"it is {change(result.ratio, words)}{within}"


def rulings_by_acknowledgement(
    word: Acknowledgement, rulings: Iterable[Ruling], nights: Sequence[Measurement], now: datetime
) -> tuple[Ruling, ...]:
    """Return a CLEAN copy of each REGRESSION, INCONCLUSIVE or ENVIRONMENT verdict in `rulings` that the waiver `word` covers.
    Skip verdicts on measurements made before the waiver began. `nights` lists all measurements.
    """
    covered = {(night.night, night.device) for night in nights if night.measured_at >= word.since}
    cause = f"acknowledged by {word.owner} until {word.until:%Y-%m-%d}: {word.reason}"
    return tuple(
        replace(ruling, kind=RulingKind.CLEAN, cause=cause, told_at=now)
        for ruling in rulings
        if ruling.kind in _ACKNOWLEDGED
        and ruling.case == word.case
        and (ruling.night, ruling.device) in covered
        and word.device in (None, ruling.device)
        and word.covers(ruling.task, ruling.key)
    )
