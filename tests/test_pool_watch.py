"""A pool or a database that does not answer for a while costs a night time, and no comparison."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from support.farm_night import (
    NIGHT,
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
from support.scripted_pool import INSTALLED, ScriptedPool
from support.sentences import says

from quadbench.errors import QuadbenchError, ServiceError, StorageError, UserError
from quadbench.farm.condor import Ad
from quadbench.farm.job import JobKind, JobState
from quadbench.farm.jobs import FarmJobs
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly import farm_launcher, pool_watch
from quadbench.nightly.farm_launcher import FarmLauncher
from quadbench.nightly.launcher import CaseRequest
from quadbench.nightly.pool_watch import Patience, ServedNeeds
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.run_comparison import SideSpec

AWAY = ServiceError("the pool does not answer", transient=True)
REFUSED = UserError("the pool refuses this user")
NEED = (f"device {PHONE.name}", INSTALLED)


@dataclass(frozen=True, kw_only=True)
class FaultyPool(ScriptedPool):
    """A pool whose tools fail, each call with the next of its errors, as long as there are any."""

    errors: dict[str, list[QuadbenchError]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _call(self, tool: str) -> None:
        self.calls.append(tool)
        if errors := self.errors.get(tool):
            raise errors.pop(0)

    def slots(self, *attributes: str, constraint: str = "") -> list[Ad]:
        self._call("slots")
        return super().slots(*attributes, constraint=constraint)

    def queue(self, *attributes: str, constraint: str = "") -> list[Ad]:
        self._call("queue")
        return super().queue(*attributes, constraint=constraint)

    def submit(self, folder: Path, description: str) -> None:
        self._call("submit")
        super().submit(folder, description)

    def remove(self, constraint: str, reason: str) -> None:
        self._call("remove")
        super().remove(constraint, reason)


@pytest.fixture
def pool(tmp_path: Path) -> FaultyPool:
    whole = night_pool(tmp_path / "pool")
    return FaultyPool(configuration=whole.configuration, hosts=whole.hosts, version=whole.version)


@pytest.fixture
def launcher(tmp_path: Path, pool: FaultyPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarmLauncher]:
    for module in (farm_launcher, pool_watch):
        monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(pool_watch, "POOL_LOOK_S", 0.0)
    with night_launcher(tmp_path, pool) as launcher:
        yield launcher


@pytest.fixture
def side(tmp_path: Path) -> SideSpec:
    return stored_side(tmp_path)


def failing_after(launcher: FarmLauncher, looks: int) -> FarmLauncher:
    """Return the launcher of a farm where the comparisons fail when they have been told of so many times."""
    seen: list[Sequence[JobState]] = []

    def fail() -> None:
        seen.append([job.state for job in jobs_of(launcher)])
        if len(seen) == looks:
            for job in jobs_of(launcher):
                if job.kind is JobKind.COMPARE:
                    FarmJobs(launcher.farm.engine).fail(begun(launcher, job), "the screen is cracked", is_transient=False)

    return replace(launcher, observer=Acting(fail))


@pytest.mark.parametrize("tool", ["slots", "queue", "submit"])
def test_a_pool_that_is_silent_for_a_while_costs_no_comparison(
    tool: str, launcher: FarmLauncher, pool: FaultyPool, side: SideSpec
) -> None:
    pool.errors[tool] = [AWAY] * 5
    came = launched(failing_after(launcher, 8), side, budget=None, mine=side)
    says(came["mine"])
    assert pool.errors[tool] == []
    assert pool.runs == {NIGHT}


def test_a_pool_that_refuses_to_say_its_state_is_asked_again(launcher: FarmLauncher, pool: FaultyPool, side: SideSpec) -> None:
    pool.errors["queue"] = [REFUSED] * 5
    says(launched(failing_after(launcher, 8), side, budget=None, mine=side)["mine"])


def test_a_pool_that_stays_silent_costs_each_comparison_and_ends_no_night(
    launcher: FarmLauncher, pool: FaultyPool, side: SideSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_watch, "WAIT_S", 0.05)
    pool.errors["slots"] = [AWAY] * 1000
    says(launched(launcher, side, budget=None, mine=side, other=side))
    assert 2 < pool.calls.count("slots") < 1000


def test_patience_is_not_had_again_for_each_batch(
    launcher: FarmLauncher, pool: FaultyPool, side: SideSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_watch, "WAIT_S", 0.05)
    monkeypatch.setattr(farm_launcher, "_IN_A_BATCH", 1)
    pool.errors["submit"] = [AWAY] * 1000
    first = launched(launcher, side, budget=None, one=side)
    one = pool.calls.count("submit")
    assert launched(launcher, side, budget=None, one=side, two=side, three=side).keys() == {"one", "two", "three"}
    assert pool.calls.count("submit") <= 2 * one + 5
    says(first["one"])


def test_a_batch_that_the_pool_refuses_costs_no_other_and_is_tried_again(
    launcher: FarmLauncher, pool: FaultyPool, side: SideSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm_launcher, "_IN_A_BATCH", 1)
    pool.errors["submit"] = [REFUSED]
    wanted = [CaseRequest(case=case, a=side, b=side, words=(WORD,), looks=LOOKS) for case in ("one", "two")]
    refused, over = launcher.launch(wanted, Budget(ends_at=0.0))
    assert (refused.case, refused.is_transient, over.case) == ("one", True, "two")
    says(refused.reason)
    says(over.reason)


def test_a_silent_pool_does_not_keep_a_night_beyond_its_time(launcher: FarmLauncher, pool: FaultyPool, side: SideSpec) -> None:
    pool.errors["queue"] = pool.errors["remove"] = [REFUSED, *[AWAY] * 10_000]
    says(launched(launcher, side, mine=side)["mine"])
    assert [job.state for job in jobs_of(launcher)] == [JobState.CANCELLED] * 2
    assert pool.removed == []


def test_a_database_that_is_silent_for_a_while_costs_no_comparison(
    launcher: FarmLauncher, side: SideSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, errors = FarmLauncher._read_jobs, [StorageError("the database is away")] * 3

    def read(self: FarmLauncher) -> object:
        if errors:
            raise errors.pop()
        return whole(self)

    monkeypatch.setattr(FarmLauncher, "_read_jobs", read)

    failing, silences = failing_after(launcher, 3).observer, iter((3,))

    def act() -> None:
        failing.stage_step("farm", "")
        errors.extend([StorageError("the database is away")] * next(silences, 0))

    says(launched(replace(launcher, observer=Acting(act)), side, budget=None, mine=side)["mine"])
    says(caplog.text, "asked again", "does not answer: the database is away")


def test_time_in_which_the_pool_was_silent_or_just_began_is_no_time_without_a_slot(
    launcher: FarmLauncher, pool: FaultyPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    watch = ServedNeeds(launcher.farm)

    def reason_after(seconds: float) -> str | None:
        clock[0] += seconds
        watch.look()
        return watch.unserved_reason({NEED})

    bays = pool.hosts.pop("lab-1")
    assert reason_after(0) is None
    assert reason_after(299) is None
    pool.errors["slots"] = [AWAY]
    assert reason_after(1000) is None
    assert reason_after(1) is None
    assert reason_after(299) is None
    pool.hosts["lab-1"] = bays
    assert reason_after(1000) is None
    del pool.hosts["lab-1"]
    assert reason_after(1) is None
    assert reason_after(300) is None
    says(reason_after(1))


def test_the_pool_is_looked_at_seldom(launcher: FarmLauncher, pool: FaultyPool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(pool_watch, "POOL_LOOK_S", 20.0)
    watch = ServedNeeds(launcher.farm)
    for _ in range(30):  # a minute of a night
        watch.look()
        clock[0] += 2
    assert pool.calls == ["queue", "slots"] * 3


def test_jobs_that_are_cancelled_together_are_removed_from_the_pool_together(launcher: FarmLauncher, pool: FaultyPool) -> None:
    first = launcher.farm.submit(NIGHT, [comparison(), comparison()])
    second = launcher.farm.submit(f"{NIGHT}.2", [comparison()])
    assert launcher._cancel({job.id: "no more" for job in (*first, *second)}) == set()
    assert pool.removed == [
        '(QuadbenchRun == "phones-one" && member(QuadbenchJob, {1,2}))'
        ' || (QuadbenchRun == "phones-one.2" && member(QuadbenchJob, {3}))'
    ]


def test_builds_that_no_comparison_needs_any_more_are_cancelled_and_others_stay(launcher: FarmLauncher, pool: FaultyPool) -> None:
    build = replace(comparison(), kind=JobKind.COMPILE)
    behind = [replace(comparison(), after=(number,)) for number in range(2)]
    jobs = launcher.farm.submit(NIGHT, [build, build, *behind])
    FarmJobs(launcher.farm.engine).cancel(jobs[2].id, "no more")
    launcher._cancel_left_over()
    states = [job.state for job in jobs_of(launcher)]
    assert states == [JobState.CANCELLED, JobState.WAITING, JobState.CANCELLED, JobState.WAITING]
    assert pool.removed == ['(QuadbenchRun == "phones-one" && member(QuadbenchJob, {1}))']


def test_patience_ends_with_the_time_budget_and_errors_of_other_kinds_are_not_waited_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_watch, "LOOK_S", 0.01)
    caplog.set_level(logging.WARNING)

    def fail(error: QuadbenchError) -> None:
        raise error

    with pytest.raises(ServiceError):
        Patience(Budget(ends_at=0.0)).ask(lambda: fail(AWAY))
    assert len(caplog.records) == 1
    with pytest.raises(UserError):
        Patience(None).ask(lambda: fail(REFUSED))
    assert Patience(None).ask(lambda: ROOM) is ROOM
