"""`quadbench farm`: what waits, what runs and what is wrong is said, whatever the database holds and the pool answers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.scripted_pool import ScriptedPool, phone, pool_with_token, use_pool
from support.sentences import reads, says
from support.stored_records import query

from quadbench.cli import main
from quadbench.errors import QuadbenchError, ServiceError, UserError
from quadbench.farm.job import JobKind, JobState, NewJob
from quadbench.farm.job_status import job_with_attempts
from quadbench.farm.jobs import FarmJobs, Start
from quadbench.farm.slots import Bay, capability_need, device_need
from quadbench.results.engine import DATABASE_VARIABLE, Source, open_engine

VERSION = "0.1.0"
BUILD = NewJob(kind=JobKind.BUILD, needs=capability_need("build"))
ROOM = Bay(name="room@lab-1", address="", serves=frozenset({BUILD.needs}))
AWAY = ServiceError("the pool does not answer: condor_status: no route", transient=True, hint="quadbench farm check")
POOL = ScriptedPool().identity
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def engine(database: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    monkeypatch.setenv(DATABASE_VARIABLE, str(database))
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedPool:
    """A pool of two phones and a host that builds, with a store."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("QUADBENCH_STORE", str(tmp_path / "store"))
    pool = pool_with_token(tmp_path / "pool", [phone("R3CX"), phone("R5CY"), ROOM], version=VERSION)
    use_pool(pool, monkeypatch)
    return pool


@pytest.fixture
def said(engine: sa.Engine, pool: ScriptedPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def call(*words: str) -> tuple[int, str, str]:
        code = main(["farm", *words, "--results", str(tmp_path / "other")])
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return call


def submit(engine: sa.Engine, *batch: NewJob, run_id: str = "run-a", pool: str = POOL) -> list[int]:
    jobs = FarmJobs(engine).submit(run_id, batch or (BUILD,), "ana@lab-1", VERSION, lambda _: None, pool)
    return [job.id for job in jobs]


def begin(engine: sa.Engine, job: int, number: int = 1) -> None:
    FarmJobs(engine).begin(Start(job=job, run="run-a", number=number, seat="host-1", host="lab-1"))


def has_line(text: str, *words: str) -> bool:
    return any(all(word in line for word in words) for line in text.splitlines())


def test_the_status_has_jobs_shares_devices_and_hosts(engine: sa.Engine, pool: ScriptedPool, said: Said) -> None:
    first, *_ = submit(engine, BUILD, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0, 1)))
    begin(engine, first)
    pool.changes["R3CX"] = {"RemoteOwner": "ben@quadbench"}
    code, out, _ = said("status")
    assert code == 0
    says(out.splitlines()[0], 2, 1, 0)
    for words in (
        ("ana@lab-1", "2", "1"),
        ("ana@quadbench", "1", "2.0", "500"),
        ("R3CX", "s25", "lab-1", VERSION, "busy with a job of ben"),
        ("R5CY", "s25", "lab-1", VERSION, "free"),
        ("lab-1", VERSION, "build", "free"),
    ):
        assert has_line(out, *words), (words, out)
    status = json.loads(said("status", "--json")[1])
    assert (status["states"], status["problem"]) == ({"waiting": 2, "running": 1}, None)
    slots = {slot["bay"]["name"]: slot for slot in status["slots"]}
    assert (slots["R3CX"]["used_by"], slots["R5CY"]["used_by"]) == ("ben", None)
    assert device_need("R5CY") in slots["R5CY"]["bay"]["serves"]
    assert status["shares"][0]["Name"] == "ana@quadbench"


def of(device: str) -> NewJob:
    return NewJob(kind=JobKind.MEASURE, needs=device_need(device))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "R3CX: free, starts soon"),
        ({"RemoteOwner": "ben@quadbench"}, "R3CX: busy with a job of ben"),
        ({"SlotReservedBy": "ben%40lab-2"}, "R3CX: reserved by ben@lab-2"),
        ({"SlotReservedBy": "ana%40lab-1"}, "R3CX: free, starts soon"),
        ({"SlotReady": False, "SlotWhyNot": "in quarantine: it is hot"}, "R3CX: in quarantine: it is hot"),
        ({"SlotReady": False, "SlotWhyNot": "used by ben@lab-2"}, "R3CX: used by ben@lab-2"),
        ({"SlotSeen": 0}, "R3CX: its host has not described it lately"),
        ({"State": "Drained"}, "R3CX: its host drains"),
        ({"QuadbenchVersion": "0.0.9"}, "0.0.9"),
        ({"SlotServes": ""}, "no slot of the pool serves 'device R3CX'"),
    ],
)
def test_the_status_says_why_a_job_waits(
    change: dict[str, object], reason: str, engine: sa.Engine, pool: ScriptedPool, said: Said
) -> None:
    (job,) = submit(engine, of("R3CX"))
    pool.changes["R3CX"] = change
    assert reason in json.loads(said("status", "--json")[1])["waits"][str(job)]
    assert reason in " ".join(said("status")[1].split())


