"""A run is submitted to a pool as a DAG of its jobs, or refused at once: then nothing is stored and nothing is sent."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.scripted_pool import ScriptedPool, phone, pool_with_token, use_pool
from support.sentences import raising
from support.shared_files import keys, write_shared_bundle

from quadbench.cli import main
from quadbench.dispatch.attempt import LogObserver
from quadbench.dispatch.demands import BUILD, asked_for, compile_capability
from quadbench.dispatch.submission import Farm, Request, submit, submit_bundle
from quadbench.errors import DeviceNotFoundError, QuadbenchError, ServiceError, UserError
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.slots import Bay, capability_need, device_need
from quadbench.farm.store.opening import open_store
from quadbench.host import user_and_host
from quadbench.recipe import RunSettings
from quadbench.recipe.recipe import load_recipe
from quadbench.results.engine import open_engine
from quadbench.results.layout import Layout

COMPILES = compile_capability("onnxruntime-cpu-aarch64")
MEASURE = NewJob(kind=JobKind.MEASURE, needs=device_need("R1"), affinity="b-1")
BUILDS = NewJob(kind=JobKind.BUILD, needs=capability_need(BUILD))
AWAY = ServiceError("the pool does not answer: condor_status: no route", transient=True, hint="quadbench farm check")


def room(*capabilities: str) -> Bay:
    """Return a host's place for builds."""
    return Bay(name="room@lab-1", address="", serves=frozenset(map(capability_need, capabilities)))


@pytest.fixture
def pool(tmp_path: Path) -> ScriptedPool:
    """Two phones, and a host that builds and compiles for them."""
    return pool_with_token(tmp_path / "pool", [phone("R1"), phone("R2"), room(BUILD, COMPILES)], version=version("quadbench"))


@pytest.fixture
def farm(engine: sa.Engine, pool: ScriptedPool, tmp_path: Path) -> Farm:
    (tmp_path / "store").mkdir()
    return Farm(engine=engine, store=open_store(tmp_path / "store"), pool=pool)


def stored(engine: sa.Engine) -> list[Job]:
    return list(listed_jobs(engine))


def test_a_run_is_stored_with_its_owner_and_sent_as_one_dag(farm: Farm, pool: ScriptedPool) -> None:
    build, measure = farm.submit("run-a", [BUILDS, replace(MEASURE, after=(0,))])
    assert [(job.owner, job.version) for job in stored(farm.engine)] == [(user_and_host(), version("quadbench"))] * 2
    (dag,) = pool.dags
    assert f"PARENT job{build.id} CHILD job{measure.id}\n" in dag
    (values,) = [line for line in dag.splitlines() if line.startswith(f"VARS job{measure.id} ")]
    for word in (f'job="{measure.id}"', 'run="run-a"', 'need="device%20R1"', 'loads="b-1"', user_and_host()):
        assert word in values
    assert set(pool.queued_runs()) == {"run-a"}


def of_other_version(pool: ScriptedPool) -> None:
    for device in ("R1", "R2", "room@lab-1"):
        pool.changes[device] = {"QuadbenchVersion": "0.0.9"}


def without_builder(pool: ScriptedPool) -> None:
    pool.hosts["lab-1"].pop()


def away_at(method: str) -> Callable[[ScriptedPool], None]:
    return lambda pool: pool.broken.update({method: AWAY})


@pytest.mark.parametrize(
    ("change", "error", "names"),
    [
        (of_other_version, DeviceNotFoundError, ("0.0.9", version("quadbench"))),
        (without_builder, DeviceNotFoundError, ("capability build",)),
        (lambda pool: pool.hosts.clear(), DeviceNotFoundError, ("capability build",)),
        (away_at("slots"), ServiceError, ()),
        (away_at("schedd"), ServiceError, ()),
        (away_at("submit"), ServiceError, ()),
    ],
)
def test_a_run_that_the_pool_cannot_take_is_refused_at_once(
    change: Callable[[ScriptedPool], object],
    error: type[QuadbenchError],
    names: tuple[str, ...],
    farm: Farm,
    pool: ScriptedPool,
) -> None:
    change(pool)
    with raising(error, *names):
        farm.submit("run-a", [BUILDS, replace(MEASURE, after=(0,))])
    assert stored(farm.engine) == []
    assert pool.dags == []


