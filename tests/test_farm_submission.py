"""A run reaches the pool and the database, or neither; what left the pool's queue, or lost its host, is known in the database."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.farm_night import NIGHT, PHONE, begun, comparison, jobs_of, night_launcher, night_pool
from support.scripted_pool import ScriptedPool
from support.sentences import raising, says

from quadbench.dispatch.submission import Farm
from quadbench.errors import AttemptOverError, ServiceError, UnknownNameError, UserError
from quadbench.farm.condor import Condor
from quadbench.farm.dag import settle
from quadbench.farm.job import JobState
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.store.opening import STORE_VARIABLE, store_name
from quadbench.nightly.farm_launcher import FarmLauncher
from quadbench.results.engine import begin_write
from quadbench.results.schema import JobNeedRow

LONG_AGO = "2026-01-01 00:00:00.000000"


@dataclass(frozen=True, kw_only=True)
class ActingPool(ScriptedPool):
    """A pool that acts before it takes a submission, and may fail after it."""

    act: Callable[[], object] = list
    error: BaseException | None = None

    def submit(self, folder: Path, description: str) -> None:
        self.act()
        super().submit(folder, description)
        if self.error:
            raise self.error


@dataclass(frozen=True, kw_only=True)
class ToldCondor(Condor):
    """A pool whose tools print what they are told to, and note how they are called."""

    configuration: Path = Path("condor_config")
    printed: dict[str, object] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, tool: str, *words: str, folder: Path | None = None, as_host: bool = False) -> str:
        self.calls.append((tool, *words))
        return json.dumps(self.printed.get(tool, []))


@pytest.fixture
def pool(tmp_path: Path) -> ScriptedPool:
    return night_pool(tmp_path / "pool")


@pytest.fixture
def launcher(tmp_path: Path, pool: ScriptedPool) -> Iterator[FarmLauncher]:
    with night_launcher(tmp_path, pool) as launcher:
        yield launcher


def at(farm: Farm, pool: ScriptedPool, act: Callable[[], object] = list, error: BaseException | None = None) -> Farm:
    """Return the farm with a pool that acts when something is submitted."""
    acting = ActingPool(configuration=pool.configuration, hosts=pool.hosts, removed=pool.removed, act=act, error=error)
    return replace(farm, pool=acting)


def test_the_database_is_not_locked_while_a_run_is_submitted(launcher: FarmLauncher, pool: ScriptedPool) -> None:
    def write() -> None:
        (job,) = jobs_of(launcher)
        begun(launcher, job)  # as a slot may start it at once

    (job,) = at(launcher.farm, pool, write).submit(NIGHT, [comparison()])
    assert job.state is JobState.WAITING
    assert [one.state for one in jobs_of(launcher)] == [JobState.RUNNING]


@pytest.mark.parametrize(
    ("error", "is_removed"),
    [(ServiceError("no answer", transient=True), True), (KeyboardInterrupt(), True), (UserError("refused"), False)],
    ids=["no-answer", "ctrl-c", "refused"],
)
def test_a_submission_that_fails_leaves_no_jobs_and_nothing_in_the_pool(
    error: BaseException, is_removed: bool, launcher: FarmLauncher, pool: ScriptedPool
) -> None:
    with pytest.raises(type(error)):
        at(launcher.farm, pool, error=error).submit(NIGHT, [comparison(), replace(comparison(), after=(0,))])
    with raising(UnknownNameError, NIGHT):
        jobs_of(launcher)
    with begin_write(launcher.farm.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(JobNeedRow)) == 0
    assert pool.removed == (['QuadbenchRun == "phones-one"'] if is_removed else [])
    assert launcher.farm.submit(NIGHT, [comparison()])


@pytest.mark.parametrize(
    ("attribute", "variable"), [("QuadbenchDatabase", "$QUADBENCH_DATABASE"), ("QuadbenchStore", "$QUADBENCH_STORE")]
)
def test_a_database_or_store_that_the_hosts_do_not_have_is_refused(
    attribute: str, variable: str, launcher: FarmLauncher, pool: ScriptedPool
) -> None:
    pool.changes[PHONE.name] = {attribute: "/another"}
    with raising(UserError, variable):
        launcher.farm.submit(NIGHT, [comparison()], may_wait=True)
    assert pool.dags == []


def test_a_store_that_a_host_has_is_accepted(launcher: FarmLauncher, pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_VARIABLE, f"{launcher.farm.store.name}/")
    pool.changes[PHONE.name] = {"QuadbenchStore": store_name()}
    assert launcher.farm.submit(NIGHT, [comparison()])


def old(farm: Farm) -> None:
    with begin_write(farm.engine) as connection:
        connection.execute(sa.text(f"UPDATE jobs SET submitted_at = '{LONG_AGO}'"))
        connection.execute(sa.text(f"UPDATE jobs SET started_at = '{LONG_AGO}' WHERE started_at IS NOT NULL"))


def test_an_attempt_that_was_lost_with_its_host_is_tried_again_and_can_store_nothing(
    launcher: FarmLauncher, pool: ScriptedPool
) -> None:
    farm, jobs = launcher.farm, FarmJobs(launcher.farm.engine)
    (new,) = farm.submit(NIGHT, [replace(comparison(), most_attempts=2)])
    lost = begun(launcher, new)
    pool.unstarted.add((NIGHT, new.id))
    assert settle(farm.engine, farm.pool) == []  # the pool's answer may be older than the attempt
    old(farm)
    (waiting,) = settle(farm.engine, farm.pool)
    assert (waiting.state, waiting.attempt, waiting.seat) == (JobState.WAITING, 1, None)
    says(waiting.reason, PHONE.name)
    with pytest.raises(AttemptOverError):
        jobs.finish(lost)
    begun(launcher, waiting)
    old(farm)
    assert [job.state for job in settle(farm.engine, farm.pool)] == [JobState.FAILED]  # that was the last one that it may have


def test_a_job_of_another_run_or_one_that_a_slot_runs_is_not_lost(launcher: FarmLauncher, pool: ScriptedPool) -> None:
    (job,) = launcher.farm.submit(NIGHT, [comparison()])
    begun(launcher, job)
    old(launcher.farm)
    pool.unstarted.update({("another", job.id), (NIGHT, job.id + 1)})
    assert settle(launcher.farm.engine, launcher.farm.pool) == []
    assert [one.state for one in jobs_of(launcher)] == [JobState.RUNNING]


def test_the_name_of_the_schedd_is_asked_once() -> None:
    pool = ToldCondor(printed={"condor_status": [{"Name": "head@"}], "condor_q": [{"ClusterId": 1}]})
    pool.queue("ClusterId")
    pool.remove("ClusterId == 1", "no longer wanted")
    pool.submit(Path(), "run.sub")
    assert [call[0] for call in pool.calls] == ["condor_status", "condor_q", "condor_q", "condor_rm", "condor_submit"]
    assert all("head@" in call for call in pool.calls[1:])


def test_jobs_that_no_slot_runs_are_those_that_are_idle_or_held() -> None:
    jobs: list[tuple[object, object]] = [(1, 1), (2, 5), (3, 2), ("<b>", 1), (None, 1), (4, "1"), (5, None)]
    ads = [{"QuadbenchRun": "r", "QuadbenchJob": job, "JobStatus": status} for job, status in jobs]
    pool = ToldCondor(printed={"condor_status": [{"Name": "head@"}], "condor_q": ads})
    assert pool.queued_runs() == {"r": {1, 2}}
