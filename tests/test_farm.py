"""`quadbench farm`: what waits, what runs and what is wrong is said, whatever the database holds."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.sentences import raising, reads, says
from support.stored_records import LATEST, query

from quadbench.cli import main
from quadbench.errors import ArtifactError
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.job_status import in_circles, queue_status
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import capability_need
from quadbench.farm.scheduler import Seat
from quadbench.farm.unit import systemd_unit
from quadbench.farm.workers import NewWorker, WorkerDevice, Workers
from quadbench.results.engine import DATABASE_VARIABLE, Source, open_engine

BUILD = NewJob(kind=JobKind.BUILD, needs=capability_need("build"))
HOST = Seat(name="host-1", serves=frozenset({capability_need("build")}))
PHONE = WorkerDevice(name="R3CX", address="s25@R3CX", labels={"profile": "s25"})
WORKER = NewWorker(name="one", host="lab-1", version="0.1.0", capabilities=("build",), devices=(PHONE,))
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def engine(database: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    monkeypatch.setenv(DATABASE_VARIABLE, str(database))
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def said(engine: sa.Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def call(*words: str) -> tuple[int, str, str]:
        code = main(["farm", *words, "--results", str(tmp_path / "other")])
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return call


def submit(engine: sa.Engine, *batch: NewJob, run_id: str = "run-a") -> list[int]:
    return JobQueue(engine).submit(run_id, batch or (BUILD,), "ana@lab-1", "0.1.0")


def test_the_status_has_jobs_owners_and_workers(engine: sa.Engine, said: Said) -> None:
    submit(engine, BUILD, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0, 1)))
    JobQueue(engine).claim("one", "0.1.0", [HOST])
    Workers(engine).note(WORKER)
    code, out, _ = said("status")
    assert code == 0
    says(out, 2, 1, 0)
    worker, device = ("one", "lab-1", "0.1.0", "build", "1", "ready"), (PHONE.name, PHONE.labels["profile"], "lab-1", "one")
    for words in (("ana@lab-1", "2", "1"), worker, device):
        assert any(all(word in line for word in words) for line in out.splitlines())
    status = json.loads(said("status", "--json")[1])
    assert status["states"] == {"waiting": 2, "running": 1}
    assert status["workers"][0]["devices"] == [asdict(PHONE)]


def test_jobs_are_listed_and_a_job_tells_of_its_attempts(engine: sa.Engine, said: Said) -> None:
    first, second = submit(engine, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)))
    queue = JobQueue(engine)
    (attempt,) = queue.claim("one", "0.1.0", [HOST])
    queue.fail(attempt, "the \x1b[2J disk", is_transient=True)
    _, out, _ = said("jobs", "run-a")
    says(out, "waiting", snapshot=False)
    assert "\x1b[2J" not in out
    _, out, _ = said("logs", str(first))
    says(out, first, "run-a", "ana@lab-1")
    assert "host-1" in out
    assert out.count(r"the \x1b[2J disk") == 2
    says(said("logs", str(second))[1], first)
    told = json.loads(said("logs", str(first), "--json")[1])
    assert [(past["number"], past["worker"]) for past in told["attempts"]] == [(1, "one")]
    assert [job["id"] for job in json.loads(said("jobs", "--json")[1])] == [second, first]


def test_a_job_and_a_run_are_cancelled(engine: sa.Engine, said: Said) -> None:
    first, _ = submit(engine, BUILD, BUILD)
    says(said("cancel", str(first), "--why", "a typo")[1], first)
    assert "a typo" in said("logs", str(first))[1]
    reads(said("cancel", str(first))[1], first)
    JobQueue(engine).claim("one", "0.1.0", [HOST])
    assert json.loads(said("cancel", "run-a", "--json")[1]) == {"cancelled": 0, "stopping": 1}
    says(said("jobs")[1])
    says(said("cancel", "run-a")[1])


def test_what_is_not_there_is_named(engine: sa.Engine, said: Said) -> None:
    submit(engine)
    for words, reason in {
        ("jobs", "run-b"): "unknown run in the queue 'run-b'; known: run-a",
        ("cancel", "run-b"): "unknown run in the queue 'run-b'",
        ("cancel", "99"): "unknown job '99'",
        ("cancel", "9" * 30): "unknown job '999",
        ("logs", "99"): "unknown job '99'",
        ("logs", "9" * 30): "unknown job '999",
    }.items():
        code, _, err = said(*words)
        assert (code, reason in err) == (2, True), (words, err)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE jobs SET state = 'sleeping'", (2, "sleeping")),
        ("UPDATE jobs SET payload = '{'", ("run-a",)),
        ("UPDATE jobs SET attempt = -1", ("-1", 0, 3)),
        ("UPDATE jobs SET open_needs = 7", ()),
        (
            "INSERT INTO job_needs (job, needed) SELECT min(id), max(id) FROM jobs",
            (1, 2),
        ),
    ],
)
def test_what_is_wrong_in_the_database_is_named_and_all_else_is_shown(
    change: str, reason: tuple[object, ...], database: Source, engine: sa.Engine, said: Said
) -> None:
    submit(engine, BUILD, NewJob(kind=JobKind.COMPILE, needs="x", after=(0,)))
    query(database, change)
    code, out, err = said("status")
    assert code == ArtifactError.exit_code
    assert out.startswith("jobs: ")
    says(err, *reason)
    for words in (("jobs",), ("jobs", "run-a"), ("logs", "1"), ("status", "--json"), ("cancel", "run-a")):
        assert said(*words)[0] in (0, 3)


COLUMNS = ["submitted_at", "owner", "until", "is_stopping", "reason", "needs", "version", "state"]
VALUES = ("x'00ff'", "'yesterday'", "-1e300")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        *((column, VALUES[number % 3 :][:1]) for number, column in enumerate(COLUMNS)),
        *(pytest.param(column, VALUES, marks=pytest.mark.slow) for column in COLUMNS),
    ],
)
def test_a_value_of_no_type_ends_no_command_in_a_traceback(
    column: str, values: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite alone takes any value anywhere."""
    database = tmp_path / "any.sqlite"
    monkeypatch.setenv(DATABASE_VARIABLE, str(database))
    engine = open_engine(database)
    submit(engine, BUILD, BUILD)
    JobQueue(engine).claim("one", "0.1.0", [HOST])
    Workers(engine).note(WORKER)
    for value in values:
        query(database, f"UPDATE jobs SET {column} = {value}")
        query(database, f"UPDATE attempts SET started_at = {value}, ended_at = {value}, reason = {value}, owner = {value}")
        query(database, f"UPDATE workers SET last_seen = {value}, devices = {value}, is_draining = {value}")
        for words in (("status",), ("jobs",), ("logs", "1"), ("status", "--json"), ("cancel", "1"), ("cancel", "run-a")):
            assert main(["farm", *words]) in (0, 2, 3)
    engine.dispose()
    capsys.readouterr()


