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

RULES = 4  # version of the rules in this module, stored with each ruling
FALSE_ALARM = 0.05  # chance that an unchanged figure of new files is suspected; a confirmation then clears it
WINDOWS = (1, 5)  # latest nights whose median is compared with the baseline, whatever their files
FALSE_RULING = 0.001  # chance over all figures of a case of a false ruling without confirmation

_LOST = "it was not measured, but was measured the night before"
_STANDS = "it was not measured, and was a REGRESSION when it was measured last"
_PROVEN = {Verdict.WORSE: RulingKind.REGRESSION, Verdict.BETTER: RulingKind.IMPROVEMENT}
_IN_TURN = " than with the last good files, launched in turn"
_KNOWN = " than with the last good files, as an earlier night confirmed"
_SAME_FILES = f"{_KNOWN} for the same files"
_ALIKE = f"{_KNOWN}; the figure of tonight's files is like it"
_BACK = "it is no longer worse: tonight's files are the last good ones, or launches in turn showed them to be the same"
_EXACT_BACK = "it is no longer worse: it is back within the limit"
_NOT_ENDED = "launches in turn have not shown that it has ended"
_UNCONFIRMED = "no launches in turn with the last good files have confirmed it"
_UNDECIDED = "which is inconclusive"
_ACKNOWLEDGED = {RulingKind.REGRESSION, RulingKind.INCONCLUSIVE, RulingKind.ENVIRONMENT}


