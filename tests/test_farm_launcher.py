"""What a night wants of a farm becomes jobs; a case of which no job can be made is said to be so, and costs no other."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bundles import bundle_of, write_recipe_bundle
from support.sentences import says
from support.watcher import Silent

from quadbench.artifacts import Bundle
from quadbench.devices.addresses import parse_address
from quadbench.dispatch.duties import Host, do
from quadbench.dispatch.offers import Offers, capabilities, given_device
from quadbench.dispatch.orders import CompareOrder, as_json, order_of
from quadbench.dispatch.submission import Farm
from quadbench.errors import ArtifactError, QuadbenchError, UnknownNameError
from quadbench.farm.job import JobKind, JobState, NewJob
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import Leases
from quadbench.farm.store.opening import open_store
from quadbench.farm.workers import NewWorker, Workers
from quadbench.host import user_and_host
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly import farm_launcher
from quadbench.nightly.farm_launcher import FarmLauncher
from quadbench.nightly.launcher import CaseRequest
from quadbench.recipe import RunSettings
from quadbench.recipe.recipe import load_recipe
from quadbench.results import sql_dialects
from quadbench.results.engine import begin_write, open_engine
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref, publish
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.comparison_side import SideSpec

OVER = Budget(ends_at=0.0)
DESK = NewWorker(name="desk", host="h1", version="1", capabilities=(), devices=(given_device(parse_address("virtual:s25")),))


def chosen(folder: Path) -> SideSpec:
    """A bundle that a farm's store takes."""

    def fill(temporary: Path) -> Bundle:
        (temporary / "profile.json").write_text("{}")
        return bundle_of(file_ref(temporary, temporary / "profile.json"), digest="a" * 64)

    return SideSpec(source="reference", changes={}, bundle=publish(folder / "bundle", fill))


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[FarmLauncher]:
    """A farm with one device, for a night."""
    (tmp_path / "store").mkdir()
    engine = open_engine(tmp_path / "farm.sqlite")
    Workers(engine).note(DESK)
    farm = Farm(engine=engine, store=open_store(tmp_path / "store"))
    yield FarmLauncher(night_id="phones-one", farm=farm, layout=Layout(tmp_path / "results"), observer=Silent())
    engine.dispose()


def launched(
    launcher: FarmLauncher, a: SideSpec, word: str = "virtual:s25", budget: Budget | None = OVER, **cases: SideSpec
) -> dict[str, str]:
    """Have cases launched beside A, and return why nothing came of each: without time, what waits is cancelled at once."""
    wanted = [CaseRequest(case=case, a=a, b=b, words=(word,), looks=LOOKS) for case, b in cases.items()]
    return {one.case: one.reason or "" for one in launcher.launch(wanted, budget)}


def orders(launcher: FarmLauncher) -> list[CompareOrder]:
    told = [order_of(job) for job in listed_jobs(launcher.farm.engine, launcher.night_id).jobs]
    return [order for order in told if isinstance(order, CompareOrder)]


def test_a_case_whose_order_is_too_long_for_the_queue_costs_no_other(launcher: FarmLauncher, tmp_path: Path) -> None:
    side = chosen(tmp_path)
    came = launched(launcher, side, long=replace(side, terms=RunSettings(text="x" * 70_000)), short=side)
    says(came["long"])
    says(came["short"])
    assert [order.case for order in orders(launcher)] == ["short"]


