"""Stored records: one of a launch on a virtual phone, with two samples, and what a database says in SQL."""

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from quadbench.artifacts import DeviceFacts, RunRecord, Sample, Status, Variant
from quadbench.results.engine import Source

STARTED = datetime(2025, 3, 30, 1, 59, 59, 123456, tzinfo=UTC)
DEVICE = DeviceFacts(
    address="virtual:s25",
    family="virtual",
    serial="127.0.0.1:40001",
    profile="s25",
    title="Galaxy S25",
    soc_model="SM8750",
    cpu="x86_64",
    android_release=None,
    fingerprint=None,
)


def sample(**changes: object) -> Sample:
    return replace(Sample(metric="unet_ns", value=12_345_678.0), **changes)  # type: ignore[arg-type]


def record(record_id: str = "r1", **changes: object) -> RunRecord:
    plain = RunRecord(
        record_id=record_id,
        run_id="run-a",
        started_at=STARTED,
        ended_at=STARTED + timedelta(seconds=3),
        recipe_name="quickstart",
        recipe_digest="aa",
        bundle_digest="bb",
        compiled_digest="cc",
        target="onnxruntime",
        device=DEVICE,
        variant=Variant.SHARED,
        launch=0,
        status=Status.OK,
        samples=(
            sample(task="restyle", component="unet", iteration=0, step=3, item="000", is_warmup=True, labels={"runs": "2"}),
            sample(metric="switch_ns", value=1.5, labels={"to": "b", "from": "a"}),
        ),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def query(database: Source, sql: str) -> list[tuple[object, ...]]:
    """Run a statement as a user of the database does, on either engine, and return its rows."""
    url = str(database).replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(url if "://" in url else f"sqlite:///{url}")
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        rows = cursor.fetchall() if cursor.description else []
        connection.commit()
    engine.dispose()
    return [tuple(row) for row in rows]
