"""A device that is lost in a run is waited for, checked, and goes on; one that stays away is given up, and the run can go on."""

import json
import re
import shutil
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from support.interference import Interfering
from support.sentences import says

pytest.importorskip("torch")

from support.watcher import Silent

from quadbench import pipeline
from quadbench.artifacts import ErrorClass, Status, StoredBundle
from quadbench.devices import adb_commands
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.lab.leases import Leases, lease_name
from quadbench.errors import DeviceError, DeviceLostError, LeaseError
from quadbench.measure.launch_schedule import Budget
from quadbench.pipeline import RunOptions, session
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import load_run

pytestmark = pytest.mark.slow


@pytest.fixture
def layout(tiny_bundle: StoredBundle, harness: Path, tmp_path: Path) -> Layout:
    """A results folder with bundle and harness, and devices to which nothing was pushed."""
    layout = Layout(tmp_path / "results")
    shutil.copytree(tiny_bundle.folder.parent, layout.bundles)
    shutil.copytree(harness.parent, layout.programs / harness.parent.name)
    return layout


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe, {"measure.launches": 2})


def device(folder: Path, events: str, profile: str = "s25") -> str:
    """The address of a virtual device with a scenario, to which nothing happens any more where the events are rewritten."""
    path = folder / f"{profile}.yaml"
    path.write_text(f"schema_version: 1\nname: mine\ntitle: A scenario of a test.\nevents: [{events}]\n")
    return f"virtual:{profile}?scenario={path}"


REBOOT = "{event: reboot, when: {at: launch, launch: 3}, for_s: 1}"
GONE = "{event: unplug, when: {at: launch, launch: 3}}"
REPEATED = ["shared 0", "per-graph 0", "shared 1000", "per-graph 1000", "per-graph 1001", "shared 1001"]


class Waiting(Interfering):
    """An observer that notes when devices were lost and when they were back, among the launches."""

    def device_lost(self, device: str, reason: str, wait_s: float) -> None:
        self.launches.append(f"{device.partition('?')[0]} is lost")

    def device_back(self, device: str, away_s: float) -> None:
        self.launches.append(f"{device.partition('?')[0]} is back")