def test_a_device_that_no_host_has_is_refused_unless_the_run_may_wait_for_it(farm: Farm, pool: ScriptedPool) -> None:
    elsewhere = replace(MEASURE, needs=device_need("R9"))
    with raising(DeviceNotFoundError, "device R9"):
        farm.submit("run-a", [MEASURE, elsewhere])
    assert stored(farm.engine) == []
    farm.submit("run-a", [MEASURE, elsewhere], may_wait=True)
    assert len(pool.dags) == 1


def test_who_submits_before_a_host_has_reported_its_devices_is_told_to_wait() -> None:
    with raising(DeviceNotFoundError, "none", "some seconds", "quadbench farm status"):
        asked_for(["local"], [])
    with raising(UserError, "local*1000000", 9999):
        asked_for(["local*1000000"], [])


def test_devices_that_are_free_come_first_and_those_that_no_run_can_have_are_left_out(farm: Farm, pool: ScriptedPool) -> None:
    serials = ("busy", "free", "kept", "sick", "silent", "used")
    pool.hosts["lab-1"][:] = [phone(serial) for serial in serials] + [room(BUILD)]
    pool.changes.update(
        busy={"RemoteOwner": "ben@quadbench"},
        kept={"SlotReservedBy": "ben@lab-2"},
        sick={"SlotReady": False, "SlotWhyNot": "in quarantine: it is hot"},
        silent={"SlotSeen": 0},
        used={"SlotReady": False, "SlotWhyNot": "used by ben@lab-2"},
    )
    names = [device.name for device in farm.devices]
    assert names[0] == "free"
    assert sorted(names) == ["busy", "free", "kept", "used"]
    with raising(DeviceNotFoundError, "sick"):
        asked_for(["sick"], farm.devices)


def test_a_bundle_is_sent_to_the_store_and_measured_on_a_device_of_the_pool(
    farm: Farm, pool: ScriptedPool, tmp_path: Path
) -> None:
    bundle = write_shared_bundle(Layout(tmp_path / "here"))
    run_id = submit_bundle(bundle, RunSettings(), Request(words=("R1",)), farm)
    assert keys(farm.store)
    kinds = [(job.run_id, job.kind, job.needs) for job in listed_jobs(farm.engine, run_id)]
    assert kinds == [
        (run_id, JobKind.COMPILE, capability_need(COMPILES)),
        (run_id, JobKind.MEASURE, device_need("R1")),
    ]


@pytest.mark.parametrize("words", [("pixel9",), ("s25*3",), ("chip=SM1",), ("R1?data_mb=5",)])
def test_a_wish_that_nothing_fits_is_refused_before_anything_is_sent(
    words: tuple[str, ...], farm: Farm, pool: ScriptedPool, tmp_path: Path
) -> None:
    bundle = write_shared_bundle(Layout(tmp_path / "here"))
    with raising(QuadbenchError, words[0]):
        submit_bundle(bundle, RunSettings(), Request(words=words), farm)
    assert not keys(farm.store)
    assert not pool.dags
    assert not stored(farm.engine)


def test_a_recipe_without_a_bundle_is_built_by_the_pool_or_refused(farm: Farm, pool: ScriptedPool, tmp_path: Path) -> None:
    recipe, here, request = load_recipe("quickstart"), Layout(tmp_path / "here"), Request(words=("R1",))
    submit(recipe, request, farm, layout=here, observer=LogObserver())
    jobs = sorted(stored(farm.engine), key=lambda job: job.id)
    assert [job.kind for job in jobs] == [JobKind.BUILD, JobKind.COMPILE, JobKind.MEASURE]
    assert [job.after for job in jobs] == [(), (jobs[0].id,), (jobs[1].id,)]
    without_builder(pool)
    with raising(DeviceNotFoundError, "capability build"):
        submit(recipe, request, farm, layout=here, observer=LogObserver())
    assert len(stored(farm.engine)) == len(jobs)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a command that submits a bundle, with a database and a store of its own."""
    (tmp_path / "store").mkdir(exist_ok=True)
    monkeypatch.setenv("QUADBENCH_STORE", str(tmp_path / "store"))
    open_engine(tmp_path / "farm.sqlite").dispose()
    monkeypatch.setenv("QUADBENCH_DATABASE", f"sqlite:///{tmp_path}/farm.sqlite")
    bundle = write_shared_bundle(Layout(tmp_path / "results"))
    return ["farm", "submit", str(bundle.folder), "--devices", "R1", "--results", str(tmp_path / "results")]


def test_the_command_says_how_to_fetch_the_run(
    command: list[str], pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_pool(pool, monkeypatch)
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(pool.queued_runs()) == {told["run_id"]}
    assert f"farm fetch {told['run_id']}" in told["next"]
