"""Define the web API's documents on running commands, the device farm and nightly runs. Create result documents' JSON schemas."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import TypeAdapter

from quadbench.artifacts import MIB
from quadbench.artifacts.night_record import RulingKind
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.lab.farm_file import ExpectedPhone
from quadbench.devices.lab.inventory import READY, Inventory
from quadbench.devices.lab.lease import Claim, Claims
from quadbench.devices.lab.leases import Leases
from quadbench.devices.lab.overview import GONE, MISSING, FarmPhone, merged
from quadbench.errors import QuadbenchError
from quadbench.farm.job import Job, JobState
from quadbench.farm.job_status import job_counts, listed_jobs, open_runs
from quadbench.farm.slots import Slot, is_silent, why_not_started
from quadbench.nightly.history_formats import CaseDocument
from quadbench.report.night import WORST_FIRST
from quadbench.report.night_formats import NightDocument
from quadbench.report.run_line import ComparisonDocument, RunList, SweepDocument
from quadbench.report.view import RunSummary
from quadbench.results.documents import document_from
from quadbench.results.layout import Layout
from quadbench.results.nights import NightHead
from quadbench.results.progress import DeviceProgress, Progress, Stage, active_work

SCHEMA_VERSION = 1
DocumentT = TypeVar("DocumentT")
_MAX_JOBS = 100
_MAX_REASON = 500  # characters of the reason why a job waits
_RANKS = {JobState.RUNNING: 0, JobState.WAITING: 1}  # order of jobs; ended ones come last, each group latest first
FREE = "free"
"""The state of a device outside the inventory whose slot can start a job now."""

log = logging.getLogger(__name__)
_NOBODY = "here"  # stands for no host: a phone's state is that of the host that saw it last


@dataclass(frozen=True, kw_only=True)
class ActiveDevice:
    """One device's progress in a command. `share` is the completed fraction of `stage` (push, measure, wait or done), or None."""

    address: str
    stage: str
    doing: str
    share: float | None


@dataclass(frozen=True, kw_only=True)
class ActiveCommand:
    """A running command: activity, user, current step, devices. `run_id` is None for a comparison, which has several runs."""

    what: str
    owner: str
    run_id: str | None
    began_at: datetime
    stage: str
    detail: str
    devices: tuple[ActiveDevice, ...]


@dataclass(frozen=True, kw_only=True)
class ActiveWork:
    """The API document on commands that are running on a results folder. Runs on the device farm are in `FarmNow` instead."""

    schema_version: int = SCHEMA_VERSION
    work: tuple[ActiveCommand, ...]


@dataclass(frozen=True, kw_only=True)
class FarmClaim:
    """A job's lease of a device, or a person's reservation of a device: owner, purpose and end time."""

    owner: str
    purpose: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class FarmDevice:
    """A farm device, known from inventory, farm.yaml, a lease, a reservation or a slot. Unknown values are empty or None."""

    name: str
    model: str
    profile: str
    host: str
    state: str
    health: str | None
    reason: str | None
    is_missing: bool
    last_seen: datetime | None
    job: FarmClaim | None
    reservation: FarmClaim | None

    @property
    def is_broken(self) -> bool:
        """Return whether a device needs attention: it is missing, does not answer adb, or has a health other than healthy."""
        return self.is_missing or self.is_unreached or self.health not in (None, "healthy")

    @property
    def is_unreached(self) -> bool:
        """Return whether the device is a phone that adb lists but cannot use, for example because it is unauthorized."""
        return self.health is not None and self.state not in (READY, GONE, MISSING)


@dataclass(frozen=True, kw_only=True)
class FarmHost:
    """A host of the pool. `takes` lists the devices and capabilities of its slots; `state` is ready, draining or silent."""

    host: str
    version: str
    takes: tuple[str, ...]
    state: str


@dataclass(frozen=True, kw_only=True)
class FarmRun:
    """An unfinished run of the farm, with the number of its jobs in each state."""

    run_id: str
    jobs: Mapping[str, int]

    @property
    def share(self) -> float:
        """Return the fraction of a farm run's jobs that have ended, from 0 to 1. A run without jobs gives 0."""
        total = sum(self.jobs.values())
        return 1 - (self.jobs.get("waiting", 0) + self.jobs.get("running", 0)) / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class FarmJob:
    """A farm job: the device or capability that it needs, its owner and its state. `waits` says why it has not started."""

    id: int
    run_id: str
    kind: str
    needs: str
    owner: str
    state: str
    attempt: int
    most_attempts: int
    seat: str | None
    submitted_at: datetime
    reason: str | None
    waits: str | None