@dataclass(frozen=True, kw_only=True)
class SuspectedChange:
    """A metric that may have changed. `value` is tonight's value. `expected` is the usual value, or None if unknown. Both are
    ratios to the reference bundle if the metric has such a ratio.

    `is_worse` is None if the usual level or the limit is unknown. `is_sure`: the change is certain, only its cause needs
    confirmation. `known` is the metric's regression if one stands; `settled` says why it needs no launches tonight.
    `has_same_files`: the compared night of an exact figure ran the same files.
    """

    task: str
    key: str
    value: float
    expected: float | None
    is_worse: bool | None
    is_sure: bool
    why: str
    has_same_files: bool = False
    known: Ruling | None = None
    settled: str | None = None

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
    `is_same`: they are these, or launches in turn have shown them to be the same. `good_night` is the last night known to be
    good. `ended` are regressions that stood until tonight, and need no launches to be over.

    `accepted` are figures that an acknowledgement in force covers. `missing` maps a figure missing tonight to the reason.
    `yardstick` describes a shift of the yardstick, `changed` changes of the environment since the night before. `expired_ack`
    is the expired acknowledgement under which all remembered nights were accepted.
    """

    tonight: Measurement
    limits: Limits
    nights: int  # number of earlier nights
    last_good: Subject | None
    is_same: bool
    good_night: str | None
    suspects: tuple[SuspectedChange, ...]
    ended: tuple[Ruling, ...]
    accepted: frozenset[FigureName]
    missing: dict[FigureName, str]
    yardstick: str | None
    changed: str | None
    expired_ack: Acknowledgement | None

    @property
    def to_confirm(self) -> bool:
        """Return whether tonight's suspected changes need a check by alternating launches of last good and tonight's files."""
        is_open = any(one.key not in EXACT and one.settled is None for one in self.suspects)
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
    suspects = tuple(suspect for point in tonight.points if (suspect := detector.suspect(point)))
    standing = [ruling for name in sorted(names - {one.name for one in suspects}) if (ruling := past.standing(name))]
    told = {(one.task or "", one.key or "") for one in past.rulings if one.kind is RulingKind.REGRESSION}
    lost = {name: _STANDS for name in sorted(told - names) if past.standing(name)}
    return Detection(
        tonight=tonight,
        limits=limits,
        nights=len(past.nights),
        last_good=past.last_good,
        is_same=not past.is_new,
        good_night=past.good_night,
        suspects=suspects,
        ended=tuple(standing),
        accepted=frozenset(filter(past.is_accepted, names)),
        missing={name_of(point): _LOST for point in latest.points if name_of(point) not in names} | lost,
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
        standing = self.past.standing(name_of(point))
        if point.key in EXACT:
            return self._exact(point, place, usual, standing)
        recent = [other for _, other in every[-series.LEVEL_NIGHTS :]]
        spread, narrow = spread_of(recent), spread_of([other for _, other in every], HALF_OF_STEPS)
        if standing and self.past.is_new:
            settled = self._settled(point, place, usual, standing, narrow)
            return replace(_suspect(point, standing.cause), expected=standing.expected, known=standing, settled=settled)
        if spread and narrow and usual:
            return self._sudden(point, place, usual, spread) or self._gradual(point, place, usual, narrow)
        few = f"the usual level is unknown after only {plural(len(usual), 'earlier night')}"
        is_vague = self.past.is_new and every and not self.past.is_accepted(name_of(point))
        return _suspect(point, few) if is_vague else None

    def _exact(self, point: Point, place: float, usual: Sequence[Level], standing: Ruling | None) -> SuspectedChange | None:
        """Return the suspected change of a metric without noise, such as PSNR, since its level began; None if unchanged. Its
        level is the first usual value, so that small changes add up. Without one, it is that of a regression that stands.
        """
        known = standing and standing.expected
        if not usual and known is None:
            return None
        before, level = usual[-1][0] if usual else None, usual[0][1] if usual else _place(known or 0.0, point.key)
        change = change_between(level, place)
        if abs(change) <= limit_of(point.key, self.limits):
            return None
        suspect = replace(_suspect_shift(point, change, level, "before", is_sure=True), known=standing)
        if math.isinf(level):
            suspect = replace(suspect, is_worse=None, why=f"{suspect.why}; no relative limit applies to {suspect.expected:g}")
        return replace(suspect, has_same_files=before is not None and before.subject == self.past.tonight.subject)

    def _sudden(self, point: Point, place: float, usual: Sequence[Level], spread: Spread) -> SuspectedChange | None:
        """Return a SuspectedChange if a metric moved from its usual value beyond noise and the metric's limit; otherwise None."""
        level = [other for _, other in self.past.comparable(usual)[-series.LEVEL_NIGHTS :]]
        chance = FALSE_RULING / sum(other.key not in EXACT for other in self.past.tonight.points)
        change = spread.change(level, [place], least=limit_of(point.key, self.limits), chance=chance)
        return None if change is None else _suspect_shift(point, change, median(level), "usual", is_sure=True)

    def _gradual(self, point: Point, place: float, usual: Sequence[Level], spread: Spread) -> SuspectedChange | None:
        """Return a SuspectedChange if the latest nights, whatever their files, differ from the nights known to be good. They are
        those since the last confirmation. The difference must exceed noise and half the metric's limit. None if files are known.
        """
        if not self.past.is_new:
            return None
        known = [one for one in usual if one[0].night in self.past.known_good]
        level = [other for _, other in self.past.comparable(known)[-series.LEVEL_NIGHTS :]]
        now = [*(other for night, other in usual if night.night not in self.past.known_good), place]
        least, chance = limit_of(point.key, self.limits) / 2, FALSE_ALARM / len(WINDOWS)
        for count in WINDOWS if level else ():
            change = spread.change(level, now[-count:], least=least, chance=chance) if count <= len(now) else None
            if change is not None:
                return _suspect_shift(point, change, median(level), "in nights known to be good", now=median(now[-count:]))
        return None

    def _settled(self, point: Point, place: float, usual: Sequence[Level], standing: Ruling, spread: Spread | None) -> str | None:
        """Return why a standing regression needs no launches tonight: its confirmed files run in the same environment, or
        tonight's files, within a few nights of the last launches, are as much worse as these showed. None if it needs launches.
        """
        launched = self.past.launched(standing)
        if launched is None or launched[0].environment != self.past.tonight.environment:
            return None
        if launched[0].subject == self.past.tonight.subject:
            return _SAME_FILES
        level = [other for _, other in self.past.comparable(usual)[-series.LEVEL_NIGHTS :]]
        if launched[1] >= series.UNLAUNCHED or spread is None or not level or not standing.ratio:
            return None
        told = math.log(standing.ratio)
        usual_level, limit = median(level), limit_of(point.key, self.limits)
        is_back = abs(place - usual_level) < abs(place - usual_level - told)
        more = spread.change([other + told for other in level], [place], least=limit, chance=FALSE_RULING)
        return None if is_back or more is not None else _ALIKE


def _place(value: float, key: str) -> float:
    """Return a stored usual value of an exact metric on its scale."""
    return series.to_scale(Point(task="", key=key, value=value)) or 0.0


def _suspect(point: Point, why: str) -> SuspectedChange:
    value = point.value if point.ratio is None else point.ratio
    return SuspectedChange(task=point.task, key=point.key, value=value, expected=None, is_worse=None, is_sure=False, why=why)


