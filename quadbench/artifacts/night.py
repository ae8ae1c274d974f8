"""Night: what a night of regression tests measured of every case on every device, and what it ruled, as data."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from quadbench.artifacts.caveats import Caveat


class RulingKind(StrEnum):
    """The answers to whether a figure got worse."""

    CLEAN = "CLEAN"
    REGRESSION = "REGRESSION"
    IMPROVEMENT = "IMPROVEMENT"
    ENVIRONMENT = "ENVIRONMENT"  # it changed, and what the case runs did not: the device or what is around it did
    INCONCLUSIVE = "INCONCLUSIVE"
    MISSING = "MISSING"  # it was not measured


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The files that a case runs, by digest: nights with equal subjects ran the same ones. `kit` is None where none is named."""

    bundle: str
    kit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A figure of one night, in nanoseconds, bytes, decibels or a metric's unit: the median of the case's launches, and of the
    yardstick's.

    `ratio` is the case's over the yardstick's with its interval at 95 %, from launches in turn. It is None for what is exact
    (bytes of files, likeness and scores of pictures) and where the yardstick has no such figure; `yardstick` is None there too.
    """

    task: str  # or report.sides.ALL_TASKS
    key: str  # as report.kpi names figures: end_to_end, peak_ram, foundation_rom, psnr; or a metric of pictures
    value: float
    yardstick: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A case measured on a device in a night, its launches in turn with those of the yardstick.

    `device` is the name under which the device is leased, `address` what people called it that night. `environment` is the
    fingerprint of the launches, by name; `comparison` names comparison.json, and `runs` those of the yardstick and of the case.
    """

    night: str
    case: str
    device: str
    address: str
    measured_at: datetime
    subject: Subject
    yardstick: str  # the digest of its bundle
    environment: dict[str, str]
    comparison: str
    runs: tuple[str, str]
    caveats: tuple[Caveat, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A night's answer about a figure of a case on a device; `task` and `key` are None where it is about all of them.

    `cause` says why, in a sentence without the figure's name. `expected` is the figure's usual value, or usual ratio to the
    yardstick where it has one; `ratio`, with its interval, is tonight's over the last good one's where both were launched in turn
    to confirm it, which `comparison` names. `last_good` is what ran before. A ruling is never changed: a later one may supersede
    it.
    """

    night: str
    case: str
    device: str
    address: str
    told_at: datetime
    kind: RulingKind
    cause: str
    detector: int
    task: str | None = None
    key: str | None = None
    owner: str | None = None
    value: float | None = None
    expected: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    last_good: Subject | None = None
    comparison: str | None = None


@dataclass(frozen=True, kw_only=True)
class Night:
    """One night, whole: what was planned, measured and ruled. `planned` has each case with each word of the file for its devices.

    `rulings` are those that stand, which no later one supersedes. It goes on, or was cut short, as long as `ended_at` is None.
    """

    night_id: str
    name: str
    began_at: datetime
    ended_at: datetime | None
    version: str  # of quadbench
    planned: tuple[tuple[str, str], ...]
    measurements: tuple[Measurement, ...] = ()
    rulings: tuple[Ruling, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """A person's word that a case's figure is as it is from a night on, with a reason; what is None is any.

    What was ruled from that night on is superseded by CLEAN when the word is given; until `until`, values before `night` do not
    count as usual. `since` is when that night first measured the case; names of nights tell nothing of their order.
    """

    case: str
    night: str
    reason: str
    owner: str
    made_at: datetime
    since: datetime = field(compare=False)
    until: datetime
    device: str | None = None
    task: str | None = None
    key: str | None = None