def test_a_farm_is_begun_and_what_was_there_is_said(
    database: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{database}" if isinstance(database, Path) else database)
    monkeypatch.delenv("QUADBENCH_STORE", raising=False)
    main(["farm", "init"])
    said = [capsys.readouterr().out]
    monkeypatch.setenv("QUADBENCH_STORE", str(tmp_path))
    main(["farm", "init"])
    said.append(capsys.readouterr().out)
    if isinstance(database, Path):
        return
    says(said[0], "$QUADBENCH_STORE")
    says(said[1], tmp_path)
    main(["farm", "init", "--json"])
    assert json.loads(capsys.readouterr().out)["schema"] == LATEST


def test_a_farm_without_a_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    assert main(["farm", "init", "--results", str(tmp_path)]) == 2
    says(capsys.readouterr().err, f"${DATABASE_VARIABLE}")


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["farm", "unit"])
    assert "KillSignal=SIGTERM" in capsys.readouterr().out
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "quadbench-worker.service"
    unit.write_text(systemd_unit(Path("/bin/true"), "daemon"))
    result = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert str(unit) not in result.stderr
    assert unit.name not in result.stderr


def test_a_unit_is_for_a_user_that_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["farm", "unit", "--user", "me\nExecStartPre=/bin/false"]) == 2
    says(capsys.readouterr().err)


def test_a_worker_is_known_while_it_gives_signs_of_life_and_is_told_to_drain(database: Source, engine: sa.Engine) -> None:
    workers = Workers(engine)
    assert not workers.note(WORKER)
    assert workers.drain("one")
    assert workers.note(WORKER)
    assert not workers.drain("two")
    (known,) = workers.known()
    assert (known.worker, known.is_draining, known.is_here) == (WORKER, True, True)
    query(database, "UPDATE workers SET last_seen = '2020-01-01 00:00:00.000000'")
    assert not workers.known()[0].is_here
    workers.note(NewWorker(name="two", host="lab-2", version="0.1.0", capabilities=(), devices=()))
    assert [known.worker.name for known in workers.known()] == ["two"]  # who was not seen for long is forgotten
    workers.leave("two")
    assert workers.known() == []


def test_a_worker_of_another_quadbench_is_told_why_it_gets_nothing(database: Source, engine: sa.Engine) -> None:
    workers = Workers(engine)
    assert workers.why_idle(WORKER) is None
    JobQueue(engine).submit("run-a", [BUILD], "ana@lab-1", "0.2.0")
    reads(workers.why_idle(WORKER), "0.2.0", "one", "0.1.0")
    query(database, "UPDATE alembic_version SET version_num = '9999'")
    with raising(ArtifactError, 9999):
        workers.note(WORKER)


def test_jobs_in_a_circle_are_told_from_those_that_wait_for_one_that_runs() -> None:
    assert in_circles([(2, 1), (3, 2)]) == []
    assert in_circles([(1, 3), (2, 1), (3, 2), (4, 3), (6, 5)]) == [1, 2, 3, 4]
    assert in_circles([(1, 1)]) == [1]


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_status_of_many_jobs_is_read_in_seconds(count: int, engine: sa.Engine) -> None:
    submit(engine, *[BUILD] * count)
    began = time.monotonic()
    assert queue_status(engine).states == {"waiting": count}
    assert time.monotonic() - began < 30
