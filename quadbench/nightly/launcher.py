"""Launcher of nightly comparisons on this machine's devices, and the measurement that is stored for each comparison."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from quadbench.artifacts import Bundle, RunRecord, Status, StoredBundle
from quadbench.artifacts.night_record import Measurement, Point, Subject, differing_values, fingerprint
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.lab.leases import lease_name
from quadbench.devices.lab.wishes import addresses_for
from quadbench.errors import ArtifactError, DeviceError, MissingDependencyError, QuadbenchError, StorageError, UserError
from quadbench.measure.launch_schedule import Budget
from quadbench.observer import Observer
from quadbench.pipeline import RunOptions
from quadbench.report.versus import SideRow, VersusDevice
from quadbench.results.documents import document_from
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.statistics import Looks
from quadbench.study.run_comparison import CompareOptions, Goal, SideSpec, compare

NO_TIME = "the night's time budget was over before"
_RUN_OPTIONS = RunOptions(keep_going=True)
_OWN = "case's "  # prefix of environment entries in which the case differs from the yardstick


@dataclass(frozen=True, kw_only=True)
class CaseRequest:
    """A request to compare builds `a` and `b` on the devices that `words` name. Launches of the two builds alternate."""

    case: str
    a: SideSpec
    b: SideSpec
    words: tuple[str, ...]
    looks: Looks
    goals: tuple[Goal, ...] = ()
    tasks: tuple[str, ...] = ()  # those of the common tasks to measure; empty means all


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """The result of a nightly comparison of two builds on one device, or the reason why the comparison failed.

    `device` is the device's lease name. `reason` is None on success. `is_transient` means that the device or its environment
    caused the failure. `is_storage_failure` means that files were not accessible, which says nothing about case and device.
    """

    case: str
    word: str
    device: str | None = None
    versus: VersusDevice | None = None
    comparison: str = ""
    runs: tuple[str, str] = ("", "")
    reason: str | None = None
    is_transient: bool = False
    is_storage_failure: bool = False

    @classmethod
    def failed(cls, case: str, word: str, error: QuadbenchError) -> Self:
        is_storage_failure = isinstance(error, StorageError)
        is_transient = is_storage_failure or error.transient or isinstance(error, DeviceError)
        return cls(case=case, word=word, reason=str(error), is_transient=is_transient, is_storage_failure=is_storage_failure)


class Launcher(Protocol):
    """The interface through which a nightly run launches comparisons, on this machine's devices or on a farm."""

    def launch(self, requests: Sequence[CaseRequest], budget: Budget | None) -> Iterator[CaseResult]:
        """Yield the result of each requested comparison on each device, as soon as it is known."""
        ...

    def bundle(self, digest: str) -> StoredBundle:
        """Return the stored bundle with this digest, which an earlier run used; raise if it was removed or is damaged."""
        ...


def launch_with_retry(launcher: Launcher, requests: Sequence[CaseRequest], budget: Budget | None) -> Iterator[CaseResult]:
    """Yield a CaseResult per comparison and device. At the end, repeat transient failures once unless the time budget is over."""
    spoilt = []
    for comparison in launcher.launch(requests, budget):
        if comparison.is_transient:
            spoilt.append(comparison)
        else:
            yield comparison
    if budget and budget.left_s <= 0:
        yield from spoilt
        return
    lost = {(comparison.case, comparison.word) for comparison in spoilt}
    again = [replace(one, words=tuple(word for word in one.words if (one.case, word) in lost)) for one in requests]
    yield from launcher.launch([one for one in again if one.words], budget)


