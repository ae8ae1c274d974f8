"""A long run: a results folder -> the same with a run of as many launches as a recipe may have, copied from a few by SQL."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from quadbench.artifacts import RunRecord, SampleKind, Variant
from quadbench.artifacts.launch_values import KIND_FIELDS, Samples
from quadbench.results.engine import begin_write, database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import publish
from quadbench.results.records import open_records, store_packed
from quadbench.results.schema import PackedRow, RecordRow, SampleRow, UtcTime
from quadbench.results.stored_runs import RunFile, save_run
from support.live_lab import published
from support.synthetic_run import S25, make_run

RUN = "20260102-030405-quickstart"
_BLOCK = (Variant.SHARED, Variant.PER_GRAPH, Variant.PER_GRAPH, Variant.SHARED)
_EVERY = timedelta(minutes=1)  # as launches of a synthetic run follow each other
_STRAY = 0.02  # of a launch's values, from those of the first of its kind


def store_long_run(layout: Layout, *, devices: int, tasks: int, launches: int) -> str:
    """Store a run of so many launches of each variant on each device, every task with an image a launch; return its id.

    There are no pictures, and values stray from launch to launch.
    """
    phones = tuple(replace(S25, address=f"virtual:s25-{n}", serial=f"127.0.0.1:{5555 + n}") for n in range(devices))
    result = make_run(layout.root / "synthetic", devices=phones, variants=_BLOCK, iterations=1)
    names = [f"task-{n}" for n in range(tasks)]
    bundle = replace(result.bundle, tasks=tuple(replace(result.bundle.tasks[n % 2], name=name) for n, name in enumerate(names)))
    folder = layout.bundles / "b1"
    publish(folder, lambda new: published(result.stored.folder, new, bundle))
    save_run(layout, RunFile(run_id=RUN, bundle=folder.name, deployments=result.deployments, is_ended=True))
    block = [_of_tasks(record, names) for record in result.records]
    with open_records(database_of(layout)) as records:
        for record in block:
            records.store(record)
        with begin_write(records.engine) as connection:
            for number in range(1, -(-launches // 2)):
                for record in block:
                    _copy(connection, record, number)
            pack_stored(connection)
    return RUN


def copy_launches(
    connection: sa.Connection,
    launches: sa.ColumnElement[bool],
    ending: str,
    changed: Mapping[str, sa.ColumnElement[object]],
    stray: float = 1.0,
) -> None:
    """Copy launches with their samples: their ids have an ending more, some columns are changed, and values are so many times."""
    changed = {**changed, "record_id": RecordRow.record_id + ending}
    columns = [column for column in RecordRow.__table__.columns if column.name != "id"]
    rows = sa.select(*(changed.get(column.name, column) for column in columns)).where(launches)
    connection.execute(sa.insert(RecordRow).from_select(columns, rows))
    copy = aliased(RecordRow)
    columns = [column for column in SampleRow.__table__.columns if column.name not in ("id", "record")]
    values = (column * stray if column.name == "value" and stray != 1.0 else column for column in columns)
    samples = sa.select(copy.id, *values).join(RecordRow, RecordRow.id == SampleRow.record)
    samples = samples.join(copy, copy.record_id == RecordRow.record_id + ending).where(launches).order_by(SampleRow.id)
    connection.execute(sa.insert(SampleRow).from_select([SampleRow.record, *columns], samples))


def pack_stored(connection: sa.Connection) -> None:
    """Write the compact form of samples for the launches that lack it, as they were copied by SQL."""
    columns = (SampleRow.record, SampleRow.value, *(getattr(SampleRow, name) for name in KIND_FIELDS))
    lacking = SampleRow.record.not_in(sa.select(PackedRow.record))
    rows = connection.execute(sa.select(*columns).where(lacking).order_by(SampleRow.record, SampleRow.id)).all()
    for key, of_record in groupby(rows, key=lambda row: row.record):
        values = list(of_record)
        kinds = [SampleKind(**{name: getattr(row, name) for name in KIND_FIELDS}) for row in values]
        store_packed(connection, key, Samples(kinds, [row.value for row in values]))


def _of_tasks(record: RunRecord, names: list[str]) -> RunRecord:
    """Return a launch as one of other tasks, which are in turn like the first two of the synthetic run."""
    own = [sample for sample in record.samples if not sample.is_warmup]
    of_tasks = [
        replace(sample, task=name)
        for n, name in enumerate(names)
        for sample in own
        if sample.task == ("restyle", "remove-object")[n % 2]
    ]
    position = record.launch  # in its block, in which each variant has two launches
    launch = {0: 0, 1: 0, 2: 1, 3: 1}[position]
    samples = (*(sample for sample in own if sample.task is None), *of_tasks)
    return replace(
        record,
        record_id=f"{record.device.address}-{position}",
        launch=launch,
        ended_at=record.started_at + _EVERY,
        samples=samples,
        images={},
    )


def _copy(connection: sa.Connection, record: RunRecord, number: int) -> None:
    """Copy a launch of the first block into the block with a number."""
    began = record.started_at + number * len(_BLOCK) * _EVERY
    changed: dict[str, sa.ColumnElement[object]] = {
        "launch": RecordRow.launch + 2 * number,
        "started_at": sa.literal(began, UtcTime()),
        "ended_at": sa.literal(began + _EVERY, UtcTime()),
    }
    stray = 1 + _STRAY * ((number * 7919 + record.launch) % 1000 / 500 - 1)
    copy_launches(connection, RecordRow.record_id == record.record_id, f"-{number}", changed, stray)