def test_a_device_that_rebooted_repeats_the_block_and_the_run_is_as_good_as_any(
    recipe: Recipe, layout: Layout, tmp_path: Path
) -> None:
    address, watcher = device(tmp_path, REBOOT), Waiting()
    outcome = pipeline.run(recipe, parse_addresses([address]), layout=layout, observer=watcher)
    assert outcome.is_ok
    assert not outcome.result.is_cut_short
    there = ["virtual:s25 is lost", "virtual:s25 is back"]
    assert watcher.launches == ["float 0", *REPEATED[:2], *there, *REPEATED[2:]]
    with open_records(layout.database) as records:
        (lost,) = [record for record in records.run_records(outcome.result.run_id) if record.status is not Status.OK]
    assert (lost.status, lost.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    (counted,) = [record for record in outcome.result.records if record.record_id == lost.record_id]
    assert counted.status is Status.DISCARDED
    # A launch of the tiny model may be over, and its files be on their way, when the device goes.
    assert re.search(r"rebooted (after \d+ s|meanwhile)", str(counted.reason))
    says(str(counted.reason), "its block was interrupted and repeated", 1000)
    (retry,) = outcome.result.retries
    assert "rebooted" in retry.reason
    says(outcome.report.read_text(), "was lost and came back after")


def test_a_device_that_stays_away_is_given_up_and_the_run_goes_on_later(
    recipe: Recipe, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 0.5)
    address, watcher = device(tmp_path, GONE), Waiting()
    conduct = RunOptions(retries=1, wait_s=2.0)
    outcome = pipeline.run(recipe, parse_addresses([address, "virtual:tabs11"]), options=conduct, layout=layout, observer=watcher)
    assert list(outcome.failures) == [address]
    says(str(outcome.failures[address]), "quadbench waited 2 s")
    assert outcome.exit_code == DeviceError.exit_code
    assert outcome.result.is_cut_short
    assert address in outcome.result.left_out
    sound = [record.device.profile for record in outcome.result.records if record.status is Status.OK]
    assert (sound.count("s25"), sound.count("tabs11")) == (2, 5)
    device(tmp_path, "")
    again = pipeline.resume(outcome.result.run_id, layout=layout, observer=Silent())
    assert again.is_ok
    assert not again.result.is_cut_short
    assert again.result.left_out == {}


def test_while_one_device_is_waited_for_the_next_one_runs(
    recipe: Recipe, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 0.2)
    addresses = [device(tmp_path, GONE.replace("3}}", "3}, for_s: 6}")), device(tmp_path, "", "tabs11")]
    watcher = Waiting()
    outcome = pipeline.run(recipe, parse_addresses(addresses), layout=layout, observer=watcher)
    assert outcome.is_ok
    lost, back = (watcher.launches.index(f"virtual:s25 is {what}") for what in ("lost", "back"))
    assert "float 0" in watcher.launches[lost:back]


def test_without_retries_a_device_that_is_lost_is_given_up_at_once(recipe: Recipe, layout: Layout, tmp_path: Path) -> None:
    address, watcher = device(tmp_path, REBOOT), Waiting()
    outcome = pipeline.run(recipe, parse_addresses([address]), options=RunOptions(retries=0), layout=layout, observer=watcher)
    assert watcher.launches == ["float 0", *REPEATED[:2]]
    assert isinstance(outcome.failures[address], DeviceLostError)
    says(str(outcome.failures[address]), "quadbench gave up after 0 retries")


def test_a_device_that_is_lost_while_files_are_pushed_is_pushed_to_again(
    recipe: Recipe, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 0.2)
    address, watcher = device(tmp_path, "{event: unplug, when: {at: push, after_mb: 1}, for_s: 3}"), Waiting()
    outcome = pipeline.run(recipe, parse_addresses([address]), layout=layout, observer=watcher)
    assert outcome.is_ok
    assert watcher.launches[:2] == ["virtual:s25 is lost", "virtual:s25 is back"]
    assert len(outcome.result.retries) == 1


def test_ctrl_c_ends_the_wait_for_a_device_at_once(
    recipe: Recipe, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    monkeypatch.setattr(adb_commands, "RECONNECT_S", 0.2)
    address = device(tmp_path, GONE)
    pressed: list[float] = []

    class Pressing(Waiting):
        def device_lost(self, device: str, reason: str, wait_s: float) -> None:
            def press() -> None:
                time.sleep(1.5)
                pressed.append(time.monotonic())
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

            threading.Thread(target=press).start()

    with pytest.raises(KeyboardInterrupt) as caught:
        pipeline.run(recipe, parse_addresses([address]), layout=layout, observer=Pressing())
    assert time.monotonic() - pressed[0] < 30
    result = load_run(layout, caught.value.run_id)  # type: ignore[attr-defined]
    assert result.is_cut_short
    assert [record.status for record in result.records] == [Status.OK, Status.OK, Status.FAILED]


# Keep going, and the budget


def test_what_cannot_be_had_at_the_beginning_is_left_out_and_named(recipe: Recipe, layout: Layout) -> None:
    addresses = ["s25@ABSENT", "local"]
    with pytest.raises(DeviceError):
        pipeline.run(recipe, parse_addresses(addresses), layout=layout, observer=Silent())
    outcome = pipeline.run(
        recipe, parse_addresses(addresses), options=RunOptions(keep_going=True), layout=layout, observer=Silent()
    )
    assert list(outcome.failures) == ["s25@ABSENT"]
    assert outcome.exit_code == DeviceError.exit_code
    assert {record.device.address for record in outcome.result.records} == {"local"}
    assert "s25@ABSENT" in outcome.result.left_out
    assert not outcome.result.is_cut_short


def test_what_somebody_else_has_is_left_out_too(recipe: Recipe, layout: Layout) -> None:
    with open_records(layout.database) as records:
        Leases(records.engine).reserve(lease_name("virtual", "virtual-s25"), "ana@lab-1", "a demo", 3600)
    addresses = ["virtual:s25", "local"]
    outcome = pipeline.run(
        recipe, parse_addresses(addresses), options=RunOptions(keep_going=True), layout=layout, observer=Silent()
    )
    assert isinstance(outcome.failures["virtual:s25"], LeaseError)
    assert {record.device.address for record in outcome.result.records} == {"local"}


def test_no_block_is_begun_for_which_there_is_no_time(recipe: Recipe, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    skipped_s = [0.0]
    clock = lambda: time.monotonic() + skipped_s[0]  # noqa: E731
    monkeypatch.setattr(session, "Budget", partial(Budget, clock=clock))

    class Slow(Interfering):
        def launch_started(self, *words: object) -> None:
            super().launch_started(*words)  # type: ignore[arg-type]
            if self.launches[-1] == "shared 1":
                skipped_s[0] = 3600.0

    long = recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"launches": 4})})
    watcher = Slow()
    conduct = RunOptions(budget_s=3600.0)
    outcome = pipeline.run(long, parse_addresses(["local"]), options=conduct, layout=layout, observer=watcher)
    assert watcher.launches[-1] == "shared 1"
    assert outcome.exit_code == 0
    assert outcome.result.is_cut_short
    says(outcome.result.left_out, "no time was left for", "2 of shared", "2 of per-graph")
    assert json.dumps(outcome.result.left_out["local"])[1:-1] in outcome.report.read_text()
    again = Interfering()
    assert pipeline.resume(outcome.result.run_id, layout=layout, observer=again).is_ok
    assert sorted(again.launches) == ["per-graph 2", "per-graph 3", "shared 2", "shared 3"]  # their order is drawn for each run
