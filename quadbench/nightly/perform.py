"""Execution of a nightly run: measure every case on every device, detect changes, confirm them by launches, and rule."""

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
from quadbench.errors import ArtifactError, QuadbenchError, UserError, extra_needed
from quadbench.farm.farm_file import expected_phones
from quadbench.farm.inventory import Inventory
from quadbench.host import file_lock, user_and_host
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly.launcher import NO_TIME, Launched, Launcher, Wanted, measurement_of, with_second_try
from quadbench.nightly.night_plan import Plan, PlannedCase, device_of, lacking
from quadbench.nightly.night_report import Performed, doubt_devices
from quadbench.nightly.series import REMEMBERED, FigureName, limit_of, name_of, scaled, tasks_of
from quadbench.nightly.verdicts import Suspicion, missing, rulings_on, suspicion
from quadbench.report.versus import ALL_TASKS, EXACT, PRIMARY
from quadbench.results.disk import storing
from quadbench.results.engine import database_of, now_of, reading
from quadbench.results.layout import Layout
from quadbench.results.nights import Nights
from quadbench.results.records import Records, open_records
from quadbench.statistics import MIN_BLOCKS, Looks
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.comparison_side import Goal

Key = tuple[str, str]  # a case and a device address
_REFERENCE = "reference"  # name of the float reference in quality scores
_UNSCORED = "its pictures were not scored"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The image scores of a night. Images of a run are scored once, even if several devices painted them.

    `faults` maps case, device and figure to the reason of a missing score, since the last start.
    """

    launcher: Launcher
    layout: Layout
    faults: dict[tuple[str, str], dict[FigureName, str]] = field(default_factory=dict)
    _runs: dict[str, RunScores | str] = field(default_factory=dict)

    def scored(self, measured: Measurement, painter: str | None, case: PlannedCase) -> tuple[Point, ...]:
        """Return the scores of a measurement's images, which the device with the address `painter` painted."""
        wanted = _wanted_metrics(measured, case)
        if not wanted:
            return ()
        scores = self._of_run(measured.runs[1], measured.subject.bundle, case.quality)
        values = scores if isinstance(scores, str) else _values(scores, painter)
        told = {name: values if isinstance(values, str) else _point(name, values.get(name)) for name in wanted}
        self.faults[case.name, measured.address] = {name: why for name, why in told.items() if isinstance(why, str)}
        return tuple(point for point in told.values() if not isinstance(point, str))

    def lacking(self, measured: Measurement, case: PlannedCase) -> dict[FigureName, str]:
        """Return the reason for each score that a measurement lacks, by figure."""
        there, faults = {name_of(point) for point in measured.points}, self.faults.get((case.name, measured.address), {})
        return {name: faults.get(name, _UNSCORED) for name in _wanted_metrics(measured, case) if name not in there}

    def _of_run(self, run_id: str, bundle: str, metrics: tuple[str, ...]) -> RunScores | str:
        """Score the images of a run of a bundle, once; return the reason if that fails."""
        if run_id not in self._runs:
            try:
                with extra_needed("quality"):
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
    """Return a score as a figure that can be tracked over nights, or the reason why it cannot."""
    if value is None or isinstance(value, str):
        return f"{_UNSCORED}: {value}" if value else _UNSCORED
    point = Point(task=name[0], key=name[1], value=value)
    return f"its score is {value:g}, which cannot be followed" if scaled(point) is None else point


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A measurement's case, and the changes that the detector suspects in it."""

    case: PlannedCase
    said: Suspicion

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Return the figures that a confirmation must decide, with the image time if a suspicion is vague."""
        said = self.said
        names = {one.name for one in said.suspects if not (one.known or one.is_vague or one.key in EXACT)}
        if not names or any(one.is_vague for one in said.suspects):
            names.add((ALL_TASKS, PRIMARY))
        return tuple(Goal(task=task, key=key, limit=limit_of(key, said.limits)) for task, key in sorted(names))


def judged(night_id: str, cases: Sequence[PlannedCase], nights: Nights) -> list[Judged]:
    """Return the suspected changes of each measurement of a night that has no ruling yet."""
    night, known = nights.night(night_id), {case.name: case for case in cases}
    ruled = {(ruling.case, ruling.device) for ruling in night.rulings if not is_unmeasured(ruling)}
    tonight = [one for one in night.measurements if one.case in known and (one.case, one.device) not in ruled]
    return [Judged(case=known[one.case], said=_said(one, known[one.case], nights)) for one in tonight]


def confirmed(suspected: Sequence[Judged], launcher: Launcher, budget: Budget | None) -> dict[Key, Launched]:
    """Interleave launches of suspected cases with the last good files; return the results by case and address."""
    wanted, launched = dict[tuple[str, Subject, Subject, tuple[str, ...]], Wanted](), dict[Key, Launched]()
    for one in suspected:
        name, address, last_good = one.case.name, one.said.tonight.address, one.said.last_good
        if last_good is None:
            continue
        key = name, last_good, one.said.tonight.subject, tasks_of(one.said.tonight)
        try:
            before = wanted.get(key) or _wanted(one.case, last_good, one.said.tonight, launcher)
        except QuadbenchError as error:  # the files were removed, or are not accessible
            launched[name, address] = Launched.failed(name, address, error)
        else:
            goals = tuple(dict.fromkeys((*before.goals, *one.goals)))
            wanted[key] = replace(before, words=(*before.words, address), goals=goals)
    return launched | {(one.case, one.word): one for one in with_second_try(launcher, list(wanted.values()), budget)}


def rule(one: Judged, launched: Launched | None, lacking: Mapping[FigureName, str], nights: Nights) -> None:
    """Rule on a measurement and store all rulings together. A comparison with too few blocks confirms nothing.

    `lacking` maps a figure to the reason of its missing score.
    """
    versus = launched.versus if launched else None
    is_enough = versus is not None and versus.blocks >= MIN_BLOCKS
    rulings = rulings_on(
        replace(one.said, lost={**one.said.lost, **lacking}),
        confirmed=versus if is_enough else None,
        comparison=launched.comparison if launched and is_enough else None,
        owner=one.case.owner,
        now=datetime.now(UTC),
        why=launched.why if launched else None,
    )
    left_out = f"; {one.case.left_out}" if one.case.left_out else ""  # named in the ruling on all figures
    nights.rule(ruling if ruling.task is not None else replace(ruling, cause=f"{ruling.cause}{left_out}") for ruling in rulings)


def is_unmeasured(ruling: Ruling) -> bool:
    """Return whether a ruling says that a case was not measured at all."""
    return ruling.kind is RulingKind.MISSING and ruling.task is None


def _said(tonight: Measurement, case: PlannedCase, nights: Nights) -> Suspicion:
    where = tonight.case, tonight.device
    history = [one for one in nights.series(*where, latest=REMEMBERED + 1) if one.measured_at < tonight.measured_at]
    before = {one.night for one in history}
    rulings = [ruling for ruling in nights.rulings_of(*where) if ruling.night in before]
    return suspicion(tonight, history, rulings, nights.acknowledgements(tonight.case), case.limits)


def _wanted(case: PlannedCase, last_good: Subject, tonight: Measurement, launcher: Launcher) -> Wanted:
    """Return a comparison of the last good files with tonight's files, measured like the case itself."""
    as_case = replace(case.chosen, changes={}, recipe=None, run=None)
    a, b = (
        replace(as_case, source=f"{case.name}, {what}", bundle=launcher.bundle(subject.bundle), kit=subject.kit)
        for what, subject in (("last good", last_good), ("tonight", tonight.subject))
    )
    return Wanted(case=case.name, a=a, b=b, words=(), looks=LOOKS, tasks=tasks_of(tonight))


