"""Comparisons of a night become jobs of a farm; a case of which no job can be made is said to be so, and costs no other."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bundles import write_recipe_bundle
from support.farm_night import (
    HOST,
    NIGHT,
    OVER,
    PHONE,
    ROOM,
    WORD,
    Acting,
    begun,
    comparison,
    jobs_of,
    launched,
    night_launcher,
    night_pool,
    stored_side,
)
from support.scripted_pool import ScriptedPool
from support.sentences import says
from support.watcher import Silent

from quadbench.artifacts.night_record import RulingKind
from quadbench.dispatch.duties import Host, do
from quadbench.dispatch.orders import CompareOrder, as_json, order_of
from quadbench.errors import ArtifactError, QuadbenchError, UnknownNameError
from quadbench.farm.job import JobKind, JobState
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.slots import Bay
from quadbench.host import user_and_host
from quadbench.nightly import farm_launcher, pool_watch
from quadbench.nightly.farm_launcher import FarmLauncher
from quadbench.nightly.launcher import CaseRequest
from quadbench.nightly.night_file import Limits
from quadbench.nightly.night_plan import NightPlan, PlannedCase
from quadbench.nightly.perform import perform
from quadbench.nightly.pool_watch import ServedNeeds
from quadbench.recipe import RunSettings
from quadbench.recipe.recipe import load_recipe
from quadbench.results import sql_dialects
from quadbench.results.engine import begin_write, open_engine
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.run_comparison import SideSpec


@pytest.fixture
def pool(tmp_path: Path) -> ScriptedPool:
    return night_pool(tmp_path / "pool")


@pytest.fixture
def launcher(tmp_path: Path, pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarmLauncher]:
    """A farm for a night that looks at it all the time."""
    monkeypatch.setattr(farm_launcher, "LOOK_S", 0.01)
    monkeypatch.setattr(pool_watch, "POOL_LOOK_S", 0.0)
    with night_launcher(tmp_path, pool) as launcher:
        yield launcher


@pytest.fixture
def side(tmp_path: Path) -> SideSpec:
    return stored_side(tmp_path)


def orders(launcher: FarmLauncher) -> list[CompareOrder]:
    told = [order_of(job) for job in jobs_of(launcher)]
    return [order for order in told if isinstance(order, CompareOrder)]


def failing(launcher: FarmLauncher) -> FarmLauncher:
    """Return the launcher of a farm where each comparison fails for good as soon as it is told of."""

    def fail() -> None:
        jobs = FarmJobs(launcher.farm.engine)
        for number in range(1, 4):
            try:
                read = jobs_of(launcher, launcher._run_id(number))
            except UnknownNameError:
                return
            for job in read:
                if job.kind is JobKind.COMPARE and not job.state.is_end:
                    jobs.fail(begun(launcher, job), "the screen is cracked", is_transient=False)

    return replace(launcher, observer=Acting(fail))


def test_a_case_whose_order_is_too_long_for_a_job_costs_no_other(launcher: FarmLauncher, side: SideSpec) -> None:
    came = launched(launcher, side, long=replace(side, terms=RunSettings(text="x" * 70_000)), short=side)
    says(came["long"])
    says(came["short"])
    assert [order.case for order in orders(launcher)] == ["short"]


def test_a_case_whose_device_is_not_there_costs_no_other_and_is_tried_again(launcher: FarmLauncher, side: SideSpec) -> None:
    wanted = [CaseRequest(case="mine", a=side, b=side, words=("tabs11", WORD), looks=LOOKS)]
    absent, over = launcher.launch(wanted, OVER)
    assert (absent.word, absent.is_transient, over.word, over.is_transient) == ("tabs11", True, WORD, False)
    says(absent.reason, "tabs11")


def test_another_target_that_a_word_asks_for_is_compared(launcher: FarmLauncher) -> None:
    pytest.importorskip("torch")
    recipe = load_recipe("quickstart")
    write_recipe_bundle(recipe, launcher.layout)
    side = SideSpec(source="quickstart", changes={}, recipe=recipe, terms=recipe.terms)
    launched(launcher, side, "virtual:s25?target=qnn", mine=side)
    (order,) = orders(launcher)
    assert order.target == "qnn"
    (*_, job) = jobs_of(launcher)
    host = Host(layout=launcher.layout, store=launcher.farm.store, observer=Silent(), guard=lambda _: None)
    with pytest.raises(UnknownNameError, match="absent"):
        do(replace(job, payload=as_json(replace(order, target="absent"))), [], WORD, host)


def test_both_sides_are_measured_as_the_recipe_of_the_case_says(launcher: FarmLauncher, side: SideSpec) -> None:
    pytest.importorskip("torch")
    recipe = load_recipe("quickstart", {"measure.iterations": 7})
    write_recipe_bundle(recipe, launcher.layout)
    launched(launcher, side, restyle=SideSpec(source="quickstart", changes={}, recipe=recipe, terms=recipe.terms))
    (order,) = orders(launcher)
    assert (order.a.terms.measure.iterations, order.b.terms.measure.iterations) == (7, 7)


def test_each_batch_of_comparisons_is_a_dag_in_which_both_sides_are_compiled_first(
    launcher: FarmLauncher, pool: ScriptedPool, side: SideSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm_launcher, "_IN_A_BATCH", 2)
    launched(launcher, side, one=side, two=side, three=side)
    assert pool.runs == {NIGHT, f"{NIGHT}.2"}
    assert [[job.kind for job in jobs_of(launcher, run_id)] for run_id in sorted(pool.runs)] == [
        [JobKind.COMPILE, JobKind.COMPARE, JobKind.COMPARE],
        [JobKind.COMPILE, JobKind.COMPARE],
    ]
    first, second = pool.dags
    assert [line for line in first.splitlines() if line.startswith("PARENT")] == [
        "PARENT job1 CHILD job2",
        "PARENT job1 CHILD job3",
    ]
    assert "PARENT job4 CHILD job5" in second


def test_a_night_that_is_started_again_waits_for_its_jobs_and_orders_failed_ones_anew(
    launcher: FarmLauncher, pool: ScriptedPool, side: SideSpec
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launched(replace(launcher, observer=Acting(interrupt)), side, budget=None, mine=side)
    assert [job.state for job in jobs_of(launcher)] == [JobState.WAITING] * 2
    came = launched(failing(launcher), side, budget=None, mine=side)
    says(came["mine"])
    assert len(pool.dags) == 1
    launched(failing(launcher), side, budget=None, mine=side)
    assert len(pool.dags) == 2
    assert pool.runs == {NIGHT, f"{NIGHT}.2"}


@pytest.mark.parametrize(
    ("bays", "of_version", "lacking"),
    [
        ([PHONE], "1", ""),
        ([PHONE], version("quadbench"), ""),
        ([PHONE, ROOM], "1", ""),
        ([replace(PHONE, reserved_by="ana@h1"), ROOM], version("quadbench"), PHONE.name),
        ([replace(PHONE, reserved_by="ana@h1", why_not="used by ana@h1"), ROOM], version("quadbench"), PHONE.name),
    ],
    ids=["neither", "capability", "version", "reserved", "reserved-and-used"],
)
def test_what_no_slot_can_do_is_cancelled_here_and_in_the_pool(
    bays: list[Bay],
    of_version: str,
    lacking: str,
    launcher: FarmLauncher,
    pool: ScriptedPool,
    side: SideSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_watch, "WAIT_S", 0.01)
    pool.hosts[HOST] = bays
    here = replace(pool, version=of_version)
    came = launched(replace(launcher, farm=replace(launcher.farm, pool=here)), side, budget=None, short=side)
    says(came["short"], version("quadbench"), lacking)
    assert pool.removed[0] == '(QuadbenchRun == "phones-one" && member(QuadbenchJob, {2}))'


@pytest.mark.parametrize("change", ["unplugged", "drained"])
def test_a_comparison_whose_device_leaves_the_pool_is_cancelled_after_a_while(
    change: str, launcher: FarmLauncher, pool: ScriptedPool, side: SideSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_watch, "WAIT_S", 0.05)
    looks: list[str] = []

    def leave() -> None:
        looks.append(jobs_of(launcher)[1].state)
        if change == "unplugged":
            pool.hosts[HOST] = [ROOM]
        else:
            pool.draining.add(HOST)

    came = launched(replace(launcher, observer=Acting(leave)), side, budget=None, short=side)
    says(came["short"], PHONE.name if change == "unplugged" else "")
    assert looks.count(JobState.WAITING) >= 2  # it is waited for
    assert [job.state for job in jobs_of(launcher)] == [JobState.CANCELLED] * 2  # nobody needs what was to be compiled


@pytest.mark.parametrize(
    "bay",
    [PHONE, replace(PHONE, reserved_by=user_and_host()), replace(PHONE, why_not="used by bob@h2")],
    ids=["free", "mine", "in-use"],
)
def test_a_device_is_waited_for_that_takes_the_jobs_of_the_night_now_or_later(
    bay: Bay, launcher: FarmLauncher, pool: ScriptedPool, side: SideSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_watch, "WAIT_S", 0.0)
    pool.hosts[HOST] = [bay, ROOM]
    looks: list[int] = []

    def fail_at_last() -> None:
        looks.append(1)
        if len(looks) == 5:
            failing(launcher).observer.stage_step("farm", "")

    came = launched(replace(launcher, observer=Acting(fail_at_last)), side, budget=None, short=side)
    says(came["short"], "screen")


def test_a_job_whose_host_died_is_cancelled_when_the_time_is_over(launcher: FarmLauncher, pool: ScriptedPool) -> None:
    watch, (job,) = ServedNeeds(launcher.farm), launcher.farm.submit(NIGHT, [comparison()])
    begun(launcher, job)
    assert launcher._wait_for_jobs({job.id}, watch, OVER) == {}
    with begin_write(launcher.farm.engine) as connection:
        connection.execute(sa.text("UPDATE jobs SET started_at = '2026-01-01 00:00:00.000000'"))
    assert launcher._wait_for_jobs({job.id}, watch, OVER) == {}
    assert [one.state for one in jobs_of(launcher)] == [JobState.RUNNING]  # a slot runs it
    pool.unstarted.add((job.run_id, job.id))
    assert launcher._wait_for_jobs({job.id}, watch, OVER) == {}
    (ended,) = launcher._wait_for_jobs({job.id}, watch, OVER).values()
    assert ended is not None
    says(f"{ended.state}: {ended.reason}")


def test_jobs_that_somebody_removes_from_the_pool_are_missing_with_the_reason(
    launcher: FarmLauncher, pool: ScriptedPool, side: SideSpec
) -> None:
    def remove() -> None:
        pool.runs.clear()
        with begin_write(launcher.farm.engine) as connection:
            connection.execute(sa.text("UPDATE jobs SET submitted_at = '2026-01-01 00:00:00.000000'"))

    case = PlannedCase(name="mine", yardstick=side, side=side, words=(WORD,), limits=Limits(), owner="ana@lab")
    plan = NightPlan(
        name="phones", cases=(case,), pairs=(("mine", WORD),), owners={"mine": "ana@lab"}, faults={}, blocks=3, budget_s=None
    )
    result = perform(NIGHT, plan, replace(launcher, observer=Acting(remove)), layout=launcher.layout)
    (ruling,) = result.night.rulings
    assert ruling.kind is RulingKind.MISSING
    says(ruling.cause)


@pytest.mark.parametrize("error", [ArtifactError("the job is damaged"), UnknownNameError("job", "1")], ids=["damaged", "gone"])
def test_a_job_that_the_database_cannot_cancel_is_not_waited_for(
    error: QuadbenchError, launcher: FarmLauncher, side: SideSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(FarmJobs, "cancel", refuse)
    says(launched(launcher, side, short=side)["short"])


def test_a_job_is_cancelled_later_where_another_process_holds_the_database(
    launcher: FarmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sql_dialects, "_LOCK_TIMEOUT_S", 0.1)
    engine = open_engine(tmp_path / "farm.sqlite")
    impatient = replace(launcher, farm=replace(launcher.farm, engine=engine))
    (job,) = impatient.farm.submit(NIGHT, [comparison()])
    watch = ServedNeeds(impatient.farm)
    with begin_write(launcher.farm.engine):
        assert impatient._wait_for_jobs({job.id}, watch, OVER) == {}
    says(caplog.text, "database is locked")
    assert impatient._wait_for_jobs({job.id}, watch, OVER) == {}
    assert [one.state for one in jobs_of(launcher)] == [JobState.CANCELLED]
    engine.dispose()


def test_a_job_that_is_gone_is_not_waited_for(launcher: FarmLauncher, side: SideSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FarmLauncher, "_submit", lambda *_: {})
    says(launched(launcher, side, budget=None, short=side)["short"])
