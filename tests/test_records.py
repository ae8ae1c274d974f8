"""Records come back as they went in, once, from any number of processes, and SQL users find their figures."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.forked import Forked
from support.sentences import raising
from support.stored_records import DEVICE, STARTED, query, record, sample
from support.synthetic_run import ABBA, make_run

from quadbench.artifacts import Caveat, ErrorClass, Sample, Status, Variant
from quadbench.errors import ArtifactError, UnknownNameError
from quadbench.report.kpi import Figure, kpi_rows
from quadbench.results.engine import Source, begin_read, begin_write, open_engine
from quadbench.results.records import RecordStore, open_records, read_records
from quadbench.results.sql_dialects import require_database_file


@pytest.fixture
def records(database: Source) -> Iterator[RecordStore]:
    with open_records(database) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A SQLite file, for what is said of files alone."""
    return tmp_path / "alone" / "quadbench.sqlite"


def test_every_field_comes_back_as_it_was_stored(records: RecordStore) -> None:
    full = record(
        status=Status.FAILED,
        error_class=ErrorClass.HARNESS,
        reason="parity: restyle/000 differs by 9/255 – “worst”",
        caveats=(Caveat.VIRTUAL_DEVICE, Caveat.FEW_SAMPLES),
        versions={"harness": "0.1.0", "runtime": "1.27.0"},
        state={"before.thermal_status": "0", "after.battery_percent": "unavailable"},
        images={"restyle/000": "runs/run-a/virtual-s25/shared-0/restyle/000.png"},
        device=replace(DEVICE, android_release="15", fingerprint="samsung/x"),
    )
    records.store(full)
    assert records.run_records("run-a") == (full,)


def test_a_record_without_samples_is_kept(records: RecordStore) -> None:
    records.store(record(samples=(), status=Status.SKIPPED))
    assert records.run_records("run-a")[0].samples == ()


def test_every_enumeration_value_survives(records: RecordStore) -> None:
    cases = [record(f"s{s}", status=s) for s in Status] + [record(f"v{v}", variant=v) for v in Variant]
    cases += [record(f"e{e}", error_class=e) for e in ErrorClass] + [record("caveats", caveats=tuple(Caveat))]
    for case in cases:
        records.store(case)
    assert list(records.run_records("run-a")) == cases


def test_times_of_other_zones_come_back_as_the_same_instant_in_utc(records: RecordStore) -> None:
    there = STARTED.astimezone(timezone(timedelta(hours=9)))
    records.store(record(started_at=there))
    stored = records.run_records("run-a")[0].started_at
    assert (stored, stored.tzinfo) == (there, UTC)


def test_a_time_without_zone_is_refused(records: RecordStore) -> None:
    with raising(sa.exc.StatementError, "no time zone", snapshot=False):
        records.store(record(started_at=STARTED.replace(tzinfo=None)))


def test_storing_twice_is_storing_once(records: RecordStore, database: Source) -> None:
    assert records.store(record()) is True
    assert records.store(record()) is False
    assert query(database, "SELECT COUNT(*) FROM records") == [(1,)]
    assert query(database, "SELECT COUNT(*) FROM samples") == [(2,)]


def test_another_record_under_the_same_id_is_refused(records: RecordStore) -> None:
    records.store(record())
    with raising(ArtifactError, "r1", "run-a"):
        records.store(record(launch=1))
    assert records.run_records("run-a") == (record(),)


def test_a_record_whose_sample_is_not_finite_leaves_nothing_behind(records: RecordStore, database: Source) -> None:
    with raising(ArtifactError, "unet_ns"):
        records.store(record(samples=(sample(), sample(value=float("nan")))))
    assert query(database, "SELECT COUNT(*) FROM records") == [(0,)]


def test_an_unknown_run_is_refused_with_the_known_ones(records: RecordStore) -> None:
    records.store(record())
    with raising(UnknownNameError, "run-b", "run-a"):
        records.run_records("run-b")


def test_records_of_a_run_come_in_the_order_in_which_they_began(records: RecordStore) -> None:
    for index in (2, 0, 1):
        records.store(record(f"r{index}", launch=index, started_at=STARTED + timedelta(microseconds=index)))
    records.store(record("other", run_id="run-b"))
    assert [r.launch for r in records.run_records("run-a")] == [0, 1, 2]


