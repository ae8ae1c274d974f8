"""Collect the results of a farm's run into the local results folder, and write the run's report."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quadbench.artifacts import Bundle, DeviceFacts, RunRecord, StoredBundle
from quadbench.dispatch.orders import MeasureAnswer, MeasureOrder, answer_of, order_of
from quadbench.dispatch.submission import Farm
from quadbench.errors import ArtifactError, JobFailedError, QuadbenchError
from quadbench.farm.dag import settle
from quadbench.farm.job import Job, JobKind, JobState
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.store.artifacts import fetch
from quadbench.farm.store.launches import fetch_run
from quadbench.farm.store.objects import Store
from quadbench.observer import Observer
from quadbench.pipeline import RunOutcome
from quadbench.report.formatting import plural
from quadbench.report.html import write_report
from quadbench.results.digests import content_digest
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import RunFile, load_records, load_run, merge_parts, store_fetched

_LOOK_S = 1.0
_SETTLE_S = 20.0

log = logging.getLogger(__name__)


def wait_for(run_id: str, farm: Farm, observer: Observer) -> list[Job]:
    """Wait until all jobs of a run have ended, and return them. Progress is reported to the observer."""
    told, looked_at = "", -math.inf
    while True:
        if time.monotonic() - looked_at > _SETTLE_S:
            looked_at = time.monotonic()
            try:
                settle(farm.engine, farm.pool)
            except QuadbenchError as error:
                log.warning("whether all jobs are still in the pool's queue is not known: %s", error)
        jobs = listed_jobs(farm.engine, run_id)
        ended = sum(job.state.is_end for job in jobs)
        running = ", ".join(f"{job.kind} at {job.seat}" for job in jobs if job.state is JobState.RUNNING)
        if (text := f"{ended} of {plural(len(jobs), 'job')} ended; {running or 'none'} running") != told:
            observer.stage_step("farm", told := text)
        if ended == len(jobs):
            return jobs
        time.sleep(_LOOK_S)


def gathered(run_id: str, jobs: Sequence[Job], raw: Mapping[int, Any], store: Store, layout: Layout) -> RunOutcome:
    """Fetch a run's launch files and write its run file and report. Return a RunOutcome. `raw` maps job id to JSON result.

    The run file has the reasons of failed jobs. Such a device's part can be resumed if some of its launches are stored.

    Raises:
        JobFailedError: nothing was measured; the message is that of the first failed job.
        StorageError, ArtifactError: the store or the results folder cannot be used, or stored data is damaged.
    """
    measured = [job for job in jobs if job.kind is JobKind.MEASURE]
    parts = [answer_of(job, raw.get(job.id), MeasureAnswer).part for job in measured if job.state is JobState.DONE]
    broken = {job.seat or job.needs: job for job in measured if job.state is not JobState.DONE}
    failures: dict[str, QuadbenchError] = {name: _failure(job) for name, job in broken.items()}
    if not parts:
        raise next(iter(failures.values()), JobFailedError(f"run {run_id} has no measurement"))
    orders = [order for order in map(order_of, measured) if isinstance(order, MeasureOrder)]
    digests = {digest for order in orders for digest in order.bundles.values()}
    bundles = {digest: fetch(Bundle, digest, layout, store) for digest in digests}
    fetched = fetch_run(run_id, layout, store)
    records = load_records(layout, run_id) if broken else ()
    begun = {name: last for name, job in broken.items() if (last := _last_at(job, records)) and last.bundle_digest in bundles}
    lost = [_part_of(last.device, bundles[last.bundle_digest], parts[0]) for last in begun.values()]
    whole = merge_parts([*parts, *lost])
    reasons = {begun[name].device.address if name in begun else name: str(failure) for name, failure in failures.items()}
    store_fetched(layout, replace(whole, is_ended=whole.is_ended and not failures, left_out=whole.left_out | reasons))
    result = load_run(layout, run_id)
    if fetched.refused:
        count = f"{len(fetched.refused)} of {len(fetched.refused) + fetched.launches}"
        reason = f"the files of {count} launches are not whole in the store, as of {fetched.refused[0]}"
        failures[f"run {run_id}"] = ArtifactError(reason, hint="its figures are whole")
    return RunOutcome(result=result, report=write_report(result, layout), failures=failures)


def _last_at(job: Job, records: Sequence[RunRecord]) -> RunRecord | None:
    """Return the latest launch record from the device that ran the job's last attempt, or None if there is no such record."""
    names = (job.seat, (job.seat or "").rpartition("@")[0])  # phones are leased by adb serial, other devices by serial@host
    return next((record for record in reversed(records) if record.device.serial in names), None)


def _part_of(device: DeviceFacts, bundle: StoredBundle, other: RunFile) -> RunFile:
    """Return a run file for a device whose failed job wrote none. Copy the run settings from `other`, another device's file."""
    name = bundle.folder.name
    contents = {name: content_digest(bundle.artifact)}
    own = replace(other, bundle=name, others={}, contents=contents, devices=(device,), hosted=())
    return replace(own, deployments=(), retries=(), left_out={})


def _failure(job: Job) -> JobFailedError:
    reason, _, hint = (job.reason or "no reason").partition(". Hint: ")
    logs = f"quadbench farm logs {job.id}"
    came_to = f"was {reason}" if reason.startswith("cancelled") else f"{job.state}: {reason}"
    return JobFailedError(f"job {job.id} {came_to}", hint=f"{hint}; see also: {logs}" if hint else logs)
