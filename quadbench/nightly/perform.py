"""A night: every case of a plan measured on every device, judged, confirmed by launches in turn, and ruled on."""

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
from quadbench.nightly.series import REMEMBERED, FigureName, is_exact, limit_of, name_of, scaled, tasks_of
from quadbench.nightly.verdicts import Suspicion, missing, rulings_on, suspicion
from quadbench.report.versus import ALL_TASKS, PRIMARY
from quadbench.results.disk import storing
from quadbench.results.engine import database_of, now_of, reading
from quadbench.results.layout import Layout
from quadbench.results.nights import Nights
from quadbench.results.records import Records, open_records
from quadbench.statistics import MIN_BLOCKS, Looks
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.comparison_side import Goal

Key = tuple[str, str]  # a case, and a device by its address
_REFERENCE = "reference"  # the float reference, as quality calls it
_UNSCORED = "its pictures were not scored"

log = logging.getLogger(__name__)


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
        wanted = _wanted_metrics(measured, case)
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
        return {name: faults.get(name, _UNSCORED) for name in _wanted_metrics(measured, case) if name not in there}

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


def _wanted_metrics(measured: Measurement, case: PlannedCase) -> list[FigureName]:
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


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A measurement with what the gate says of it, and the case that it is of."""

    case: PlannedCase
    said: Suspicion

    @property
    def tonight(self) -> Measurement:
        return self.said.tonight

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Return the figures of which a confirmation shall tell whether they changed; for vague ones, the time for an image."""
        said = self.said
        names = {one.name for one in said.suspects if not (one.known or one.is_vague or is_exact(one.key))}
        if not names or any(one.is_vague for one in said.suspects):
            names.add((ALL_TASKS, PRIMARY))
        return tuple(Goal(task=task, key=key, limit=limit_of(key, said.limits)) for task, key in sorted(names))


def judged(night_id: str, cases: Sequence[PlannedCase], nights: Nights) -> list[Judged]:
    """Return what the gate says of each measurement of a night on which nothing was ruled yet."""
    night, known = nights.night(night_id), {case.name: case for case in cases}
    ruled = {(ruling.case, ruling.device) for ruling in night.rulings if not is_unmeasured(ruling)}
    tonight = [one for one in night.measurements if one.case in known and (one.case, one.device) not in ruled]
    return [Judged(case=known[one.case], said=_said(one, known[one.case], nights)) for one in tonight]


def confirmed(suspected: Sequence[Judged], launcher: Launcher, budget: Budget | None) -> dict[Key, Launched]:
    """Have what is suspected launched in turn with the last good files; return what came of it by case and address."""
    wanted, launched = dict[tuple[str, Subject, Subject, tuple[str, ...]], Wanted](), dict[Key, Launched]()
    for one in suspected:
        name, address, last_good = one.case.name, one.tonight.address, one.said.last_good
        if last_good is None:
            continue
        key = name, last_good, one.tonight.subject, tasks_of(one.tonight)
        try:
            before = wanted.get(key) or _wanted(one.case, last_good, one.tonight, launcher)
        except QuadbenchError as error:  # the files are not there any more, or cannot be reached
            launched[name, address] = Launched.failed(name, address, error)
        else:
            goals = tuple(dict.fromkeys((*before.goals, *one.goals)))
            wanted[key] = replace(before, words=(*before.words, address), goals=goals)
    return launched | {(one.case, one.word): one for one in with_second_try(launcher, list(wanted.values()), budget)}


