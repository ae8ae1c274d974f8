"""Plan: the file of a night -> its cases with both sides, and the devices of each, as far as each can be had at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts.night import Measurement
from quadbench.devices.addresses import LocalAddress, VirtualAddress, parse_address, virtual_serial
from quadbench.errors import QuadbenchError, UserError
from quadbench.farm.farm_file import expected_phones
from quadbench.farm.leases import lease_name
from quadbench.farm.selection import parse_wish
from quadbench.nightly.night_file import Case, Limits, NightFile
from quadbench.results.frozen import frozen_bundle
from quadbench.results.layout import Layout
from quadbench.study.chosen import Chosen, choose, require_common_tasks
from quadbench.target.profile import LOCAL_NAME, load_profile


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


def planned(file: NightFile, folder: Path, layout: Layout) -> Plan:
    """Read what the cases of a file name, whose relative paths start at a folder. A case that is wrong costs no other.

    Raises:
        UserError: a word for devices means any of several: a history is that of one device.
        SpecError: farm.yaml, whose labels such words may name, is wrong.
    """
    cases, faults = [], {}
    label_keys = tuple({key for phone in expected_phones() for key in phone.labels})
    for case in file.cases:
        _refuse_wishes(file.devices_of(case), label_keys)
        try:
            cases.append(_planned(case, file, folder, layout))
        except QuadbenchError as error:
            faults[case.name] = str(error)
    return Plan(
        name=file.name,
        cases=tuple(cases),
        pairs=tuple((case.name, word) for case in file.cases for word in _words(case, file)),
        owners={case.name: case.owner for case in file.cases},
        faults=faults,
        blocks=file.blocks,
        budget_s=None if file.budget_h is None else file.budget_h * 3600,
    )


def lacking(case: PlannedCase, measured: Sequence[Measurement]) -> tuple[str, ...]:
    """Return the words of a case on whose devices a night has not measured it."""
    there = {one.address for one in measured if one.case == case.name}
    return tuple(word for word in case.words if word not in there)


def device_of(word: str, series: Sequence[Measurement]) -> str:
    """Return the name under which the device of a word is leased, as far as the word or earlier nights tell; else the word."""
    for one in reversed(series):
        if one.address == word:
            return one.device
    try:
        match parse_address(word):
            case VirtualAddress(profile=name):
                return lease_name("virtual", virtual_serial(load_profile(name)))
            case LocalAddress():
                return lease_name("local", LOCAL_NAME)
    except QuadbenchError:
        return word
    return word.rpartition("@")[2]


def _planned(case: Case, file: NightFile, folder: Path, layout: Layout) -> PlannedCase:
    beside = folder / case.source
    chosen = choose(str(beside) if beside.exists() else case.source, case.changes, layout)
    name = file.yardstick_of(case)
    stored = frozen_bundle(name, layout)
    yardstick = Chosen(source=name, changes={}, bundle=stored)
    require_common_tasks(yardstick, chosen)
    return PlannedCase(
        name=case.name,
        yardstick=yardstick,
        chosen=chosen,
        words=_words(case, file),
        limits=file.limits_of(case),
        owner=case.owner,
        quality=file.quality_of(case),
    )


def _words(case: Case, file: NightFile) -> tuple[str, ...]:
    return tuple(dict.fromkeys(file.devices_of(case)))


def _refuse_wishes(words: Sequence[str], label_keys: Sequence[str]) -> None:
    for word in words:
        if parse_wish(word, label_keys):
            raise UserError(
                f"'{word}' fits any of several devices, and a history is that of one", hint="name each device, as s25@SERIAL"
            )