def test_runs_are_listed_latest_first(records: RecordStore) -> None:
    later = STARTED + timedelta(hours=1)
    records.store(record("r1"))
    records.store(record("r2", variant=Variant.PER_GRAPH, status=Status.FAILED, ended_at=later))
    records.store(record("r3", run_id="run-b", started_at=later, device=replace(DEVICE, address="local")))
    records.store(record("r4", started_at=later + timedelta(hours=1)))
    assert records.run_ids() == ["run-b", "run-a"]
    assert records.run_ids(limit=1) == ["run-b"]


def test_an_empty_database_has_no_run(records: RecordStore) -> None:
    assert records.run_ids() == []


def test_many_samples_cost_little_more_than_the_database_does(path: Path, tmp_path: Path) -> None:
    many = record(samples=tuple(sample(task="restyle", step=i, value=float(i + 1), labels={"runs": "2"}) for i in range(5000)))
    with open_records(path) as records:

        def store_and_read(again: int) -> None:
            one = replace(many, record_id=f"r{again}", run_id=f"run-{again}")
            records.store(one)
            assert records.run_records(one.run_id) == (one,)

        ours = min(_cpu_seconds(store_and_read, again) for again in range(3))
    bare = min(_cpu_seconds(_bare_rows, tmp_path / f"bare-{again}.sqlite", len(many.samples)) for again in range(3))
    assert ours < 40 * bare  # 10 to 20 were seen


def _cpu_seconds(action: Callable[..., object], *arguments: object) -> float:
    began = time.process_time()
    action(*arguments)
    return time.process_time() - began


