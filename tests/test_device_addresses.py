"""Addresses: which device a word of the command line means, and what is said where it means none."""

from pathlib import Path

import pytest
from support.sentences import raising, reads, says

from quadbench.cli import main
from quadbench.cli.device_options import addresses_of
from quadbench.devices.addresses import (
    AttachedAddress,
    LocalAddress,
    Phone,
    VirtualAddress,
    choose_phone,
    parse_address,
    parse_addresses,
)
from quadbench.devices.android_reports import AttachedDevice
from quadbench.devices.connections import connect
from quadbench.errors import DeviceError, DeviceNotFoundError, UnknownNameError, UserError
from quadbench.results.layout import Layout
from quadbench.rollout.forecast import kind_at
from quadbench.target.profile import PROFILES_FOLDER, load_profile, load_profiles
from quadbench.target.targets import QnnTarget


def phone(serial: str, state: str = "device", **properties: str) -> Phone:
    return Phone(
        attached=AttachedDevice(serial=serial, state=state),
        properties={key.replace("_", "."): value for key, value in properties.items()},
    )


def s25(serial: str) -> Phone:
    return Phone(attached=AttachedDevice(serial=serial, state="device"), properties=load_profile("s25").virtual_properties())


def attached(text: str) -> AttachedAddress:
    address = parse_address(text)
    assert isinstance(address, AttachedAddress)
    return address


def choose(text: str, *phones: Phone, preferred: str | None = None) -> str:
    return choose_phone(attached(text), phones, load_profiles(), preferred)[0].attached.serial


def test_the_only_matching_phone_is_chosen() -> None:
    assert choose("s25", phone("OTHER"), s25("R3X")) == "R3X"


def test_a_phone_that_is_not_attached_names_what_is_and_hints_at_the_virtual_one() -> None:
    with pytest.raises(DeviceNotFoundError) as caught:
        choose("tabs11", s25("R3X"), phone("emulator-5554"), phone("Z9", "unauthorized"))
    reads(caught.value.message, "tabs11", "R3X", "s25", "emulator-5554", "Z9")
    assert caught.value.hint is not None
    says(caught.value.hint, "Z9", "virtual:tabs11")


def test_several_matching_phones_must_be_told_apart() -> None:
    with raising(UserError, "s25@A"):
        choose("s25", s25("A"), s25("B"))
    assert choose("s25@B", s25("A"), s25("B")) == "B"
    assert choose("s25", s25("A"), s25("B"), preferred="B") == "B"


def test_android_serial_does_not_forbid_the_only_match() -> None:
    assert choose("s25", s25("A"), phone("B"), preferred="B") == "A"


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("offline", ()),
        ("unauthorized", ()),
        ("no permissions (missing udev rules)", ()),
        ("detached", ("adb",)),
        ("rescue", ()),
        ("bootloader", ()),
        ("host", ("adb", "-l")),
    ],
)
def test_a_phone_that_is_not_ready_says_why(state: str, hint: tuple[str, ...]) -> None:
    with pytest.raises(DeviceError) as caught:
        choose("R3X", phone("R3X", state))
    says(caught.value.message, state)
    says(str(caught.value.hint), *hint)


@pytest.mark.parametrize(
    ("serial", "hint"),
    [
        ("192.168.1.5:5555", ("adb", "192.168.1.5:5555")),
        ("adb-R5 (2)._adb-tls-connect._tcp", ()),
    ],
)
def test_a_phone_that_is_offline_in_a_network_says_how_to_connect_it_anew(serial: str, hint: tuple[str, ...]) -> None:
    with pytest.raises(DeviceError) as caught:
        choose(serial, phone(serial, "offline"))
    says(str(caught.value.hint), *hint)


def test_a_phone_in_a_network_that_is_not_connected_says_how_to_connect_it() -> None:
    with pytest.raises(DeviceNotFoundError) as caught:
        choose("s25@192.168.1.5:5555", s25("R3X"))
    assert str(caught.value.hint).startswith("adb connect 192.168.1.5:5555")


def test_a_phone_that_is_not_what_it_is_called_says_what_differs() -> None:
    with raising(DeviceError, "R3X", "tabs11", "ro.soc.model", "SM8750", "MT6991"):
        choose("tabs11@R3X", s25("R3X"))


def test_a_serial_without_a_profile_names_its_model() -> None:
    with raising(DeviceError, "Q", "PKC110", "MT6991"):
        choose("Q", phone("Q", ro_product_model="PKC110", ro_soc_model="MT6991"))


def test_a_word_that_is_nothing_lists_profiles_and_phones() -> None:
    with raising(DeviceNotFoundError, "s27", "s25"):
        choose("s27")


def test_a_profile_may_be_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text((PROFILES_FOLDER / "s25.yaml").read_text().replace("name: s25\n", "name: mine\n"))
    assert choose(f"{mine}@R3X", s25("R3X")) == "R3X"


def test_serials_may_contain_spaces() -> None:
    assert (
        choose("adb-R5 (2)._adb-tls-connect._tcp", s25("adb-R5 (2)._adb-tls-connect._tcp")) == "adb-R5 (2)._adb-tls-connect._tcp"
    )