@dataclass(frozen=True, kw_only=True)
class FarmNow:
    """The farm's state: devices, hosts, unfinished runs, job counts by state, up to 100 jobs, and error messages.

    `shares` counts the slots that each user's jobs occupy now. `faults` has a message on a pool that does not answer.
    """

    schema_version: int = SCHEMA_VERSION
    devices: tuple[FarmDevice, ...]
    hosts: tuple[FarmHost, ...]
    shares: Mapping[str, int]
    runs: tuple[FarmRun, ...]
    states: Mapping[str, int]
    oldest_waits_s: float | None
    jobs: tuple[FarmJob, ...]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NightLine:
    """A nightly run, summarized. `rulings` counts verdicts by kind, such as REGRESSION, of which `standing` were first made in an
    earlier night. `outcome` is the worst kind, or empty.
    """

    night: str
    name: str
    began_at: datetime
    ended_at: datetime | None
    outcome: str
    rulings: Mapping[str, int]
    standing: int


@dataclass(frozen=True, kw_only=True)
class NightList:
    """The API document with a page of the list of nightly runs, latest first."""

    schema_version: int = SCHEMA_VERSION
    nights: tuple[NightLine, ...]


def night_line(head: NightHead) -> NightLine:
    outcome = next((kind.value for kind in (*WORST_FIRST, RulingKind.CLEAN) if head.rulings.get(kind)), "")
    return document_from(NightLine, head, night=head.night_id, outcome=outcome)


def read_work(layout: Layout) -> ActiveWork:
    return ActiveWork(work=tuple(map(_at_work, active_work(layout))))


def _at_work(progress: Progress) -> ActiveCommand:
    devices = tuple(
        ActiveDevice(address=address, stage=device.stage.value, doing=activity_text(device), share=device.share)
        for address, device in progress.devices.items()
    )
    stage, detail = ("measure", "") if devices else (progress.stage, progress.detail)
    return document_from(ActiveCommand, progress, stage=stage, detail=detail, devices=devices)


def activity_text(device: DeviceProgress) -> str:
    """Return a phrase for a device's progress in a running command, such as `launch 2 of 6`."""
    match device.stage:
        case Stage.PUSH:
            return f"{device.sent_bytes / MIB:.1f} of {device.total_bytes / MIB:.1f} MB pushed"
        case Stage.MEASURE:
            which = "/".join(filter(None, (device.task, device.variant and device.variant.value)))
            images = f", image {device.image} of {device.images}" if device.images else ""
            return f"launch {device.launch} of {device.launches}{images}{f', {which}' if which else ''}"
        case Stage.WAIT:
            return f"lost, waiting for its return: {device.reason}"
        case Stage.DONE:
            return f"all {device.launches} launches done" if device.launches != 1 else "the launch is done"


def read_farm(engine: sa.Engine, expected: Sequence[ExpectedPhone], slots: Sequence[Slot]) -> FarmNow:
    """Return the farm's state as FarmNow, from the database, farm.yaml and the pool's slots. Do not run adb, which could disturb
    measurements.
    """
    claims, counts = Leases(engine).standing(), job_counts(engine)
    phones = merged((), Inventory(engine).phones(), claims, expected, _NOBODY)
    latest = listed_jobs(engine)
    jobs = sorted(latest, key=lambda job: (_RANKS.get(job.state, 2), -job.id))[:_MAX_JOBS]
    return FarmNow(
        devices=(*map(_phone, phones), *_others(phones, claims, slots)),
        hosts=_hosts(slots),
        shares=Counter(slot.used_by for slot in slots if slot.used_by),
        runs=tuple(FarmRun(run_id=run_id, jobs=states) for run_id, states in open_runs(engine).items()),
        states=counts.states,
        oldest_waits_s=counts.oldest_waits_s,
        jobs=tuple(_job(job, latest, slots) for job in jobs),
    )


def farm_without_notes(expected: Sequence[ExpectedPhone]) -> FarmNow:
    """Return the state of a farm that has no database yet: a FarmNow with farm.yaml's phones, but no hosts, runs or jobs."""
    phones = merged((), (), {}, expected, _NOBODY)
    devices = tuple(map(_phone, phones))
    return FarmNow(devices=devices, hosts=(), shares={}, runs=(), states={}, oldest_waits_s=None, jobs=())


