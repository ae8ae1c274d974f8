"""Recordings: what a device said in a session is kept without personal data, read with care, and repeated by a virtual phone."""

import gzip
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import RESULTS
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.devices import recording as recordings
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.android_reports import parse_getprop
from quadbench.devices.connections import connect
from quadbench.devices.description import _REPORTED
from quadbench.devices.personal_data import KINDS, REMOVED, PersonalData
from quadbench.devices.recording import Descriptor, ProcessTree, Recording, peak_memory, peaks_of, read_recording, write_recording
from quadbench.doctor.recorder import _SCRIPT, parse_trees
from quadbench.errors import UserError
from quadbench.measure.gate import read_state
from quadbench.results.layout import Layout
from quadbench.target.profile import NO_EMULATOR, load_profile, load_profiles

DUMPS = sorted((Path(__file__).parent / "data/getprop").glob("*_*.txt"))
THERMAL = """\
IsStatusOverride: false
Thermal Status: 1
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=38.5, mType=3, mName=SKIN, mStatus=1}
Current cooling devices from HAL:
"""
BATTERY = "Current Battery Service state:\n  USB powered: true\n  present: true\n  level: 61\n  scale: 100\n  temperature: 312\n"
MEMORY = "MemTotal:       11382344 kB\nMemFree:          312456 kB\nMemAvailable:    5123000 kB\n"
CLOCKS = "policy0 1804800 3532800 3532800\npolicy6 - 3300000 4473600\n"
TREE = {"process": 7, "status": "State:\tR (running)\nVmHWM:\t  2048 kB\n", "smaps_rollup": None, "descriptors": []}
HEADER = '{"event": "header", "schema_version": 1}\n'


def content(**changes: Any) -> dict[str, Any]:
    """Return the JSON of a small recording of a Galaxy S25, with other values where `changes` has them."""
    return {
        "schema_version": 1,
        "quadbench": "1",
        "recorded_at": "2026-01-02T03:04:05Z",
        "family": "adb",
        "profile": "s25",
        "adb": {"state": "device", "model": "SM_S931B"},
        "properties": {**load_profile("s25").virtual_properties(), "ro.build.version.release": "15"},
        "state": {"thermal": THERMAL, "battery": BATTERY, "screen": "  mWakefulness=Awake\n", "memory": MEMORY, "clocks": CLOCKS},
        "checks": [],
        "launches": [
            {"name": "shared 0", "status": "OK", "reason": None, "events": HEADER, "contexts": {"unets.base": "0" * 64}}
        ],
        "processes": [TREE],
        "is_cut": False,
        "removed": {"property": 3},
        **changes,
    }


def stored(folder: Path, text: str | bytes) -> Path:
    path = folder / "phone.json.gz"
    path.write_bytes(gzip.compress(text if isinstance(text, bytes) else text.encode()))
    return path


def tree(**changes: Any) -> ProcessTree:
    return ProcessTree(**(TREE | {"descriptors": ()} | changes))


def buffer(inode: int | None, size: str = "size:\t4096\n") -> Descriptor:
    return Descriptor(target="/dmabuf:", inode=inode, info=f"pos:\t0\n{size}exp_name:\tsystem\n")


def test_a_virtual_phone_repeats_what_the_recorded_one_said(tmp_path: Path) -> None:
    path = stored(tmp_path, json.dumps(content()))
    with connect(parse_addresses([f"virtual:s25?scenario={path}"]), layout=Layout(tmp_path)) as [device]:
        properties, state = device.properties(), read_state(device)
    assert properties["ro.build.version.release"] == "15"
    assert properties["ro.serialno"] == "virtual-s25"
    assert device.facts.android_release == "15"
    assert (state.thermal.status, state.thermal.temperatures[0].celsius) == (1, 38.5)
    assert (state.battery.level_percent, state.screen) == (61, "on")
    assert state.memory_available_bytes == 5123000 * 1024
    assert [(clock.policy, clock.khz, clock.is_capped) for clock in state.clocks] == [
        ("policy0", 1804800, False),
        ("policy6", None, True),
    ]


