"""A connection that breaks costs nothing but time: what runs on a phone goes on, and what it says arrives whole and once."""

import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.adb_link import BOOT, Phone, restart_adbd
from support.device_contract import state_of, wait_until_gone
from support.sentences import raising

from quadbench.devices import adb_commands
from quadbench.devices.adb_protocol import AdbServer, TcpEndpoint
from quadbench.errors import CommandError, CommandTimeoutError, DeviceLostError

COUNT = "for i in $(seq 1 {lines}); do echo line $i; sleep {pause}; done; echo the end >&2; exit {status}"


def counting(lines: int = 60, pause: float = 0.05, status: int = 0) -> list[str]:
    return ["sh", "-c", COUNT.format(lines=lines, pause=pause, status=status)]


def expected(lines: int) -> list[str]:
    return [f"line {number}" for number in range(1, lines + 1)]


@pytest.mark.slow
def test_no_line_is_lost_or_doubled_where_the_cable_is_pulled_again_and_again(phone: Phone) -> None:
    cuts = [(0.7, phone.link.cut), (0.5, phone.link.mend)] * 3
    phone.later(*cuts)
    assert list(phone.lines(counting(120))) == expected(120)
    assert phone.link.cuts == 3


def test_exit_code_and_the_end_of_stderr_come_over_another_connection(phone: Phone) -> None:
    phone.later((0.5, phone.link.cut), (2.0, phone.link.mend))
    lines: list[str] = []
    with pytest.raises(CommandError) as caught:
        lines += phone.lines(counting(20, status=3))
    assert (caught.value.status, caught.value.stderr_tail) == (3, "the end")


@pytest.mark.slow
def test_a_command_goes_on_where_adbd_itself_is_killed_and_comes_back(phone: Phone) -> None:
    restart_adbd(phone.beside, after_s=0.8, away_s=1)
    assert list(phone.lines(counting(100))) == expected(100)


@pytest.mark.slow
def test_a_command_is_started_once_wherever_the_connection_breaks_while_it_is_started(phone: Phone) -> None:
    starts = f"{phone.folder}-starts"
    script = f"echo $$ >>{starts}; {counting(3)[2]}"
    moments = [(words, after) for words in (b"setsid", BOOT) for after in (False, True)]  # of the request, and of the answer
    for number, (words, after) in enumerate(moments, start=1):
        phone.link.cut_at(words, after=after)
        phone.later((0.3, phone.link.mend))
        assert list(phone.lines(["sh", "-c", script])) == expected(3)
        assert phone.link.cuts == number
        assert len(phone.beside.shell(["cat", starts], 10).stdout.splitlines()) == number


@pytest.mark.slow
def test_a_link_that_is_silent_is_taken_for_lost(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_commands, "SILENCE_S", 2.0)
    phone.later((0.5, phone.link.hold), (3.0, phone.link.cut), (0.1, phone.link.mend))
    assert list(phone.lines(counting(60))) == expected(60)


@pytest.mark.slow
def test_a_harness_that_says_nothing_for_long_is_not_taken_for_lost(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_commands, "SILENCE_S", 2.0)
    assert list(phone.lines(["sh", "-c", "sleep 5; echo done"])) == ["done"]


def test_a_phone_that_stays_away_is_lost_and_the_message_says_how_long_it_was_waited_for(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 1.5)
    phone.later((0.5, phone.link.cut))
    lines: list[str] = []
    with raising(DeviceLostError, "s25", "1.5"):
        lines += phone.lines(counting(200))
    assert lines == expected(len(lines))


def test_a_phone_that_rebooted_is_told_from_one_that_was_unplugged(phone: Phone) -> None:
    phone.later((1.0, phone.link.cut), (0.0, phone.link.reboot), (0.5, phone.link.mend))
    lines: list[str] = []
    with raising(DeviceLostError, "s25"):
        lines += phone.lines(counting(200))
    assert lines


def test_a_command_that_somebody_kills_with_all_its_kind_is_gone_and_its_last_words_are_told(phone: Phone) -> None:
    script = "echo the last words >&2; echo $PPID; sleep 60"
    with closing(phone.lines(["sh", "-c", script])) as lines:
        phone.beside.shell(["kill", "-KILL", f"-{next(lines)}"], 10)
        with raising(DeviceLostError, "sh", "s25"):
            next(lines)


@pytest.mark.slow
def test_a_command_that_takes_too_long_is_killed_once_the_phone_is_back(phone: Phone) -> None:
    pids = f"{phone.folder}-pids"
    phone.later((0.5, phone.link.cut), (1.0, phone.link.mend))
    with raising(CommandTimeoutError, "still running on device 's25' after 2 s"):
        list(phone.lines(["sh", "-c", f"sleep 60 & echo $$ $! >{pids}; wait"], timeout_s=2))
    for process in phone.beside.shell(["cat", pids], 10).stdout.split():
        wait_until_gone(phone.beside, process)


def test_what_was_written_just_before_the_deadline_is_read(phone: Phone) -> None:
    lines: list[str] = []
    with pytest.raises(CommandTimeoutError):
        lines += phone.lines(["sh", "-c", "n=0; while :; do echo $((n+=1)); sleep 0.02; done"], timeout_s=2)
    written = phone.beside.shell(["cat", f"{phone.folder}/stdout"], 10).stdout
    assert lines == written.split("\n")[:-1]


@pytest.mark.slow
def test_what_was_written_just_before_a_reboot_is_read(phone: Phone) -> None:
    phone.later((1.0, phone.link.cut), (0.0, phone.link.reboot), (1.5, phone.link.mend))
    lines: list[str] = []
    with raising(DeviceLostError, "rebooted after"):
        lines += phone.lines(["sh", "-c", "echo first; sleep 2; echo last; sleep 60"])
    assert lines == ["first", "last"]


