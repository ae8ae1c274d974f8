"""A launch's samples come back from their one row as they were stored, in new databases and in migrated ones."""

import math
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.sentences import raising
from support.stored_records import query, record, sample

from quadbench.artifacts import RunRecord, Sample
from quadbench.errors import ArtifactError
from quadbench.results.engine import Source, begin_write, open_engine
from quadbench.results.packed_samples import pack
from quadbench.results.records import RecordStore, open_records, pack_stored, read_records

MEASURED = (
    sample(value=1.1 + 2.2, iteration=0, step=3, item="a “b”", is_warmup=True, labels={"z": "1", "a": "2"}),
    Sample(metric="rss_bytes", value=2.0**49 + 1, task="restyle"),
    Sample(metric="pss_bytes", value=7.0),
    Sample(metric="psnr_db", value=-1e17, task="restyle"),
    Sample(metric="rss_bytes", value=8.0, task="restyle"),
)


@pytest.fixture
def records(database: Source) -> Iterator[RecordStore]:
    with open_records(database) as opened:
        yield opened


def full() -> RunRecord:
    return record(samples=MEASURED)


def test_samples_come_back_from_one_row_in_the_order_measured(records: RecordStore) -> None:
    records.store(full())
    (stored,) = records.run_records("run-a")
    assert tuple(stored.samples) == MEASURED


def test_the_row_and_the_samples_of_a_launch_are_equal(records: RecordStore, database: Source) -> None:
    records.store(full())
    query(database, "DELETE FROM packed_samples")  # so that the launch is read from the table `samples`
    (from_samples,) = records.run_records("run-a")
    with begin_write(records.engine) as connection:
        pack_stored(connection)
    (from_row,) = records.run_records("run-a")
    assert (from_samples, from_row) == (full(), full())
    assert pack(from_samples.columns) == pack(from_row.columns) == pack(full().columns)


def test_a_record_that_somebody_deleted_leaves_the_next_one_none_of_its_samples(records: RecordStore, database: Source) -> None:
    records.store(full())
    query(database, "DELETE FROM records")  # in SQLite, samples stay and the id is given again
    later = replace(full(), record_id="later", samples=MEASURED[:2])
    records.store(later)
    assert records.run_records("run-a") == (later,)
    assert query(database, "SELECT COUNT(*) FROM samples") == [(2,)]


def test_launches_of_equal_plans_share_their_kinds(records: RecordStore, database: Source) -> None:
    for number in range(3):
        records.store(replace(full(), record_id=f"r{number}", samples=(*MEASURED[:1], *MEASURED[number:4])))
        records.store(replace(full(), record_id=f"again-{number}", samples=(*MEASURED[:1], *MEASURED[number:4])))
    assert query(database, "SELECT COUNT(*) FROM packed_samples") == [(6,)]
    assert query(database, "SELECT COUNT(*) FROM sample_kinds") == [(2,)]


def test_a_database_of_an_older_quadbench_gets_the_rows(database: Source) -> None:
    with open_records(database) as written:
        written.store(full())
        written.store(record("empty", samples=(), launch=1))
    expected = query(database, "SELECT record, kinds, numbers, readings FROM packed_samples ORDER BY record")
    for change in (
        "DROP TABLE packed_samples",
        "DROP TABLE sample_kinds",
        *(f"ALTER TABLE night_rulings DROP COLUMN {column}" for column in ("since", "nights", "good_night")),
        "UPDATE alembic_version SET version_num = '0002'",
    ):
        query(database, change)
    open_engine(database).dispose()
    assert query(database, "SELECT record, kinds, numbers, readings FROM packed_samples ORDER BY record") == expected
    with read_records(database) as opened:
        assert opened.run_records("run-a")[0] == full()


@pytest.mark.parametrize("numbers", [b"", b"1234567", struct.pack("<2d", 1.0, math.nan), struct.pack("<2d", math.inf, 1.0)])
def test_a_row_with_wrong_numbers_is_damage(records: RecordStore, numbers: bytes) -> None:
    records.store(full())
    with begin_write(records.engine) as connection:
        connection.exec_driver_sql(f"UPDATE packed_samples SET numbers = {_literal(records, numbers)}")
    with raising(ArtifactError, "is damaged", snapshot=False):
        records.run_records("run-a")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"kinds"', '"kind"'),
        ('{"', "{'"),
        ('"places":[1,', '"places":[9999,'),
        ('"places":[1,', '"places":[2,'),
        ('"of":[0', '"of":[-1'),
        ('"of":[0', '"of":[9'),
        ('"of":[0', '"of":["0"'),
        ("rss_bytes", "unet_ns"),
        ("7.0", "NaN"),
        ("7.0", "-7.0"),
        ("7.0", "1e300"),
        ("7.0", "null"),
    ],
)
def test_wrong_memory_readings_are_damage_once_they_are_read(records: RecordStore, database: Source, old: str, new: str) -> None:
    records.store(full())
    ((readings,),) = query(database, "SELECT readings FROM packed_samples")
    assert old in readings
    quoted = readings.replace(old, new).replace("'", "''")
    query(database, f"UPDATE packed_samples SET readings = '{quoted}'")
    (launch,) = records.run_records("run-a")
    assert list(launch.columns.values) == [MEASURED[0].value, MEASURED[3].value]
    with raising(ArtifactError, "is damaged", snapshot=False):
        tuple(launch.samples)


@pytest.mark.parametrize("column", ["kinds", "digest"])
def test_kinds_that_are_not_those_of_their_digest_are_damage(records: RecordStore, database: Source, column: str) -> None:
    records.store(full())
    if column == "kinds":
        query(database, "UPDATE sample_kinds SET kinds = '[]'")
    else:
        query(database, "INSERT INTO sample_kinds VALUES ('other', '[]')")
        query(database, "UPDATE packed_samples SET kinds = 'other'")
    with raising(ArtifactError, "is damaged", snapshot=False):
        records.run_records("run-a")


def _literal(records: RecordStore, content: bytes) -> str:
    return f"x'{content.hex()}'" if records.engine.dialect.name == "sqlite" else f"'\\x{content.hex()}'"