def _suspect_shift(
    point: Point, change: float, level: float, than: str, *, is_sure: bool = False, now: float | None = None
) -> SuspectedChange:
    """Return the suspected change of a metric from a level, on its scale. `now` is the median of several nights, if compared."""
    is_ratio, expected = point.ratio is not None, series.from_scale(level, point.key)
    suspect = _suspect(point, "")
    shown = suspect.value if now is None else series.from_scale(now, point.key)
    values = [series.value_text(value, point.key, is_ratio=is_ratio) for value in (shown, expected)]
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
    each += judge.on_others()
    told = {(ruling.task, ruling.key) for ruling in each}
    each += [judge.ended(one) for one in detection.ended if (one.task, one.key) not in told]
    each += [judge.ruling(RulingKind.MISSING, why, name) for name, why in detection.missing.items()]
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
        ruling = replace(ruling, kind=kind, task=name[0], key=name[1], last_good=self.detection.last_good)
        if kind is not RulingKind.REGRESSION:
            return ruling
        return replace(ruling, since=night.night, nights=1, good_night=self.detection.good_night)

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
        rows = self.confirmed.rows if self.confirmed else ()
        compared = next((row.comparison for row in rows if (row.task, row.key) == suspect.name), None)
        if suspect.known and suspect.key not in EXACT:
            return self._on_standing(suspect, suspect.known, compared)
        kind, cause = self._ruling_on(suspect, compared)
        if suspect.is_vague and kind not in _PROVEN.values():
            return None
        ruling = replace(self.ruling(kind, cause, suspect.name), value=suspect.value, expected=suspect.expected)
        ruling = _standing_on(ruling, suspect.known) if suspect.known else ruling
        return self._rated(ruling, compared) if compared else ruling

    def _on_standing(self, suspect: SuspectedChange, known: Ruling, compared: Comparison | None) -> Ruling:
        """Return the verdict on a metric whose regression stands. Only launches in turn that show no difference, or the opposite
        one, end it. Others that show it give its size anew; without a result the earlier confirmation counts.
        """
        verdict = self._verdict(compared, suspect.key) if compared else Verdict.INCONCLUSIVE
        kind = RulingKind.CLEAN if verdict is Verdict.SAME else _PROVEN.get(verdict, RulingKind.REGRESSION)
        if compared is None or verdict is Verdict.INCONCLUSIVE:
            why = suspect.settled or f"{_KNOWN}; {self._because(_NOT_ENDED)}"
            ruling = self._rated(self.ruling(kind, _change(known, suspect.key) + why, suspect.name), known)
            ruling = replace(ruling, comparison=known.comparison)
        else:
            ruling = self._rated(self.ruling(kind, _change(compared, suspect.key) + _IN_TURN, suspect.name), compared)
        return _standing_on(replace(ruling, value=suspect.value, expected=suspect.expected), known)

    def ended(self, known: Ruling) -> Ruling:
        """Return the verdict that a standing regression is over without launches, as its files or its exact value are back."""
        name = known.task or "", known.key or ""
        return _standing_on(self.ruling(RulingKind.CLEAN, _EXACT_BACK if name[1] in EXACT else _BACK, name), known)

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
            case Verdict.SAME if suspect.is_sure and _explains(compared, suspect):
                return RulingKind.INCONCLUSIVE, f"{both}, so its files may be the cause of a part"
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


def _standing_on(ruling: Ruling, known: Ruling) -> Ruling:
    """Return a verdict that goes on, or ends, a regression that stands."""
    return replace(ruling, since=known.since, nights=known.nights, good_night=known.good_night)


def _explains(compared: Comparison, suspect: SuspectedChange) -> bool:
    """Return whether launches in turn leave it open that the files caused half of a suspected change, or more."""
    if suspect.expected is None or compared.low is None or compared.high is None:
        return False
    half = math.log(suspect.value / suspect.expected) / 2  # times and memory are above 0
    return math.log(compared.high) >= half if half > 0 else math.log(compared.low) <= half


def _change(result: Comparison | Ruling, key: str) -> str:
    """Format a metric's change since the last good files, with its interval: `it is 5.1 % slower (3.9 to 6.2 % slower)`."""
    words = directions(key)
    within = f" ({between(result.low, result.high, words)})" if result.low is not None and result.high is not None else ""
    return f"it is {change(result.ratio, words)}{within}"


def standing_at(rulings: Sequence[Ruling], nights: Sequence[Measurement]) -> tuple[Ruling, ...]:
    """Return the regressions that stand in the latest of a case's nights on a device that has a verdict."""
    ruled = {ruling.night for ruling in rulings}
    latest = next((night.night for night in reversed(nights) if night.night in ruled), None)
    return tuple(ruling for ruling in rulings if ruling.night == latest and ruling.kind is RulingKind.REGRESSION)


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
