"""Judging: what is suspected of a case on a device, and launches in turn that confirm it -> the night's rulings; pure."""

from dataclasses import dataclass, replace
from datetime import datetime

from quadbench.artifacts.night import Ruling, RulingKind
from quadbench.nightly.figures import FigureName, is_exact, limit_of
from quadbench.nightly.past import NIGHTS_DOUBTS
from quadbench.nightly.suspicion import RULES, Suspect, Suspicion
from quadbench.report.night_words import directions
from quadbench.report.units import between, change, plural
from quadbench.report.versus import VersusDevice, primary_row
from quadbench.statistics import Comparison, Verdict
from quadbench.statistics.within import verdict_within

_PROVEN = {Verdict.WORSE: RulingKind.REGRESSION, Verdict.BETTER: RulingKind.IMPROVEMENT}
_IN_TURN = " than on the last good files, launched in turn"
_KNOWN = " than on the last good files, as an earlier night confirmed for these"
_UNCONFIRMED = "it was not launched in turn with the last good files, which would tell"
_UNDECIDED = "which does not decide it"


def rulings_on(
    suspicion: Suspicion,
    *,
    confirmed: VersusDevice | None,
    comparison: str | None,
    owner: str | None,
    now: datetime,
    why: str | None = None,
) -> tuple[Ruling, ...]:
    """Rule on a case on a device: one ruling on all figures together, and one on each figure that was suspected or is not clean.

    `confirmed` is what came of launching the last good subject (A) and tonight's (B) in turn, which the id `comparison` names;
    both are None where that was not done, and `why` says what went wrong with it. What it proves of a figure that was not
    suspected counts too.
    """
    judge = _Judge(suspicion=suspicion, confirmed=confirmed, comparison=comparison, owner=owner, now=now, why=why)
    each = [ruling for suspect in suspicion.suspects if (ruling := judge.on_suspect(suspect))]
    each += judge.on_others() + [judge.ruling(RulingKind.MISSING, why, name) for name, why in suspicion.lost.items()]
    return (judge.on_all(len(each) - len(suspicion.lost)), *each)