@pytest.mark.slow
def test_a_command_may_be_away_for_longer_than_what_the_device_adds_to_its_time(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_commands, "SPARE_S", 0.5)
    phone.later((0.5, phone.link.cut), (5.5, phone.link.mend))
    assert list(phone.lines(["sh", "-c", "sleep 7; echo the end"], timeout_s=4)) == ["the end"]


@pytest.mark.slow
def test_a_command_ends_by_itself_where_nobody_comes_back(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 0.1)
    monkeypatch.setattr(adb_commands, "AWAY_S", 0.5)
    monkeypatch.setattr(adb_commands, "SPARE_S", 0.5)
    phone.later((0.8, phone.link.cut))
    lines: list[str] = []
    with pytest.raises(DeviceLostError):
        lines += phone.lines(["sh", "-c", "echo $$; exec sleep 60"], timeout_s=1)
    assert state_of(phone.beside, lines[0])
    time.sleep(3)
    assert state_of(phone.beside, lines[0]) in ("", "Z")


def test_a_file_that_grows_without_end_does_not_fill_the_phone(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_commands, "FILE_LIMIT_BYTES", 2**20)
    lines: list[str] = []
    with pytest.raises(CommandError) as caught:
        lines += phone.lines(["sh", "-c", "while :; do echo a line of some length to fill the file with; done"])
    assert caught.value.status == 128 + signal.SIGXFSZ
    assert sum(len(line) + 1 for line in lines) in range(2**20 - 100, 2**20 + 2)


def test_closing_a_device_ends_what_waits_for_it(phone: Phone) -> None:
    phone.later((0.5, phone.link.cut), (0.5, phone.device.close))
    began = time.monotonic()
    with pytest.raises(DeviceLostError):
        list(phone.lines(counting(300)))
    assert time.monotonic() - began < 10


# Files and commands


@pytest.mark.parametrize(
    "state", ["device still connecting", "device still authorizing", "device offline", "device 'x' not found"]
)
def test_a_device_that_is_not_ready_yet_is_lost_and_not_refused(state: str) -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"FAIL" + f"{len(state):04x}{state}".encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        there = AdbServer(endpoint=TcpEndpoint(host="127.0.0.1", port=server.getsockname()[1]))
        with raising(DeviceLostError, "s25", state):
            there.open("x", "sync:", "device 's25'")


def lose_for_a_moment(phone: Phone) -> None:
    """Have the next thing that is done lose its connection in the middle."""
    phone.link.hold()
    phone.later((0.5, phone.link.cut), (1.0, phone.link.mend))


def test_a_file_that_is_pulled_arrives_over_another_connection(phone: Phone, tmp_path: Path) -> None:
    phone.beside.shell(["sh", "-c", f"mkdir -p {phone.folder}; seq 100000 >{phone.folder}/numbers"], 10)
    lose_for_a_moment(phone)
    phone.device.pull(f"{phone.folder}/numbers", tmp_path / "numbers")
    assert (tmp_path / "numbers").read_text().split() == [str(number) for number in range(1, 100001)]


def test_a_command_that_is_cut_off_is_run_again(phone: Phone) -> None:
    lose_for_a_moment(phone)
    assert phone.device.shell(["echo", "the answer"], 10).stdout == "the answer\n"
    assert phone.link.cuts == 1


@pytest.mark.slow
def test_a_file_is_pushed_again_after_a_reboot_and_nothing_else_goes_on(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    assert list(phone.lines(["echo", "begun"])) == ["begun"]
    phone.link.reboot()
    lose_for_a_moment(phone)
    with raising(DeviceLostError, "device 's25' rebooted meanwhile"):
        phone.device.shell(["true"], 10)
    assert list(phone.lines(["echo", "begun"])) == ["begun"]
    phone.link.reboot()
    lose_for_a_moment(phone)
    phone.device.push({f"{phone.folder}/file": tmp_path / "file"})
    assert phone.device.shell(["cat", f"{phone.folder}/file"], 10).stdout == "content"


@pytest.mark.slow
def test_what_is_lost_again_and_again_is_given_up(phone: Phone) -> None:
    phone.later(*[(2.0, phone.link.cut), (0.1, phone.link.mend)] * 20)
    with raising(DeviceLostError, "'s25' was lost: ", ", 5 times"):
        phone.device.shell(["sleep", "60"], 60)


def test_a_phone_that_stays_away_is_waited_for_once(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 3.0)
    phone.link.cut()
    for seconds in (3.0, 0.0):
        began = time.monotonic()
        with pytest.raises(DeviceLostError):
            phone.device.shell(["true"], 10)
        assert seconds <= time.monotonic() - began < seconds + 2.5
    phone.link.mend()
    assert phone.device.shell(["true"], 10).exit_code == 0


def test_a_phone_is_ready_once_it_is_there_and_has_booted(phone: Phone, tmp_path: Path) -> None:
    properties = tmp_path / "devices/virtual-s25/system/system/etc/properties"
    booted = properties.read_text()
    assert phone.device.is_ready()
    properties.write_text(booted.replace("[sys.boot_completed]: [1]", "[sys.boot_completed]: [0]"))
    assert not phone.device.is_ready()
    phone.link.cut()
    properties.write_text(booted)
    assert not phone.device.is_ready()
    phone.link.mend()
    assert phone.device.is_ready()
    phone.device.close()
    with pytest.raises(DeviceLostError) as caught:
        phone.device.is_ready()
    assert not caught.value.transient
