"""Documents: what pages show and the API answers beside what commands print: the farm, work under way and nights."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quadbench.farm.inventory import READY
from quadbench.farm.overview import GONE, MISSING

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DeviceAtWork:
    """A device in work under way: its stage (push, measure, wait or done), what it does there in words, and the share done."""

    address: str
    stage: str
    doing: str
    share: float | None


@dataclass(frozen=True, kw_only=True)
class AtWork:
    """A command at work: what it does, for whom, the step of its stage, and its devices. A comparison names no run."""

    what: str
    owner: str
    run_id: str | None
    began_at: datetime
    stage: str
    detail: str
    devices: tuple[DeviceAtWork, ...]


@dataclass(frozen=True, kw_only=True)
class WorkUnderWay:
    """The work that goes on at this moment, by commands with this results folder; a farm's runs stand with the farm."""

    schema_version: int = SCHEMA_VERSION
    work: tuple[AtWork, ...]


@dataclass(frozen=True, kw_only=True)
class FarmClaim:
    """A claim on a device, by a job or by a person who has reserved it."""

    owner: str
    purpose: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class FarmDevice:
    """A device that was seen, is leased or that a worker takes jobs for. What is not known of it is empty or None."""

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
        """Say whether somebody should look at it."""
        return self.is_missing or self.is_unreached or self.health not in (None, "healthy")

    @property
    def is_unreached(self) -> bool:
        """Say whether it is a phone that is attached and does not answer."""
        return self.health is not None and self.state not in (READY, GONE, MISSING)


@dataclass(frozen=True, kw_only=True)
class FarmWorker:
    """A worker, which takes jobs for devices and by capabilities. Its state is ready, draining or lost."""

    name: str
    host: str
    version: str
    takes: tuple[str, ...]
    state: str
    last_seen: datetime


@dataclass(frozen=True, kw_only=True)
class FarmRun:
    """A run of the farm that is not at its end: its jobs by state."""

    run_id: str
    jobs: Mapping[str, int]

    @property
    def share(self) -> float:
        """Return the share of the jobs to which nothing happens any more."""
        total = sum(self.jobs.values())
        return 1 - (self.jobs.get("waiting", 0) + self.jobs.get("running", 0)) / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class FarmJob:
    """A job of the queue: what it needs, for whom, and how it stands."""

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


@dataclass(frozen=True, kw_only=True)
class FarmNow:
    """The farm at one moment: devices, workers, open runs, jobs by state, the latest jobs, and what is wrong with the queue."""

    schema_version: int = SCHEMA_VERSION
    devices: tuple[FarmDevice, ...]
    workers: tuple[FarmWorker, ...]
    runs: tuple[FarmRun, ...]
    states: Mapping[str, int]
    oldest_waits_s: float | None
    jobs: tuple[FarmJob, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NightLine:
    """A night: the worst that was ruled, and how many rulings of each kind stand."""

    night: str
    name: str
    began_at: datetime
    ended_at: datetime | None
    outcome: str
    rulings: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class NightList:
    """Nights, latest first."""

    schema_version: int = SCHEMA_VERSION
    nights: tuple[NightLine, ...]