def missing(night: str, case: str, device: str, address: str, *, cause: str, owner: str | None, now: datetime) -> Ruling:
    """Rule on a case that was not measured on a device."""
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
    """The judge of a case on a device."""

    suspicion: Suspicion
    confirmed: VersusDevice | None
    comparison: str | None
    owner: str | None
    now: datetime
    why: str | None

    def ruling(self, kind: RulingKind, cause: str, name: FigureName | tuple[None, None] = (None, None)) -> Ruling:
        """Rule on a figure, or on all."""
        night = self.suspicion.tonight
        ruling = missing(night.night, night.case, night.device, night.address, cause=cause, owner=self.owner, now=self.now)
        return replace(ruling, kind=kind, task=name[0], key=name[1], last_good=self.suspicion.last_good)

    def on_all(self, apart: int) -> Ruling:
        """Rule on all figures that have no ruling of their own, `apart` being how many have one."""
        suspicion = self.suspicion
        if suspicion.yardstick:
            told = f"the yardstick, whose files are as ever, differs from what is usual on this device: {suspicion.yardstick}"
            return self.ruling(RulingKind.ENVIRONMENT, told + self._around)
        if suspicion.over:
            until = f"{suspicion.over.until:%Y-%m-%d}"
            return self.ruling(RulingKind.INCONCLUSIVE, f"all nights before were accepted until {until}, which is over")
        few = [suspect.why for suspect in suspicion.suspects if suspect.is_vague]
        if few and (undecided := self._undecided):
            return self.ruling(RulingKind.INCONCLUSIVE, f"the files are new, {few[0]}; {undecided}")
        if not suspicion.nights:
            return self.ruling(RulingKind.CLEAN, "there is no night before it")
        figures = plural(len(suspicion.tonight.points) - apart, "figure")
        told = "launched in turn with the last good files" if few else f"by {plural(suspicion.nights, 'night')} before"
        return replace(self.ruling(RulingKind.CLEAN, f"{figures} as usual, {told}"), comparison=self.comparison if few else None)

    def on_suspect(self, suspect: Suspect) -> Ruling | None:
        """Rule on a figure that was suspected; None where only too few nights raised the suspicion, and nothing is proven."""
        if suspect.known:
            ruling = self._with(
                self.ruling(suspect.known.kind, _said(suspect.known, suspect.key) + _KNOWN, suspect.name), suspect.known
            )
            return replace(ruling, comparison=suspect.known.comparison, value=suspect.value, expected=suspect.expected)
        compared = self._compared(suspect.name)
        kind, cause = self._told(suspect, compared)
        if suspect.is_vague and kind not in _PROVEN.values():
            return None
        ruling = replace(self.ruling(kind, cause, suspect.name), value=suspect.value, expected=suspect.expected)
        return self._with(ruling, compared) if compared else ruling

    def on_others(self) -> list[Ruling]:
        """Rule on the figures that nobody suspected or accepts, and that launches in turn prove to have changed."""
        suspected = {suspect.name for suspect in self.suspicion.suspects}
        rulings = []
        for row in self.confirmed.rows if self.confirmed else ():
            name, compared = (row.task, row.key), row.comparison
            kind = _PROVEN.get(self._verdict(compared, row.key)) if compared else None
            if kind and compared and name not in suspected | self.suspicion.accepted:
                rulings.append(self._with(self.ruling(kind, _said(compared, row.key) + _IN_TURN, name), compared))
        return rulings

    def _told(self, suspect: Suspect, compared: Comparison | None) -> tuple[RulingKind, str]:
        """Return what a suspect comes to, and why."""
        if suspect.is_sure and suspect.expected is None:
            return RulingKind.INCONCLUSIVE, suspect.why
        if self.suspicion.is_same or suspect.has_same_files:
            return RulingKind.ENVIRONMENT, f"{suspect.why}; its files are the same{self._around}"
        if is_exact(suspect.key) and suspect.is_worse is None:
            return RulingKind.INCONCLUSIVE, suspect.why
        if is_exact(suspect.key):
            return (RulingKind.REGRESSION if suspect.is_worse else RulingKind.IMPROVEMENT), suspect.why
        if compared is None:
            return RulingKind.INCONCLUSIVE, f"{suspect.why}; {self._because(_UNCONFIRMED)}"
        launched = _said(compared, suspect.key) + _IN_TURN
        both = f"{suspect.why}; {launched}"
        match self._verdict(compared, suspect.key):
            case Verdict.WORSE | Verdict.BETTER as verdict:
                return _PROVEN[verdict], launched
            case Verdict.SAME if suspect.is_sure and suspect.was_so:
                return RulingKind.INCONCLUSIVE, f"{both}, so it came before these, little by little"
            case Verdict.SAME if suspect.is_sure:
                return RulingKind.ENVIRONMENT, f"{both}, so its files are not why{self._around}"
            case Verdict.SAME:
                return RulingKind.CLEAN, launched
            case Verdict.INCONCLUSIVE:
                return RulingKind.INCONCLUSIVE, f"{both}, {self._because(_UNDECIDED)}"

    @property
    def _undecided(self) -> str | None:
        """Say why launches in turn do not tell whether an image takes as long as with the last good files; None where they do."""
        if self.confirmed is None:
            return self._because(_UNCONFIRMED)
        row = primary_row(self.confirmed)
        is_told = row and row.comparison and self._verdict(row.comparison, row.key) is not Verdict.INCONCLUSIVE
        return None if is_told else self._because(f"it was launched in turn with the last good files, {_UNDECIDED}")

    def _because(self, told: str) -> str:
        return f"{told}: {self.why}" if self.why else told

    def _compared(self, name: FigureName) -> Comparison | None:
        rows = self.confirmed.rows if self.confirmed else ()
        return next((row.comparison for row in rows if (row.task, row.key) == name), None)

    def _verdict(self, compared: Comparison, key: str) -> Verdict:
        return verdict_within(compared, limit_of(key, self.suspicion.limits))

    def _with(self, ruling: Ruling, told: Comparison | Ruling) -> Ruling:
        return replace(ruling, ratio=told.ratio, low=told.low, high=told.high, comparison=self.comparison)

    @property
    def _around(self) -> str:
        """Return what is known of why a device is not as it was."""
        doubts = [caveat.words for caveat in self.suspicion.tonight.caveats if caveat in NIGHTS_DOUBTS]
        return "".join(f" ({word})" for word in (*doubts, self.suspicion.around) if word)


def _said(told: Comparison | Ruling, key: str) -> str:
    """Write a ratio with its interval: `it is 5.1 % slower (3.9 to 6.2 % slower)`."""
    words = directions(key)
    within = f" ({between(told.low, told.high, words)})" if told.low is not None and told.high is not None else ""
    return f"it is {change(told.ratio, words)}{within}"
