"""A device is tried from its first command to a graph with LoRA weights; what fails is named and costs nothing else."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import RESULTS
from safetensors.numpy import load_file
from support.adb_listing import listing_server
from support.schemas import poorly_described
from support.sentences import raising, reads, says
from support.watcher import Silent

from quadbench.cli import main
from quadbench.devices.addresses import parse_address
from quadbench.devices.lab.leases import Leases, lease_name
from quadbench.devices.virtual import arm64_emulator
from quadbench.doctor.bring_up import PROBE_FOLDER, bring_up
from quadbench.doctor.checks import BringUp, CheckStatus, DeviceCheck, PlannedCheck, Result
from quadbench.errors import DeviceError, LeaseError, MissingDependencyError, UserError
from quadbench.kits import store
from quadbench.kits.store import list_kits
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.target.abi import Abi

ARM64 = "virtual:s25?abi=arm64-v8a"
FLOAT = "float graph on the CPU"
STATE = ("thermal status", "battery", "CPU frequency")


@pytest.fixture
def layout(tmp_path: Path, harness: Path) -> Layout:
    """A results folder; what is built lies in the checkout's."""
    shared, layout = Layout(RESULTS), Layout(tmp_path / "results")
    layout.root.mkdir()
    shared.programs.mkdir(parents=True, exist_ok=True)
    layout.programs.symlink_to(shared.programs)
    return layout


def statuses(result: BringUp) -> dict[str, CheckStatus]:
    return {check.name: check.status for check in result.checks}


def check(result: BringUp, name: str) -> DeviceCheck:
    return next(check for check in result.checks if check.name == name)


def lora(result: BringUp, target: str) -> DeviceCheck:
    return next(check for check in result.checks if check.name.startswith(f"INT16 LoRA on {target}"))


def test_everything_works_here_but_what_this_machine_does_not_tell(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    assert main(["doctor", "--device", "local", "--json", "--results", str(layout.root)]) == 0
    result = BringUp.model_validate_json(capsys.readouterr().out)
    assert {name for name, status in statuses(result).items() if status is not CheckStatus.OK} <= set(STATE)
    says(check(result, FLOAT).said, "0/255")
    says(lora(result, "onnxruntime-cpu").said, "1/255")
    assert any(name.startswith("library.libonnxruntime") for name in lora(result, "onnxruntime-cpu").versions)
    assert check(result, "system").versions["kernel"]
    assert result.device is not None
    assert result.device.family == "local"
    assert sum(check.seconds for check in result.checks) < 60


def test_a_phone_that_is_not_there_is_told_without_its_serial(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "s25@R3CX", "--json", "--results", str(layout.root)]) == DeviceError.exit_code
    text = capsys.readouterr().out
    first, *others = json.loads(text)["checks"]
    assert (first["name"], first["status"]) == ("connection", "failed")
    assert [check["name"] for check in others] == ["harness", "runtime kit", "compiler"]  # what needs no phone is tried
    assert others[1]["status"] == "not tried"
    assert others[1]["hint"] == "quadbench runtime fetch onnxruntime-android"
    assert others[2]["status"] == "ok"
    assert "R3CX" not in text


@pytest.mark.parametrize("address", ["", "hub:s25", "virtual:none"])
def test_an_address_that_is_wrong_is_refused(address: str, layout: Layout) -> None:
    with pytest.raises(UserError):
        bring_up(parse_address(address), layout=layout, observer=Silent())


def test_the_document_tells_of_each_of_its_keys() -> None:
    assert poorly_described(BringUp.model_json_schema()) == []


def test_serials_and_home_folders_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    failed = DeviceCheck(
        name="push",
        status=CheckStatus.FAILED,
        said="'R3CX' cannot read /home/ada/x",
        hint="unplug R3CX\x1b[2J",
        versions={"library.a": "/home/ada/a.so"},
    )
    words = {"quadbench": "1", "started_at": "now", "address": "s25@R3CX", "device": None}
    result = BringUp(**words, checks=(failed,)).impersonal(["R3CX"])
    assert "R3CX" not in result.model_dump_json()
    assert "ada" not in result.model_dump_json()
    assert (result.address, result.checks[0].said) == ("s25@SERIAL", "'SERIAL' cannot read ~/x")
    assert (result.checks[0].hint, result.checks[0].versions) == ("unplug SERIAL\\x1b[2J", {"library.a": "~/a.so"})


