"""First contact with a phone: what adb says is recognised, and what it cannot say is named as possible, never as the cause."""

from pathlib import Path

import pytest
from support.adb_listing import listing_server
from support.sentences import reads, says
from support.watcher import Silent

from quadbench.devices.addresses import parse_address
from quadbench.devices.android_reports import parse_device_list
from quadbench.devices.connections import connect
from quadbench.doctor.bring_up import bring_up
from quadbench.doctor.checks import BringUp, CheckStatus
from quadbench.doctor.first_contact import BY_VENDOR, EVERY_PHONE, PAGE, advice, switches
from quadbench.errors import DeviceError
from quadbench.harness.program import NDK_VARIABLE
from quadbench.results.layout import Layout

ROOT = Path(__file__).parents[1]
STATES = ("offline", "unauthorized", "authorizing", "connecting", "bootloader", "recovery", "rescue", "sideload", "host",
          "detached", "unknown")  # fmt: skip
NO_PERMISSIONS = (
    "no permissions (user in plugdev group; are your udev rules wrong?); see [http://developer.android.com/tools/device.html]",
    "no permissions (missing udev rules? user is in the plugdev group); see [http://developer.android.com/tools/device.html]",
    "no permissions; see [http://developer.android.com/tools/device.html]",
)


def tried(address: str, listing: str, layout: Layout, patch: pytest.MonkeyPatch) -> BringUp:
    """Return what doctor says of an address where adb lists these devices, without an NDK."""
    patch.delenv(NDK_VARIABLE, raising=False)
    with listing_server(listing) as port:
        patch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
        return bring_up(parse_address(address), layout=layout, observer=Silent())


@pytest.mark.parametrize(
    ("address", "own", "foreign"),
    [("s25", "Auto Blocker", "OS version"), ("xiaomi15", "OS version", "Auto Blocker"), ("R3CX", "Auto Blocker", None)],
)
def test_where_no_phone_is_listed_the_vendors_switches_are_named_and_none_is_said_to_be_the_cause(
    address: str, own: str, foreign: str | None, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = tried(address, "", layout, monkeypatch).checks[0]
    assert connection.status is CheckStatus.FAILED
    assert connection.hint is not None
    assert own in connection.hint
    assert foreign is None or foreign not in connection.hint
    says(connection.hint, "USB debugging", PAGE)
    assert own not in connection.said


@pytest.mark.parametrize("state", ["unauthorized", "offline", NO_PERMISSIONS[0]])
def test_where_adb_knows_the_reason_no_switches_are_guessed(state: str, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    hint = tried("s25", f"R3CX                   {state} usb:1-1\n", layout, monkeypatch).checks[0].hint
    assert hint is not None
    assert PAGE not in hint


@pytest.mark.parametrize("state", [*STATES, *NO_PERMISSIONS])
def test_each_state_that_adb_prints_is_read_and_has_advice(state: str, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"R3CX                   {state} transport_id:1\n"
    (attached,) = parse_device_list(line)
    assert (attached.serial, attached.is_ready) == ("R3CX", False)
    with listing_server(line) as port:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
        with pytest.raises(DeviceError) as caught, connect([parse_address("R3CX")], layout=layout):
            pass
    reads(str(caught.value), "R3CX", state.partition(" ")[0])
    assert not str(caught.value).endswith("Hint: see: adb devices -l")


def test_without_a_phone_the_ndk_is_asked_for_and_compilers_are_tried(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    _, harness, kit, compiler = tried("s25", "", layout, monkeypatch).checks
    assert harness.status is CheckStatus.NOT_TRIED
    says(f"{harness.said} {harness.hint}", NDK_VARIABLE)
    assert kit.status is CheckStatus.NOT_TRIED
    assert compiler.status is CheckStatus.OK
    says(compiler.said, "onnxruntime-cpu-aarch64", "qnn-v79-69")
    assert list(layout.root.glob("compiled/*"))


@pytest.mark.parametrize("vendor", [*BY_VENDOR, "Samsung", "acme", None])
def test_switches_of_a_vendor_come_before_those_of_all(vendor: str | None) -> None:
    named = list(switches(vendor))
    assert named[-len(EVERY_PHONE) :] == list(EVERY_PHONE)
    assert set(named) >= set(BY_VENDOR.get((vendor or "").lower(), ()))
    assert advice(vendor)


def test_the_page_that_the_command_names_leads_to_the_command() -> None:
    name, _, _ = PAGE.partition("#")
    section = (ROOT / name).read_text().partition("### What hides a phone")[2].partition("\n#")[0]
    assert "`quadbench doctor --device s25` prints the switches" in section