def test_a_recording_of_another_phone_is_refused_with_the_property_that_differs(tmp_path: Path) -> None:
    path = stored(tmp_path, json.dumps(content()))
    with (
        raising(UserError, "ro.soc.model", "SM8750", "virtual:s25"),
        connect(parse_addresses([f"virtual:tabs11?scenario={path}"]), layout=Layout(tmp_path)),
    ):
        pass


@pytest.mark.slow
def test_a_session_is_recorded_and_repeated(tmp_path: Path, harness: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path / "results")
    layout.root.mkdir()
    layout.programs.symlink_to(Layout(RESULTS).programs)
    out, again = tmp_path / "one.json.gz", tmp_path / "two.json.gz"
    results = ["--results", str(layout.root)]
    assert main(["devices", "record", "virtual:s25?scenario=hot", "--out", str(out), *results]) == 0
    first = read_recording(out)
    assert [launch.status for launch in first.launches] == ["OK", "OK"]
    assert all(len(launch.contexts) > 1 for launch in first.launches)
    assert {json.loads(line)["event"] for line in first.launches[0].events.splitlines()} >= {"header", "sample", "footer"}
    assert all((peak.resident_bytes or 0) > 10_000_000 for peak in peaks_of(first).values())
    assert len(peaks_of(first)) > 0
    assert {check.name for check in first.checks} > {"connection", "push"}
    assert main(["devices", "record", f"virtual:s25?scenario={out}", "--out", str(again), *results]) == 0
    second = read_recording(again)
    assert second.properties == first.properties
    assert {part: second.state[part] for part in ("thermal", "battery")} == {
        part: first.state[part] for part in ("thermal", "battery")
    }
    capsys.readouterr()
    assert main(["devices", "recorded", str(out), "--json", *results]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["removed"]["property"] >= 1
    assert all(peak["dma_buf_bytes"] is None for peak in answer["peaks"].values())


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"no archive",
        gzip.compress(b"{}")[:-9],
        gzip.compress(json.dumps(content()).encode()) + b"more",
        gzip.compress(b" " * (recordings.MAX_BYTES + 1)),
        gzip.compress(b"[" * 100_000),
    ],
    ids=["empty", "text", "cut off", "more after its end", "too much when unpacked", "nested too deeply"],
)
def test_an_archive_that_is_none_is_refused(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "phone.json.gz"
    path.write_bytes(damaged)
    with raising(UserError, "phone.json.gz"):
        read_recording(path)


def test_an_archive_that_is_too_large_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "phone.json.gz"
    with path.open("wb") as file:
        file.truncate(recordings.MAX_ARCHIVE_BYTES + 1)
    with raising(UserError, recordings.MAX_ARCHIVE_BYTES):
        read_recording(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"more": 1},
        {"properties": {"../../x": "1"}},
        {"properties": {"ro.a\n": "1"}},
        {"properties": {"ro.a": "1\n[ro.b]: [2"}},
        {"properties": {f"ro.p{number}": "" for number in range(recordings.MAX_PROPERTIES + 1)}},
        {"state": {"../x": ""}},
        {"state": {"thermal": "x" * (recordings.MAX_TEXT + 1)}},
        {"processes": [TREE] * (recordings.MAX_TREES + 1)},
        {"processes": [{**TREE, "process": -1}]},
        {"processes": [{**TREE, "descriptors": [{"target": None, "inode": 2**70, "info": None}]}]},
        {"launches": [{"name": "a", "status": "OK", "reason": None, "events": "", "contexts": {"a": "../b"}}]},
        {"removed": {"property": float("nan")}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_recording_with_a_value_that_none_has_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with raising(UserError, "phone.json.gz"):
        read_recording(stored(tmp_path, json.dumps(content(**changes))))


def test_clocks_of_a_recording_never_lead_out_of_their_folder(tmp_path: Path) -> None:
    clocks = "../../evil 1 2 3\npolicy/../.. 1 2 3\npolicy٣ 1 2 3\npolicy0 1 2 3\n"
    (tmp_path / "system/etc/dumpsys").mkdir(parents=True)
    recordings.write_recorded_state(Recording.model_validate_json(json.dumps(content(state={"clocks": clocks}))), tmp_path)
    assert [path.name for path in (tmp_path / "clocks").iterdir()] == ["policy0"]


def test_equal_recordings_are_equal_files_and_are_read_as_they_were(tmp_path: Path) -> None:
    recording = Recording.model_validate_json(json.dumps(content()))
    for name in ("one", "two"):
        write_recording(recording, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_recording(tmp_path / "one") == recording
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


PERSONAL = {
    "known value": ("device R3CX70ABCDE is here", "R3CX70ABCDE"),
    "Wi-Fi name": ('SSID: "Ana and Bo", x', "Ana and Bo"),
    "account name": ("Account {name=ana.b, type=com.x}", "ana.b"),
    "serial number": ("Serial Number: ZX81-1234", "ZX81-1234"),
    "IMEI or similar": ("slot 1 has 356938035643809 now", "356938035643809"),
    "e-mail address": ("of ana.b+c@mail.example.org!", "ana.b+c@mail.example.org"),
    "hardware address": ("at 00:1A:2b:3c:4D:5e on", "00:1A:2b:3c:4D:5e"),
    "network address": ("tcp:192.168.1.77:5555", "192.168.1.77"),
    "UUID": ("4b7a15d6-322c-42ac-8110-88b7da0c5d77", "4b7a15d6"),
}


def test_each_kind_of_personal_data_has_an_example() -> None:
    assert {"property", *PERSONAL} == set(KINDS)


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_data_is_removed_from_a_text_and_counted(kind: str) -> None:
    text, secret = PERSONAL[kind]
    personal = PersonalData(["R3CX70ABCDE"], {})
    cleaned = personal.clean(text)
    assert secret not in cleaned
    assert REMOVED in cleaned
    assert personal.removed == {kind: 1}


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_data_is_removed_from_events_which_stay_json(kind: str) -> None:
    text, secret = PERSONAL[kind]
    line = json.dumps({"event": "error", "message": text})
    cleaned = PersonalData(["R3CX70ABCDE"], {}).clean_json_lines(f"{line}\n{line[:-1]}\n")
    assert secret not in cleaned
    assert json.loads(cleaned.splitlines()[0])["event"] == "error"


@pytest.mark.parametrize(
    "text",
    [
        "Temperature{mValue=38.5, mType=3, mName=SKIN, mStatus=1}",
        '{"event": "sample", "metric": "unet_ns", "value": 12345678901234}',
        f"sha256 {'0123456789abcdef' * 4}, QNN 2.51.0.260929181845, 1.24.3.0",
        "samsung/pa1qxxx/pa1q:15/AP3A.240905.015.A2/S931BXXU1AYA1:user/release-keys",
        "MemTotal:       11382344 kB\n  USB powered: true\n",
        "2026-01-02T03:04:05Z 12:34:56",
    ],
)
def test_what_tells_nobody_s_name_stays_as_it_is(text: str) -> None:
    personal = PersonalData(["R3CX70ABCDE"], {"ro.serialno": "R3CX70ABCDE"})
    assert personal.clean(text) == text
    assert not personal.removed


def test_a_serial_number_in_a_property_is_removed_from_every_other_one() -> None:
    properties = {"ro.serialno": "R3CX70ABCDE", "ro.product.name": "pa1q-R3CX70ABCDE", "ro.boot.em.did": "2024R3X", "gsm.x": "1"}
    personal = PersonalData([], properties)
    assert personal.kept_properties(properties) == {"ro.product.name": f"pa1q-{REMOVED}"}
    assert personal.removed["property"] == 3


def test_properties_by_which_profiles_recognise_a_phone_are_kept() -> None:
    keys = {key for profile in load_profiles() for key in profile.match} | {*NO_EMULATOR, *_REPORTED}
    assert set(PersonalData([], {}).kept_properties(dict.fromkeys(keys, "1"))) == keys


@pytest.mark.parametrize("dump", DUMPS, ids=lambda path: path.stem)
def test_of_a_real_phone_s_properties_no_group_but_the_known_ones_is_kept(dump: Path) -> None:
    properties = parse_getprop(dump.read_text())
    kept = PersonalData([], properties).kept_properties(properties)
    assert len(kept) > 20
    assert not [key for key in kept if key.startswith(("persist.", "ril.", "gsm.", "net.", "sys.usb"))]
    matching = [profile.name for profile in load_profiles() if profile.matches(properties)]
    assert [profile.name for profile in load_profiles() if profile.matches(kept)] == matching


def test_peak_memory_is_the_highest_of_all_trees_and_a_shared_buffer_counts_once() -> None:
    low = tree(descriptors=(buffer(1),))
    high = tree(status="VmHWM:\t4096 kB\n", descriptors=(buffer(1), buffer(1), buffer(2, "size:\t8192\n")))
    peak = peak_memory([low, high, low])
    assert (peak.resident_bytes, peak.dma_buf_bytes) == (4096 * 1024, 12288)


@pytest.mark.parametrize(
    "changes",
    [
        {"descriptors": None},
        {"descriptors": (buffer(None),)},
        {"descriptors": (buffer(1, ""),)},
        {"descriptors": (Descriptor(target="/dmabuf:", inode=3, info=None),)},
        {"descriptors": (Descriptor(target=None, inode=None, info=None),)},
    ],
    ids=["list", "inode", "size", "fdinfo", "everything"],
)
def test_where_one_tree_does_not_tell_its_buffers_their_peak_is_unknown(changes: dict[str, Any]) -> None:
    peak = peak_memory([tree(descriptors=(buffer(1),)), tree(**changes)])
    assert (peak.resident_bytes, peak.dma_buf_bytes) == (2048 * 1024, None)


@pytest.mark.parametrize("status", [None, "", "VmHWM:\t0 kB\n", "VmHWM:\tmuch kB\n", "VmRSS:\t2048 kB\n"])
def test_resident_memory_that_is_not_told_is_unknown_and_never_0(status: str | None) -> None:
    assert peak_memory([tree(status=status)]).resident_bytes is None


def test_without_trees_or_buffers_nothing_is_known_of_them() -> None:
    assert peak_memory([tree()]).dma_buf_bytes is None
    assert peak_memory([]).resident_bytes is None


def test_a_recording_that_was_cut_tells_no_peak() -> None:
    recording = Recording.model_validate_json(json.dumps(content(is_cut=True)))
    assert {peak.resident_bytes for peak in peaks_of(recording).values()} == {None}


def test_a_process_s_memory_is_read_from_a_real_proc(tmp_path: Path) -> None:
    program = tmp_path / "objects" / "sleeper"
    program.parent.mkdir()
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"], stdout=subprocess.DEVNULL) as process:
        try:
            while Path(f"/proc/{process.pid}/exe").readlink() != program:
                time.sleep(0.01)
            words = ["sh", "-c", _SCRIPT, "watch", str(program.parent)]
            (read,) = parse_trees(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        finally:
            process.kill()
    assert read.process == process.pid
    assert (peak_memory([read]).resident_bytes or 0) > 100_000
    assert read.descriptors is not None
    assert {one.target for one in read.descriptors} >= {"/dev/null"}
    assert all(one.info and "flags:" in one.info for one in read.descriptors)


def test_a_process_that_ended_while_it_was_read_and_one_that_is_a_zombie_are_left_out() -> None:
    mark = "@@quadbench "
    ended = f"{mark}process 5\n{mark}status\nVmHWM: 1 kB\n"
    zombie = f"{mark}process 6\n{mark}status\nState:\tZ (zombie)\n{mark}whole\n"
    denied = f"{mark}process 7\n{mark}status\n\n{mark}denied\n{mark}whole\n"
    assert [(read.process, read.status, read.descriptors) for read in parse_trees(ended + zombie + denied)] == [(7, None, None)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["record"], ("devices record",)),
        (["recorded"], ("devices recorded",)),
        (["record", "local", "--out", "phone.zip"], ("phone.zip", ".json.gz")),
        (["describe", "X", "--out", "phone.json.gz"], ("--out",)),
        (["recorded", "absent.json.gz"], ("absent.json.gz",)),
        (["record", "s25@R3CX"], ("SERIAL",)),
        (["record", "local", "--run", "none"], ("none",)),
    ],
)
def test_a_wrong_command_is_told_and_writes_nothing(
    arguments: list[str],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["devices", *arguments, "--results", str(tmp_path / "results")]) in (2, 3, 5)
    says(capsys.readouterr().err, *words)
    assert not list(tmp_path.glob("*.json.gz"))