def test_another_target_that_a_word_asks_for_is_compared(launcher: FarmLauncher, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    recipe = load_recipe("quickstart")
    write_recipe_bundle(recipe, launcher.layout)
    side = SideSpec(source="quickstart", changes={}, recipe=recipe, terms=recipe.terms)
    launched(launcher, side, "virtual:s25?target=qnn", mine=side)
    (order,) = orders(launcher)
    assert order.target == "qnn"
    (*_, job) = listed_jobs(launcher.farm.engine, launcher.night_id).jobs
    host = Host(layout=launcher.layout, store=launcher.farm.store, observer=Silent(), guard=lambda _: None)
    with pytest.raises(UnknownNameError, match="absent"):
        do(replace(job, payload=as_json(replace(order, target="absent"))), [], "virtual:s25", host)


def test_both_sides_are_measured_as_the_recipe_of_the_case_says(launcher: FarmLauncher, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    recipe = load_recipe("quickstart", {"measure.iterations": 7})
    write_recipe_bundle(recipe, launcher.layout)
    launched(launcher, chosen(tmp_path), restyle=SideSpec(source="quickstart", changes={}, recipe=recipe, terms=recipe.terms))
    (order,) = orders(launcher)
    assert (order.a.terms.measure.iterations, order.b.terms.measure.iterations) == (7, 7)


@pytest.mark.parametrize(
    ("worker", "kept", "lacking"),
    [
        (DESK, False, ""),
        (replace(DESK, version=version("quadbench")), False, ""),
        (replace(DESK, capabilities=capabilities()), False, ""),
        (replace(DESK, version=version("quadbench"), capabilities=capabilities()), True, "virtual-s25@"),
    ],
    ids=["neither", "capability", "version", "reserved"],
)
def test_what_nobody_can_do_is_not_waited_for(
    worker: NewWorker, kept: bool, lacking: str, launcher: FarmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm_launcher, "_LOOK_S", 0.01)
    monkeypatch.setattr(farm_launcher, "WAIT_S", 0.01)
    Workers(launcher.farm.engine).note(worker)
    if kept:
        Leases(launcher.farm.engine).reserve(DESK.devices[0].name, "ana@h1", "a demo", 3600)
    came = launched(launcher, chosen(tmp_path), budget=None, short=chosen(tmp_path))
    says(came["short"], version("quadbench"), lacking)


def test_a_reserved_device_is_waited_for_where_its_worker_takes_jobs_for_it(launcher: FarmLauncher) -> None:
    (device,), leases = DESK.devices, Leases(launcher.farm.engine)
    offers, need = Offers(DESK.devices, launcher.farm.engine, launcher.layout), (f"device {device.name}", DESK.version)
    leases.reserve(device.name, user_and_host(), "the nights", 3600)
    assert list(offers.free()) == [device]
    assert need in launcher._served_needs()
    lease = leases.take(device.name, user_and_host(), "a comparison")
    assert need in launcher._served_needs()
    leases.end(lease)
    Workers(launcher.farm.engine).note(replace(DESK, devices=(replace(device, owner=""),)))  # of an older quadbench
    assert need not in launcher._served_needs()


def test_a_device_that_somebody_else_has_reserved_is_not_waited_for_whatever_runs_there(launcher: FarmLauncher) -> None:
    (device,), leases = DESK.devices, Leases(launcher.farm.engine)
    offers, need = Offers(DESK.devices, launcher.farm.engine, launcher.layout), (f"device {device.name}", DESK.version)
    leases.reserve(device.name, "ana@elsewhere", "her week", 3600)
    lease = leases.take(device.name, "ana@elsewhere", "her own run")
    assert need not in launcher._served_needs()
    leases.end(lease)
    assert list(offers.free()) == []
    assert need not in launcher._served_needs()


@pytest.mark.parametrize("error", [ArtifactError("the job is damaged"), UnknownNameError("job", "1")], ids=["damaged", "gone"])
def test_a_job_that_the_queue_cannot_cancel_is_not_waited_for(
    error: QuadbenchError, launcher: FarmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(farm_launcher.JobQueue, "cancel", refuse)
    side = chosen(tmp_path)
    says(launched(launcher, side, short=side)["short"])


def test_a_job_is_cancelled_later_where_another_process_holds_the_queue(
    launcher: FarmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(farm_launcher, "_LOOK_S", 0.01)
    monkeypatch.setattr(sql_dialects, "_LOCK_TIMEOUT_S", 0.1)
    engine = open_engine(tmp_path / "farm.sqlite")
    impatient = replace(launcher, farm=replace(launcher.farm, engine=engine))
    new = NewJob(kind=JobKind.COMPARE, needs="device phone", payload={"case": "portrait"})
    (job_id,) = JobQueue(engine).submit(launcher.night_id, [new], "ana@h1", "1")
    with begin_write(launcher.farm.engine):
        assert impatient._wait_for_jobs({job_id}, OVER) == {}
    says(caplog.text, "database is locked")
    assert impatient._wait_for_jobs({job_id}, OVER) == {}
    (job,) = listed_jobs(engine, launcher.night_id).jobs
    assert job.state is JobState.CANCELLED
    engine.dispose()


def test_a_job_that_is_gone_or_damaged_is_not_waited_for(
    launcher: FarmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: float) -> None:
        with begin_write(launcher.farm.engine) as connection:
            connection.execute(sa.text("UPDATE jobs SET owner = '' WHERE kind = 'compare'"))

    monkeypatch.setattr(farm_launcher.time, "sleep", damaged)
    side = chosen(tmp_path)
    says(launched(launcher, side, budget=None, short=side)["short"])
    monkeypatch.setattr(FarmLauncher, "_submit", lambda *_: None)
    says(launched(launcher, side, budget=None, short=side)["short"])
