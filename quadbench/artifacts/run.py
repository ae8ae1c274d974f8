"""Run: what is known of a device, what a launch runs and what it measured, and one `quadbench run` as a whole."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from quadbench.artifacts.bundle import SCHEMA_VERSION, Bundle, Stored, Variant
from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.samples import Sample, Samples
from quadbench.artifacts.scores import RunScores

HOSTED_FAMILY = "ai_hub"
LIBRARY_PREFIX = "library."  # of versions that name a library which the harness loaded, with its path and build id


class Status(StrEnum):
    """The ways in which a launch can end."""

    OK = "OK"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    SKIPPED = "SKIPPED"  # the gate did not let it start
    DISCARDED = "DISCARDED"  # it ended hot or slowed down, or with one that did; both sides of its block are repeated

    @property
    def is_fine(self) -> bool:
        """Say whether nothing is amiss with a run in which a launch ended so: it counts, or others were launched in its place."""
        return self in {Status.OK, Status.DISCARDED}


class ErrorClass(StrEnum):
    """The party at fault where a launch is not OK."""

    USER = "user"
    DEVICE = "device"
    HARNESS = "harness"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """A device, described well enough to know with what its figures may be compared."""

    address: str  # as on the command line: s25, virtual:s25, hub:s25, local
    family: str  # adb, virtual, local, ai_hub
    serial: str
    profile: str
    title: str
    soc_model: str
    cpu: str
    android_release: str | None
    fingerprint: str | None

    @property
    def is_hosted(self) -> bool:
        """Say whether a service runs single graphs on the device: without harness and images."""
        return self.family == HOSTED_FAMILY


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The files that were pushed to a device: `objects` maps sha256 to the absolute path there."""

    device: DeviceFacts
    root: str
    objects: dict[str, str]
    sent_bytes: int
    present_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Retry:
    """A device that was lost in a run, why, and for how long it was waited for until it was back as it was."""

    address: str
    reason: str
    away_s: float


@dataclass(frozen=True, kw_only=True)
class SequenceBlock:
    """Iterations of one task without a switch between them."""

    task: str
    warmup: int
    iterations: int


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """One fresh process. `launch` counts from 0 within the variant."""

    variant: Variant
    launch: int
    sequence: tuple[SequenceBlock, ...]
    side: str = ""  # of a comparison: A or B, and what that is

    @property
    def images(self) -> int:
        """Return how many images it paints, those of its warm-up included."""
        return sum(block.warmup + block.iterations for block in self.sequence)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of one launch (a fresh harness process, one variant) on one device; a failed launch has one too.

    `run_id` groups the launches of one `quadbench run`.
    """

    schema_version: int = SCHEMA_VERSION
    record_id: str
    run_id: str
    started_at: datetime  # aware, UTC
    ended_at: datetime
    recipe_name: str
    recipe_digest: str
    bundle_digest: str
    compiled_digest: str
    target: str
    device: DeviceFacts
    variant: Variant
    launch: int
    status: Status
    error_class: ErrorClass | None = None
    reason: str | None = None
    caveats: tuple[Caveat, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # with which the graphs ran: threads, memory
    state: dict[str, str] = field(default_factory=dict)  # the device's state before and after, flattened
    samples: Sequence[Sample] = ()  # in the order measured
    images: dict[str, str] = field(default_factory=dict)  # "<task>/<item>" -> PNG path relative to the results folder

    @cached_property
    def columns(self) -> Samples:
        """The samples column by column, for figures."""
        return Samples.of(self.samples)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One `quadbench run`, whole: what the report shows."""

    run_id: str
    stored: Stored[Bundle]  # what devices ran whose profile `others` does not name
    others: dict[str, Stored[Bundle]] = field(default_factory=dict)  # by device profile
    records: tuple[RunRecord, ...]
    deployments: tuple[Deployment, ...]
    published: str | None = None  # the paper's table whose figures stand beside the measured ones
    scores: RunScores | None = None  # where `quadbench quality` was run on it
    planned: dict[Variant, int] | None = None  # launches of each variant on a device; None where an older quadbench ran them
    is_cut_short: bool = False  # or still goes on
    recipe: str | None = None  # its text; None of a bundle that was run without one, and where an older quadbench ran it
    swept: dict[str, str] = field(default_factory=dict)  # what of the recipe a sweep set
    retries: tuple[Retry, ...] = ()  # in the order in which devices were back
    left_out: dict[str, str] = field(default_factory=dict)  # by address, why a device lacks launches

    @cached_property
    def in_order(self) -> tuple[RunRecord, ...]:
        """The launches in the order in which they were measured."""
        return tuple(sorted(self.records, key=lambda record: (record.started_at, record.device.address, record.launch)))

    @cached_property
    def devices(self) -> tuple[DeviceFacts, ...]:
        """Every device that measured or was deployed to, once, in order."""
        known = [record.device for record in self.in_order] + [deployment.device for deployment in self.deployments]
        return tuple({(device.address, device.serial): device for device in reversed(known)}.values())[::-1]

    @cached_property
    def by_device(self) -> Mapping[tuple[str, str], tuple[RunRecord, ...]]:
        """The launches of a device, by its address and serial, in the order in which they were measured."""
        groups = defaultdict[tuple[str, str], list[RunRecord]](list)
        for record in self.in_order:
            groups[record.device.address, record.device.serial].append(record)
        return {device: tuple(group) for device, group in groups.items()}

    @cached_property
    def by_place(self) -> Mapping[tuple[str, str, Variant], tuple[RunRecord, ...]]:
        """The launches of a device, by its address and serial, and of a variant, in the order in which they were measured."""
        groups = defaultdict[tuple[str, str, Variant], list[RunRecord]](list)
        for device, records in self.by_device.items():
            for record in records:
                groups[*device, record.variant].append(record)
        return {place: tuple(group) for place, group in groups.items()}

    @property
    def bundle(self) -> Bundle:
        """Return the bundle that the run measured; of several, which have tasks of the same names and inputs, the first."""
        return self.stored.artifact

    @property
    def bundles(self) -> tuple[Stored[Bundle], ...]:
        """Return every bundle that the run measured, once."""
        return tuple({bundle.artifact.digest: bundle for bundle in (self.stored, *self.others.values())}.values())

    def stored_on(self, device: DeviceFacts) -> Stored[Bundle]:
        """Return the bundle that a device ran, with its folder."""
        return self.others.get(device.profile, self.stored)

    def bundle_on(self, device: DeviceFacts) -> Bundle:
        """Return the bundle that a device ran."""
        return self.stored_on(device).artifact
