"""The farm as the live page shows it: devices, hosts, runs, jobs and why they wait; its metrics; words for running work."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from quadbench.artifacts import MIB
from quadbench.artifacts.night_record import RulingKind
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.lab.farm_file import ExpectedPhone
from quadbench.devices.lab.inventory import READY, Inventory
from quadbench.devices.lab.leases import Claim, Claims, Leases
from quadbench.devices.lab.overview import GONE, MISSING, FarmPhone, merged
from quadbench.errors import QuadbenchError
from quadbench.farm.job import Job, JobState
from quadbench.farm.job_status import job_counts, listed_jobs, open_runs
from quadbench.farm.slots import Slot, is_silent, why_not_started
from quadbench.report.night import WORST_FIRST
from quadbench.results.progress import DeviceProgress, Stage

_MAX_JOBS = 100
_MAX_REASON = 500  # characters of the reason why a job waits
_RANKS = {JobState.RUNNING: 0, JobState.WAITING: 1}  # order of jobs; ended ones come last, each group latest first
FREE = "free"
"""The state of a device outside the inventory whose slot can start a job now."""

log = logging.getLogger(__name__)
_NOBODY = "here"  # stands for no host: a phone's state is that of the host that saw it last


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
    job: Claim | None
    reservation: Claim | None

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
    """A farm job, the word for its state, and why it has not started; None if it has, or if the pool is not known."""

    job: Job
    state: str
    waits: str | None


@dataclass(frozen=True, kw_only=True)
class FarmNow:
    """The farm's state: devices, hosts, unfinished runs, job counts by state, up to 100 jobs, and error messages.

    `shares` counts the slots that each user's jobs occupy now. `faults` has a message on a pool that does not answer.
    """

    devices: tuple[FarmDevice, ...]
    hosts: tuple[FarmHost, ...]
    shares: Mapping[str, int]
    runs: tuple[FarmRun, ...]
    states: Mapping[str, int]
    oldest_waits_s: float | None
    jobs: tuple[FarmJob, ...]
    faults: tuple[str, ...] = ()


def night_outcome(rulings: Mapping[str, int]) -> str:
    """Return the worst kind of verdict among a night's counts by kind, such as REGRESSION, or an empty text."""
    return next((kind.value for kind in (*WORST_FIRST, RulingKind.CLEAN) if rulings.get(kind)), "")


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
    seen = phone.seen
    return FarmDevice(
        name=phone.name,
        model=seen.model,
        profile=seen.profile or "",
        host=seen.host,
        state=seen.state,
        health=phone.condition.health.value,
        reason=phone.condition.reason,
        is_missing=phone.is_missing,
        job=phone.claims.job,
        reservation=phone.claims.reservation,
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
                job=claimed.job,
                reservation=claimed.reservation,
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


def _job(job: Job, latest: Sequence[Job], slots: Sequence[Slot]) -> FarmJob:
    state = "asked to stop" if job.is_stopping and not job.state.is_end else job.state.value
    has_reason = job.state is JobState.WAITING and slots  # without slots, the pool is not known
    waits = one_line(why_not_started(job, latest, slots), _MAX_REASON) if has_reason else None
    return FarmJob(job=job, state=state, waits=waits)
