"""A stored night for its report: earlier nights of its cases, false alarms of each device, and the exit code."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, pairwise
from math import log1p
from statistics import fmean
from typing import Self

from quadbench.artifacts.night_record import Measurement, Night, Ruling, RulingKind
from quadbench.farm.health import put_on_probation
from quadbench.farm.inventory import Inventory
from quadbench.nightly.series import said_change, yardstick_places
from quadbench.report.night import WORST_FIRST, AlarmRate, NightView, Series, night_view
from quadbench.report.versus import PRIMARY
from quadbench.results.nights import Nights
from quadbench.statistics.change_points import spread_of
from quadbench.statistics.launch_comparison import interval_of_share

ERROR = 1
_EXIT_CODES = {
    RulingKind.REGRESSION: 2,
    RulingKind.INCONCLUSIVE: 3,
    RulingKind.MISSING: 4,
    RulingKind.ENVIRONMENT: 5,
    RulingKind.IMPROVEMENT: 0,
}
TOO_OFTEN = 0.05  # of tries that alarm, proven at 95 %
DRIFT = 0.05  # of the yardstick's time
RECENT = 60  # nights of a case
_BESIDE = 8  # nights at either end of what is held against each other
_BY_ACCIDENT = 0.001


def self_knowledge(measurements: Iterable[Measurement], rulings: Sequence[Ruling]) -> tuple[AlarmRate, ...]:
    """Return the false alarms of every device, by its name, in its recent nights of all cases, and why it should be looked at."""
    cases: dict[str, list[list[Measurement]]] = defaultdict(list)
    ordered = sorted(measurements, key=lambda night: (night.device, night.case, night.measured_at))
    for (device, _), nights in groupby(ordered, key=lambda night: (night.device, night.case)):
        cases[device].append(list(nights)[-RECENT:])
    alarms = {(r.night, r.case, r.device) for r in rulings if r.kind is RulingKind.ENVIRONMENT}
    return tuple(_known(device, of_device, alarms) for device, of_device in cases.items())


def doubt_devices(inventory: Inventory, known: Sequence[AlarmRate]) -> dict[str, str]:
    """Put phones of the inventory that should be looked at on probation; return the reason by device."""
    phones = {phone.seen.device for phone in inventory.phones()}
    doubts = {one.device: doubt for one in known if one.device in phones and (doubt := one.doubt)}
    for device, doubt in doubts.items():
        inventory.change(device, partial(put_on_probation, reason=doubt))
    return doubts


def _known(device: str, cases: Sequence[Sequence[Measurement]], alarms: set[tuple[str, str, str]]) -> AlarmRate:
    kept = ("subject", "yardstick", "environment")  # what did not change before a try
    pairs = [pair for nights in cases for pair in pairwise(nights)]
    tries = [now for before, now in pairs if all(getattr(before, name) == getattr(now, name) for name in kept)]
    nights: dict[str, list[bool]] = defaultdict(list)
    for one in tries:
        nights[one.night].append((one.night, one.case, one.device) in alarms)
    alarmed = sum(fmean(told) for told in nights.values())
    low, high = interval_of_share(alarmed, len(nights)) if nights else (None, None)
    count, drift, doubt = sum(map(sum, nights.values())), max(filter(None, map(_drift, cases)), key=abs, default=None), None
    if low is not None and low > TOO_OFTEN:
        doubt = f"it alarmed in {count} of {len(tries)} tries in which nothing had changed"
    elif drift:
        doubt = f"its yardstick drifts: it is {said_change(drift, PRIMARY)} now"
    return AlarmRate(device=device, tries=len(tries), alarms=count, low=low, high=high, doubt=doubt)


def _drift(nights: Sequence[Measurement]) -> float | None:
    """Return how the frozen reference bundle's time changed over the nights with the present environment, on its scale.

    None where that is no more than usual.
    """
    latest = nights[-1]
    alike = [night for night in nights if night.environment == latest.environment]
    places = [place for _, place in yardstick_places(alike, latest, PRIMARY)]
    spread = spread_of(places)
    if spread is None or len(places) < 2 * _BESIDE:
        return None
    return spread.change(places[:_BESIDE], places[-_BESIDE:], least=log1p(DRIFT), chance=_BY_ACCIDENT)


@dataclass(frozen=True, kw_only=True)
class Performed:
    """A night that was performed, with the series of its cases up to it, and what these tell of the devices."""

    night: Night
    series: Series
    devices: tuple[AlarmRate, ...]

    @classmethod
    def of(cls, night: Night, nights: Nights) -> Self:
        """Return a night with what else is known of its cases and devices."""
        told: list[Measurement | Ruling] = [*night.measurements, *night.rulings]
        places = sorted({(one.case, one.device) for one in told})
        series = {place: nights.series(*place, latest=RECENT, until=night) for place in places}
        rulings = [ruling for case in sorted({case for case, _ in places}) for ruling in nights.rulings_of(case)]
        return cls(night=night, series=series, devices=self_knowledge(chain.from_iterable(series.values()), rulings))

    def view(self, where: Sequence[str]) -> NightView:
        """Return the night as it is told; `where` are the words by which commands come to the results folder."""
        return night_view(self.night, self.series, self.devices, where)


def exit_code(night: Night) -> int:
    """Return the exit code of what counts most among a night's rulings: ERROR where that is 0 and a measurement has none."""
    kinds = {ruling.kind for ruling in night.rulings}
    ruled = {(ruling.case, ruling.device) for ruling in night.rulings}
    is_whole = all((one.case, one.device) in ruled for one in night.measurements)
    return next((_EXIT_CODES[kind] for kind in WORST_FIRST if kind in kinds), 0) or (0 if is_whole else ERROR)
