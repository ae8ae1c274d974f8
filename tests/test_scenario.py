"""Scenarios: what a file says happens to a virtual device happens, as the real adb server and adbd pass it on."""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.sentences import raising, reads, says

from quadbench.artifacts import MIB, Caveat
from quadbench.devices import Device, adb_commands
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.devices.process_marks import find_marked
from quadbench.devices.scenario import SCENARIOS_FOLDER, Phase, load_scenario, write_reports
from quadbench.errors import DeviceLostError, SpecError, UnknownNameError
from quadbench.measure.gate import DeviceState, gate, read_state
from quadbench.recipe.settings import Gate
from quadbench.results.layout import Layout

BOOT_ID = ["cat", "/proc/sys/kernel/random/boot_id"]
PATIENCE_S = 60.0


@contextmanager
def device(folder: Path, scenario: str | Path) -> Iterator[Device]:
    with connect(parse_addresses([f"virtual:s25?scenario={scenario}"]), layout=Layout(folder)) as [connected]:
        yield connected


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"schema_version: 1\nname: mine\ntitle: A scenario of a test.\n{text}")
    return path


def start_harness(connected: Device, seconds: float) -> str:
    """Run what looks like a harness, as its plan is its argument; it says its process id first."""
    plan = Path(connected.root) / "runs" / "plan.json"
    connected.shell(["mkdir", "-p", str(plan.parent)], 10)
    connected.shell(["sh", "-c", f"echo 'echo $$; sleep {seconds}; echo end' > {plan}"], 10)
    return str(plan)


def until_back(connected: Device) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connected.shell(["true"], 10)
            return
        except DeviceLostError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_hot_device_is_refused_and_a_cool_one_let_through(tmp_path: Path) -> None:
    with device(tmp_path, "hot") as connected:
        reads(_objections(read_state(connected)), 3, 1)
    phases = "phases: [{thermal_status: 3}, {after_s: 0.2, skin_c: 36.5}]\n"
    with device(tmp_path, written(tmp_path, phases)) as connected:
        deadline = time.monotonic() + PATIENCE_S
        while _objections(state := read_state(connected)):
            assert time.monotonic() < deadline
        assert [(t.kind, t.celsius) for t in state.thermal.temperatures] == [("skin", 36.5)]


def test_an_empty_battery_is_refused(tmp_path: Path) -> None:
    with device(tmp_path, "low-battery") as connected:
        reads(_objections(read_state(connected)), 9, 20)


def test_a_device_without_memory_is_refused(tmp_path: Path) -> None:
    with device(tmp_path, "little-memory") as connected:
        reads(_objections(read_state(connected)), 90, 256)


def test_a_device_that_is_busy_is_refused_where_the_recipe_says_how_busy(tmp_path: Path) -> None:
    spinning = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count() or 1)]
    try:
        with device(tmp_path, "slow-link") as connected:
            state = read_state(connected, is_watched=True)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    (objection,) = gate(state, Gate(max_busy_percent=50), shares_host_cpu=True).objections
    says(objection, 50)


def test_a_device_heats_up_in_a_launch_and_cools_down(tmp_path: Path) -> None:
    events = "events: [{event: heat, when: {at: launch}, for_s: 0.5}]\n"
    with device(tmp_path, written(tmp_path, events)) as connected:
        assert _objections(read_state(connected)) == []
        connected.shell(["sh", start_harness(connected, 0.3)], 10)
        reads(_objections(read_state(connected)), 3, 1)
        deadline = time.monotonic() + PATIENCE_S
        while _objections(read_state(connected)):
            assert time.monotonic() < deadline


def test_capped_clocks_are_a_doubt(tmp_path: Path) -> None:
    with device(tmp_path, "throttled") as connected:
        state = read_state(connected)
    assert gate(state, Gate(), shares_host_cpu=False).caveats == (Caveat.THROTTLED,)
    assert [(clock.cap_khz, clock.hardware_khz) for clock in state.clocks] == [(2_160_000, 4_320_000)]


