"""Execution of a nightly run: measure every case on every device, detect changes, confirm them, and store verdicts."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version

from quadbench.artifacts.night_record import Measurement, Point, Ruling, RulingKind, Subject
from quadbench.artifacts.run_record import RunScores
from quadbench.devices.lab.farm_file import expected_phones
from quadbench.errors import ArtifactError, QuadbenchError, UserError, requires_extra
from quadbench.host import file_lock, user_and_host
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly.launcher import NO_TIME, CaseRequest, CaseResult, Launcher, launch_with_retry, measurement_of
from quadbench.nightly.night_plan import NightPlan, PlannedCase, device_of, unmeasured_words
from quadbench.nightly.night_report import NightResult
from quadbench.nightly.series import MAX_NIGHTS, FigureName, limit_of, name_of, tasks_of, to_scale
from quadbench.nightly.verdicts import Detection, detect, missing_ruling, rulings_on
from quadbench.report.versus import ALL_TASKS, EXACT, PRIMARY
from quadbench.results.disk import storage_errors
from quadbench.results.engine import begin_read, database_now, database_of
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore
from quadbench.results.records import RecordStore, open_records
from quadbench.statistics import MIN_BLOCKS, Looks
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.run_comparison import Goal

Key = tuple[str, str]  # a case and a device address
_REFERENCE = "reference"  # name of the float reference in quality scores
_UNSCORED = "its images were not scored"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NightPictures:
    """The image quality scores of a night, computed once per run. `faults` maps (case, device's text in night.yaml) to a dict
    from (task, metric) to why the score is missing. It is not stored, so a resumed night starts with empty `faults`.
    """

    launcher: Launcher
    layout: Layout
    faults: dict[tuple[str, str], dict[FigureName, str]] = field(default_factory=dict)
    _runs: dict[str, RunScores | str] = field(default_factory=dict)

    def scores(self, measured: Measurement, painter: str | None, case: PlannedCase) -> tuple[Point, ...]:
        """Return a measurement's image quality scores as a tuple of Points. `painter` is the address of the generating device."""
        wanted = _wanted_metrics(measured, case)
        if not wanted:
            return ()
        scores = self._run_scores(measured.runs[1], measured.subject.bundle, case.quality)
        values = scores if isinstance(scores, str) else _values(scores, painter)
        points = {name: values if isinstance(values, str) else _point(name, values.get(name)) for name in wanted}
        self.faults[case.name, measured.address] = {name: why for name, why in points.items() if isinstance(why, str)}
        return tuple(point for point in points.values() if not isinstance(point, str))

    def missing_scores(self, measured: Measurement, case: PlannedCase) -> dict[FigureName, str]:
        """Return a dict from each image quality metric that a measurement lacks to the reason why its score is missing."""
        there, faults = {name_of(point) for point in measured.points}, self.faults.get((case.name, measured.address), {})
        return {name: faults.get(name, _UNSCORED) for name in _wanted_metrics(measured, case) if name not in there}

    def _run_scores(self, run_id: str, bundle: str, metrics: tuple[str, ...]) -> RunScores | str:
        """Return the quality scores of a run's images, computed once per run. If scoring fails, return the reason as text."""
        if run_id not in self._runs:
            try:
                with requires_extra("quad"):
                    from quadbench.quality import score_run
                self.launcher.bundle(bundle)  # fetches the bundle from a farm, as it has the reference images
                self._runs[run_id] = score_run(self.layout, run_id, metrics=metrics)
            except QuadbenchError as error:
                self._runs[run_id] = f"{_UNSCORED}: {error}"
        return self._runs[run_id]


def _wanted_metrics(measured: Measurement, case: PlannedCase) -> list[FigureName]:
    tasks = dict.fromkeys(point.task for point in measured.points if point.task != ALL_TASKS)
    return [(task, metric) for task in tasks for metric in case.quality]


def _values(scores: RunScores, painter: str | None) -> Mapping[FigureName, float | str]:
    of_case = (one for one in scores.compared if one.device == painter and one.made != _REFERENCE and one.against == _REFERENCE)
    return {(one.task, score.metric.name): score.value for one in of_case for score in one.scores}


def _point(name: FigureName, value: float | str | None) -> Point | str:
    """Return an image quality score as a Point. If the score is missing or not comparable between nights, return why as text."""
    if value is None or isinstance(value, str):
        return f"{_UNSCORED}: {value}" if value else _UNSCORED
    point = Point(task=name[0], key=name[1], value=value)
    return f"its score {value:g} cannot be tracked over nights" if to_scale(point) is None else point


@dataclass(frozen=True, kw_only=True)
class CaseNight:
    """A nightly case with one night's measurement. `detection` holds the measurement and the changes suspected in it."""

    case: PlannedCase
    detection: Detection

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Return Goals for alternating launches, one per suspected metric. Exclude file sizes, image scores, regressions that
        need no new launches, and metrics with too few nights to know a usual value. Add mean image time if any metric has too few
        or no Goal remains.
        """
        detection = self.detection
        names = {one.name for one in detection.suspects if not (one.settled or one.is_vague or one.key in EXACT)}
        if not names or any(one.is_vague for one in detection.suspects):
            names.add((ALL_TASKS, PRIMARY))
        return tuple(Goal(task=task, key=key, limit=limit_of(key, detection.limits)) for task, key in sorted(names))


def judge_measurements(night_id: str, cases: Sequence[PlannedCase], nights: NightStore) -> list[CaseNight]:
    """Detect suspected changes in a night's measurements that have no verdict yet. Return one CaseNight per measurement."""
    night, known = nights.night(night_id), {case.name: case for case in cases}
    ruled = {(ruling.case, ruling.device) for ruling in night.rulings if not is_unmeasured(ruling)}
    tonight = [one for one in night.measurements if one.case in known and (one.case, one.device) not in ruled]
    return [CaseNight(case=known[one.case], detection=_detect(one, known[one.case], nights)) for one in tonight]


def confirm_suspects(suspected: Sequence[CaseNight], launcher: Launcher, budget: Budget | None) -> dict[Key, CaseResult]:
    """Interleave launches of each suspected build with its last good build. Return {(case, device address): CaseResult}."""
    wanted, comparison = dict[tuple[str, Subject, Subject, tuple[str, ...]], CaseRequest](), dict[Key, CaseResult]()
    for one in suspected:
        name, address, last_good = one.case.name, one.detection.tonight.address, one.detection.last_good
        if last_good is None:
            continue
        key = name, last_good, one.detection.tonight.subject, tasks_of(one.detection.tonight)
        try:
            before = wanted.get(key) or _confirmation_request(one.case, last_good, one.detection.tonight, launcher)
        except QuadbenchError as error:  # the files were removed, or are not accessible
            comparison[name, address] = CaseResult.failed(name, address, error)
        else:
            goals = tuple(dict.fromkeys((*before.goals, *one.goals)))
            wanted[key] = replace(before, words=(*before.words, address), goals=goals)
    return comparison | {(one.case, one.word): one for one in launch_with_retry(launcher, list(wanted.values()), budget)}


def rule(one: CaseNight, comparison: CaseResult | None, lacking: Mapping[FigureName, str], nights: NightStore) -> None:
    """Store a measurement's verdicts. `comparison` tests the suspected changes. If it has too few launch blocks, ignore it, so
    the changes stay unconfirmed. `lacking` maps (task, metric) to the reason why the image score is missing.
    """
    versus = comparison.versus if comparison else None
    is_enough = versus is not None and versus.blocks >= MIN_BLOCKS
    rulings = rulings_on(
        replace(one.detection, missing={**one.detection.missing, **lacking}),
        confirmed=versus if is_enough else None,
        comparison=comparison.comparison if comparison and is_enough else None,
        owner=one.case.owner,
        now=datetime.now(UTC),
        why=comparison.reason if comparison else None,
    )
    left_out = f"; {one.case.left_out}" if one.case.left_out else ""  # named in the ruling on all figures
    nights.add(ruling if ruling.task is not None else replace(ruling, cause=f"{ruling.cause}{left_out}") for ruling in rulings)


def is_unmeasured(ruling: Ruling) -> bool:
    """Return whether a nightly verdict says that a case was not measured at all."""
    return ruling.kind is RulingKind.MISSING and ruling.task is None


def _detect(tonight: Measurement, case: PlannedCase, nights: NightStore) -> Detection:
    where = tonight.case, tonight.device
    history = [one for one in nights.series(*where, latest=MAX_NIGHTS + 1) if one.measured_at < tonight.measured_at]
    before = {one.night for one in history}
    rulings = [ruling for ruling in nights.rulings_of(*where) if ruling.night in before]
    return detect(tonight, history, rulings, nights.acknowledgements(tonight.case), case.limits)


def _confirmation_request(case: PlannedCase, last_good: Subject, tonight: Measurement, launcher: Launcher) -> CaseRequest:
    """Return a CaseRequest to compare the last good files (A) with tonight's (B) under the case's settings in night.yaml."""
    as_case = replace(case.side, changes={}, recipe=None, run=None)
    a, b = (
        replace(as_case, source=f"{case.name}, {what}", bundle=launcher.bundle(subject.bundle), kit=subject.kit)
        for what, subject in (("last good", last_good), ("tonight", tonight.subject))
    )
    return CaseRequest(case=case.name, a=a, b=b, words=(), looks=LOOKS, tasks=tasks_of(tonight))


def perform(night_id: str, plan: NightPlan, launcher: Launcher, *, layout: Layout) -> NightResult:
    """Perform a nightly run, or resume an interrupted one. A second run in the same folder waits for the first.

    Raises:
        StorageError, ArtifactError: the results folder or the database cannot be used, or is damaged.
        KeyboardInterrupt: Ctrl-C was pressed. Results are stored, and the night resumes when performed again.
    """
    with _exclusive_night(night_id, layout), open_records(database_of(layout)) as records:
        nights = NightStore(records.engine)
        night = nights.begin(night_id, plan.name, version("quadbench"), plan.pairs)
        budget = None
        if plan.budget_s is not None:  # counted from the first start of the night, by the database's clock
            with begin_read(records.engine) as connection:
                spent_s = (database_now(connection) - night.began_at).total_seconds()
            budget = Budget(ends_at=time.monotonic() + plan.budget_s - spent_s)
        under_way = _RunningNight(
            night_id=night_id,
            plan=plan,
            launcher=launcher,
            budget=budget,
            nights=nights,
            records=records,
            pictures=NightPictures(launcher=launcher, layout=layout),
        )
        under_way.measure(Looks(at=(plan.blocks,)))
        under_way.judge()
        under_way.rule_missing()
        nights.end(night_id)
        return NightResult.from_night(nights.night(night_id), nights)


@contextmanager
def _exclusive_night(night_id: str, layout: Layout) -> Iterator[None]:
    """Hold the lock for nightly runs in a results folder. If another run holds the lock, log that and wait."""
    with storage_errors(layout.root):
        layout.night(night_id).mkdir(parents=True, exist_ok=True)
    is_next = "%s is running in this results folder; this night starts when that one ends"
    itself = f"night {night_id}, by process {os.getpid()} of {user_and_host()},"
    with file_lock(layout.night_lock, itself, lambda holder: log.warning(is_next, holder)):
        yield


@dataclass(frozen=True, kw_only=True)
class _RunningNight:
    """A nightly run in progress. `causes` maps (case name, device as in night.yaml) to why a measurement is missing."""

    night_id: str
    plan: NightPlan
    launcher: Launcher
    budget: Budget | None
    nights: NightStore
    records: RecordStore
    pictures: NightPictures
    causes: dict[tuple[str, str], str] = field(default_factory=dict)

    def measure(self, looks: Looks) -> None:
        there = self.nights.night(self.night_id).measurements
        wanted = [
            CaseRequest(case=case.name, a=case.yardstick, b=case.side, words=words, looks=looks)
            for case in self.plan.cases
            if (words := tuple(unmeasured_words(case, there)))
        ]
        for comparison in launch_with_retry(self.launcher, wanted, self.budget):
            if why := comparison.reason or self._store_failure(comparison):
                self.causes[comparison.case, comparison.word] = why

    def judge(self) -> None:
        """Store verdicts on measurements that have none. First launch old and new files alternately to confirm suspected changes.

        If files for a confirmation are not accessible, no ruling is made: the night can be resumed later.
        """
        open_ones = judge_measurements(self.night_id, self.plan.cases, self.nights)
        comparison = confirm_suspects([one for one in open_ones if one.detection.to_confirm], self.launcher, self.budget)
        for one in open_ones:
            came = comparison.get((one.case.name, one.detection.tonight.address))
            if came and came.is_storage_failure:
                log.warning("case '%s' on '%s' gets no ruling: %s", one.case.name, one.detection.tonight.address, came.reason)
            else:
                rule(one, came, self.pictures.missing_scores(one.detection.tonight, one.case), self.nights)

    def rule_missing(self) -> None:
        """Store a MISSING verdict for each unmeasured case. Once a case is measured, replace its MISSING verdict with CLEAN."""
        night = self.nights.night(self.night_id)
        there = {(one.case, one.address): one for one in night.measurements}
        now = datetime.now(UTC)
        try:
            serials = {phone.name: phone.serial for phone in expected_phones()}
        except UserError as error:
            log.warning("phones are identified only by their names in the night file: %s", error)
            serials = {}
        unknown = f"{NO_TIME} it" if self.budget else "the night ended before it"
        rulings = [
            missing_ruling(
                self.night_id,
                case,
                device_of(word, self.nights.series(case, key=PRIMARY), serials),
                word,
                cause=self.plan.faults.get(case) or self.causes.get((case, word)) or unknown,
                owner=self.plan.owners[case],
                now=now,
            )
            for case, word in self.plan.pairs
            if (case, word) not in there
        ]
        over = [ruling for ruling in night.rulings if is_unmeasured(ruling) and (ruling.case, ruling.address) in there]
        back = [replace(one, kind=RulingKind.CLEAN, cause="it was measured later in this night", told_at=now) for one in over]
        self.nights.add([*rulings, *back])

    def _store_failure(self, comparison: CaseResult) -> str | None:
        """Store a comparison's measurement and image scores. Return why they could not be stored, or None if they were."""
        try:
            records = [record for run_id in comparison.runs for record in self.records.run_records(run_id)]
            (case,) = (one for one in self.plan.cases if one.name == comparison.case)
            measured = measurement_of(self.night_id, comparison, records, names_kit=case.side.kit is not None)
            scores = self.pictures.scores(measured, comparison.versus.device.address if comparison.versus else None, case)
            is_new = self.nights.store(replace(measured, points=(*measured.points, *scores)))
        except ArtifactError as error:
            return str(error)
        return None if is_new else f"'{measured.device}' was already measured under another name in the night file"
