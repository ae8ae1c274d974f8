"""A results database that is damaged, of a newer quadbench or none at all is refused by name, and no record is lost with it."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.sentences import raising, says
from support.stored_records import DEVICE, query, record, sample

from quadbench.artifacts import Variant
from quadbench.errors import ArtifactError, UserError
from quadbench.results.engine import Source
from quadbench.results.layout import Layout
from quadbench.results.records import RecordStore, open_records, read_records
from quadbench.results.sql_dialects import file_engine
from quadbench.results.stored_runs import store_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "quadbench.sqlite"


@pytest.mark.parametrize("opened_by", [open_records, read_records])
def test_a_database_of_another_schema_version_is_refused(database: Source, opened_by: Callable[[Source], RecordStore]) -> None:
    open_records(database).close()
    query(database, "UPDATE identity SET schema_version = 9999")
    with raising(ArtifactError, 9999):
        opened_by(database)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("these are my notes, not a database\n" * 50)
    with raising(ArtifactError):
        open_records(path)
    assert path.read_text().startswith("these are my notes")


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url: str) -> None:
    with raising(UserError):
        open_records(url)


@pytest.mark.parametrize("url", ["sqlite://host/db", "sqlite://me:secret@host/db", "sqlite://me@/db"])
def test_a_file_behind_a_login_or_a_host_is_refused_without_its_password(url: str) -> None:
    with raising(UserError, "sqlite:///PATH") as refused:
        open_records(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("outside", ["../outside.png", "/etc/passwd"])
def test_a_picture_outside_of_the_results_folder_is_damage(database: Source, outside: str) -> None:
    with open_records(database) as records:
        records.store(record())
    query(database, f"""UPDATE records SET images = '{{"restyle/000": "{outside}"}}'""")
    with (
        read_records(database) as records,
        raising(ArtifactError, outside, "leads out of its folder", snapshot=False),
    ):
        records.run_records(record().run_id)


def spoil(path: Path, *, page: int) -> None:
    """Overwrite one page of a database, of 4096 bytes, whose header stays whole."""
    with path.open("r+b") as file:
        file.seek(4096 * page)
        file.write(b"\xa5" * 4096)


def test_a_database_that_is_damaged_inside_takes_no_run(path: Path) -> None:
    with open_records(path) as written:
        written.store(record(samples=tuple(sample(step=i) for i in range(2000))))
    for page in range(2, path.stat().st_size // 4096):
        spoil(path, page=page)
    with raising(ArtifactError, "quadbench.sqlite"):
        open_records(path)
    with raising(ArtifactError, "quadbench.sqlite"), read_records(path) as opened:
        opened.run_records("run-a")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE records SET variant = 'shraed'",
        "UPDATE records SET caveats = '[\"UNKNOWN\"]'",
        "UPDATE records SET versions = '{'",
        "UPDATE records SET started_at = 'yesterday'",
        "DROP TABLE packed_samples",
    ],
)
def test_a_value_that_nothing_has_written_is_damage(change: str, path: Path) -> None:
    says(str(_refusal(path, change)))


def _refusal(path: Path, change: str) -> ArtifactError:
    """Store a record, change the database, and return the error with which it is refused then."""
    with open_records(path) as written:
        written.store(record())
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA legacy_alter_table=ON")
    connection.execute("DROP VIEW kpis")
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(ArtifactError) as refusal:
        _read_all(path)
    return refusal.value


def _read_all(path: Path) -> None:
    with read_records(path) as opened:
        for run in opened.run_ids():
            opened.run_records(run)


def test_a_record_that_the_database_does_not_take_is_kept_beside_the_events(path: Path) -> None:
    layout = Layout(path.parent)
    with open_records(path) as opened:
        opened.store(record("r0", run_id="earlier"))
    for page in range(1, path.stat().st_size // 4096):
        spoil(path, page=page)
    place = layout.launch("run-a", DEVICE.address, Variant.SHARED, 0) / "record.json"
    with (
        RecordStore(file_engine(path)) as opened,  # as a process has it that opened the file before it was damaged
        raising(ArtifactError, place),
    ):
        store_record(opened, record(), layout)
    kept = json.loads(place.read_text())
    assert (kept["record_id"], len(kept["samples"])) == ("r1", 2)
