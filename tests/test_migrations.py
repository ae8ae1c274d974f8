"""Databases of every older schema are brought up to date with the records in them, on both engines."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from support.stored_records import LATEST, query, record, sample

from quadbench.artifacts import RunRecord
from quadbench.results import schema
from quadbench.results.dialects import file_engine, server_engine
from quadbench.results.engine import Source, writing
from quadbench.results.records import open_records, read_records

SCHEMAS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")


def write_old(database: Source, version: str, *others: RunRecord) -> None:
    """Make a database as the migrations up to that version left it, with the record that `record` has and others in it."""
    with open_records(database) as records:
        for one in (record(), *others):
            records.store(one)
    engine = (
        server_engine(sa.make_url(str(database))) if "://" in str(database) else file_engine(Path(database), foreign_keys=False)
    )
    with writing(engine) as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.downgrade(config, version)
    engine.dispose()


@pytest.mark.parametrize("opened_by", [open_records, read_records])
def test_an_older_database_is_brought_up_to_date_with_its_records(database: Source, opened_by: object) -> None:
    for version in SCHEMAS:
        write_old(database, version)
        assert query(database, "SELECT version_num FROM alembic_version") == [(version,)]
        with opened_by(database) as records:  # type: ignore[operator]
            assert records.of_run("run-a") == (record(),)
        assert query(database, "SELECT version_num FROM alembic_version") == [(LATEST,)]
        assert query(database, "SELECT n, p50 FROM kpis WHERE metric = 'switch_ns'") == [(1, 1.5)]


def test_a_median_of_all_samples_becomes_that_of_the_launches_medians(database: Source) -> None:
    values = ((10.0, 11.0, 12.0) * 4, (40.0,))
    samples = [tuple(sample(value=value) for value in of_launch) for of_launch in values]
    write_old(database, "0007", *(record(f"l{n}", run_id="two", launch=n, samples=of) for n, of in enumerate(samples)))
    spread, p50 = (
        f"SELECT {columns} FROM kpis WHERE run_id = 'two'" for columns in ("launches, n, minimum, mean, maximum", "p50")
    )
    before = query(database, spread)
    assert query(database, p50) == [(11,)]
    with read_records(database):
        assert query(database, p50) == [(25.5,)]
        assert query(database, spread) == before == [(2, 13, 10, 172 / 13, 40)]
