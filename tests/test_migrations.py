"""Databases of every older schema are brought up to date with the records in them, on both engines."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from support.stored_records import LATEST, query, record

from quadbench.results import schema
from quadbench.results.engine import Source, writing
from quadbench.results.postgresql import server_engine
from quadbench.results.records import open_records, read_records
from quadbench.results.sqlite import file_engine

SCHEMAS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")


def write_old(database: Source, version: str) -> None:
    """Make a database as the migrations up to that version left it, with the records that `record` has in it."""
    with open_records(database) as records:
        records.store(record())
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
        assert query(database, "SELECT n FROM kpis WHERE metric = 'switch_ns'") == [(1,)]
