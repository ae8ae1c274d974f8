"""Performed: a night -> the same, with the nights of its cases before it and what these tell of the devices; how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

from quadbench.artifacts.night import Measurement, Night, Ruling
from quadbench.nightly.self_knowledge import RECENT, DeviceKnowledge, self_knowledge
from quadbench.report.night import AlarmRate, NightView, Series, night_view
from quadbench.results.nights import Nights


@dataclass(frozen=True, kw_only=True)
class Performed:
    """A night that was performed, with the series of its cases up to it, and what these tell of the devices."""

    night: Night
    series: Series
    devices: tuple[DeviceKnowledge, ...]

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
        return night_view(self.night, self.series, map(_rate, self.devices), where)


def _rate(known: DeviceKnowledge) -> AlarmRate:
    return AlarmRate(
        device=known.device, tries=known.tries, alarms=known.alarms, low=known.low, high=known.high, doubt=known.doubt
    )