@pytest.mark.slow
def test_a_slow_link_is_slower_than_one_without_limit(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(bytes(2 * MIB))
    seconds = []
    for link in ("link_mb_per_s: 1\n", "exit_codes: {}\n"):
        with device(tmp_path, written(tmp_path, link)) as connected:
            began = time.monotonic()
            connected.push({f"{connected.root}/blob": blob})
            seconds.append(time.monotonic() - began)
    assert seconds[0] > 2 * seconds[1]


@pytest.mark.slow
def test_a_file_in_whose_push_the_cable_comes_off_is_pushed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = os.urandom(8 * MIB)
    (tmp_path / "blob").write_bytes(content)
    with device(tmp_path, "unplugged-in-push") as connected:
        boot = connected.shell(BOOT_ID, 10).stdout
        connected.push({f"{connected.root}/blob": tmp_path / "blob"})
        assert caplog.text.count("was lost") == 1
        sha256 = connected.shell(["sha256sum", f"{connected.root}/blob"], 10).stdout.split()[0]
        assert sha256 == hashlib.sha256(content).hexdigest()
        assert connected.shell(BOOT_ID, 10).stdout == boot


@pytest.mark.slow
def test_a_reboot_ends_all_that_runs_and_keeps_the_files(tmp_path: Path) -> None:
    reboot = "events: [{event: reboot, when: {at: launch, after_s: 3}, for_s: 1}]\n"
    with device(tmp_path, written(tmp_path, reboot)) as connected:
        before = connected.shell(BOOT_ID, 10).stdout
        plan = start_harness(connected, 300)
        lines = connected.stream(["sh", plan], PATIENCE_S, f"{connected.root}/runs")
        process = next(lines)
        with raising(DeviceLostError, "rebooted after"):
            next(lines)
        until_back(connected)
        assert connected.shell(BOOT_ID, 10).stdout not in ("", before)
        assert connected.shell(["ls", plan], 10).exit_code == 0
        assert connected.shell(["sh", "-c", f"cat /proc/{process}/cmdline"], 10).stdout.count("plan.json") == 0


def test_a_device_that_is_gone_for_good_stays_lost_and_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 1.0)
    gone = "events: [{event: unplug, when: {at: launch}}]\n"
    with device(tmp_path, written(tmp_path, gone)) as connected:
        with pytest.raises(DeviceLostError):
            list(connected.stream(["sh", start_harness(connected, 300)], PATIENCE_S, f"{connected.root}/runs"))
        time.sleep(0.5)
        with pytest.raises(DeviceLostError):
            connected.shell(["true"], 10)
    assert find_marked(f"{Layout(tmp_path).device('virtual-s25').resolve()}#") == []


@pytest.mark.slow
def test_the_second_launch_is_the_second_harness_and_goes_on_without_a_cable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unplug = "events: [{event: unplug, when: {at: launch, launch: 2}, for_s: 0.2}]\n"
    with device(tmp_path, written(tmp_path, unplug)) as connected:
        plan = start_harness(connected, 2)
        for losses in (0, 1):
            assert list(connected.stream(["sh", plan], PATIENCE_S, f"{connected.root}/runs"))[1:] == ["end"]
            assert caplog.text.count("its commands continue") == losses


def test_what_did_not_happen_is_told_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = "events: [{event: unplug, when: {at: push, after_mb: 3}}, {event: reboot, when: {at: launch}}]\n"
    with device(tmp_path, written(tmp_path, events)):
        pass
    says(caplog.text, "unplug", "0.0", 3, "reboot", 1)


def test_tools_lie_about_their_end(tmp_path: Path) -> None:
    with device(tmp_path, "lying-tools") as connected:
        result = connected.shell(["mv", "/nothing", "/nowhere"], 10)
        assert (result.exit_code, "No such file" in result.stderr) == (0, True)


def test_every_scenario_that_comes_along_has_the_name_of_its_file() -> None:
    names = [path.stem for path in SCENARIOS_FOLDER.glob("*.yaml")]
    assert names
    assert [load_scenario(name).name for name in names] == names


@pytest.mark.parametrize(("name", "rest"), [("hott", ""), ("hott.yaml", "hott.yaml")])
def test_a_scenario_that_there_is_not_is_answered_with_the_nearest(name: str, rest: str) -> None:
    with raising(UnknownNameError, "hott"):
        load_scenario(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("events: [{event: explode, when: {at: launch}}]\n", ()),
        ("events: [{event: unplug, when: {at: noon}}]\n", ()),
        ("phases: [{thermal_status: 7}]\n", ("thermal_status",)),
        ("phases: [{skin_c: .nan}]\n", ("skin_c",)),
        ("link_mb_per_s: 0\n", ("link_mb_per_s",)),
        ("link_mb_per_s: 1.0e-300\n", ("link_mb_per_s",)),
        ("clocks: {hardware_khz: 1, cap_khz: 2}\n", ("clocks.cap_khz", "hardware_khz", 1, 2)),
        ("events: [{event: unplug, when: {at: launch}, for_s: 1.0e-300}]\n", ("for_s",)),
        ("exit_codes: {sh: 0}\n", ("exit_codes",)),
        ("exit_codes: {mv: 256}\n", ("exit_codes",)),
    ],
)
def test_a_wrong_scenario_is_refused_at_its_line(tmp_path: Path, text: str, reason: tuple[object, ...]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SpecError) as caught, device(tmp_path, path):
        pass
    assert f"{path}:4" in str(caught.value)
    says(str(caught.value), *reason)


def test_a_title_is_a_sentence_and_no_book(tmp_path: Path) -> None:
    path = tmp_path / "book.yaml"
    path.write_text(f"schema_version: 1\nname: book\ntitle: {'x' * 900_000}\n")
    with raising(SpecError, 200, 900000):
        load_scenario(str(path))


def test_a_reader_gets_the_old_report_or_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "etc" / "dumpsys").mkdir(parents=True)
    write_reports(tmp_path, Phase(thermal_status=1))
    open_report = (tmp_path / "etc" / "dumpsys" / "thermalservice").open()
    write_reports(tmp_path, Phase(thermal_status=2))
    with open_report:
        assert "Thermal Status: 1" in open_report.read()


def _objections(state: DeviceState) -> list[str]:
    return list(gate(state, Gate(), shares_host_cpu=True).objections)
