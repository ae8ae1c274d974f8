"""Farm now: the database -> the farm at this moment: its devices with who has them, its workers, runs and jobs."""

from collections.abc import Sequence

import sqlalchemy as sa

from quadbench.farm.farm_file import ExpectedPhone
from quadbench.farm.inventory import Inventory
from quadbench.farm.job import Job, JobState
from quadbench.farm.job_status import listed_jobs, open_runs, queue_status
from quadbench.farm.lease import Claim, Claims
from quadbench.farm.leases import Leases
from quadbench.farm.overview import FarmPhone, merged
from quadbench.farm.workers import KnownWorker, Workers
from quadbench.serve.documents import FarmClaim, FarmDevice, FarmJob, FarmNow, FarmRun, FarmWorker

_MOST_JOBS = 100
_NOBODY = "here"  # no host: a phone is as whichever host saw it last told of it


def read_farm(engine: sa.Engine, expected: Sequence[ExpectedPhone]) -> FarmNow:
    """Return the farm. Adb is not asked: what runs on the phones is not disturbed.

    Raises:
        StorageError, ArtifactError: the database cannot be read.
    """
    claims, workers, queue = Leases(engine).standing(), Workers(engine).known(), queue_status(engine)
    phones = merged((), Inventory(engine).phones(), claims, expected, _NOBODY)
    jobs = listed_jobs(engine).jobs
    return FarmNow(
        devices=(*map(_phone, phones), *_others(phones, claims, workers)),
        workers=tuple(map(_worker, workers)),
        runs=tuple(FarmRun(run_id=run_id, jobs=states) for run_id, states in open_runs(engine).items()),
        states=queue.states,
        oldest_waits_s=queue.oldest_waits_s,
        jobs=tuple(map(_job, sorted(jobs, key=_order)[:_MOST_JOBS])),
        faults=tuple(queue.faults),
    )


def farm_without_database(expected: Sequence[ExpectedPhone]) -> FarmNow:
    """Return a farm of which nothing was ever noted: there are only the phones that it should have."""
    phones = merged((), (), {}, expected, _NOBODY)
    devices = tuple(map(_phone, phones))
    return FarmNow(devices=devices, workers=(), runs=(), states={}, oldest_waits_s=None, jobs=(), faults=())


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
        last_seen=phone.last_seen,
        job=_claim(phone.claims.job),
        reservation=_claim(phone.claims.reservation),
    )


def _others(phones: Sequence[FarmPhone], claims: dict[str, Claims], workers: Sequence[KnownWorker]) -> list[FarmDevice]:
    """Return what is no phone of the inventory: devices that are leased, and those that workers take jobs for."""
    known = {phone.seen.device for phone in phones}
    served = {device.name: (device, each) for each in workers if each.is_here for device in each.worker.devices}
    others = []
    for name in sorted({*claims, *served} - known):
        device, worker = served.get(name, (None, None))
        claimed = claims.get(name, Claims())
        others.append(
            FarmDevice(
                name=device.address if device else name,
                model="",
                profile=device.labels.get("profile", "") if device else "",
                host=worker.worker.host if worker else name.partition("@")[2],
                state="served by a worker" if worker else "leased",
                health=None,
                reason=None,
                is_missing=False,
                last_seen=worker.last_seen if worker else None,
                job=_claim(claimed.job),
                reservation=_claim(claimed.reservation),
            )
        )
    return others


def _claim(claim: Claim | None) -> FarmClaim | None:
    return None if claim is None else FarmClaim(owner=claim.owner, purpose=claim.purpose, until=claim.until)


def _worker(known: KnownWorker) -> FarmWorker:
    worker = known.worker
    return FarmWorker(
        name=worker.name,
        host=worker.host,
        version=worker.version,
        takes=(*worker.capabilities, *(device.address for device in worker.devices)),
        state="lost" if not known.is_here else "draining" if known.is_draining else "ready",
        last_seen=known.last_seen,
    )


def _order(job: Job) -> tuple[int, int]:
    """Return what jobs are sorted by: those that run, those that wait, those that have ended, the latest first."""
    rank = {JobState.RUNNING: 0, JobState.WAITING: 1}.get(job.state, 2)
    return rank, -job.id


def _job(job: Job) -> FarmJob:
    return FarmJob(
        id=job.id,
        run_id=job.run_id,
        kind=job.kind.value,
        needs=job.needs,
        owner=job.owner,
        state="asked to stop" if job.is_stopping and not job.state.is_end else job.state.value,
        attempt=job.attempt,
        most_attempts=job.most_attempts,
        seat=job.seat,
        submitted_at=job.submitted_at,
        reason=job.reason,
    )