def perform(night_id: str, plan: Plan, launcher: Launcher, *, layout: Layout) -> Performed:
    """Perform a nightly run, or resume it: results that are stored stay. Of several started at once, one waits.

    Raises:
        StorageError, ArtifactError: the results folder or the database cannot be used, or is damaged.
        KeyboardInterrupt: Ctrl-C was pressed. Results are stored, and the night resumes when performed again.
    """
    with _alone(night_id, layout), open_records(database_of(layout)) as records:
        nights = Nights(records.engine)
        night = nights.begin(night_id, plan.name, version("quadbench"), plan.pairs)
        budget = None
        if plan.budget_s is not None:  # counted from the first start of the night, by the database's clock
            with reading(records.engine) as connection:
                spent_s = (now_of(connection) - night.began_at).total_seconds()
            budget = Budget(ends_at=time.monotonic() + plan.budget_s - spent_s)
        under_way = _UnderWay(
            night_id=night_id,
            plan=plan,
            launcher=launcher,
            budget=budget,
            nights=nights,
            records=records,
            pictures=Pictures(launcher=launcher, layout=layout),
        )
        under_way.measure(Looks(at=(plan.blocks,)))
        under_way.judge()
        under_way.tell_missing()
        nights.end(night_id)
        performed = Performed.of(nights.night(night_id), nights)
        there = {one.device for one in performed.night.measurements}
        doubt_devices(Inventory(records.engine), [one for one in performed.devices if one.device in there])
        return performed


