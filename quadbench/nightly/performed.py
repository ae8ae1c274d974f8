"""Performed: a night -> the same, with the latest nights of its cases on their devices and what these tell of the devices."""

from dataclasses import dataclass
from itertools import chain
from typing import Self

from quadbench.artifacts.night import Measurement, Night, Ruling
from quadbench.nightly.self_knowledge import RECENT, DeviceKnowledge, self_knowledge
from quadbench.report.night_findings import Series
from quadbench.results.nights import Nights


@dataclass(frozen=True, kw_only=True)
class Performed:
    """A night that was performed, with the series of its cases, and what is known of the devices."""

    night: Night
    series: Series
    devices: tuple[DeviceKnowledge, ...]

    @classmethod
    def of(cls, night: Night, nights: Nights) -> Self:
        """Return a night with what else is known of its cases and devices."""
        told: list[Measurement | Ruling] = [*night.measurements, *night.rulings]
        places = sorted({(one.case, one.device) for one in told})
        series = {place: nights.series(*place, latest=RECENT) for place in places}
        rulings = [ruling for case in sorted({case for case, _ in places}) for ruling in nights.rulings_of(case)]
        return cls(night=night, series=series, devices=self_knowledge(chain.from_iterable(series.values()), rulings))
