"""Night document: a night as it is told -> what programs read of it, with the number of its format."""

import math
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.night import Point, RulingKind, Subject
from quadbench.report.night import AlarmRate, DeviceNight, NightView
from quadbench.report.night_findings import Figured, NightFinding

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RuledFigure:
    """A figure of a finding: in words, and in numbers where there are any. `ratio` is over the last good one's."""

    case: str
    task: str | None
    key: str | None
    cause: str
    change: str
    interval: str
    tonight: Point | None
    expected: float | None
    ratio: float | None
    low: float | None
    high: float | None
    comparison: str | None


@dataclass(frozen=True, kw_only=True)
class FindingDocument:
    """A finding. `since` is the first night of what is there now, `last_good` what ran before."""

    kind: RulingKind
    cases: tuple[str, ...]
    device: str
    address: str
    sentence: str
    owners: tuple[str, ...]
    since: str | None
    last_good: Subject | None
    next_step: str
    figures: tuple[RuledFigure, ...]


@dataclass(frozen=True, kw_only=True)
class DeviceDocument:
    """A device: its cases, how many of them are clean, what was wrong, what changed of it, and how often it alarms falsely."""

    address: str
    cases: int
    clean: int
    wrong: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    environment_changes: dict[str, tuple[str, str]]
    false_alarms: AlarmRate | None


@dataclass(frozen=True, kw_only=True)
class NightDocument:
    """A night. `counts` has the cases on devices by the worst that was ruled of each, `clean` the devices by case."""

    schema_version: int
    night: str
    name: str
    version: str
    began_at: datetime
    ended_at: datetime | None
    outcome: RulingKind
    sentence: str
    counts: dict[RulingKind, int]
    findings: tuple[FindingDocument, ...]
    devices: tuple[DeviceDocument, ...]
    clean: dict[str, tuple[str, ...]]
    not_ruled: tuple[tuple[str, str], ...]


def night_json(view: NightView) -> str:
    """Return a night as JSON, as its schema in docs/schemas says; null for NaN and infinities, which JSON does not have."""
    return TypeAdapter(NightDocument).dump_json(_document(view), indent=1).decode()


def _document(view: NightView) -> NightDocument:
    night = view.night
    return NightDocument(
        schema_version=SCHEMA_VERSION,
        night=night.night_id,
        name=night.name,
        version=night.version,
        began_at=night.began_at,
        ended_at=night.ended_at,
        outcome=view.outcome,
        sentence=view.sentence,
        counts=view.counts,
        findings=tuple(_finding(finding) for finding in view.findings),
        devices=tuple(_device(device) for device in view.devices),
        clean=view.clean,
        not_ruled=view.open,
    )


def _finding(finding: NightFinding) -> FindingDocument:
    return FindingDocument(
        kind=finding.kind,
        cases=finding.cases,
        device=finding.place[1],
        address=finding.address,
        sentence=finding.sentence,
        owners=finding.owners,
        since=finding.since.night if finding.since else None,
        last_good=finding.figures[0].ruling.last_good,
        next_step=finding.next_step,
        figures=tuple(_figure(told) for told in finding.figures),
    )


def _figure(told: Figured) -> RuledFigure:
    ruling = told.ruling
    return RuledFigure(
        case=ruling.case,
        task=ruling.task,
        key=ruling.key,
        cause=told.cause,
        change=told.change,
        interval=told.interval,
        tonight=told.point if told.point and math.isfinite(told.point.value) else None,
        expected=ruling.expected,
        ratio=ruling.ratio,
        low=ruling.low,
        high=ruling.high,
        comparison=ruling.comparison,
    )


def _device(device: DeviceNight) -> DeviceDocument:
    return DeviceDocument(
        address=device.address,
        cases=device.cases,
        clean=device.clean,
        wrong=device.wrong,
        caveats=device.caveats,
        environment_changes=device.environment,
        false_alarms=device.rate,
    )
