"""Devices: the contract over every family, and what is particular to virtual ones and to this machine."""

import contextlib
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.device_contract import DeviceContract
from support.forked import Forked
from support.sentences import raising, says

from quadbench.devices import Device, adb_commands
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.android_reports import parse_battery, parse_thermal
from quadbench.devices.connections import connect
from quadbench.devices.virtual import SANDBOX_PROGRAMS
from quadbench.errors import DeviceError, DeviceFullError, DeviceLostError, MissingDependencyError
from quadbench.host import find_programs
from quadbench.results.layout import Layout
from quadbench.target.abi import host_abi
from quadbench.target.profile import PROFILES_FOLDER, load_profile


@contextlib.contextmanager
def attached_phone(results: Path) -> Iterator[Device]:
    """Yield a device of family adb: a real adbd on a real server, to which the environment points as to a user's."""
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(results)), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{results}/devices/virtual-s25/system/run/adb.sock")
        with connect(parse_addresses(["s25"]), layout=Layout(results)) as (device,):
            yield device


@pytest.fixture(scope="module", params=["local", "virtual:s25", "s25"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    results = tmp_path_factory.mktemp("results")
    if request.param == "s25":
        with attached_phone(results) as phone:
            yield phone
    else:
        with connect(parse_addresses([request.param]), layout=Layout(results)) as (other,):
            yield other


class TestDeviceContract(DeviceContract):
    """The contract, which every family keeps."""


# Virtual devices


def sandbox_processes(results: Path) -> set[int]:
    """Return the host's ids of a sandbox's processes: bwrap itself, and all in its namespace."""
    outer = {pid for pid in process_ids() if str(results).encode() in read_process(pid, "cmdline")}
    own = (Path("/proc/self/ns/pid")).readlink()
    spaces = {space for pid in outer for child in process_ids() if parent_of(child) == pid and (space := pid_space(child)) != own}
    return outer | {pid for pid in process_ids() if pid_space(pid) in spaces}


def process_ids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def read_process(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def parent_of(pid: int) -> int:
    words = read_process(pid, "stat").rpartition(b")")[2].split()
    return int(words[1]) if words else 0


def pid_space(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None


def assert_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 5
    while running := {pid for pid in pids if read_process(pid, "stat") and b") Z " not in read_process(pid, "stat")}:
        assert time.monotonic() < deadline, f"still running: {[read_process(pid, 'cmdline') for pid in running]}"
        time.sleep(0.05)


def listening() -> set[str]:
    """Return every TCP socket of this machine that listens."""
    command = ["ss", "--listening", "--no-header", "--numeric", "--tcp"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[3] for line in lines}


def test_a_virtual_device_says_what_its_profile_says_and_that_it_is_virtual(tmp_path: Path) -> None:
    with connect(parse_addresses(["virtual:tabs11"]), layout=Layout(tmp_path)) as (device,):
        properties = device.properties()
        assert load_profile("tabs11").matches(properties)
        assert properties["ro.quadbench.virtual"] == host_abi(platform.machine())
        assert device.shell(["getprop", "ro.soc.model"], 10).stdout == "MT6991\n"
        assert device.shell(["getprop", "ro.no.such", "default"], 10).stdout == "default\n"


def test_a_profile_may_be_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text((PROFILES_FOLDER / "s25.yaml").read_text().replace("name: s25\n", "name: mine\n"))
    with connect(parse_addresses([f"virtual:{mine}"]), layout=Layout(tmp_path)) as (device,):
        assert (device.serial, device.profile.name, device.facts.profile) == ("virtual-mine", "mine", "mine")


def test_a_virtual_device_claims_neither_temperatures_nor_a_battery(tmp_path: Path) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
        thermal = parse_thermal(device.shell(["dumpsys", "thermalservice"], 10).stdout)
        battery = parse_battery(device.shell(["dumpsys", "battery"], 10).stdout)
        assert "Total RAM" in device.shell(["dumpsys", "meminfo"], 10).stdout
    assert (thermal.status, thermal.status_name, thermal.temperatures) == (None, "unavailable", ())
    assert (battery.level_percent, battery.temperature_c) == (None, None)


def test_a_virtual_device_opens_no_port_on_this_machine(tmp_path: Path) -> None:
    before = listening()
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)):
        opened = listening() - before
    assert [address for address in opened if not address.startswith(("127.", "[::1]"))] == []
    assert not any(address.endswith(":5640") for address in opened)


def test_a_virtual_device_cannot_listen_where_no_namespace_separates_it(tmp_path: Path) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
        opening = ["/usr/bin/perl", "-e", "socket(my $s, shift, 1, 0) or die $!"]
        af_inet, af_vsock = "2", "40"
        assert device.shell([*opening, af_inet], 10).exit_code == 0
        assert "Address family not supported" in device.shell([*opening, af_vsock], 10).stderr


def test_nothing_is_left_running_after_a_virtual_device_is_closed(tmp_path: Path) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
        lines = device.stream(["sh", "-c", "echo started; sleep 60"], 60, f"{device.root}/stream")
        assert next(lines) == "started"
        pids = sandbox_processes(tmp_path)
        assert len(pids) >= 5
    assert_gone(pids)
    assert sorted(path.name for path in (tmp_path / "devices" / "virtual-s25").iterdir()) == ["data", "lock"]


HOLD = """\
import sys, time
from pathlib import Path
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.results.layout import Layout
try:
    with connect(parse_addresses(["virtual:s25", "local"]), layout=Layout(Path(sys.argv[1]))) as devices:
        streams = [device.stream(["sh", "-c", "echo started; sleep 60"], 60, f"{device.root}/stream") for device in devices]
        print(*(next(stream) for stream in streams), flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left_running_however_the_command_ends(tmp_path: Path, how: signal.Signals, status: int) -> None:
    with Forked(HOLD, tmp_path) as process:
        assert process.stdout.readline() == "started started\n"
        pids = sandbox_processes(tmp_path) | {pid for pid in process_ids() if parent_of(pid) == process.pid}
        assert process.signal(how) == status
    assert_gone(pids)
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
        assert device.shell(["true"], 10).exit_code == 0


# A child that leaves its parent's session and process group, and its parent: no signal to either reaches it.
RUNAWAY = "setsid sh -c 'sleep 300 & echo $!' & wait"


@pytest.mark.parametrize("script", [RUNAWAY, f"{RUNAWAY}; exec sleep 300"], ids=["ended", "killed"])
def test_a_child_that_left_its_session_does_not_outlive_its_command_on_this_machine(tmp_path: Path, script: str) -> None:
    with connect(parse_addresses(["local"]), layout=Layout(tmp_path)) as (device,):
        with contextlib.closing(device.stream(["sh", "-c", script], 60, f"{device.root}/stream")) as lines:
            runaway = int(next(lines))
            assert read_process(runaway, "stat")
        assert_gone({runaway})


def test_a_child_that_left_its_session_is_ended_where_quadbench_is_killed(tmp_path: Path) -> None:
    hold = HOLD.replace("echo started; sleep 60", f"{RUNAWAY}; sleep 60")
    with Forked(hold, tmp_path) as process:
        runaways = process.stdout.readline().split()
        pids = sandbox_processes(tmp_path) | {int(runaways[1])} | {p for p in process_ids() if parent_of(p) == process.pid}
        assert process.signal(signal.SIGKILL) == -9
    assert_gone(pids)


def carriers(folder: Path) -> set[int]:
    """Return every process that is marked as one of the devices of a results folder."""
    return {pid for pid in process_ids() if f"QUADBENCH_PROCESS={folder}".encode() in read_process(pid, "environ")}


@pytest.mark.parametrize("victim", ["bwrap", "adbd"])
def test_a_virtual_device_whose_processes_are_killed_as_it_starts_fails_soon_and_leaves_none(tmp_path: Path, victim: str) -> None:
    ended = threading.Event()
    killer = threading.Thread(target=_kill_each, args=(tmp_path, victim, ended))
    killer.start()
    began = time.monotonic()
    try:
        with pytest.raises(DeviceError) as caught, connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)):
            pass
    finally:
        ended.set()
        killer.join()
    assert time.monotonic() - began < 20
    says(str(caught.value), "virtual:s25", snapshot=False)
    if victim == "adbd":
        says(str(caught.value), "its adbd ended with exit code 137, killed by signal 9", snapshot=False)
    assert carriers(tmp_path) == set()
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
        assert device.shell(["true"], 10).exit_code == 0


def _kill_each(folder: Path, name: str, ended: threading.Event) -> None:
    """Kill a device's processes of this name, outermost first, for as long as it starts."""
    while not ended.is_set():
        for pid in sorted(carriers(folder)):
            if read_process(pid, "comm").strip() == name.encode():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                if name == "bwrap":
                    return  # the outer one alone: what it leaves behind must be found
        time.sleep(0.001)


@pytest.mark.parametrize("address", ["local", "virtual:s25"])
def test_no_other_user_reaches_what_a_device_holds(tmp_path: Path, address: str) -> None:
    (tmp_path / "file").write_text("x")
    with connect(parse_addresses([address]), layout=Layout(tmp_path / "results")) as (device,):
        device.push({f"{device.root}/objects/file": tmp_path / "file"})
    held = [path for path in (tmp_path / "results").rglob("*") if path.name == "file"]
    assert held
    for path in held:
        above = [folder for folder in path.parents if folder.is_relative_to(tmp_path / "results")]
        assert any(not folder.stat().st_mode & 0o077 for folder in above)


def test_a_virtual_device_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for expected in (1, 0):
        with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
            assert device.shell(["cat", f"{device.root}/file"], 10).exit_code == expected
            device.push({f"{device.root}/file": tmp_path / "file"})


def test_a_virtual_device_of_a_given_size_can_be_full(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(6 * 2**20))
    with connect(parse_addresses(["virtual:s25?data_mb=4"]), layout=Layout(tmp_path)) as (device,):
        assert device.free_bytes("/data") <= 4 * 2**20
        with raising(DeviceFullError, "No space left"):
            device.push({f"{device.root}/big": tmp_path / "big"})


def test_a_device_in_use_names_the_process(tmp_path: Path) -> None:
    with (
        connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)),
        raising(DeviceError, "virtual:s25", f"in use by process {os.getpid()}, ", "--wait", snapshot=False),
        connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)),
    ):
        pass


