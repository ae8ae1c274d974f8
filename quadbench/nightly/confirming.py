"""Confirming: what the gate says of a night's measurements -> launches in turn with the last good files, and the rulings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from quadbench.artifacts import Bundle, Stored
from quadbench.artifacts.night import Measurement, Ruling, RulingKind, Subject
from quadbench.errors import QuadbenchError, StorageError
from quadbench.measure import Budget
from quadbench.nightly.figures import FigureName, is_exact, limit_of, tasks_of
from quadbench.nightly.judging import rulings_on
from quadbench.nightly.launcher import Launched, Launcher, Wanted, with_second_try
from quadbench.nightly.past import REMEMBERED
from quadbench.nightly.plan import PlannedCase
from quadbench.nightly.suspicion import Suspicion, suspicion
from quadbench.report.versus import ALL_TASKS, PRIMARY
from quadbench.results.nights import Nights
from quadbench.statistics import LOOKS, MIN_BLOCKS
from quadbench.study.chosen import Chosen
from quadbench.study.manner import Goal

Key = tuple[str, str]  # a case, and a device by its address


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A measurement with what the gate says of it, and the case that it is of."""

    case: PlannedCase
    said: Suspicion

    @property
    def tonight(self) -> Measurement:
        """Return the measurement."""
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
            is_unstored = isinstance(error, StorageError)
            launched[name, address] = Launched(case=name, word=address, why=str(error), is_unstored=is_unstored)
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
    nights.rule(_with_left_out(ruling, one.case.left_out) for ruling in rulings)


def is_unmeasured(ruling: Ruling) -> bool:
    """Say whether a ruling is that a case was not measured at all."""
    return ruling.kind is RulingKind.MISSING and ruling.task is None


def _with_left_out(ruling: Ruling, left_out: str | None) -> Ruling:
    """Say also of all figures together which tasks they leave out."""
    return replace(ruling, cause=f"{ruling.cause}; {left_out}") if left_out and ruling.task is None else ruling


def _said(tonight: Measurement, case: PlannedCase, nights: Nights) -> Suspicion:
    where = tonight.case, tonight.device
    history = [one for one in nights.series(*where, latest=REMEMBERED + 1) if one.measured_at < tonight.measured_at]
    before = {one.night for one in history}
    rulings = [ruling for ruling in nights.rulings_of(*where) if ruling.night in before]
    return suspicion(tonight, history, rulings, nights.acknowledgements(tonight.case), case.limits)


def _wanted(case: PlannedCase, last_good: Subject, tonight: Measurement, launcher: Launcher) -> Wanted:
    sides = (("last good", last_good), ("tonight", tonight.subject))
    a, b = (_chosen(case, what, subject, launcher) for what, subject in sides)
    return Wanted(case=case.name, a=a, b=b, words=(), looks=LOOKS, tasks=tasks_of(tonight))


def _chosen(case: PlannedCase, what: str, subject: Subject, launcher: Launcher) -> Chosen:
    """Return the files of a subject as a side that is measured as the case is."""
    bundle: Stored[Bundle] = launcher.bundle(subject.bundle)
    source = f"{case.name}, {what}"
    return replace(case.chosen, source=source, changes={}, recipe=None, run=None, bundle=bundle, kit=subject.kit)