def test_the_status_says_which_jobs_a_job_waits_for_and_that_it_failed_before(engine: sa.Engine, said: Said) -> None:
    first, second = submit(engine, of("R3CX"), NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)))
    begin(engine, first)
    job = FarmJobs(engine).begin(Start(job=first, run="run-a", number=2, seat="host-1", host="lab-1"))
    FarmJobs(engine).fail(job, "the \x1b[2J disk", is_transient=True)
    waits = json.loads(said("status", "--json")[1])["waits"]
    says(waits[str(first)], 2, snapshot=False)
    assert waits[str(second)] == f"it needs job {first}"
    assert "\x1b" not in said("status")[1]


def test_the_status_names_the_latest_jobs_that_wait_and_counts_the_others(engine: sa.Engine, said: Said) -> None:
    submit(engine, *[BUILD] * 20)
    assert "more waiting" not in said("status")[1]
    submit(engine, *[BUILD] * 3, run_id="run-b")
    assert "and 3 more waiting jobs: quadbench farm jobs\n" in said("status")[1]


def test_a_job_that_no_slot_runs_any_more_is_told_from_those_that_run(engine: sa.Engine, pool: ScriptedPool, said: Said) -> None:
    killed, running, _ = submit(engine, BUILD, BUILD, BUILD)
    for job in (killed, running):
        begin(engine, job)
    pool.unstarted.add(("run-b", running))
    assert "lost" not in said("jobs", "run-a")[1]
    pool.unstarted.update({("run-a", killed)})
    out = said("jobs", "run-a")[1]
    assert has_line(out, str(killed), "lost, waits")
    assert has_line(out, str(running), "running")
    assert "is lost, waits" in said("logs", str(killed))[1].splitlines()[0]
    pool.broken["queue"] = AWAY
    assert said("jobs", "run-a")[0] == 0
    assert "lost" not in said("jobs", "run-a")[1]


def test_an_ad_with_markup_and_control_characters_is_shown_as_text(pool: ScriptedPool, said: Said) -> None:
    pool.changes["R3CX"] = {"SlotWhyNot": "[red]hot[/red] \x1b[2J\nR9 free", "SlotReady": False, "RemoteOwner": 7}
    pool.changes["R5CY"] = {"SlotLabels": "no json", "SlotServes": 5}
    code, out, _ = said("status")
    assert code == 0
    assert has_line(out, "R3CX", r"[red]hot[/red] \x1b[2J / R9 free")
    assert "R5CY" not in out


def test_a_pool_that_does_not_answer_is_told_beside_the_jobs(engine: sa.Engine, pool: ScriptedPool, said: Said) -> None:
    (job,) = submit(engine)
    pool.broken["slots"] = AWAY
    code, out, err = said("status")
    assert (code, out.startswith("jobs: 1 waiting")) == (ServiceError.exit_code, True)
    says(err, "no route")
    code, out, _ = said("status", "--json")
    status = json.loads(out)
    assert (code, status["states"], status["slots"]) == (ServiceError.exit_code, {"waiting": 1}, [])
    assert "no route" in status["problem"]
    assert list(status["waits"]) == [str(job)]