def _bare_rows(path: Path, count: int) -> list[object]:
    """As many rows, written and read by sqlite3 itself, with their labels as JSON."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE samples (metric TEXT, value REAL, task TEXT, step INTEGER, labels TEXT)")
        rows = (("unet_ns", float(i), "restyle", i, json.dumps({"runs": "2"})) for i in range(count))
        connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
        return [json.loads(labels) for (labels,) in connection.execute("SELECT labels FROM samples")]


def test_records_survive_closing_and_opening(database: Source) -> None:
    with open_records(database) as first:
        first.store(record())
    with open_records(str(database)) as second:
        assert second.run_records("run-a") == (record(),)


def test_a_file_is_named_by_its_url_too(path: Path) -> None:
    with open_records(f"sqlite:///{path}") as opened:
        opened.store(record())
    assert query(path, "SELECT record_id FROM records") == [("r1",)]


def test_a_file_keeps_a_write_ahead_log(path: Path) -> None:
    open_records(path).close()
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


def test_deleting_a_record_deletes_its_samples(records: RecordStore, database: Source) -> None:
    records.store(record())
    engine = open_engine(database)
    with begin_write(engine) as connection:
        connection.exec_driver_sql("DELETE FROM records")
    engine.dispose()
    assert query(database, "SELECT COUNT(*) FROM samples") == [(0,)]


def test_processes_that_open_a_new_database_at_once_create_it_once(database: Source) -> None:
    code = (
        "import sys\n"
        "from support.stored_records import record\n"
        "from quadbench.results.records import open_records\n"
        "with open_records(sys.argv[1]) as r:\n"
        "    for i in range(20): r.store(record(f'{sys.argv[2]}-{i}'))\n"
    )
    processes = [Forked(code, str(database), str(i)) for i in range(3)]
    assert [process.communicate()[1] for process in processes] == ["", "", ""]
    assert query(database, "SELECT COUNT(*) FROM records") == [(60,)]
    assert query(database, "SELECT COUNT(*) FROM identity") == [(1,)]


def test_the_view_gives_each_figure_of_a_run_without_warmup_and_failures(records: RecordStore, database: Source) -> None:
    def samples(first: int, count: int, **words: object) -> tuple[Sample, ...]:
        return tuple(sample(task="restyle", component="unet", value=float(first + i), **words) for i in range(count))

    records.store(record("r0", samples=samples(1, 6) + samples(900, 2, is_warmup=True)))
    records.store(record("r1", launch=1, samples=samples(7, 6)))
    records.store(record("r2", launch=2, samples=samples(900, 5), status=Status.FAILED))
    records.store(record("r3", variant=Variant.PER_GRAPH, samples=samples(1, 3)))
    rows = query(database, "SELECT variant, launches, n, minimum, mean, p50, maximum FROM kpis WHERE task = 'restyle'")
    assert rows == [("per-graph", 1, 3, 1.0, 2.0, 2.0, 3.0), ("shared", 2, 12, 1.0, 6.5, 6.5, 12.0)]


def test_the_view_and_the_report_give_the_same_figures(records: RecordStore, database: Source, tmp_path: Path) -> None:
    keys = {
        "unet_ns": "unet_step",
        "end_to_end_ns": "end_to_end",
        "adapter_load_ns": "adapter_load",
        "peak_rss_bytes": "peak_ram",
    }
    result = make_run(tmp_path, variants=(*ABBA, *ABBA))
    for launch in result.records:
        records.store(launch)
    told = {
        (task, keys[str(metric)], variant): p50
        for task, metric, variant, labels, p50 in query(database, "SELECT task, metric, variant, labels, p50 FROM kpis")
        if metric in keys and variant in ("shared", "per-graph") and "resident" not in str(labels)
    }
    cells = {
        (row.task, row.key, variant): cell
        for row in kpi_rows(result)
        if row.key in keys.values()
        for variant, cell in (("shared", row.shared), ("per-graph", row.per_graph))
    }
    assert told == pytest.approx({place: cell.value for place, cell in cells.items() if isinstance(cell, Figure)})
    assert len(told) == 3 * 3 * 2 + 2  # three figures of three tasks on both sides, and adapters that two of them load


def test_the_view_keeps_differently_labelled_values_apart(records: RecordStore, database: Source) -> None:
    cold, resident = {"state": "cold", "adapter": "a"}, {"adapter": "a", "state": "resident"}
    values = (sample(labels=cold), sample(labels=resident), sample(labels=dict(reversed(cold.items()))))
    records.store(record(samples=values))
    rows = query(database, "SELECT labels, n FROM kpis ORDER BY n")
    assert [(json.loads(labels), n) for labels, n in rows] == [(resident, 1), (cold, 2)]


def test_sql_users_find_no_memory_of_an_emulated_phone(records: RecordStore, database: Source) -> None:
    samples = (sample(metric="peak_rss_bytes", value=9.0), sample(metric="rom_bytes", value=7.0))
    records.store(record(samples=samples, caveats=(Caveat.VIRTUAL_DEVICE, Caveat.EMULATED_CPU)))
    assert query(database, "SELECT metric, mean FROM kpis") == [("rom_bytes", 7.0)]


@pytest.mark.parametrize("emulator", [Caveat.EMULATED_NPU, Caveat.EMULATED_CPU])
def test_sql_users_find_no_times_of_an_emulator(records: RecordStore, database: Source, emulator: Caveat) -> None:
    samples = (sample(), sample(metric="rom_bytes", value=7.0))
    records.store(record(samples=samples, caveats=(Caveat.VIRTUAL_DEVICE, emulator)))
    assert query(database, "SELECT metric, mean FROM kpis") == [("rom_bytes", 7.0)]


def test_reading_leaves_the_folder_as_it_was(path: Path) -> None:
    with open_records(path) as written:
        written.store(record())
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.parent.iterdir()}
    with read_records(path) as opened:
        assert opened.run_records("run-a") == (record(),)
        assert opened.run_ids() == ["run-a"]
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.parent.iterdir()} == before


def test_what_another_process_has_just_stored_is_read(records: RecordStore, database: Source) -> None:
    records.store(record())
    with read_records(database) as opened:
        assert opened.run_records("run-a") == (record(),)


BESIDE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "it is looked at": require_database_file,
    "it is read": lambda path: read_records(path).close(),
    "it is opened again": lambda path: open_engine(path).dispose(),
}


@pytest.mark.parametrize("beside", BESIDE)
def test_what_another_process_stores_is_seen_whatever_else_this_one_has_done_with_the_file(path: Path, beside: str) -> None:
    """Where a process closes a file, the kernel drops its locks on it, and others take SQLite's log away."""
    with open_records(path) as opened:
        opened.run_ids()
        BESIDE[beside](path)
        statement = "UPDATE identity SET name = ?"
        code = f"import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('{statement}', sys.argv[2:]); c.commit()"
        for name in ("one", "two"):
            subprocess.run([sys.executable, "-c", f"{code}; c.close()", path, name], check=True)
            with begin_read(opened.engine) as connection:
                assert connection.scalar(sa.text("SELECT name FROM identity")) == name