@pytest.mark.parametrize(
    "text",
    ["virtual:", "virtual:../s25?x", "virtual:s25?target=", "virtual:s25?target=cpu&target=qnn", "s25?", "s25?target=",
     "?target=cpu", "s25@?target=cpu", "s25?target=cpu&target=cpu", "s25@", "@R3X", "@", "local?x=1", "a\0b",
     "x" * 70_000 + "?", "",
     *(f"virtual:s25?data_mb={size}" for size in ("0", "-1", "65537", "9" * 5000, "1e3", "\u0663", "big", "")),
     *("s25\n", "virtual:s25?scenario=./a\x1b[31m.yaml", "hub:s25\x07", "R3X\u202e")],
)  # fmt: skip
def test_a_malformed_address_is_refused_at_bounded_length(text: str) -> None:
    with raising(UserError, snapshot=False) as caught:
        parse_address(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_malformed_address_is_answered_with_the_forms_that_exist() -> None:
    with raising(UserError, "virtual:<profile>"):
        parse_address("virtual:")


def test_a_virtual_address_may_give_the_size_of_data() -> None:
    text = "virtual:s25?data_mb=64"
    assert parse_address(text) == VirtualAddress(text=text, profile="s25", data_mb=64)


def test_a_virtual_address_may_ask_for_a_phones_abi() -> None:
    text = "virtual:s25?abi=arm64-v8a"
    assert parse_address(text) == VirtualAddress(text=text, profile="s25", is_arm64=True)
    with raising(UserError, "?abi=arm64-v8a"):
        parse_address("virtual:s25?abi=x86")


def test_an_address_may_name_another_target_for_an_attached_phone() -> None:
    profile_only, with_serial = attached("s25?target=qnn"), attached("s25@R3X?target=cpu")
    assert profile_only == AttachedAddress(text="s25?target=qnn", profile="s25", serial=None, target="qnn")
    assert with_serial == AttachedAddress(text="s25@R3X?target=cpu", profile="s25", serial="R3X", target="cpu")
    for address in (profile_only, attached("R3X?target=qnn")):
        _, profile = choose_phone(address, [s25("R3X")], load_profiles(), None)
        assert profile.target == QnnTarget(backend="qnn", htp_arch="v79", soc_model=69, performance_mode="burst")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("virtual:s25?scenaro=hot", ("virtual:s25", "scenaro", "data_mb", "scenario")),
        ("virtual:s25?=1", ("virtual:s25", "data_mb")),
        ("s25?abi=arm64-v8a", ("s25", "abi")),
        ("s25@R3X?target=cpu&data_mb=4", ("s25@R3X", "data_mb")),
    ],
)
def test_an_option_that_an_address_does_not_take_is_named_beside_those_that_it_takes(text: str, said: tuple[str, ...]) -> None:
    with raising(UnknownNameError, *said):
        parse_address(text)


def test_a_virtual_address_may_name_another_target_of_its_profile() -> None:
    text = "virtual:s25?target=qnn&data_mb=64"
    assert parse_address(text) == VirtualAddress(text=text, profile="s25", data_mb=64, target="qnn")
    qnn = load_profile("s25").with_target("qnn").virtual_target
    assert qnn == QnnTarget(backend="qnn", htp_arch="v79", soc_model=69, performance_mode="burst")


@pytest.mark.parametrize(
    ("profile", "known"), [("s25", "cpu, litert, onnxruntime, qnn, xnnpack"), ("tabs11", "cpu, litert, onnxruntime, xnnpack")]
)
def test_a_target_that_no_virtual_device_of_the_profile_can_run_is_refused(profile: str, known: str, tmp_path: Path) -> None:
    target = "ai_hub" if profile == "s25" else "qnn"
    with (
        raising(UserError, profile, target, known),
        connect(parse_addresses([f"virtual:{profile}?target={target}"]), layout=Layout(tmp_path)),
    ):
        pass


def test_a_device_given_twice_is_refused(tmp_path: Path) -> None:
    with (
        raising(UserError, "local", 2),
        connect(parse_addresses(["local", "local"]), layout=Layout(tmp_path)),
    ):
        pass


def test_one_virtual_device_under_two_addresses_is_refused(tmp_path: Path) -> None:
    addresses = ["virtual:s25", "virtual:s25?data_mb=8"]
    with raising(UserError), connect(parse_addresses(addresses), layout=Layout(tmp_path)):
        pass


def test_no_device_at_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    with raising(UserError), connect([], layout=Layout(tmp_path)):
        pass


@pytest.mark.parametrize("address", ["s" * 70_000, "virtual:" + "s" * 70_000, "s" * 300, "./" + "s" * 300 + ".yaml"])
def test_a_long_address_is_no_device_and_is_not_repeated_whole(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--devices", address]) in (2, 5)
    assert len(capsys.readouterr().err) < 1500


@pytest.mark.parametrize("devices", ["", " ", ",", " , "])
def test_devices_that_name_nothing_do_not_mean_this_machine(devices: str, tmp_path: Path) -> None:
    with raising(UserError, "--devices"):
        addresses_of(devices, Layout(tmp_path))


def test_devices_that_are_left_out_mean_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    assert addresses_of(None, Layout(tmp_path)) == [LocalAddress()]


def test_a_serial_has_an_at_sign_only_where_a_phone_has_it() -> None:
    for phones in ([], [s25("R3X")]):
        with raising(UserError, "s25@x@y"):
            choose("s25@x@y", *phones)
    with raising(UserError, "s25@x@y"):
        kind_at(parse_address("s25@x@y"))
    assert choose("s25@x@y", s25("x@y")) == choose("x@y", s25("x@y")) == "x@y"


@pytest.mark.parametrize("text", ["local", "virtual:s25?target=qnn&data_mb=64", "hub:s25", "s25", "s25@R3X?target=cpu"])
def test_an_address_stands_in_records_as_it_was_written(text: str) -> None:
    assert [str(address) for address in parse_addresses([f" {text} "])] == [text]


def test_a_phone_whose_properties_could_not_be_read_is_no_other_phone() -> None:
    with raising(DeviceError, "R3X"):
        choose("s25@R3X", phone("R3X"))
