"""Pictures: what a case painted in a night -> its scores by the metrics that the file asks for, or why there are none."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quadbench.artifacts.night import Measurement, Point
from quadbench.artifacts.scores import RunScores
from quadbench.errors import QuadbenchError, extra_needed
from quadbench.nightly.figures import FigureName, name_of, scaled
from quadbench.nightly.launcher import Launcher
from quadbench.nightly.plan import PlannedCase
from quadbench.report.versus import ALL_TASKS
from quadbench.results.layout import Layout

_REFERENCE = "reference"  # the float reference, as quality calls it
_UNSCORED = "its pictures were not scored"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of a night. Those of a run are scored once, on however many devices they were painted.

    `faults` says by case, word for a device and figure why there is no score, as far as that was tried since this start.
    """

    launcher: Launcher
    layout: Layout
    faults: dict[tuple[str, str], dict[FigureName, str]] = field(default_factory=dict)
    _runs: dict[str, RunScores | str] = field(default_factory=dict)

    def scored(self, measured: Measurement, painter: str | None, case: PlannedCase) -> tuple[Point, ...]:
        """Return the scores of what the device with the address `painter` painted; the same files paint the same."""
        wanted = _wanted(measured, case)
        if not wanted:
            return ()
        scores = self._of_run(measured.runs[1], measured.subject.bundle, case.quality)
        values = scores if isinstance(scores, str) else _values(scores, painter)
        told = {name: values if isinstance(values, str) else _point(name, values.get(name)) for name in wanted}
        self.faults[case.name, measured.address] = {name: why for name, why in told.items() if isinstance(why, str)}
        return tuple(point for point in told.values() if not isinstance(point, str))

    def lacking(self, measured: Measurement, case: PlannedCase) -> dict[FigureName, str]:
        """Return by figure why a measurement has no score that the file asks for."""
        there, faults = {name_of(point) for point in measured.points}, self.faults.get((case.name, measured.address), {})
        return {name: faults.get(name, _UNSCORED) for name in _wanted(measured, case) if name not in there}

    def _of_run(self, run_id: str, bundle: str, metrics: tuple[str, ...]) -> RunScores | str:
        """Score the pictures of a run of a bundle, which are kept beside it; where that cannot be, say why."""
        if run_id not in self._runs:
            try:
                with extra_needed("quality"):
                    from quadbench.quality import score_run
                self.launcher.bundle(bundle)  # a farm's is fetched: it has the references
                self._runs[run_id] = score_run(self.layout, run_id, metrics=metrics)
            except QuadbenchError as error:
                self._runs[run_id] = f"{_UNSCORED}: {error}"
        return self._runs[run_id]


def _wanted(measured: Measurement, case: PlannedCase) -> list[FigureName]:
    tasks = dict.fromkeys(point.task for point in measured.points if point.task != ALL_TASKS)
    return [(task, metric) for task in tasks for metric in case.quality]


def _values(scores: RunScores, painter: str | None) -> Mapping[FigureName, float | str]:
    of_case = (one for one in scores.compared if one.device == painter and one.made != _REFERENCE and one.against == _REFERENCE)
    return {(one.task, score.metric.name): score.value for one in of_case for score in one.scores}


def _point(name: FigureName, value: float | str | None) -> Point | str:
    """Return a score that can be followed from night to night; else why there is none."""
    if value is None or isinstance(value, str):
        return f"{_UNSCORED}: {value}" if value else _UNSCORED
    point = Point(task=name[0], key=name[1], value=value)
    return f"its score is {value:g}, which cannot be followed" if scaled(point) is None else point