def test_a_serial_is_left_out_of_paths_too() -> None:
    said = "'/mine/devices/192.168.1.5-5555' belongs to another user; 192.168.1.5:5555 is kept, as is /mine/R3/R3CX.so"
    locked = DeviceCheck(name="connection", status=CheckStatus.FAILED, said=said)
    words = {"quadbench": "1", "started_at": "now", "address": "s25", "device": None}
    result = BringUp(**words, checks=(locked,)).impersonal(["192.168.1.5:5555", "R3"])
    reads(result.checks[0].said, "/mine/devices/SERIAL", "/mine/SERIAL/R3CX.so")


def test_a_device_that_somebody_else_has_is_not_tried(layout: Layout) -> None:
    with open_records(layout.database) as records:
        Leases(records.engine).reserve(lease_name("local", "local"), "ana@lab-1", "a demo", 3600)
    with raising(LeaseError, "ana@lab-1"):
        bring_up(parse_address("local"), layout=layout, observer=Silent())


def test_serials_that_no_address_can_have_cost_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with listing_server("????????????           no permissions (user in plugdev group); see [http://x]\n") as port:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
        result = bring_up(parse_address("s25"), layout=layout, observer=Silent())
    says(result.checks[0].said)


def test_what_only_holds_a_serial_s_letters_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data")
    lost = DeviceCheck(name="push", status=CheckStatus.FAILED, said="'a' is not attached", hint="clear /data/local/tmp/quadbench")
    words = {"quadbench": "1", "started_at": "now", "address": "s25@a", "device": None}
    result = BringUp(**words, checks=(lost,)).impersonal(["a"])
    assert result.address == "s25@SERIAL"
    reads(result.checks[0].said, "SERIAL")
    assert result.checks[0].hint == "clear /data/local/tmp/quadbench"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeviceError("it is lost", hint="reconnect it"), CheckStatus.FAILED),
        (MissingDependencyError("no kit", hint="fetch one"), CheckStatus.NOT_TRIED),
        (ZeroDivisionError("by zero"), CheckStatus.FAILED),
    ],
)
def test_what_goes_wrong_in_a_check_is_its_answer(error: Exception, status: CheckStatus) -> None:
    def act() -> Result:
        raise error

    made = PlannedCheck(name="a check", act=act).run(Silent())
    assert made.status is status
    assert str(error).partition(".")[0] in made.said
    assert made.hint == getattr(error, "hint", None)


def test_the_probe_is_what_its_script_writes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from support.probe_bundle import known_pixels, write_probe_bundle

    write_probe_bundle(tmp_path / "probe")
    files = [path for path in PROBE_FOLDER.rglob("*") if path.is_file() and not path.name.startswith("manifest")]
    assert len(files) == 14
    for path in files:
        written = tmp_path / "probe" / path.relative_to(PROBE_FOLDER)
        if path.suffix == ".safetensors":  # metadata stand in any order
            assert {n: v.tobytes() for n, v in load_file(written).items()} == {n: v.tobytes() for n, v in load_file(path).items()}
        else:
            assert written.read_bytes() == path.read_bytes(), path.name
    assert abs(known_pixels().astype(int) - known_pixels(with_adapter=False)).mean() > 30


