"""The user's adb server: where it is looked for, when one is started, and how an attached phone is named on it."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sentences import raising, says

from quadbench.devices import list_devices
from quadbench.devices.adb_protocol import TcpEndpoint, UnixEndpoint, server_endpoint, user_server
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.errors import DeviceError, DeviceNotFoundError, UserError
from quadbench.results.layout import Layout


@pytest.fixture
def user_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yield a free port, which is the user's, with a new home for the user; a server that is there at the end is ended."""
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    yield port
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as server:
        server.sendall(b"0009host:kill")
        server.recv(4)


def test_a_server_is_started_where_there_is_none_and_then_left_alone(user_adb: int, tmp_path: Path) -> None:
    assert user_server().version() >= 40
    keys = {path: path.stat().st_mtime_ns for path in (tmp_path / "home").rglob("*")}
    owner = subprocess.run(["ss", "-Hltnp", f"sport = {user_adb}"], capture_output=True, text=True, check=True).stdout
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "results")) as (device,):
        assert device.shell(["true"], 10).exit_code == 0
        assert [row.address for row in list_devices() if row.state == "device"] == ["local"]
    assert subprocess.run(["ss", "-Hltnp", f"sport = {user_adb}"], capture_output=True, text=True, check=True).stdout == owner
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "home").rglob("*")} == keys


def test_a_virtual_device_starts_no_server_of_the_users(user_adb: int, tmp_path: Path) -> None:
    with connect(parse_addresses(["virtual:s25", "local"]), layout=Layout(tmp_path / "results")):
        pass
    assert list((tmp_path / "home").iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", user_adb), timeout=5)


def test_nothing_is_started_on_a_port_that_is_taken(user_adb: int, tmp_path: Path) -> None:
    taken = socket.socket()
    with taken:
        taken.bind(("127.0.0.1", user_adb))  # bound, but nobody answers
        with raising(DeviceError):
            user_server()


def test_what_answers_but_is_no_adb_server_is_said_to_be_none(user_adb: int) -> None:
    with socket.create_server(("127.0.0.1", user_adb)) as server:
        child = os.fork()
        if child == 0:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            os._exit(0)
        with raising(DeviceError, "adb"):
            user_server()
        os.waitpid(child, 0)


def test_without_a_server_the_other_devices_are_still_listed(
    user_adb: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.9:{user_adb}")
    assert {row.address for row in list_devices()} >= {"local", "virtual:s25", "virtual:tabs11"}
    says(caplog.text, "adb", f"127.0.0.9:{user_adb}")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, TcpEndpoint(host="127.0.0.1", port=5037)),
        ({"ANDROID_ADB_SERVER_PORT": "5038"}, TcpEndpoint(host="127.0.0.1", port=5038)),
        ({"ANDROID_ADB_SERVER_ADDRESS": "farm", "ANDROID_ADB_SERVER_PORT": "1"}, TcpEndpoint(host="farm", port=1)),
        ({"ADB_SERVER_SOCKET": "tcp:farm:5039", "ANDROID_ADB_SERVER_PORT": "1"}, TcpEndpoint(host="farm", port=5039)),
        ({"ADB_SERVER_SOCKET": "tcp:5040"}, TcpEndpoint(host="127.0.0.1", port=5040)),
        ({"ADB_SERVER_SOCKET": "localfilesystem:/run/adb.sock"}, UnixEndpoint(path=Path("/run/adb.sock"))),
    ],
)
def test_the_server_is_where_adb_would_look_for_it(
    environment: dict[str, str], expected: TcpEndpoint | UnixEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert server_endpoint() == expected


@pytest.mark.parametrize(
    "environment", [{"ANDROID_ADB_SERVER_PORT": "adb"}, {"ADB_SERVER_SOCKET": "usb"}, {"ADB_SERVER_SOCKET": "tcp:x"}]
)
def test_a_wrong_server_address_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=next(iter(environment))):
        server_endpoint()


def test_an_attached_phone_is_found_by_profile_serial_or_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path)):
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/devices/virtual-s25/system/run/adb.sock")
        serial = "127.0.0.1:5640"
        for address in ("s25", serial, f"s25@{serial}"):
            with connect(parse_addresses([address]), layout=Layout(tmp_path)) as (phone,):
                assert (phone.family, phone.serial, phone.facts.profile) == ("adb", serial, "s25")
        monkeypatch.setenv("ANDROID_SERIAL", serial)
        with connect([], layout=Layout(tmp_path)) as (phone,):
            assert phone.serial == serial
        with (
            raising(UserError),
            connect(parse_addresses(["s25", serial]), layout=Layout(tmp_path)),
        ):
            pass
        with raising(DeviceNotFoundError, "tabs11", "127.0.0.1:5640", "s25", "/adb.sock", "ADB_SERVER_SOCKET=tcp"):
            connect(parse_addresses(["tabs11"]), layout=Layout(tmp_path)).__enter__()
        assert next((row.address, row.model) for row in list_devices() if row.profile == "s25") == (f"s25@{serial}", "SM-S931B")
