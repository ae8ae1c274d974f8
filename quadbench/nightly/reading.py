"""Reading: the file of a night and the folder of results -> the two sides of each case, and all that is wrong with what it names.

A mistake is the file's own: it names what is not there, or asks for what cannot be. What is there and broken, as a recipe that
somebody has just changed, is a fault of the case, and costs no other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quadbench.errors import QuadbenchError, SpecError, UnknownNameError, UserError
from quadbench.kits.store import find
from quadbench.nightly.night_file import Case, Limits, NightFile
from quadbench.results.frozen import frozen_bundle
from quadbench.results.layout import Layout
from quadbench.spec import Location, Problem, is_file
from quadbench.study.chosen import Chosen, choose, require_common_tasks, require_variant

_LEAST_TASKS = 2  # between which something can be switched
Sides = tuple[Chosen, Chosen]  # the yardstick and the case


@dataclass(frozen=True, kw_only=True)
class NightReading:
    """The cases of a night's file as far as they can be read. `faults` are by case; problems of the file have their places."""

    file: NightFile
    folder: Path  # at which relative paths of the file start
    layout: Layout
    mistakes: list[Problem] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    _yardsticks: dict[str, Chosen | QuadbenchError] = field(default_factory=dict)  # by name, each read once

    def sides(self) -> dict[str, Sides]:
        """Return the sides of each case, by its name; what is wrong with others is in `mistakes` and `faults`."""
        self._yardstick(self.file.yardstick, ("yardstick",))
        read = {case.name: sides for number, case in enumerate(self.file.cases) if (sides := self._sides(case, number))}
        self.mistakes.extend(_vain(self.file, read))
        return read

    def _sides(self, case: Case, number: int) -> Sides | None:
        where = ("cases", number)
        chosen = self._chosen(case, where)
        yardstick = self._yardstick(self.file.yardstick_of(case), (*where, "yardstick") if case.yardstick else None)
        for side in (yardstick, chosen):
            if isinstance(side, QuadbenchError):
                self.faults.setdefault(case.name, str(side))
        if not (isinstance(yardstick, Chosen) and isinstance(chosen, Chosen)):
            return None
        try:
            called = (f"yardstick '{yardstick.source}'", f"case '{case.name}'")
            require_common_tasks(yardstick, chosen, called=called)
        except UserError as error:
            self.faults[case.name] = str(error)
            return None
        return yardstick, chosen

    def _chosen(self, case: Case, where: Location) -> Chosen | QuadbenchError:
        source = _source(case, self.folder)
        try:
            return _with_gear(choose(source, case.changes, self.layout), self.layout)
        except UserError as error:
            key, told = self._to_blame(source, error)
            if key:
                reasons = told.problems if isinstance(told, SpecError) else (str(told),)
                self.mistakes.extend(Problem(location=(*where, key), reason=reason) for reason in reasons)
            return told
        except QuadbenchError as error:
            return error

    def _to_blame(self, source: str, error: UserError) -> tuple[str | None, QuadbenchError]:
        """Say which key of a case has led to an error, and to which; None where what the source leads to is broken."""
        try:
            choose(source, {}, self.layout)
        except QuadbenchError as alone:
            is_there = not isinstance(alone, UnknownNameError) and Path(source).exists()
            return None if is_there else "source", alone
        return "changes", error

    def _yardstick(self, name: str, where: Location | None) -> Chosen | QuadbenchError:
        if name not in self._yardsticks:
            try:
                self._yardsticks[name] = Chosen(source=name, changes={}, bundle=frozen_bundle(name, self.layout))
            except QuadbenchError as error:
                self._yardsticks[name] = error
        told = self._yardsticks[name]
        if where and isinstance(told, UnknownNameError):
            self.mistakes.append(Problem(location=where, reason=str(told)))
        return told


def _source(case: Case, folder: Path) -> str:
    beside = folder / case.source
    return str(beside) if beside.exists() else case.source


def _with_gear(side: Chosen, layout: Layout) -> Chosen:
    """Return a side of which variant, kit and harness are there, as far as that can be told before it is built.

    Raises:
        UserError: one is not.
        ArtifactError: the kit is damaged.
    """
    require_variant(side, side.variants)
    if side.kit:
        find(side.kit, layout)
    if side.harness and not is_file(side.harness):
        raise UserError(f"the harness '{side.harness}' is no program", hint="name a file that quadbench harness build made")
    return side


def _vain(file: NightFile, read: Mapping[str, Sides]) -> Iterator[Problem]:
    """Yield the limits of figures that a case can never have; those of the file only where none of its cases can."""
    why = {case.name: dict(_never(file.quality_of(case), read[case.name])) for case in file.cases if case.name in read}
    for number, case in enumerate(file.cases):
        yield from _vain_limits(case.limits, ("cases", number, "limits"), [why.get(case.name, {})])
    others = [why.get(case.name, {}) for case in file.cases if not case.limits]
    yield from _vain_limits(file.limits, ("limits",), others)


def _vain_limits(limits: Limits | None, where: Location, cases: Sequence[Mapping[str, str]]) -> Iterator[Problem]:
    for key in sorted(limits.model_fields_set) if limits and cases else ():
        if all(key in why for why in cases):
            yield Problem(location=(*where, key), reason=cases[0][key])


def _never(quality: Iterable[str], sides: Sides) -> Iterator[tuple[str, str]]:
    """Yield the limits of figures that sides never have, each with the reason."""
    yardstick, case = sides
    if not case.has_references:
        yield "psnr_db", "its weights are random, so that its pictures have no reference; leave it out"
    if not quality:
        yield "quality", "no metric is asked for, so that there are no scores; add `quality`, as [ssim]"
    if len(set(yardstick.tasks) & set(case.tasks)) < _LEAST_TASKS:
        yield "switch", "a single task is measured, so that nothing is switched; leave it out"
