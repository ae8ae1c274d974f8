"""Night view: a night with the series of its cases -> what people and machines are told of it, the worst first; pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.night import Measurement, Night, Ruling, RulingKind
from quadbench.report.night_findings import WORST_FIRST, NightFinding, Place, Series, changed, night_findings, once
from quadbench.report.night_words import counted, listed, words
from quadbench.report.units import plural

_MOST_DOUBTS = 3  # that the head of a report has
_KINDS = (*WORST_FIRST, RulingKind.CLEAN)
_COUNTED = (RulingKind.REGRESSION, RulingKind.IMPROVEMENT, *WORST_FIRST)  # what changed in either way, then what is not known


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

    device: str
    address: str
    cases: int
    clean: int
    wrong: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    environment: dict[str, tuple[str, str]]  # what changed of it since the night before, by name
    rate: AlarmRate | None

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what casts doubt on what it measured."""
        return (*(caveat.words for caveat in self.caveats), *_doubts(self.rate))


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

    def _counts(self) -> str:
        told = [counted(kind, self.counts[kind]) for kind in once((*_COUNTED, *self.counts)) if kind in self.counts]
        if self.open:
            told.append(f"{len(self.open)} not ruled, as the night goes on or was cut short")
        cases = plural(sum(self.counts.values()) + len(self.open), "case")
        return f"{cases} on devices, each counted by its worst figure: {', '.join(told)}."


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
    findings = tuple(
        replace(one, doubt=next(_doubts(known.get(one.place[1])), None))
        for one in night_findings((one for one in rulings if one.kind is not RulingKind.CLEAN), series, where)
    )
    clean = sorted((words(place[0]), addresses[place]) for place, kind in worst.items() if kind is RulingKind.CLEAN)
    devices = {device: address for (_, device), address in addresses.items()}
    return NightView(
        night=night,
        counts={kind: count for kind in _KINDS if (count := list(worst.values()).count(kind))},
        findings=findings,
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
                environment=_changes([nights for place, nights in series.items() if place[1] == device], night),
                rate=known.get(device),
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
