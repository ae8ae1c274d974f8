"""Launcher of nightly comparisons on a device farm. It submits jobs to the farm's queue and collects the jobs' results.

The first jobs of a night have the night's id in the queue; later ones have that id with a number. A restarted night finds its
jobs by payload and waits for them.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import count
from typing import Any

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.artifacts.safe_text import check_file_name
from quadbench.dispatch.demands import compile_orders, only_device
from quadbench.dispatch.orders import BuildOrder, CompareAnswer, CompareOrder, SideOrder, answer_of, as_json
from quadbench.dispatch.plan import Demand, planned
from quadbench.dispatch.submission import Farm, to_build
from quadbench.errors import ArtifactError, DeviceNotFoundError, QuadbenchError, StorageError, UnknownNameError, UserError
from quadbench.farm.accounts import answers
from quadbench.farm.job import Job, JobKind, JobState
from quadbench.farm.job_rows import ReadJobs
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import JobQueue, check_job
from quadbench.farm.lease import Claims
from quadbench.farm.leases import Leases
from quadbench.farm.need import capability_need, needs_served
from quadbench.farm.store.artifacts import fetch, send
from quadbench.farm.store.launches import fetch_run
from quadbench.farm.workers import Workers
from quadbench.host import user_and_host
from quadbench.kits.store import find_kit
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly.launcher import NO_TIME, CaseRequest, CaseResult
from quadbench.observer import Observer
from quadbench.pipeline import RunOptions
from quadbench.quad.cache import digests_of
from quadbench.recipe import Measure
from quadbench.report.run_line import write_comparison
from quadbench.results.documents import document_from
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import store_fetched
from quadbench.rollout.recovery import WAIT_S
from quadbench.study.comparison_side import SideSpec, measure_for

_LOOK_S = 1.0
_UNREAD = "is not in the queue, or cannot be read there"
_IN_A_BATCH = 300  # comparisons per batch, few enough to list with the jobs that they need

_Need = tuple[str, str]  # a need of a job, and the quadbench version that it requires

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _FarmComparison:
    """A farm job that compares two bundles on one device. `builds` are earlier jobs that build bundles missing on the farm."""

    case: str
    word: str
    demand: Demand
    builds: tuple[BuildOrder, ...]

    @property
    def payload_text(self) -> str:
        """Return the payload of the farm job as JSON text. A restarted nightly run finds jobs in the queue by payload text."""
        return _as_text(as_json(self.demand.order))


@dataclass(frozen=True, kw_only=True)
class FarmLauncher:
    """The launcher that runs a night's comparisons on the devices of a farm."""

    night_id: str
    farm: Farm
    layout: Layout
    observer: Observer
    _gone_since: dict[_Need, float] = field(default_factory=dict)  # monotonic time since which no worker serves a need

    def bundle(self, digest: str) -> StoredBundle:
        """Return the bundle with this digest, from the results folder or from the farm's store."""
        return fetch(Bundle, digest, self.layout, self.farm.store)

    def launch(self, requests: Sequence[CaseRequest], budget: Budget | None) -> Iterator[CaseResult]:
        """Run comparisons as farm jobs and yield CaseResults. Reuse the night's jobs, except failed or cancelled jobs."""
        work = list[_FarmComparison]()
        for asked in requests:
            for done in self._work_of(asked):
                if isinstance(done, CaseResult):
                    yield done
                else:
                    work.append(done)
        there = {
            payload_text: job
            for payload_text, job in self._comparisons().items()
            if job.state is JobState.DONE or not job.state.is_end  # failed and cancelled jobs give no result
        }
        self._submit([one for one in work if one.payload_text not in there])
        there, pending = self._comparisons(), dict[int, _FarmComparison]()
        for one in work:
            if job := there.get(one.payload_text):
                pending[job.id] = one
            else:
                yield CaseResult(case=one.case, word=one.word, reason=f"its job {_UNREAD}")
        while pending:
            for job_id, ended in self._wait_for_jobs(set(pending), budget).items():
                yield self._job_result(job_id, ended, pending.pop(job_id))

    def _work_of(self, requests: CaseRequest) -> Iterator[_FarmComparison | CaseResult]:
        """Yield a _FarmComparison (planned farm job) for each requested device, or a failed CaseResult if planning fails."""
        devices, sides = self.farm.devices, dict[tuple[str, str], tuple[SideOrder, BuildOrder | None]]()
        for word in requests.words:
            try:
                asked = only_device(word, devices)
                profile, measure = asked.fit[0].labels["profile"], measure_for(requests.a, requests.b)
                for letter, chosen in (("A", requests.a), ("B", requests.b)):
                    if (letter, profile) not in sides:
                        sides[letter, profile] = self._side(chosen, profile, measure)
                (a, build_a), (b, build_b) = sides["A", profile], sides["B", profile]
                order = CompareOrder(
                    case=requests.case,
                    word=word,
                    a=a,
                    b=b,
                    looks=requests.looks,
                    goals=requests.goals,
                    tasks=requests.tasks,
                    conduct=RunOptions(),
                    target=asked.target,
                )
                compiled = dict.fromkeys(one for side in (a, b) for one in compile_orders(asked, {profile: side.bundle}))
                demand = Demand(needs=asked.needs, order=order, compiled=tuple(compiled))
                builds = tuple(build for build in (build_a, build_b) if build)
                for new in planned(builds, [demand]):
                    check_job(new)
                yield _FarmComparison(case=requests.case, word=word, demand=demand, builds=builds)
            except QuadbenchError as error:
                may_pass = isinstance(error, StorageError | DeviceNotFoundError)
                yield replace(CaseResult.failed(requests.case, word, error), is_transient=may_pass)

    def _side(self, chosen: SideSpec, profile: str, measure: Measure) -> tuple[SideOrder, BuildOrder | None]:
        """Upload a build's files to the farm. Return (SideOrder, BuildOrder), or (SideOrder, None) if the bundle exists."""
        if chosen.harness:
            raise UserError(f"the hosts of a farm use their own harnesses, not '{chosen.harness}'", hint="remove the harness")
        store, build, kit = self.farm.store, None, find_kit(chosen.kit, self.layout) if chosen.kit else None
        if kit:
            send(kit, store)
        if chosen.recipe:
            recipe = chosen.recipe.for_device(profile)
            digest = digests_of(recipe).bundle
            build = to_build(digest, recipe, store, self.layout, self.observer)
        else:
            stored = chosen.bundles([profile], layout=self.layout, observer=self.observer)[profile]
            send(stored, store)
            digest = stored.artifact.digest
        terms, kit_digest = replace(chosen.terms, measure=measure), kit.artifact.digest if kit else None
        return document_from(SideOrder, chosen, bundle=digest, kit=kit_digest, terms=terms), build

    def _comparisons(self) -> dict[str, Job]:
        """Return the night's comparison jobs as a dict from payload text to Job. Of jobs with equal payloads, keep the latest."""
        jobs = [job for listed in self._read_jobs() for job in listed.jobs]
        return {_as_text(job.payload): job for job in jobs if job.kind is JobKind.COMPARE}

    def _read_jobs(self) -> Iterator[ReadJobs]:
        """Read the night's jobs from the queue. Per submitted batch, yield a ReadJobs: jobs, and errors of damaged rows."""
        for number in count(1):
            try:
                yield listed_jobs(self.farm.engine, self._run_id(number))
            except UnknownNameError:
                return

    def _run_id(self, number: int) -> str:
        return self.night_id if number == 1 else f"{self.night_id}.{number}"

    def _submit(self, work: Sequence[_FarmComparison]) -> None:
        queue, owner, there = JobQueue(self.farm.engine), user_and_host(), len(list(self._read_jobs()))
        for start in range(0, len(work), _IN_A_BATCH):
            batch, number = work[start : start + _IN_A_BATCH], there + start // _IN_A_BATCH + 1
            builds = {build.bundle: build for one in batch for build in one.builds}
            jobs = planned(list(builds.values()), [one.demand for one in batch])
            queue.submit(self._run_id(number), jobs, owner, version("quadbench"))

    def _wait_for_jobs(self, pending: set[int], budget: Budget | None) -> dict[int, Job | None]:
        """Wait a second. Cancel waiting jobs if the time budget is over or no worker has fitted them for minutes. Return a dict
        from job id to the ended Job, or to None if the queue no longer lists the job.
        """
        time.sleep(_LOOK_S)
        try:
            night = {job.id: job for listed in self._read_jobs() for job in listed.jobs}
            jobs = [night[job_id] for job_id in sorted(pending & night.keys())]
            served = self._served_needs()
        except StorageError as error:
            log.warning("the queue cannot be reached: %s", error)
            return {}
        for job in jobs:
            why = self._cancel_reason(job, night, served, budget) if job.state is JobState.WAITING else None
            if why and not self._cancel(job, why):
                del night[job.id]
        running = ", ".join(f"{job.payload.get('case')} at {job.seat}" for job in jobs if job.state is JobState.RUNNING)
        self.observer.stage_step("farm", f"{len(jobs)} comparisons left; running: {running or 'none'}")
        return {job.id: job for job in jobs if job.state.is_end} | dict.fromkeys(pending - night.keys())

    def _cancel(self, job: Job, why: str) -> bool:
        """Cancel a farm job. Return False if the job's row is missing or damaged, else True, even if the queue is unreachable."""
        try:
            JobQueue(self.farm.engine).cancel(job.id, why)
        except (ArtifactError, UnknownNameError) as error:
            log.warning("job %d could not be cancelled: %s", job.id, error)
            return isinstance(error, StorageError)
        return True

    def _cancel_reason(self, job: Job, night: Mapping[int, Job], served: Set[_Need], budget: Budget | None) -> str | None:
        """Return why a waiting job must be cancelled (time is over, or no worker fits); None if it may keep waiting."""
        if budget and budget.left_s <= 0:
            return f"{NO_TIME} it"
        now, behind, waiting = time.monotonic(), [job], dict[int, Job]()  # the job and its dependencies that still wait
        while behind:
            one = behind.pop()
            if one.id not in waiting and one.state is JobState.WAITING:
                waiting[one.id] = one
                behind += [night[job_id] for job_id in one.after if job_id in night]
        for needs in sorted({(one.needs, one.version) for one in waiting.values()} - served):
            if now - self._gone_since.setdefault(needs, now) > WAIT_S:
                return f"no worker with quadbench {needs[1]} has had the {needs[0]} for {WAIT_S / 60:g} minutes"
        return None

    def _served_needs(self) -> set[_Need]:
        """Return the job needs that active workers can serve, as a set of (need such as `device NAME`, quadbench version). Skip a
        device reserved by anyone but its worker's user and host. Delete the served pairs from `_gone_since` (unserved pairs).
        """
        standing, served = Leases(self.farm.engine).standing(), set[_Need]()
        for worker in (known.worker for known in Workers(self.farm.engine).known() if known.is_here):
            needs = set(map(capability_need, worker.capabilities))
            for device in worker.devices:
                reservation = standing.get(device.name, Claims()).reservation
                if reservation is None or reservation.owner == device.owner:
                    needs |= needs_served(device.name, device.labels)
            served |= {(need, worker.version) for need in needs}
        for there in served:
            self._gone_since.pop(there, None)
        return served

    def _job_result(self, job_id: int, job: Job | None, work: _FarmComparison) -> CaseResult:
        """Fetch a farm job's runs into the results folder, and return the job's CaseResult. On failure, `reason` says why."""
        came = CaseResult(case=work.case, word=work.word)
        if job is None:
            return replace(came, reason=f"job {job_id} {_UNREAD}")
        if job.state is not JobState.DONE:
            return replace(came, reason=f"job {job.id} {job.state}: {job.reason or 'no reason given'}")
        try:
            answer = answer_of(job, answers(self.farm.engine, [job]).get(job.id), CompareAnswer)
            versus = answer.versus
            check_file_name(versus.comparison_id)
            (device,) = versus.devices
            for run in answer.runs:  # fetched as if they had been launched here
                for fault in fetch_run(run.run_id, self.layout, self.farm.store).refused:
                    log.warning("%s", fault)
                store_fetched(self.layout, run)
            write_comparison(versus, self.layout)
        except (ArtifactError, ValueError) as error:
            why, is_unstored = f"the result of job {job.id} cannot be used: {error}", isinstance(error, StorageError)
            return replace(came, reason=why, is_transient=is_unstored, is_storage_failure=is_unstored)
        runs = answer.runs[0].run_id, answer.runs[1].run_id
        return replace(came, device=job.seat, versus=device, comparison=versus.comparison_id, runs=runs)


def _as_text(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, sort_keys=True)
