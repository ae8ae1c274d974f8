"""A launch's samples come back from their one row as they were stored."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.stored_records import query, record, sample

from quadbench.artifacts import RunRecord, Sample
from quadbench.results.engine import Source
from quadbench.results.records import RecordStore, open_records

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
