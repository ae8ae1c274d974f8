"""Virtual phones for arm64: what they report and run, and what is said where this machine lacks what they need."""

import platform
from pathlib import Path

import pytest
from support.sentences import raising, says

from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.devices.process_marks import device_mark
from quadbench.devices.virtual import ROOT_VARIABLE, Arm64Emulator, DataPartition, SandboxLayout, arm64_emulator, running_sandbox
from quadbench.errors import DeviceError, MissingDependencyError
from quadbench.results.layout import Layout
from quadbench.target.abi import Abi

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="an arm64 machine runs these programs itself")

ADDRESS = "virtual:s25?abi=arm64-v8a"


def test_it_reports_a_phones_abi_and_runs_programs_for_arm64_as_they_are(tmp_path: Path) -> None:
    try:
        emulator = arm64_emulator(ADDRESS)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert emulator is not None
    with connect(parse_addresses([ADDRESS]), layout=Layout(tmp_path)) as (device,):
        assert device.abi is Abi.ARM64_LINUX
        assert device.shell(["getprop", "ro.product.cpu.abi"], 20).stdout == "arm64-v8a\n"
        loader = emulator.root / "lib" / "ld-linux-aarch64.so.1"
        ended = device.shell([str(loader), "--version"], 60)
        assert (ended.exit_code, ended.stdout[:5]) == (0, "ld.so")
        device.push({f"{device.root}/objects/program": loader.resolve()})
        device.shell(["chmod", "755", f"{device.root}/objects/program"], 20)
        assert next(device.stream(["objects/program", "--version"], 60, device.root)).startswith("ld.so")
    assert not Path("/proc/sys/fs/binfmt_misc/arm64").exists()


def test_libraries_for_arm64_that_are_missing_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qemu-aarch64-static").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    with (
        pytest.raises(MissingDependencyError) as refusal,
        connect(parse_addresses([ADDRESS]), layout=Layout(tmp_path / "results")),
    ):
        pass
    says(refusal.value.message, "ld-linux-aarch64.so.1", "libgcc_s.so.1", "libstdc++.so.6", "arm64")
    says(str(refusal.value.hint), "libc6-arm64-cross", "libgcc-s1-arm64-cross", "libstdc++6-arm64-cross")


def test_a_kernel_that_does_not_take_the_emulator_is_said(tmp_path: Path) -> None:
    emulator = Arm64Emulator(qemu=Path("/nowhere/qemu"), root=tmp_path)
    with device_mark(tmp_path) as mark:
        place = SandboxLayout(
            folder=tmp_path, data=DataPartition(folder=tmp_path / "data"), visible_paths={}, mark=mark, emulator=emulator
        )
        with raising(DeviceError, "arm64", "6.7"), running_sandbox(place, {}, ADDRESS):
            pass
