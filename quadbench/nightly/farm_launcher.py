"""Launcher of nightly comparisons on a device farm. It submits jobs as DAGs to the farm's pool and collects their results.

The first jobs of a night have the night's id as their run; later ones have that id with a number. A restarted night finds its
jobs by payload and waits for them. What one case lacks costs no other case, and a silent pool or database costs only time.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.artifacts.safe_text import check_file_name
from quadbench.dispatch.demands import Asked, only_device, planned
from quadbench.dispatch.orders import BuildOrder, CompareAnswer, CompareOrder, SideOrder, answer_of, as_json
from quadbench.dispatch.submission import Farm, to_build
from quadbench.errors import ArtifactError, DeviceNotFoundError, QuadbenchError, StorageError, UnknownNameError, UserError
from quadbench.farm.dag import remove_jobs
from quadbench.farm.job import Job, JobKind, JobState
from quadbench.farm.job_status import answers, listed_jobs
from quadbench.farm.jobs import FarmJobs, check_job
from quadbench.farm.slots import Bay
from quadbench.farm.store.artifacts import fetch, send
from quadbench.farm.store.launches import fetch_run
from quadbench.kits.store import find_kit
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly.launcher import NO_TIME, CaseRequest, CaseResult
from quadbench.nightly.pool_watch import AWAY, LOOK_S, Patience, ServedNeeds
from quadbench.observer import Observer
from quadbench.pipeline import RunOptions
from quadbench.quad.cache import digests_of
from quadbench.recipe import Measure
from quadbench.report.run_line import write_comparison
from quadbench.results.documents import document_from
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import store_fetched
from quadbench.study.run_comparison import SideSpec, measure_for

_UNREAD = "is not in the database, or cannot be read there"
_IN_A_BATCH = 300  # comparisons per batch, few enough to list with the jobs that they need

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _FarmComparison:
    """A farm job that compares two bundles on one device. `builds` are earlier jobs that build bundles missing on the farm."""

    case: str
    word: str
    asked: Asked
    order: CompareOrder
    builds: tuple[BuildOrder, ...]

    @property
    def payload_text(self) -> str:
        """Return the payload of the farm job as JSON text. A restarted nightly run finds its jobs by payload text."""
        return _as_text(as_json(self.order))


@dataclass(frozen=True, kw_only=True)
class FarmLauncher:
    """The launcher that runs a night's comparisons on the devices of a farm."""

    night_id: str
    farm: Farm
    layout: Layout
    observer: Observer

    def bundle(self, digest: str) -> StoredBundle:
        """Return the bundle with this digest, from the results folder or from the farm's store."""
        return fetch(Bundle, digest, self.layout, self.farm.store)

    def launch(self, requests: Sequence[CaseRequest], budget: Budget | None) -> Iterator[CaseResult]:
        """Run comparisons as farm jobs and yield CaseResults. Reuse the night's jobs, except failed or cancelled jobs."""
        patience = Patience(budget)
        try:
            devices, known = patience.ask(lambda: self.farm.devices), patience.ask(self._comparisons)
        except AWAY as error:
            yield from (CaseResult.failed(one.case, word, error) for one in requests for word in one.words)
            return
        work, pending = list[_FarmComparison](), dict[int, _FarmComparison]()
        for asked in requests:
            for done in self._work_of(asked, devices):
                if isinstance(done, CaseResult):
                    yield done
                elif (job := known.get(done.payload_text)) and (job.state is JobState.DONE or not job.state.is_end):
                    pending[job.id] = done
                else:  # failed and cancelled jobs give no result
                    work.append(done)
        for start in range(0, len(work), _IN_A_BATCH):
            batch = work[start : start + _IN_A_BATCH]
            try:
                new = patience.ask(partial(self._submit, batch))
            except QuadbenchError as error:
                yield from (replace(CaseResult.failed(one.case, one.word, error), is_transient=True) for one in batch)
                continue
            pending |= {new[one.payload_text].id: one for one in batch if one.payload_text in new}
            lost = [one for one in batch if one.payload_text not in new]
            yield from (CaseResult(case=one.case, word=one.word, reason=f"its job {_UNREAD}") for one in lost)
        watch = ServedNeeds(self.farm)
        while pending:
            for job_id, ended in self._wait_for_jobs(set(pending), watch, budget).items():
                yield self._job_result(job_id, ended, pending.pop(job_id))
        self._cancel_left_over()

    def _work_of(self, requests: CaseRequest, devices: Sequence[Bay]) -> Iterator[_FarmComparison | CaseResult]:
        """Yield a _FarmComparison (planned farm job) for each requested device, or a failed CaseResult if planning fails."""
        sides = dict[tuple[str, str], tuple[SideOrder, BuildOrder | None]]()
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
                builds = tuple(build for build in (build_a, build_b) if build)
                for new in planned(builds, [(asked, order)]):
                    check_job(new)
                yield _FarmComparison(case=requests.case, word=word, asked=asked, order=order, builds=builds)
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
        return _comparisons_of([job for listed in self._read_jobs() for job in listed])

    def _read_jobs(self) -> Iterator[list[Job]]:
        """Read the night's jobs from the database. Per submitted batch, yield a list of them."""
        for number in count(1):
            try:
                yield listed_jobs(self.farm.engine, self._run_id(number))
            except UnknownNameError:
                return

    def _run_id(self, number: int) -> str:
        return self.night_id if number == 1 else f"{self.night_id}.{number}"

    def _submit(self, batch: Sequence[_FarmComparison]) -> dict[str, Job]:
        """Submit a batch of comparisons as one DAG. Return a dict from payload text to the job of the comparison."""
        builds = {build.bundle: build for one in batch for build in one.builds}
        jobs = planned(list(builds.values()), [(one.asked, one.order) for one in batch])
        run_id = self._run_id(len(list(self._read_jobs())) + 1)
        return _comparisons_of(self.farm.submit(run_id, jobs, may_wait=True))

    def _wait_for_jobs(self, pending: set[int], watch: ServedNeeds, budget: Budget | None) -> dict[int, Job | None]:
        """Wait two seconds. Cancel waiting jobs if the time budget is over or no slot has fitted them for minutes. Return a dict
        from job id to the ended Job, or to None if the database no longer has the job.
        """
        time.sleep(LOOK_S)
        watch.look()
        try:
            night = {job.id: job for listed in self._read_jobs() for job in listed}
        except StorageError as error:
            log.warning("the farm's database does not answer: %s", error)
            return {}
        jobs = [night[job_id] for job_id in sorted(pending & night.keys())]
        waiting = [job for job in jobs if job.state is JobState.WAITING]
        lost = self._cancel({job.id: why for job in waiting if (why := _cancel_reason(job, night, watch, budget))})
        running = ", ".join(f"{job.payload.get('case')} at {job.seat}" for job in jobs if job.state is JobState.RUNNING)
        self.observer.stage_step("farm", f"{len(jobs)} comparisons left; running: {running or 'none'}")
        return {job.id: job for job in jobs if job.state.is_end} | dict.fromkeys((pending - night.keys()) | lost)

    def _cancel(self, reasons: Mapping[int, str]) -> set[int]:
        """Cancel jobs, each for its reason, here and in the pool. Return the ids of jobs whose rows are missing or damaged."""
        jobs, lost, cancelled = FarmJobs(self.farm.engine), set[int](), list[Job]()
        for job_id, why in reasons.items():
            try:
                cancelled.append(jobs.cancel(job_id, why))
            except StorageError as error:
                log.warning("jobs are cancelled later: %s", error)
                break
            except (ArtifactError, UnknownNameError) as error:
                log.warning("job %d could not be cancelled: %s", job_id, error)
                lost.add(job_id)
        try:
            remove_jobs(self.farm.pool, cancelled, f"night {self.night_id} cancelled it")
        except QuadbenchError as error:  # a slot that starts such a job ends it at once
            log.warning("cancelled jobs stay in the pool's queue: %s", error)
        return lost

    def _cancel_left_over(self) -> None:
        """Cancel the night's builds that still wait although no comparison needs them any more. They would stay in the pool."""
        try:
            jobs = {job.id: job for listed in self._read_jobs() for job in listed if job.state is JobState.WAITING}
        except ArtifactError as error:
            log.warning("builds that nobody needs may be left in the pool: %s", error)
            return
        needed = {one.id for job in jobs.values() if job.kind is JobKind.COMPARE for one in _waits_for(job, jobs)}
        self._cancel(dict.fromkeys(jobs.keys() - needed, "no comparison needs it any more"))

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


def _cancel_reason(job: Job, night: Mapping[int, Job], watch: ServedNeeds, budget: Budget | None) -> str | None:
    """Return why a waiting job must be cancelled (time is over, or no slot fits); None if it may keep waiting."""
    if budget and budget.left_s <= 0:
        return f"{NO_TIME} it"
    return watch.unserved_reason({(one.needs, one.version) for one in _waits_for(job, night)})


def _waits_for(job: Job, night: Mapping[int, Job]) -> list[Job]:
    """Return a waiting job, and those of its direct and indirect dependencies that still wait."""
    behind, waiting = [job], dict[int, Job]()
    while behind:
        one = behind.pop()
        if one.id not in waiting and one.state is JobState.WAITING:
            waiting[one.id] = one
            behind += [night[job_id] for job_id in one.after if job_id in night]
    return list(waiting.values())


def _comparisons_of(jobs: Sequence[Job]) -> dict[str, Job]:
    return {_as_text(job.payload): job for job in jobs if job.kind is JobKind.COMPARE}


def _as_text(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, sort_keys=True)
