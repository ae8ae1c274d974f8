"""The data of a nightly report: the night's results, its cases' earlier nights, devices' false alarm rates, and the exit code."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, pairwise
from math import log1p
from statistics import fmean
from typing import Self

from quadbench.artifacts.night_record import Measurement, Night, Ruling, RulingKind
from quadbench.devices.lab.health import put_on_probation
from quadbench.devices.lab.inventory import Inventory
from quadbench.nightly.series import change_text, yardstick_values
from quadbench.report.night import WORST_FIRST, AlarmRate, NightView, Series, night_view
from quadbench.report.versus import PRIMARY
from quadbench.results.nights import NightStore
from quadbench.statistics.change_points import spread_of
from quadbench.statistics.launch_comparison import share_interval

ERROR = 1
STANDING = 6  # exit code of a night whose regressions earlier nights told first
_EXIT_CODES = {
    RulingKind.REGRESSION: 2,
    RulingKind.INCONCLUSIVE: 3,
    RulingKind.MISSING: 4,
    RulingKind.ENVIRONMENT: 5,
    RulingKind.IMPROVEMENT: 0,
}
TOO_OFTEN = 0.05  # share of false alarms above which a device is doubtful, proven at 95 %
DRIFT = 0.05  # relative drift of the yardstick's time that matters
RECENT = 60  # latest nights of a case that are used
_BESIDE = 8  # nights at either end that are compared for a drift
_BY_ACCIDENT = 0.001


def alarm_rates(measurements: Iterable[Measurement], rulings: Sequence[Ruling]) -> tuple[AlarmRate, ...]:
    """Return one AlarmRate per device: how often an ENVIRONMENT verdict came on nights with unchanged files and environment."""
    cases: dict[str, list[list[Measurement]]] = defaultdict(list)
    ordered = sorted(measurements, key=lambda night: (night.device, night.case, night.measured_at))
    for (device, _), nights in groupby(ordered, key=lambda night: (night.device, night.case)):
        cases[device].append(list(nights)[-RECENT:])
    alarms = {(r.night, r.case, r.device) for r in rulings if r.kind is RulingKind.ENVIRONMENT}
    return tuple(_known(device, of_device, alarms) for device, of_device in cases.items())


def mark_doubtful(inventory: Inventory, known: Sequence[AlarmRate]) -> dict[str, str]:
    """Mark phones with drift or too many false alarms as unreliable (probation) in the inventory. Return {device: reason}."""
    phones = {phone.seen.device for phone in inventory.phones()}
    doubts = {one.device: doubt for one in known if one.device in phones and (doubt := one.doubt)}
    for device, doubt in doubts.items():
        inventory.change(device, partial(put_on_probation, reason=doubt))
    return doubts


def _known(device: str, cases: Sequence[Sequence[Measurement]], alarms: set[tuple[str, str, str]]) -> AlarmRate:
    kept = ("subject", "yardstick", "environment")  # a try is a night in which none of these changed
    pairs = [pair for nights in cases for pair in pairwise(nights)]
    tries = [now for before, now in pairs if all(getattr(before, name) == getattr(now, name) for name in kept)]
    nights: dict[str, list[bool]] = defaultdict(list)
    for one in tries:
        nights[one.night].append((one.night, one.case, one.device) in alarms)
    alarmed = sum(fmean(values) for values in nights.values())
    low, high = share_interval(alarmed, len(nights)) if nights else (None, None)
    count, drift, doubt = sum(map(sum, nights.values())), max(filter(None, map(_drift, cases)), key=abs, default=None), None
    if low is not None and low > TOO_OFTEN:
        doubt = f"it raised an alarm in {count} of {len(tries)} tries in which nothing had changed"
    elif drift:
        doubt = f"its yardstick has drifted: it is {change_text(drift, PRIMARY)} now"
    return AlarmRate(device=device, tries=len(tries), alarms=count, low=low, high=high, doubt=doubt)


def _drift(nights: Sequence[Measurement]) -> float | None:
    """Return the reference bundle's drift: log(median image time of its last 8 nights / of its first 8). Only nights with the
    latest environment count. Return None if the drift is small or not significant, or with fewer than 16 nights.
    """
    latest = nights[-1]
    alike = [night for night in nights if night.environment == latest.environment]
    places = [place for _, place in yardstick_values(alike, latest, PRIMARY)]
    spread = spread_of(places)
    if spread is None or len(places) < 2 * _BESIDE:
        return None
    return spread.change(places[:_BESIDE], places[-_BESIDE:], least=log1p(DRIFT), chance=_BY_ACCIDENT)


@dataclass(frozen=True, kw_only=True)
class NightResult:
    """The stored results of a night, with earlier nights of its cases and the false alarm rates of its devices."""

    night: Night
    series: Series
    devices: tuple[AlarmRate, ...]

    @classmethod
    def from_night(cls, night: Night, nights: NightStore) -> Self:
        entries: list[Measurement | Ruling] = [*night.measurements, *night.rulings]
        places = sorted({(one.case, one.device) for one in entries})
        series = {place: nights.series(*place, latest=RECENT, until=night) for place in places}
        rulings = [ruling for case in sorted({case for case, _ in places}) for ruling in nights.rulings_of(case)]
        return cls(night=night, series=series, devices=alarm_rates(chain.from_iterable(series.values()), rulings))

    def view(self, where: Sequence[str]) -> NightView:
        """Return the nightly report's data. `where` is the `--results` option in the commands that the report suggests."""
        return night_view(self.night, self.series, self.devices, where)


def exit_code(night: Night) -> int:
    """Return the exit code for a night's worst verdict. If this code is 0 but a measurement lacks a verdict, return ERROR (1). If
    the worst is REGRESSION, but no regression is new, return STANDING.
    """
    kinds = {ruling.kind for ruling in night.rulings}
    regressions = [ruling for ruling in night.rulings if ruling.kind is RulingKind.REGRESSION]
    if regressions and all(ruling.is_standing for ruling in regressions):
        return STANDING
    ruled = {(ruling.case, ruling.device) for ruling in night.rulings}
    is_whole = all((one.case, one.device) in ruled for one in night.measurements)
    return next((_EXIT_CODES[kind] for kind in WORST_FIRST if kind in kinds), 0) or (0 if is_whole else ERROR)