def farm_metrics(read: Callable[[], FarmNow]) -> bytes:
    """Return metrics in Prometheus' text format. If `read` raises QuadbenchError, `quadbench_database_up` (0) is the only one."""
    registry = CollectorRegistry()
    up = Gauge("quadbench_database_up", "1 where the farm's database is read, otherwise 0.", registry=registry)
    try:
        farm = read()
    except QuadbenchError as error:
        log.warning("no metrics of the farm: %s", error)
        return generate_latest(registry)
    up.set(1)
    jobs = Gauge("quadbench_jobs", "Jobs of the farm.", ["state"], registry=registry)
    for one in JobState:
        jobs.labels(one.value).set(farm.states.get(one.value, 0))
    leases = Gauge("quadbench_leases", "Devices that a job or a person has.", ["holder"], registry=registry)
    leases.labels("job").set(sum(device.job is not None for device in farm.devices))
    leases.labels("person").set(sum(device.reservation is not None for device in farm.devices))
    phones = Gauge("quadbench_phones", "Phones that were ever seen.", ["health", "state"], registry=registry)
    seen = Counter((device.health, device.state) for device in farm.devices if device.health)
    for (health, state), count in seen.items():
        phones.labels(health, state).set(count)
    return generate_latest(registry)


def _phone(phone: FarmPhone) -> FarmDevice:
    return document_from(
        FarmDevice,
        phone.seen,
        name=phone.name,
        profile=phone.seen.profile or "",
        health=phone.condition.health.value,
        reason=phone.condition.reason,
        is_missing=phone.is_missing,
        last_seen=phone.last_seen,
        job=_claim(phone.claims.job),
        reservation=_claim(phone.claims.reservation),
    )


def _others(phones: Sequence[FarmPhone], claims: dict[str, Claims], slots: Sequence[Slot]) -> list[FarmDevice]:
    """Return a FarmDevice for each device outside `phones` that is leased, reserved or has a slot, sorted by name."""
    known = {phone.seen.device for phone in phones}
    served = {slot.bay.name: slot for slot in slots if slot.bay.address}
    others = []
    for name in sorted({*claims, *served} - known):
        slot, claimed = served.get(name), claims.get(name, Claims())
        others.append(
            FarmDevice(
                name=slot.bay.address if slot else name,
                model="",
                profile=slot.bay.labels.get("profile", "") if slot else "",
                host=slot.host if slot else name.partition("@")[2],
                state=(slot.why_not_for(slot.bay.reserved_by or "") or FREE) if slot else "leased",
                health=None,
                reason=None,
                is_missing=False,
                last_seen=None,
                job=_claim(claimed.job),
                reservation=_claim(claimed.reservation),
            )
        )
    return others


def _hosts(slots: Sequence[Slot]) -> tuple[FarmHost, ...]:
    by_host: dict[str, list[Slot]] = {}
    for slot in slots:
        by_host.setdefault(slot.host, []).append(slot)
    return tuple(_host(host, own) for host, own in by_host.items())


def _host(host: str, slots: Sequence[Slot]) -> FarmHost:
    """Return the FarmHost with these slots. It is silent if none of them was described lately."""
    is_draining = any(slot.state == "draining" for slot in slots)
    state = "silent" if all(map(is_silent, slots)) else "draining" if is_draining else "ready"
    versions = sorted({slot.version for slot in slots if slot.version})
    offers = sorted((bool(slot.bay.address), offer) for slot in slots for offer in slot.bay.offers)
    return FarmHost(host=host, version=", ".join(versions), takes=tuple(offer for _, offer in offers), state=state)


def _claim(claim: Claim | None) -> FarmClaim | None:
    return None if claim is None else document_from(FarmClaim, claim)


def _job(job: Job, latest: Sequence[Job], slots: Sequence[Slot]) -> FarmJob:
    state = "asked to stop" if job.is_stopping and not job.state.is_end else job.state.value
    has_reason = job.state is JobState.WAITING and slots  # without slots, the pool is not known
    waits = one_line(why_not_started(job, latest, slots), _MAX_REASON) if has_reason else None
    return document_from(FarmJob, job, kind=job.kind.value, state=state, waits=waits)


_DOCUMENTS: dict[str, type[Any]] = {
    "comparison": ComparisonDocument,
    "history": CaseDocument,
    "night": NightDocument,
    "run": RunSummary,
    "runs": RunList,
    "sweep": SweepDocument,
}


def document_schemas() -> dict[str, dict[str, Any]]:
    """Return a dict from an API document's name, such as `run`, to its JSON schema. Schemas allow unknown keys."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    adapters = {name: TypeAdapter(document) for name, document in _DOCUMENTS.items()}
    return {name: {"$schema": dialect, **adapter.json_schema(mode="serialization")} for name, adapter in adapters.items()}
