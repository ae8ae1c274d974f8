"""Self-knowledge: the nights of all cases and what was ruled -> how often each device alarms though nothing changed, and drifts.

A try is a case on a device whose files, yardstick and environment are those of the night before. Nothing changed there that is
known of, so that an ENVIRONMENT on it is a false alarm, or a device that nobody can measure on. What befalls a device in a night
befalls all of its cases, so that nights are what is independent: each has its share of alarms among its tries.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from math import expm1, log1p
from statistics import fmean

from quadbench.artifacts.night import Measurement, Ruling, RulingKind
from quadbench.farm.health import put_on_probation
from quadbench.farm.inventory import Inventory
from quadbench.nightly.figures import said_change
from quadbench.nightly.yardstick import yardstick_places
from quadbench.report.versus import PRIMARY
from quadbench.statistics import interval_of_share, spread_of

TOO_OFTEN = 0.05  # of tries that alarm, proven at 95 %
DRIFT = 0.05  # of the yardstick's time
RECENT = 60  # nights of a case
_BESIDE = 8  # nights at either end of what is held against each other
_BY_ACCIDENT = 0.001


@dataclass(frozen=True, kw_only=True)
class DeviceKnowledge:
    """The trust that a device has earned: `alarms` in so many `tries`, and the interval of that share at 95 %, over its nights.

    `low` and `high` are None where there were no tries; `drift` is the change of the yardstick's time over the nights whose
    environment was as it is now, None where that is no more than usual.
    """

    device: str
    address: str
    tries: int
    alarms: int
    low: float | None
    high: float | None
    drift: float | None

    @property
    def doubt(self) -> str | None:
        """Say why the device should be looked at; None where it can be trusted."""
        if self.low is not None and self.low > TOO_OFTEN:
            return f"it alarmed in {self.alarms} of {self.tries} tries in which nothing had changed"
        return f"its yardstick drifts: it is {said_change(log1p(self.drift), PRIMARY)} now" if self.drift else None


def self_knowledge(measurements: Iterable[Measurement], rulings: Sequence[Ruling]) -> tuple[DeviceKnowledge, ...]:
    """Return what is known of every device, by its name, from its recent nights of all cases."""
    cases: dict[str, list[list[Measurement]]] = defaultdict(list)
    ordered = sorted(measurements, key=lambda night: (night.device, night.case, night.measured_at))
    for (device, _), nights in groupby(ordered, key=lambda night: (night.device, night.case)):
        cases[device].append(list(nights)[-RECENT:])
    alarms = {(r.night, r.case, r.device) for r in rulings if r.kind is RulingKind.ENVIRONMENT}
    return tuple(_known(device, of_device, alarms) for device, of_device in cases.items())


def doubt_devices(inventory: Inventory, known: Sequence[DeviceKnowledge]) -> dict[str, str]:
    """Put phones of the inventory that should be looked at on probation; return the reason by device."""
    phones = {phone.seen.device for phone in inventory.phones()}
    doubts = {one.device: doubt for one in known if one.device in phones and (doubt := one.doubt)}
    for device, doubt in doubts.items():
        inventory.change(device, partial(put_on_probation, reason=doubt))
    return doubts


def _known(device: str, cases: Sequence[Sequence[Measurement]], alarms: set[tuple[str, str, str]]) -> DeviceKnowledge:
    tries = [night for nights in cases for night in _tries(nights)]
    nights: dict[str, list[bool]] = defaultdict(list)
    for one in tries:
        nights[one.night].append((one.night, one.case, one.device) in alarms)
    alarmed = sum(fmean(told) for told in nights.values())
    low, high = interval_of_share(alarmed, len(nights)) if nights else (None, None)
    drifts = [drift for nights in cases if (drift := _drift(nights))]
    return DeviceKnowledge(
        device=device,
        address=cases[0][-1].address,
        tries=len(tries),
        alarms=sum(map(sum, nights.values())),
        low=low,
        high=high,
        drift=max(drifts, key=abs, default=None),
    )


def _tries(nights: Sequence[Measurement]) -> Iterator[Measurement]:
    for before, night in pairwise(nights):
        if all(getattr(before, name) == getattr(night, name) for name in ("subject", "yardstick", "environment")):
            yield night


def _drift(nights: Sequence[Measurement]) -> float | None:
    latest = nights[-1]
    alike = [night for night in nights if night.environment == latest.environment]
    places = [place for _, place in yardstick_places(alike, latest, PRIMARY)]
    spread = spread_of(places)
    if spread is None or len(places) < 2 * _BESIDE:
        return None
    change = spread.change(places[:_BESIDE], places[-_BESIDE:], least=log1p(DRIFT), chance=_BY_ACCIDENT)
    return None if change is None else expm1(change)