@pytest.mark.parametrize(("victim", "reason"), [("bwrap", ""), ("adbd", 137)])
def test_a_virtual_device_that_dies_is_lost_and_not_waited_for(tmp_path: Path, victim: str, reason: object) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
        lines = device.stream(["sh", "-c", "echo started; sleep 60"], 60, f"{device.root}/stream")
        next(lines)
        began = time.monotonic()
        for pid in carriers(tmp_path):
            if read_process(pid, "comm").strip() == victim.encode():
                os.kill(pid, signal.SIGKILL)
        with raising(DeviceLostError, "virtual:s25", reason):
            next(lines)
        with pytest.raises(DeviceLostError):
            device.shell(["true"], 10)
        assert time.monotonic() - began < adb_commands.RECONNECT_S / 4


def test_programs_of_this_machine_run_on_a_virtual_device(tmp_path: Path) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)) as (device,):
        device.push({f"{device.root}/program": Path("/usr/bin/env")})
        device.shell(["chmod", "755", f"{device.root}/program"], 10)
        assert "PATH=/system/bin" in device.shell([f"{device.root}/program"], 10).stdout


def test_missing_programs_name_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raising(MissingDependencyError, "no-adbd", "no-bwrap"):
        find_programs({"no-bwrap": "bubblewrap", "no-adbd": "adbd", "sh": "dash"}, needed_for="a virtual device")
    assert sorted(SANDBOX_PROGRAMS.values()) == ["adb", "adbd", "bubblewrap", "mksh", "toybox"]
