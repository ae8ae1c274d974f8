"""The plan of a nightly run, read from night.yaml: each case with its reference bundle and devices, and the file's problems."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from quadbench.artifacts.night_record import Measurement
from quadbench.devices.addresses import parse_address
from quadbench.devices.lab.farm_file import ExpectedPhone, expected_phones
from quadbench.devices.lab.leases import leased_name
from quadbench.devices.lab.selection import parse_wish
from quadbench.errors import QuadbenchError, SpecError, UnknownNameError, UserError
from quadbench.kits.store import find_kit
from quadbench.nightly.night_file import Case, Limits, NightFile
from quadbench.results.bundles import frozen_bundle
from quadbench.results.layout import Layout
from quadbench.rollout.forecast import kind_at
from quadbench.spec import Problem, is_file, load
from quadbench.spec.spec_model import refuse_in
from quadbench.spec.yaml_document import Location
from quadbench.study.run_comparison import SideSpec, require_common_tasks, require_variant, side_of
from quadbench.target.profile import HOSTED_PREFIX, LOCAL_NAME, VIRTUAL_PREFIX

_MIN_TASKS = 2  # a task switch needs two tasks
Sides = tuple[SideSpec, SideSpec]  # yardstick and case


def device_of(word: str, series: Sequence[Measurement], serials: Mapping[str, str]) -> str:
    """Return the name under which a device is leased, given its text in night.yaml. The latest measurement in `series` with this
    text gives the name; else it is derived from the text. `serials` is a dict from phone name in farm.yaml to serial.
    """
    for one in reversed(series):
        if one.address == word:
            return one.device
    address = serials.get(word, word)
    try:
        return leased_name(parse_address(address)) or address.partition("?")[0].rpartition("@")[2]
    except QuadbenchError:
        return address


def device_word_faults(file: NightFile, expected: Sequence[ExpectedPhone], *, on_farm: bool) -> Iterator[Problem]:
    """Yield a Problem for each device text in night.yaml that is invalid, repeats a device, or matches several devices.
    `expected` are the phones of farm.yaml, whose names are valid texts. Whether a device is present is not checked.
    """
    lists: list[tuple[Location, Sequence[str]]] = [(("devices",), file.devices)]
    lists += [(("cases", number, "devices"), case.devices) for number, case in enumerate(file.cases) if case.devices]
    label_keys = tuple({key for phone in expected for key in phone.labels})
    serials = {phone.name: phone.serial for phone in expected}
    kind_fault = cache(_kind_fault)  # a file may name a thousand phones of one kind, and reading a profile is slow
    for where, words in lists:
        named: dict[str, str] = {}
        for number, word in enumerate(words):
            device = word.partition("?")[0] if on_farm else device_of(word, (), serials)
            reason = None
            if parse_wish(word, label_keys):
                reason = f"'{word}' matches several devices, but a history is about one; name each device, such as s25@SERIAL"
            if reason is None and not on_farm and word not in serials:
                reason = kind_fault(_without_serial(word))
            if reason is None and device in named:
                reason = f"'{word}' and '{named[device]}' are the same device; name it once"
            if reason:
                yield Problem(location=(*where, number), reason=reason)
            named.setdefault(device, word)


def _without_serial(word: str) -> str:
    """Replace the serial in a device text such as `s25@R5` by SERIAL. Return "" for a bare serial, other texts unchanged."""
    if word == LOCAL_NAME or word.startswith((f"{LOCAL_NAME}?", VIRTUAL_PREFIX, HOSTED_PREFIX)):
        return word
    profile, at, serial = word.partition("@")
    if not at:
        return ""
    return f"{profile}@SERIAL" if profile and serial and "?" not in word else word


def _kind_fault(word: str) -> str | None:
    """Return an error text if `word` is no valid device name in night.yaml, else None. The device need not be connected."""
    if word.startswith(HOSTED_PREFIX):
        return f"'{word}' is at Qualcomm AI Hub, which runs single graphs but no nights; name a phone"
    try:
        if word:
            kind_at(parse_address(word))
    except UserError as error:
        return "; ".join(str(error).splitlines())
    return None


@dataclass(frozen=True, kw_only=True)
class CaseReader:
    """The reader of night.yaml. `mistakes` are the file's Problems. `faults` maps a case's name to why it cannot be measured."""

    file: NightFile
    folder: Path  # base of relative paths in the file
    layout: Layout
    mistakes: list[Problem] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    _yardsticks: dict[str, SideSpec | QuadbenchError] = field(default_factory=dict)  # by name, each read once

    def sides(self) -> dict[str, Sides]:
        """Return {case: (reference, tested build)} of measurable cases. Fill `mistakes` and `faults` with the errors found."""
        self._yardstick(self.file.yardstick, ("yardstick",))
        read = {case.name: sides for number, case in enumerate(self.file.cases) if (sides := self._sides(case, number))}
        file = self.file
        why = {case.name: dict(_absent(file.quality_of(case), read[case.name])) for case in file.cases if case.name in read}
        for number, case in enumerate(file.cases):
            self.mistakes.extend(_vain_limits(case.limits, ("cases", number, "limits"), [why.get(case.name, {})]))
        others = [why.get(case.name, {}) for case in file.cases if not case.limits]
        self.mistakes.extend(_vain_limits(file.limits, ("limits",), others))
        return read

    def _sides(self, case: Case, number: int) -> Sides | None:
        where = ("cases", number)
        chosen = self._open_side(case, where)
        yardstick = self._yardstick(case.yardstick or self.file.yardstick, (*where, "yardstick") if case.yardstick else None)
        for side in (yardstick, chosen):
            if isinstance(side, QuadbenchError):
                self.faults.setdefault(case.name, str(side))
        if not (isinstance(yardstick, SideSpec) and isinstance(chosen, SideSpec)):
            return None
        try:
            called = (f"yardstick '{yardstick.source}'", f"case '{case.name}'")
            require_common_tasks(yardstick, chosen, called=called)
        except UserError as error:
            self.faults[case.name] = str(error)
            return None
        return yardstick, chosen

    def _open_side(self, case: Case, where: Location) -> SideSpec | QuadbenchError:
        beside = self.folder / case.source
        source = str(beside) if beside.exists() else case.source
        try:
            side = side_of(source, case.changes, self.layout)
            require_variant(side, side.variants)
            if side.kit:
                find_kit(side.kit, self.layout)
            if side.harness and not is_file(side.harness):
                hint = "name a program that quadbench harness build made"
                raise UserError(f"the harness '{side.harness}' is not a file", hint=hint)
            return side
        except UserError as error:
            key, fault = self._fault_place(source, error)
            if key:
                reasons = fault.problems if isinstance(fault, SpecError) else (str(fault),)
                self.mistakes.extend(Problem(location=(*where, key), reason=reason) for reason in reasons)
            return fault
        except QuadbenchError as error:
            return error

    def _fault_place(self, source: str, error: UserError) -> tuple[str | None, QuadbenchError]:
        """Find which key of a night.yaml case caused `error`. Return (key, error); key is None for a damaged recipe or bundle."""
        try:
            side_of(source, {}, self.layout)
        except QuadbenchError as alone:
            is_there = not isinstance(alone, UnknownNameError) and Path(source).exists()
            return None if is_there else "source", alone
        return "changes", error

    def _yardstick(self, name: str, where: Location | None) -> SideSpec | QuadbenchError:
        if name not in self._yardsticks:
            try:
                self._yardsticks[name] = SideSpec(source=name, changes={}, bundle=frozen_bundle(name, self.layout))
            except QuadbenchError as error:
                self._yardsticks[name] = error
        outcome = self._yardsticks[name]
        if where and isinstance(outcome, UnknownNameError):
            self.mistakes.append(Problem(location=where, reason=str(outcome)))
        return outcome


def _vain_limits(limits: Limits | None, where: Location, cases: Sequence[Mapping[str, str]]) -> Iterator[Problem]:
    """Yield a Problem per limit on a metric that none of `cases` measures. Each case is a dict {unmeasured metric: reason}."""
    for key in sorted(limits.model_fields_set) if limits and cases else ():
        if all(key in why for why in cases):
            yield Problem(location=(*where, key), reason=cases[0][key])


def _absent(quality: Iterable[str], sides: Sides) -> Iterator[tuple[str, str]]:
    """Yield pairs (metric, reason), one per metric of `limits` that a case's comparison does not measure. The reason says why."""
    yardstick, case = sides
    if not case.has_references:
        yield "psnr_db", "the case's weights are random, so its images have no reference; remove this limit"
    if not quality:
        yield "quality", "`quality` lists no metric, so there are no scores; add `quality`, such as [ssim]"
    if len(set(yardstick.tasks) & set(case.tasks)) < _MIN_TASKS:
        yield "switch", "only one task is measured, so there are no task switches; remove this limit"