@dataclass(frozen=True, kw_only=True)
class LocalLauncher:
    """The launcher of comparisons on this machine's devices: phones run in parallel, other devices one after another."""

    layout: Layout
    observer: Observer

    def launch(self, requests: Sequence[CaseRequest], budget: Budget | None) -> Iterator[CaseResult]:
        """Run comparisons and yield a CaseResult per device. Once `budget` is spent, yield failed CaseResults without a run."""
        for one in requests:
            if budget and budget.left_s <= 0:
                yield from (CaseResult(case=one.case, word=word, reason=f"{NO_TIME} it") for word in one.words)
            else:
                self.observer.stage_step("night", f"{one.case}: {one.a.name} and {one.b.name} on {', '.join(one.words)}")
                words: dict[str, str] = {}
                for word in one.words:
                    try:
                        (address,) = addresses_for([word], self.layout)
                    except UserError as error:  # for example farm.yaml while it is being written
                        yield CaseResult(case=one.case, word=word, reason=str(error), is_transient=True)
                        continue
                    if words.setdefault(address, word) != word:
                        yield CaseResult(case=one.case, word=word, reason=f"it is the same device as '{words[address]}'")
                yield from self._launch_on(one, words)

    def bundle(self, digest: str) -> StoredBundle:
        return read_manifest(self.layout.bundle(digest), Bundle)

    def _launch_on(self, requests: CaseRequest, words: Mapping[str, str]) -> Iterator[CaseResult]:
        """Compare two builds and yield a CaseResult per device. `words` is a dict from device address to text in night.yaml.
        After a user error or a missing dependency on several devices, compare again on each device alone. If `words` is
        empty, yield nothing: `compare` without devices would take the phone in $ANDROID_SERIAL.
        """
        if not words:
            return
        options = CompareOptions(looks=requests.looks, goals=requests.goals, tasks=requests.tasks, run_options=_RUN_OPTIONS)
        try:
            devices = parse_addresses(words)
            versus = compare(requests.a, requests.b, devices, options, layout=self.layout, observer=self.observer)
        except QuadbenchError as error:
            if len(words) > 1 and isinstance(error, UserError | MissingDependencyError):
                for address, word in words.items():
                    yield from self._launch_on(requests, {address: word})
            else:
                yield from (CaseResult.failed(requests.case, word, error) for word in words.values())
            return
        for device in versus.devices:
            yield CaseResult(
                case=requests.case,
                word=words[device.device.address],
                device=lease_name(device.device.family, device.device.serial),
                versus=device,
                comparison=versus.comparison_id,
                runs=(versus.a.run_id, versus.b.run_id),
                reason=device.broken,
                is_transient=device.broken is not None,
            )
        for address, why in versus.failures.items():
            yield CaseResult(case=requests.case, word=words[address], reason=why, is_transient=True)


def measurement_of(night: str, case_comparison: CaseResult, records: Sequence[RunRecord], *, names_kit: bool) -> Measurement:
    """Return the Measurement that a nightly run stores for a successful comparison. `records` hold launches of both builds.
    If `names_kit`, the Measurement names the tested build's runtime kit (libraries for devices), else no kit.
    """
    versus, device = case_comparison.versus, case_comparison.device
    if versus is None or device is None:
        raise ArtifactError("a comparison without a result cannot be stored")
    address, sides = versus.device.address, []
    for run_id in case_comparison.runs:
        sides.append([r for r in records if (r.run_id, r.device.address, r.status) == (run_id, address, Status.OK)])
        if not sides[-1]:
            raise ArtifactError(f"run {run_id} has no successful launch on '{address}' in the database")
    yardstick, case = sides
    kit = case[0].versions.get("kit") if names_kit else None
    return Measurement(
        night=night,
        case=case_comparison.case,
        device=device,
        address=case_comparison.word,
        measured_at=max(record.ended_at for record in (*yardstick, *case)),
        subject=Subject(bundle=case[0].bundle_digest, kit=kit),
        yardstick=yardstick[0].bundle_digest,
        environment=_environment(yardstick, case),
        comparison=case_comparison.comparison,
        runs=case_comparison.runs,
        caveats=versus.caveats,
        points=tuple(point for row in versus.rows for point in _points(row)),
    )


def _environment(yardstick: Sequence[RunRecord], case: Sequence[RunRecord]) -> dict[str, str]:
    """Return the reference build's environment as a dict of texts. Add the tested build's differing values under `case's KEY`."""
    first, second = ([fingerprint(record) for record in side] for side in (yardstick, case))
    around = {name: text for name, (text, _) in differing_values(first, [{}]).items()}
    return around | {f"{_OWN}{name}": text for name, (_, text) in differing_values(first, second).items()}


def _points(row: SideRow) -> Iterator[Point]:
    if row.b is None:
        return
    result = row.comparison
    if row.a is None or result is None or result.ratio is None:
        yield Point(task=row.task, key=row.key, value=row.b.value)
    else:
        yield document_from(Point, result, task=row.task, key=row.key, value=row.b.value, yardstick=row.a.value)
