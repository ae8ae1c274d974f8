"""Nightly runs as data classes: measurements, verdicts, waivers. Functions describe and compare the environments of launches."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from quadbench.artifacts.bundle import Bundle, TaskAssets
from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.run_record import LIBRARY_PREFIX, RunRecord, lora_dtype

IMAGE_COUNT = ": images"  # ends the names of image counts in `fingerprint`, which are not the environment

_VERSIONS = ("quadbench", "runtime", "harness", "harness.commit", "harness.build_type", "kit")
_CAP = re.compile(r"(\S+) [^/\s]+/(\S+) kHz")  # matches the clock state `policy0 1000/2000/3000 kHz`
_NONE = "none"


class RulingKind(StrEnum):
    """A nightly run's possible verdicts on one metric. REGRESSION, for example: the metric is worse than in earlier nights."""

    CLEAN = "CLEAN"
    REGRESSION = "REGRESSION"
    IMPROVEMENT = "IMPROVEMENT"
    ENVIRONMENT = "ENVIRONMENT"  # the figure changed, but not the files under test: the device or its environment did
    INCONCLUSIVE = "INCONCLUSIVE"
    MISSING = "MISSING"  # it was not measured


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The files that a night tested: digests of a bundle and a runtime kit. `kit` is None if night.yaml names no kit."""

    bundle: str
    kit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One metric of one task in a night. `value` is the median of a recipe or bundle, `yardstick` that of the reference bundle.

    Values are in nanoseconds, bytes, decibels or a metric's unit. `ratio` is case / reference with its 95 % interval, from
    interleaved launches. Ratio and interval are None for exact metrics (file sizes, image scores) or without a reference value.
    """

    task: str  # a task's name or report.sides.ALL_TASKS
    key: str  # a KPI of report.kpi (end_to_end, peak_ram, foundation_rom, psnr) or an image metric
    value: float
    yardstick: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The results of one case (a recipe or bundle) on one device in a night. A reference bundle was launched in turn with it.

    `device` is the name under which the device is leased, `address` its address that night. `environment` describes software and
    device state by name. `comparison` names comparison.json; `runs` are the runs of reference and case.
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
    """A night's verdict on a metric (`key`) of a recipe or bundle. A `key` of None means all metrics that lack their own verdict.

    `cause` is a sentence without the metric's name. `expected` is the usual value, or the usual ratio to the reference bundle.
    `ratio` is tonight's value over the last good one, with its interval, if both were launched interleaved to confirm the change;
    `comparison` names that comparison. `last_good` is what ran before. A verdict is never changed, only superseded by a later
    one.

    A confirmed REGRESSION stands until launches in turn or a person end it. `since` is the id of the night that told it first,
    `nights` the number of measured nights from then on, tonight included, and `good_night` the last night before it that was
    known to be good. A CLEAN or IMPROVEMENT that ends a REGRESSION has these fields too.
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
    since: str | None = None
    nights: int | None = None
    good_night: str | None = None

    @property
    def is_standing(self) -> bool:
        """Return whether a verdict is a REGRESSION that an earlier night told first."""
        return self.kind is RulingKind.REGRESSION and self.since not in (None, self.night)


@dataclass(frozen=True, kw_only=True)
class Night:
    """One nightly run with measurements and verdicts. `planned` lists pairs of names in night.yaml: (recipe or bundle, device).

    `rulings` are the verdicts not superseded later. `ended_at` is None while the night is running, or if it was interrupted.
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
    """A waiver by `owner`: from `night` on, a recipe's or bundle's values may change. A device, task or metric of None means any.

    Verdicts of that and later nights become CLEAN. Until the date `until`, values before `night` are not used as the usual value.
    `since` is when that night first measured the case, as the names of nights do not give their order.
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

    def covers(self, task: str | None, key: str | None) -> bool:
        """Return whether the waiver covers metric `key` of `task`. A waiver without a task or key covers all tasks or keys."""
        return self.task in (None, task) and self.key in (None, key)


def fingerprint(record: RunRecord) -> dict[str, str]:
    """Return a launch's environment as a dict from name to text: OS, software versions, settings, clock limits, image counts."""
    versions = {name: text for name, text in record.versions.items() if name in _VERSIONS or name.startswith(LIBRARY_PREFIX)}
    caps = ", ".join(" ".join(pair) for pair in _CAP.findall(record.state.get("before.clocks", "")))
    around = {
        "device build": record.device.fingerprint,
        "Android": record.device.android_release,
        "CPU": record.device.cpu,
        "target": record.target,
        "clocks up to, kHz": caps,
    }
    return {**{name: text for name, text in around.items() if text}, **versions, **record.settings, **_images(record)}


def _images(record: RunRecord) -> dict[str, str]:
    """Return a dict from `<task>: images` to a text such as `12 after 2`: 12 measured images after 2 warm-up images."""
    kinds = record.columns.kinds
    images = [kinds.each[place] for place in kinds.by_metric.get("end_to_end_ns", ())]
    counts = Counter((str(image.task), image.is_warmup) for image in images)
    return {
        f"{task}{IMAGE_COUNT}": f"{counts[task, False]} after {counts[task, True]}"
        for task in dict.fromkeys(t for t, _ in counts)
    }


def workload(bundle: Bundle, tasks: Sequence[TaskAssets]) -> dict[str, str]:
    """Return a dict from name to text about a bundle's work: digest, precision, each task's sampler, LoRAs and inputs."""
    held = {"bundle": bundle.digest[:12], "precision": bundle.precision, "LoRA inputs": lora_dtype(bundle)}
    for task in tasks:
        images = [[file and file.sha256 for file in (item.image, item.mask, item.blend)] for item in task.items]
        prompts = [(*item.tokens.values(), *(item.negative_tokens or {}).values()) for item in task.items]
        held |= {
            f"{task.name}: sampler": f"{task.scheme}, {task.steps} steps, guidance {task.guidance:g}",
            f"{task.name}: LoRA": ", ".join(f"{name} at {weight:g}" for name, weight in task.weights.items()) or _NONE,
            f"{task.name}: inputs": f"{len(task.items)}, {hashlib.sha256(repr((images, prompts)).encode()).hexdigest()[:12]}",
        }
    return held


def environment_differences(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> dict[str, tuple[str, str]]:
    """Return the environment entries that differ between launches `a` and `b`, as a dict from entry to (text of `a`, of `b`)."""
    return differing_values(*([fingerprint(record) for record in _of_each_environment(side)] for side in (a, b)))


def _of_each_environment(records: Sequence[RunRecord]) -> Iterable[RunRecord]:
    """Return launches without those that share all that `fingerprint` reads with another."""
    alike = dict[tuple[object, ...], RunRecord]()
    for one in records:
        clocks = one.state.get("before.clocks")
        alike.setdefault((id(one.versions), id(one.settings), one.columns.kinds, id(one.device), one.target, clocks), one)
    return alike.values()


def differing_values(a: Sequence[Mapping[str, str]], b: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """Compare two lists of dicts. Return a dict from each key with different values to two texts, such as (`9, 10`, `11`)."""
    names = dict.fromkeys(name for side in (a, b) for one in side for name in one)
    values = {name: (_values(a, name), _values(b, name)) for name in names}
    return {name: (", ".join(first), ", ".join(second)) for name, (first, second) in values.items() if first != second}


def _values(side: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return sorted({one.get(name, _NONE) for one in side})