def rule(one: Judged, launched: Launched | None, lacking: Mapping[FigureName, str], nights: Nights) -> None:
    """Rule on a measurement, and store the rulings, all or none. What was launched in too few blocks confirms nothing.

    `lacking` says by figure why what the file asks for is not there.
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
    left_out = f"; {one.case.left_out}" if one.case.left_out else ""  # of which the ruling on all figures says so
    nights.rule(ruling if ruling.task is not None else replace(ruling, cause=f"{ruling.cause}{left_out}") for ruling in rulings)


def is_unmeasured(ruling: Ruling) -> bool:
    """Say whether a ruling is that a case was not measured at all."""
    return ruling.kind is RulingKind.MISSING and ruling.task is None


def _said(tonight: Measurement, case: PlannedCase, nights: Nights) -> Suspicion:
    where = tonight.case, tonight.device
    history = [one for one in nights.series(*where, latest=REMEMBERED + 1) if one.measured_at < tonight.measured_at]
    before = {one.night for one in history}
    rulings = [ruling for ruling in nights.rulings_of(*where) if ruling.night in before]
    return suspicion(tonight, history, rulings, nights.acknowledgements(tonight.case), case.limits)


def _wanted(case: PlannedCase, last_good: Subject, tonight: Measurement, launcher: Launcher) -> Wanted:
    """Return the launches of the last good files and of tonight's as sides that are measured as the case is."""
    as_case = replace(case.chosen, changes={}, recipe=None, run=None)
    a, b = (
        replace(as_case, source=f"{case.name}, {what}", bundle=launcher.bundle(subject.bundle), kit=subject.kit)
        for what, subject in (("last good", last_good), ("tonight", tonight.subject))
    )
    return Wanted(case=case.name, a=a, b=b, words=(), looks=LOOKS, tasks=tasks_of(tonight))


def perform(night_id: str, plan: Plan, launcher: Launcher, *, layout: Layout) -> Performed:
    """Perform a night, or go on with it: what was measured or ruled on stays. Of several that do so at once, one waits.

    Raises:
        StorageError, ArtifactError: the results folder or the database cannot be used, or is damaged.
        KeyboardInterrupt: Ctrl-C; what was measured is stored, and performed again the night goes on.
    """
    with _alone(night_id, layout), open_records(database_of(layout)) as records:
        nights = Nights(records.engine)
        night = nights.begin(night_id, plan.name, version("quadbench"), plan.pairs)
        budget = None
        if plan.budget_s is not None:  # it counts from when the night first began, by the database's clock
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
    """Keep other nights out of a results folder. Where one is under way there, say so, and wait."""
    with storing(layout.root):
        layout.night(night_id).mkdir(parents=True, exist_ok=True)
    is_next = "%s is under way in this results folder; this one begins when that has ended"
    itself = f"night {night_id}, by process {os.getpid()} of {user_and_host()},"
    with file_lock(layout.night_lock, itself, lambda holder: log.warning(is_next, holder)):
        yield


@dataclass(frozen=True, kw_only=True)
class _UnderWay:
    """A night under way. `causes` says why a case was not measured on a device, by the words of the file."""

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
        """Rule on each measurement on which nothing was ruled yet; what the gate suspects is confirmed before.

        Where the files for that cannot be reached or written, nothing is ruled: the night can go on once they can.
        """
        open_ones = judged(self.night_id, self.plan.cases, self.nights)
        launched = confirmed([one for one in open_ones if one.said.to_confirm], self.launcher, self.budget)
        for one in open_ones:
            came = launched.get((one.case.name, one.tonight.address))
            if came and came.is_unstored:
                log.warning("case '%s' on '%s' is not ruled on: %s", one.case.name, one.tonight.address, came.why)
            else:
                rule(one, came, self.pictures.lacking(one.tonight, one.case), self.nights)

    def tell_missing(self) -> None:
        """Rule on what was not measured, and take back what was ruled so and was measured since."""
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
        """Keep what was measured; where that cannot be, say why."""
        try:
            records = [record for run_id in launched.runs for record in self.records.of_run(run_id)]
            (case,) = (one for one in self.plan.cases if one.name == launched.case)
            measured = measurement_of(self.night_id, launched, records, names_kit=case.chosen.kit is not None)
            scores = self.pictures.scored(measured, launched.versus.device.address if launched.versus else None, case)
            is_new = self.nights.keep(replace(measured, points=(*measured.points, *scores)))
        except ArtifactError as error:
            return str(error)
        return None if is_new else f"'{measured.device}' is the device of another word too, under which it was measured"
