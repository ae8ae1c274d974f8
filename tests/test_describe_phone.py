"""`quadbench devices describe`: the profile of a phone is written from what it reports, and can be used as it stands."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.android_reports import parse_getprop
from quadbench.devices.connections import connect
from quadbench.devices.description import describe_phone
from quadbench.errors import DeviceError
from quadbench.results.layout import Layout
from quadbench.target.profile import DeviceProfile, load_profile, load_profiles

FOLD7 = Path(__file__).parent / "data/getprop/galaxy_z_fold7_sm8750_oneui8.txt"
MEMINFO = "MemTotal:       11382344 kB\nMemFree:          312456 kB\n"
UNKNOWN = {"ro.soc.model": "XY1", "ro.soc.manufacturer": "Acme", "ro.product.model": "A 1", "ro.product.brand": "Acme"}


def described(properties: Mapping[str, str], folder: Path, meminfo: str = MEMINFO) -> DeviceProfile:
    path = folder / "mine.yaml"
    path.write_text(describe_phone("R3X", properties, meminfo, load_profiles()), encoding="utf-8")
    return load_profile(path)


def test_a_phone_with_a_known_chip_gets_that_chip_s_targets(tmp_path: Path) -> None:
    properties = {**parse_getprop(FOLD7.read_text()), "ro.product.model": "SM-F999B"}
    profile = described(properties, tmp_path)
    assert profile.name == "sm-f999b"
    assert profile.matches(properties)
    assert not profile.matches({**properties, "ro.product.model": "SM-F999B1"})
    assert profile.alternatives == load_profile("s25").alternatives
    assert (profile.soc.htp_arch, profile.soc.ram_mb) == ("v79", 11115)
    assert profile.hosted_target is None


def test_an_emulator_is_described_as_one(tmp_path: Path) -> None:
    profile = described(UNKNOWN | {"ro.boot.qemu": "1"}, tmp_path)
    assert profile.matches(UNKNOWN | {"ro.boot.qemu": "1"})
    assert not profile.matches(UNKNOWN)


def test_a_phone_with_an_unknown_chip_gets_its_cpu_alone(tmp_path: Path) -> None:
    profile = described(UNKNOWN, tmp_path)
    assert {target.backend for target in profile.targets()} == {"onnxruntime", "litert"}
    assert (profile.soc.model, profile.soc.vendor, profile.title) == ("XY1", "acme", "Acme A 1")


def test_no_serial_number_comes_into_the_profile() -> None:
    properties = {**UNKNOWN, "ro.serialno": "R3XSECRET", "ro.boot.serialno": "R3XSECRET", "ro.boot.em.did": "2024R3X"}
    assert "R3X" not in describe_phone("R3X", properties, MEMINFO, load_profiles())


@pytest.mark.parametrize(
    "model",
    ["*", "[a]?|b*", "ab: - {c}", "'\"#&", "\u202e\ttabs", " A", "A ", " ", "A\n", "x" * 200, "\u4e00\u52a0 13", "-", "s25"],
)
def test_a_model_of_any_text_is_matched_as_it_stands_and_never_names_a_known_profile(model: str, tmp_path: Path) -> None:
    properties = UNKNOWN | {"ro.product.model": model}
    profile = described(properties, tmp_path)
    assert profile.matches(properties)
    assert not profile.matches(UNKNOWN)
    assert profile.name not in {known.name for known in load_profiles()}


def test_a_phone_older_than_the_chip_s_property_is_recognised_by_its_board(tmp_path: Path) -> None:
    profile = described({"ro.board.platform": "msmnile", "ro.product.model": "SM-G973U"}, tmp_path)
    assert profile.match == {"ro.board.platform": "msmnile", "ro.product.model": "SM-G973U"}


@pytest.mark.parametrize(
    ("properties", "meminfo", "missing"),
    [
        ({}, MEMINFO, ("ro.product.model", "ro.soc.model", "ro.board.platform")),
        ({"ro.product.model": "A", "ro.soc.model": ""}, MEMINFO, ("ro.soc.model", "ro.board.platform")),
        (UNKNOWN, "", ("MemTotal",)),
        (UNKNOWN, "MemTotal: much kB\n", ("MemTotal",)),
    ],
)
def test_a_phone_that_does_not_say_what_it_is_is_not_described(
    properties: Mapping[str, str], meminfo: str, missing: tuple[str, ...]
) -> None:
    with raising(DeviceError, "R3X", *missing):
        describe_phone("R3X", properties, meminfo, load_profiles())


def test_an_attached_phone_is_described_and_used_by_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)):
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/devices/virtual-s25/system/run/adb.sock")
        serial = "127.0.0.1:5640"
        assert main(["devices", "describe", f"s25@{serial}"]) == 0
        told = capsys.readouterr()
        says(told.err, serial, "s25", f"./mine.yaml@{serial}")
        assert serial not in told.out
        (tmp_path / "mine.yaml").write_text(told.out)
        with connect(parse_addresses([f"{tmp_path}/mine.yaml@{serial}"]), layout=Layout(tmp_path)) as (phone,):
            assert (phone.facts.profile, phone.profile.soc.htp_arch) == ("sm-s931b", "v79")


@pytest.mark.parametrize("word", ["s25@", "virtual:s25", "local", "hub:s25"])
def test_what_is_no_attached_phone_is_refused_before_adb_is_asked(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "describe", word]) != 0
    says(capsys.readouterr().err, word)


@pytest.mark.parametrize("words", [[], ["R3ABSENT"]])
def test_a_phone_that_is_not_named_or_not_attached_is_an_error(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)):
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/devices/virtual-s25/system/run/adb.sock")
        assert main(["devices", "describe", *words]) != 0
    says(capsys.readouterr().err, "describe" if not words else "R3ABSENT")
