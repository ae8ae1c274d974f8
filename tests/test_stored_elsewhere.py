"""Records elsewhere: as a table for pandas, as CSV and Parquet; and old runs removed."""

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sentences import raising, says
from support.stored_records import STARTED, query, record, sample
from support.synthetic_run import S25

import quadbench
from quadbench.artifacts import Retry, Status
from quadbench.cli import main
from quadbench.errors import UnknownNameError
from quadbench.results import stored_runs
from quadbench.results.engine import DATABASE_VARIABLE, Source
from quadbench.results.layout import Layout
from quadbench.results.maintenance import prunable
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, keep_run, part_for, read_run_file, run_ids, save_run, store_fetched

DAY = timedelta(days=1)


@pytest.fixture
def layout(tmp_path: Path, database: Source, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A results folder with runs of 1, 100 and 200 days ago, and one of 300 days elsewhere, all in another database."""
    layout = Layout(tmp_path / "here")
    monkeypatch.setenv(DATABASE_VARIABLE, str(database) if "://" in str(database) else f"sqlite:///{database}")
    now = datetime.now(UTC)
    with open_records(database) as records:
        for days in (1, 100, 200, 300):
            ended = {"started_at": now - days * DAY, "ended_at": now - days * DAY}
            records.store(record(f"r{days}", run_id=f"run-{days}", **ended))
    for days in (1, 100, 200):
        save_run(layout, RunFile(run_id=f"run-{days}", bundle="b", deployments=(), is_ended=True))
    return layout


def test_old_runs_are_removed_but_for_those_that_something_refers_to(
    layout: Layout, database: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = layout.comparison("c1") / "comparison.json"
    comparison.parent.mkdir(parents=True)
    comparison.write_text(json.dumps({"sides": [{"run_id": "run-100"}, {"run_id": "run-1"}]}))
    prune = ["prune", "--keep", "90d", "--results", str(layout.root)]
    assert main([*prune, "--dry-run"]) == 0
    says(capsys.readouterr().out, "run-200")
    assert main([*prune, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["removed"], answer["kept"]) == (["run-200"], {"run-100": str(comparison)})
    assert query(database, "SELECT run_id FROM records ORDER BY run_id") == [("run-1",), ("run-100",), ("run-300",)]
    assert not layout.run("run-200").exists()
    assert query(database, "SELECT COUNT(*) FROM samples") == [(6,)]

    report = layout.report("run-100")
    comparison.unlink()
    report.parent.mkdir()
    report.write_text("<html>")
    assert main(prune) == 0
    says(capsys.readouterr().out, "run-100", report)
    save_run(layout, RunFile(run_id="run-100", bundle="b", deployments=(), is_ended=True, has_own_report=True))
    keep_run(layout, "run-100")
    assert main(prune) == 0
    says(capsys.readouterr().out, "run-100", report)
    save_run(layout, RunFile(run_id="run-100", bundle="b", deployments=(), is_ended=True, has_own_report=True))
    assert main(prune) == 0
    says(capsys.readouterr().out, "run-100")
    assert not report.exists()
    comparison.write_text("{")
    assert main(prune) == 3
    says(capsys.readouterr().err)


def test_runs_of_other_folders_hide_none_of_this_folder(layout: Layout, database: Source) -> None:
    with open_records(database) as records:
        records.store(record("elsewhere", run_id="elsewhere", started_at=datetime.now(UTC), ended_at=datetime.now(UTC)))
    assert run_ids(layout, 2) == ["run-1", "run-100"]
    assert main(["prune", "--keep", "90d", "--results", str(layout.root)]) == 0


def test_of_what_a_worker_measured_for_a_farm_the_records_stay(layout: Layout, database: Source) -> None:
    part = RunFile(run_id="run-200", bundle="b", deployments=(), is_ended=True, has_own_report=True, is_part=True)
    prune = ["prune", "--keep", "150d", "--results", str(layout.root)]
    save_run(layout, part)
    assert main(prune) == 0
    assert not layout.run("run-200").exists()
    assert query(database, "SELECT COUNT(*) FROM records") == [(4,)]
    save_run(layout, replace(part, has_own_report=False))
    store_fetched(layout, part)
    assert not read_run_file(layout, "run-200").has_own_report
    assert main(prune) == 0
    assert query(database, "SELECT COUNT(*) FROM records") == [(3,)]


def test_a_comparison_on_a_worker_keeps_no_run_there_that_was_measured_for_a_farm(layout: Layout) -> None:
    part = RunFile(run_id="run-200", bundle="b", deployments=(), is_ended=True, is_part=True)
    for run_id in ("run-200", "run-100"):
        save_run(layout, replace(part, run_id=run_id, is_part=run_id == "run-200"))
    comparison = layout.comparison("c") / "comparison.json"
    comparison.parent.mkdir(parents=True)
    comparison.write_text(json.dumps({"runs": [{"run_id": "run-200"}, {"run_id": "run-100"}]}))
    assert main(["prune", "--keep", "50d", "--results", str(layout.root)]) == 0
    assert not layout.run("run-200").exists()
    assert layout.run("run-100").exists()


@pytest.mark.parametrize(
    "named", ["", "sqlite:///{}/results/quadbench.sqlite", "sqlite:///{}/results/../results/quadbench.sqlite"]
)
def test_a_comparison_keeps_what_was_measured_for_a_farm_where_its_records_lie_nowhere_else(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Layout(tmp_path / "results")
    monkeypatch.setenv(DATABASE_VARIABLE, named.format(tmp_path))
    ended = datetime.now(UTC) - 200 * DAY
    with open_records(own.database) as records:
        records.store(record("r200", run_id="run-200", started_at=ended, ended_at=ended))
    save_run(own, RunFile(run_id="run-200", bundle="b", deployments=(), is_ended=True, is_part=True))
    comparison = own.comparison("c") / "comparison.json"
    comparison.parent.mkdir(parents=True)
    comparison.write_text(json.dumps({"runs": [{"run_id": "run-200"}]}))
    prune = ["prune", "--keep", "150d", "--results", str(own.root)]
    assert main(prune) == 0
    assert own.run("run-200").exists()
    comparison.unlink()
    assert main(prune) == 0
    assert query(own.database, "SELECT COUNT(*) FROM records") == [(0,)]


def test_a_part_of_a_run_says_nothing_of_other_devices_of_its_host(layout: Layout) -> None:
    lost = replace(S25, serial="OTHER", address="s25@OTHER")
    on_host = RunFile(run_id="run-1", bundle="b", deployments=(), devices=(S25, lost), left_out={lost.address: "lost for good"})
    save_run(layout, on_host)
    retries = [Retry(address=device.address, reason="gone", away_s=2.0) for device in on_host.devices]
    part = part_for(replace(on_host, retries=tuple(retries)), S25.address)
    assert (part.addresses, part.retries, part.left_out) == ((S25.address,), (retries[0],), {})
    store_fetched(layout, part)
    assert read_run_file(layout, "run-1").left_out == {lost.address: "lost for good"}


def test_a_fetched_run_says_of_its_devices_what_the_farm_does(layout: Layout) -> None:
    failed = RunFile(run_id="run-1", bundle="b", deployments=(), devices=(S25,), left_out={S25.address: "lost", "x": "away"})
    save_run(layout, failed)
    store_fetched(layout, replace(failed, left_out={}, is_ended=True))
    assert read_run_file(layout, "run-1").left_out == {"x": "away"}


def test_a_run_is_kept_without_undoing_what_another_process_has_just_written(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = RunFile(run_id="run-1", bundle="b", deployments=(), has_own_report=True)
    save_run(layout, under_way)
    monkeypatch.setattr(stored_runs, "folder_lock", lambda _: nullcontext(save_run(layout, replace(under_way, is_ended=True))))
    keep_run(layout, "run-1")
    assert read_run_file(layout, "run-1") == replace(under_way, is_ended=True, has_own_report=False)


RUNS = st.sampled_from("abcdefgh")
AGES = st.dictionaries(RUNS, st.integers(0, 100))


@given(AGES, st.sets(RUNS), st.integers(0, 100))
def test_no_young_run_and_none_that_is_referred_to_goes(ages: dict[str, int], referred: set[str], keep: int) -> None:
    ended_at = {run_id: STARTED - age * DAY for run_id, age in ages.items()}
    gone = prunable(ended_at, dict.fromkeys(referred, Path("report")), STARTED - keep * DAY)
    assert set(gone) == {run_id for run_id, age in ages.items() if age > keep and run_id not in referred}


def test_samples_are_a_table_with_a_row_a_value(database: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, str(database) if "://" in str(database) else f"sqlite:///{database}")
    with open_records(database) as records:
        records.store(record("r1"))
        records.store(record("r2", run_id="run-b", status=Status.FAILED, samples=(sample(step=7),)))
        records.store(record("r3", run_id="run-c", samples=()))
    table = quadbench.load("run-a", "run-b", results=tmp_path)
    assert list(table["run_id"]) == ["run-a", "run-a", "run-b"]
    assert list(table["metric"]) == ["unet_ns", "switch_ns", "unet_ns"]
    assert list(table["status"]) == ["OK", "OK", "FAILED"]
    assert table.loc[table["metric"] == "switch_ns", "label.to"].item() == "b"
    assert list(table["step"].isna()) == [False, True, False]
    assert table.groupby("task")["value"].mean().to_dict() == {"restyle": 12_345_678.0}
    empty = quadbench.load("run-c", results=tmp_path)
    assert (len(empty), set(empty.columns) <= set(table.columns)) == (0, True)
    with raising(UnknownNameError, "run-d"):
        quadbench.load("run-d", results=tmp_path)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A results folder with a run, one of whose items is named like a formula."""
    layout = Layout(tmp_path / "desk")
    formula = replace(record().samples[0], item="=1+1")
    with open_records(layout.database) as records:
        records.store(record(samples=(formula, *record().samples)))
    return layout.root


def test_samples_are_written_as_csv(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = quadbench.load("run-a", results=desk)
    assert main(["samples", "run-a", "-o", str(tmp_path / "samples.csv"), "--results", str(desk)]) == 0
    assert capsys.readouterr().out == f"3 samples: {tmp_path / 'samples.csv'}\n"
    written = pd.read_csv(tmp_path / "samples.csv", dtype={"item": str})
    assert list(written["value"]) == list(table["value"])
    assert list(written["item"].fillna("")) == ["'=1+1", "000", ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["desk", "samples.csv"]


def test_samples_are_written_to_no_other_file(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = desk / "quadbench.sqlite" / "a.csv"
    assert main(["samples", "run-a", "-o", str(path), "--results", str(desk)]) == 3
    says(capsys.readouterr().err)