@contextmanager
def _alone(night_id: str, layout: Layout) -> Iterator[None]:
    """Hold the lock of a results folder. If another nightly run holds it, log that and wait."""
    with storing(layout.root):
        layout.night(night_id).mkdir(parents=True, exist_ok=True)
    is_next = "%s is under way in this results folder; this one begins when that has ended"
    itself = f"night {night_id}, by process {os.getpid()} of {user_and_host()},"
    with file_lock(layout.night_lock, itself, lambda holder: log.warning(is_next, holder)):
        yield


@dataclass(frozen=True, kw_only=True)
class _UnderWay:
    """A nightly run in progress. `causes` maps case and device to the reason of a missing measurement."""

    night_id: str
    plan: Plan
    launcher: Launcher
    budget: Budget | None
    nights: Nights
    records: Records
    pictures: Pictures
    causes: dict[tuple[str, str], str] = field(default_factory=dict)

    def measure(self, looks: Looks) -> None:
        there = self.nights.night(self.night_id).measurements
        wanted = [
            Wanted(case=case.name, a=case.yardstick, b=case.chosen, words=words, looks=looks)
            for case in self.plan.cases
            if (words := tuple(lacking(case, there)))
        ]
        for launched in with_second_try(self.launcher, wanted, self.budget):
            if why := launched.why or self._kept(launched):
                self.causes[launched.case, launched.word] = why

    def judge(self) -> None:
        """Rule on each measurement without a ruling; suspected changes are first confirmed by launches.

        If files for a confirmation are not accessible, no ruling is made: the night can be resumed later.
        """
        open_ones = judged(self.night_id, self.plan.cases, self.nights)
        launched = confirmed([one for one in open_ones if one.said.to_confirm], self.launcher, self.budget)
        for one in open_ones:
            came = launched.get((one.case.name, one.said.tonight.address))
            if came and came.is_unstored:
                log.warning("case '%s' on '%s' is not ruled on: %s", one.case.name, one.said.tonight.address, came.why)
            else:
                rule(one, came, self.pictures.lacking(one.said.tonight, one.case), self.nights)

    def tell_missing(self) -> None:
        """Store MISSING rulings for unmeasured cases, and withdraw those of cases that were measured since."""
        night = self.nights.night(self.night_id)
        there = {(one.case, one.address): one for one in night.measurements}
        now = datetime.now(UTC)
        try:
            serials = {phone.name: phone.serial for phone in expected_phones()}
        except UserError as error:
            log.warning("phones are told by the words of the night's file: %s", error)
            serials = {}
        rulings = [
            missing(
                self.night_id,
                case,
                device_of(word, self.nights.series(case, key=PRIMARY), serials),
                word,
                cause=self.plan.faults.get(case) or self.causes.get((case, word)) or f"{NO_TIME} it",
                owner=self.plan.owners[case],
                now=now,
            )
            for case, word in self.plan.pairs
            if (case, word) not in there
        ]
        over = [ruling for ruling in night.rulings if is_unmeasured(ruling) and (ruling.case, ruling.address) in there]
        back = [replace(one, kind=RulingKind.CLEAN, cause="it was measured later in this night", told_at=now) for one in over]
        self.nights.rule([*rulings, *back])

    def _kept(self, launched: Launched) -> str | None:
        """Store the measurement of a comparison with its scores; return the reason if that fails."""
        try:
            records = [record for run_id in launched.runs for record in self.records.of_run(run_id)]
            (case,) = (one for one in self.plan.cases if one.name == launched.case)
            measured = measurement_of(self.night_id, launched, records, names_kit=case.chosen.kit is not None)
            scores = self.pictures.scored(measured, launched.versus.device.address if launched.versus else None, case)
            is_new = self.nights.keep(replace(measured, points=(*measured.points, *scores)))
        except ArtifactError as error:
            return str(error)
        return None if is_new else f"'{measured.device}' is the device of another word too, under which it was measured"
