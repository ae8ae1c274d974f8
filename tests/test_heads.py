"""Lists of runs and nights come a page at a time, latest first, with counts of what stands."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from support.night_samples import NIGHTS, keep_night, night_id, sample_night
from support.stored_records import DEVICE, STARTED, record

from quadbench.artifacts import Status
from quadbench.artifacts.night_record import RulingKind
from quadbench.results.engine import Source, open_engine
from quadbench.results.nights import NightStore, night_heads
from quadbench.results.records import RecordStore, run_head, run_heads


@pytest.fixture
def engine(database: Source) -> Iterator[sa.Engine]:
    """A database with five runs of three launches on two devices, of which one failed and one was discarded."""
    engine = open_engine(database)
    records = RecordStore(engine)
    for run in range(5):
        for launch, status in enumerate((Status.OK, Status.FAILED, Status.DISCARDED)):
            began = STARTED + timedelta(days=run, minutes=launch)
            device = replace(DEVICE, address=("s25", "tabs11")[launch % 2])
            name, when = f"{run}-{launch}", {"started_at": began, "ended_at": began + timedelta(seconds=3)}
            records.store(record(name, run_id=f"run-{run}", device=device, launch=launch, status=status, **when))
    yield engine
    engine.dispose()


def test_runs_come_a_page_at_a_time_latest_first(engine: sa.Engine) -> None:
    assert [head.run_id for head in run_heads(engine, 2)] == ["run-4", "run-3"]
    assert [head.run_id for head in run_heads(engine, 2, skip=4)] == ["run-0"]
    assert run_heads(engine, 2, skip=5) == []


def test_a_run_has_its_launches_by_device_and_status(engine: sa.Engine) -> None:
    head = run_head(engine, "run-1")
    assert head
    assert head.launches == {"s25": {"DISCARDED": 1, "OK": 1}, "tabs11": {"FAILED": 1}}
    assert (head.count, head.wrong, head.recipe) == (3, 1, "quickstart")
    assert head.began_at == STARTED + timedelta(days=1)
    assert head.ended_at == STARTED + timedelta(days=1, minutes=2, seconds=3)
    assert run_head(engine, "run-9") is None


@pytest.mark.parametrize("run_id", ["../../etc", "a/b", r"a\b", "..", ""])
def test_the_database_takes_no_run_whose_id_can_name_no_folder(engine: sa.Engine, run_id: str) -> None:
    before = run_heads(engine, 10)
    writer = engine.connect().execution_options(is_writer=True)
    with pytest.raises(sa.exc.IntegrityError), writer as connection, connection.begin():
        connection.execute(sa.text("UPDATE records SET run_id = :run_id"), {"run_id": run_id})
    assert run_heads(engine, 10) == before


def test_a_night_has_its_rulings_by_kind_but_those_that_were_superseded(engine: sa.Engine) -> None:
    night, nights = sample_night(), NightStore(engine)
    keep_night(engine, night)
    keep_night(
        engine, replace(night, night_id="before", began_at=night.began_at - timedelta(days=1), measurements=(), rulings=())
    )
    latest, before = night_heads(engine, 10)
    assert (latest.night_id, before.night_id) == (night_id(NIGHTS - 1), "before")
    counts = {kind.value: sum(one.kind is kind for one in night.rulings) for kind in RulingKind}
    assert latest.rulings == {kind: count for kind, count in counts.items() if count}
    assert before.rulings == {}
    worst = next(ruling for ruling in night.rulings if ruling.kind is RulingKind.REGRESSION)
    nights.add([replace(worst, kind=RulingKind.CLEAN)])
    (latest,) = night_heads(engine, 1)
    assert latest.rulings["REGRESSION"] == counts["REGRESSION"] - 1
    assert latest.rulings["CLEAN"] == counts["CLEAN"] + 1
