"""What goes on is seen by other processes for as long as it does, and what is damaged, dead or hostile is not shown."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.stored_records import record
from support.watcher import Silent

from quadbench.artifacts import LaunchPlan, Variant
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.host import process_identity
from quadbench.pipeline.progress_observer import publish_progress
from quadbench.results.layout import Layout
from quadbench.results.progress import DeviceProgress, Progress, Stage, active_work, remove_ended, save_progress

RUN = "20260102-030405-abcd"
LAUNCH = LaunchPlan(variant=Variant.SHARED, launch=0, sequence=(SequenceBlock(task="restyle", warmup=1, iterations=3),))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def progress(**changes: object) -> Progress:
    now = datetime.now(UTC)
    begun = Progress(
        what="quickstart", owner="ana@lab", process=process_identity(), run_id=RUN, began_at=now, updated_at=now, stage="build"
    )
    return replace(begun, **changes)


def seen_when(layout: Layout, is_so: object) -> Progress:
    """What is seen of the one command at work, once something is so of it."""
    for _ in range(200):
        seen = active_work(layout)
        if seen and is_so(seen[0]):  # type: ignore[operator]
            return seen[0]
        time.sleep(0.05)
    raise AssertionError(f"it never was: {active_work(layout)}")


@pytest.mark.slow
def test_a_run_is_seen_from_its_first_step_to_its_end_and_leaves_nothing(layout: Layout) -> None:
    with publish_progress(Silent(), layout, "quickstart", RUN) as observer:
        observer.stage_step("build", "export")
        assert seen_when(layout, lambda one: one.detail == "export").run_id == RUN
        observer.bytes_sent("virtual:s25", 1, 4)
        assert seen_when(layout, lambda one: one.devices).devices["virtual:s25"].share == 0.25
        observer.launch_started("virtual:s25", LAUNCH, 2, 2)
        observer.image_done("virtual:s25", "restyle", 2)
        device = seen_when(layout, lambda one: one.devices["virtual:s25"].image).devices["virtual:s25"]
        assert (device.launch, device.launches, device.variant, device.task) == (2, 2, Variant.SHARED, "restyle")
        assert device.share == 0.75
        observer.device_lost("virtual:s25", "the cable", 60.0)
        assert seen_when(layout, lambda one: one.devices["virtual:s25"].stage is Stage.WAIT).devices["virtual:s25"].share is None
        observer.launch_started("virtual:s25", LAUNCH, 2, 2)
        observer.record_stored(replace(record(), device=replace(record().device, address="virtual:s25")))
        assert seen_when(layout, lambda one: one.devices["virtual:s25"].stage is Stage.DONE).devices["virtual:s25"].share == 1.0
    assert active_work(layout) == []
    assert list(layout.root.iterdir()) == []


def test_the_observer_inside_is_told_all_the_same(layout: Layout) -> None:
    told: list[tuple[str, str]] = []

    class Watcher(Silent):
        def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
            told.append((stage, detail))

    with publish_progress(Watcher(), layout, "quickstart") as observer:
        observer.stage_step("build", "export")
    assert told == [("build", "export")]


def test_a_process_that_was_killed_is_not_at_work_and_its_file_goes_with_the_next(layout: Layout) -> None:
    code = "from quadbench.host import process_identity; print(process_identity())"
    mark = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    layout.at_work.mkdir()
    save_progress(layout, "killed", progress(process=mark))
    assert active_work(layout) == []
    remove_ended(layout)
    assert list(layout.at_work.iterdir()) == []


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_process_of_another_host_is_at_work_as_long_as_it_gives_signs_of_life(layout: Layout, minutes: int) -> None:
    layout.at_work.mkdir()
    elsewhere = progress(process="boot namespace 1 2")
    save_progress(layout, "elsewhere", elsewhere)
    assert [one.what for one in active_work(layout)] == ["quickstart"]
    save_progress(layout, "elsewhere", replace(elsewhere, updated_at=elsewhere.updated_at + timedelta(minutes=minutes)))
    assert active_work(layout) == []


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"run_id": "../../etc"},
        {"what": 3},
        {"updated_at": "yesterday"},
        {"updated_at": "2026-01-02T03:04:05"},
        {"devices": {"s25": {"stage": "dance"}}},
        {"devices": [1]},
    ],
    ids=str,
)
def test_a_file_that_is_damaged_costs_no_other(layout: Layout, change: dict[str, object]) -> None:
    layout.at_work.mkdir()
    save_progress(layout, "good", progress())
    content = json.loads(layout.progress("good").read_text())
    layout.progress("bad").write_text(json.dumps(content | change))
    layout.progress("empty").touch()
    layout.progress("large").write_text(" " * 2**20)
    os.mkfifo(layout.progress("pipe"))
    assert len(active_work(layout)) == 1


def test_what_goes_beyond_its_whole_is_no_more_than_all_of_it() -> None:
    assert DeviceProgress(stage=Stage.PUSH, sent_bytes=5, total_bytes=4).share == 1.0
    assert DeviceProgress(stage=Stage.MEASURE, launch=3, launches=2, image=9, images=3).share == 1.0
    assert DeviceProgress(stage=Stage.MEASURE).share == 0.0


def test_a_results_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "gone")
    with publish_progress(Silent(), layout, "quickstart", RUN) as observer:
        observer.stage_step("build", "export")
    assert not layout.root.exists()
