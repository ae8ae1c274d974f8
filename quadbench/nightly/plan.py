"""Plan: the file of a night -> its cases with both sides, and the devices of each, as far as each can be had at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts.night import Measurement
from quadbench.farm.farm_file import expected_phones
from quadbench.nightly.night_file import Case, Limits, NightFile, load_night_file
from quadbench.nightly.reading import NightReading
from quadbench.nightly.words import word_mistakes
from quadbench.results.layout import Layout
from quadbench.spec import refuse_in
from quadbench.study.chosen import Chosen


@dataclass(frozen=True, kw_only=True)
class PlannedCase:
    """A case as it is measured in a night: beside the yardstick (A) the case (B), on devices by the words of the file."""

    name: str
    yardstick: Chosen
    chosen: Chosen
    words: tuple[str, ...]
    limits: Limits
    owner: str | None
    quality: tuple[str, ...] = ()  # the metrics by which its pictures are scored

    @property
    def left_out(self) -> str | None:
        """Say which of its tasks are not measured, as they have nothing to run beside; None where all are."""
        alone = [task for task in self.chosen.tasks if task not in self.yardstick.tasks]
        return f"not measured, as the yardstick has no such tasks: {', '.join(alone)}" if alone else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a night measures, in how many blocks, and after what time nothing new is begun.

    `faults` says by case why it cannot be measured at all.
    """

    name: str  # of the file
    cases: tuple[PlannedCase, ...]
    pairs: tuple[tuple[str, str], ...]  # each case with each of its words, in the order of the file
    owners: dict[str, str | None]
    faults: dict[str, str]
    blocks: int
    budget_s: float | None


def planned(path: Path, layout: Layout, *, on_farm: bool = False) -> Plan:
    """Read the file of a night, and what its cases name. What is there and broken costs no other case.

    Raises:
        SpecError: all problems of the file, also what it names and what is not there; or farm.yaml is wrong.
    """
    file = load_night_file(path)
    reading = NightReading(file=file, folder=path.parent, layout=layout)
    sides = reading.sides()
    refuse_in(path, [*word_mistakes(file, expected_phones(), on_farm=on_farm), *reading.mistakes])
    return Plan(
        name=file.name,
        cases=tuple(_planned(case, file, *sides[case.name]) for case in file.cases if case.name in sides),
        pairs=tuple((case.name, word) for case in file.cases for word in file.devices_of(case)),
        owners={case.name: case.owner for case in file.cases},
        faults=reading.faults,
        blocks=file.blocks,
        budget_s=None if file.budget_h is None else file.budget_h * 3600,
    )


def lacking(case: PlannedCase, measured: Sequence[Measurement]) -> tuple[str, ...]:
    """Return the words of a case on whose devices a night has not measured it."""
    there = {one.address for one in measured if one.case == case.name}
    return tuple(word for word in case.words if word not in there)


def _planned(case: Case, file: NightFile, yardstick: Chosen, chosen: Chosen) -> PlannedCase:
    return PlannedCase(
        name=case.name,
        yardstick=yardstick,
        chosen=chosen,
        words=file.devices_of(case),
        limits=file.limits_of(case),
        owner=case.owner,
        quality=file.quality_of(case),
    )
