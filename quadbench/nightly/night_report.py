"""The data of a nightly report: the night's results, its cases' earlier nights, and the exit code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from quadbench.artifacts.night_record import Measurement, Night, Ruling, RulingKind
from quadbench.report.night import WORST_FIRST, NightView, Series, night_view
from quadbench.results.nights import NightStore

ERROR = 1
STANDING = 6  # exit code of a night whose regressions earlier nights told first
_EXIT_CODES = {
    RulingKind.REGRESSION: 2,
    RulingKind.INCONCLUSIVE: 3,
    RulingKind.MISSING: 4,
    RulingKind.ENVIRONMENT: 5,
    RulingKind.IMPROVEMENT: 0,
}
RECENT = 60  # latest nights of a case that are used


@dataclass(frozen=True, kw_only=True)
class NightResult:
    """The stored results of a night, with earlier nights of its cases."""

    night: Night
    series: Series

    @classmethod
    def from_night(cls, night: Night, nights: NightStore) -> Self:
        entries: list[Measurement | Ruling] = [*night.measurements, *night.rulings]
        places = sorted({(one.case, one.device) for one in entries})
        series = {place: nights.series(*place, latest=RECENT, until=night) for place in places}
        return cls(night=night, series=series)

    def view(self, where: Sequence[str]) -> NightView:
        """Return the nightly report's data. `where` is the `--results` option in the commands that the report suggests."""
        return night_view(self.night, self.series, where)


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
