"""Nights as data: cases, measurements and rulings; and the fingerprint of what may make two measurements differ."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from quadbench.artifacts.bundle import Bundle, TaskAssets
from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.run_record import LIBRARY_PREFIX, RunRecord, lora_dtype

_VERSIONS = ("quadbench", "runtime", "harness", "harness.commit", "harness.build_type", "kit")
_CAP = re.compile(r"(\S+) [^/\s]+/(\S+) kHz")  # of a clock's text: `policy0 1000/2000/3000 kHz`
_NONE = "none"


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


def fingerprint(record: RunRecord) -> dict[str, str]:
    """Return the environment of a launch: the device's build, programs, libraries, settings, caps of the clocks, and images."""
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
    """Return how many images of each task a launch painted, and how many of them to warm up."""
    kinds = record.columns.kinds
    images = [kinds.each[place] for place in kinds.by_metric.get("end_to_end_ns", ())]
    counts = Counter((str(image.task), image.is_warmup) for image in images)
    return {
        f"{task}: images": f"{counts[task, False]} after {counts[task, True]}" for task in dict.fromkeys(t for t, _ in counts)
    }


def contents(bundle: Bundle, tasks: Sequence[TaskAssets]) -> dict[str, str]:
    """Return what a side computes: its bundle, with the precision, and of each task the sampler, the LoRA and the inputs."""
    held = {"bundle": bundle.digest[:12], "precision": bundle.precision, "LoRA inputs": lora_dtype(bundle)}
    for task in tasks:
        images = [[file and file.sha256 for file in (item.image, item.mask, item.blend)] for item in task.items]
        prompts = [(item.input_ids, item.negative_input_ids) for item in task.items]
        held |= {
            f"{task.name}: sampler": f"{task.scheme}, {task.steps} steps, guidance {task.guidance:g}",
            f"{task.name}: LoRA": ", ".join(f"{name} at {weight:g}" for name, weight in task.weights.items()) or _NONE,
            f"{task.name}: inputs": f"{len(task.items)}, {hashlib.sha256(repr((images, prompts)).encode()).hexdigest()[:12]}",
        }
    return held


def differences(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> dict[str, tuple[str, str]]:
    """Return by name what is not the same around two sides' launches, each with every value that it had there."""
    return unlike([fingerprint(record) for record in a], [fingerprint(record) for record in b])


def unlike(a: Sequence[Mapping[str, str]], b: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """Return by name what two sides do not have alike, each with every value that it has there."""
    names = dict.fromkeys(name for side in (a, b) for one in side for name in one)
    values = {name: (_values(a, name), _values(b, name)) for name in names}
    return {name: (", ".join(first), ", ".join(second)) for name, (first, second) in values.items() if first != second}


def _values(side: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return sorted({one.get(name, _NONE) for one in side})
