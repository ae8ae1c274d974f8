"""Old runs go and others stay: those under way, those whose removal was cut short, and what killed processes have left."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.postgresql_server import PostgresqlServer
from support.sentences import says
from support.stored_records import query, record
from support.synthetic_run import S25

from quadbench.artifacts import Variant
from quadbench.cli import main
from quadbench.devices.lab.leases import Leases, lease_name
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import FarmJobs
from quadbench.host import process_identity
from quadbench.results.engine import DATABASE_VARIABLE, Source, open_engine
from quadbench.results.layout import Layout
from quadbench.results.progress import Progress, save_progress
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, save_run, store_record

OLD = datetime.now(UTC) - timedelta(days=100)
HOUR = timedelta(hours=1)
BEGUN = RunFile(run_id="run-a", bundle="b", deployments=(), devices=(S25,), planned={Variant.SHARED: 2})


@pytest.fixture
def layout(tmp_path: Path, database: Source, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A results folder with an old run, which has not ended, its record in a database of each engine in turn."""
    monkeypatch.setenv(DATABASE_VARIABLE, str(database))
    layout = Layout(tmp_path / "results")
    with open_records(database) as records:
        records.store(record("r1", run_id="run-a", started_at=OLD, ended_at=OLD))
    save_run(layout, BEGUN)
    return layout


def pruned(layout: Layout, *words: str) -> int:
    return main(["prune", "--keep", "90d", "--results", str(layout.root), *words])


def stored(database: Source) -> object:
    return query(database, "SELECT COUNT(*) FROM records")[0][0]


def be_at_work(layout: Layout, run_id: str | None) -> None:
    layout.at_work.mkdir(parents=True, exist_ok=True)
    work = Progress(what="x", owner="ana", process=process_identity(), run_id=run_id, began_at=OLD, updated_at=OLD)
    save_progress(layout, "one", work)


@pytest.mark.parametrize("named", ["run-a", None])
def test_a_run_stays_while_a_process_works_at_it_however_old_its_records_are(
    layout: Layout, database: Source, named: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    part = layout.run("run-a") / "s25/shared-0/.000.png.part"
    part.parent.mkdir(parents=True)
    part.touch()
    be_at_work(layout, named)  # a comparison, which makes several runs, names none
    assert pruned(layout) == 0
    says(capsys.readouterr().out, "run-a")
    assert (stored(database), part.exists()) == (1, True)
    layout.progress("one").unlink()
    assert pruned(layout) == 0
    assert (stored(database), layout.run("run-a").exists()) == (0, False)


def test_a_run_stays_while_the_farm_has_jobs_of_it(layout: Layout, database: Source) -> None:
    engine = open_engine(database)
    (job,) = FarmJobs(engine).submit("run-a", [NewJob(kind=JobKind.MEASURE, needs="any")], "ana@lab", "1", lambda _: None)
    assert pruned(layout) == 0
    assert stored(database) == 1
    FarmJobs(engine).cancel(job.id, "no longer wanted")
    engine.dispose()
    assert pruned(layout) == 0
    assert stored(database) == 0


def test_a_run_that_has_not_ended_stays_while_a_job_has_its_device(layout: Layout, database: Source) -> None:
    engine = open_engine(database)
    leases = Leases(engine)
    lease = leases.take(lease_name(S25.family, S25.serial), "ana@lab", "run of x")
    assert pruned(layout) == 0
    assert stored(database) == 1
    leases.end(lease)
    engine.dispose()
    assert pruned(layout) == 0
    assert stored(database) == 0


@pytest.mark.parametrize("has_records", [True, False])
def test_a_removal_that_was_cut_short_is_finished(
    layout: Layout, database: Source, has_records: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.run("run-a").rename(layout.removed_run("run-a"))
    if not has_records:
        query(database, "DELETE FROM records")
    assert pruned(layout, "--dry-run") == 0
    says(capsys.readouterr().out, "run-a")
    assert pruned(layout) == 0
    says(capsys.readouterr().out, "run-a")
    assert (stored(database), list(layout.runs.iterdir())) == (0, [])


def test_of_a_run_without_records_it_is_said_that_they_are_gone(
    layout: Layout, database: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    query(database, "DELETE FROM records")
    where = ["--results", str(layout.root)]
    assert main(["show", "run-a", *where]) == 3
    says(capsys.readouterr().err)
    save_run(layout, replace(BEGUN, is_ended=True))
    assert main(["run", "--resume", "run-a", *where]) != 0
    assert "no launch is missing" not in capsys.readouterr().err


def test_what_killed_builds_and_runs_left_goes(layout: Layout) -> None:
    part = layout.run("run-a") / "s25/shared-0/.000.png.part"
    left = [layout.bundles / f".scratch.{'a' * 16}", layout.compiled_bundles / f".c0.old.{'a' * 16}"]
    kept = [layout.bundles / "d0d0", layout.compiled_bundles / ".qnn"]
    for folder in (*left, *kept, part.parent):
        folder.mkdir(parents=True)
    part.touch()
    assert main(["prune", "--keep", "900d", "--results", str(layout.root)]) == 0
    assert [path for path in (*left, part) if path.exists()] == []
    assert all(path.exists() for path in (*kept, part.parent))


# Whose clock it is


@pytest.fixture
def ahead(postgresql: PostgresqlServer) -> str:
    """A database whose clock is an hour ahead of this host's, as a host without a clock finds it."""
    url = postgresql.new_database()
    open_engine(url).dispose()
    query(
        url,
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE"
        " AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$",
    )
    name = url.partition("@/")[2].partition("?")[0]
    query(url, f"ALTER DATABASE {name} SET search_path = public, pg_catalog")
    return url


def test_a_host_with_a_wrong_clock_stores_its_launches_by_the_database_s(
    ahead: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout, ended = Layout(tmp_path), datetime.now(UTC)
    mine = [record(f"r{n}", launch=n, started_at=ended - HOUR / 60, ended_at=ended) for n in range(2)]
    with open_records(ahead) as records:
        records.store(record("other", run_id="run-other", started_at=ended + HOUR / 2, ended_at=ended + HOUR / 2))
        for one in mine:
            store_record(records, one, layout)
        assert records.run_ids() == ["run-a", "run-other"]
        for one in records.run_records("run-a"):
            assert abs(one.ended_at - ended - HOUR) < HOUR / 2
            assert one.ended_at - one.started_at == HOUR / 60
    assert caplog.text.count("this host's clock is") == 1


def test_times_in_a_file_are_the_host_s(tmp_path: Path) -> None:
    with open_records(tmp_path / "db.sqlite") as records:
        store_record(records, record("r1"), Layout(tmp_path))
        assert records.run_records("run-a") == (record("r1"),)


# What is missing


@pytest.mark.parametrize(
    ("stored", "change", "lacking"),
    [
        ({S25.address: 2}, {}, []),
        ({S25.address: 1}, {}, [S25.address]),
        ({}, {}, [S25.address]),
        ({}, {"left_out": {S25.address: "its cable"}}, []),
        ({}, {"planned": {}}, []),
    ],
)
def test_a_device_lacks_launches_that_were_planned_and_are_not_stored(
    stored: dict[str, int], change: dict[str, object], lacking: list[str]
) -> None:
    assert replace(BEGUN, is_ended=True, **change).missing_launches(stored) == lacking  # type: ignore[arg-type]