@dataclass(frozen=True, kw_only=True)
class PlannedCase:
    """A nightly comparison of the build `side` with reference bundle `yardstick`. `words` are its devices, as in night.yaml."""

    name: str
    yardstick: SideSpec
    side: SideSpec
    words: tuple[str, ...]
    limits: Limits
    owner: str | None
    quality: tuple[str, ...] = ()  # metrics that score its images

    @property
    def left_out(self) -> str | None:
        """Return text listing the case's tasks left unmeasured because the reference bundle lacks them, or None if none are."""
        alone = [task for task in self.side.tasks if task not in self.yardstick.tasks]
        return f"tasks not measured, as the yardstick lacks them: {', '.join(alone)}" if alone else None


@dataclass(frozen=True, kw_only=True)
class NightPlan:
    """The plan of a nightly run: its cases, the number of four-launch blocks for each comparison, and the time budget. `faults`
    maps a case to the reason why it cannot be measured at all.
    """

    name: str  # of the file
    cases: tuple[PlannedCase, ...]
    pairs: tuple[tuple[str, str], ...]  # each case with each of its words, in the order of the file
    owners: dict[str, str | None]
    faults: dict[str, str]
    blocks: int
    budget_s: float | None


def plan_night(path: Path, layout: Layout, *, on_farm: bool = False) -> NightPlan:
    """Read night.yaml and the recipes and bundles it names into a NightPlan. A damaged recipe or bundle excludes only its cases.

    Raises:
        SpecError: the file has problems, including names that do not exist, or farm.yaml is invalid.
    """
    file = load(path, NightFile)
    reading = CaseReader(file=file, folder=path.parent, layout=layout)
    sides = reading.sides()
    refuse_in(path, [*device_word_faults(file, expected_phones(), on_farm=on_farm), *reading.mistakes])
    return NightPlan(
        name=file.name,
        cases=tuple(
            PlannedCase(
                name=case.name,
                yardstick=sides[case.name][0],
                side=sides[case.name][1],
                words=file.devices_of(case),
                limits=case.limits or file.limits,
                owner=case.owner,
                quality=file.quality_of(case),
            )
            for case in file.cases
            if case.name in sides
        ),
        pairs=tuple((case.name, word) for case in file.cases for word in file.devices_of(case)),
        owners={case.name: case.owner for case in file.cases},
        faults=reading.faults,
        blocks=file.blocks,
        budget_s=None if file.budget_h is None else file.budget_h * 3600,
    )


def unmeasured_words(case: PlannedCase, measured: Sequence[Measurement]) -> tuple[str, ...]:
    """Return the devices of a case, as written in night.yaml, that have no measurement of the case in `measured`."""
    there = {one.address for one in measured if one.case == case.name}
    return tuple(word for word in case.words if word not in there)
