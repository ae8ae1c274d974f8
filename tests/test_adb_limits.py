"""Limits on what an adb server and the devices behind it say: of time where bytes drip, and of what is listed and believed."""

import contextlib
import json
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from support.fake_adb import DRIP_S, Answer, FakeAdb, packet, text
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.devices import adb, adb_commands, adb_protocol, connections, list_devices
from quadbench.devices.adb import receive_file
from quadbench.devices.adb_commands import AdbCommands
from quadbench.devices.adb_protocol import AdbServer, TcpEndpoint, packets
from quadbench.devices.adb_transport import AdbError, Connection
from quadbench.errors import DeviceError, DeviceLostError
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout

LIMIT_S = 0.5  # ten drips: each comes in time, the whole does not
GENEROUS_S = 60 * LIMIT_S  # a busy machine; without a limit a dripping answer takes hours
ENDLESS = b"x" * 0xFFFF
PHONE = "R5CT1  device product:p model:SM_X916B device:d transport_id:1\n"
Serve = Callable[[Mapping[str, Answer]], FakeAdb]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_protocol, "REQUEST_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(adb, "PROPERTIES_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(adb_commands, "START_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(adb, "STALL_TIMEOUT_S", LIMIT_S)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server, which is the user's."""
    with contextlib.ExitStack() as stack:

        def start(answers: Mapping[str, Answer]) -> FakeAdb:
            server = FakeAdb(answers)
            stack.callback(server.close)
            monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{server.port}")
            monkeypatch.delenv("ANDROID_SERIAL", raising=False)
            return server

        yield start


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < GENEROUS_S


def listed(content: str) -> dict[str, Answer]:
    return {"host:devices-l": Answer(content=text(content))}


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(
    "answers",
    [
        {"host:version": Answer(content=b"ffff" + ENDLESS, drips=True)},
        {"host:devices-l": Answer(content=b"ffff" + ENDLESS, drips=True)},
        listed(PHONE) | {"shell,v2,raw:getprop": Answer(content=packet(1, ENDLESS), drips=True)},
        listed(PHONE) | {"shell,v2,raw:getprop": Answer(content=packet(1, b"") * 9999, drips=True)},
        listed(PHONE) | {"host:transport:": Answer(content=b"OKAY" + ENDLESS, drips=True)},
    ],
    ids=["version", "list", "properties", "empty packets", "transport"],
)
def test_phones_of_a_server_that_drips_are_listed_in_time(serve, answers):
    serve(answers)
    with in_time():
        assert "local" in {row.address for row in list_devices()}


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("command", [["devices"], ["doctor", "--device", "tabs11@R5CT1"]])
def test_commands_end_in_time_beside_a_phone_that_drips(serve, tmp_path, capsys, command):
    serve(listed(PHONE) | {"shell,v2,raw:": Answer(content=packet(1, ENDLESS), drips=True)})
    with in_time():
        main([*command, "--results", str(tmp_path)])
    assert capsys.readouterr().out


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("drips", [True, False])
@pytest.mark.parametrize("said", [b"9" * 900, b"9" * 5000 + b"\n", b"9" * 20 + b"\n", b"none\n"])
def test_a_command_whose_process_has_no_number_or_drips_is_not_started(serve, said, drips):
    server = serve({"shell,v2,raw:": Answer(content=packet(1, said) + packet(3, b"\0"), drips=drips)})
    commands = AdbCommands(AdbServer(endpoint=TcpEndpoint(host="127.0.0.1", port=server.port)), "R5CT1", "device 'it'")
    with in_time(), raising(DeviceError, "true") as refused:
        commands.shell(["true"], 60)
    assert len(str(refused.value)) < 2000


@contextlib.contextmanager
def connection_to(content: Callable[[socket.socket], None]) -> Iterator[Connection]:
    """Yield a connection at whose other end a function writes until it is closed."""
    near, far = socket.socketpair()

    def write() -> None:
        with contextlib.suppress(OSError), far:
            content(far)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    near.settimeout(LIMIT_S)
    with Connection(near, "device 'it'") as connection:
        yield connection
    thread.join()


def drip(content: bytes) -> Callable[[socket.socket], None]:
    def write(far: socket.socket) -> None:
        for byte in content:
            far.sendall(bytes([byte]))
            time.sleep(DRIP_S)

    return write


def test_packets_end_with_their_deadline_however_slowly_a_packet_comes():
    with connection_to(drip(packet(1, ENDLESS))) as connection, in_time(), pytest.raises(TimeoutError):
        list(packets(connection, time.monotonic() + LIMIT_S, silence_s=60))


def test_silence_within_packets_is_told_from_their_deadline():
    def fall_silent(far: socket.socket) -> None:
        far.sendall(packet(1, b"one") + b"\1")
        far.recv(1)

    with connection_to(fall_silent) as connection, in_time():
        read = packets(connection, time.monotonic() + GENEROUS_S, silence_s=LIMIT_S)
        assert next(read).data == b"one"
        with raising(DeviceLostError, f"{LIMIT_S:g}"):
            next(read)


def test_a_packet_that_is_larger_than_any_is_refused_before_it_is_read():
    with connection_to(drip(b"\1" + struct.pack("<I", 2**31))) as connection, raising(DeviceError, 2147483648, 1048576):
        next(packets(connection, time.monotonic() + GENEROUS_S))


@pytest.mark.parametrize("said", [b"zzzz", b"0004zzzz", b"-001", b"00", b"0_04abcd"])
def test_a_server_that_counts_in_no_numbers_is_said_to_be_none(serve, said):
    server = serve({"host:version": Answer(content=said)})
    with pytest.raises(DeviceError):
        AdbServer(endpoint=TcpEndpoint(host="127.0.0.1", port=server.port)).version()


def test_what_a_server_says_in_many_lines_is_told_in_one_that_is_cut(serve, tmp_path, capsys):
    flood = b"\x1b[31m<b>\n" * 7000
    serve({"host:devices-l": Answer(content=b"%04x" % len(flood) + flood, status=b"FAIL")})
    main(["devices", "--results", str(tmp_path)])
    said = capsys.readouterr().err
    assert "refuses" in said
    assert len(said) < 4000
    assert "\x1b" not in said


REGULAR = b"STAT" + struct.pack("<III", 0o100644, 1000, 0)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(
    ("pieces", "error", "match"),
    [
        ([b"DATA" + struct.pack("<I", 0)] * 100_000, DeviceError, (0,)),
        ([b"DATA" + struct.pack("<I", 1) + b"x"] * 100_000, DeviceLostError, (16384,)),
        ([b"DATA" + struct.pack("<I", 60_000), *([b"x"] * 60_000)], DeviceLostError, ()),
        ([b"DATA" + struct.pack("<I", 2**31)], DeviceError, (2147483648, 65536)),
        ([b"FAIL" + struct.pack("<I", 2**31)], DeviceError, (2147483648, 65536)),
    ],
    ids=["empty messages", "small messages", "one message", "large message", "large reason"],
)
def test_a_file_is_received_in_time_or_not_at_all(tmp_path, pieces, error, match):
    def send(far: socket.socket) -> None:
        far.sendall(REGULAR)
        for piece in pieces:
            far.sendall(piece)
            time.sleep(DRIP_S)

    with connection_to(send) as connection, in_time(), raising(error, *match):
        receive_file(connection, "/data/it", tmp_path / "it", "device 'it'", 1000_000)
    assert list(tmp_path.iterdir()) == []


def test_phones_are_asked_several_at_a_time_and_only_so_many(serve, monkeypatch, caplog):
    monkeypatch.setattr(connections, "MAX_PHONES", 40)
    phones = "".join(f"serial{i}  device model:m transport_id:{i + 1}\n" for i in range(60))
    server = serve(listed(phones) | {"shell,v2,raw:getprop": Answer(content=packet(3, b"\0"))})
    rows = [row for row in list_devices() if row.is_phone]
    assert [row.serial for row in rows] == [f"serial{i}" for i in range(40)]
    assert 1 < server.most_at_once <= connections.MAX_PARALLEL_QUERIES
    assert "60 phones" in caplog.text


def test_what_a_phone_says_of_itself_is_listed_only_so_long(serve, tmp_path, capsys):
    properties = f"[ro.product.model]: [{'m' * 60_000}]\n[ro.soc.model]: [{'c' * 60_000}]\n".encode()
    getprop = Answer(content=packet(1, properties) + packet(3, b"\0"))
    serve(listed(f"{PHONE}{'s' * 30_000}  device\n") | {"shell,v2,raw:getprop": getprop})
    main(["devices", "--json", "--results", str(tmp_path)])
    printed, said = capsys.readouterr()
    assert [row["serial"] for row in json.loads(printed) if row["state"] == "device" and row["serial"] != "local"] == ["R5CT1"]
    assert len(printed) < 10_000
    assert "30000 characters" in " ".join(said.split())
    assert len(said) < 2000


def test_a_phone_that_is_gone_can_be_forgotten(serve, tmp_path, capsys):
    server = serve(listed(PHONE) | {"shell,v2,raw:getprop": Answer(content=packet(3, b"\0"))})
    options = ["--results", str(tmp_path)]
    open_engine(database_of(Layout(tmp_path))).dispose()  # a list of devices alone makes none
    assert main(["devices", *options]) == 0
    assert main(["devices", "forget", "R5CT1", *options]) == 2  # it is here
    says(capsys.readouterr().err)
    server.answers |= listed("")
    assert main(["devices", *options]) == 0
    assert "R5CT1" in capsys.readouterr().out
    assert main(["devices", "forget", "R5CT1", *options]) == 0
    capsys.readouterr()
    assert main(["devices", *options]) == 0
    assert "R5CT1" not in capsys.readouterr().out


OKAY, FAIL = b"OKAY" + bytes(4), b"FAIL" + struct.pack("<I", 4) + b"full"


@pytest.mark.parametrize("answer", [OKAY, FAIL])
def test_an_answer_that_comes_before_a_file_was_sent_ends_the_push(tmp_path, answer):
    """The first answer comes at once, so that most of the file stays unsent."""
    (tmp_path / "large").write_bytes(bytes(2**24))
    with connection_to(lambda far: (far.sendall(answer), far.recv(1), far.recv(1))) as connection:
        select.select([connection.conn], [], [])
        with raising(AdbError):
            list(connection.files().push_files({"/there": tmp_path / "large"}))


def test_files_are_sent_without_waiting_and_confirmed_in_order(tmp_path):
    """The peer answers when it has read all: who waited for the first confirmation would wait for ever."""
    files = {f"/there/{number}": tmp_path / str(number) for number in range(3)}
    for path in files.values():
        path.write_bytes(path.name.encode())
    sent = b"".join(
        b"SEND" + struct.pack("<I", len(name)) + name + b"DATA" + struct.pack("<I", 1) + name[7:8] + b"DONE" + bytes(4)
        for name in (f"{remote},33188".encode() for remote in files)
    )
    received = bytearray()

    def answer(far: socket.socket) -> None:
        received.extend(far.recv(len(sent), socket.MSG_WAITALL))
        far.sendall(OKAY + OKAY + FAIL)

    confirmed = []
    with connection_to(answer) as connection, pytest.raises(AdbError, match="full"):
        confirmed.extend(connection.files().push_files(files))
    assert confirmed == ["/there/0", "/there/1"]
    times = re.sub(rb"DONE....", b"DONE" + bytes(4), bytes(received), flags=re.DOTALL)
    assert times == sent


def test_the_reason_of_a_peer_that_closes_while_files_come_is_read(tmp_path):
    """It says why, closes and takes no more: the failure of its socket alone would look like a pulled cable."""
    (tmp_path / "large").write_bytes(bytes(2**24))

    def refuse(far: socket.socket) -> None:
        far.recv(1)
        far.sendall(FAIL)

    with connection_to(refuse) as connection:
        connection.has_answer = lambda: False  # the answer comes between the look for it and the next send
        with pytest.raises(AdbError, match="full"):
            list(connection.files().push_files({"/there": tmp_path / "large"}))