@pytest.mark.slow
def test_a_virtual_phone_with_the_emulator_of_its_npu_runs_everything(layout: Layout) -> None:
    pytest.importorskip("onnxruntime_qnn")
    result = bring_up(parse_address("virtual:s25?target=qnn"), layout=layout, observer=Silent())
    assert {name for name, status in statuses(result).items() if status is not CheckStatus.OK} == set(STATE)
    says(lora(result, "qnn-v79-69").said, "is the known one within")
    versions = lora(result, "qnn-v79-69").versions
    assert any(name.startswith("library.libQnnHtp.so") for name in versions)
    assert "compile.qairt" in versions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "failures", "reason"),
    [
        ("scenario=lying-tools", ["exit codes of tools"], ("sha256sum", 0)),
        ("data_mb=12", [FLOAT, "INT16 LoRA on onnxruntime-cpu-x86_64"], ("MB free in /data/local/tmp/quadbench/objects",)),
        ("data_mb=2", ["free space", "push"], (8,)),
    ],
    ids=["lying", "full", "fuller"],
)
def test_what_does_not_work_is_named_and_the_rest_is_tried(
    options: str, failures: list[str], reason: tuple[object, ...], layout: Layout
) -> None:
    result = bring_up(parse_address(f"virtual:s25?{options}"), layout=layout, observer=Silent())
    failed = [check for check in result.checks if check.status is CheckStatus.FAILED]
    assert [check.name for check in failed][: len(failures)] == failures
    says(failed[0].said, *reason)
    assert failed[0].hint
    assert lora(result, "qnn").status is CheckStatus.NOT_TRIED
    assert statuses(result)["harness"] is CheckStatus.OK


@pytest.mark.slow
def test_a_link_that_dies_in_the_push_ends_in_time_and_what_came_before_is_kept(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quadbench.devices import adb_commands

    monkeypatch.setattr(adb_commands, "RECONNECT_S", 3.0)
    scenario = tmp_path / "dies.yaml"
    events = "events: [{event: unplug, when: {at: push, after_mb: 1}}]"
    scenario.write_text(f"schema_version: 1\nname: dies\ntitle: The cable comes off for good.\n{events}\n")
    result = bring_up(parse_address(f"virtual:s25?scenario={scenario}"), layout=layout, observer=Silent())
    names = statuses(result)
    assert names["free space"] is CheckStatus.OK
    assert {names[name] for name in ("push", "battery", "harness", FLOAT)} == {CheckStatus.FAILED}
    says(check(result, "push").said, "not back within 3 s")
    assert sum(check.seconds for check in result.checks) < 60


@pytest.fixture
def arm64(layout: Layout) -> Layout:
    try:
        arm64_emulator(ARM64)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return layout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_phone_for_arm64_runs_everything_but_the_npu(arm64: Layout) -> None:
    shared = Layout(RESULTS)
    if not any(kit.artifact.abi is Abi.ARM64_LINUX for kit in list_kits(shared)):
        pytest.skip(f"no kit for arm64 Linux in '{RESULTS}': quadbench runtime fetch onnxruntime-linux")
    shutil.copytree(shared.kits, arm64.kits)
    result = bring_up(parse_address(ARM64), layout=arm64, observer=Silent())
    assert {status for name, status in statuses(result).items() if name not in STATE} == {CheckStatus.OK, CheckStatus.NOT_TRIED}
    assert lora(result, "onnxruntime-cpu-aarch64").status is CheckStatus.OK


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kit_whose_runtime_is_none_fails_the_graphs_alone(arm64: Layout, tmp_path: Path) -> None:
    emulator = arm64_emulator(ARM64)
    assert emulator
    store.add_kit([Path(shutil.copy(emulator.root / "lib/libm.so.6", tmp_path / "libonnxruntime.so"))], Abi.ARM64_LINUX, arm64)
    result = bring_up(parse_address(ARM64), layout=arm64, observer=Silent())
    failures = [check.name for check in result.checks if check.status is CheckStatus.FAILED]
    assert failures == [FLOAT, "INT16 LoRA on onnxruntime-cpu-aarch64"]
    says(check(result, FLOAT).said, "OrtGetApiBase")
    assert statuses(result)["runtime kit"] is CheckStatus.OK


@pytest.mark.slow
def test_a_phone_without_a_kit_is_tried_as_far_as_it_goes(arm64: Layout) -> None:
    result = bring_up(parse_address(ARM64), layout=arm64, observer=Silent())
    assert check(result, "runtime kit").status is CheckStatus.FAILED
    assert check(result, "runtime kit").hint == "quadbench runtime fetch onnxruntime-linux"
    assert statuses(result)["push"] is CheckStatus.OK
    assert statuses(result)[FLOAT] is CheckStatus.NOT_TRIED