def test_a_user_without_a_pool_sees_the_jobs(
    engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(engine)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CONDOR_CONFIG", raising=False)
    assert main(["farm", "status"]) == UserError.exit_code
    out, err = capsys.readouterr()
    assert out.startswith("jobs: 1 waiting")
    says(err, "quadbench farm init")


def test_the_status_ends_the_jobs_of_a_run_that_has_left_the_pool_and_none_of_another_pool(
    database: Source, engine: sa.Engine, pool: ScriptedPool, said: Said
) -> None:
    submit(engine, BUILD, run_id="run-a")
    submit(engine, BUILD, run_id="run-b")
    submit(engine, BUILD, run_id="run-c", pool="another:/head/condor_config")
    query(database, "UPDATE jobs SET submitted_at = '2020-01-01 00:00:00.000000'")
    pool.runs.add("run-a")
    said("status")
    told = {job["run_id"]: (job["state"], job["reason"]) for job in json.loads(said("jobs", "--json")[1])}
    assert told["run-a"] == told["run-c"] == ("waiting", None)
    assert told["run-b"][0] == "cancelled"
    reads(told["run-b"][1])


def test_jobs_are_listed_and_a_job_tells_of_its_attempts(engine: sa.Engine, said: Said) -> None:
    first, second = submit(engine, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)))
    job = FarmJobs(engine).begin(Start(job=first, run="run-a", number=1, seat="host-1", host="lab-1"))
    FarmJobs(engine).fail(job, "the \x1b[2J disk", is_transient=True)
    _, out, _ = said("jobs", "run-a")
    says(out, "waiting", snapshot=False)
    assert "\x1b[2J" not in out
    _, out, _ = said("logs", str(first))
    says(out, first, "run-a", "ana@lab-1")
    assert "host-1" in out
    assert out.count(r"the \x1b[2J disk") == 2
    says(said("logs", str(second))[1], first)
    told = json.loads(said("logs", str(first), "--json")[1])
    assert [(past["number"], past["host"], past["seat"]) for past in told["attempts"]] == [(1, "lab-1", "host-1")]
    assert [job["id"] for job in json.loads(said("jobs", "--json")[1])] == [second, first]


def test_a_job_and_a_run_are_cancelled_here_and_removed_from_the_pool(engine: sa.Engine, pool: ScriptedPool, said: Said) -> None:
    first, second = submit(engine, BUILD, BUILD)
    says(said("cancel", str(first), "--why", "a typo")[1], first)
    assert pool.removed == [f'QuadbenchJob == {first} && QuadbenchRun == "run-a"']  # another database has a job of this number
    assert "a typo" in said("logs", str(first))[1]
    reads(said("cancel", str(first))[1], first)
    begin(engine, second)
    assert json.loads(said("cancel", "run-a", "--json")[1]) == {"cancelled": 0, "stopping": 1}
    assert pool.removed[-1] == 'QuadbenchRun == "run-a"'
    says(said("jobs")[1])
    says(said("cancel", "run-a")[1])


@pytest.mark.parametrize("error", [AWAY, UserError("the pool does not let you remove jobs of ana")])
def test_nothing_is_cancelled_while_the_pool_does_not_answer_or_refuses(
    error: QuadbenchError, engine: sa.Engine, pool: ScriptedPool, said: Said
) -> None:
    waiting, running = submit(engine, BUILD, BUILD)
    begin(engine, running)
    pool.broken["remove"] = error
    for what in (str(waiting), str(running), "run-a"):
        code, _, err = said("cancel", what)
        assert (code, error.message in err) == (error.exit_code, True)
    jobs = [job_with_attempts(engine, job)[0] for job in (waiting, running)]
    assert [(job.state, job.is_stopping) for job in jobs] == [(JobState.WAITING, False), (JobState.RUNNING, False)]


def test_a_run_s_name_in_the_database_selects_no_other_jobs_of_the_pool(
    database: Source, engine: sa.Engine, pool: ScriptedPool, said: Said
) -> None:
    (job,) = submit(engine)
    query(database, """UPDATE jobs SET run_id = 'x" || true || "'""")
    said("cancel", str(job))
    assert pool.removed == [f'QuadbenchJob == {job} && QuadbenchRun == "x%22%20%7C%7C%20true%20%7C%7C%20%22"']


def test_what_is_not_there_is_named(engine: sa.Engine, pool: ScriptedPool, said: Said) -> None:
    submit(engine)
    for words, reason in {
        ("jobs", "run-b"): "unknown run of the farm 'run-b'; known: run-a",
        ("cancel", "run-b"): "unknown run of the farm 'run-b'",
        ("cancel", "99"): "unknown job '99'",
        ("cancel", "9" * 30): "unknown run of the farm '999",
        ("cancel", "9" * 5000): "unknown run of the farm '999",
        ("logs", "99"): "unknown job '99'",
        ("logs", "9" * 30): "unknown job '999",
    }.items():
        code, _, err = said(*words)
        assert (code, reason in err) == (2, True), (words, err)
    assert pool.removed == []
